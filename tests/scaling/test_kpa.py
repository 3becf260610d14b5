"""The KPA core: tables of frozen cases, then properties. Exactness against Knative is test_kpa_conformance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.scaling.kpa import (
    KpaReason,
    KpaResult,
    KpaSpec,
    KpaState,
    KpaWindows,
    NoReadyCount,
    Ready,
    scale,
    start,
)
from autoscaler.scaling.windows import MaximumWindow

SPEC = KpaSpec(
    target_value=10.0,
    total_value=20.0,
    max_scale_up_rate=10.0,
    max_scale_down_rate=2.0,
    target_burst_capacity=0.0,
    panic_threshold_ratio=2.0,
    stable_window_s=60.0,
)
CALM = KpaState(panic_at_ms=None, panic_peak=0, delay=None)
PANIC = KpaState(panic_at_ms=0, panic_peak=8, delay=None)


@dataclass(frozen=True)
class DecisionCase:
    sentence: str
    ready: Ready
    stable: float
    panic: float
    desired: int
    reasons: tuple[KpaReason, ...]
    spec: dict[str, Any] = field(default_factory=dict)
    state: KpaState = CALM
    now_s: float = 10.0


R = KpaReason
DECISIONS = [
    DecisionCase("demand is rounded up", 4, 41, 41, 5, (R.STABLE_DEMAND,)),
    DecisionCase("what fits exactly is not rounded", 4, 40, 40, 4, (R.STABLE_DEMAND,)),
    DecisionCase("no epsilon: 2.1 / 0.7 is above 3", 4, 2.1, 2.1, 4, (R.STABLE_DEMAND,), {"target_value": 0.7}),
    DecisionCase("outside panic the panic count has no say", 4, 41, 70, 5, (R.STABLE_DEMAND,)),
    DecisionCase(
        "growth is limited to the rate, rounded up",
        2,
        100,
        100,
        3,
        (R.STABLE_DEMAND, R.SCALE_UP_RATE),
        {"max_scale_up_rate": 1.1, "panic_threshold_ratio": 100.0},
    ),
    DecisionCase(
        "no epsilon: 1.1 times 50 is above 55",
        50,
        1000,
        0,
        56,
        (R.STABLE_DEMAND, R.SCALE_UP_RATE),
        {"max_scale_up_rate": 1.1},
    ),
    DecisionCase("shrinking is limited to the rate, rounded down", 9, 10, 10, 4, (R.STABLE_DEMAND, R.SCALE_DOWN_RATE)),
    DecisionCase("nothing holds an unreachable one", 9, 10, 10, 1, (R.STABLE_DEMAND,), {"reachable": False}),
    DecisionCase("no ready replica counts as one for the limits", 0, 95, 5, 10, (R.STABLE_DEMAND,)),
    DecisionCase(
        "a missing object counts as no replica", NoReadyCount.NOT_FOUND, 950, 5, 10, (R.STABLE_DEMAND, R.SCALE_UP_RATE)
    ),
    DecisionCase(
        "any demand wakes the activation scale",
        1,
        1,
        1,
        5,
        (R.STABLE_DEMAND, R.ACTIVATION_SCALE),
        {"activation_scale": 5},
    ),
    DecisionCase(
        "the activation scale may pass the limit",
        1,
        90,
        1,
        5,
        (R.STABLE_DEMAND, R.SCALE_UP_RATE, R.ACTIVATION_SCALE),
        {"activation_scale": 5, "max_scale_up_rate": 2.0},
    ),
    DecisionCase(
        "without demand it sleeps, also when the limit keeps some",
        4,
        0,
        0,
        2,
        (R.STABLE_DEMAND, R.SCALE_DOWN_RATE),
        {"activation_scale": 5},
    ),
    DecisionCase("panic begins at the threshold", 2, 20, 40, 4, (R.PANIC_DEMAND,)),
    DecisionCase("the panic count is rounded before it is compared", 2, 20, 31, 4, (R.PANIC_DEMAND,)),
    DecisionCase("in panic a larger stable count still counts", 2, 50, 40, 5, (R.STABLE_DEMAND,)),
    DecisionCase(
        "in panic nothing goes down", 8, 10, 10, 8, (R.STABLE_DEMAND, R.SCALE_DOWN_RATE, R.PANIC_MEMORY), {}, PANIC
    ),
    DecisionCase(
        "a panic still lasts when exactly the stable window is over",
        8,
        10,
        10,
        8,
        (R.STABLE_DEMAND, R.SCALE_DOWN_RATE, R.PANIC_MEMORY),
        {},
        PANIC,
        60.0,
    ),
    DecisionCase(
        "also where 1.029 + 60 is below 61.029 in floats",
        8,
        10,
        10,
        8,
        (R.STABLE_DEMAND, R.SCALE_DOWN_RATE, R.PANIC_MEMORY),
        {},
        msgspec.structs.replace(PANIC, panic_at_ms=1029),
        61.029,
    ),
    DecisionCase(
        "a millisecond later it is over",
        8,
        10,
        10,
        4,
        (R.STABLE_DEMAND, R.SCALE_DOWN_RATE),
        {},
        PANIC,
        60.001,
    ),
    DecisionCase(
        "the delay holds the largest of its window",
        4,
        30,
        30,
        9,
        (R.STABLE_DEMAND, R.SCALE_DOWN_DELAY),
        {},
        msgspec.structs.replace(CALM, delay=MaximumWindow.empty(10).record(4, 9)),
    ),
    DecisionCase(
        "and forgets it afterwards",
        4,
        30,
        30,
        3,
        (R.STABLE_DEMAND,),
        {},
        msgspec.structs.replace(CALM, delay=MaximumWindow.empty(6).record(4, 9)),
    ),
    DecisionCase(
        "the delay does not hold an unreachable one",
        4,
        30,
        30,
        3,
        (R.STABLE_DEMAND,),
        {"reachable": False},
        msgspec.structs.replace(CALM, delay=MaximumWindow.empty(10).record(4, 9)),
    ),
    DecisionCase("counts stop at 32 bits", 4, 1e300, 0, 2147483647, (R.STABLE_DEMAND,), {"max_scale_up_rate": 1e300}),
]


@pytest.mark.parametrize("case", DECISIONS, ids=lambda case: case.sentence)
def test_decision(case: DecisionCase) -> None:
    spec = replace(SPEC, **case.spec)
    result, _ = scale(spec, case.state, case.ready, case.stable, case.panic, case.now_s)
    assert (result.desired, result.reasons, result.valid) == (case.desired, case.reasons, True)
    assert result.bound_by is case.reasons[-1]


def test_a_decision_carries_its_arithmetic() -> None:
    spec = replace(SPEC, max_scale_up_rate=2.0, target_burst_capacity=5.0)
    result, state = scale(spec, CALM, 4, 63.0, 95.0, 7.25)
    numbers = result.arithmetic
    assert numbers is not None
    assert (numbers.ready, numbers.lower_limit, numbers.upper_limit) == (4, 2, 8)
    assert (numbers.stable.average, numbers.stable.raw, numbers.stable.limited, numbers.stable.count) == (63.0, 7, 7, 7)
    assert (numbers.panic.average, numbers.panic.raw, numbers.panic.limited, numbers.panic.count) == (95.0, 10, 8, 8)
    assert numbers.panic.bound_by == (KpaReason.SCALE_UP_RATE,)
    assert (numbers.panic_ratio, numbers.over_threshold, numbers.panicking) == (2.5, True, True)
    assert (numbers.panic_peak, numbers.undelayed) == (8, 8)
    assert (result.desired, result.excess_burst_capacity) == (8, -20)
    assert state == KpaState(panic_at_ms=7250, panic_peak=8, delay=None)


@pytest.mark.parametrize(
    ("sentence", "ready", "total", "wish", "panic", "left"),
    [
        ("capacity minus wish minus panic, rounded down", 10, 20.0, 100.0, 75.5, 24),
        ("also below zero", 0, 20.0, 100.0, 75.5, -176),
        ("switched off", 10, 20.0, 0.0, 75.5, 0),
        ("an unlimited wish is never met", 10, 20.0, -1.0, 75.5, -1),
        ("a missing object has no capacity", NoReadyCount.NOT_FOUND, 20.0, 1.0, 0.0, -1),
    ],
)
def test_excess_burst_capacity(sentence: str, ready: Ready, total: float, wish: float, panic: float, left: int) -> None:
    spec = replace(SPEC, total_value=total, target_burst_capacity=wish)
    result, _ = scale(spec, CALM, ready, 0.0, panic, 10.0)
    assert result.excess_burst_capacity == left, sentence


@pytest.mark.parametrize(
    ("sentence", "ready", "state"),
    [
        ("no replica: calm", 0, KpaState(None, 0, None)),
        ("one replica: calm, but remembered", 1, KpaState(None, 1, None)),
        ("more: panic, so that nothing goes down before there is data", 2, KpaState(5500, 2, None)),
        ("nothing found: as without replicas", NoReadyCount.NOT_FOUND, KpaState(None, 0, None)),
        ("nothing known: as without replicas", NoReadyCount.UNREADABLE, KpaState(None, 0, None)),
    ],
)
def test_start(sentence: str, ready: Ready, state: KpaState) -> None:
    assert start(SPEC, ready, 5.5) == state, sentence


def test_a_delay_of_zero_at_the_start_is_none_for_good() -> None:
    state = start(SPEC, 1, 0.0)
    delayed = replace(SPEC, scale_down_delay_s=600.0)
    _, state = scale(delayed, state, 9, 90.0, 90.0, 2.0)
    result, _ = scale(delayed, state, 9, 50.0, 50.0, 4.0)
    assert result.desired == 5


def test_a_delay_stays_as_long_as_it_was_at_the_start() -> None:
    state = start(replace(SPEC, scale_down_delay_s=10.0), 1, 0.0)
    _, state = scale(SPEC, state, 9, 90.0, 90.0, 2.0)
    held, state = scale(SPEC, state, 9, 50.0, 50.0, 11.9)
    freed, _ = scale(SPEC, state, 9, 50.0, 50.0, 12.0)
    assert (held.desired, freed.desired) == (9, 5)


@pytest.mark.parametrize(
    ("ready", "stable", "panic", "reason"),
    [
        (NoReadyCount.UNREADABLE, 50.0, 50.0, KpaReason.READY_COUNT_UNREADABLE),
        (4, None, 50.0, KpaReason.NO_DATA),
        (4, 50.0, None, KpaReason.NO_DATA),
        (4, float("nan"), 50.0, KpaReason.NO_DATA),
        (4, 50.0, float("inf"), KpaReason.NO_DATA),
    ],
)
def test_without_facts_there_is_no_decision_and_no_change(
    ready: Ready, stable: float | None, panic: float | None, reason: KpaReason
) -> None:
    # long after the panic's end: only a valid call may end it
    assert scale(SPEC, PANIC, ready, stable, panic, 1000.0) == (KpaResult(None, None, (reason,), None), PANIC)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_value", 0.0),
        ("target_value", float("nan")),
        ("max_scale_up_rate", 0.0),
        ("max_scale_down_rate", -1.0),
        ("total_value", -1.0),
        ("total_value", float("inf")),
        ("target_burst_capacity", float("nan")),
        ("stable_window_s", -1.0),
        ("scale_down_delay_s", -0.1),
        ("activation_scale", -1),
    ],
)
def test_a_spec_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}, must be"):
        replace(SPEC, **{name: value})  # type: ignore[arg-type]


# The pair of windows


def test_without_samples_scraped_windows_have_no_data() -> None:
    assert KpaWindows.empty(60, 6).averages(0.0) is None


def test_without_samples_windows_that_nobody_scrapes_read_zero() -> None:
    assert KpaWindows.empty(60, 6, scraped=False).averages(0.0) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("sentence", "now_s", "averages"),
    [
        ("both see a fresh sample", 10, (5.0, 5.0)),
        ("a silent panic window is a 0, not an absence", 16, (5.0, 0.0)),
        ("after exactly a stable window the answer is still a number", 70, (0.0, 0.0)),
        ("after more there is none", 71, None),
    ],
)
def test_averages_of_60_s_and_6_s(sentence: str, now_s: float, averages: tuple[float, float] | None) -> None:
    windows = KpaWindows.empty(60, 6).record(8.5, 4.0).record(9.5, 6.0).record(10.0, 5.0)
    assert windows.averages(now_s) == averages, sentence


def test_both_windows_are_resized() -> None:
    windows = KpaWindows.empty(60, 6).record(8.0, 4.0).record(9.0, 8.0).resized(6, 1, 9.0)
    assert windows.averages(9.0) == (2.0, 8.0)


# Properties

values = st.floats(0.0, 500.0, allow_nan=False)
readies: st.SearchStrategy[Ready] = st.one_of(st.integers(0, 40), st.sampled_from(NoReadyCount))
specs = st.builds(
    KpaSpec,
    target_value=st.floats(0.5, 50.0),
    total_value=st.floats(0.5, 100.0),
    max_scale_up_rate=st.floats(1.01, 10.0),
    max_scale_down_rate=st.floats(1.01, 10.0),
    target_burst_capacity=st.sampled_from([-1.0, 0.0, 10.0, 211.0]),
    panic_threshold_ratio=st.floats(0.5, 4.0),
    stable_window_s=st.sampled_from([6.0, 30.0, 60.0]),
    scale_down_delay_s=st.sampled_from([0.0, 4.0, 30.0]),
    reachable=st.booleans(),
    activation_scale=st.sampled_from([0, 1, 3]),
)
Call = tuple[float, Ready, float | None, float | None]
calls: st.SearchStrategy[list[Call]] = st.lists(
    st.tuples(st.floats(0.0, 40.0), readies, st.none() | values, st.none() | values), min_size=1, max_size=12
)


def run(spec: KpaSpec, first_ready: Ready, timeline: list[Call]) -> list[tuple[KpaState, KpaResult, KpaState]]:
    """(state before, result, state after) of every call."""
    state = start(spec, first_ready, 0.0)
    now_s = 0.0
    trail = []
    for step_s, ready, stable, panic in timeline:
        now_s += step_s
        result, after = scale(spec, state, ready, stable, panic, now_s)
        trail.append((state, result, after))
        state = after
    return trail


@given(spec=specs, first_ready=readies, timeline=calls)
def test_the_same_timeline_gives_the_same_decisions(spec: KpaSpec, first_ready: Ready, timeline: list[Call]) -> None:
    assert run(spec, first_ready, timeline) == run(spec, first_ready, timeline)


@given(spec=specs, first_ready=readies, timeline=calls)
def test_a_call_without_a_decision_changes_no_state(spec: KpaSpec, first_ready: Ready, timeline: list[Call]) -> None:
    for before, result, after in run(spec, first_ready, timeline):
        if not result.valid:
            assert after is before
            assert result.arithmetic is None


@given(spec=specs, first_ready=readies, timeline=calls)
def test_only_named_rules_leave_the_limits(spec: KpaSpec, first_ready: Ready, timeline: list[Call]) -> None:
    above = {KpaReason.ACTIVATION_SCALE, KpaReason.PANIC_MEMORY, KpaReason.SCALE_DOWN_DELAY}
    for _, result, _ in run(spec, first_ready, timeline):
        if result.desired is None or result.arithmetic is None:
            continue
        assert result.desired >= result.arithmetic.lower_limit
        if result.desired > result.arithmetic.upper_limit:
            assert above & set(result.reasons)


@given(spec=specs, first_ready=readies, timeline=calls)
def test_nothing_goes_down_during_panic(spec: KpaSpec, first_ready: Ready, timeline: list[Call]) -> None:
    for before, result, after in run(spec, first_ready, timeline):
        if result.desired is not None and before.panicking and after.panicking:
            assert result.desired >= before.panic_peak
            assert after.panic_peak >= before.panic_peak


@given(spec=specs, first_ready=readies, timeline=calls)
def test_a_panic_needs_a_cause_and_ends_with_an_empty_memory(
    spec: KpaSpec, first_ready: Ready, timeline: list[Call]
) -> None:
    for before, result, after in run(spec, first_ready, timeline):
        if after.panicking and not before.panicking:
            assert result.arithmetic is not None
            assert result.arithmetic.over_threshold
        if before.panicking and not after.panicking:
            assert after.panic_peak == 0


@given(spec=specs, first_ready=readies, timeline=calls)
def test_the_reasons_tell_the_number_from_the_arithmetic(
    spec: KpaSpec, first_ready: Ready, timeline: list[Call]
) -> None:
    for before, result, _ in run(spec, first_ready, timeline):
        numbers = result.arithmetic
        if numbers is None:
            continue
        source = numbers.panic if result.reasons[0] is KpaReason.PANIC_DEMAND else numbers.stable
        plain = source.raw if not source.bound_by else source.count
        expected = {
            KpaReason.PANIC_MEMORY: before.panic_peak,
            KpaReason.SCALE_DOWN_DELAY: result.desired,
        }.get(result.bound_by, plain)
        assert result.desired == expected
        assert (result.bound_by is KpaReason.SCALE_DOWN_DELAY) is (result.desired != numbers.undelayed)
