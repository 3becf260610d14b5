"""Quota as it is written down: how much of each resource is in one domain, and which revision holds what of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from autoscaler.model.resources import ResourceVector, add

Domain = tuple[str, str]  # project, node pool
MAX_HOLDS: Final = 2_000  # of one ledger, as its CRD allows


@dataclass(frozen=True, slots=True)
class Hold:
    """One reservation: from before the first pod of a revision until its last one is gone."""

    owner: str  # the workload, as namespace/name
    revision: str
    vector: ResourceVector  # thousandths, of limited resources only
    since_s: float | None = None  # Unix seconds


@dataclass(frozen=True, slots=True)
class Ledger:
    """All reservations of one domain against its limit. A resource that `limit` does not name is not limited."""

    limit: ResourceVector
    holds: tuple[Hold, ...] = ()

    @property
    def held(self) -> ResourceVector:
        """The sum of the reservations."""
        return add(*(hold.vector for hold in self.holds))

    def of(self, owner: str, revision: str) -> Hold | None:
        return next((hold for hold in self.holds if (hold.owner, hold.revision) == (owner, revision)), None)
