"""The third part of a cycle: what all revisions ask of the ledgers, and what they get. Functions of frozen values.

The growth of current revisions and the whole vectors of updates share one order (`rollouts.quota`). What runs is
never taken away here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

from autoscaler.controller.deciding import Decided
from autoscaler.controller.reserving import Reservations
from autoscaler.controller.steps import situation_of
from autoscaler.controller.subject import Snapshot, Subject
from autoscaler.model.decision import Grant, ScalingDecision
from autoscaler.model.quota import Domain
from autoscaler.model.quota import Ledger as StoredLedger
from autoscaler.model.resources import EMPTY, ResourceVector, add, largest, times
from autoscaler.model.workload import Mode, WorkloadKey
from autoscaler.scaling.holds import Change, Holder, covered, wish
from autoscaler.scaling.together import unbounded, whole_demand
from rollouts import machine, planner, quota
from rollouts.commands import Hold, Release
from rollouts.machine import Step
from rollouts.planner import Asker
from rollouts.quota import Ask, Ledger, Verdict, replicas_in
from rollouts.record import Phase


@dataclass(frozen=True, slots=True)
class Shares:
    """What came of all asks."""

    grants: Mapping[WorkloadKey, Grant]  # of the current revisions
    verdicts: Mapping[WorkloadKey, Verdict]  # on updates
    used: Mapping[Domain, ResourceVector]  # of each limit, before this cycle's asks; absent: not known yet


def share(
    seen: Snapshot,
    decisions: Mapping[WorkloadKey, ScalingDecision],
    contested: Set[WorkloadKey],
    limits: Mapping[Domain, ResourceVector],
    confirmed: Mapping[Domain, StoredLedger],
) -> Shares:
    """Grants and verdicts of one cycle.

    12 GPUs, A applies 4 and wants 10, B (older) applies 2 and wants 5: B gets 5, A gets 7.
    """
    wanted = {each.key: _wanted(each, decisions[each.key], each.key in contested, limits) for each in seen.subjects}
    growth = {each.key: _growth(each, wanted[each.key], limits, seen.at_s) for each in seen.subjects}
    unknown = {project for (project, _), taken in seen.foreign.items() if taken is None}  # nobody is refused by that
    may_ask = [
        each
        for each in seen.subjects
        if each.key not in contested and each.spec.target is None and each.spec.project not in unknown
    ]
    updates = {each.key: _update(each, wanted[each.key], seen.at_s) for each in may_ask}
    asks = [each for each in (*growth.values(), *updates.values()) if each is not None]
    ledgers = _ledgers(seen, limits, confirmed)
    verdicts = quota.share(asks, ledgers, seen.at_s)
    return Shares(
        {
            each.key: _grant(each, seen.foreign, wanted[each.key], growth[each.key], verdicts, limits)
            for each in seen.subjects
        },
        {key: verdicts[ask.id] for key, ask in updates.items() if ask is not None},
        {domain: ledger.used for domain, ledger in ledgers.items() if seen.foreign.get(domain, EMPTY) is not None},
    )


def with_demand(seen: Snapshot, decided: Decided) -> Snapshot:
    """With what the whole demand needs, where two revisions share it or are about to."""

    def told(subject: Subject) -> Subject:
        coming = decided.of_coming.get(subject.key)
        observed = replace(
            subject.observed,
            desired=whole_demand(decided.of_current[subject.key], coming),
            update_desired=unbounded(coming) if coming is not None else 0,
        )
        return replace(subject, observed=observed)

    subjects = (told(each) if each.changing else each for each in seen.subjects)
    return replace(seen, subjects=tuple(subjects))


def waits(subject: Subject, foreign: Mapping[Domain, ResourceVector | None]) -> bool:
    """Is there nothing of it yet, and not known what pods of others leave? A moment later it begins with its count."""
    current = subject.observed.current
    begins = subject.spec.target is None and (current is None or current.replicas is None)
    return begins and any(taken is None for (project, _), taken in foreign.items() if project == subject.spec.project)


def with_verdicts(seen: Snapshot, verdicts: Mapping[WorkloadKey, Verdict]) -> Snapshot:
    """With what came of the updates' asks."""
    subjects = tuple(
        replace(each, observed=replace(each.observed, verdict=verdicts[each.key])) if each.key in verdicts else each
        for each in seen.subjects
    )
    return replace(seen, subjects=subjects) if verdicts else seen


def changes(
    seen: Snapshot, steps: Mapping[WorkloadKey, Step], grants: Mapping[WorkloadKey, Grant], barred: Set[WorkloadKey]
) -> list[Change]:
    """What all workloads want to be written in the ledgers: what gives back first."""
    less: list[Change] = []
    more: list[Change] = []
    for subject in seen.subjects:
        if subject.key in barred:
            continue
        if subject.spec.target is not None:
            holder = _holder(subject, grants[subject.key])
            shrinks = holder.granted <= holder.applied
            (less if shrinks else more).append(wish(holder))
            continue
        for command in steps[subject.key].commands:
            match command:
                case Release(revision):
                    less.append(Change(str(subject.key), revision))
                case Hold(revision, pool, vector):
                    held = subject.observed.held(revision)
                    rises = any(amount > held.get(name, 0) for name, amount in vector.items())
                    domain = (subject.spec.project, pool)
                    (more if rises else less).append(Change(str(subject.key), revision, domain, vector))
    return [*less, *more]


def held(
    seen: Snapshot,
    grants: Mapping[WorkloadKey, Grant],
    reservations: Reservations,
    limits: Mapping[Domain, ResourceVector],
) -> Mapping[WorkloadKey, Grant]:
    """Grants of targets are cut to what their ledger confirms. Where a ledger cannot be written, that is why nothing of
    its project grows."""
    confirmed, found = reservations.confirmed, dict(grants)
    for subject in seen.subjects:
        grant = grants[subject.key]
        domain = (subject.spec.project, subject.spec.node_pool)
        limit, trouble = limits.get(domain), reservations.troubles.get(domain)
        current = subject.observed.current
        applied = (current.replicas if current is not None else None) or 0
        if limit is None:
            continue
        if subject.spec.target is None:
            may = applied if trouble is not None else grant.granted
        else:
            may = covered(_holder(subject, grant), limit, confirmed.get(domain))
        if may < grant.granted or (trouble is not None and grant.clipped):
            why = trouble or "its QuotaLedger is being written"
            found[subject.key] = replace(grant, granted=min(may, grant.granted), short={}, unheld=why)
    return found


def _holder(subject: Subject, grant: Grant) -> Holder:
    """A target with what it has and shall have."""
    seen, spec = subject.observed.current, subject.spec
    assert seen is not None  # a target that was not seen is no subject
    domain = (spec.project, spec.node_pool)
    applied = seen.replicas or 0
    return Holder(domain, str(subject.key), seen.name, spec.per_replica, grant.granted, applied, seen.live)


def _wanted(
    subject: Subject, decision: ScalingDecision, contested: bool, limits: Mapping[Domain, ResourceVector]
) -> int:
    """What failed gives its quota back, whatever the policy wants; what may not grow takes none from others."""
    spec, applied = subject.spec, decision.current
    if subject.record.phase is Phase.FAILED:
        return 0
    if contested:
        return min(decision.desired, applied)
    if spec.mode is Mode.OBSERVE:
        return applied
    if not subject.priced and limits.get((spec.project, spec.node_pool)):
        return min(decision.desired, max(1, applied))  # the first replica shows what one costs
    return decision.desired


def _asker(subject: Subject) -> Asker:
    spec = subject.spec
    return Asker(subject.key, spec.project, spec.priority.rank, spec.created_at)


def _update(subject: Subject, wanted: int, now: float) -> Ask | None:
    if not subject.changing:
        return None
    try:
        return machine.ask(situation_of(subject, wanted, now), subject.record, _asker(subject))
    except Exception:  # its step runs into the same, and tells of it
        return None


def _growth(subject: Subject, wanted: int, limits: Mapping[Domain, ResourceVector], now: float) -> Ask | None:
    if subject.spec.target is not None:
        return _growth_of_target(subject, wanted, limits)
    record = subject.record
    if record.current is None:
        record = replace(record, current=subject.observed.newest.name)
    return planner.growth(situation_of(subject, wanted, now), record, _asker(subject), wanted)


def _growth_of_target(subject: Subject, wanted: int, limits: Mapping[Domain, ResourceVector]) -> Ask | None:
    spec, seen = subject.spec, subject.observed.current
    domain = (spec.project, spec.node_pool)
    limit = limits.get(domain, EMPTY)
    per_replica = {name: amount for name, amount in spec.per_replica.items() if name in limit and amount}
    if not per_replica or seen is None:
        return None
    hold = subject.observed.held(seen.name)
    there = max(replicas_in(hold, per_replica), seen.replicas or 0, seen.live)
    return Ask(
        key=subject.key,
        revision=seen.name,
        project=spec.project,
        pools=(spec.node_pool,),
        priority_rank=spec.priority.rank,
        since=spec.created_at,
        per_replica=per_replica,
        held=min(wanted, there),
        wanted=wanted,
        floor=spec.scaling.min_replicas,
    )


def _ledgers(
    seen: Snapshot,
    limits: Mapping[Domain, ResourceVector],
    confirmed: Mapping[Domain, StoredLedger],
) -> dict[Domain, Ledger]:
    """Limits, and what is taken of them: of each revision the larger of its hold and its pods, and pods of others.
    Where those are not known yet, everything is."""
    pods: dict[Domain, dict[str, ResourceVector]] = {domain: {} for domain in limits}
    for subject in seen.subjects:
        for domain, revision, vector in _taken(subject):
            if domain in pods:
                pods[domain][f"{subject.key} {revision}"] = vector
    found = {}
    for domain, limit in limits.items():
        stored = confirmed.get(domain)
        held = {f"{hold.owner} {hold.revision}": hold.vector for hold in stored.holds} if stored else {}
        for hold in seen.leftovers.get(domain, ()):
            pods[domain][f"{hold.owner} {hold.revision}"] = hold.vector
        used, others = quota.in_use(held, pods[domain]), seen.foreign.get(domain, EMPTY)
        found[domain] = Ledger(limit, add(used, others) if others is not None else largest([used, limit]))
    return found


def _taken(subject: Subject) -> Iterable[tuple[Domain, str, ResourceVector]]:
    """What the pods of each of its revisions have, and what is written of them already."""
    observed, spec = subject.observed, subject.spec
    there = (observed.current, *observed.others) if observed.current is not None else observed.others
    for each in there:
        per_replica = observed.per_replica.get(each.name, spec.per_replica)
        hold = observed.hold(each.name)
        pool = hold.pool if hold is not None else spec.node_pool
        yield (spec.project, pool), each.name, times(per_replica, max(each.replicas or 0, each.live))


def _grant(
    subject: Subject,
    foreign: Mapping[Domain, ResourceVector | None],
    wanted: int,
    ask: Ask | None,
    verdicts: Mapping[quota.AskId, Verdict],
    limits: Mapping[Domain, ResourceVector],
) -> Grant:
    domain = (subject.spec.project, subject.spec.node_pool)
    limit = limits.get(domain, EMPTY)
    if ask is None:
        return Grant(subject.key, wanted, wanted, limit=limit)
    verdict = verdicts[ask.id]
    seen = subject.observed.current
    applied = (seen.replicas if seen else None) or 0
    terminating = ask.wanted - wanted  # beside what comes
    granted = min(wanted, max(verdict.replicas - terminating, applied))
    if foreign.get(domain, EMPTY) is None:
        return Grant(subject.key, granted, wanted, limit=limit, others_unknown=True)
    return Grant(subject.key, granted, wanted, verdict.short, verdict.free, limit)
