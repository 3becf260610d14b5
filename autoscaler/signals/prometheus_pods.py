"""The readings of all workloads, by way of a Prometheus that scrapes the pods; same values as scraping them ourselves.

Each round asks one query per quantity for all pods (`aggregates`) and enters what is new into the pods' histories, as a
page would be. An answer that fails, warns or lacks a pod changes no value: the last one grows old, and its age is that
of the sample, not of the answer. Decides when to ask; `history` and `readings` say what it is worth.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from autoscaler.model.signal import PodFault, Quality, Reading, WorkloadSignals
from autoscaler.model.workload import Engine, TargetKey
from autoscaler.signals.aggregates import Labels, PodName, Shown, by_quantity, expression, kind_of, shown_by_pod
from autoscaler.signals.engines import ENGINES, NEEDS, Kind, Source
from autoscaler.signals.faults import Fault
from autoscaler.signals.history import PodHistory, Track
from autoscaler.signals.pages import PageValues, Plan, plan_for
from autoscaler.signals.prometheus import Access, Answer, Failure, PrometheusClient
from autoscaler.signals.readings import MAX_FAULTS, WorkloadReadings
from autoscaler.signals.targets import ScrapeTarget

LEAST_PERIOD_S: Final = 0.5
ASKED_PER_INTERVAL: Final = 3  # a sample is seen within a third of the interval in which Prometheus takes one
WINDOW_S: Final = 15.0  # of latency-like signals, and at least so many samples:
WINDOW_SAMPLES: Final = 4
WORKLOADS_AT_ONCE: Final = 50

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Told:
    """An answer as seen by pod, with what turns Prometheus's instants into ours."""

    pods: Mapping[PodName, Shown]
    offset_s: float  # ours = its + offset; taken before the question, so that samples rather look old


class PrometheusPods:
    """Satisfies the cycle's port `Signals`, as PodScraper does. `clock` gives Unix seconds."""

    def __init__(
        self, clock: Callable[[], float], access: Access, labels: Labels, interval_s: float, of: str = "pods"
    ) -> None:
        """`interval_s`: how often Prometheus scrapes the pods; a sample older than three of them is not fresh.
        `of`: whose series they are, for the log; "": a trouble is not told."""
        self.pages_total: Counter[str] = Counter()  # answers, by "ok" or the reason
        self.scrape_seconds_total = 0.0
        self._clock = clock
        self._workloads: dict[TargetKey, WorkloadReadings] = {}
        self._sampled: dict[tuple[TargetKey, str], float] = {}  # by uid: the newest sample entered, its clock
        self._partial = False
        self._failing: str | None = None
        self._of = of
        self.configure(access, labels, interval_s)

    def configure(self, access: Access, labels: Labels, interval_s: float) -> None:
        """For the rounds to come."""
        if interval_s <= 0:
            raise ValueError("the interval must be above 0")
        self._access, self._labels = access, labels
        self.period_s = interval_s

    @property
    def effective_period_s(self) -> float:
        """The time between two samples of a pod."""
        return self.period_s

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None:
        """Read exactly these pods from now on."""
        for key in self._workloads.keys() - targets.keys():
            del self._workloads[key]
        for key, target in targets.items():
            workload = self._workloads.get(key)
            if workload is None:
                window_s = max(WINDOW_S, WINDOW_SAMPLES * self.period_s)
                self._workloads[key] = WorkloadReadings(target, window_s)
            elif workload.target != target:
                workload.retarget(target, self._clock())

    def readings(self, now_s: float) -> dict[TargetKey, WorkloadSignals]:
        """What is known of each workload at this instant of the clock."""
        found = {key: workload.signals(now_s, self.period_s) for key, workload in self._workloads.items()}
        return {key: _partial(signals) for key, signals in found.items()} if self._partial else found

    async def run(self) -> None:
        """Ask and sample until cancelled. May be called again: histories stay, their samples have aged."""
        client = PrometheusClient(self._access)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sample_every_second())
                group.create_task(self._ask(client))
        finally:
            await client.close()

    async def _sample_every_second(self) -> None:
        while True:
            now_s = self._clock()
            await asyncio.sleep(math.floor(now_s) + 1 - now_s)
            now_s = self._clock()
            self.sample(math.floor(now_s), now_s)

    def sample(self, at_s: float, now_s: float) -> None:
        """Draw the samples of the whole second `at_s`, at the instant `now_s` just after it."""
        for workload in self._workloads.values():
            workload.sample(at_s, now_s, self.period_s)

    async def _ask(self, client: PrometheusClient) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            client.access = self._access
            try:
                await self._round(client)
            except Exception:  # whatever an answer holds must not end the daemon; what is known grows old
                self.pages_total[Fault.UNREADABLE] += 1
                if self._failing != Fault.UNREADABLE:
                    log.exception("prometheus.not_read", of=self._of)
                self._failing = Fault.UNREADABLE
            period_s = max(LEAST_PERIOD_S, self.period_s / ASKED_PER_INTERVAL)
            await asyncio.sleep(max(0.0, started_s + period_s - loop.time()))

    async def _round(self, client: PrometheusClient) -> None:
        labels = self._labels
        groups = self.groups()
        asked_at_s, started_s = self._clock(), asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(client.query(expression(sources, labels)) for sources in groups))
        self.scrape_seconds_total += asyncio.get_running_loop().time() - started_s
        await self.enter(groups, answers, asked_at_s)

    def groups(self) -> list[tuple[Source, ...]]:
        """What to ask for, a query each."""
        return by_quantity(sources_of(workload.target for workload in self._workloads.values()))

    async def enter(
        self, groups: Sequence[tuple[Source, ...]], answers: Sequence[Answer | Failure], asked_at_s: float
    ) -> None:
        """What one round's answers say, into the histories. Yields the loop now and then, and waits for nothing."""
        labels = self._labels
        told: dict[Source, _Told | Failure] = {}
        for sources, answer in zip(groups, answers, strict=True):
            self.pages_total["ok" if isinstance(answer, Answer) else answer.reason] += 1
            if isinstance(answer, Answer):
                offset_s = asked_at_s - answer.at_s if answer.at_s is not None else 0.0
                shown = shown_by_pod(sources, labels, answer)
                told |= {source: _Told(pods, offset_s) for source, pods in shown.items()}
                await asyncio.sleep(0)
            else:
                told |= dict.fromkeys(sources, answer)
        warnings = sorted({each for answer in answers if isinstance(answer, Answer) for each in answer.warnings})
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        self._partial = self._partial or bool(warnings)
        self._tell(failures, warnings)
        for number, (key, workload) in enumerate(list(self._workloads.items())):
            for uid, history in workload.pods.items():
                self._enter(key, workload.target, uid, history, told, bool(warnings))
            if number % WORKLOADS_AT_ONCE == 0:
                await asyncio.sleep(0)  # 5,000 pods take 70 ms, and decisions do not wait for them
        self._partial = bool(warnings) or (self._partial and bool(failures))
        live = {(key, uid) for key, workload in self._workloads.items() for uid in workload.pods}
        self._sampled = {pod: at_s for pod, at_s in self._sampled.items() if pod in live}

    def _enter(
        self,
        key: TargetKey,
        target: ScrapeTarget,
        uid: str,
        history: PodHistory,
        told: Mapping[Source, _Told | Failure],
        partial: bool,
    ) -> None:
        """What this round says of one pod, into its history; or why it says nothing."""
        pod = (key.namespace, history.name)
        plan = _plan(target, history, lambda: _recognised(pod, told))
        asked = [told[source] for source in plan.sources if source in told] if plan is not None else [*told.values()]
        failure = next((each for each in asked if isinstance(each, Failure)), None)
        if failure is not None:
            history.observe_fault(f"Prometheus: {failure.reason}")
            return
        if plan is None or len(asked) < len(plan.sources):  # the target is younger than the question
            history.observe_fault(f"Prometheus: {Fault.NO_SAMPLES}")
            return
        values, sampled = PageValues(), []
        for source in plan.sources:
            answer = told[source]
            assert isinstance(answer, _Told)
            shown = answer.pods.get(pod)
            if shown is not None and shown.sampled_at_s is not None:
                sampled.append((shown.sampled_at_s, shown.sampled_at_s + answer.offset_s))
                store(values, source, shown)
        if not sampled:
            history.observe_fault(f"Prometheus: {Fault.NO_SAMPLES}")
            return
        its_s, ours_s = min(sampled)
        if self._sampled.get((key, uid)) == its_s and history.plan is plan:
            history.page_fault = None  # Prometheus is there; the sample is the one we know, and grows old
            return
        if partial:
            _keep_the_higher(values, history)
            self._sampled.pop((key, uid), None)  # a whole answer may show the same sample
        else:
            self._sampled[key, uid] = its_s
        history.observe(plan, values, ours_s, max(WINDOW_S, WINDOW_SAMPLES * self.period_s))

    def _tell(self, failures: list[Failure], warnings: list[str]) -> None:
        """A trouble and its end, once each."""
        trouble = failures[0].reason if failures else str(Fault.PARTIAL_ANSWER) if warnings else None
        if trouble == self._failing or not self._of:
            return
        if trouble is None:
            log.info("prometheus.recovered", of=self._of, after=self._failing)
        else:
            detail = failures[0].detail if failures else warnings[:3]
            log.warning("prometheus.failed", of=self._of, reason=trouble, detail=detail)
        self._failing = trouble


def sources_of(targets: Iterable[ScrapeTarget]) -> set[Source]:
    """Whatever any pod's plan may need."""
    found: set[Source] = set()
    for target in targets:
        for each in ENGINES if target.engine is Engine.AUTO else (target.engine,):
            found.update(plan_for(each, target.wanted).sources)
    return found


def plan_by(target: ScrapeTarget, pod: PodName, shown: Mapping[Source, Mapping[PodName, Shown]]) -> Plan | None:
    """What to read of this pod, by what Prometheus shows of it."""
    told = {source: _Told(pods, 0.0) for source, pods in shown.items()}
    return _plan(target, PodHistory(pod[1]), lambda: _recognised(pod, told))


def _recognised(pod: PodName, told: Mapping[Source, _Told | Failure]) -> Engine | None:
    """The engine whose series Prometheus has of this pod."""
    for engine, words in ENGINES.items():
        for source in words.sources.values():
            answer = told.get(source)
            if isinstance(answer, _Told) and pod in answer.pods:
                return engine
    return None


def _plan(target: ScrapeTarget, history: PodHistory, recognised: Callable[[], Engine | None]) -> Plan | None:
    """What to read of this pod; None while its engine is unknown and a signal depends on it."""
    wanted = target.wanted
    if target.engine is not Engine.AUTO:
        history.engine = target.engine
    elif history.engine is None:
        history.engine = recognised()
    if history.engine is not None:
        return plan_for(history.engine, wanted)
    own = [spec.name for spec in target.signals]
    own_metrics_only = bool(own) and not any(name in NEEDS for name in own)
    return plan_for(Engine.CUSTOM, wanted) if own_metrics_only else None


def store(values: PageValues, source: Source, shown: Shown) -> None:
    """Enter what Prometheus shows of one quantity of a pod."""
    kind = kind_of(source)
    if shown.fault is not None:
        values.faults[source.key] = shown.fault
    elif kind is Kind.HISTOGRAM:
        values.buckets[source.key] = shown.buckets
    elif shown.value is None:
        values.faults[source.key] = Fault.NO_SUCH_SERIES
    elif kind is Kind.COUNTER:
        values.counters[source.key] = {b"": shown.value}
    else:
        values.gauges[source.key] = shown.value


def _keep_the_higher(values: PageValues, history: PodHistory) -> None:
    """Of an answer that may lack some of a pod's ranks, what can only raise.

    A gauge without them is too low. A count without one of them is smaller by all that this one ever counted, and looks
    like one that began anew; one that is not smaller lacks nothing.
    """
    for key, value in values.gauges.items():
        track = history.tracks.get(key)
        values.gauges[key] = max(value, (track.value if track is not None else None) or 0.0)
    for counts in (values.counters, values.buckets):
        for key in [key for key, found in counts.items() if _may_lack(history.tracks.get(key), found)]:
            del counts[key]
            values.faults[key] = Fault.PARTIAL_ANSWER


def _may_lack(track: Track | None, found: Mapping[Any, float]) -> bool:
    if track is None or track.counted_at_s is None:
        return True
    known: Mapping[Any, float] = track.counts or track.buckets
    return any(found.get(part, 0.0) < count for part, count in known.items())


def _partial(signals: WorkloadSignals) -> WorkloadSignals:
    readings = {name: _not_whole(reading) for name, reading in signals.readings.items()}
    return replace(signals, readings=readings, activity=_not_whole(signals.activity))


def _not_whole(reading: Reading) -> Reading:
    """A warned answer may raise a count and never lower it: which pods it lacks a part of, nobody can say."""
    if reading.quality is not Quality.FRESH:
        return reading
    faults = (*reading.faults, PodFault("all pods", f"Prometheus: {Fault.PARTIAL_ANSWER}"))[:MAX_FAULTS]
    return replace(reading, quality=Quality.PARTIAL, pods_fresh=0, faults=faults)
