"""Ranges of Prometheus's samples become what a daemon would have known at the time. No input or output.

The same machinery as for live answers is led through the steps of the past. What it needs besides is who was there:
pods that have gone since carried load, too, and a window without it would read low. They are known by their names
(what a Deployment, a StatefulSet or a LeaderWorkerSet calls its pods) and by the series `up` of their scraping, so that
a pod that was there and could not be read makes a hole and not a zero.
"""

from __future__ import annotations

import asyncio
import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Final

from autoscaler.model.past import Moment
from autoscaler.model.signal import Quality
from autoscaler.model.workload import TargetKey
from autoscaler.signals.aggregates import INSTANT, PART, Labels, matchers
from autoscaler.signals.engines import NEEDS, Source
from autoscaler.signals.prometheus import Access, Answer, Series
from autoscaler.signals.prometheus_pods import PrometheusPods
from autoscaler.signals.range_reader import Ranges
from autoscaler.signals.readings import FRESH_PERIODS
from autoscaler.signals.targets import PodAddress, ScrapeTarget

# Labels that tell who scraped, and not what: those of Prometheus itself and of its Operator.
SCRAPE_LABELS: Final = ("job", "instance", "endpoint", "container", "service", "prometheus", "prometheus_replica")
# Kubernetes's random parts of names have these letters only, so that no name of another object ends like one by chance.
_RANDOM: Final = "[bcdfghjklmnpqrstvwxz2456789]"
_OF_DEPLOYMENT: Final = re.compile(f"(.+)-{_RANDOM}{{6,10}}-{_RANDOM}{{5}}")
_NUMBERED: Final = re.compile(r"(.+)-[0-9]+")
_OF_REPLICA_SET: Final = re.compile(f"(.+)-{_RANDOM}{{5}}")


@lru_cache(maxsize=32_768)
def family_of(pod: str) -> str | None:
    """What the pods of one object have in common: `family_of("llama-7c9d8f6b5-x8k2p") == "llama-*-*"`. None: nothing.

    The workers of a LeaderWorkerSet (llama-0-1) are not of their leaders' family (llama-0).
    """
    for pattern, rest in ((_OF_DEPLOYMENT, "-*-*"), (_NUMBERED, "-#"), (_OF_REPLICA_SET, "-*")):
        if found := pattern.fullmatch(pod):
            return found[1] + rest
    return None


def presence(labels: Labels) -> str:
    """The query of who was scraped: per pod, the instant of the newest attempt, whether it went well or not."""
    return f"max by ({labels.namespace}, {labels.pod}) (timestamp(up{matchers(labels)}))"


Families = defaultdict[tuple[str, str | None], set[str]]  # names of pods by namespace and family


class _Steps:
    """One answer over time, as an answer per step."""

    def __init__(self, ranges: Ranges) -> None:
        self._series = [(series, [at for at, _ in series.values]) for series in ranges.series]

    def at(self, its_s: float) -> Answer:
        found = []
        for series, instants in self._series:
            index = bisect_right(instants, its_s) - 1
            if index >= 0 and instants[index] == its_s:
                found.append(Series(series.labels, series.values[index][1]))
        return Answer(its_s if found else None, tuple(found))


class Past:
    """The moments of some workloads, step by step. `targets`: their pods and signals of today."""

    def __init__(
        self, targets: Mapping[TargetKey, ScrapeTarget], labels: Labels, interval_s: float, start_s: float
    ) -> None:
        """`interval_s`: how often Prometheus scrapes. `start_s`: of the first step, on our clock."""
        self.moments: dict[TargetKey, list[Moment]] = {key: [] for key in targets}
        self._at_s = start_s
        self._pods = PrometheusPods(lambda: self._at_s, Access(""), labels, interval_s, of="")
        self._labels, self._fresh_s = labels, FRESH_PERIODS * interval_s
        self._crews = {key: _Crew(key.namespace, target, start_s) for key, target in targets.items()}
        self._pods.set_targets({key: replace(target, pods=()) for key, target in targets.items()})
        self.groups: list[tuple[Source, ...]] = self._pods.groups()

    async def feed(
        self, ranges: Sequence[Ranges], present: Ranges, steps: Sequence[int], step_s: int, offset_s: float
    ) -> None:
        """The answers of all groups, and of `presence`, at these instants of Prometheus's clock; ours = its + offset.

        Steps follow each other, `step_s` apart, in this call and the next. Gives way to others between two of them.
        """
        answers = []
        for each in ranges:
            answers.append(_Steps(each))
            await asyncio.sleep(0)
        there = _Steps(present)
        for its_s in steps:
            told = [each.at(its_s) for each in answers]
            self._at_s = its_s + offset_s
            alive = self._fresh(there.at(its_s).series, its_s)
            shown = self._fresh((each for answer in told for each in answer.series if _is_instant(each)), its_s)
            for crew in self._crews.values():
                crew.meet(alive, shown)
            self._pods.set_targets({key: crew.target for key, crew in self._crews.items()})
            await self._pods.enter(self.groups, told, self._at_s)
            for second in range(math.ceil(self._at_s), math.ceil(self._at_s + step_s)):
                self._sample(second)
            await asyncio.sleep(0)

    def _sample(self, second: int) -> None:
        self._pods.sample(second, second)
        for key, signals in self._pods.readings(second).items():
            values, whole = {}, []
            for name, reading in signals.readings.items():
                if reading.samples and reading.samples[-1].at_s == second and reading.value is not None:
                    values[name] = reading.value
                    if reading.quality is Quality.FRESH:
                        whole.append(name)
            ready = len(self._crews[key].target.pods)
            if ready or self.moments[key]:
                self.moments[key].append(Moment(second, ready, values, frozenset(whole)))

    def _fresh(self, instants: Iterable[Series], its_s: float) -> Families:
        """Pods of now. Prometheus repeats a sample for five minutes; one that is that old was not there."""
        found: Families = defaultdict(set)
        for each in instants:
            namespace, pod = each.labels.get(self._labels.namespace), each.labels.get(self._labels.pod)
            if namespace and pod and its_s - each.value < self._fresh_s:
                found[namespace, family_of(pod)].add(pod)
        return found


def _is_instant(series: Series) -> bool:
    return series.labels.get(PART, "").startswith(INSTANT)


class _Crew:
    """Which of a workload's pods served at a step."""

    def __init__(self, namespace: str, target: ScrapeTarget, start_s: float) -> None:
        self.target = replace(target, pods=())
        self._families = {(namespace, family_of(pod.name)) for pod in target.pods}
        self._today = {pod.name: _created_s(pod) for pod in target.pods}
        self._start_s = start_s
        self._seen: set[str] = set()
        self._names: set[str] = set()

    def meet(self, alive: Families, shown: Families) -> None:
        """Who was scraped, and of whom there are values."""
        attempted = set[str]().union(*(alive[each] for each in self._families))
        valued = set[str]().union(*(shown[each] for each in self._families))
        self._seen |= valued & self._today.keys()
        gone = (attempted | valued) - self._today.keys()
        served = gone | {pod for pod, created_s in self._today.items() if self._served(pod, created_s, valued)}
        if served != self._names:
            self._names = served
            self.target = replace(self.target, pods=tuple(PodAddress(pod, pod, "") for pod in sorted(served)))

    def _served(self, pod: str, created_s: float | None, shown: set[str]) -> bool:
        """A pod of today: from its first value on; from the start where it is older than that, values or none."""
        return pod in shown or pod in self._seen or created_s is None or created_s < self._start_s


def _created_s(pod: PodAddress) -> float | None:
    try:
        return datetime.fromisoformat(pod.created).timestamp()
    except ValueError:
        return None


def knowable(target: ScrapeTarget, by_pages: bool) -> bool:
    """Can pods of it that have gone be told from those of others, and does Prometheus mean what live values mean?

    It keeps no types, so a pod's own metric is a gauge there unless it ends in _total; its page may say otherwise.
    """
    untyped = any(spec.name not in NEEDS and not spec.name.endswith("_total") for spec in target.signals)
    families = all(family_of(pod.name) is not None for pod in target.pods)
    return bool(target.pods) and families and not (by_pages and untyped)


def doubled(sources: Sequence[Source], labels: Labels) -> str:
    """The query that names pods of which Prometheus has a series twice: two jobs scrape them, and sums read double."""
    ours = ", ".join(SCRAPE_LABELS)
    names = sorted({name.decode() for source in sources for name in source.names})
    if not names:
        return "vector(0) > 1"  # of nothing, nothing is there twice
    return " or ".join(
        f"max by ({labels.namespace}, {labels.pod}) (count without ({ours}) ({name}{matchers(labels)})) > 1"
        for name in names
    )
