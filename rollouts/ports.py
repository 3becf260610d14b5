"""What the driver needs of the world. Adapters satisfy these by shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autoscaler.model.resources import ResourceVector
from rollouts.record import Record
from rollouts.revision import Revision


class Records(Protocol):
    async def save(self, record: Record) -> None:
        """Stores the record if nobody changed the workload meanwhile; raises on a conflict."""


class Scale(Protocol):
    async def scale(self, name: str, replicas: int, seen: int) -> None:
        """Gives the object that the record knows by this name so many replicas, where it still has what was seen."""


class Revisions(Protocol):
    async def save(self, revision: Revision) -> None:
        """Stores the content of a revision; the same content again is no error."""

    async def stamp(self, revision: str, epoch: int) -> None:
        """Makes the revision's object carry this epoch; no write that was made for an earlier state of it succeeds."""

    async def create(self, revision: str, replicas: int) -> None:
        """Makes the revision's object; one of ours that is there already is no error."""


class Traffic(Protocol):
    async def select(self, service: str, revision: str, exists: bool) -> None:
        """Makes the Service select the revision's serving pods; creates it where it does not exist and is ours."""


class Removal(Protocol):
    async def delete(self, revision: str, immediate: bool) -> None:
        """Deletes the object and its pods, `immediate` with at most 5 s of grace; what is gone already is no error."""


class Quota(Protocol):
    async def hold(self, revision: str, pool: str, vector: ResourceVector) -> None:
        """Makes the pool's ledger hold exactly this for the revision, in thousandths; compare-and-set on the ledger.

        Raises where the ledger would then hold more than its limit and more than before; nothing is changed then.
        """

    async def release(self, revision: str) -> None:
        """Gives back what the revision holds in every ledger of the project, now or with their next write."""


class Route(Protocol):
    async def weigh(self, update_percent: int, seen: int | None) -> None:
        """Gives the update Service this percentage and the other one the rest; JSON Patch with `test` on what was seen.

        Raises where the rule changed meanwhile, or where somebody else owns it.
        """


class WarmUps(Protocol):
    async def warm_up(self, revision: str) -> None:
        """Begins to send the warm-up requests to every ready replica that has not had them, and returns at once."""


@dataclass(frozen=True, slots=True)
class OwnPorts:
    """What a workload whose objects are ours needs besides its record and its scale."""

    revisions: Revisions
    traffic: Traffic
    removal: Removal
    quota: Quota
    route: Route | None = None  # None: the Service's selector is the switch
    warm_ups: WarmUps | None = None  # None: it asks for no warm-up requests
