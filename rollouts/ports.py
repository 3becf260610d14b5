"""What the driver needs of the world. Adapters satisfy these by shape."""

from __future__ import annotations

from typing import Protocol

from rollouts.record import Record
from rollouts.revision import Revision


class Records(Protocol):
    async def save(self, record: Record) -> None:
        """Stores the record if nobody changed the workload meanwhile; raises on a conflict."""


class Revisions(Protocol):
    async def save(self, revision: Revision) -> None:
        """Stores the content of a revision; the same content again is no error."""

    async def stamp(self, revision: str, epoch: int) -> None:
        """Makes the revision's object carry this epoch; no write that was made for an earlier state of it succeeds."""

    async def have_replicas(self, revision: str, replicas: int, seen: int | None) -> None:
        """Makes the revision's object have this many replicas; creates it where `seen` is None."""


class Traffic(Protocol):
    async def select(self, service: str, revision: str, exists: bool) -> None:
        """Makes the Service select the revision's serving pods; creates it where it does not exist and is ours."""
