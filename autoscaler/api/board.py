"""What the daemon shows: the last report and running totals. Written by the loop, read by every page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autoscaler.model.decision import Action
from autoscaler.model.report import CycleReport, WorkloadReport

STALLED_AFTER_TICKS = 5


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters of parts that the board does not know."""

    api_requests: Mapping[tuple[str, str], int]  # (method, code)
    api_host: str
    pages: Mapping[str, int]  # by outcome
    scrape_seconds: float
    scrape_period_s: float
    events_dropped: int


@dataclass(slots=True)
class Board:
    """The last report, and counts over all reports."""

    tick_s: float
    clock: Callable[[], float]  # steady seconds
    synced: Callable[[], bool]
    totals: Callable[[], Totals]
    version: str
    report: CycleReport | None = None
    started: float = field(init=False)
    finished_at: float | None = None  # steady seconds of the last good cycle
    cycles: Counter[str] = field(default_factory=Counter)  # by result
    decisions: Counter[tuple[str, str, str, str]] = field(
        default_factory=Counter
    )  # namespace, workload, action, reason
    scale_operations: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def take(self, report: CycleReport | None) -> None:
        """One more cycle; None: it crashed."""
        self.cycles["error" if report is None else "success"] += 1
        if report is None:
            return
        self.report = report
        self.finished_at = self.clock()
        for each in report.workloads.values():
            self._count(each)
        gone = {(namespace, name) for namespace, name, *_ in self.decisions} - set(report.workloads)
        if gone:
            self._forget(gone)

    def _count(self, each: WorkloadReport) -> None:
        if each.decision is None:
            return
        action = each.decision.action if each.scaled else Action.NONE
        self.decisions[(*each.key, action.value, each.decision.rule.value)] += 1
        if each.scaled:
            self.scale_operations[(each.key.namespace, each.key.name)] += 1

    def _forget(self, gone: set[tuple[str, str]]) -> None:
        """Series of deleted workloads end."""
        self.decisions = Counter({key: n for key, n in self.decisions.items() if key[:2] not in gone})
        self.scale_operations = Counter({key: n for key, n in self.scale_operations.items() if key not in gone})

    def alive(self) -> tuple[bool, str]:
        """Does the loop turn? After a start it may take its time to see the cluster."""
        since = self.clock() - (self.finished_at if self.finished_at is not None else self.started)
        limit = STALLED_AFTER_TICKS * self.tick_s if self.finished_at is not None else 60.0
        return since <= limit, f"last cycle {since:.1f} s ago (limit {limit:.0f} s)"

    def ready(self) -> tuple[bool, str]:
        """May it be trusted to act? The sentence says what is missing."""
        if not self.synced():
            return False, "not ready: the copies of the cluster's objects are not complete yet"
        if self.report is None:
            return False, "not ready: no cycle has finished yet"
        return True, f"ready: {len(self.report.workloads)} workloads, cycle took {self.report.duration_s:.3f} s"
