"""What to do next for one workload: `step`, a function of what is recorded, what is seen and what was granted.

It never acts and never waits. Commands are declarative ("revision r has n replicas"): repeating one is harmless, and a
crash between two of them heals at the next step. A steady workload is a rollout whose one revision has all the traffic.

    current     how the current revision's record changes        intent      what people want now
    departures  revisions on their way out                       updates     how an update moves on, phase by phase
    moves       the table of legal moves                         gates, planner, quota: what it takes
    actions     record + observation -> commands                 invariants  checked before anything is done
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from rollouts import actions, current, departures, intent, invariants, moves, planner, updates
from rollouts.commands import (
    Command,
    DeleteRevision,
    HaveReplicas,
    Hold,
    Release,
    SaveRevision,
    Select,
    Stamp,
    WarmUp,
    Weigh,
)
from rollouts.invariants import Broken
from rollouts.observed import Limits, Observed, ObservedRevision, ObservedService, Situation
from rollouts.quota import Ask
from rollouts.record import Phase, Record, Rollout, Why
from rollouts.revision import NO_REVISION

__all__ = [
    "Command",
    "DeleteRevision",
    "HaveReplicas",
    "Hold",
    "Limits",
    "Observed",
    "ObservedRevision",
    "ObservedService",
    "Reason",
    "Release",
    "SaveRevision",
    "Select",
    "Stamp",
    "Step",
    "WarmUp",
    "Weigh",
    "ask",
    "step",
]


class Reason(StrEnum):
    """What happened in a step, for events."""

    REVISION_CREATED = "RevisionCreated"
    UPDATE_PENDING = "UpdatePending"
    REVISION_AVAILABLE = "RevisionAvailable"
    INITIALIZATION_TIMED_OUT = "InitializationTimedOut"
    TAKING_OVER = "TakingOver"
    UPDATE_QUEUED = "UpdateQueued"
    UPDATE_STARTED = "UpdateStarted"
    UPDATE_SHIFTING = "UpdateShifting"
    UPDATE_PAUSED = "UpdatePaused"
    UPDATE_DRAINING = "UpdateDraining"
    UPDATE_COMPLETED = "UpdateCompleted"
    UPDATE_ROLLING_BACK = "UpdateRollingBack"
    UPDATE_FAILED = "UpdateFailed"
    UPDATE_SUPERSEDED = "UpdateSuperseded"
    VERB_IGNORED = "VerbIgnored"
    FROZEN = "Frozen"


_OF_PHASE = {
    Phase.QUEUED: Reason.UPDATE_QUEUED,
    Phase.STARTING: Reason.UPDATE_STARTED,
    Phase.SHIFTING: Reason.UPDATE_SHIFTING,
    Phase.PAUSED: Reason.UPDATE_PAUSED,
    Phase.DRAINING: Reason.UPDATE_DRAINING,
    Phase.ROLLING_BACK: Reason.UPDATE_ROLLING_BACK,
    Phase.FAILED: Reason.UPDATE_FAILED,
}


@dataclass(frozen=True, slots=True)
class Step:
    """What to remember and what to do, in this order: the record first, then the commands one by one."""

    record: Record
    commands: tuple[Command, ...] = ()
    reasons: tuple[Reason, ...] = ()
    waiting: str | None = None  # what the update waits for, as a sentence
    broken: Broken | None = None  # a bug of ours: nothing is done and nothing is remembered


def step(limits: Limits, record: Record, observed: Observed, granted: int, now: float) -> Step:
    """The next step of a workload.

    `granted` is the replica count of the current revision after policy, bounds and quota. Without `limits.rollout` a
    template edit is remembered as `record.update` and changes nothing else.
    """
    if limits.rollout is not None:
        return _driven(Situation(limits, limits.rollout, observed, granted, now), record)
    before = record
    record = current.remember(limits, record, observed, granted, now)
    if record.phase is Phase.FAILED:
        granted = 0
    record, granted, held = _counted(limits, record, current.of_current(record, observed), granted)
    reasons = (*_reasons(before, record), Reason.TAKING_OVER) if held else _reasons(before, record)
    return Step(record, tuple(_commands(record, observed, granted)), reasons)


def ask(
    limits: Limits, record: Record, observed: Observed, granted: int, now: float, asker: planner.Asker
) -> Ask | None:
    """What the update asks of the ledgers in this cycle. The verdict goes into `observed.verdict` of `step`."""
    if limits.rollout is None:
        return None
    seen = Situation(limits, limits.rollout, observed, granted, now)
    return planner.ask(seen, _taken_in(seen, record), asker)


def _taken_in(seen: Situation, record: Record) -> Record:
    """The record with everything that happened and that is wanted, before the update moves."""
    record = intent.heed_bounds(seen.spec, seen.observed.newest.name, record)
    record = current.remember(seen.limits, record, seen.observed, seen.granted, seen.now)
    return intent.heed(seen, departures.follow(seen, record))


def _driven(seen: Situation, before: Record) -> Step:
    """Everything that happened is taken in first; then the update moves; then what is to be so follows from it."""
    limits, observed = seen.limits, seen.observed
    record = _taken_in(seen, before)
    record, waiting = updates.advance(seen, record)
    update = observed.newest.name if observed.newest.name != record.current else None
    if update != record.update:
        record = replace(record, update=update)
    record, replicas, held = _counted(
        limits, record, observed.of(record.current or ""), _replicas(seen, before, record)
    )
    commands = actions.commands(seen, record, replicas)
    reasons = (*_reasons(before, record), *_reasons_of_update(before, record))
    broken = invariants.proposed(seen, record, commands)
    if broken is not None:
        return Step(before, (), (Reason.FROZEN,), broken.detail, broken)
    moves.check_current(before.phase, record.phase)
    return Step(record, commands, (*reasons, Reason.TAKING_OVER) if held else reasons, waiting)


def _replicas(seen: Situation, before: Record, record: Record) -> int:
    """The current revision's count. It was granted to the one that was current before."""
    there, rollout = seen.observed.of(record.current or ""), record.rollout
    applied = there.replicas or 0
    if record.phase is Phase.FAILED:
        return 0
    handing_over = [each.revision for each in record.leaving if not each.served]
    if record.served_at is None and any(seen.observed.of(each).live for each in handing_over):
        return min(applied, seen.granted)
    if before.current not in (None, record.current):
        return max(applied, record.replicas or 0)
    if rollout is not None and rollout.phase is Phase.DRAINING:
        return applied
    if planner.runs(rollout) is Phase.SHIFTING or (rollout is not None and rollout.phase is Phase.ROLLING_BACK):
        return max(seen.granted, min(applied, rollout.floor if rollout is not None else 0))
    return seen.granted


def _counted(limits: Limits, record: Record, there: ObservedRevision | None, granted: int) -> tuple[Record, int, bool]:
    """The record with this count, the count, and whether it was kept up because objects wait for their stamps."""
    applied = (there.replicas if there else None) or 0
    held = not limits.may_lower and granted < applied
    granted = applied if held else granted
    if (record.replicas, record.epoch) != (granted, limits.epoch):
        record = replace(record, replicas=granted, epoch=limits.epoch)
    return record, granted, held


def _commands(record: Record, observed: Observed, granted: int) -> list[Command]:
    """Content before the object made from it, capacity before the Service that points at it."""
    assert record.current is not None  # set by current.remember
    commands: list[Command] = []
    if record.current not in observed.saved and record.current == observed.newest.name:
        commands.append(SaveRevision(observed.newest))
    there = current.of_current(record, observed)
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
        (_is_new(before, after.current), Reason.REVISION_CREATED),
        (after.update is not None and before.update != after.update, Reason.UPDATE_PENDING),
        (before.served_at is None and after.served_at is not None, Reason.REVISION_AVAILABLE),
        (before.phase != after.phase and after.phase is Phase.FAILED, Reason.INITIALIZATION_TIMED_OUT),
    )
    return tuple(reason for happened, reason in changed if happened)


def _is_new(before: Record, revision: str | None) -> bool:
    """Neither an update that takes over nor the one before that comes back is created by that."""
    known = before.rollout.revision if before.rollout is not None else None
    return revision not in (before.current, known, before.previous)


def _reasons_of_update(before: Record, after: Record) -> tuple[Reason, ...]:
    was, now = before.rollout, after.rollout
    found: list[Reason] = []
    if was is not None and (now is None or now.revision != was.revision):
        completed = after.current == was.revision and was.phase is Phase.DRAINING
        reverted = was.reason is Why.TEMPLATE_REVERTED
        found.append(
            Reason.UPDATE_COMPLETED if completed else Reason.UPDATE_FAILED if reverted else Reason.UPDATE_SUPERSEDED
        )
    if now is not None and _place(was) != _place(now) and now.phase in _OF_PHASE:
        found.append(_OF_PHASE[now.phase])
    if before.handled != after.handled and _obeys(before) == _obeys(after):
        found.append(Reason.VERB_IGNORED)
    return tuple(found)


def _place(rollout: Rollout | None) -> tuple[str, Phase, float] | None:
    return (rollout.revision, rollout.phase, rollout.since) if rollout is not None else None


def _obeys(record: Record) -> tuple[object, ...]:
    """What a verb may change."""
    rollout = record.rollout
    wishes = (rollout.full, rollout.pause) if rollout is not None else ()
    return (record.phase, _place(rollout), *wishes)
