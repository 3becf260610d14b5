"""What successive pages of one pod say together: last known values, rates, and what fell into buckets lately.

A page that fails, or lacks a series, changes no value: the last one stays and grows old, and its age says so. Times
are Unix seconds given by the caller; no clock, no input or output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from autoscaler.model.workload import Engine
from autoscaler.signals.engines import Kind
from autoscaler.signals.faults import Fault
from autoscaler.signals.histograms import bucket_increase
from autoscaler.signals.pages import MAX_SERIES, PageValues, Plan

# Two pages closer than this give no rate: one request finished within 10 ms would read as 100 a second.
MIN_RATE_INTERVAL_S: Final = 0.25
_MAX_INTERVALS: Final = 64
_MAX_INCREASES: Final = 8  # pages are half a period apart or more, and of three periods the increases are asked for


@dataclass(slots=True)
class Track:
    """One quantity of one pod over time. There are many: an empty deque is ten times as large as an empty list."""

    kind: Kind = Kind.GAUGE
    value: float | None = None  # gauge: as printed; counter: per second, over the last two pages
    at_s: float | None = None  # of the newest page that gave a value
    fault: Fault | None = None  # of the newest page
    counts: dict[bytes, float] = field(default_factory=dict)  # a counter's newest page, by label set
    buckets: dict[float, float] = field(default_factory=dict)  # a histogram's newest page
    counted_at_s: float | None = None  # of that newest page
    increases: list[tuple[float, float]] = field(default_factory=list)  # of a counter, by page
    grown: float = 0.0  # a counter's, since its first page
    intervals: list[tuple[float, dict[float, float]]] = field(default_factory=list)  # of a histogram, what grew
    window: dict[float, float] = field(default_factory=dict)  # the sum of `intervals`, with every bound

    def gauge(self, value: float, at_s: float) -> None:
        """A page shows this value."""
        self.kind, self.value, self.at_s, self.fault = Kind.GAUGE, value, at_s, None

    def counter(self, counts: dict[bytes, float], at_s: float) -> None:
        """A page shows these counts. The first one only sets the base: what it counted happened at unknown times."""
        self.kind, self.fault = Kind.COUNTER, None
        elapsed_s = at_s - self.counted_at_s if self.counted_at_s is not None else -1.0
        if 0 <= elapsed_s < MIN_RATE_INTERVAL_S:
            return
        if elapsed_s > 0:
            grown = increase(self.counts, counts)
            # What was counted after the page before and was lost with a restart, nobody knows: the rate is no lower.
            least = (self.value or 0.0) if began_anew(self.counts, counts) else 0.0
            self.value, self.at_s = max(grown / elapsed_s, least), at_s
            if grown > 0:
                self.increases.append((at_s, grown))
                del self.increases[:-_MAX_INCREASES]
                self.grown += grown
            # A label set that is away for a page must not be counted anew when it is back.
            counts = self.counts | counts if len(self.counts) + len(counts) <= 2 * MAX_SERIES else counts
        self.counts, self.counted_at_s = counts, at_s

    def histogram(self, buckets: dict[float, float], at_s: float, window_s: float) -> None:
        """A page shows these cumulative counts."""
        self.kind, self.fault = Kind.HISTOGRAM, None
        if self.counted_at_s is not None:
            grown = bucket_increase(self.buckets, buckets)
            if any(grown.values()):
                for bound, count in grown.items():
                    self.window[bound] = self.window.get(bound, 0.0) + count
                self.intervals.append((at_s, {bound: count for bound, count in grown.items() if count}))
        self.buckets, self.counted_at_s, self.at_s = buckets, at_s, at_s
        self.forget_before(at_s - window_s)

    def forget_before(self, at_s: float) -> None:
        """Drop the histogram intervals that ended at or before this instant."""
        while self.intervals and (self.intervals[0][0] <= at_s or len(self.intervals) > _MAX_INTERVALS):
            _, grown = self.intervals.pop(0)
            for bound, count in grown.items():
                self.window[bound] -= count
        if not self.intervals:
            self.window.clear()

    def increase_since(self, at_s: float) -> float:
        """What a counter grew by on the pages after this instant."""
        return sum(grown for when, grown in self.increases if when > at_s)


def increase(before: Mapping[bytes, float], after: Mapping[bytes, float]) -> float:
    """What counters grew by between two pages, by label set. A smaller count means that it began anew at zero.

    {a: 5, b: 7} → {a: 6, b: 2, c: 1} gives 1 + 2 + 1 = 4.
    """
    grown = 0.0
    for labels, count in after.items():
        earlier = before.get(labels, 0.0)
        grown += count - earlier if count >= earlier else count
    return grown


def began_anew(before: Mapping[bytes, float], after: Mapping[bytes, float]) -> bool:
    """Is a count smaller than it was?"""
    return any(count < before.get(labels, 0.0) for labels, count in after.items())


class PodHistory:
    """All that is known of one pod."""

    __slots__ = ("engine", "name", "page_at_s", "page_fault", "plan", "tracks")

    def __init__(self, name: str) -> None:
        self.name = name
        self.engine: Engine | None = None  # once recognised, for the life of the pod
        self.page_at_s: float | None = None  # of the newest good page
        self.page_fault: str | None = Fault.NO_PAGE_YET  # why the newest attempt gave no page
        self.plan: Plan | None = None  # what the newest good page was read for
        self.tracks: dict[str, Track] = {}

    def observe_fault(self, reason: str) -> None:
        """An attempt gave no page."""
        self.page_fault = reason

    def observe(self, plan: Plan, values: PageValues, at_s: float, window_s: float) -> None:
        """A good page that arrived at this instant."""
        self.page_at_s, self.page_fault = at_s, None
        if self.plan is not plan:
            self.plan = plan
            self.tracks = {source.key: self.tracks.get(source.key, Track()) for source in plan.sources}
        for key, track in self.tracks.items():
            if key in values.gauges:
                track.gauge(values.gauges[key], at_s)
            elif key in values.counters:
                track.counter(values.counters[key], at_s)
            elif key in values.buckets:
                track.histogram(values.buckets[key], at_s, window_s)
            else:
                track.fault = values.faults.get(key, Fault.NO_SUCH_SERIES)

    def activity(self, since_s: float) -> tuple[float, float] | None:
        """(requests running and waiting, plus what finished on the pages after `since_s`; instant of the oldest page).

        None until two pages have shown every part, because a single page cannot say what finished lately.
        """
        keys = self.plan.activity if self.plan is not None else ()
        known = self.sum(keys)
        if known is None:
            return None
        tracks = [self.tracks[key] for key in keys]
        present = sum(track.value or 0.0 for track in tracks if track.kind is Kind.GAUGE)
        return present + sum(track.increase_since(since_s) for track in tracks), known[1]

    def grown(self, name: str) -> float:
        """What the counters of a signal grew by since the pod's first page; 0 where it has none."""
        keys = self.plan.signals.get(name, ()) if self.plan is not None else ()
        return sum(self.tracks[key].grown for key in keys)

    def histogram(self, name: str, since_s: float) -> Mapping[float, float]:
        """The observations of a latency-like signal by bucket, that ended after this instant."""
        keys = self.plan.signals.get(name, ()) if self.plan is not None else ()
        if not keys:
            return {}
        self.tracks[keys[0]].forget_before(since_s)
        return self.tracks[keys[0]].window

    def fault(self, name: str, keys: tuple[str, ...]) -> str:
        """Why a signal, or the activity, that is made of these quantities is not fresh."""
        if self.page_fault is not None:
            return str(self.page_fault)
        if self.plan is not None and name in self.plan.missing:
            return f"{self.plan.engine} has no series for {self.plan.missing[name]}"
        tracks = {key: self.tracks[key] for key in keys if key in self.tracks}
        if not tracks or self.plan is None:
            return str(Fault.NO_SUCH_SERIES)
        for key, track in tracks.items():
            if track.fault is Fault.NO_SUCH_SERIES:
                return f"{self.plan.engine}: {track.fault}: {self.plan.series(key)}"
            if track.fault is not None:
                return str(track.fault)
        return str(Fault.ONE_PAGE_ONLY if any(track.at_s is None for track in tracks.values()) else Fault.OVERDUE)

    def sum(self, keys: tuple[str, ...]) -> tuple[float, float] | None:
        """(sum of the gauges and rates, instant of the oldest page among them); None while one of them is unknown."""
        if not keys:
            return None
        total = 0.0
        oldest = float("inf")
        for key in keys:
            track = self.tracks[key]
            if track.value is None or track.at_s is None:
                return None
            total += track.value
            oldest = min(oldest, track.at_s)
        return total, oldest
