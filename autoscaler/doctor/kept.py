"""Does Prometheus have what the workloads are scaled by: all of it, once, and as often as the configuration says?"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from autoscaler.cluster.resources import WORKLOAD_LABEL
from autoscaler.doctor.findings import Finding, Level, pods_in_words
from autoscaler.doctor.pages import plan_troubles, value_troubles
from autoscaler.doctor.patients import Patient
from autoscaler.doctor.series import Trouble, renamed, restored, told
from autoscaler.signals.aggregates import Labels, PodName, Shown, by_quantity, expression, matchers, shown_by_pod
from autoscaler.signals.engines import Source
from autoscaler.signals.faults import Fault
from autoscaler.signals.pages import PageValues, Plan
from autoscaler.signals.past import doubled
from autoscaler.signals.prometheus import Answer, Failure
from autoscaler.signals.prometheus_pods import plan_by, sources_of, store
from autoscaler.signals.range_reader import RangeReader, Ranges
from autoscaler.signals.readings import FRESH_PERIODS

CHECK: Final = "series"
AT_ONCE: Final = 4
SLOWER, FASTER = 1.5, 0.5  # the measured interval, as a share of the configured one
_LEAST_WINDOW_S: Final = 60
_WINDOW_INTERVALS: Final = 6


@dataclass(frozen=True, slots=True)
class Stock:
    """What Prometheus has, by pod."""

    at_s: float  # its clock
    shown: Mapping[Source, Mapping[PodName, Shown]]
    attempts: Mapping[PodName, bool]  # did the newest scrape of it go well?
    twice: frozenset[PodName]


class SeriesCheck:
    """`level`: of what is missing."""

    def __init__(self, reader: RangeReader, labels: Labels, interval_s: float, level: Level) -> None:
        self._reader = reader
        self._labels = labels
        self._interval_s = interval_s
        self._level = level
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def check(self, patients: Sequence[Patient]) -> list[Finding]:
        stock = await self._stock(patients)
        if isinstance(stock, Failure):
            fix = "see Prometheus's own log; prometheus.timeout bounds each question"
            return [Finding(self._level, CHECK, "all", f"cannot be asked: {stock.reason} {stock.detail}".strip(), fix)]
        found = await asyncio.gather(*(self._one(patient, stock) for patient in patients))
        return [each for findings in found for each in findings]

    async def _stock(self, patients: Sequence[Patient]) -> Stock | Failure:
        labels = self._labels
        groups = by_quantity(sources_of(patient.target for patient in patients))
        pods = f"{labels.namespace}, {labels.pod}"
        attempts = f"min by ({pods}) (up{matchers(labels)})"
        sources = [source for group in groups for source in group]
        questions = [attempts, doubled(sources, labels), *(expression(group, labels) for group in groups)]
        answers = await asyncio.gather(*(self._asked(question) for question in questions))
        good = [each for each in answers if isinstance(each, Answer)]
        if len(good) < len(answers):
            return next(each for each in answers if isinstance(each, Failure))
        up, twice, *quantities = good
        shown: dict[Source, Mapping[PodName, Shown]] = {}
        for group, answer in zip(groups, quantities, strict=True):
            shown |= shown_by_pod(group, labels, answer)
        at_s = max((each.at_s for each in good if each.at_s is not None), default=0.0)
        attempted = {pod: value == 1.0 for pod, value in self._by_pod(up).items()}
        return Stock(at_s, shown, attempted, frozenset(self._by_pod(twice)))

    async def _asked(self, question: str) -> Answer | Failure:
        async with self._gate:
            return await self._reader.query(question)

    def _by_pod(self, answer: Answer) -> dict[PodName, float]:
        labels = self._labels
        named = ((each.labels.get(labels.namespace), each.labels.get(labels.pod), each.value) for each in answer.series)
        return {(namespace, pod): value for namespace, pod, value in named if namespace and pod}

    async def _one(self, patient: Patient, stock: Stock) -> list[Finding]:
        pods = [pod.name for pod in patient.target.pods]
        names: list[str] | None = None
        troubles: list[tuple[str, Trouble]] = []
        for pod in pods:
            name = (patient.key.namespace, pod)
            found = list(self._of_pod(patient, name, stock, names or []))
            if found and names is None and stock.attempts.get(name):
                names = await self._names_of(name)
                found = list(self._of_pod(patient, name, stock, names))
            troubles += [(pod, each) for each in found]
        findings = list(told(CHECK, patient.name, troubles, len(pods)))
        well = [pod for pod in pods if pod not in {pod for pod, _ in troubles}]
        if well:
            signals = ", ".join(spec.name for spec in patient.spec.scaling.signals)
            kept = f"{signals}: Prometheus has them of {pods_in_words(well, len(pods))}"
            findings.append(Finding(Level.OK, CHECK, patient.name, kept))
        findings += await self._scrapes(patient, pods, stock)
        return findings

    def _of_pod(self, patient: Patient, pod: PodName, stock: Stock, names: Sequence[str]) -> Iterator[Trouble]:
        plan = plan_by(patient.target, pod, stock.shown)
        lacks = list(plan_troubles(patient, plan, self._level)) if plan is not None else []
        yield from lacks
        if plan is None or not any(pod in stock.shown.get(source, {}) for source in plan.sources):
            if plan is None or plan.sources or not lacks:
                yield self._nothing(patient, pod, stock, plan, names)
            return
        values, sampled = PageValues(), []
        for source in plan.sources:
            shown = stock.shown.get(source, {}).get(pod)
            if shown is None:
                values.faults[source.key] = Fault.NO_SUCH_SERIES
                continue
            store(values, source, shown)
            if shown.sampled_at_s is not None:
                sampled.append(shown.sampled_at_s)
        yield from value_troubles(patient, plan, values, names, "Prometheus has", self._level)
        if sampled and stock.at_s - min(sampled) > FRESH_PERIODS * self._interval_s:
            fix = "is it down, or scraped less often than prometheus.scrapeInterval says? see its page /targets"
            yield Trouble(
                self._level, f"the newest samples are older than {FRESH_PERIODS:g} intervals, for {{pods}}", fix
            )

    def _nothing(
        self, patient: Patient, pod: PodName, stock: Stock, plan: Plan | None, names: Sequence[str]
    ) -> Trouble:
        """Not one of the series is there: is the pod scraped at all?"""
        target, went_well = patient.target, stock.attempts.get(pod)
        if went_well is None:
            message = f"Prometheus has no series of {{pods}}, and does not scrape port {target.port} there"
            return Trouble(self._level, message, self._monitor(patient))
        if not went_well:
            fix = f"its page /targets has the error; the pod's page is at port {target.port}, path {target.path}"
            return Trouble(self._level, "Prometheus fails to scrape {pods}", fix)
        if plan is not None:
            missing = PageValues(faults={source.key: Fault.NO_SUCH_SERIES for source in plan.sources})
            found = next(value_troubles(patient, plan, missing, names, "Prometheus has", self._level), None)
            if found is not None:
                return found
        other = renamed([spec.name for spec in target.signals], names)
        fix = restored(other) if other else f"does it scrape the engine's port ({target.port})? is serving.engine set?"
        return Trouble(self._level, "Prometheus scrapes {pods}, and has no series there of an engine that we know", fix)

    def _monitor(self, patient: Patient) -> str:
        if self._labels.match:
            return f"do its series have the labels of prometheus.match, {matchers(self._labels)}? else scrape the pods"
        selector = f"selector {{matchLabels: {{{WORKLOAD_LABEL}: {patient.key.name}}}}}"
        endpoint = f"podMetricsEndpoints [{{portNumber: {patient.target.port}, path: {patient.target.path}}}]"
        ours = f"labels {self._labels.namespace} and {self._labels.pod}"
        return f"add a PodMonitor in {patient.key.namespace}: {selector}, {endpoint}; series must carry the {ours}"

    async def _names_of(self, pod: PodName) -> list[str]:
        answer = await self._asked(f"count by (__name__) ({self._selected('', pod)})")
        return [each.labels.get("__name__", "") for each in answer.series] if isinstance(answer, Answer) else []

    def _selected(self, name: str, pod: PodName) -> str:
        return name + matchers(self._labels, (self._labels.namespace, pod[0]), (self._labels.pod, pod[1]))

    async def _scrapes(self, patient: Patient, pods: Sequence[str], stock: Stock) -> list[Finding]:
        """Twice, or at another pace than the configuration says?"""
        found = []
        twice = [pod for pod in pods if (patient.key.namespace, pod) in stock.twice]
        if twice:
            found.append(await self._doubled(patient, twice, len(pods)))
        there = next((pod for pod in pods if (patient.key.namespace, pod) in stock.attempts), None)
        measured_s = await self._measured_s((patient.key.namespace, there)) if there else None
        if measured_s is not None and not FASTER <= measured_s / self._interval_s <= SLOWER:
            message = f"is scraped every {measured_s:g} s, and the configuration says {self._interval_s:g} s"
            fix = f"set prometheus.scrapeInterval to {max(1, round(measured_s))}s: ages are judged by it"
            found.append(Finding(Level.WARNING, CHECK, patient.name, message, fix))
        return found

    async def _doubled(self, patient: Patient, twice: Sequence[str], pods: int) -> Finding:
        by = f"count by (job, instance) ({self._selected('up', (patient.key.namespace, twice[0]))})"
        answer = await self._asked(by)
        found = [each.labels for each in answer.series] if isinstance(answer, Answer) else []
        jobs = sorted(f"{each.get('job', '?')} at {each.get('instance', '?')}" for each in found)
        message = f"Prometheus has the same series twice for {pods_in_words(twice, pods)}: jobs {', '.join(jobs)}"
        fix = (
            "let one of these jobs alone scrape these pods: sums read double (or choose its labels by prometheus.match)"
        )
        return Finding(self._level, CHECK, patient.name, message, fix)

    async def _measured_s(self, pod: PodName) -> float | None:
        """The time between two scrapes; None while there are fewer than three."""
        window_s = max(_LEAST_WINDOW_S, round(_WINDOW_INTERVALS * self._interval_s))
        async with self._gate:
            ranges = await self._reader.samples(f"{self._selected('up', pod)}[{window_s}s]")
        if not isinstance(ranges, Ranges):
            return None
        gaps = [
            statistics.median(
                later[0] - earlier[0] for earlier, later in zip(each.values, each.values[1:], strict=False)
            )
            for each in ranges.series
            if len(each.values) > 2
        ]
        return round(min(gaps), 1) if gaps else None
