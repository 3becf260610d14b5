"""What people want now: the newest template, a verb, a pause, a stop. Only the newest template counts."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.model.rollout import RolloutSpec
from rollouts import planner, updates
from rollouts.moves import ACTIVE, PAUSABLE, REVOCABLE, Event, move
from rollouts.observed import Situation
from rollouts.planner import Change
from rollouts.record import Bounds, Leaving, PausedBy, Phase, Record, Rollout, Why
from rollouts.verbs import Verb, VerbRequest


def heed(seen: Situation, record: Record) -> Record:
    """The record with everything that is asked for now taken in."""
    record = _stop(seen, record)
    record = _template(seen, record)
    record = _fall_back(seen, record)
    record = _verb(seen, record)
    return _pause_of_spec(seen, record)


def heed_bounds(spec: RolloutSpec, newest: str, record: Record) -> Record:
    """Bounds alone apply to the current revision at once; those that came with a new template wait for its update.

    `record`: as it was stored, so that it tells which template and which bounds were known. Asked twice, it says the
    same. `newest`: name of the revision that the template asks for.
    """
    now = Bounds(spec.min_replicas, spec.max_replicas)
    alone = newest == record.update and now != record.bounds_seen
    applies = record.bounds is None or newest == record.current or alone
    bounds = now if applies else record.bounds
    if (bounds, now) == (record.bounds, record.bounds_seen):
        return record
    return replace(record, bounds=bounds, bounds_seen=now)


def _stop(seen: Situation, record: Record) -> Record:
    """Stopped: the update goes as well. Past verified 100 % it is the current revision already."""
    rollout = record.rollout
    if not seen.limits.stopped or rollout is None or rollout.phase not in ACTIVE:
        return record
    if rollout.phase is Phase.DRAINING:
        return updates.finished(seen, record)
    return replace(updates.left(seen, record), rollout=None)


def _template(seen: Situation, record: Record) -> Record:
    rollout, newest = record.rollout, seen.observed.newest.name
    if rollout is not None and rollout.phase is Phase.DRAINING:
        return record  # past verified 100 %: the next template is the next update
    change = planner.change(seen, record)
    if change is Change.IN_PLACE:
        return _reverted(seen, record)
    if rollout is not None and rollout.revision == newest and not _goes_for_good(rollout):
        at_zero = change is Change.AT_ZERO and rollout.phase is Phase.QUEUED
        return _at_zero(seen, record) if at_zero else record
    if rollout is not None:
        record = _superseded(seen, record, rollout)
    if change is Change.HAND_OVER:
        return _handed_over(seen, record)
    if change is Change.AT_ZERO:
        return _at_zero(seen, record)
    if seen.limits.stopped:
        return record  # nothing is begun; it becomes current as soon as nothing runs
    return replace(record, rollout=updates.queued(seen, newest))


def _goes_for_good(rollout: Rollout) -> bool:
    """Taken back, and now wanted once more: that is another update."""
    return rollout.phase is Phase.ROLLING_BACK and rollout.reason is Why.TEMPLATE_REVERTED


def _reverted(seen: Situation, record: Record) -> Record:
    """The template is the current revision's again: the update is aborted, and then there is nothing to do."""
    rollout = record.rollout
    if rollout is None:
        return record
    if rollout.phase in REVOCABLE:
        return updates.rolled_back(seen, record, Why.TEMPLATE_REVERTED)
    if rollout.phase is Phase.ROLLING_BACK:
        return replace(record, rollout=replace(rollout, reason=Why.TEMPLATE_REVERTED))
    return replace(record, rollout=None)


def _superseded(seen: Situation, record: Record, rollout: Rollout) -> Record:
    superseded = move(rollout, Event.SUPERSEDED, Phase.SUPERSEDED, seen.now)
    if rollout.phase is not Phase.FAILED:
        record = updates.left(seen, replace(record, rollout=superseded))
    return replace(record, rollout=None)


def _handed_over(seen: Situation, record: Record) -> Record:
    """The current revision never served: there is nothing to protect, and its GPUs go to the new one."""
    newest = seen.observed.newest.name
    if newest == record.previous:
        return _brought_back(seen, record)
    return replace(
        _replaced(seen, record, newest),
        phase=Phase.UNVERIFIED if record.previous is not None else Phase.STARTING,
        collision_count=seen.observed.collision_count,
        started_at=None,
        served_at=None,
    )


def _replaced(seen: Situation, record: Record, by: str) -> Record:
    """Another current revision at once; the one before it, which has no request in flight, goes."""
    assert record.current is not None
    leaving = (*record.leaving, Leaving(record.current, seen.now, served=False))
    return replace(
        record,
        current=by,
        bounds=record.bounds_seen,
        replicas=None,
        serving=False,
        leaving=tuple(each for each in leaving if each.revision != by),
        rollout=None,
        pool=None,
    )


def _brought_back(seen: Situation, record: Record) -> Record:
    """The last revision that served is current again."""
    assert record.previous is not None
    back = _replaced(seen, record, record.previous)
    return replace(back, phase=Phase.COMPLETE, previous=None, started_at=seen.now, served_at=seen.now)


def _at_zero(seen: Situation, record: Record) -> Record:
    """Nothing runs: the new revision is current, without pods. It proves itself when it is first needed."""
    if record.rollout is not None:
        record = updates.left(seen, record)
    previous = record.previous or record.current
    return _handed_over(seen, replace(record, previous=previous))


def _fall_back(seen: Situation, record: Record) -> Record:
    """An unverified revision that did not come up within the progress deadline of its first activation."""
    if record.phase is not Phase.UNVERIFIED or record.started_at is None or record.current is None:
        return record
    if seen.granted == 0 and seen.observed.of(record.current).live == 0:
        return replace(record, started_at=None)  # no longer needed: the next activation has its own time
    if seen.now < record.started_at + seen.spec.progress_deadline_s:
        return record
    failed = Rollout(
        revision=record.current,
        queued_at=record.started_at,
        queue_deadline_at=seen.now,
        since=seen.now,
        phase=Phase.FAILED,
        reason=Why.ACTIVATION_FAILED,
    )
    return replace(_brought_back(seen, record), rollout=failed)


def _verb(seen: Situation, record: Record) -> Record:
    """A verb is obeyed once, for the revision that it names, or not at all."""
    request = seen.limits.verb
    if request is None or request.text == record.handled:
        return record
    record = replace(record, handled=request.text)
    rollout = record.rollout
    if record.phase is Phase.FAILED and (request.verb, request.revision) == (Verb.RETRY, record.current):
        return replace(record, phase=Phase.STARTING, started_at=None)
    if rollout is None or rollout.revision != request.revision:
        return record
    return _obeyed(seen, record, rollout, request)


def _obeyed(seen: Situation, record: Record, rollout: Rollout, request: VerbRequest) -> Record:
    by_hand = rollout.pause is not None and rollout.pause.by is not PausedBy.SPEC
    match request.verb:
        case Verb.ABORT if rollout.phase in REVOCABLE:
            return updates.rolled_back(seen, record, Why.ABORTED)
        case Verb.RETRY if rollout.phase is Phase.FAILED:
            move(rollout, Event.RETRIED, Phase.QUEUED, seen.now)
            fresh = updates.queued(seen, rollout.revision)
            return replace(record, rollout=fresh)
        case Verb.PAUSE if rollout.phase in PAUSABLE or by_hand:
            return replace(record, rollout=updates.paused(rollout, PausedBy.VERB, seen.now))
        case Verb.RESUME | Verb.PROMOTE if by_hand:
            return replace(record, rollout=updates.resumed(rollout, seen.now))
        case Verb.PROMOTE_FULL if rollout.phase in REVOCABLE:
            promoted = replace(rollout, full=True)
            return replace(record, rollout=updates.resumed(promoted, seen.now) if by_hand else promoted)
        case _:
            return record


def _pause_of_spec(seen: Situation, record: Record) -> Record:
    rollout = record.rollout
    if rollout is None:
        return record
    by_spec = rollout.pause is not None and rollout.pause.by is PausedBy.SPEC
    if seen.spec.paused and not by_spec and (rollout.phase in PAUSABLE or rollout.pause is not None):
        return replace(record, rollout=updates.paused(rollout, PausedBy.SPEC, seen.now))
    if not seen.spec.paused and by_spec:
        return replace(record, rollout=updates.resumed(rollout, seen.now))
    return record
