"""What is to be so, given the record and what is seen. Level-triggered: what is so already needs no command.

The order keeps every prefix safe: content before objects, stamps before any other write to an object, traffic back to
the current revision before anything else of traffic, quota before capacity, capacity before traffic that needs it, and
lowering last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoscaler.model.resources import EMPTY, times
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
from rollouts.observed import ObservedRevision, Situation
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
    """The revision that `<service>-update` leads to. It is taken away only after the weight is 0 and accepted."""
    observed, rollout = seen.observed, record.rollout
    if observed.route is None:
        return NO_REVISION
    exposed = (Phase.WARMING, Phase.SHIFTING, Phase.DRAINING)
    if rollout is not None and planner.runs(rollout) in exposed:
        return rollout.revision
    there = observed.update_service.selects
    if there in (None, NO_REVISION):
        return NO_REVISION
    leaving = record.leaves(there or "")
    busy = gates.accepted(observed, 0) is not None or (leaving is not None and not leaving.deletable)
    return there if there is not None and busy else NO_REVISION


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
    if observed.route is not None and observed.route.weight != wanted:
        lower = wanted < (observed.route.weight or 0)
        (back if lower else forth).append(Weigh(wanted, observed.route.weight))
    to = selected(seen, record)
    if observed.service.selects != to:
        select = Select(observed.service.name, to, observed.service.exists)
        returns = to == record.current and observed.of(to).ready > 0
        (back if returns else forth).insert(0, select)
    return back, forth


def _deletions(seen: Situation, record: Record) -> Iterator[Command]:
    if not seen.limits.may_lower:
        return
    for each in record.leaving:
        if each.deletable and seen.observed.of(each.revision).replicas is not None:
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
    """What raises holds and counts, and what lowers them. A hold rises before its count and falls after it."""
    rises: list[Command] = []
    falls: list[Command] = []
    assert record.current is not None
    _have(seen, record.current, replicas, rises, falls, _pool(seen, record))
    rollout = record.rollout
    if rollout is None or rollout.pool is None:
        return rises, falls
    if planner.runs(rollout) is not None:
        granted = _granted(seen, record)
        _have(seen, rollout.revision, rollout.size, rises, falls, rollout.pool, holding=max(granted, rollout.size))
    elif rollout.phase is Phase.QUEUED:
        there = seen.observed.of(rollout.revision).replicas or 0
        _hold(seen, rollout.revision, max(rollout.size, there), rollout.pool, rises, falls)
    return rises, falls


def _granted(seen: Situation, record: Record) -> int:
    """What the update may hold by the verdict of this cycle."""
    rollout = record.rollout
    assert rollout is not None
    verdict = seen.observed.verdict_on(rollout.revision)
    return verdict.replicas if verdict is not None and verdict.pool == rollout.pool else 0


def _pool(seen: Situation, record: Record) -> str:
    hold = seen.observed.hold(record.current or "")
    return hold.pool if hold is not None else record.pool or seen.spec.node_pools[0]


def _have(
    seen: Situation,
    revision: str,
    replicas: int,
    rises: list[Command],
    falls: list[Command],
    pool: str,
    holding: int = 0,
) -> None:
    there = seen.observed.of(revision)
    if there.replicas is not None and replicas < there.replicas and not seen.limits.may_lower:
        replicas = there.replicas
    _hold(seen, revision, max(replicas, holding, there.replicas or 0, there.live), pool, rises, falls)
    if there.replicas != replicas:
        lower = replicas < (there.replicas or 0)
        (falls if lower else rises).append(HaveReplicas(revision, replicas, there.replicas))


def _hold(seen: Situation, revision: str, replicas: int, pool: str, rises: list[Command], falls: list[Command]) -> None:
    """The ledger holds what so many replicas need. Unknown needs change nothing."""
    per_replica = seen.observed.per_replica.get(revision)
    if per_replica is None:
        return
    wanted, held = (
        {name: each for name, each in times(per_replica, replicas).items() if each},
        seen.observed.hold(revision),
    )
    have = {name: each for name, each in (held.vector if held is not None else EMPTY).items() if each}
    if wanted == have:
        return
    if any(amount > have.get(name, 0) for name, amount in wanted.items()):
        rises.append(Hold(revision, pool, wanted))
    elif seen.limits.may_lower:
        falls.append(Hold(revision, pool, wanted))


def _warm_ups(seen: Situation, record: Record) -> Iterator[Command]:
    rollout = record.rollout
    if rollout is None or not seen.spec.warmup or planner.runs(rollout) is None:
        return
    update = seen.observed.of(rollout.revision)
    if update.warm < update.ready:
        yield WarmUp(rollout.revision)
