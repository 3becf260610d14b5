"""What to do next for one workload: `step`, a function of what is recorded, what is seen and what was granted.

It never acts and never waits. Commands are declarative ("revision r has n replicas"): repeating one is harmless, and a
crash between two of them heals at the next step. A steady workload is a rollout whose one revision has all the traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from rollouts.record import Phase, Record
from rollouts.revision import NO_REVISION, Revision


@dataclass(frozen=True, slots=True)
class ObservedRevision:
    """The objects of one revision as last seen."""

    name: str
    replicas: int | None  # spec.replicas of its object; None: there is no object
    ready: int = 0
    starting: int = 0  # live, not ready, not terminating
    unscheduled: int = 0  # of the starting ones, without a node
    terminating: int = 0
    epoch: int | None = None  # of the leader that last stamped its object

    @property
    def live(self) -> int:
        """Pods that hold resources."""
        return self.ready + self.starting + self.terminating


@dataclass(frozen=True, slots=True)
class ObservedService:
    """One of the workload's two Services as last seen."""

    name: str
    exists: bool
    selects: str | None = None  # value of the revision key of its selector


@dataclass(frozen=True, slots=True)
class Observed:
    """All that `step` may know of the cluster."""

    newest: Revision  # of the template as stored now
    collision_count: int  # that the newest revision's name needed
    saved: frozenset[str]  # names of stored revisions
    current: ObservedRevision | None  # of the record's current revision; None: no record yet
    service: ObservedService
    update_service: ObservedService


@dataclass(frozen=True, slots=True)
class SaveRevision:
    """The content of this revision is stored immutably."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Stamp:
    """The revision's object carries this epoch, so that late writes of an earlier leader fail."""

    revision: str
    epoch: int


@dataclass(frozen=True, slots=True)
class HaveReplicas:
    """The revision's object exists and has n replicas. `seen` is the count that was observed (None: no object)."""

    revision: str
    replicas: int
    seen: int | None


@dataclass(frozen=True, slots=True)
class Select:
    """The Service exists and selects this revision. `exists` says whether it was observed."""

    service: str
    revision: str
    exists: bool


Command = SaveRevision | Stamp | HaveReplicas | Select


class Reason(StrEnum):
    REVISION_CREATED = "RevisionCreated"
    UPDATE_PENDING = "UpdatePending"
    REVISION_AVAILABLE = "RevisionAvailable"
    INITIALIZATION_TIMED_OUT = "InitializationTimedOut"
    TAKING_OVER = "TakingOver"


@dataclass(frozen=True, slots=True)
class Step:
    """What to remember and what to do, in this order: the record first, then the commands one by one."""

    record: Record
    commands: tuple[Command, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """The workload's numbers that a step needs."""

    initial_replicas: int
    initialization_timeout_s: float | None = None
    stopped: bool = False  # wanted at zero by the user: time does not count against it
    epoch: int | None = None  # of the present leader; None: nobody to be fenced off from (a simulated world)
    may_lower: bool = True  # False until every object carries that epoch: a late write may still raise another


def step(limits: Limits, record: Record, observed: Observed, granted: int, now: float) -> Step:
    """The next step of a workload with one revision.

    `granted` is the replica count after policy, bounds and quota. A template edit is remembered as `record.update` and
    changes nothing else.
    """
    before = record
    record = _remember(limits, record, observed, granted, now)
    if record.phase is Phase.FAILED:
        granted = 0
    seen = _seen(record, observed)
    applied = (seen.replicas if seen else None) or 0
    held = not limits.may_lower and granted < applied
    granted = applied if held else granted
    if (record.replicas, record.epoch) != (granted, limits.epoch):
        record = replace(record, replicas=granted, epoch=limits.epoch)
    reasons = (*_reasons(before, record), Reason.TAKING_OVER) if held else _reasons(before, record)
    return Step(record, tuple(_commands(record, observed, granted)), reasons)


def _remember(limits: Limits, record: Record, observed: Observed, granted: int, now: float) -> Record:
    if record.current is None or _never_came_to_be(record, observed):
        record = Record(current=observed.newest.name, collision_count=observed.collision_count)
    if limits.stopped and record.served_at is None:
        record = replace(record, phase=Phase.STARTING, started_at=None)
    update = observed.newest.name if observed.newest.name != record.current else None
    if update != record.update:
        record = replace(record, update=update)
    if record.started_at is None and granted > 0:
        record = replace(record, started_at=now)
    seen = _seen(record, observed)
    if seen is not None and seen.ready > 0 and record.served_at is None:
        record = replace(record, served_at=now, phase=Phase.COMPLETE)
    serving = (seen is not None and seen.ready > 0) or (record.serving and granted > 0)
    if serving != record.serving:
        record = replace(record, serving=serving)
    enough = min(limits.initial_replicas, granted)  # quota may never grant more
    if (
        not record.initialized
        and (seen.ready if seen else 0) >= enough
        and (granted > 0 or not limits.initial_replicas)
    ):
        record = replace(record, initialized=True)
    if _timed_out(limits, record, now):
        record = replace(record, phase=Phase.FAILED)
    return record


def _seen(record: Record, observed: Observed) -> ObservedRevision | None:
    """The objects of the record's current revision; None right after another one became current."""
    seen = observed.current
    return seen if seen is not None and seen.name == record.current else None


def _never_came_to_be(record: Record, observed: Observed) -> bool:
    """A revision that never served, has been corrected, and has nothing to protect: refused, failed, or not created."""
    if record.served_at is not None or observed.newest.name == record.current:
        return False
    replicas = observed.current.replicas if observed.current else None
    return replicas is None or (record.phase is Phase.FAILED and replicas == 0)


def _timed_out(limits: Limits, record: Record, now: float) -> bool:
    if limits.initialization_timeout_s is None or record.started_at is None or record.served_at is not None:
        return False
    return now >= record.started_at + limits.initialization_timeout_s


def _commands(record: Record, observed: Observed, granted: int) -> list[Command]:
    """Content before the object made from it, capacity before the Service that points at it."""
    assert record.current is not None  # set by _remember
    commands: list[Command] = []
    if record.current not in observed.saved and record.current == observed.newest.name:
        commands.append(SaveRevision(observed.newest))
    there = _seen(record, observed)
    seen = there.replicas if there else None
    if there is not None and seen is not None and record.epoch is not None and there.epoch != record.epoch:
        commands.append(Stamp(record.current, record.epoch))
    if seen != granted:
        commands.append(HaveReplicas(record.current, granted, seen))
    wanted = ((observed.service, record.current), (observed.update_service, NO_REVISION))
    for service, revision in wanted:
        if service.selects != revision:
            commands.append(Select(service.name, revision, service.exists))
    return commands


def _reasons(before: Record, after: Record) -> tuple[Reason, ...]:
    changed = (
        (before.current != after.current, Reason.REVISION_CREATED),
        (after.update is not None and before.update != after.update, Reason.UPDATE_PENDING),
        (before.served_at is None and after.served_at is not None, Reason.REVISION_AVAILABLE),
        (before.phase != after.phase and after.phase is Phase.FAILED, Reason.INITIALIZATION_TIMED_OUT),
    )
    return tuple(reason for happened, reason in changed if happened)
