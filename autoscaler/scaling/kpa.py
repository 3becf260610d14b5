"""The Knative Pod Autoscaler's arithmetic: two averages and a ready count in, a number of replicas out.

Decides the KPA's number and says which rule gave it. Knows nothing of bounds, quota, retention or
rollouts (they come after), reads no clock and changes nothing: the next state is returned.

Source: Knative KPA, knative/serving @ 98e5ef9, replayed case by case (tests/data/kpa/README.md, whose
notes under "Scale, in this order" are numbered as in the comments here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from autoscaler.scaling.windows import Aggregation, AverageWindow, MaximumWindow, milliseconds

DELAY_SLOT_S: Final = 2.0  # width of a slot of the scale-down delay: upstream's tick, whatever ours is
COUNT_LIMIT: Final = 2**31 - 1  # upstream's counts have 32 bits; ours stop there instead of wrapping round


class NoReadyCount(StrEnum):
    """Why there is no number of ready pods."""

    NOT_FOUND = "not found"  # the object that lists the pods does not exist: counts as 0
    UNREADABLE = "unreadable"  # it could not be read: nobody knows, so nothing is decided


Ready = int | NoReadyCount


class KpaReason(StrEnum):
    """What gave or changed the number, in the order in which the rules apply."""

    READY_COUNT_UNREADABLE = "ready count unreadable"  # no decision
    NO_DATA = "no data"  # no decision
    STABLE_DEMAND = "stable demand"
    PANIC_DEMAND = "panic demand"
    SCALE_UP_RATE = "scale-up rate"
    SCALE_DOWN_RATE = "scale-down rate"
    ACTIVATION_SCALE = "activation scale"
    PANIC_MEMORY = "panic memory"  # never down during panic
    SCALE_DOWN_DELAY = "scale-down delay"


@dataclass(frozen=True, slots=True)
class KpaSpec:
    """One workload's settings. Values of the signal per replica; seconds; ratios (200 % is 2.0)."""

    target_value: float  # aimed at
    total_value: float  # the most a replica can carry
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    target_burst_capacity: float = 211.0  # wanted in reserve; 0 off, negative unlimited
    panic_threshold_ratio: float = 2.0
    stable_window_s: float = 60.0
    scale_down_delay_s: float = 0.0
    reachable: bool = True  # a route refers to it
    activation_scale: int = 0  # 0 and 1: none

    def __post_init__(self) -> None:
        for name in ("target_value", "max_scale_up_rate", "max_scale_down_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0")
        for name in ("total_value", "stable_window_s", "scale_down_delay_s", "activation_scale"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 0 and finite")
        if not math.isfinite(self.target_burst_capacity):
            raise ValueError(f"target_burst_capacity is {self.target_burst_capacity}, must be finite")


class KpaState(msgspec.Struct, frozen=True):
    """What one decision leaves for the next."""

    panic_at_ms: int | None  # last call over the threshold, Unix milliseconds; None: not panicking
    panic_peak: int  # the running maximum that a panic never goes below
    delay: MaximumWindow | None  # None: there was no delay when this state was made

    @property
    def panicking(self) -> bool:
        return self.panic_at_ms is not None


class Demand(msgspec.Struct, frozen=True):
    """One window's way from the average to its count."""

    average: float  # value of the signal over all replicas
    raw: int  # ceil(average / target)
    limited: int  # raw within the limits of the change rate
    count: int  # limited, or the activation scale
    bound_by: tuple[KpaReason, ...]  # the rules that changed it


class KpaArithmetic(msgspec.Struct, frozen=True):
    """Every number between the inputs and the result, for explaining without recomputing."""

    ready: int  # as counted; not found is 0
    lower_limit: int
    upper_limit: int
    stable: Demand
    panic: Demand
    panic_ratio: float  # raw panic count / max(1, ready)
    over_threshold: bool
    panicking: bool
    panic_peak: int  # after this decision
    undelayed: int  # the number that went into the delay window


class KpaResult(msgspec.Struct, frozen=True):
    """A decision, or the reason why there is none (`desired` None: keep what is there)."""

    desired: int | None
    excess_burst_capacity: int | None  # negative: requests should go through a buffer
    reasons: tuple[KpaReason, ...]  # first the source, then every rule that changed the number
    arithmetic: KpaArithmetic | None

    @property
    def valid(self) -> bool:
        return self.desired is not None

    @property
    def bound_by(self) -> KpaReason:
        """The rule that had the last word."""
        return self.reasons[-1]


def start(spec: KpaSpec, ready: Ready, now_s: float) -> KpaState:
    """The state of a new autoscaler (note 10).

    With more than one replica ready it starts in panic, so that nothing goes down until there is
    a window's worth of data. A delay of 0 here means no delay for the life of this state.
    """
    count = 0 if isinstance(ready, NoReadyCount) else ready
    return KpaState(
        panic_at_ms=milliseconds(now_s) if count > 1 else None,
        panic_peak=count,
        delay=MaximumWindow.empty(spec.scale_down_delay_s, DELAY_SLOT_S) if spec.scale_down_delay_s > 0 else None,
    )


def scale(
    spec: KpaSpec, state: KpaState, ready: Ready, stable: float | None, panic: float | None, now_s: float
) -> tuple[KpaResult, KpaState]:
    """One decision: the averages of both windows (None: no data) and the ready count at `now_s`.

    Without a decision the state is returned unchanged (note 1). Worked example: target 10, 4 ready,
    stable 63, panic 95, up to double: limits 2..8, raw counts 7 and 10, 10 / 4 = 2.5 ≥ 2 is a panic,
    so desired = max(7, 8) = 8.
    """
    if ready is NoReadyCount.UNREADABLE:
        return _undecided(KpaReason.READY_COUNT_UNREADABLE), state
    if stable is None or panic is None or not (math.isfinite(stable) and math.isfinite(panic)):
        return _undecided(KpaReason.NO_DATA), state
    count = 0 if isinstance(ready, NoReadyCount) else ready
    divisor = max(1, count)  # note 2
    upper = _ceiling(spec.max_scale_up_rate * divisor)  # note 3: no epsilon, 1.1 × 50 is 56
    lower = math.floor(divisor / spec.max_scale_down_rate) if spec.reachable else 0
    stable_demand = _demand(spec, stable, lower, upper)
    panic_demand = _demand(spec, panic, lower, upper)

    ratio = panic_demand.raw / divisor  # note 7: of the rounded-up count, and divided, not multiplied
    over = ratio >= spec.panic_threshold_ratio
    panic_at_ms, peak = _panic(spec, state, over, milliseconds(now_s))
    undelayed, reasons = _choose(stable_demand, panic_demand, peak if panic_at_ms is not None else None)
    if panic_at_ms is not None:
        peak = undelayed
    desired, delay = undelayed, state.delay
    if delay is not None and spec.reachable:  # note 11
        delay = delay.record(now_s, undelayed)
        desired = undelayed if delay.maximum is None else delay.maximum
        if desired != undelayed:
            reasons = (*reasons, KpaReason.SCALE_DOWN_DELAY)
    arithmetic = KpaArithmetic(
        count, lower, upper, stable_demand, panic_demand, ratio, over, panic_at_ms is not None, peak, undelayed
    )
    burst = _excess_burst_capacity(spec, count, panic)
    return KpaResult(desired, burst, reasons, arithmetic), KpaState(panic_at_ms, peak, delay)


def held_until(spec: KpaSpec, state: KpaState, result: KpaResult) -> float | None:
    """How long memory alone keeps this number up while demand stays as it is, Unix seconds; None: it does not.

    A panic at 100 s with a window of 60 s and a delay of 30 s: 190.
    """
    if KpaReason.PANIC_MEMORY in result.reasons and state.panic_at_ms is not None:
        return state.panic_at_ms / 1000 + spec.stable_window_s + spec.scale_down_delay_s
    if KpaReason.SCALE_DOWN_DELAY in result.reasons and state.delay is not None:
        return state.delay.falls_at_s
    return None


def _undecided(reason: KpaReason) -> KpaResult:
    return KpaResult(None, None, (reason,), None)


def _ceiling(value: float) -> int:
    """ceil, up to the largest count that upstream can hold (also for infinity)."""
    return math.ceil(min(value, float(COUNT_LIMIT)))


def _demand(spec: KpaSpec, average: float, lower: int, upper: int) -> Demand:
    """Notes 4 to 6: round up, clamp, then lift to the activation scale (which may pass the limit)."""
    raw = _ceiling(max(average / spec.target_value, -float(COUNT_LIMIT)))
    limited = min(max(raw, lower), upper)
    count = limited
    bound_by: tuple[KpaReason, ...] = ()
    if limited != raw:
        bound_by = (KpaReason.SCALE_UP_RATE if limited < raw else KpaReason.SCALE_DOWN_RATE,)
    if spec.activation_scale > 1 and raw > 0 and limited < spec.activation_scale:
        count = spec.activation_scale
        bound_by = (*bound_by, KpaReason.ACTIVATION_SCALE)
    return Demand(average, raw, limited, count, bound_by)


def _panic(spec: KpaSpec, state: KpaState, over: bool, now_ms: int) -> tuple[int | None, int]:
    """Note 8: (panic_at_ms, memory). Every call over the threshold starts the stable window anew."""
    if over:
        return now_ms, state.panic_peak
    if state.panic_at_ms is not None and state.panic_at_ms + milliseconds(spec.stable_window_s) < now_ms:
        return None, 0
    return state.panic_at_ms, state.panic_peak


def _choose(stable: Demand, panic: Demand, peak: int | None) -> tuple[int, tuple[KpaReason, ...]]:
    """Note 9: the stable count; in panic (`peak` is a number) the larger one and never below the peak."""
    chosen = (stable.count, (KpaReason.STABLE_DEMAND, *stable.bound_by))
    if peak is None:
        return chosen
    if panic.count > stable.count:
        chosen = (panic.count, (KpaReason.PANIC_DEMAND, *panic.bound_by))
    if chosen[0] < peak:
        chosen = (peak, (*chosen[1], KpaReason.PANIC_MEMORY))
    return chosen


def _excess_burst_capacity(spec: KpaSpec, ready: int, panic: float) -> int:
    """Note 12: what is left for a burst, from the panic value and what a replica can carry at most.

    10 ready × 10 - 20 - 75.5 = 4.5 -> 4. Zero when switched off, -1 when the wish is unlimited.
    """
    if spec.target_burst_capacity == 0:
        return 0
    if spec.target_burst_capacity < 0:
        return -1
    left = ready * spec.total_value - spec.target_burst_capacity - panic
    return math.floor(min(max(left, -float(COUNT_LIMIT)), float(COUNT_LIMIT)))


class KpaWindows(msgspec.Struct, frozen=True):
    """The stable and the panic window of one signal.

    `scraped` False: somebody else reports every request, so silence is a true 0 and never "no data".
    """

    stable: AverageWindow
    panic: AverageWindow
    scraped: bool = True

    @classmethod
    def empty(
        cls,
        stable_window_s: float,
        panic_window_s: float,
        aggregation: Aggregation = Aggregation.LINEAR,
        scraped: bool = True,
    ) -> KpaWindows:
        """Windows that have seen nothing, in buckets of 1 s."""
        return cls(
            AverageWindow.empty(stable_window_s, aggregation=aggregation),
            AverageWindow.empty(panic_window_s, aggregation=aggregation),
            scraped,
        )

    def record(self, at_s: float, value: float) -> KpaWindows:
        """Both windows with `value` (the signal over all replicas) added at `at_s`."""
        return KpaWindows(self.stable.record(at_s, value), self.panic.record(at_s, value), self.scraped)

    def averages(self, now_s: float) -> tuple[float, float] | None:
        """(stable, panic) for `scale`; None: no data for longer than the stable window.

        Only the stable window tells: a panic window without data is a 0.
        """
        if self.scraped and self.stable.is_empty(now_s):
            return None
        return self.stable.average(now_s), self.panic.average(now_s)

    def resized(self, stable_window_s: float, panic_window_s: float, now_s: float) -> KpaWindows:
        """The same data in windows of other lengths; `now_s` is the wall clock."""
        stable, panic = self.stable.resized(stable_window_s, now_s), self.panic.resized(panic_window_s, now_s)
        same = stable is self.stable and panic is self.panic
        return self if same else KpaWindows(stable, panic, self.scraped)
