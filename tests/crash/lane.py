"""One lane: a namespace with its own daemon behind its own fault proxy, where cells run one after another.

Lanes do not know each other, so several run at once. A cell uses a workload of a name of its own.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.crash.route import ImitatedGateway
from tests.crash.scenarios import Scenario
from tests.crash.subject import Subject
from tests.crash.verdict import broken_invariants, difference, end_state
from tests.crash.world import OF_NOBODY, PATHS, World
from tests.e2e.daemon import Daemon
from tests.realcluster import waiting
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import WaitError
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Armed, CommitThenTimeOut, Drop, Exchange, Fault, HangUp, Rule
from tests.realcluster.modelserver import ModelServers

GPUS: Final = 16  # of a lane's project: enough for every scenario, and for one at a time
QUIET_S: Final = 1.0  # three ticks without a write and without a change
CELL_S: Final = 60.0  # a busy machine starts a daemon in ten
LEDGERS: Final = "/quotaledgers"
NOT_STATE: Final = ("/events", "/leases")  # told or renewed by the clock; no state that a crash could leave half-done


class Kind(StrEnum):
    """How a write is interrupted. The last one is the same to the client as a time-out, and ten seconds shorter."""

    BEFORE = "kill before"
    AFTER = "kill after"
    TIME_OUT = "time out"
    HANG_UP = "hang up"


@dataclass(frozen=True, slots=True)
class Clean:
    """What an undisturbed run wrote, and where it ended."""

    writes: tuple[str, ...]
    state: dict[str, Any]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """`write` counts from 1; 0 is what the user wrote. `like`: counts only those whose telling has this expression."""

    scenario: Scenario
    write: int
    kind: Kind
    like: str = ""

    def row(self, clean: Clean) -> int:
        """The write that is meant, counted from 1 among all of the undisturbed run; 0 for the user's own."""
        meant = (number for number, told in enumerate(clean.writes, start=1) if re.search(self.like, told))
        return next(itertools.islice(meant, self.write - 1, None)) if self.write else 0

    def __str__(self) -> str:
        which = f"write {self.write}" + (f" of {self.like!r}" if self.like else "")
        return f"{self.scenario.name}, {which}, {self.kind}"


@dataclass(frozen=True, slots=True)
class Result:
    """`struck`: the write that was interrupted; None: there was no such write in this run."""

    cell: Cell
    struck: str | None
    problems: tuple[str, ...]
    seconds: float


class Lane:
    """Use it in a `with` statement."""

    def __init__(self, cluster: Cluster, namespace: str, directory: Path) -> None:
        self._cluster = cluster
        self.namespace = namespace
        self._directory = directory
        self._began = 0.0  # of the wait that goes on (monotonic)
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self.crashes = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.proxy = stack.enter_context(FaultProxy(self._cluster.url, self._cluster.ca_path))
            config = _config(self.namespace)
            self.daemon = Daemon(self._cluster, self.namespace, self._directory, config, self.proxy.url)
            self.world = stack.enter_context(World(self._cluster, self.namespace, tuple(PATHS)))
            stack.enter_context(ImitatedGateway(self._cluster, self.world))
            access = (self._cluster.url, self._cluster.admin_token, self._cluster.ca_path, self.namespace)
            stack.enter_context(ModelServers(*access, self._directory / "modelservers.log"))
            stack.callback(self.daemon.stop)
            self.daemon.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run_clean(self, scenario: Scenario) -> Clean:
        """Once without a fault."""
        subject, mark = self._prepare(scenario)
        scenario.act(subject)
        self._until(subject, lambda: scenario.done(subject), "the end of the scenario")
        writes = tuple(_told(each, subject) for each in self.proxy.exchanges() if self._counts(each, subject))
        clean = Clean(writes, end_state(self.world, subject.name), self._broken(scenario, subject, mark))
        self._clear(subject)
        return clean

    def run_cell(self, cell: Cell, clean: Clean) -> Result:
        """Once with one fault; what was wrong."""
        began = time.monotonic()
        try:
            subject, mark = self._prepare(cell.scenario)
        except WaitError as error:
            return Result(cell, None, (f"its start was not reached: {error}",), time.monotonic() - began)
        armed = self._arm(cell, subject)
        problems: tuple[str, ...] = ()
        try:
            self._act(cell, subject)
            self._until(subject, lambda: self._reached(cell, clean, subject, armed), "the end state of the clean run")
        except WaitError as error:
            wrong = tuple(difference(clean.state, end_state(self.world, subject.name)))
            problems = wrong or (f"it was never quiet: {error}",)
        finally:
            self.proxy.disarm()
        problems += self._broken(cell.scenario, subject, mark)
        struck = _told(armed.hits[0], subject) if armed.hits else None
        self._clear(subject)
        return Result(cell, "the user's own" if cell.write == 0 else struck, problems, time.monotonic() - began)

    def left_behind(self) -> list[str]:
        """What is still there of all the deleted workloads, once the garbage collector had its time."""
        kinds = [kind for kind in PATHS if kind != "QuotaLedger"]  # it stays, and holds nothing

        def found() -> list[str]:
            objects = [f"{kind} {each['metadata']['name']}" for kind in kinds for each in self.world.objects(kind)]
            return objects + [f"hold of {each['revision']}" for each in self.world.holds()]

        try:
            waiting.wait_for(lambda: not found(), "the objects of deleted workloads to go", CELL_S)
        except WaitError:
            return found()
        return []

    # --- one run ---

    def _prepare(self, scenario: Scenario) -> tuple[Subject, int]:
        """A workload where the scenario starts, everything quiet; the mark from which its changes count."""
        waiting.wait_for(lambda: not self.world.holds(), f"the quota of {self.namespace} to be free", CELL_S)
        subject = Subject(self._cluster, self.world, f"cell-{next(self._numbers):03}", scenario.shape)
        scenario.prepare(subject)
        self._until(subject, lambda: True, "quiet before the scenario")
        self.proxy.forget()
        return subject, self.world.mark()

    def _arm(self, cell: Cell, subject: Subject) -> Armed:
        faults: dict[Kind, Fault] = {
            Kind.BEFORE: Drop(then=self._crash),
            Kind.AFTER: CommitThenTimeOut(then=self._crash),
            Kind.TIME_OUT: CommitThenTimeOut(),
            Kind.HANG_UP: HangUp(commit=True),
        }
        never = 1_000_000

        def meant(exchange: Exchange) -> bool:
            return self._counts(exchange, subject) and re.search(cell.like, _told(exchange, subject)) is not None

        return self.proxy.arm(Rule(faults[cell.kind], where=meant, nth=cell.write or never))

    def _act(self, cell: Cell, subject: Subject) -> None:
        """The user acts; for write 0 the daemon is down at the time, or killed right after."""
        if cell.write == 0 and cell.kind is Kind.BEFORE:
            self.daemon.kill()
            subject.after_first_write = self.daemon.start
            self.crashes += 1
        elif cell.write == 0:
            subject.after_first_write = self._crash
        cell.scenario.act(subject)

    def _crash(self) -> None:
        """kill -9, and a new process as the kubelet would start it. Runs in a thread of the proxy."""
        self.daemon.kill()
        self.crashes += 1
        self.daemon.start()

    def _reached(self, cell: Cell, clean: Clean, subject: Subject, armed: Armed) -> bool:
        """The fault is over (or its write never came), and all is as it was without it."""
        if armed.hits and not armed.is_over:
            return False
        return cell.scenario.done(subject) and end_state(self.world, subject.name) == clean.state

    def _until(self, subject: Subject, holds: Callable[[], bool], what: str) -> None:
        """Waits until it holds and nothing has been written or changed for a while."""

        def quiet() -> bool:
            return time.monotonic() - self._last_stir(subject) >= QUIET_S and holds()

        self._began = time.monotonic()
        waiting.wait_for(quiet, f"{what} ({self.namespace}/{subject.name})", CELL_S)

    def _last_stir(self, subject: Subject) -> float:
        """When something last happened to the workload, or the daemon last began anew (monotonic)."""
        changes = self.world.changes(subject.name)
        to_monotonic = time.monotonic() - time.time()
        written = [
            (each.ended_at or time.time()) + to_monotonic
            for each in self.proxy.exchanges()
            if self._counts(each, subject)
        ]
        return max([self._began, *(each.at_s for each in changes[-1:]), *written])

    def _counts(self, exchange: Exchange, subject: Subject) -> bool:
        """Is it a write of state, about this workload?"""
        if not exchange.is_write or any(part in exchange.path for part in NOT_STATE):
            return False
        mine = subject.name in exchange.path or subject.name.encode() in exchange.body
        return mine or LEDGERS in exchange.path  # one that holds nothing any more names nobody

    def _broken(self, scenario: Scenario, subject: Subject, mark: int) -> tuple[str, ...]:
        life = self.world.changes(subject.name)
        since_act = self.world.changes(subject.name, mark)
        ledgers = self.world.changes(OF_NOBODY)
        return tuple(broken_invariants(life, since_act, scenario.bounds, subject.uid, ledgers))

    def _clear(self, subject: Subject) -> None:
        if subject.exists():
            subject.delete()
        if subject.shape.routed:
            subject.delete_route()


def _config(namespace: str) -> dict[str, Any]:
    limits = {"default": {"nvidia.com/gpu": GPUS}}
    return {
        "tick": "300ms",
        "log": {"level": "debug", "format": "json"},
        "projects": {"team": {"namespaces": [namespace], "quota": {"limits": limits}}},
    }


def _told(exchange: Exchange, subject: Subject) -> str:
    """A write in a few words: PATCH deployments/<workload>-1a2b3c4d/scale."""
    path = exchange.path.partition("/namespaces/")[2].partition("/")[2].replace(subject.name, "W")
    what = exchange.json()
    if exchange.method == "POST":
        path += f" {what['metadata']['name'].replace(subject.name, 'W')}"
    if path.endswith("/status"):
        path += _of_status(what["status"])
    return f"{exchange.method} {path}"


def _of_status(status: dict[str, Any]) -> str:
    if "record" not in status:
        return " (report)"
    rollout = status["rollout"]
    return f" (record, {rollout['phase']} {rollout['weight']} %)" if rollout else " (record)"
