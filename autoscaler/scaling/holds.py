"""What the ledger of a domain should say, and how many replicas what it does say covers.

A hold comes before the pods and goes after them: nothing is given replicas beyond its hold, and a hold shrinks only to
what pods still have, terminating ones too. So the ledger is never below what runs, whoever leads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoscaler.model.quota import Domain, Hold, Ledger
from autoscaler.model.resources import ResourceVector, replicas_that_fit, times


@dataclass(frozen=True, slots=True)
class Holder:
    """One revision in its domain, after allocation."""

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


def ledgers(
    holders: Iterable[Holder],
    limits: Mapping[Domain, ResourceVector],
    before: Mapping[Domain, Ledger],
    leftovers: Mapping[Domain, Iterable[Hold]],
    now: float,
) -> dict[Domain, Ledger]:
    """The ledger of each limited domain. A domain without a limit has none: there is nothing to hold against.

    `before`: as stored, whose instants stay. `leftovers`: what pods have that belong to no holder any more.
    """
    wanted: dict[Domain, list[Hold]] = {domain: list(leftovers.get(domain, ())) for domain in limits}
    for holder in holders:
        if holder.domain in wanted:
            vector = times(holder.per_replica, holder.replicas)
            wanted[holder.domain].append(Hold(holder.owner, holder.revision, vector))
    return {
        domain: _ledger(limits[domain], holds, before.get(domain, Ledger({})), now) for domain, holds in wanted.items()
    }


def _ledger(limit: ResourceVector, holds: Iterable[Hold], before: Ledger, now: float) -> Ledger:
    kept = []
    for hold in sorted(holds, key=lambda each: (each.owner, each.revision)):
        vector = {name: amount for name, amount in sorted(hold.vector.items()) if name in limit and amount}
        if vector:
            was = before.of(hold.owner, hold.revision)
            kept.append(Hold(hold.owner, hold.revision, vector, was.since_s if was else float(int(now))))
    return Ledger(limit, tuple(kept))


def covered(holder: Holder, limit: ResourceVector, ledger: Ledger | None) -> int:
    """The replicas that may be written now: as granted where the ledger says so, else not above what is applied."""
    limited = {name: amount for name, amount in holder.per_replica.items() if name in limit and amount}
    if holder.granted <= holder.applied or not limited:
        return holder.granted
    hold = ledger.of(holder.owner, holder.revision) if ledger is not None else None
    fit = replicas_that_fit({name: hold.vector.get(name, 0) for name in limited}, limited) if hold is not None else 0
    return max(holder.applied, min(holder.granted, fit or 0))
