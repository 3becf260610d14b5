"""What is to be so, given the record and what is seen. Level-triggered: what is so already needs no command.

The order keeps every prefix safe: content before objects, stamps before any other write to an object, traffic back to
the current revision before anything else of traffic, quota before capacity, capacity before traffic that needs it, and
lowering last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoscaler.model.resources import times
from rollouts import gates, planner
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
from rollouts.observed import ObservedRevision, ObservedRoute, Situation
from rollouts.record import Phase, Record
from rollouts.revision import NO_REVISION


def commands(seen: Situation, record: Record, replicas: int) -> tuple[Command, ...]:
    """`replicas`: of the current revision, after everything that limits it."""
    back, forth = _traffic(seen, record)
    rises, falls = _capacity(seen, record, replicas)
    return (
        *_contents(seen, record),
        *_stamps(seen, record),
        *back,
        *_deletions(seen, record),
        *_releases(seen, record),
        *rises,
        *_warm_ups(seen, record),
        *forth,
        *falls,
    )


def weight(record: Record) -> int:
    """Percent of the traffic that the update is to get now."""
    rollout = record.rollout
    running = planner.runs(rollout) in (Phase.SHIFTING, Phase.DRAINING)
    return rollout.weight if rollout is not None and running else 0


def selected(seen: Situation, record: Record) -> str:
    """The revision that `<service>` leads to. Without a route this is the switch."""
    rollout = record.rollout
    assert record.current is not None
    if rollout is not None and rollout.phase is Phase.DRAINING and (rollout.drained or seen.observed.route is None):
        return rollout.revision
    switched = seen.observed.route is None and weight(record) == planner.FULL
    return rollout.revision if rollout is not None and switched else record.current


def selected_by_update(seen: Situation, record: Record) -> str:
    """The revision that `<service>-update` leads to: given and taken away while the weight is 0 and accepted."""
    observed, rollout = seen.observed, record.rollout
    if observed.route is None:
        return NO_REVISION
    there, phase = observed.update_service.selects or NO_REVISION, planner.runs(rollout)
    weighted = gates.accepted(observed, 0) is not None
    if rollout is not None and phase in (Phase.WARMING, Phase.SHIFTING, Phase.DRAINING):
        early = phase is Phase.WARMING and weighted  # what it would get now is nobody's doing
        return there if early else rollout.revision
    if there == record.current:
        return there if weighted or not observed.route.usable else NO_REVISION  # a route may come back as it was
    leaving = record.leaves(there)
    return there if weighted or (leaving is not None and not leaving.deletable) else NO_REVISION


def _contents(seen: Situation, record: Record) -> Iterator[Command]:
    newest, rollout = seen.observed.newest, record.rollout
    has_pods = rollout is not None and planner.runs(rollout) is not None and rollout.revision == newest.name
    if newest.name not in seen.observed.saved and (record.current == newest.name or has_pods):
        yield SaveRevision(newest)


def _stamps(seen: Situation, record: Record) -> Iterator[Command]:
    epoch = seen.limits.epoch
    if epoch is None:
        return
    for each in _there(seen):
        if each.replicas is not None and each.epoch != epoch and each.name in record.names:
            yield Stamp(each.name, epoch)


def _there(seen: Situation) -> Sequence[ObservedRevision]:
    observed = seen.observed
    mine = (observed.current,) if observed.current is not None else ()
    return (*mine, *sorted(observed.others, key=lambda each: each.name))


def _traffic(seen: Situation, record: Record) -> tuple[list[Command], list[Command]]:
    """What takes traffic back to the current revision, and all else of traffic."""
    observed = seen.observed
    back: list[Command] = []
    forth: list[Command] = []
    wanted, by_update = weight(record), selected_by_update(seen, record)
    if observed.update_service.selects != by_update:
        forth.append(Select(observed.update_service.name, by_update, observed.update_service.exists))
    if observed.route is not None and _is_to_be_written(observed.route, wanted):
        lower = wanted < (observed.route.weight or 0)
        (back if lower else forth).append(Weigh(wanted, observed.route.weight))
    to = selected(seen, record)
    if observed.service.selects != to:
        select = Select(observed.service.name, to, observed.service.exists)
        returns = to == record.current and observed.of(to).ready > 0
        (back if returns else forth).insert(0, select)
    return back, forth


def _is_to_be_written(route: ObservedRoute, wanted: int) -> bool:
    """A route that cannot be used is left alone: it is missing, or somebody else's."""
    return route.usable and (route.weight != wanted or not route.timely)


def _deletions(seen: Situation, record: Record) -> Iterator[Command]:
    """Until the object is gone; where its pods are to go at once, until they are gone, too.

    Their controller may have made new ones after the first deletion, and those would have all their grace.
    """
    if not seen.limits.may_lower:
        return
    for each in record.leaving:
        there = seen.observed.of(each.revision)
        left = there.replicas is not None or (not each.served and there.live > 0)
        if each.deletable and left:
            yield DeleteRevision(each.revision, immediate=not each.served)


def _releases(seen: Situation, record: Record) -> Iterator[Command]:
    """Holds of what has neither an object nor a pod nor a plan."""
    if not seen.limits.may_lower:
        return
    for hold in sorted(seen.observed.holds, key=lambda each: each.revision):
        planned = hold.revision == record.current or hold.revision == _asking(record)
        if not planned and seen.observed.of(hold.revision).gone:
            yield Release(hold.revision)


def _asking(record: Record) -> str | None:
    """The update, where it holds quota or is about to."""
    rollout = record.rollout
    if rollout is None or rollout.pool is None:
        return None
    return rollout.revision if planner.runs(rollout) is not None or rollout.phase is Phase.QUEUED else None


def _capacity(seen: Situation, record: Record, replicas: int) -> tuple[list[Command], list[Command]]:
    """What raises counts, with the quota that this needs, and all else of counts and holds.

    A hold rises before its count and falls after it; pods that terminate are held beside those that come. A hold that
    only catches up with pods that are there comes last: the ledger may refuse it, and nothing shall wait for that.
    """
    assert record.current is not None
    wanted: list[tuple[str, int, str, int | None]] = [
        (record.current, replicas, planner.pool_of_current(seen, record), None)
    ]
    rollout = record.rollout
    last: list[Command] = []
    if rollout is not None and rollout.pool is not None:
        if planner.runs(rollout) is not None:
            wanted.append((rollout.revision, rollout.size, rollout.pool, _granted(seen, record)))
        elif rollout.phase is Phase.QUEUED:
            adopted = seen.observed.of(rollout.revision).replicas or 0
            last += _hold(seen, rollout.revision, rollout.pool, max(rollout.size, adopted))
    rises: list[Command] = []
    falls: list[Command] = []
    for revision, count, pool, granted in wanted:
        there = seen.observed.of(revision)
        applied = there.replicas or 0
        if count < applied and not seen.limits.may_lower:
            count = applied
        have = [HaveReplicas(revision, count, there.replicas)] if count != there.replicas else []
        raised = count > applied or there.replicas is None
        hold = _hold(
            seen, revision, pool, _replicas_to_hold(seen, there, max(count, granted or 0), raised and granted is None)
        )
        if have and raised:
            rises += [*hold, *have]
        else:
            falls += have
            last += hold
    return rises, [*falls, *last]


def _replicas_to_hold(seen: Situation, there: ObservedRevision, count: int, raised: bool) -> int:
    """Pods beyond the spec will terminate, and do so beside new ones."""
    if raised:
        return count + planner.beyond(seen, there)
    applied = there.replicas or 0
    return max(count, applied) + max(0, there.live - applied)


def _granted(seen: Situation, record: Record) -> int:
    """What the update may hold by the verdict of this cycle."""
    rollout = record.rollout
    assert rollout is not None
    verdict = seen.observed.verdict_on(rollout.revision)
    return verdict.replicas if verdict is not None and verdict.pool == rollout.pool else 0


def _hold(seen: Situation, revision: str, pool: str, replicas: int) -> list[Command]:
    """The ledger holds what so many replicas need. Where that is unknown, or less and may not be, nothing changes."""
    per_replica = seen.observed.per_replica.get(revision)
    if per_replica is None:
        return []
    wanted = {name: amount for name, amount in times(per_replica, replicas).items() if amount}
    held = {name: amount for name, amount in seen.observed.held(revision).items() if amount}
    if not wanted:
        idle = seen.observed.hold(revision) is not None and _may_fall(seen, revision)
        return [Release(revision)] if idle else []
    more = any(amount > held.get(name, 0) for name, amount in wanted.items())
    less = wanted != held and _may_fall(seen, revision)
    return [Hold(revision, pool, wanted)] if more or less else []


def _may_fall(seen: Situation, revision: str) -> bool:
    """Pods that were created a moment ago, or begin to terminate, must be seen before their quota goes to others."""
    return seen.limits.may_lower and seen.observed.of(revision).settled


def _warm_ups(seen: Situation, record: Record) -> Iterator[Command]:
    rollout = record.rollout
    if rollout is None or seen.spec.warmup is None or planner.runs(rollout) is None:
        return
    update = seen.observed.of(rollout.revision)
    if update.warm < update.ready:
        yield WarmUp(rollout.revision)
