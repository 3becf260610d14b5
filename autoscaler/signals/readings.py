"""One workload's pods become its readings: a sample a second, and how far each may be trusted.

Decides what absent means. A pod that misses a page counts with its last value, however old, as long as it is Ready;
what grows old is the quality. Only `Quality.FRESH` speaks of all pods. No input or output: `scraper` feeds it.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from autoscaler.model.foreign import Measure
from autoscaler.model.signal import (
    PodFault,
    Quality,
    Reading,
    RequestCounts,
    Sample,
    Shape,
    Signal,
    SignalSpec,
    WorkloadSignals,
)
from autoscaler.model.workload import Engine
from autoscaler.signals.counters import NOTHING, PodCounts, counts_of
from autoscaler.signals.engines import ENGINES
from autoscaler.signals.faults import Fault
from autoscaler.signals.histograms import quantile
from autoscaler.signals.history import PodHistory
from autoscaler.signals.pages import ACTIVITY
from autoscaler.signals.targets import REPUBLISHED, ScrapeTarget

KEPT_SAMPLES: Final = 16
MAX_FAULTS: Final = 5
FRESH_PERIODS: Final = 3.0  # a page as old as this is not fresh any more
_QUANTILES: Final = frozenset({Signal.LATENCY, Signal.TTFT, Signal.ITL})
_LATENCIES: Final = {Measure.LATENCY_P50: 0.5, Measure.LATENCY_P95: 0.95, Measure.LATENCY_P99: 0.99}


class _Part(NamedTuple):  # made thousands of times a second: a frozen dataclass takes three times as long
    """What one pod contributes to one reading."""

    pod: PodHistory
    keys: tuple[str, ...]  # of its tracks, to name a fault
    value: float | None  # None while unknown, and for histograms
    at_s: float | None  # None while unknown


class WorkloadReadings:
    """The histories of one workload's Ready pods, and the samples drawn from them.

    `window_s` is how far back latency-like signals look: long enough to hold finished requests, short enough to react.
    """

    def __init__(self, target: ScrapeTarget, window_s: float) -> None:
        self.target = target
        self.pods: dict[str, PodHistory] = {}  # by uid, in the order of names
        self._window_s = window_s
        self._samples: dict[str, list[Sample]] = {}
        self.counts: dict[str, PodCounts] = {}  # by uid; empty where nobody asks for them
        self._counted = NOTHING  # by pods that went
        self._left: list[tuple[PodHistory, float]] = []  # pods that went, and when; see `_still_counted`
        self._finished = 0.0  # requests, by pods that went
        self._joined: dict[str, float] = {}  # when each pod came to be read, by uid; see `_awaited`
        self.retarget(target, 0.0)

    def retarget(self, target: ScrapeTarget, now_s: float) -> None:
        """The Ready pods, or what to read from them, changed: the pods that stay keep all."""
        ordered = sorted(target.pods, key=lambda pod: (pod.name, pod.uid))
        if target.revision != self.target.revision:  # what the one before it was asked is not its own
            self.counts, self._counted = {}, NOTHING
        self.target = target
        stay = {pod.uid for pod in ordered}
        left = [pod for uid, pod in self.pods.items() if uid not in stay]
        self._left += [(pod, now_s) for pod in left]
        self._finished += sum(pod.grown(Signal.THROUGHPUT) for pod in left)
        self.pods = {pod.uid: self.pods.get(pod.uid) or PodHistory(pod.name) for pod in ordered}
        self._joined = {uid: self._joined.get(uid, now_s) for uid in self.pods}
        self._recount()
        wanted = [spec.name for spec in target.signals]
        self._samples = {name: self._samples.get(name, []) for name in wanted}

    def _recount(self) -> None:
        """Count the requests of exactly these pods; what others had is not forgotten while somebody asks."""
        if not self.target.counters:
            self.counts, self._counted = {}, NOTHING
            return
        self._counted = self._requests(-math.inf)
        self.counts = {uid: self.counts.get(uid) or PodCounts() for uid in self.pods}

    def sample(self, at_s: float, now_s: float, period_s: float) -> None:
        """Draw the samples of the whole second `at_s`, at the instant `now_s` just after it."""
        self._left = [(pod, left) for pod, left in self._left if 0 <= now_s - left < FRESH_PERIODS * period_s]
        for spec in self.target.signals:
            kept = self._samples[spec.name]
            while kept and kept[-1].at_s > at_s:
                kept.pop()  # the clock was set back
            if kept and kept[-1].at_s == at_s:
                continue
            value = self._value(spec, now_s, period_s, kept[-1].value if kept else None)
            if value is not None:
                kept.append(Sample(at_s, value))
                del kept[:-KEPT_SAMPLES]

    def signals(self, now_s: float, period_s: float) -> WorkloadSignals:
        """What is known at this instant. `period_s` is the effective scrape period: freshness is measured in it."""
        readings = {}
        for spec in self.target.signals:
            samples = tuple(self._samples[spec.name])
            parts = self._parts(spec.name, now_s)
            known = any(part.at_s is not None for part in parts)
            value = samples[-1].value if samples and known else None
            readings[spec.name] = _judged(spec.name, value, samples, parts, now_s, period_s)
        engine = next((str(pod.engine) for pod in self.pods.values() if pod.engine is not None), "")
        measures = self._measures(now_s, period_s) if self.target.republish else {}
        requests = self._requests(now_s - FRESH_PERIODS * period_s) if self.target.counters else None
        return WorkloadSignals(readings, self._activity(now_s, period_s), engine, measures, requests)

    def _requests(self, since_s: float) -> RequestCounts:
        return counts_of(self.counts.values(), self._counted, self._countable(), since_s)

    def _countable(self) -> bool:
        """False once a pod has shown a page of no engine that we know."""
        if self.target.engine is not Engine.AUTO:
            return self.target.engine in ENGINES
        strange = (pod.page_at_s is not None or pod.page_fault == Fault.UNKNOWN_ENGINE for pod in self._nameless())
        return not any(strange)

    def _nameless(self) -> list[PodHistory]:
        return [pod for pod in self.pods.values() if pod.engine is None]

    def _measures(self, now_s: float, period_s: float) -> dict[Measure, float]:
        """What is republished. Nothing of a quantity without a fresh page: its old value would look like a new one."""
        limit_s = FRESH_PERIODS * period_s
        parts = {name: self._parts(name, now_s) for name in REPUBLISHED}
        fresh = {name for name, of in parts.items() if any(_is_fresh(part, now_s, limit_s) for part in of)}
        found: dict[Measure, float] = {}
        for measure, name in ((Measure.ACTIVE, Signal.CONCURRENCY), (Measure.THROUGHPUT, Signal.THROUGHPUT)):
            if name in fresh:
                found[measure] = math.fsum(part.value for part in parts[name] if part.value is not None)
        if Signal.THROUGHPUT in fresh:
            found[Measure.REQUESTS] = self._finished + sum(pod.grown(Signal.THROUGHPUT) for pod in self.pods.values())
        merged = self._merged(Signal.LATENCY, now_s) if Signal.LATENCY in fresh else {}
        values = {measure: quantile(share, merged) for measure, share in _LATENCIES.items()}
        return found | {measure: value for measure, value in values.items() if value is not None}

    def _value(self, spec: SignalSpec, now_s: float, period_s: float, last: float | None) -> float | None:
        """The next sample; None where no pod ever gave a value."""
        parts = self._parts(spec.name, now_s)
        if spec.name in _QUANTILES:
            answered = any(part.at_s is not None for part in parts)
            return self._quantile(spec, now_s, period_s, last) if answered else None
        known = [part.value for part in parts if part.value is not None]
        if not known:
            return None
        if spec.shape is Shape.LEVEL:  # the mean over the pods, so that level × ready is the sum of what they use
            return math.fsum(known) / (len(known) + self._awaited(parts, now_s, period_s))
        return math.fsum([*known, *self._still_counted(parts)])

    def _awaited(self, parts: list[_Part], now_s: float, period_s: float) -> int:
        """Pods that have just become Ready and have shown nothing yet: they carry next to nothing yet, either.

        If they counted like the others, a level would ask for more replicas for each that it got, until the first
        samples of the new ones are there. One that stays silent for longer counts like the others again.
        """
        limit_s = FRESH_PERIODS * period_s
        joined = zip(parts, self._joined.values(), strict=True)
        return sum(1 for part, at_s in joined if part.value is None and 0 <= now_s - at_s < limit_s)

    def _still_counted(self, parts: list[_Part]) -> list[float]:
        """What pods that went carried last, until every pod that stays has a page from after they went.

        Their requests do not vanish with them: they, or their retries, show up on the others' next pages.
        """
        oldest = min((part.at_s for part in parts if part.at_s is not None), default=0.0)
        keys = next((part.keys for part in parts if part.keys), ())
        found = [pod.sum(keys) for pod, left in self._left if oldest <= left and all(key in pod.tracks for key in keys)]
        return [value for value, _ in (each for each in found if each is not None)]

    def _quantile(self, spec: SignalSpec, now_s: float, period_s: float, last: float | None) -> float | None:
        """The percentile over the requests that all pods finished within the window."""
        value = quantile(spec.percentile, self._merged(spec.name, now_s))
        if value is not None:
            return value
        # Nobody finished. That is a latency of nothing only where nothing is going on: requests that hang finish
        # nothing either, and a repeated level keeps the replicas they need.
        activity = self._activity(now_s, period_s)
        return 0.0 if activity.quality is Quality.FRESH and activity.value == 0.0 else last

    def _merged(self, name: str, now_s: float) -> dict[float, float]:
        """The requests that all pods finished within the window, by bucket."""
        merged: dict[float, float] = {}
        for pod in self.pods.values():
            for bound, count in pod.histogram(name, now_s - self._window_s).items():
                merged[bound] = merged.get(bound, 0.0) + count
        return merged

    def _activity(self, now_s: float, period_s: float) -> Reading:
        # What finished on any page that still counts as fresh: a tick that comes every other second misses nothing.
        since_s = now_s - FRESH_PERIODS * period_s
        parts = []
        for pod in self.pods.values():
            keys = pod.plan.activity if pod.plan is not None else ()
            parts.append(_part(pod, keys, pod.activity(since_s)))
        known = [part.value for part in parts if part.value is not None]
        return _judged(ACTIVITY, math.fsum(known) if known else None, (), parts, now_s, period_s)

    def _parts(self, name: str, now_s: float) -> list[_Part]:
        parts = []
        for pod in self.pods.values():
            keys = pod.plan.signals.get(name, ()) if pod.plan is not None else ()
            if name in _QUANTILES:
                parts.append(_Part(pod, keys, None, pod.tracks[keys[0]].at_s if keys else None))
            else:
                parts.append(_part(pod, keys, pod.sum(keys)))
        return parts


def _part(pod: PodHistory, keys: tuple[str, ...], found: tuple[float, float] | None) -> _Part:
    return _Part(pod, keys, *found) if found is not None else _Part(pod, keys, None, None)


def _is_fresh(part: _Part, now_s: float, limit_s: float) -> bool:
    return part.at_s is not None and -limit_s < now_s - part.at_s < limit_s


def _judged(
    name: str, value: float | None, samples: tuple[Sample, ...], parts: list[_Part], now_s: float, period_s: float
) -> Reading:
    """The reading with its quality. A page from the future (the clock was set back) is as untrusted as an old one."""
    limit_s = FRESH_PERIODS * period_s
    stale = [part for part in parts if not _is_fresh(part, now_s, limit_s)]
    fresh = len(parts) - len(stale)
    if value is None:
        quality = Quality.ABSENT
    elif fresh == len(parts):
        quality = Quality.FRESH
    else:
        quality = Quality.PARTIAL if fresh > 0 else Quality.STALE
    ages = [now_s - part.at_s for part in parts if part.at_s is not None]
    return Reading(
        name=name,
        value=value,
        quality=quality,
        samples=samples,
        age_s=max(0.0, *ages) if ages else None,
        pods_expected=len(parts),
        pods_fresh=fresh,
        faults=tuple(PodFault(part.pod.name, part.pod.fault(name, part.keys)) for part in stale[:MAX_FAULTS]),
    )
