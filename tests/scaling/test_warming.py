"""A policy that is led through kept values is the one that saw them live."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest

from autoscaler.model.past import Moment
from autoscaler.model.signal import Quality, Reading, Sample, SignalSpec, WorkloadSignals
from autoscaler.model.workload import KpaParameters, ScalingSpec
from autoscaler.scaling.decision import ScalingState
from autoscaler.scaling.policy import PolicyState, ask
from autoscaler.scaling.warming import wanted_s, warmed

CONCURRENCY = SignalSpec("concurrency", 10.0, 7.0)
KV_CACHE = SignalSpec("kv-cache", 0.8, 0.72)
WINDOW_S = 20
BEGIN = 1_000_000


def scaling(*signals: SignalSpec, delay_s: float = 0.0) -> ScalingSpec:
    kpa = KpaParameters(stable_window_s=WINDOW_S)
    (signal,) = signals
    return ScalingSpec(1, 50, 1, 1, signal, scale_down_delay_s=delay_s, kpa=kpa)


def moments(seconds: int, seed: int = 1, names: tuple[str, ...] = ("concurrency",)) -> list[Moment]:
    """A load that moves, and replicas that follow it now and then."""
    chance = random.Random(seed)
    found, load, ready = [], 30.0, 4
    for second in range(seconds):
        load = max(0.0, load + chance.uniform(-6, 6))
        ready = max(1, ready + chance.choice([0] * 12 + [-1, 1]))
        values = {name: load if name == "concurrency" else load / 100 for name in names}
        found.append(Moment(BEGIN + second, ready, values, frozenset(names)))
    return found


def live(spec: ScalingSpec, signal: SignalSpec, past: list[Moment]) -> PolicyState:
    """As the cycle does it: every second a reading with the last 16 samples."""
    state: PolicyState | None = None
    for at, moment in enumerate(past):
        kept = tuple(Sample(each.at_s, each.values[signal.name]) for each in past[max(0, at - 15) : at + 1])
        reading = Reading(signal.name, kept[-1].value, Quality.FRESH, kept, 0.0, moment.ready, moment.ready)
        signals = WorkloadSignals({signal.name: reading}, reading)
        state, _ = ask(spec, signal, state, signals, moment.ready, moment.at_s)
    assert state is not None
    return state


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("signal", [CONCURRENCY, KV_CACHE], ids=lambda each: each.name)
def test_after_the_wanted_past_it_decides_like_one_that_always_ran(signal: SignalSpec, seed: int) -> None:
    spec = scaling(signal)
    past = moments(200, seed, (signal.name,))
    always = live(spec, signal, past)
    (again,) = warmed(spec, past[-int(wanted_s(spec)) - 1 :])
    now = past[-1].at_s
    assert again.windows.averages(now) == pytest.approx(always.windows.averages(now))
    assert again.last_sample_at == always.last_sample_at
    assert (again.memory.panicking, again.memory.panic_at_ms) == (always.memory.panicking, always.memory.panic_at_ms)
    if always.memory.panicking:  # it may have begun earlier, and its peak be higher than what was kept says
        assert again.memory.panic_peak >= past[-1].ready
        return
    for later in moments(30, seed + 100, (signal.name,)):
        shifted = replace(later, at_s=now + 1 + later.at_s - BEGIN)
        answers = []
        for state in (always, again):
            value = shifted.values[signal.name]
            reading = Reading(
                signal.name, value, Quality.FRESH, (Sample(shifted.at_s, value),), 0.0, shifted.ready, shifted.ready
            )
            answers.append(
                ask(spec, signal, state, WorkloadSignals({signal.name: reading}, reading), shifted.ready, shifted.at_s)
            )
        (always, first), (again, second) = answers
        assert second.read.desired == first.read.desired
        assert second.read.stable == pytest.approx(first.read.stable)


def test_a_hole_is_where_trust_begins_anew() -> None:
    past = [each for each in moments(60) if not 30 <= each.at_s - BEGIN < 36]
    (state,) = warmed(scaling(CONCURRENCY), past)
    assert state.trusted_since == BEGIN + 36


def test_a_second_without_some_replicas_value_is_where_trust_begins_anew() -> None:
    past = moments(60)
    past[40] = replace(past[40], whole=frozenset())
    past[50] = replace(past[50], values={})
    (state,) = warmed(scaling(CONCURRENCY), past[:45])
    assert state.trusted_since == BEGIN + 41
    (state,) = warmed(scaling(CONCURRENCY), past)
    assert state.trusted_since == BEGIN + 51


def test_no_past_is_no_state() -> None:
    assert warmed(scaling(CONCURRENCY), []) == ()


def test_a_delay_that_was_kept_ends_as_if_we_had_run_and_another_begins_anew() -> None:
    calm = [Moment(BEGIN + second, 6, {"concurrency": 6.0}, frozenset({"concurrency"})) for second in range(160)]
    spec = scaling(CONCURRENCY, delay_s=100)
    (state,) = warmed(spec, calm)
    assert state.memory.delay is not None
    assert state.memory.delay.maximum == 3  # a tick at most halves what is ready
    (state,) = warmed(spec, calm[-60:])
    assert state.memory.delay is not None
    assert state.memory.delay.maximum == 6


def test_what_has_been_whole_for_longer_stays() -> None:
    (early,) = warmed(scaling(CONCURRENCY), moments(60))
    (late,) = warmed(scaling(CONCURRENCY), moments(60)[30:])
    broken = msgspec.structs.replace(early, trusted_since=None)
    assert ScalingState((late,)).recalling((early,)).policies == (early,)
    assert ScalingState((early,)).recalling((late,)).policies == (early,)
    assert ScalingState((late,)).recalling((broken,)).policies == (late,)
    assert ScalingState((late,)).recalling(()).policies == (late,)
    other = msgspec.structs.replace(early, signal=KV_CACHE)
    assert ScalingState((late,)).recalling((other,)).policies == (late,)
