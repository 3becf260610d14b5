"""Shares a project's quota among what its workloads ask for. Never takes away what is already applied.

Order within a domain: priority, then growth up to the floor (minReplicas) before growth beyond it, then age, then
name. Greedy and partial: a workload gets as many replicas as fit. Terminating pods hold their share until gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from autoscaler.model.decision import Ask, Grant, ScalingDecision
from autoscaler.model.quota import Domain
from autoscaler.model.resources import EMPTY, ResourceVector, add, replicas_that_fit, times
from autoscaler.model.workload import WorkloadKey, WorkloadSpec

_NOBODY: Final[Mapping[Domain, ResourceVector]] = {}


def allocate(
    asks: Sequence[Ask], limits: Mapping[Domain, ResourceVector], others: Mapping[Domain, ResourceVector] = _NOBODY
) -> dict[WorkloadKey, Grant]:
    """Grants for all asks. A domain without an entry in `limits`, or a resource not in it, is unlimited.

    `others`: what is held in a domain by pods that no ask speaks of.

    12 GPUs, A applies 4 and wants 10, B (older) applies 2 and wants 5: B gets 5, A gets 7.
    """
    grants: dict[WorkloadKey, Grant] = {}
    by_domain = sorted(asks, key=_domain)
    for domain, group in groupby(by_domain, key=_domain):
        grants.update(_share(list(group), limits.get(domain, EMPTY), others.get(domain, EMPTY)))
    return grants


def ask_of(spec: WorkloadSpec, decision: ScalingDecision, live_pods: int) -> Ask:
    """What a decision asks of the workload's quota domain."""
    return Ask(
        key=spec.key,
        project=spec.project,
        node_pool=spec.node_pool,
        priority_rank=spec.priority.rank,
        created_at=spec.created_at,
        per_replica=spec.per_replica,
        applied=decision.current,
        live_pods=live_pods,
        desired=decision.desired,
        floor=spec.scaling.min_replicas,
    )


def _domain(ask: Ask) -> Domain:
    return (ask.project, ask.node_pool)


def _share(asks: Sequence[Ask], limit: ResourceVector, others: ResourceVector) -> dict[WorkloadKey, Grant]:
    used = add(others, *(times(ask.per_replica, max(ask.applied, ask.live_pods)) for ask in asks))
    free = {name: amount - used.get(name, 0) for name, amount in limit.items()}
    granted = {ask.key: min(ask.applied, ask.desired) for ask in asks}
    for wants, ask in _growth(asks):
        room = replicas_that_fit(free, ask.per_replica)
        extra = wants if room is None else min(wants, room)
        granted[ask.key] += extra
        for name, amount in times(ask.per_replica, extra).items():
            if name in free:
                free[name] -= amount
    return {ask.key: _grant(ask, granted[ask.key], free, limit) for ask in asks}


def _growth(asks: Sequence[Ask]) -> list[tuple[int, Ask]]:
    """(replicas wanted, ask) in the order in which they are served."""
    steps: list[tuple[tuple[int, int, float, WorkloadKey], int, Ask]] = []
    for ask in asks:
        floor = min(ask.desired, ask.floor)
        for stage, upto in enumerate((floor, ask.desired)):
            start = ask.applied if stage == 0 else max(ask.applied, floor)
            if upto > start:
                steps.append(((-ask.priority_rank, stage, ask.created_at, ask.key), upto - start, ask))
    return [(wants, ask) for _, wants, ask in sorted(steps, key=lambda step: step[0])]


def _grant(ask: Ask, granted: int, free: ResourceVector, limit: ResourceVector) -> Grant:
    wanted = times(ask.per_replica, ask.desired - granted)
    short = {name: wanted[name] - max(0, free[name]) for name in wanted if name in free and wanted[name] > free[name]}
    return Grant(ask.key, granted, ask.desired, short, dict(free), limit)
