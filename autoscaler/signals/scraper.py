"""Reads every Ready pod's metrics page once a period, and says what is known of each workload.

It decides when a page is fetched and nothing else: `pages` says what a page means, `readings` what it is worth.
Workloads have fixed, evenly spread places within the period, so that neither the daemon nor the network sees bursts;
the pods of one are visited together. Pods that do not answer wait in a lane of their own, so that they delay nobody.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from yarl import URL

from autoscaler.model.signal import WorkloadSignals
from autoscaler.model.workload import Engine, TargetKey, WorkloadKey
from autoscaler.signals.counters import PodCounts
from autoscaler.signals.engines import ENGINES, NEEDS, recognise
from autoscaler.signals.faults import Fault
from autoscaler.signals.fetch import PageFetcher
from autoscaler.signals.history import PodHistory
from autoscaler.signals.pages import Plan, plan_for, read_page
from autoscaler.signals.readings import WorkloadReadings
from autoscaler.signals.targets import ScrapeTarget, page_url

DEFAULT_WINDOW_S: Final = 15.0
_GOLDEN_RATIO: Final = (math.sqrt(5) - 1) / 2
_SHORTEST_NAP_S: Final = 0.01  # visits due within it start together, which halves the wake-ups at 1,000 a second
_LONGEST_NAP_S: Final = 0.05  # a new pod waits at most this long for its first visit
_SLOW: Final = frozenset({Fault.TIME_OUT, Fault.UNREACHABLE})

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Visit:
    """One pod's place in the round."""

    target: ScrapeTarget
    history: PodHistory
    url: URL | None
    place: float  # 0..1 within the period
    counts: PodCounts | None = None  # where the target asks for them
    slow: bool = False  # its last visit took the whole time-out
    gone: bool = False


class PodScraper:
    """Scrapes the pods of all workloads.

    `clock` gives Unix seconds and dates pages and samples; the round itself runs on the loop's steady clock, so that
    a step of the wall clock moves no visit. All durations are seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        period_s: float = 1.0,
        timeout_s: float = 1.5,
        max_page_bytes: int = 4 * 1024 * 1024,
        concurrency: int = 64,
        pages_per_s: float = 1_000.0,
        window_s: float = DEFAULT_WINDOW_S,
    ) -> None:
        if window_s <= 0 or concurrency < 2:
            raise ValueError("the window must be above 0, concurrency at least 2")
        self.pages_total: Counter[str] = Counter()  # by "ok" or the reason
        self.scrape_seconds_total = 0.0  # time spent waiting for pages, summed over pods
        self._clock = clock
        self._concurrency = concurrency
        self._window_s = window_s
        self._workloads: dict[TargetKey, WorkloadReadings] = {}
        self._visits: dict[TargetKey, dict[str, _Visit]] = {}
        self._round: list[tuple[float, int, _Visit]] = []  # a heap by loop time
        self._sequence = 0
        self._places: dict[WorkloadKey, float] = {}
        self._workload_number = 0
        self._pods = 0
        self._fetcher: PageFetcher | None = None  # while `run` runs
        self.set_limits(period_s, timeout_s, max_page_bytes, pages_per_s)

    def set_limits(self, period_s: float, timeout_s: float, max_page_bytes: int, pages_per_s: float) -> None:
        """Other limits for the pages to come. Histories stay; pods wait no longer than the new period."""
        if min(period_s, timeout_s, max_page_bytes, pages_per_s) <= 0:
            raise ValueError("period, time-out, page size and budget must be above 0")
        self.period_s = period_s  # as asked for
        self._timeout_s = timeout_s
        self._max_page_bytes = max_page_bytes
        self._pages_per_s = pages_per_s
        if self._fetcher is not None:
            self._fetcher.set_limits(timeout_s, max_page_bytes)
            now_s = asyncio.get_running_loop().time()
            self._round = [(min(due, self._next_due(visit, now_s)), n, visit) for due, n, visit in self._round]
            heapq.heapify(self._round)

    @property
    def effective_period_s(self) -> float:
        """The time between two pages of a pod: longer than asked for where the pods exceed the budget."""
        return max(self.period_s, self._pods / self._pages_per_s)

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None:
        """Scrape exactly these pods from now on. Call it with every tick; what did not change costs a comparison."""
        gone = self._workloads.keys() - targets.keys()
        for key in gone:
            del self._workloads[key]
            for visit in self._visits.pop(key).values():
                visit.gone = True
        if gone:
            there = {key.workload for key in targets}
            self._places = {key: place for key, place in self._places.items() if key in there}
        for key, target in targets.items():
            workload = self._workloads.get(key)
            if workload is None:
                workload = self._workloads[key] = WorkloadReadings(target, self._window_s)
            elif workload.target == target:
                continue
            else:
                workload.retarget(target, self._clock())
            self._visits[key] = self._retargeted(workload, self._visits.get(key, {}), self._place(key.workload))
        self._pods = sum(len(visits) for visits in self._visits.values())

    def readings(self, now_s: float) -> dict[TargetKey, WorkloadSignals]:
        """What is known of each workload at this instant of the clock."""
        period_s = self.effective_period_s
        return {key: workload.signals(now_s, period_s) for key, workload in self._workloads.items()}

    async def run(self) -> None:
        """Scrape and sample until cancelled. May be called again: histories stay, their pages have aged."""
        visits = [visit for by_uid in self._visits.values() for visit in by_uid.values()]
        self._round = [(0.0, order, visit) for order, visit in enumerate(visits)]
        fetcher = self._fetcher = PageFetcher(self._timeout_s, self._max_page_bytes)
        prompt: asyncio.Queue[_Visit] = asyncio.Queue()  # each pod stands in one of them at most once
        slow: asyncio.Queue[_Visit] = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sample_every_second())
                group.create_task(self._hand_out(prompt, slow))
                for number in range(self._concurrency):
                    group.create_task(self._work(fetcher, slow if number % 2 else prompt))
        finally:
            self._fetcher = None
            await fetcher.close()

    def _place(self, key: WorkloadKey) -> float:
        """A workload's place in the round, 0..1; all its pods share it, of whatever revision.

        Their pages must show one instant: a request that ends on one pod and is followed by another elsewhere would
        else be counted on both, or on neither. Workloads spread evenly, whoever comes and goes.
        """
        if key not in self._places:
            self._workload_number += 1
            self._places[key] = self._workload_number * _GOLDEN_RATIO % 1.0
        return self._places[key]

    def _retargeted(self, workload: WorkloadReadings, before: Mapping[str, _Visit], place: float) -> dict[str, _Visit]:
        """The visits after a change of the target: kept for pods that stay, new and due at once for new ones."""
        after: dict[str, _Visit] = {}
        for pod in workload.target.pods:
            url = page_url(workload.target, pod)
            visit = before.get(pod.uid)
            if visit is None:
                self._sequence += 1
                visit = _Visit(workload.target, workload.pods[pod.uid], url, place)
                heapq.heappush(self._round, (0.0, self._sequence, visit))
            visit.target, visit.url, visit.counts = workload.target, url, workload.counts.get(pod.uid)
            after[pod.uid] = visit
        for uid in before.keys() - after.keys():
            before[uid].gone = True
        return after

    async def _sample_every_second(self) -> None:
        while True:
            now_s = self._clock()
            await asyncio.sleep(math.floor(now_s) + 1 - now_s)
            now_s = self._clock()
            for workload in self._workloads.values():
                workload.sample(math.floor(now_s), now_s, self.effective_period_s)

    async def _hand_out(self, prompt: asyncio.Queue[_Visit], slow: asyncio.Queue[_Visit]) -> None:
        """Pass each visit on when it is due."""
        loop = asyncio.get_running_loop()
        while True:
            while self._round and self._round[0][0] <= loop.time():
                visit = heapq.heappop(self._round)[2]
                if not visit.gone:
                    (slow if visit.slow else prompt).put_nowait(visit)
            next_s = self._round[0][0] - loop.time() if self._round else _LONGEST_NAP_S
            await asyncio.sleep(min(max(next_s, _SHORTEST_NAP_S), _LONGEST_NAP_S))

    async def _work(self, fetcher: PageFetcher, queue: asyncio.Queue[_Visit]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            visit = await queue.get()
            if visit.gone:
                continue
            started_s = loop.time()
            page = await fetcher.get(visit.url) if visit.url is not None else Fault.BAD_ADDRESS
            self.scrape_seconds_total += loop.time() - started_s
            if visit.gone:
                continue  # the answer may come from the next owner of the address
            self._take(visit, page)
            self._sequence += 1
            heapq.heappush(self._round, (self._next_due(visit, loop.time()), self._sequence, visit))

    def _next_due(self, visit: _Visit, now_s: float) -> float:
        """The pod's next place in the round that is at least half a period away, so that rates have time to mean much.

        With a period of 1 s and place 0.3, a visit that ends at 7.4 is followed by one at 8.3; one that ends at 7.9
        by one at 9.3.
        """
        period_s = self.effective_period_s
        offset_s = visit.place * period_s
        return math.ceil((now_s + period_s / 2 - offset_s) / period_s) * period_s + offset_s

    def _take(self, visit: _Visit, page: bytes | str) -> None:
        """Enter the outcome of a visit into the pod's history."""
        outcome: str | None
        if isinstance(page, str):
            outcome = page
        else:
            try:
                outcome = self._read(visit, page)
            except Exception:  # whatever a pod prints must not end the daemon
                outcome = Fault.UNREADABLE
                if visit.history.page_fault != outcome:
                    _log.exception("page.not_read", pod=visit.history.name)
        visit.slow = outcome in _SLOW
        if outcome is not None:
            visit.history.observe_fault(outcome)
        self.pages_total[outcome or "ok"] += 1

    def _read(self, visit: _Visit, page: bytes) -> str | None:
        """Read a page into the history; the reason where it cannot be."""
        plan = _plan(visit.target, visit.history, page)
        if plan is None:
            return Fault.UNKNOWN_ENGINE
        now_s = self._clock()
        visit.history.observe(plan, read_page(page, plan, now_s), now_s, self._window_s)
        if visit.counts is not None and plan.engine in ENGINES:
            visit.counts.observe(plan.engine, page, now_s)
        return None


def _plan(target: ScrapeTarget, history: PodHistory, page: bytes) -> Plan | None:
    """What to read from this pod's pages; None while its engine is unknown and a signal depends on it."""
    wanted = target.wanted
    if target.engine is not Engine.AUTO:
        history.engine = target.engine
    elif history.engine is None:
        history.engine = recognise(page)  # remembered: a pod's engine is that of its image
    if history.engine is not None:
        return plan_for(history.engine, wanted)
    own_metrics_only = bool(target.signals) and not any(spec.name in NEEDS for spec in target.signals)
    return plan_for(Engine.CUSTOM, wanted) if own_metrics_only else None
