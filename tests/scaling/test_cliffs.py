"""A latency and a full cache are cliffs: the count must be there before the load is. In a closed loop and rule by rule.

The loop imitates replicas by one line of arithmetic each (`level` of a demand on so many replicas) and a start-up time;
tests/e2e/test_ramps.py has the same ramps on the real control plane.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model.decision import Observation
from autoscaler.model.signal import Activation, Quality, Reading, Sample, SignalSpec, WorkloadSignals
from autoscaler.model.workload import KpaParameters, WorkloadSpec
from autoscaler.scaling import cliffs
from autoscaler.scaling.decision import ScalingState, decide
from tests.scaling.test_several_signals import workload

KV_CACHE = SignalSpec("kv-cache", threshold=0.8, target=0.72)
LATENCY = SignalSpec("latency", threshold=1.0, target=0.5)
CONCURRENCY = SignalSpec("concurrency", threshold=10.0, target=7.0)
MOST = 8
TICK_S = 2
STABLE_S = 60.0


def filled(demand: float, replicas: int) -> float:
    """A cache's share: `demand` is in whole caches. Above 1 there is no room for what comes."""
    return demand / replicas


def slowed(demand: float, replicas: int) -> float:
    """Seconds of a request: 0.3 alone, and 0.02 more for each other one in the same batch (a step of a batch takes
    a + b × requests)."""
    return 0.3 + 0.02 * demand / replicas


@dataclass
class Fleet:
    """Replicas that take `start_s` to be ready, one sample a second, one decision every other second."""

    signal: SignalSpec
    level: Callable[[float, int], float]
    start_s: int
    second: int = 0
    ready_at: list[int] = field(default_factory=lambda: [0])
    state: ScalingState = field(default_factory=ScalingState)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=16))
    highest: float = 0.0  # level while there was a replica to add
    counts: list[int] = field(default_factory=list)

    @property
    def spec(self) -> WorkloadSpec:
        spec = workload(self.signal, most=MOST)
        return replace(spec, scaling=replace(spec.scaling, kpa=KpaParameters(stable_window_s=STABLE_S)))

    def run(self, demand: Sequence[float]) -> None:
        """A second for each value."""
        for value in demand:
            ready = sum(1 for at in self.ready_at if at <= self.second)
            level = self.level(value, ready)
            if len(self.ready_at) < MOST:
                self.highest = max(self.highest, level)
            shown = min(level, 1.0) if self.signal is KV_CACHE else level
            self.samples.append(Sample(1_000.0 + self.second, shown))
            if self.second % TICK_S == 0:
                self._decide(ready)
            self.counts.append(len(self.ready_at))
            self.second += 1

    def _decide(self, ready: int) -> None:
        reading = Reading(
            self.signal.name, self.samples[-1].value, Quality.FRESH, tuple(self.samples), 0.1, ready, ready
        )
        idle = Reading("activity", 1.0, Quality.FRESH, (), 0.1, ready, ready)
        count = len(self.ready_at)
        seen = Observation(
            count,
            ready,
            starting=count - ready,
            signals=WorkloadSignals({self.signal.name: reading}, idle, "vllm"),
            activation=Activation.IDLE,
        )
        decision, self.state = decide(self.spec, self.state, seen, 1_000.5 + self.second)
        self.ready_at += [self.second + self.start_s] * (decision.desired - count)
        del self.ready_at[decision.desired :]


def ramp(low: float, high: float, seconds: int) -> list[float]:
    return [low + (high - low) * second / seconds for second in range(seconds + 1)]


@pytest.mark.parametrize(
    ("fills_in_s", "start_s"), [(15, 3), (20, 5), (25, 10), (60, 25), (100, 35), (200, 60), (1_200, 300)]
)
def test_a_growing_cache_has_room_until_no_replica_is_left_to_add(fills_in_s: int, start_s: int) -> None:
    """Where we act 28 % of a cache are left, and growth is seen 16 s ahead: that must do for page, tick and start."""
    assert start_s + 1 + TICK_S <= cliffs.AHEAD_S + 0.28 * fills_in_s, "else nothing that acts on the cache can help"
    fleet = Fleet(KV_CACHE, filled, start_s)
    fleet.run([0.2] * 70)
    fleet.run(ramp(0.2, 4.5, round(4.3 * fills_in_s)))
    fleet.run([4.5] * 300)
    assert fleet.highest < 1.0
    assert fleet.counts[69] == 1, "not before there was any growth"
    assert fleet.counts[-1] <= 7, "ceil(4.5 / 0.72)"


@pytest.mark.parametrize(("seconds", "start_s"), [(60, 3), (120, 10), (300, 30), (1_200, 120)])
def test_a_growing_latency_stays_below_its_threshold(seconds: int, start_s: int) -> None:
    fleet = Fleet(LATENCY, slowed, start_s)
    fleet.run([2.0] * 70)
    fleet.run(ramp(2.0, 70.0, seconds))
    fleet.run([70.0] * 120)
    assert slowed(70.0, 1) > 1.5, "one replica would be far above"
    assert fleet.highest < 1.0
    assert fleet.counts[-1] == 7, "70 requests, 10 a replica: 0.3 + 0.02 × 10 = 0.5 s"


def test_a_short_look_is_kept_for_a_stable_window_and_then_forgotten() -> None:
    fleet = Fleet(KV_CACHE, filled, 3)
    fleet.run([0.4] * 70)
    fleet.run(ramp(0.4, 0.68, 10))
    assert fleet.counts[-1] == 2
    ended = fleet.second
    fleet.run([0.4] * 300)
    assert set(fleet.counts[ended : ended + 55]) == {2}
    assert set(fleet.counts[-100:]) == {1}, "what the last one takes over from the other is no growth"


def test_a_cache_that_is_steady_below_the_target_is_left_alone() -> None:
    fleet = Fleet(KV_CACHE, filled, 3)
    fleet.run([0.66 + 0.03 * (second % 2) for second in range(400)])
    assert set(fleet.counts) == {1}


def level_samples(*values: float) -> tuple[Sample, ...]:
    return tuple(Sample(100.0 + second, value) for second, value in enumerate(values))


def test_growth_is_carried_on_as_far_as_it_was_seen() -> None:
    grown = level_samples(*(0.2 + 0.02 * second for second in range(16)))
    assert cliffs.expected(grown, 115.0) == pytest.approx(0.5 + 0.02 * 16)


@pytest.mark.parametrize(
    "values",
    [
        (0.5,) * 16,
        tuple(0.7 - 0.01 * second for second in range(16)),
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),  # fewer than eight
        (0.6,) * 12 + (0.45,) * 4,  # a replica joined
    ],
    ids=["steady", "falling", "too few", "a replica joined"],
)
def test_without_growth_nothing_is_expected(values: tuple[float, ...]) -> None:
    assert cliffs.expected(level_samples(*values), 100.0 + len(values)) is None


def test_a_gap_hides_what_was_before_it_and_old_samples_expect_nothing() -> None:
    before = tuple(Sample(100.0 + second, 0.1) for second in range(8))
    after = tuple(Sample(120.0 + second, 0.6) for second in range(8))
    assert cliffs.expected((*before, *after), 127.0) is None, "0.1 before the gap is no growth to 0.6"
    grown = level_samples(*(0.2 + 0.02 * second for second in range(16)))
    assert cliffs.expected(grown, 120.0) is None


def test_a_cache_is_never_expected_to_be_fuller_than_full() -> None:
    assert cliffs.expected(level_samples(*(0.05 * second for second in range(16))), 115.0) == 1.0


@given(
    st.sampled_from([KV_CACHE, LATENCY, CONCURRENCY]),
    st.floats(0, 100),
    st.floats(0, 100),
    st.lists(st.floats(0, 2), max_size=20),
    st.integers(0, 50),
)
def test_what_is_expected_only_ever_raises_and_sums_stay_as_they_are(
    signal: SignalSpec, long: float, short: float, values: list[float], ready: int
) -> None:
    found = cliffs.demand(signal, (long, short), level_samples(*values), ready, 100.0 + len(values))
    assert found.value >= long
    if signal is CONCURRENCY:
        assert (found.value, found.origin) == (long, "stable")
    if signal is LATENCY:
        assert found.value == max(long, short)
    if signal is KV_CACHE:
        assert found.value <= max(long, short, ready * max([1.0, *values]))
