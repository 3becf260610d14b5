"""What the policy is told of signals that are a cliff: of a latency or a full cache, too late is an outage.

The policy's own answer to a burst is the panic at twice the target. A cache cannot come there (full is 1 / 0.72 = 1.4
times the target), and a latency comes there when its threshold is reached (we act at half of it). So for these signals
the short window counts as soon as it is above the long one, and the count that it asked for is kept for a stable
window, as the policy keeps one after a panic. A cache has 28 % left where we act, a latency half of its threshold, so
of the cache the growth counts, too. All of it only ever raises: what is lowered is lowered on the long window.

Signals that add up, such as concurrency, reach the policy as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from autoscaler.model.signal import Sample, Shape, Signal, SignalSpec
from autoscaler.model.workload import ScalingSpec

TREND_SAMPLES: Final = 16  # as many as a reading keeps, one a second
LEAST_SAMPLES: Final = 8  # of fewer, one odd page would be a trend
AHEAD_S: Final = 16.0  # no further than it looks back
GAP_S: Final = 2.0  # a longer silence between two samples hides what happened, and leaves a hole in the windows
FULL: Final = 1.0


class Demand(msgspec.Struct, frozen=True):
    """What counts as the present value over all replicas, and what it was taken from."""

    value: float
    origin: str


def delay_s(signal: SignalSpec, scaling: ScalingSpec) -> float:
    """How long a lower count must be wanted: for a cliff at least a stable window, so that short looks do not flap."""
    if signal.shape is Shape.LEVEL:
        return max(scaling.scale_down_delay_s, scaling.kpa.stable_window_s)
    return scaling.scale_down_delay_s


def demand(
    signal: SignalSpec, averages: tuple[float, float], samples: Sequence[Sample], ready: int, now: float
) -> Demand:
    """The long window's average; for a cliff the highest of the long, the short and the expected one.

    `averages`: long and short, over all replicas; `samples`: the levels of the last seconds, none where they would
    mislead. A cache at 0.5 that grows by 0.02 a second on 2 replicas is expected to be at 0.82 in 16 s: 1.64 counts.
    """
    long, short = averages
    found = Demand(long, "stable")
    if signal.shape is not Shape.LEVEL:
        return found
    if short > found.value:
        found = Demand(short, "short window")
    if signal.signal == Signal.KV_CACHE:
        level = expected(samples, now)
        if level is not None and level * ready > found.value:
            found = Demand(level * ready, f"expected in {AHEAD_S:.0f} s")
    return found


def expected(samples: Sequence[Sample], now: float) -> float | None:
    """The level `AHEAD_S` from now if it goes on growing as it did, at most FULL; None where it does not grow.

    The growth is that from the older half of the samples to the newer one, which a single page moves little. A replica
    that joins lowers the level, so for as long as it is among the samples there is less growth than there is, never
    more. A share above FULL is in no unit that we know.
    """
    run = _unbroken(samples[-TREND_SAMPLES:])
    if len(run) < LEAST_SAMPLES or now - run[-1].at_s > GAP_S:
        return None
    half = len(run) // 2
    (older_at, older), (newer_at, newer) = _middle(run[:half]), _middle(run[-half:])
    growth = (newer - older) / (newer_at - older_at)
    if growth <= 0:
        return None
    return min(max(FULL, newer), newer + growth * (now - newer_at + AHEAD_S))


def _unbroken(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The newest samples back to the first gap."""
    for at in range(len(samples) - 1, 0, -1):
        if samples[at].at_s - samples[at - 1].at_s > GAP_S:
            return samples[at:]
    return samples


def _middle(samples: Sequence[Sample]) -> tuple[float, float]:
    """The mean instant and the mean value."""
    number = len(samples)
    return sum(each.at_s for each in samples) / number, sum(each.value for each in samples) / number
