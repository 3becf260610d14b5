"""Averages and maxima over the last seconds: what the policies see of a signal.

Decides nothing about replicas and never reads a clock. Every window is a value: an operation returns
the next window and leaves the old one alone. Times come in as seconds and are turned into whole
milliseconds at once, because with float seconds a sample now and then falls into the wrong bucket.

Semantics: Knative KPA, knative/serving @ 98e5ef9 (tests/data/kpa/README.md, "Windows").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from operator import mul
from typing import Final

import msgspec
from msgspec.structs import replace

AVERAGE_DIGITS: Final = 6  # decimals of a linear average; they keep the ceiling that follows stable
WEIGHT_SHARE: Final = 0.9999  # the buckets of a weighted window together carry at least this much weight
SMOOTHING_FLOOR: Final = 0.2  # beyond ~40 buckets a smaller coefficient would be a plain average again


def milliseconds(seconds: float) -> int:
    """Whole milliseconds of an instant or a duration given in seconds."""
    return round(seconds * 1000.0)


def rounded(value: float, digits: int = AVERAGE_DIGITS) -> float:
    """`value` with `digits` decimals, halves away from zero: 2.5 -> 3 and -2.5 -> -3 for 0 digits."""
    scale = math.pow(10.0, digits)
    scaled = value * scale
    if not math.isfinite(scaled):
        return scaled / scale
    whole = float(math.trunc(scaled))
    if abs(scaled - whole) >= 0.5:  # not floor(x + 0.5): that sum rounds up just below a half
        whole += math.copysign(1.0, scaled)
    return whole / scale


def smoothing_coefficient(buckets: int) -> float:
    """Weight of the newest bucket of a weighted window, 0.2 for every window of 41 buckets or more.

    >>> round(smoothing_coefficient(6), 4)
    0.7846
    """
    return max(SMOOTHING_FLOOR, 1.0 - math.pow(1.0 - WEIGHT_SHARE, 1.0 / buckets))


@lru_cache(maxsize=256)
def _weights(buckets: int) -> tuple[float, ...]:
    """Weights by age, newest first: k, k(1 - k), k(1 - k)², …"""
    coefficient = smoothing_coefficient(buckets)
    weights = [coefficient]
    for _ in range(1, buckets):
        weights.append(weights[-1] * (1.0 - coefficient))
    return tuple(weights)


def _bucket_count(window_ms: int, bucket_ms: int) -> int:
    return -(-window_ms // bucket_ms)  # rounded up: 5 s in buckets of 3 s are 2


class Aggregation(StrEnum):
    """How the buckets of a window become one number. The values are Knative's."""

    LINEAR = "linear"
    WEIGHTED_EXPONENTIAL = "weighted-exponential"


class AverageWindow(msgspec.Struct, frozen=True):
    """Sums per bucket over the last `window_ms`, and their average.

    All values that fall into one bucket are added: the caller decides what one second is worth.
    `values` holds one sum per bucket, oldest first; the last one belongs to bucket `last`.
    """

    aggregation: Aggregation
    window_ms: int
    bucket_ms: int
    values: tuple[float, ...]
    total: float = 0.0  # a running sum, never summed afresh: the last digits decide some ceilings
    first: int | None = None  # bucket where the present life began; None: the whole window counts
    last: int | None = None  # bucket of the newest record; None: nothing was ever recorded

    def __post_init__(self) -> None:
        if self.bucket_ms <= 0 or self.window_ms <= 0:
            raise ValueError(f"window {self.window_ms} ms in buckets of {self.bucket_ms} ms: both must be above 0")

    @classmethod
    def empty(
        cls, window_s: float, bucket_s: float = 1.0, aggregation: Aggregation = Aggregation.LINEAR
    ) -> AverageWindow:
        """A window that has seen nothing."""
        window_ms, bucket_ms = milliseconds(window_s), milliseconds(bucket_s)
        if bucket_ms <= 0 or window_ms <= 0:
            raise ValueError(f"window {window_s} s in buckets of {bucket_s} s: both must be at least 1 ms")
        return cls(aggregation, window_ms, bucket_ms, (0.0,) * _bucket_count(window_ms, bucket_ms))

    def record(self, at_s: float, value: float) -> AverageWindow:
        """The window with `value` added at `at_s`. A value as old as the window or older is ignored."""
        bucket = milliseconds(at_s) // self.bucket_ms
        last = self.last
        if last is None:
            return self._new_life(bucket, value)
        ahead = bucket - last
        if ahead <= 0:
            return self._record_late(last, bucket, value)
        if ahead * self.bucket_ms >= self.window_ms:
            return self._new_life(bucket, value)
        values = self.values
        if ahead == 1:
            total = self.total - values[0]
            values = (*values[1:], value)
        else:
            total = _less(self.total, values[:ahead])
            values = (*values[ahead:], *((0.0,) * (ahead - 1)), value)
        first = bucket if self.first is None else self.first
        return self._with(values, total + value, first, bucket)

    def average(self, now_s: float) -> float:
        """The average as of `now_s`; 0 without data, and also when the last record is one window old.

        A young window averages over its life, silence inside a life counts as 0, and silence at the
        end makes the divisor smaller: 60 s full of 5 and then 10 s of silence is 50 × 5 / 50 = 5.
        A time before the newest record gives the average as of that record.
        """
        if self.last is None:
            return 0.0
        silent = max(0, milliseconds(now_s) // self.bucket_ms - self.last)
        if silent * self.bucket_ms >= self.window_ms:
            return 0.0
        if self.aggregation is Aggregation.WEIGHTED_EXPONENTIAL:
            return self._weighted(silent)
        size = len(self.values)
        total = self.total
        if silent:
            total = _less(total, self.values[:silent])
        life = size if self.first is None else self.last - self.first + 1
        return rounded(total / min(life, size - silent))

    def is_empty(self, now_s: float) -> bool:
        """True when the newest record is more than one window old (or there is none).

        The average is 0 already at exactly one window: for one bucket the answer is a true-looking 0.
        """
        if self.last is None:
            return True
        return (milliseconds(now_s) // self.bucket_ms - self.last) * self.bucket_ms > self.window_ms

    def resized(self, window_s: float, now_s: float) -> AverageWindow:
        """The same data in a window of another length; `now_s` is the wall clock, not a sample's time.

        Keeps the newest buckets if anything was recorded within the old window; the life then counts
        as the full old length, even if it was shorter. Otherwise only the time of the last record
        survives.
        """
        window_ms = milliseconds(window_s)
        if window_ms == self.window_ms:
            return self
        size = _bucket_count(window_ms, self.bucket_ms)
        blank = replace(self, window_ms=window_ms, values=(0.0,) * size, total=0.0, first=None)
        if self.last is None or self.is_empty(now_s):
            return blank
        old_size = len(self.values)
        kept = self.values[-min(size, old_size) :]
        return replace(
            blank,
            values=(0.0,) * (size - len(kept)) + kept,
            total=_sum_newest_first(kept),
            first=self.last - (old_size - 1),
        )

    def _new_life(self, bucket: int, value: float) -> AverageWindow:
        blank = (0.0,) * (len(self.values) - 1)
        return self._with((*blank, value), 0.0 + value, bucket, bucket)

    def _record_late(self, last: int, bucket: int, value: float) -> AverageWindow:
        """Adds to the newest bucket or to an older one that is still inside the window."""
        behind = last - bucket
        if behind * self.bucket_ms >= self.window_ms:
            return self
        first = self.first
        if behind and (first is None or first > bucket):
            first = bucket
        index = len(self.values) - 1 - behind
        values = (*self.values[:index], self.values[index] + value, *self.values[index + 1 :])
        return self._with(values, self.total + value, first, last)

    def _weighted(self, silent: int) -> float:
        """Each silent bucket fades the rest by (1 - k) and drops the oldest one. Not rounded."""
        size = len(self.values)
        faded: float = sum(map(mul, reversed(self.values[silent:]), _weights(size)))
        return faded * math.pow(1.0 - smoothing_coefficient(size), silent) if silent else faded

    def _with(self, values: tuple[float, ...], total: float, first: int | None, last: int) -> AverageWindow:
        return AverageWindow(self.aggregation, self.window_ms, self.bucket_ms, values, total, first, last)


def _less(total: float, leaving: Sequence[float]) -> float:
    """`total` without the leaving buckets, one by one from the oldest: float subtraction has an order."""
    for value in leaving:
        total -= value
    return total


def _sum_newest_first(values: Sequence[float]) -> float:
    total = 0.0
    for value in reversed(values):  # not sum(): since Python 3.12 it compensates, which is another number
        total += value
    return total


class MaximumWindow(msgspec.Struct, frozen=True):
    """The largest value of the last `slots` time slots: what a scale-down delay holds on to.

    Slots are absolute (slot number = floor(time / width)), so a value of slot i counts up to slot
    i + slots - 1, however late in its slot it came.
    """

    slots: int
    slot_ms: int
    peaks: tuple[tuple[int, int], ...] = ()  # (slot, value): slots rise, values fall, the first is the maximum

    @classmethod
    def empty(cls, window_s: float, slot_s: float = 2.0) -> MaximumWindow:
        """A window of ceil(window / slot) slots: 3 s in slots of 2 s are 2."""
        window_ms, slot_ms = milliseconds(window_s), milliseconds(slot_s)
        if slot_ms <= 0 or window_ms <= 0:
            raise ValueError(f"window {window_s} s in slots of {slot_s} s: both must be at least 1 ms")
        return cls(_bucket_count(window_ms, slot_ms), slot_ms)

    def record(self, at_s: float, value: int) -> MaximumWindow:
        """The window with `value` at `at_s`; within one slot the larger value stays."""
        slot = milliseconds(at_s) // self.slot_ms
        peaks = self.peaks
        end = len(peaks)
        while end and peaks[end - 1][1] <= value:  # older and not larger: can never be the maximum again
            end -= 1
        start = 0
        while start < end and slot - peaks[start][0] >= self.slots:
            start += 1
        kept = peaks[start:end]
        if not kept or kept[-1][0] != slot:
            kept = (*kept, (slot, value))
        return MaximumWindow(self.slots, self.slot_ms, kept)

    @property
    def maximum(self) -> int | None:
        """The maximum as of the newest record; None before the first."""
        return self.peaks[0][1] if self.peaks else None

    @property
    def falls_at_s(self) -> float | None:
        """When the maximum leaves the window, unless it is recorded again: Unix seconds; None before the first."""
        return (self.peaks[0][0] + self.slots) * self.slot_ms / 1000 if self.peaks else None
