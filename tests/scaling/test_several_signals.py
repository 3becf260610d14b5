"""Several signals in one workload: the highest count wins, each with windows, quality and direction of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.model.decision import Observation, Rule, ScalingDecision
from autoscaler.model.signal import Activation, Direction, Quality, Reading, Sample, SignalSpec, WorkloadSignals
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

# What the guides ask for: at most 500 ms for 99 of 100 requests, 10 active requests and 50 requests a second a replica.
LATENCY = SignalSpec("latency", threshold=0.5, target=0.25, percentile=0.99)
CONCURRENCY = SignalSpec("concurrency", threshold=10.0, target=7.0)
THROUGHPUT = SignalSpec("throughput", threshold=50.0, target=35.0)
GUIDE = (LATENCY, CONCURRENCY, THROUGHPUT)
WINDOW_S = 6.0


def workload(*signals: SignalSpec, least: int = 1, most: int = 8) -> WorkloadSpec:
    first, *further = signals
    scaling = ScalingSpec(
        min_replicas=least,
        max_replicas=most,
        initial_replicas=1,
        activation_replicas=1,
        signal=first,
        kpa=KpaParameters(stable_window_s=WINDOW_S),
        further_signals=tuple(further),
    )
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
        scaling=scaling,
        per_replica={"nvidia.com/gpu": 1000},
        service="llama",
        own_service=True,
    )


def to(direction: Direction, signal: SignalSpec = THROUGHPUT) -> SignalSpec:
    return SignalSpec(signal.name, signal.threshold, signal.target, signal.percentile, direction)


Shown = float | tuple[float | None, Quality]  # a value, fresh unless it says otherwise


def seen(values: Mapping[str, Shown], replicas: int, now: float, activity: float = 1.0) -> Observation:
    readings = {}
    for name, shown in values.items():
        value, quality = shown if isinstance(shown, tuple) else (shown, Quality.FRESH)
        samples = (Sample(float(int(now)), value),) if value is not None else ()
        fresh = replicas if quality is Quality.FRESH else 0
        readings[name] = Reading(name, value, quality, samples, 0.1, replicas, fresh)
    idle = Reading("activity", activity, Quality.FRESH, (), 0.1, replicas, replicas)
    return Observation(replicas, replicas, signals=WorkloadSignals(readings, idle, "vllm"), activation=Activation.IDLE)


@dataclass
class Timeline:
    """Feeds a decision a second into the next: the count that was decided is applied and ready at once."""

    spec: WorkloadSpec
    replicas: int
    now: float = 1_000.5
    state: ScalingState = field(default_factory=ScalingState)
    activity: float = 1.0

    def run(self, seconds: int, **values: Shown) -> ScalingDecision:
        decision = None
        for _ in range(seconds):
            observation = seen(values, self.replicas, self.now, self.activity)
            decision, self.state = decide(self.spec, self.state, observation, self.now)
            self.replicas = decision.desired
            self.now += 1.0
        assert decision is not None
        return decision


@pytest.mark.parametrize(
    ("latency_s", "active", "per_second", "desired", "winner"),
    [
        # p99 × ready / 0.25 s, active / 7, requests a second / 35, at 2 ready replicas
        (0.20, 10.0, 60.0, 2, "latency"),  # 2, 2, 2: of equals the first
        (0.20, 33.0, 60.0, 5, "concurrency"),  # 2, 5, 2
        (0.20, 10.0, 130.0, 4, "throughput"),  # 2, 2, 4
        (0.80, 10.0, 60.0, 7, "latency"),  # 7, 2, 2
        (0.80, 900.0, 60.0, 8, "concurrency"),  # 7, 129, 2: maxReplicas
    ],
)
def test_the_guides_example_p99_of_500m_10_active_requests_and_50_a_second_between_1_and_8(
    latency_s: float, active: float, per_second: float, desired: int, winner: str
) -> None:
    observation = seen({"latency": latency_s, "concurrency": active, "throughput": per_second}, 2, 1000.5)
    decision, _ = decide(workload(*GUIDE), ScalingState(), observation, 1000.5)
    assert (decision.desired, decision.signal) == (desired, winner)
    assert [read.name for read in decision.inputs] == ["latency", "concurrency", "throughput"]
    assert decision.recommended == max(read.desired or 0 for read in decision.inputs)
    assert decision.arithmetic == next(read.arithmetic for read in decision.inputs if read.name == winner)


def test_the_guides_example_comes_down_when_all_three_are_calm_and_not_before() -> None:
    timeline = Timeline(workload(*GUIDE), 1)
    assert timeline.run(8, latency=0.02, concurrency=40.0, throughput=30.0).desired == 6
    assert timeline.run(30, latency=0.02, concurrency=3.0, throughput=140.0).desired == 4
    decision = timeline.run(30, latency=0.02, concurrency=3.0, throughput=30.0)
    assert (decision.desired, decision.rule) == (1, Rule.POLICY)


@pytest.mark.parametrize("quality", [Quality.PARTIAL, Quality.STALE, Quality.ABSENT])
@pytest.mark.parametrize("blind", ["latency", "concurrency", "throughput"])
def test_nothing_is_lowered_while_one_that_may_lower_is_not_fresh(blind: str, quality: Quality) -> None:
    timeline = Timeline(workload(*GUIDE), 1)
    timeline.run(10, latency=0.01, concurrency=40.0, throughput=30.0)
    calm: dict[str, Shown] = {"latency": 0.01, "concurrency": 3.0, "throughput": 30.0}
    calm[blind] = (None if quality is Quality.ABSENT else 0.01, quality)
    decision = timeline.run(60, **calm)
    assert (decision.desired, decision.rule, decision.quality) == (6, Rule.UNTRUSTED, quality)
    assert decision.adjustments[-1].detail.startswith(f"{blind}: {quality.value}: 0 of 6 pods")


def test_one_that_was_blind_lowers_nothing_until_its_own_window_is_whole() -> None:
    timeline = Timeline(workload(*GUIDE), 1)
    timeline.run(10, latency=0.01, concurrency=40.0, throughput=30.0)
    timeline.run(20, latency=0.01, concurrency=3.0, throughput=(30.0, Quality.PARTIAL))
    decision = timeline.run(1, latency=0.01, concurrency=3.0, throughput=30.0)
    assert (decision.desired, decision.rule) == (6, Rule.WARMING_UP)
    assert decision.adjustments[-1].detail == "throughput: whole data for 0 of 6 s"
    assert timeline.run(12, latency=0.01, concurrency=3.0, throughput=30.0).desired < 6


def test_a_signal_that_nobody_shows_keeps_no_other_from_raising() -> None:
    timeline = Timeline(workload(*GUIDE), 1)
    decision = timeline.run(3, latency=(None, Quality.ABSENT), concurrency=40.0, throughput=30.0)
    assert (decision.desired, decision.signal) == (6, "concurrency")
    assert decision.inputs[0].desired is None


def test_without_data_for_any_signal_the_count_is_held() -> None:
    blind = (None, Quality.ABSENT)
    decision = Timeline(workload(*GUIDE), 4).run(20, latency=blind, concurrency=blind, throughput=blind)
    assert (decision.desired, decision.rule, decision.signal) == (4, Rule.NO_DATA, "")


def test_one_that_may_only_raise_raises_and_its_silence_stops_no_lowering() -> None:
    timeline = Timeline(workload(CONCURRENCY, to(Direction.UP)), 1)
    assert timeline.run(10, concurrency=3.0, throughput=140.0).desired == 4
    decision = timeline.run(30, concurrency=3.0, throughput=(None, Quality.ABSENT))
    assert (decision.desired, decision.quality) == (1, Quality.FRESH)


def test_lowering_stops_where_one_that_may_only_raise_would_raise_again() -> None:
    timeline = Timeline(workload(CONCURRENCY, to(Direction.UP)), 1)
    timeline.run(10, concurrency=40.0, throughput=30.0)
    counts = {timeline.run(1, concurrency=3.0, throughput=100.0).desired for _ in range(60)}
    assert min(counts) == 3
    assert timeline.replicas == 3


def test_one_that_may_only_raise_lowers_nothing_by_itself() -> None:
    timeline = Timeline(workload(CONCURRENCY, to(Direction.UP)), 1)
    timeline.run(10, concurrency=40.0, throughput=30.0)
    decision = timeline.run(30, concurrency=(None, Quality.ABSENT), throughput=1.0)
    assert (decision.desired, decision.rule) == (6, Rule.UNTRUSTED)
    only_up = Timeline(workload(to(Direction.UP)), 6)
    assert (only_up.run(30, throughput=1.0).rule, only_up.replicas) == (Rule.DIRECTION, 6)


def test_one_that_may_only_lower_holds_and_never_raises() -> None:
    timeline = Timeline(workload(CONCURRENCY, to(Direction.DOWN)), 2)
    decision = timeline.run(20, concurrency=3.0, throughput=900.0)
    assert (decision.desired, decision.signal) == (2, "throughput")
    assert decision.arithmetic.endswith("; may only lower: 2")
    assert timeline.run(30, concurrency=3.0, throughput=20.0).desired == 1


def test_to_zero_needs_every_signal_at_zero() -> None:
    timeline = Timeline(workload(CONCURRENCY, THROUGHPUT, least=0), 1, activity=0.0)
    timeline.run(10, concurrency=3.0, throughput=3.0)
    assert timeline.run(30, concurrency=0.0, throughput=3.0).desired == 1
    assert timeline.run(10, concurrency=0.0, throughput=0.0).desired == 0


def test_a_signal_that_is_added_leaves_the_others_windows_alone() -> None:
    timeline = Timeline(workload(CONCURRENCY), 1)
    timeline.run(12, concurrency=25.0)
    before = timeline.state.policies[0].windows
    timeline.spec = workload(THROUGHPUT, CONCURRENCY)
    observation = seen({"concurrency": (None, Quality.ABSENT), "throughput": 1.0}, 4, timeline.now)
    _, after = decide(timeline.spec, timeline.state, observation, timeline.now)
    assert [each.signal.name for each in after.policies] == ["throughput", "concurrency"]
    assert after.policies[1].windows == before


SHOWN = st.tuples(st.floats(0.0, 300.0), st.sampled_from(list(Quality)))


@settings(deadline=None, max_examples=150)
@given(
    steps=st.lists(st.tuples(SHOWN, SHOWN, SHOWN), max_size=30),
    directions=st.tuples(*[st.sampled_from(list(Direction))] * 3),
    start=st.integers(1, 8),
)
def test_directions_and_freshness_bind_whatever_is_shown(
    steps: list[tuple[tuple[float, Quality], ...]], directions: tuple[Direction, ...], start: int
) -> None:
    signals = [to(direction, signal) for direction, signal in zip(directions, GUIDE, strict=True)]
    spec, state, replicas, now = workload(*signals), ScalingState(), start, 1_000.5
    for step in steps:
        values: dict[str, Shown] = {
            signal.name: (None if quality is Quality.ABSENT else value, quality)
            for signal, (value, quality) in zip(signals, step, strict=True)
        }
        decision, state = decide(spec, state, seen(values, replicas, now), now)
        lowering = [step[n][1] for n in range(3) if directions[n] is not Direction.UP]
        if decision.desired < replicas:
            assert lowering
            assert set(lowering) == {Quality.FRESH}
        if decision.desired > replicas:
            raised_by = [read for read in decision.inputs if read.direction is not Direction.DOWN]
            assert decision.desired <= max(read.desired or 0 for read in raised_by)
        replicas, now = decision.desired, now + 1.0
