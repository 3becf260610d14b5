"""How an update moves on: one function per phase. Each returns the changed record, or the sentence why it waits.

Nothing is done here. What the record says is turned into commands by `actions`, so a record that was saved and a crash
before its commands leave nothing half-done: the next step wants the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from autoscaler.model.rollout import WhenQuotaShort
from rollouts import gates, planner
from rollouts.moves import Event, move
from rollouts.observed import Situation
from rollouts.record import Leaving, Pause, PausedBy, Phase, Record, Rollout, Why

BACK_OFF_FIRST_S: Final = 30.0
BACK_OFF_MOST_S: Final = 600.0
CHANGES_MOST: Final = 16  # of one step; an update that changes more often in an instant is a bug

Outcome = Record | str


def advance(seen: Situation, record: Record) -> tuple[Record, str | None]:
    """As far as it goes at this instant, and what it then waits for."""
    record = _grown(seen, record)
    for _ in range(CHANGES_MOST):
        rollout = record.rollout
        if rollout is None or rollout.phase not in _PHASES:
            return record, None
        outcome = _late(seen, record, rollout) or _PHASES[rollout.phase](seen, record, rollout)
        if isinstance(outcome, str):
            return record, outcome
        record = outcome
    raise RuntimeError(f"the update of {record.current} does not come to rest")


def queued(seen: Situation, revision: str) -> Rollout:
    """A fresh update. Objects of it that are there already may have requests in flight."""
    served = seen.observed.of(revision).replicas is not None
    return Rollout(
        revision=revision,
        queued_at=seen.now,
        queue_deadline_at=seen.now + seen.spec.queue_timeout_s,
        since=seen.now,
        size=planner.size(seen.spec, seen.desired),
        served=served,
    )


def rolled_back(seen: Situation, record: Record, why: Why) -> Record:
    """Traffic goes back; what there is of the update goes."""
    rollout = record.rollout
    assert rollout is not None
    rollout = move(rollout, Event.FAILED, Phase.ROLLING_BACK, seen.now, reason=why, weight=0, verified=0, pause=None)
    return replace(left(seen, record), rollout=rollout)


def left(seen: Situation, record: Record) -> Record:
    """The record with the update among those that leave, unless there never was anything of it."""
    rollout, known = record.rollout, record.leaving
    assert rollout is not None
    there = not seen.observed.of(rollout.revision).gone or seen.observed.hold(rollout.revision) is not None
    if record.leaves(rollout.revision) or not (there or rollout.pool is not None):
        return record
    deadline = seen.now + seen.spec.drain_timeout_s
    return replace(record, leaving=(*known, Leaving(rollout.revision, seen.now, rollout.served, deadline_at=deadline)))


def paused(rollout: Rollout, by: PausedBy, now: float, until: float | None = None) -> Rollout:
    """A pause, or one that somebody else takes over."""
    if rollout.pause is not None:
        return replace(rollout, pause=replace(rollout.pause, by=by, until=until))
    queued_again = {"pool": None, "head_since": None} if rollout.phase is Phase.QUEUED else {}
    pause = Pause(by, now, until, rollout.phase)
    return move(rollout, Event.PAUSED, Phase.PAUSED, now, pause=pause, **queued_again)


def resumed(rollout: Rollout, now: float) -> Rollout:
    """The pause ends; every deadline moves by its length."""
    pause = rollout.pause
    assert pause is not None
    length = now - pause.since
    return move(
        rollout,
        Event.RESUMED,
        pause.resumes,
        now,
        pause=None,
        queue_deadline_at=rollout.queue_deadline_at + length,
        not_before=_later(rollout.not_before, length),
        schedule_deadline_at=_later(rollout.schedule_deadline_at, length),
        progress_deadline_at=_later(rollout.progress_deadline_at, length),
    )


def _later(at: float | None, by_s: float) -> float | None:
    return None if at is None else at + by_s


def _grown(seen: Situation, record: Record) -> Record:
    """More replicas as soon as the ledger holds enough for them."""
    rollout = record.rollout
    if rollout is None or planner.runs(rollout) is None:
        return record
    wanted = planner.wanted_size(seen, record)
    if wanted == rollout.size or not planner.covered(seen, rollout.revision, wanted):
        return record
    return replace(record, rollout=replace(rollout, size=wanted))


def _late(seen: Situation, record: Record, rollout: Rollout) -> Record | None:
    """The progress deadline ends everything before verified 100 %. A pause stops that clock."""
    deadline = rollout.progress_deadline_at
    running = rollout.phase in (Phase.STARTING, Phase.WARMING, Phase.SHIFTING)
    if running and deadline is not None and seen.now >= deadline:
        return rolled_back(seen, record, Why.PROGRESS_DEADLINE_EXCEEDED)
    return None


def _queued(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    if seen.now >= rollout.queue_deadline_at:
        return rolled_back(seen, record, Why.QUEUE_TIMEOUT)
    if record.leaving:
        names = ", ".join(each.revision for each in record.leaving)
        return f"waits until the pods of {names} are gone"
    if rollout.not_before is not None and seen.now < rollout.not_before:
        return "its pods were not placed; it is tried again after a while"
    if planner.covered(seen, rollout.revision, rollout.size):
        hold = seen.observed.hold(rollout.revision)
        if rollout.pool is not None:
            return _started(seen, record, rollout)
        if hold is not None and not seen.observed.of(rollout.revision).gone:  # the record was lost, the pods were not
            return replace(record, rollout=replace(rollout, pool=hold.pool))
    return _asking(seen, record, rollout)


def _asking(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    """The size follows demand until the vector is held; a granted pool is recorded before the hold is written."""
    verdict = seen.observed.verdict_on(rollout.revision)
    size = planner.size(seen.spec, seen.desired)
    if verdict is None:
        asked = replace(rollout, size=size)
        return replace(record, rollout=asked) if asked != rollout else "waits for its quota to be asked for"
    if verdict.never:
        return rolled_back(seen, record, Why.NEVER_FITS)
    if verdict.pool is None and seen.spec.when_quota_short is WhenQuotaShort.REFUSE:
        return rolled_back(seen, record, Why.QUOTA_REFUSED)
    asked = replace(
        rollout,
        size=size if verdict.pool is None else verdict.replicas,
        pool=verdict.pool,
        overtaken=verdict.overtaken,
        head_since=verdict.head_since,
        reason=rollout.reason if rollout.attempts and verdict.pool is None else Why.WAITING_FOR_QUOTA,
    )
    if asked != rollout:
        return replace(record, rollout=asked)
    if verdict.pool is not None:
        return f"{verdict.replicas} replicas fit into node pool {verdict.pool}: holding their quota"
    short = ", ".join(f"{amount / 1000:g} {name}" for name, amount in sorted(verdict.short.items()))
    return f"{size} replicas are {short or 'more than fit'} short"


def _started(seen: Situation, record: Record, rollout: Rollout) -> Record:
    started = move(
        rollout,
        Event.HELD,
        Phase.STARTING,
        seen.now,
        reason=None,
        held_at=seen.now,
        schedule_deadline_at=seen.now + seen.spec.schedule_timeout_s,
        progress_deadline_at=seen.now + seen.spec.progress_deadline_s,
    )
    return replace(record, rollout=started)


def _starting(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    update = seen.observed.of(rollout.revision)
    if update.gone and not planner.covered(seen, rollout.revision, rollout.size):
        lost = _again(rollout, Event.HOLD_LOST, seen, reason=Why.RESERVATION_LOST)
        return replace(record, rollout=lost)
    deadline = rollout.schedule_deadline_at
    if update.unscheduled > 0:
        if deadline is None:  # others came later: the workers of a group after its leader, or a pod for a lost one
            late = replace(rollout, schedule_deadline_at=seen.now + seen.spec.schedule_timeout_s)
            return replace(record, rollout=late)
        if seen.now >= deadline:
            return _unplaced(seen, record, rollout)
    elif deadline is not None and update.live >= rollout.size:
        return replace(record, rollout=replace(rollout, schedule_deadline_at=None))
    if (shut := gates.all_ready(update, rollout.size)) is not None:
        return shut
    return replace(record, rollout=move(rollout, Event.READY, Phase.WARMING, seen.now))


def _unplaced(seen: Situation, record: Record, rollout: Rollout) -> Record:
    """Back into the queue: at once for the next node pool, after a while for the first one again."""
    record = left(seen, record)
    following = rollout.first_pool + 1
    if rollout.pool in seen.spec.node_pools:
        following = seen.spec.node_pools.index(rollout.pool) + 1
    if following < len(seen.spec.node_pools):
        again = _again(rollout, Event.UNPLACED, seen, reason=Why.UNPLACED, first_pool=following)
    else:
        back_off_s = min(BACK_OFF_MOST_S, BACK_OFF_FIRST_S * 2.0 ** min(rollout.attempts, 10))
        again = _again(
            rollout, Event.UNPLACED, seen, reason=Why.UNPLACED, not_before=seen.now + back_off_s, first_pool=0
        )
        again = replace(again, attempts=rollout.attempts + 1)
    return replace(record, rollout=again)


def _again(
    rollout: Rollout,
    event: Event,
    seen: Situation,
    reason: Why,
    not_before: float | None = None,
    first_pool: int | None = None,
) -> Rollout:
    return move(
        rollout,
        event,
        Phase.QUEUED,
        seen.now,
        reason=reason,
        pool=None,
        held_at=None,
        schedule_deadline_at=None,
        progress_deadline_at=None,
        not_before=not_before,
        head_since=None,
        first_pool=rollout.first_pool if first_pool is None else first_pool,
        served=False,
    )


def _warming(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    update = seen.observed.of(rollout.revision)
    if gates.all_ready(update, rollout.size) is not None:
        lost = move(rollout, Event.REPLICAS_LOST, Phase.STARTING, seen.now, reason=Why.REPLICAS_LOST)
        return replace(record, rollout=lost)
    if (shut := gates.warmed(update, seen.spec)) is not None:
        return shut
    if (shut := gates.usable(seen.observed)) is not None:
        return shut
    if seen.observed.route is not None and (shut := gates.full(seen.observed.update_service, update)) is not None:
        return shut
    return replace(record, rollout=move(rollout, Event.WARM, Phase.SHIFTING, seen.now, reason=None))


def _shifting(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    update, current = seen.observed.of(rollout.revision), seen.observed.of(record.current or "")
    if rollout.weight > 0 and update.ready == 0 and current.ready > 0:
        return replace(record, rollout=_retreated(rollout, seen.now))
    if _unwritten(seen, rollout) and _shut(seen, record, rollout.weight) is not None:
        return replace(record, rollout=replace(rollout, weight=rollout.verified))
    if rollout.weight != rollout.verified:
        return _verifying(seen, record, rollout)
    if rollout.verified == planner.FULL:
        drain_by = seen.now + seen.spec.drain_timeout_s
        full = move(rollout, Event.FULL, Phase.DRAINING, seen.now, drain_deadline_at=drain_by)
        return replace(record, rollout=full)
    weight = planner.next_weight(seen.spec, rollout, seen.observed.route is not None)
    if (shut := _shut(seen, record, weight)) is not None:
        return shut
    given = replace(rollout, weight=weight, accepted_at=None, served=True)
    if rollout.verified == 0:
        least = min(current.replicas or 0, planner.size(seen.spec, seen.desired))
        given = replace(given, floor=least, ready_at_start=current.ready)
    return replace(record, rollout=given)


def _shut(seen: Situation, record: Record, weight: int) -> str | None:
    """What must be true at the moment of every weight; before the first one, of every replica."""
    rollout = record.rollout
    assert rollout is not None
    update = seen.observed.of(rollout.revision)
    every = gates.all_ready(update, rollout.size) if rollout.verified == 0 else None
    return (
        gates.usable(seen.observed) or every or gates.warmed(update, seen.spec) or gates.capacity(seen, record, weight)
    )


def _unwritten(seen: Situation, rollout: Rollout) -> bool:
    """A higher weight is recorded and nobody carried it out yet: whoever does must look again first."""
    if rollout.weight <= rollout.verified:
        return False
    route = seen.observed.route
    if route is not None:
        return route.weight != rollout.weight
    return seen.observed.service.selects != rollout.revision


def _retreated(rollout: Rollout, now: float) -> Rollout:
    """All its replicas were lost: the current revision takes everything again, and the update starts over."""
    lost = {"reason": Why.REPLICAS_LOST, "weight": 0, "verified": 0, "step": 0, "accepted_at": None}
    return move(rollout, Event.REPLICAS_LOST, Phase.STARTING, now, **lost)


def _verifying(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    if rollout.accepted_at is None and gates.accepted(seen.observed, rollout.weight) is None:
        return replace(record, rollout=replace(rollout, accepted_at=seen.now))
    if (shut := gates.verified(seen, record)) is not None:
        return shut
    proven = replace(rollout, verified=rollout.weight)
    steps = seen.spec.steps if seen.observed.route is not None and not rollout.full else ()
    if rollout.weight < planner.FULL and rollout.step < len(steps):
        step = steps[rollout.step]
        proven = replace(proven, step=rollout.step + 1)
        if step.pause_s > 0:
            proven = paused(proven, PausedBy.STEP, seen.now, seen.now + step.pause_s)
    return replace(record, rollout=proven)


def _paused(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    pause = rollout.pause
    assert pause is not None
    if pause.until is not None and seen.now >= pause.until:
        return replace(record, rollout=resumed(rollout, seen.now))
    update, current = seen.observed.of(rollout.revision), seen.observed.of(record.current or "")
    if rollout.weight > 0 and update.ready == 0 and current.ready > 0:
        back = replace(rollout, weight=0, verified=0, step=0, accepted_at=None)
        return replace(record, rollout=replace(back, pause=replace(pause, resumes=Phase.STARTING)))
    if _unwritten(seen, rollout):
        return replace(record, rollout=replace(rollout, weight=rollout.verified))
    if pause.until is not None:
        return f"paused at {rollout.weight} % until the step's pause is over"
    return f"paused at {rollout.weight} % by {'rollout.paused' if pause.by is PausedBy.SPEC else 'a person'}"


def _draining(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    """The old revision finishes; then `<service>` follows, and the weights go home."""
    observed = seen.observed
    update, old = observed.of(rollout.revision), observed.of(record.current or "")
    if not rollout.drained:
        timed_out = rollout.drain_deadline_at is not None and seen.now >= rollout.drain_deadline_at
        shut = None if timed_out else gates.quiet(old, rollout.since, seen.spec.drain_quiet_s)
        return shut or replace(record, rollout=replace(rollout, drained=True))
    if (shut := gates.full(observed.service, update)) is not None:
        return shut
    if observed.route is not None and observed.route.usable:  # else both Services lead to it, whatever the weights are
        if not rollout.home:
            return replace(record, rollout=replace(rollout, home=True, weight=0))
        if (shut := gates.accepted(observed, 0)) is not None:
            return shut
    return finished(seen, record)


def finished(seen: Situation, record: Record) -> Record:
    """The update is the current revision; the old one goes."""
    rollout, old = record.rollout, record.current
    assert rollout is not None
    assert old is not None
    moved = move(rollout, Event.DRAINED, Phase.COMPLETE, seen.now)
    named = seen.observed.newest.name == moved.revision
    return replace(
        record,
        phase=Phase.COMPLETE,
        current=moved.revision,
        collision_count=seen.observed.collision_count if named else record.collision_count,
        replicas=seen.observed.of(moved.revision).replicas or moved.size,
        initialized=True,
        started_at=rollout.held_at,
        served_at=seen.now,
        serving=True,
        rollout=None,
        leaving=(*record.leaving, Leaving(old, seen.now, served=True, drained=True)),
        previous=None,
        pool=rollout.pool,
        bounds=record.bounds_seen,
    )


def _rolling_back(seen: Situation, record: Record, rollout: Rollout) -> Outcome:
    if record.leaves(rollout.revision) is not None:
        return f"waits until the pods of {rollout.revision} are gone"
    if rollout.reason is Why.TEMPLATE_REVERTED:
        return replace(record, rollout=None)
    return replace(record, rollout=move(rollout, Event.GONE, Phase.FAILED, seen.now, pool=None))


_PHASES: Final[Mapping[Phase, Callable[[Situation, Record, Rollout], Outcome]]] = {
    Phase.QUEUED: _queued,
    Phase.STARTING: _starting,
    Phase.WARMING: _warming,
    Phase.SHIFTING: _shifting,
    Phase.PAUSED: _paused,
    Phase.DRAINING: _draining,
    Phase.ROLLING_BACK: _rolling_back,
}
