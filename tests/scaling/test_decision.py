"""`decide`: what the user fixed, the policy, the guards against lowering, the way to zero, the bounds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.model.decision import Observation, Rule, ScalingDecision
from autoscaler.model.signal import Activation, Quality, Reading, Sample, SignalSpec, WorkloadSignals
from autoscaler.model.workload import (
    DesiredPhase,
    Engine,
    KpaParameters,
    Mode,
    Priority,
    Protocol,
    ScalingSpec,
    ServingSpec,
    WorkloadKey,
    WorkloadSpec,
)
from autoscaler.scaling.decision import ScalingState, decide

CONCURRENCY = SignalSpec("concurrency", threshold=10.0, target=7.0)
SHORT = KpaParameters(stable_window_s=6.0)


def workload(**scaling: object) -> WorkloadSpec:
    """1..8 replicas on concurrency, target 7, stable window 6 s."""
    numbers: dict[str, object] = {
        "min_replicas": 1,
        "max_replicas": 8,
        "initial_replicas": 1,
        "activation_replicas": 1,
        "signal": CONCURRENCY,
        "kpa": SHORT,
    }
    return WorkloadSpec(
        key=WorkloadKey("ml", "llama"),
        uid="u",
        generation=1,
        created_at=0.0,
        desired_phase=DesiredPhase.RUNNING,
        mode=Mode.ACTIVE,
        project="ml",
        node_pool="default",
        priority=Priority.VERY_HIGH,
        serving=ServingSpec(8000, Protocol.HTTP, 8000, "/metrics", Engine.AUTO),
        scaling=ScalingSpec(**{**numbers, **scaling}),  # type: ignore[arg-type]
        per_replica={"nvidia.com/gpu": 1000},
        service="llama",
        own_service=True,
    )


def signals(
    value: float | None, now: float, *, quality: Quality = Quality.FRESH, pods: int = 1, activity: float | None = None
) -> WorkloadSignals:
    """A reading whose newest sample is at the last whole second."""
    samples = (Sample(float(int(now)), value),) if value is not None else ()
    reading = Reading("concurrency", value, quality, samples, 0.1, pods, pods if quality is Quality.FRESH else 0)
    busy = replace(reading, name="activity", value=value if activity is None else activity)
    return WorkloadSignals({"concurrency": reading}, busy, "vllm")


@dataclass
class Timeline:
    """Feeds a decision a second into the next: the count that was decided is applied and ready at once."""

    spec: WorkloadSpec
    replicas: int
    now: float = 1_000.5
    state: ScalingState = field(default_factory=ScalingState)
    activation: Activation = Activation.NOT_CONFIGURED

    def run(self, seconds: int, value: float | None, quality: Quality = Quality.FRESH, **seen: int) -> ScalingDecision:
        decision = None
        for _ in range(seconds):
            observation = Observation(
                applied=self.replicas,
                ready=seen.get("ready", self.replicas),
                starting=seen.get("starting", 0),
                signals=signals(value, self.now, quality=quality, pods=self.replicas) if self.replicas else None,
                activation=self.activation,
            )
            decision, self.state = decide(self.spec, self.state, observation, self.now)
            self.replicas = decision.desired
            self.now += 1.0
        assert decision is not None
        return decision


def test_three_times_the_target_is_three_replicas() -> None:
    assert Timeline(workload(), 1).run(3, 21.0).desired == 3


def test_a_tick_that_falls_just_before_each_sample_still_sees_the_burst() -> None:
    """With a panic window of one bucket, reading at the tick's own time would find it empty every time."""
    spec, state, replicas = workload(max_replicas=9), ScalingState(), 2
    for second in range(1000, 1010):
        value = 2.0 if second < 1008 else 42.0
        seen = Observation(replicas, replicas, signals=signals(value, float(second), pods=replicas))
        decision, state = decide(spec, state, seen, second + 1.0)  # the sample of this second is not there yet
        replicas = decision.desired
    assert (replicas, decision.panicking) == (6, True)


def test_demand_beyond_the_maximum_stops_at_it_and_says_so() -> None:
    decision = Timeline(workload(), 2).run(3, 900.0)
    assert (decision.desired, decision.rule) == (8, Rule.MAX)
    assert decision.adjustments[-1].before == 129


def test_calm_comes_down_once_the_stable_window_has_seen_it() -> None:
    timeline = Timeline(workload(), 1)
    assert timeline.run(8, 40.0).desired == 6
    assert timeline.run(20, 3.0).desired == 1


def test_the_first_stable_window_after_a_start_lowers_nothing() -> None:
    timeline = Timeline(workload(), 1)
    timeline.run(3, 7.0)
    timeline.replicas = 2
    decision = timeline.run(2, 0.0)
    assert (decision.desired, decision.rule) == (2, Rule.WARMING_UP)


def test_a_restarted_daemon_holds_what_is_applied() -> None:
    assert Timeline(workload(), 6).run(6, 1.0).desired == 6


@pytest.mark.parametrize("quality", [Quality.PARTIAL, Quality.STALE, Quality.ABSENT])
def test_data_that_is_not_fresh_lowers_nothing(quality: Quality) -> None:
    timeline = Timeline(workload(), 1)
    timeline.run(10, 40.0)
    decision = timeline.run(60, 0.0, quality)
    assert (decision.desired, decision.quality) == (6, quality)


def test_partial_data_may_raise() -> None:
    timeline = Timeline(workload(), 1)
    assert timeline.run(3, 40.0, Quality.PARTIAL).desired == 6


def test_no_page_at_all_holds_the_count_and_says_so() -> None:
    decision = Timeline(workload(), 4).run(20, None, Quality.ABSENT)
    assert (decision.desired, decision.rule, decision.recommended) == (4, Rule.NO_DATA, None)


def test_to_zero_after_the_retention_and_not_before() -> None:
    timeline = Timeline(workload(min_replicas=0, retention_s=10.0), 1, activation=Activation.IDLE)
    timeline.run(10, 5.0)
    decision = timeline.run(14, 0.0)
    assert (decision.desired, decision.rule) == (1, Rule.RETENTION)
    assert timeline.run(6, 0.0).desired == 0


@pytest.mark.parametrize(
    ("activation", "rule"),
    [
        (Activation.UNKNOWN, Rule.ACTIVATION_UNKNOWN),
        (Activation.WAITING, Rule.WAITING),
        (Activation.NOT_CONFIGURED, Rule.NO_WAKER),
    ],
)
def test_not_to_zero_unless_something_idle_could_wake_it(activation: Activation, rule: Rule) -> None:
    timeline = Timeline(workload(min_replicas=0), 1, activation=activation)
    timeline.run(10, 5.0)
    decision = timeline.run(60, 0.0)
    assert (decision.desired, decision.rule) == (1, rule)


def test_not_to_zero_while_a_pod_loads() -> None:
    timeline = Timeline(workload(min_replicas=0), 1, activation=Activation.IDLE)
    timeline.run(10, 5.0)
    decision = timeline.run(60, 0.0, starting=1)
    assert (decision.desired, decision.rule) == (1, Rule.LOADING)


def test_not_to_zero_while_a_request_is_in_flight_although_the_signal_is_zero() -> None:
    spec = workload(min_replicas=0)
    timeline = Timeline(spec, 1, activation=Activation.IDLE)
    timeline.run(10, 5.0)
    timeline.run(7, 0.0, starting=1)
    seen = Observation(1, 1, signals=signals(0.0, timeline.now, activity=1.0), activation=Activation.IDLE)
    decision, _ = decide(spec, timeline.state, seen, timeline.now)
    assert (decision.desired, decision.rule) == (1, Rule.NOT_IDLE)


def test_the_first_waiting_request_wakes_it_with_the_activation_replicas() -> None:
    spec = workload(min_replicas=0, activation_replicas=3)
    decision, _ = decide(spec, ScalingState(), Observation(0, 0, activation=Activation.WAITING), 5.0)
    assert (decision.desired, decision.rule) == (3, Rule.ACTIVATED)


@pytest.mark.parametrize(
    ("activation", "desired", "rule"),
    [
        (Activation.IDLE, 0, Rule.AT_ZERO),
        (Activation.UNKNOWN, 0, Rule.ACTIVATION_UNKNOWN),
        (Activation.NOT_CONFIGURED, 1, Rule.NO_WAKER),
    ],
)
def test_at_zero_it_stays_only_where_something_could_wake_it(activation: Activation, desired: int, rule: Rule) -> None:
    decision, _ = decide(workload(min_replicas=0), ScalingState(), Observation(0, 0, activation=activation), 5.0)
    assert (decision.desired, decision.rule) == (desired, rule)


def test_replicas_that_are_not_ready_show_no_load_and_count_as_full() -> None:
    """Half of four replicas overloaded into unreadiness: their requests are on no page."""
    timeline = Timeline(workload(), 1)
    timeline.run(12, 25.0)
    decision = timeline.run(20, 13.0, ready=2)
    assert (decision.recommended, decision.desired, decision.rule) == (2, 4, Rule.LOADING)


def test_not_to_zero_while_replicas_are_not_seen() -> None:
    timeline = Timeline(workload(min_replicas=0), 1, activation=Activation.IDLE)
    assert timeline.run(12, 20.0).desired == 3
    while timeline.replicas == 3:
        assert timeline.run(1, 0.0, ready=1).desired >= 2


def test_a_hole_in_the_samples_lowers_nothing_until_it_has_left_the_windows() -> None:
    """All pods unready for a while: the silence reads as zeros in the windows."""
    timeline = Timeline(workload(), 1)
    timeline.run(12, 25.0)
    for _ in range(8):
        decision, timeline.state = decide(timeline.spec, timeline.state, Observation(4, 0, 4), timeline.now)
        assert decision.desired == 4
        timeline.now += 1.0
    assert timeline.run(3, 25.0).desired == 4
    assert timeline.run(20, 25.0).desired == 4


def test_a_second_without_a_sample_is_not_a_second_of_nothing() -> None:
    """A daemon that is short of CPU sleeps through one now and then; a sixth of a short window is a replica."""
    timeline = Timeline(workload(), 1)
    timeline.run(12, 27.0)
    assert timeline.replicas == 4
    for _ in range(4):
        timeline.now += 1.0
        decision = timeline.run(2, 27.0)
        assert (decision.desired, decision.inputs[0].stable) == (4, 27.0)


def test_shares_that_were_missing_lower_nothing_until_they_have_left_the_windows() -> None:
    timeline = Timeline(workload(), 1)
    timeline.run(12, 25.0)
    timeline.run(20, 13.0, Quality.PARTIAL)
    decision = timeline.run(1, 25.0)
    assert (decision.desired, decision.rule) == (4, Rule.WARMING_UP)


def test_a_clock_set_back_stops_no_growth() -> None:
    timeline = Timeline(workload(), 2)
    timeline.run(12, 10.0)
    timeline.now -= 600
    assert timeline.run(4, 50.0).desired == 8


def test_a_request_that_waited_at_zero_is_not_forgotten_while_quota_grants_nothing() -> None:
    spec, state = workload(min_replicas=0), ScalingState()
    _, state = decide(spec, state, Observation(0, 0, activation=Activation.WAITING), 5.0)
    decision, state = decide(spec, state, Observation(0, 0, activation=Activation.IDLE), 60.0)
    assert (decision.desired, decision.rule) == (1, Rule.ACTIVATED)
    decision, state = decide(spec, state, Observation(1, 1, activation=Activation.IDLE), 62.0)
    assert not state.waking


def test_loading_replicas_cause_no_runaway() -> None:
    """14 requests in flight on 1 ready replica stay 2 replicas, however long the second one loads."""
    timeline = Timeline(workload(max_replicas=50), 1)
    counts = {timeline.run(1, 14.0, ready=1, starting=1).desired for _ in range(120)}
    assert counts == {2}


def test_a_level_counts_once_per_ready_replica() -> None:
    """KV cache at 0.9 on each of 4 replicas with target 0.45: 8 replicas, not 2."""
    spec = workload(signal=SignalSpec("kv-cache", 0.5, 0.45), max_replicas=20)
    reading = Reading("kv-cache", 0.9, Quality.FRESH, (Sample(1000.0, 0.9),), 0.1, 4, 4)
    seen = Observation(4, 4, signals=WorkloadSignals({"kv-cache": reading}, reading))
    assert decide(spec, ScalingState(), seen, 1000.5)[0].desired == 8


@pytest.mark.parametrize(
    ("change", "seen", "desired", "rule"),
    [
        ({"manual_replicas": 5}, Observation(2, 2), 5, Rule.MANUAL),
        ({"manual_replicas": 50}, Observation(2, 2), 50, Rule.MANUAL),
        ({"manual_replicas": 50, "ceiling_replicas": 20}, Observation(2, 2), 20, Rule.CEILING),
        ({"initial_replicas": 4}, Observation(None, 0, initialized=False), 4, Rule.INITIAL),
        ({"initial_replicas": 4}, Observation(4, 1, 3, initialized=False), 4, Rule.NO_DATA),
        ({"min_replicas": 3}, Observation(1, 1), 3, Rule.MIN),
        ({"max_replicas": 3}, Observation(7, 7), 3, Rule.MAX),
        ({"signal": None, "min_replicas": 3, "max_replicas": 3}, Observation(1, 1), 3, Rule.POLICY),
        ({"min_replicas": 2, "activation_replicas": 2}, Observation(0, 0), 2, Rule.ACTIVATED),
        ({}, Observation(4, None), 4, Rule.NO_DATA),
    ],
)
def test_counts_that_need_no_measurement(
    change: dict[str, object], seen: Observation, desired: int, rule: Rule
) -> None:
    decision, _ = decide(workload(**change), ScalingState(), seen, 5.0)
    assert (decision.desired, decision.rule) == (desired, rule)


def test_stopped_goes_to_zero_and_paused_holds() -> None:
    stopped = replace(workload(), desired_phase=DesiredPhase.STOPPED)
    paused = replace(workload(), mode=Mode.PAUSED)
    assert decide(stopped, ScalingState(), Observation(4, 4), 5.0)[0].desired == 0
    assert decide(paused, ScalingState(), Observation(4, 1), 5.0)[0].desired == 4


QUALITIES = st.sampled_from(list(Quality))
STEPS = st.lists(
    st.tuples(st.integers(0, 60), QUALITIES, st.sampled_from(list(Activation)), st.integers(0, 2)), max_size=40
)


@settings(deadline=None, max_examples=150)
@given(steps=STEPS, start=st.integers(0, 8), least=st.integers(0, 2))
def test_nothing_is_lowered_without_fresh_pages_and_never_to_zero_without_proof(
    steps: list[tuple[int, Quality, Activation, int]], start: int, least: int
) -> None:
    spec, state, replicas, now = workload(min_replicas=least), ScalingState(), max(start, least), 1_000.5
    for value, quality, activation, starting in steps:
        shown = None if quality is Quality.ABSENT else float(value)
        ready = max(0, replicas - starting)
        seen = Observation(
            replicas,
            ready,
            starting,
            signals=signals(shown, now, quality=quality, pods=ready) if ready else None,
            activation=activation,
        )
        decision, after = decide(spec, state, seen, now)
        again, _ = decide(spec, state, seen, now)
        assert decision == again
        if decision.desired < replicas:
            assert quality is Quality.FRESH
            assert ready > 0
        if decision.desired == 0 and replicas > 0:
            assert (starting, activation, value) == (0, Activation.IDLE, 0)
        assert decision.desired == 0 or least <= decision.desired <= 8
        state, replicas, now = after, decision.desired, now + 1.0


@pytest.mark.parametrize(
    ("scaling", "before", "after"),
    [
        ({}, (3, 40.0), 3.0),
        ({"scale_down_delay_s": 20.0}, (8, 21.0), 7.0),
        ({"scale_down_delay_s": 20.0}, (8, 40.0), 3.0),
        ({}, (1, 21.0), 3.0),
    ],
    ids=["panic", "delay", "panic and delay", "windows"],
)
def test_the_clock_that_keeps_a_lower_count_back_is_told(
    scaling: dict[str, object], before: tuple[int, float], after: float
) -> None:
    """As long as demand stays as it is: nothing goes before it is over, and something goes right then. While the
    windows still hold what was, demand keeps the count, and no clock."""
    timeline = Timeline(workload(**scaling), 3)
    timeline.run(*before)
    told: list[tuple[float, float]] = []
    for _ in range(40):
        replicas, decision = timeline.replicas, timeline.run(1, after)
        if decision.desired < replicas:
            break
        if decision.lower_at_s is not None:
            told.append((decision.at_s, decision.lower_at_s))
    assert decision.desired < replicas, "it came down at last"
    assert told, "a clock was told"
    assert all(at_s <= until for at_s, until in told), "it was told while it ran"
    assert 0 <= decision.at_s - told[-1][1] <= 2.0


def test_the_retention_is_such_a_clock_and_bounds_are_none() -> None:
    timeline = Timeline(workload(min_replicas=0, retention_s=30.0), 1, activation=Activation.IDLE)
    retained = timeline.run(12, 0.0)
    assert (retained.rule, retained.desired) == (Rule.RETENTION, 1)
    until = retained.lower_at_s
    assert until is not None
    while timeline.now < until:
        assert timeline.run(1, 0.0).desired == 1
    assert timeline.run(1, 0.0).desired == 0
    least = Timeline(workload(min_replicas=2), 2).run(12, 0.0)
    assert (least.desired, least.lower_at_s) == (2, None)
