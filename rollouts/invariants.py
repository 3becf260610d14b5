"""The six things that are never to be untrue. Pure.

`broken` judges a state: it blames nobody for a pod that died, only for what was written, by us or by others. It is told
and not frozen: what somebody else broke would stay broken (docs/decisions/0032). `proposed` judges a step before it is
done; one that would break something is a bug of ours, and is not done at all. Production and tests ask both, always.

I1  what receives traffic has the capacity for it: replicas >= min(desired, ready current replicas at the start)
I2  no weight but on a revision that was fully ready
I3  the ledger holds what live and terminating pods take
I4  one update at a time
I5  the old revision is not deleted before verified 100 % and its drain
I6  every object is in the record
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollouts import actions, planner
from rollouts.commands import Command, DeleteRevision, HaveReplicas, Hold, Select, Weigh
from rollouts.observed import Observed, ObservedRevision, Situation
from rollouts.quota import covers
from rollouts.record import Phase, Record
from rollouts.revision import NO_REVISION


@dataclass(frozen=True, slots=True)
class Broken:
    invariant: str  # I1 .. I6; else what our own code ran into
    detail: str


def broken(record: Record, observed: Observed) -> Broken | None:
    """The first invariant that this state breaks."""
    return (
        _capacity(record, observed)
        or _weights(record, observed)
        or _held(observed)
        or _one_update(record, observed)
        or _protected(record)
        or _recorded(record, observed)
    )


def proposed(seen: Situation, record: Record, commands: Sequence[Command]) -> Broken | None:
    """The first invariant that carrying this out would break. `record`: the one that is saved before."""
    for command in commands:
        match command:
            case Weigh(percent, before) if percent > (before or 0):
                found = _ready_for(seen, record, percent)
            case Select(service, revision, _) if service == seen.observed.service.name and revision != record.current:
                found = _ready_for(seen, record, planner.FULL)
            case HaveReplicas(revision, replicas, before) if replicas > (before or 0):
                found = _may_grow(seen, record, commands, revision, replicas)
            case HaveReplicas(revision, replicas, _) if revision == record.current:
                found = _may_shrink(record, replicas)
            case DeleteRevision(revision, _):
                found = _may_go(record, revision)
            case _:
                found = None
        if found is not None:
            return found
    return None


def _everything(observed: Observed) -> tuple[ObservedRevision, ...]:
    return (observed.current, *observed.others) if observed.current is not None else observed.others


def _capacity(record: Record, observed: Observed) -> Broken | None:
    rollout = record.rollout
    if rollout is None or rollout.weight == 0 or record.current is None:
        return None
    receivers = [observed.of(rollout.revision)]
    if actions.weight(record) < planner.FULL:
        receivers.append(observed.of(record.current))
    have = sum(each.replicas or 0 for each in receivers)
    desired = observed.desired if observed.desired is not None else rollout.ready_at_start
    need = min(desired, rollout.ready_at_start, rollout.floor)
    return Broken("I1", f"{have} replicas receive traffic, {need} are needed") if have < need else None


def _weights(record: Record, observed: Observed) -> Broken | None:
    rollout, route = record.rollout, observed.route
    seen = route.weight if route is not None else 0
    if seen and observed.update_service.selects not in (None, NO_REVISION):
        name = observed.update_service.selects
        proven = rollout is not None and rollout.revision == name and rollout.served
        if not proven and record.leaves(name or "") is None and name != record.current:
            return Broken("I2", f"{name} has {seen} % and was never fully ready")
    return None


def _held(observed: Observed) -> Broken | None:
    """Of what is seen as it is: pods, spec and ledger reach us by different ways, and not at once."""
    for each in (each for each in _everything(observed) if each.settled):
        per_replica = observed.per_replica.get(each.name)
        if per_replica is not None and not covers(observed.held(each.name), per_replica, each.live):
            return Broken(
                "I3", f"{each.live} replicas of {each.name} live, the ledger holds {observed.held(each.name)}"
            )
    return None


def _one_update(record: Record, observed: Observed) -> Broken | None:
    leaving = {each.revision for each in record.leaving}
    live = [each.name for each in _everything(observed) if each.live and each.name not in leaving]
    return Broken("I4", f"more than two revisions have pods: {', '.join(live)}") if len(live) > 2 else None


def _protected(record: Record) -> Broken | None:
    if record.current is not None and record.leaves(record.current) is not None:
        return Broken("I5", f"the current revision {record.current} is on its way out")
    return None


def _recorded(record: Record, observed: Observed) -> Broken | None:
    for each in _everything(observed):
        if each.replicas is not None and each.name not in record.names:
            return Broken("I6", f"no record speaks of {each.name}")
    return None


def _ready_for(seen: Situation, record: Record, percent: int) -> Broken | None:
    rollout = record.rollout
    if rollout is None:
        return Broken("I2", f"{percent} % without an update")
    update = seen.observed.of(rollout.revision)
    if rollout.drained or rollout.verified >= percent:
        return None  # it was given that before: what drifted is put back
    if rollout.verified == 0 and (update.ready < rollout.size or update.replicas != rollout.size):
        return Broken("I2", f"{percent} % for {rollout.revision}, {update.ready} of {rollout.size} are ready")
    if percent == planner.FULL and update.ready < min(seen.desired, rollout.ready_at_start, seen.spec.max_replicas):
        return Broken("I1", f"100 % for {update.ready} ready replicas of {rollout.revision}")
    return None


def _may_grow(
    seen: Situation, record: Record, commands: Sequence[Command], revision: str, replicas: int
) -> Broken | None:
    if revision != record.current and not _has_its_turn(record, revision):
        return Broken("I4", f"pods for {revision} beside {record.current} and those that leave")
    per_replica = seen.observed.per_replica.get(revision)
    held = next((each.vector for each in commands if isinstance(each, Hold) and each.revision == revision), None)
    vector = held if held is not None else seen.observed.held(revision)
    if per_replica is not None and not covers(vector, per_replica, replicas):
        return Broken("I3", f"{replicas} replicas of {revision} are not held")
    return None


def _has_its_turn(record: Record, revision: str) -> bool:
    """It is the update, and those that left when its quota was held are gone; a stray may turn up at any time."""
    rollout = record.rollout
    if rollout is None or rollout.revision != revision or rollout.held_at is None:
        return False
    return all(each.since >= rollout.held_at for each in record.leaving)


def _may_shrink(record: Record, replicas: int) -> Broken | None:
    rollout = record.rollout
    shifting = planner.runs(rollout) is Phase.SHIFTING
    if rollout is not None and shifting and rollout.weight > 0 and replicas < rollout.floor:
        return Broken("I1", f"{record.current} at {replicas}, it may have to take all traffic back: {rollout.floor}")
    return None


def _may_go(record: Record, revision: str) -> Broken | None:
    leaving = record.leaves(revision)
    if revision == record.current or leaving is None or not leaving.deletable:
        return Broken("I5", f"{revision} may still serve")
    return None
