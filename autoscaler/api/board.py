"""What the daemon shows: the last report and running totals. Written by the loop, read by every page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from autoscaler.model.decision import Action
from autoscaler.model.report import CycleReport, WorkloadReport

STALLED_AFTER_TICKS = 5
FIRST_CYCLE_WITHIN_S = 60.0  # after a start it may take its time to see the cluster


@dataclass(frozen=True, slots=True)
class Configuration:
    """Which configuration applies, and what became of its file since."""

    sha256: str = ""  # of the file that applies
    read_at_s: float = 0.0  # Unix seconds of the newest good read
    successes: int = 0  # changes applied since the start
    failures: int = 0  # versions of the file refused since the start
    problems: tuple[str, ...] = ()  # why the newest version is refused; none: it is the one that applies
    refused_at_s: float | None = None  # Unix seconds
    waits_for_restart: tuple[str, ...] = ()  # keys whose new values do not apply yet

    @property
    def short(self) -> str:
        return self.sha256[:12]

    def sentences(self) -> str:
        """For /readyz."""
        said = [f"Configuration {self.short} applies, read at {_utc(self.read_at_s)}."]
        if self.waits_for_restart:
            said.append(f"New values of these keys wait for a restart: {', '.join(self.waits_for_restart)}.")
        if self.refused_at_s is not None:
            said.append(f"Newer versions of the file are refused since {_utc(self.refused_at_s)}:")
            said += self.problems
        return "\n".join(said)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How near the daemon is to its own limits."""

    events_queued: int = 0
    events_queue_most: int = 0
    scrape_period_asked_s: float = 0.0
    writes_per_s: float = 0.0  # the budget
    write_waits_s: float = 0.0  # spent waiting for it, summed over writes
    steps_queued: int = 0  # pieces of work on objects that run or wait
    steps_queue_most: int = 0
    steps_refused: int = 0  # found the queue full
    step_longest_s: float = 0.0  # the oldest of them
    watch_silent_s: float = 0.0  # since the API server last sent anything, for the copy that has waited longest
    statuses_deferred: int = 0  # by the last cycle, to a later one


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, as far as this process knows."""

    name: str = ""  # of the Lease
    holder: str = ""  # "" is nobody
    epoch: int | None = None  # of this process's tenure; None: it does not lead
    lapsed: bool = False  # it led, could not renew, and nobody else is known to lead
    unstamped: int = 0  # objects that wait for that epoch; until there are none, nothing is lowered

    def sentence(self) -> str:
        """For /readyz."""
        if self.epoch is not None:
            waits = f"; {self.unstamped} objects wait for its stamp, nothing is lowered" if self.unstamped else ""
            return f"This process leads, epoch {self.epoch}{waits}."
        if self.lapsed:
            return f"The Lease {self.name} could not be renewed: this process writes nothing until it has it again."
        return f"{self.holder or 'Nobody'} leads by the Lease {self.name}; this process writes nothing."


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters of parts that the board does not know."""

    api_requests: Mapping[tuple[str, str], int]  # (method, code)
    api_host: str
    pages: Mapping[str, int]  # by outcome
    scrape_seconds: float
    scrape_period_s: float
    events_dropped: int
    bounds: Bounds = Bounds()
    clock_behind_s: float = 0.0  # the machine's clock was stepped and we follow slowly
    answers: Mapping[str, int] = field(default_factory=dict)  # to queries for GPUs and those of the configuration


@dataclass(slots=True)
class Board:
    """The last report, and counts over all reports."""

    tick_s: float
    clock: Callable[[], float]  # steady seconds
    synced: Callable[[], bool]
    leader: Callable[[], Leader]
    totals: Callable[[], Totals]
    version: str
    report: CycleReport | None = None
    configuration: Configuration = Configuration()
    stopping: bool = False
    started: float = field(init=False)
    retimed_at: float = field(init=False)  # steady seconds since which the tick is what it is
    finished_at: float | None = None  # steady seconds of the last good cycle
    cycles: Counter[str] = field(default_factory=Counter)  # by result
    decisions: Counter[tuple[str, str, str, str]] = field(
        default_factory=Counter
    )  # namespace, workload, action, reason
    scale_operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    updates: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # namespace, workload, result
    update_seconds: dict[tuple[str, str, str], float] = field(default_factory=dict)  # that these took

    def __post_init__(self) -> None:
        self.started = self.retimed_at = self.clock()

    def set_tick(self, tick_s: float) -> None:
        """Another tick from now on. Patience starts anew: a cycle of the old tick is not late by the new one."""
        if tick_s != self.tick_s:
            self.tick_s, self.retimed_at = tick_s, self.clock()

    def show(self, configuration: Configuration) -> None:
        self.configuration = configuration

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
        if ended := each.updating.ended:
            self.updates[(*each.key, ended)] += 1
            took_s = self.update_seconds.get((*each.key, ended), 0.0)
            self.update_seconds[(*each.key, ended)] = took_s + each.updating.took_s
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
        self.updates = Counter({key: n for key, n in self.updates.items() if key[:2] not in gone})
        self.update_seconds = {key: n for key, n in self.update_seconds.items() if key[:2] not in gone}

    def rest(self) -> None:
        """Somebody else leads: the loop turns, and there is nothing to report."""
        self.report = None
        self.finished_at = self.clock()
        self._forget({(namespace, name) for namespace, name, *_ in self.decisions})

    def alive(self) -> tuple[bool, str]:
        """Does the loop turn? A cycle that crashed has not finished."""
        now = self.clock()
        if self.finished_at is None:
            since = now - self.started
            return since <= FIRST_CYCLE_WITHIN_S, (
                f"no cycle has finished in the {since:.1f} s since the start; allowed: {FIRST_CYCLE_WITHIN_S:g} s"
            )
        limit = STALLED_AFTER_TICKS * self.tick_s
        good = now - max(self.finished_at, self.retimed_at) <= limit
        return good, f"the last cycle finished {now - self.finished_at:.1f} s ago; allowed: {limit:g} s"

    def ready(self) -> tuple[bool, str]:
        """May it be trusted to act? The sentences say what is missing, and which configuration applies.

        A refused file does not make it unready: it goes on by the last good one, and its pages are needed most then.
        """
        good, text = self._ready()
        return good, f"{text}\n{self.leader().sentence()}\n{self.configuration.sentences()}"

    def _ready(self) -> tuple[bool, str]:
        if self.stopping:
            return False, "not ready: the daemon stops."
        if not self.synced():
            return False, "not ready: the copies of the cluster's objects are not complete yet."
        if self.finished_at is None:
            return False, "not ready: no cycle has finished yet."
        alive, why = self.alive()
        if not alive:
            return False, f"not ready: {why}."
        if self.leader().lapsed:
            return False, "not ready: leadership lapsed."
        if self.report is None:
            return True, "ready: standing by."
        number, took = len(self.report.workloads), self.report.duration_s
        return True, f"ready: {number} workloads, the last cycle took {took:.3f} s."


def _utc(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
