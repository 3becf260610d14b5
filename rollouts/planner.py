"""What an update is to be: new revision or in place, how many replicas, what quota it needs, what can never fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from autoscaler.model.resources import EMPTY, ResourceVector, times
from autoscaler.model.rollout import RolloutSpec
from autoscaler.model.workload import WorkloadKey
from rollouts.observed import Situation
from rollouts.quota import Ask, covers, replicas_in
from rollouts.record import Phase, Record, Rollout

FULL = 100  # percent


class Change(StrEnum):
    """What a stored template means for the workload."""

    IN_PLACE = "InPlace"  # the same revision: bounds and all else apply as they are
    HAND_OVER = "HandOver"  # the current revision never served: it gives its GPUs first
    AT_ZERO = "AtZero"  # nothing runs: the new revision becomes current, unverified
    UPDATE = "Update"  # a second revision beside the current one


def change(seen: Situation, record: Record) -> Change:
    """Which kind of change the newest template is, in whatever state the workload is."""
    if seen.observed.newest.name == record.current or record.current is None:
        return Change.IN_PLACE
    there = seen.observed.of(record.current)
    at_zero = seen.granted == 0 and not there.replicas and there.ready + there.starting == 0
    if at_zero and record.served_at is not None:
        return Change.AT_ZERO
    if record.served_at is None:
        return Change.HAND_OVER
    return Change.UPDATE


def size(spec: RolloutSpec, desired: int) -> int:
    """N, the replicas that an update starts with: desired within the new bounds, at least 1.

    Desired 3, bounds 8..8 -> 8. Desired 0, bounds 0..4 -> 1.
    """
    return max(1, min(spec.max_replicas, max(spec.min_replicas, desired)))


def least(record: Record, spec: RolloutSpec) -> int:
    """minReplicas of the current revision. `record.bounds` binds its autoscaling while an update is pending."""
    return record.bounds.least if record.bounds is not None else spec.min_replicas


def needed(spec: RolloutSpec, weight: int, desired: int, ready_current: int) -> int:
    """Ready replicas that the update must have before it gets this weight.

    ceil(w/100 x min(new max, max(desired, ready current))), and one for any weight. Weight 50, max 8, desired 5, ready
    current 3 -> ceil(0.5 x 5) = 3.
    """
    capacity = min(spec.max_replicas, max(desired, ready_current))
    return max(1, math.ceil(weight * capacity / FULL)) if weight > 0 else 0


def next_weight(spec: RolloutSpec, rollout: Rollout, routed: bool) -> int:
    """The weight after the verified one: the next step's that is higher, or everything."""
    if routed and not rollout.full:
        for step in spec.steps[rollout.step :]:
            if step.weight > rollout.verified:
                return min(FULL, step.weight)
    return FULL


def runs(rollout: Rollout | None) -> Phase | None:
    """The phase in which it has pods of its own, looking through a pause; None where it has none or they go."""
    if rollout is None:
        return None
    phase = rollout.pause.resumes if rollout.pause is not None else rollout.phase
    return phase if phase in (Phase.STARTING, Phase.WARMING, Phase.SHIFTING, Phase.DRAINING) else None


def wanted_size(seen: Situation, record: Record) -> int:
    """How many replicas the update wants to hold now; it never shrinks while it runs."""
    rollout, spec = record.rollout, seen.spec
    assert rollout is not None
    phase = runs(rollout)
    if phase is None:
        return size(spec, seen.desired)
    weight = next_weight(spec, rollout, seen.observed.route is not None)
    ready = seen.observed.of(record.current or "").ready
    own = min(spec.max_replicas, seen.observed.update_desired)
    if phase is Phase.DRAINING:
        own = max(own, min(spec.max_replicas, seen.desired))
    return max(rollout.size, needed(spec, weight, seen.desired, ready), own)


def pool_of_current(seen: Situation, record: Record) -> str:
    """Where the current revision is, or will be: the ledger knows it best."""
    hold = seen.observed.hold(record.current or "")
    return hold.pool if hold is not None else record.pool or seen.spec.node_pools[0]


def covered(seen: Situation, revision: str, replicas: int) -> bool:
    """Does the ledger hold enough for so many replicas? What one replica needs must be known."""
    per_replica = seen.observed.per_replica.get(revision)
    return per_replica is not None and covers(seen.observed.held(revision), per_replica, replicas)


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose ask it is, as far as the ledger's order cares."""

    key: WorkloadKey
    project: str
    priority_rank: int
    created_at: float


def ask(seen: Situation, record: Record, asker: Asker) -> Ask | None:
    """What the update asks of the ledger in this cycle; None where it needs nothing or may not have it yet.

    The whole vector of N, beside all that the current revision holds: 3 -> 8 replicas asks for 8, not 5. One that
    needs nothing that is limited asks as well: the verdict tells its node pool.
    """
    rollout = record.rollout
    if rollout is None or not _may_ask(seen, record, rollout):
        return None
    wanted, per_replica = wanted_size(seen, record), seen.observed.per_replica.get(rollout.revision)
    unplaced = rollout.pool is None and not any((per_replica or EMPTY).values())
    if per_replica is None or (covered(seen, rollout.revision, wanted) and not unplaced):
        return None
    running = runs(rollout) is not None
    pools = (rollout.pool,) if running and rollout.pool is not None else seen.spec.node_pools[rollout.first_pool :]
    return Ask(
        key=asker.key,
        revision=rollout.revision,
        project=asker.project,
        pools=pools or seen.spec.node_pools,
        priority_rank=asker.priority_rank,
        since=rollout.queued_at,
        per_replica=per_replica,
        held=min(wanted, replicas_in(seen.observed.held(rollout.revision), per_replica)),
        wanted=wanted,
        whole=True,
        beside=_beside(seen, record),
        beside_pool=pool_of_current(seen, record),
        running=running,
        overtaken=rollout.overtaken,
        head_since=rollout.head_since,
    )


def growth(seen: Situation, record: Record, asker: Asker, wanted: int) -> Ask | None:
    """What the current revision asks of the same ledger to have `wanted` replicas; None where it holds that."""
    assert record.current is not None
    per_replica = seen.observed.per_replica.get(record.current)
    if per_replica is None or covered(seen, record.current, wanted):
        return None
    hold, there = seen.observed.hold(record.current), seen.observed.of(record.current)
    pool = hold.pool if hold is not None else record.pool
    held = replicas_in(seen.observed.held(record.current), per_replica)
    return Ask(
        key=asker.key,
        revision=record.current,
        project=asker.project,
        pools=(pool,) if pool is not None else seen.spec.node_pools,
        priority_rank=asker.priority_rank,
        since=asker.created_at,
        per_replica=per_replica,
        held=min(wanted, max(held, there.replicas or 0, there.live)),  # what is there is charged, held or not
        wanted=wanted,
        floor=least(record, seen.spec),
    )


def _may_ask(seen: Situation, record: Record, rollout: Rollout) -> bool:
    if runs(rollout) is not None:
        return True
    due = rollout.not_before is None or seen.now >= rollout.not_before
    return rollout.phase is Phase.QUEUED and not record.leaving and due


def _beside(seen: Situation, record: Record) -> ResourceVector:
    """What a serving current revision cannot do without. One that serves nothing is no reason to refuse."""
    if record.current is None or seen.observed.of(record.current).ready == 0:
        return EMPTY
    return times(seen.observed.per_replica.get(record.current, EMPTY), max(1, least(record, seen.spec)))
