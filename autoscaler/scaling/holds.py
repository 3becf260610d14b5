"""What the ledger of a domain should say, and how many replicas what it does say covers.

A hold comes before the pods and goes after them: nothing is given replicas beyond its hold, and a hold shrinks only to
what pods still have, terminating ones too. So the ledger is never below what runs, whoever leads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from autoscaler.model.quota import MAX_HOLDS, Domain, Hold, Ledger
from autoscaler.model.resources import EMPTY, ResourceVector, add, largest, replicas_that_fit, times

HolderId = tuple[str, str]  # owner, revision


@dataclass(frozen=True, slots=True)
class Holder:
    """One revision in its domain, after the quota was shared."""

    domain: Domain
    owner: str  # namespace/name
    revision: str
    per_replica: ResourceVector  # thousandths
    granted: int
    applied: int  # replicas in its object's spec
    live: int  # pods' worth of replicas that exist, terminating ones too

    @property
    def replicas(self) -> int:
        """What must be held: what shall be, what is asked of Kubernetes already, or what is still there."""
        return max(self.granted, self.applied, self.live)


def covered(holder: Holder, limit: ResourceVector, ledger: Ledger | None) -> int:
    """The replicas that may be written now: as granted where the ledger says so, else not above what is applied."""
    limited = {name: amount for name, amount in holder.per_replica.items() if name in limit and amount}
    if holder.granted <= holder.applied or not limited:
        return holder.granted
    hold = ledger.of(holder.owner, holder.revision) if ledger is not None else None
    fit = replicas_that_fit({name: hold.vector.get(name, 0) for name in limited}, limited) if hold is not None else 0
    return max(holder.applied, min(holder.granted, fit or 0))


@dataclass(frozen=True, slots=True)
class Change:
    """A wish: one revision holds exactly this in this domain, and nothing in any other. Without a domain: nothing."""

    owner: str  # namespace/name
    revision: str
    domain: Domain | None = None  # None: it is released
    vector: ResourceVector = field(default_factory=dict)  # thousandths; what is not limited there is left out

    @property
    def id(self) -> HolderId:
        return (self.owner, self.revision)


@dataclass(frozen=True, slots=True)
class Refused:
    """A wish that the ledger's rule does not allow. What was held before it still is."""

    change: Change
    short: ResourceVector  # by how much the limits would be exceeded; empty: the ledger has no room for another hold


@dataclass(frozen=True, slots=True)
class Reserved:
    """What the ledgers shall say, and the wishes that they cannot grant."""

    ledgers: dict[Domain, Ledger]
    refused: tuple[Refused, ...] = ()


def wish(holder: Holder) -> Change:
    """What a target's revision shall hold, after the quota was shared."""
    return Change(holder.owner, holder.revision, holder.domain, times(holder.per_replica, holder.replicas))


def limited(
    per_replica: ResourceVector, limits: Mapping[Domain, ResourceVector], project: str, pools: Iterable[str]
) -> ResourceVector:
    """Of what a replica needs, what is limited in one of these pools: all that a ledger there ever says of it.

    Give the one pool where a revision is or will be, and all of its pools while it has none.
    """
    names = {name for pool in pools for name in limits.get((project, pool), EMPTY)}
    return {name: amount for name, amount in per_replica.items() if name in names and amount}


def after(
    before: Mapping[Domain, Ledger],
    limits: Mapping[Domain, ResourceVector],
    changes: Iterable[Change],
    leftovers: Mapping[Domain, Iterable[Hold]],
    live_owners: Set[str],
    now: float,
) -> Reserved:
    """The ledgers of a cycle: one write for each, which the API server accepts.

    `before`: as confirmed. `changes`: in the order in which they may take what is free. `leftovers`: what pods have
    that no change speaks of; it is held before anything else, and no change goes below it. A hold whose owner is not
    in `live_owners` is swept down to that; every other one that no change names stays as it is, but for resources that
    are not limited any more. A domain that has lost its limit holds nothing. `now` in Unix seconds.

    Limit 8 and held 5: one wish for 2 more is granted, the next for 2 is refused and 1 short.
    """
    drafts = {domain: _Draft(limits.get(domain, EMPTY), before.get(domain)) for domain in sorted({*before, *limits})}
    refused: list[Refused] = []
    for domain, draft in drafts.items():
        left = _by_holder(leftovers.get(domain, ()))
        draft.sweep(left, live_owners)
        for (owner, revision), vector in sorted(left.items()):
            most = largest([vector, draft.held((owner, revision))])
            refused += draft.apply(Change(owner, revision, domain, most))
    for change in changes:
        there = drafts.get(change.domain) if change.domain is not None else None
        denied = there.apply(change) if there is not None else []
        refused += denied
        for domain, draft in drafts.items():
            if domain != change.domain and not denied:
                draft.release(change.id)
    return Reserved({domain: draft.ledger(now) for domain, draft in drafts.items()}, tuple(refused))


def _by_holder(holds: Iterable[Hold]) -> dict[HolderId, ResourceVector]:
    """By holder; one that is named twice has both."""
    found: dict[HolderId, ResourceVector] = {}
    for hold in holds:
        found[(hold.owner, hold.revision)] = add(found.get((hold.owner, hold.revision), EMPTY), hold.vector)
    return found


class _Draft:
    """One ledger while it is made."""

    def __init__(self, limit: ResourceVector, before: Ledger | None) -> None:
        self._limit = limit
        there = {(hold.owner, hold.revision): hold for hold in before.holds} if before is not None else {}
        self._since = {id_: hold.since_s for id_, hold in there.items()}
        self._holds = {id_: vector for id_, hold in there.items() if (vector := self._limited(hold.vector))}
        self._total = add(*self._holds.values())
        self._least: Mapping[HolderId, ResourceVector] = {}

    def held(self, id_: HolderId) -> ResourceVector:
        return self._holds.get(id_, EMPTY)

    def _limited(self, vector: ResourceVector) -> ResourceVector:
        return {name: amount for name, amount in sorted(vector.items()) if name in self._limit and amount}

    def sweep(self, leftovers: Mapping[HolderId, ResourceVector], live_owners: Set[str]) -> None:
        """Holds of owners that are gone: what their pods have, and nothing that they do not."""
        self._least = leftovers
        for id_ in [each for each in self._holds if each[0] not in live_owners]:
            self._put(id_, self._kept(id_))

    def apply(self, change: Change) -> list[Refused]:
        """The refusal, if it is one."""
        has = self.held(change.id)
        wanted = self._limited(largest([self._kept(change.id), change.vector]))
        more = {name: amount - has.get(name, 0) for name, amount in wanted.items() if amount > has.get(name, 0)}
        total = {name: self._total.get(name, 0) + amount for name, amount in more.items()}
        short = {name: amount - self._limit[name] for name, amount in total.items() if amount > self._limit[name]}
        if short or (wanted and not has and len(self._holds) >= MAX_HOLDS):
            return [Refused(change, short)]
        self._put(change.id, wanted)
        return []

    def release(self, id_: HolderId) -> None:
        if id_ in self._holds:
            self._put(id_, self._kept(id_))

    def _kept(self, id_: HolderId) -> ResourceVector:
        """Of what is held, what leftovers have: no wish goes below that, and none rises by it."""
        least = self._least.get(id_, EMPTY)
        return {name: min(amount, least.get(name, 0)) for name, amount in self.held(id_).items()}

    def _put(self, id_: HolderId, vector: ResourceVector) -> None:
        has, wanted = self._holds.pop(id_, EMPTY), self._limited(vector)
        for name in {*has, *wanted}:
            self._total[name] = self._total.get(name, 0) + wanted.get(name, 0) - has.get(name, 0)
        if wanted:
            self._holds[id_] = wanted

    def ledger(self, now: float) -> Ledger:
        holds = []
        for (owner, revision), vector in sorted(self._holds.items()):
            since = self._since.get((owner, revision), float(int(now)))
            holds.append(Hold(owner, revision, vector, since))
        return Ledger(self._limit, tuple(holds))
