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
from rollouts.commands import Command
from rollouts.invariants import Broken
from rollouts.observed import Situation
from rollouts.quota import Ask
from rollouts.record import Phase, Record


class Reason(StrEnum):
    """What a step tells that no two records tell."""

    REVISION_CREATED = "RevisionCreated"
    TAKING_OVER = "TakingOver"  # a count is kept up because objects wait for their stamps
    VERB_IGNORED = "VerbIgnored"


@dataclass(frozen=True, slots=True)
class Step:
    """What to remember and what to do, in this order: the record first, then the commands one by one."""

    record: Record
    commands: tuple[Command, ...] = ()
    reasons: tuple[Reason, ...] = ()
    waiting: str | None = None  # what the update waits for, as a sentence
    broken: Broken | None = None  # a bug of ours: nothing is done and nothing is remembered
    noticed: Broken | None = None  # untrue already, whoever did it: told, and put right by steps like any other


def step(seen: Situation, before: Record) -> Step:
    """The next step of a workload whose record is `before`.

    Everything that happened is taken in first; then the update moves; then what is to be so follows from it.
    """
    record = _taken_in(seen, before)
    record, waiting = updates.advance(seen, record)
    newest = seen.observed.newest.name
    update = newest if newest != record.current else None
    if update != record.update:
        record = replace(record, update=update)
    record, replicas, held = _counted(seen, record, _replicas(seen, before, record))
    commands = actions.commands(seen, record, replicas)
    noticed = invariants.broken(record, seen.observed)
    broken = invariants.proposed(seen, record, commands)
    if broken is not None:
        return Step(before, waiting=broken.detail, broken=broken, noticed=noticed)
    moves.check_current(before.phase, record.phase)
    return Step(record, commands, _reasons(before, record, held), waiting, noticed=noticed)


def ask(seen: Situation, record: Record, asker: planner.Asker) -> Ask | None:
    """What the update asks of the ledgers in this cycle. The verdict goes into `observed.verdict` of `step`."""
    return planner.ask(seen, _taken_in(seen, record), asker)


def _taken_in(seen: Situation, record: Record) -> Record:
    """The record with everything that happened and that is wanted, before the update moves."""
    record = intent.heed_bounds(seen.spec, seen.observed.newest.name, record)
    record = current.remember(seen, record)
    return intent.heed(seen, departures.follow(seen, record))


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


def _counted(seen: Situation, record: Record, wanted: int) -> tuple[Record, int, bool]:
    """The record with this count, the count, and whether it was kept up because objects wait for their stamps."""
    applied = seen.observed.of(record.current or "").replicas or 0
    held = not seen.limits.may_lower and wanted < applied
    replicas = applied if held else wanted
    if (record.replicas, record.epoch) != (replicas, seen.limits.epoch):
        record = replace(record, replicas=replicas, epoch=seen.limits.epoch)
    return record, replicas, held


def _reasons(before: Record, after: Record, held: bool) -> tuple[Reason, ...]:
    told = (
        (_is_new(before, after.current), Reason.REVISION_CREATED),
        (before.handled != after.handled and _obeys(before) == _obeys(after), Reason.VERB_IGNORED),
        (held, Reason.TAKING_OVER),
    )
    return tuple(reason for happened, reason in told if happened)


def _is_new(before: Record, revision: str | None) -> bool:
    """Neither an update that takes over nor the one before that comes back is created by that."""
    known = before.rollout.revision if before.rollout is not None else None
    return revision not in (before.current, known, before.previous)


def _obeys(record: Record) -> tuple[object, ...]:
    """What a verb may change."""
    rollout = record.rollout
    if rollout is None:
        return (record.phase,)
    return (record.phase, rollout.revision, rollout.phase, rollout.since, rollout.full, rollout.pause)
