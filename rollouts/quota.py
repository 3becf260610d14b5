"""Who gets quota next: all asks of a cycle against the ledgers of their projects. Growth and updates share one order.

Order: priority; then growth up to minReplicas, growth beyond it, updates; then age; then name. Growth may be granted
in part; an update gets its whole vector in one node pool, or nothing. A waiting update blocks nobody, until it has been
the head of its domain's queue for WAIT_MOST_S, or was overtaken OVERTAKES_MOST times as such: from then on it goes
before growth beyond minReplicas and before other updates there, and while it does not fit, those get nothing. The next
head begins anew, so that between two of them growth has its turn. What needs nothing that is limited in
a domain is served at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from autoscaler.model.resources import EMPTY, ResourceVector, add, replicas_that_fit, times
from autoscaler.model.workload import WorkloadKey

OVERTAKES_MOST: Final = 20
WAIT_MOST_S: Final = 900.0

Domain = tuple[str, str]  # project, node pool
AskId = tuple[WorkloadKey, str]  # workload, revision


class Kind(IntEnum):
    """What is asked for, in the order of serving within one priority."""

    FLOOR = 0  # growth up to minReplicas
    GROWTH = 1  # growth beyond it
    UPDATE = 2


@dataclass(frozen=True, slots=True)
class Ledger:
    """The quota of one project in one node pool, in thousandths. Resources that `limit` does not name are free."""

    limit: ResourceVector
    used: ResourceVector  # by `in_use`, and by pods that are not ours


@dataclass(frozen=True, slots=True)
class Ask:
    """What one revision wants beyond what is held for it."""

    key: WorkloadKey
    revision: str
    project: str
    pools: tuple[str, ...]  # in order; one of them takes all
    priority_rank: int  # higher goes first
    since: float  # growth: the workload's creation; updates: since when it is queued
    per_replica: ResourceVector
    held: int  # replicas
    wanted: int  # replicas, those held included
    floor: int = 0  # growth: minReplicas
    whole: bool = False  # an update: all or nothing
    beside: ResourceVector = field(default_factory=dict)  # what must stay beside it: a serving current revision's least
    beside_pool: str | None = None  # and where that is
    running: bool = False  # an update that has its pods and wants more: it does not queue
    overtaken: int = 0  # as the head of its queue
    head_since: float | None = None  # it is the head since then

    @property
    def id(self) -> AskId:
        return (self.key, self.revision)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an ask."""

    revision: str  # that it was asked for
    pool: str | None = None  # where all of it, or the granted part, fits; None: nothing was granted
    replicas: int = 0  # that may be held now, those held already included
    short: ResourceVector = field(default_factory=dict)  # what was missing in the first pool
    free: ResourceVector = field(default_factory=dict)  # there
    limit: ResourceVector = field(default_factory=dict)  # there
    never: bool = False  # it would not fit even if nobody else held anything
    overtaken: int = 0  # the ask's count, with this cycle's
    head_since: float | None = None  # None: it is not the head of a queue
    blocked_by: AskId | None = None  # the update that waits at the head


def in_use(held: Mapping[str, ResourceVector], pods: Mapping[str, ResourceVector]) -> ResourceVector:
    """What revisions take of a ledger: their pods, and of each hold what has no pods yet.

    Effective hold = max(0, held - pods of that revision): while pods appear, nothing counts twice. Held 8000, pods
    3000 -> 8000. Pods 9000 of a hold of 8000 -> 9000.
    """
    total: dict[str, int] = {}
    for revision in sorted(held.keys() | pods.keys()):
        have, has_pods = held.get(revision, EMPTY), pods.get(revision, EMPTY)
        names = have.keys() | has_pods.keys()
        total = add(total, {name: max(have.get(name, 0), has_pods.get(name, 0)) for name in names})
    return total


def covers(held: ResourceVector, per_replica: ResourceVector, replicas: int) -> bool:
    """Is that enough for so many replicas?"""
    return all(held.get(name, 0) >= amount for name, amount in times(per_replica, replicas).items())


def replicas_in(held: ResourceVector, per_replica: ResourceVector) -> int:
    """How many whole replicas that is; 0 where a replica needs nothing."""
    return min((held.get(name, 0) // amount for name, amount in per_replica.items() if amount), default=0)


def share(asks: Sequence[Ask], ledgers: Mapping[Domain, Ledger], now: float) -> dict[AskId, Verdict]:
    """A verdict on every ask. A domain without a ledger is unlimited.

    12 GPUs, 11 held; an update wants 8 and growth 1: growth gets it, the update waits and was overtaken once.
    """
    free = {domain: _free(ledger) for domain, ledger in ledgers.items()}
    heads = _heads(asks, ledgers)
    blocking = {domain: ask for domain, ask in heads.items() if _waited(ask, now)}
    verdicts = {ask.id: Verdict(ask.revision, overtaken=ask.overtaken, replicas=ask.held) for ask in asks}
    served: list[tuple[Kind, Ask, str]] = []
    for kind, ask in _in_order(asks, blocking):
        before = verdicts[ask.id]
        verdict = _try(kind, ask, before, ledgers, free, blocking)
        verdicts[ask.id] = verdict
        gained = verdict.replicas - before.replicas
        if gained > 0 and verdict.pool is not None and _needs(ask, verdict.pool, ledgers):
            served.append((kind, ask, verdict.pool))
            blocking = {domain: head for domain, head in blocking.items() if head.id != ask.id}
            _take(free, (ask.project, verdict.pool), times(ask.per_replica, gained))
    for ask in heads.values():
        if verdicts[ask.id].replicas < ask.wanted:
            overtaken = ask.overtaken + sum(_overtakes(ask, *each) for each in served)
            since = now if ask.head_since is None else ask.head_since
            verdicts[ask.id] = replace(verdicts[ask.id], overtaken=overtaken, head_since=since)
    return verdicts


def _free(ledger: Ledger) -> dict[str, int]:
    return {name: amount - ledger.used.get(name, 0) for name, amount in ledger.limit.items()}


def _take(free: dict[Domain, dict[str, int]], domain: Domain, vector: ResourceVector) -> None:
    for name, amount in vector.items():
        if name in free.get(domain, {}):
            free[domain][name] -= amount


def _needs(ask: Ask, pool: str, ledgers: Mapping[Domain, Ledger]) -> bool:
    """Does it need anything that is limited there? What does not is in nobody's way."""
    ledger = ledgers.get((ask.project, pool))
    return ledger is not None and any(amount and name in ledger.limit for name, amount in ask.per_replica.items())


def _overtakes(head: Ask, kind: Kind, other: Ask, pool: str) -> bool:
    """Did somebody who came later, or only grows, get what the head waits for?"""
    same_domain = other.project == head.project and pool in head.pools
    later = kind is Kind.GROWTH or (kind is Kind.UPDATE and other.since > head.since)
    return other.id != head.id and same_domain and later


def _heads(asks: Sequence[Ask], ledgers: Mapping[Domain, Ledger]) -> dict[Domain, Ask]:
    """The first of each domain's queue."""
    heads: dict[Domain, Ask] = {}
    for ask in sorted((each for each in asks if each.whole and not each.running), key=_rank):
        pool = next((each for each in ask.pools if _could_fit(ask, each, ledgers)), None)
        if pool is not None and _needs(ask, pool, ledgers):
            heads.setdefault((ask.project, pool), ask)
    return heads


def _waited(head: Ask, now: float) -> bool:
    """Long enough to block its domain?"""
    long = head.head_since is not None and now - head.head_since >= WAIT_MOST_S
    return long or head.overtaken >= OVERTAKES_MOST


def _rank(ask: Ask) -> tuple[int, float, WorkloadKey, str]:
    return (-ask.priority_rank, ask.since, ask.key, ask.revision)


def _in_order(asks: Iterable[Ask], blocking: Mapping[Domain, Ask]) -> list[tuple[Kind, Ask]]:
    """Growth appears twice: up to the floor, and beyond it. A blocking head goes right after all floors."""
    heads = {ask.id for ask in blocking.values()}
    entries: list[tuple[tuple[int, int, int, float, WorkloadKey, str], Kind, Ask]] = []
    for ask in asks:
        kinds = (Kind.UPDATE,) if ask.whole else (Kind.FLOOR, Kind.GROWTH)
        for kind in kinds:
            late = 1 if blocking and kind is not Kind.FLOOR and ask.id not in heads else 0
            entries.append(((late, -ask.priority_rank, kind, ask.since, ask.key, ask.revision), kind, ask))
    return [(kind, ask) for _, kind, ask in sorted(entries, key=lambda entry: entry[0])]


def _try(
    kind: Kind,
    ask: Ask,
    before: Verdict,
    ledgers: Mapping[Domain, Ledger],
    free: Mapping[Domain, dict[str, int]],
    blocking: Mapping[Domain, Ask],
) -> Verdict:
    wanted = min(ask.wanted, ask.floor) if kind is Kind.FLOOR else ask.wanted
    missing = wanted - before.replicas
    if missing <= 0:
        return before
    if ask.whole and not any(_could_fit(ask, pool, ledgers) for pool in ask.pools):
        return replace(_refused(ask, missing, ledgers, free, before), never=True)
    blocked: AskId | None = None
    for pool in ask.pools if before.pool is None else (before.pool,):
        domain = (ask.project, pool)
        head = blocking.get(domain) if _needs(ask, pool, ledgers) else None
        if kind is not Kind.FLOOR and head is not None and head.id != ask.id:
            blocked = head.id
            continue
        room = replicas_that_fit(free[domain], ask.per_replica) if domain in free else None
        extra = missing if room is None else min(missing, room)
        if extra > 0 and (extra == missing or not ask.whole):
            got = replace(before, pool=pool, replicas=before.replicas + extra)
            return got if extra == missing else _in_part(ask, missing, extra, ledgers, free, got)
    return replace(_refused(ask, missing, ledgers, free, before), blocked_by=blocked)


def _could_fit(ask: Ask, pool: str, ledgers: Mapping[Domain, Ledger]) -> bool:
    """Would it fit if nobody held anything but what must stay beside it?"""
    ledger = ledgers.get((ask.project, pool))
    if ledger is None:
        return True
    beside = ask.beside if pool == ask.beside_pool else EMPTY
    total = add(times(ask.per_replica, ask.wanted), beside)
    return all(amount <= ledger.limit[name] for name, amount in total.items() if name in ledger.limit)


def _in_part(
    ask: Ask,
    missing: int,
    extra: int,
    ledgers: Mapping[Domain, Ledger],
    free: Mapping[Domain, dict[str, int]],
    got: Verdict,
) -> Verdict:
    """What is short after the part that fits, and what is free then."""
    left = times(ask.per_replica, -extra)
    refused = _refused(ask, missing, ledgers, free, got)
    return replace(refused, free={name: amount + left.get(name, 0) for name, amount in refused.free.items()})


def _refused(
    ask: Ask,
    missing: int,
    ledgers: Mapping[Domain, Ledger],
    free: Mapping[Domain, dict[str, int]],
    before: Verdict,
) -> Verdict:
    domain = (ask.project, before.pool or ask.pools[0])
    room = free.get(domain, {})
    needs = times(ask.per_replica, missing)
    short = {name: needs[name] - max(0, room[name]) for name in needs if name in room and needs[name] > room[name]}
    limit = ledgers[domain].limit if domain in ledgers else EMPTY
    return replace(before, short=short, free=dict(room), limit=limit)
