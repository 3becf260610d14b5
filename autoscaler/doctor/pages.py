"""Do the pods' own pages show what the workloads are scaled by?"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from autoscaler.doctor.findings import Finding, Level, pods_in_words
from autoscaler.doctor.patients import Patient
from autoscaler.doctor.series import (
    Trouble,
    engine_lacks,
    lacking,
    percent_perhaps,
    renamed,
    restored,
    told,
    unfit_value,
)
from autoscaler.model.workload import Engine
from autoscaler.signals.engines import NEEDS, recognise
from autoscaler.signals.faults import Fault
from autoscaler.signals.fetch import PageFetcher
from autoscaler.signals.pages import ACTIVITY, PageValues, Plan, plan_for, read_page
from autoscaler.signals.targets import ScrapeTarget, page_url

CHECK: Final = "pages"
MOST_PODS: Final = 5  # of a workload; they run the same image
PROBED: Final = 8  # workloads of which a page is tried, before it is said that none can be reached
AT_ONCE: Final = 32
_AWAY: Final = (Fault.REFUSED, Fault.UNREACHABLE, Fault.TIME_OUT)
_NAME: Final = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)[ {]", re.MULTILINE)
Pages = Mapping[str, bytes | str]  # by pod: the page, or why there is none


async def check_pages(patients: Sequence[Patient], timeout_s: float, most_bytes: int, level: Level) -> list[Finding]:
    """`level`: of a page that is not as it should be."""
    fetcher = PageFetcher(timeout_s, most_bytes)
    gate = asyncio.Semaphore(AT_ONCE)

    async def pages_of(patient: Patient, most: int = MOST_PODS) -> Pages:
        found: dict[str, bytes | str] = {}
        for pod in patient.target.pods[:most]:
            url = page_url(patient.target, pod)
            async with gate:
                found[pod.name] = await fetcher.get(url) if url is not None else Fault.BAD_ADDRESS
        return found

    try:
        first = await asyncio.gather(*(pages_of(patient, 1) for patient in patients[:PROBED]))
        if away := _all_away(first):
            return [away]
        pages = await asyncio.gather(*(pages_of(patient) for patient in patients))
    finally:
        await fetcher.close()
    return [each for patient, found in zip(patients, pages, strict=True) for each in judge(patient, found, level)]


def _all_away(pages: Sequence[Pages]) -> Finding | None:
    """From a person's machine pods can hardly ever be reached, which is no fault of theirs."""
    every = [page for each in pages for page in each.values()]
    if "KUBERNETES_SERVICE_HOST" in os.environ or not all(page in _AWAY for page in every):
        return None
    fix = "run it where the daemon runs: kubectl exec deploy/tidegate -- tidegate doctor"
    return Finding(Level.SKIPPED, CHECK, "all", f"no pod can be reached from here ({every[0]!s})", fix)


def judge(patient: Patient, pages: Pages, level: Level) -> Iterator[Finding]:
    """What the pages of one workload's pods say."""
    troubles = [(pod, trouble) for pod, page in pages.items() for trouble in _troubles(patient, page, level)]
    yield from told(CHECK, patient.name, troubles, len(pages))
    good = [pod for pod in pages if pod not in {pod for pod, _ in troubles}]
    if good:
        signals = ", ".join(spec.name for spec in patient.spec.scaling.signals)
        yield Finding(Level.OK, CHECK, patient.name, f"{signals}: shown by {pods_in_words(good, len(pages))}")


def _troubles(patient: Patient, page: bytes | str, level: Level) -> Iterator[Trouble]:
    target = patient.target
    if isinstance(page, str):
        yield Trouble(level, f"port {target.port}, path {target.path}: {page!s}, for {{pods}}", _fix_of(page, target))
        return
    names = sorted({found.decode() for found in _NAME.findall(page)})
    plan = plan_of(target, page)
    if plan is None:
        other = renamed([spec.name for spec in target.signals], names)
        fix = (
            restored(other)
            if other
            else "set serving.engine, or serving.metrics.port and path to the engine's own page"
        )
        yield Trouble(
            level, f"port {target.port}, path {target.path}: no known engine printed the page of {{pods}}", fix
        )
        return
    yield from plan_troubles(patient, plan, level)
    yield from value_troubles(patient, plan, read_page(page, plan, time.time()), names, "the page has", level)


def plan_of(target: ScrapeTarget, page: bytes) -> Plan | None:
    wanted = tuple(spec.name for spec in target.signals)
    engine = recognise(page) if target.engine is Engine.AUTO else target.engine
    if engine is None and any(name in NEEDS for name in wanted):
        return None
    return plan_for(engine or Engine.CUSTOM, wanted)


def plan_troubles(patient: Patient, plan: Plan, level: Level) -> Iterator[Trouble]:
    """What the engine never shows."""
    to_zero = patient.spec.scaling.min_replicas == 0
    for signal in plan.missing:
        if signal != ACTIVITY or to_zero:
            yield engine_lacks(plan, signal, level)


def value_troubles(
    patient: Patient, plan: Plan, values: PageValues, names: Iterable[str], where: str, level: Level
) -> Iterator[Trouble]:
    """What the engine should show and does not, or not as it should."""
    there = list(names)
    needed = {key for keys in plan.signals.values() for key in keys}
    for source in plan.sources:
        if source.key not in needed and patient.spec.scaling.min_replicas > 0:
            continue  # of the proof of idleness, which only the way to zero needs
        fault = values.faults.get(source.key)
        if fault is Fault.NO_SUCH_SERIES:
            yield lacking(plan, source, there, where, level)
        elif fault is not None:
            yield unfit_value(source, fault, where, level)
        elif suspect := percent_perhaps(source, values.gauges.get(source.key, 0.0), where):
            yield suspect


def _fix_of(fault: str, target: ScrapeTarget) -> str:
    if fault == "http 404":
        return f"set serving.metrics.path: the engine's page is not at {target.path}"
    if fault.startswith("http "):
        return "the engine answers with an error: see its log"
    return _FIXES.get(fault, "see the pod's log")


_FIXES: Final[Mapping[str, str]] = {
    Fault.REFUSED: "nothing listens on that port: set serving.metrics.port to the engine's",
    Fault.UNREACHABLE: "a NetworkPolicy must let the daemon's namespace reach that port",
    Fault.TIME_OUT: "a NetworkPolicy must let the daemon reach that port; a busy engine may need more scrape.timeout",
    Fault.BAD_ADDRESS: "correct serving.metrics.port and serving.metrics.path",
    Fault.TOO_LARGE: "raise scrape.maxPageSize, or have the engine print less",
    Fault.NOT_TEXT: "the port speaks something else than HTTP, or compresses: set serving.metrics.port",
}
