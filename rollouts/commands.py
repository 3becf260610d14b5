"""What the driver is to make true. Each is a statement, so repeating one is harmless and the order heals crashes."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.model.resources import ResourceVector
from rollouts.revision import Revision


@dataclass(frozen=True, slots=True)
class SaveRevision:
    """The content of this revision is stored immutably."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Stamp:
    """The revision's object carries this epoch, so that late writes of an earlier leader fail."""

    revision: str
    epoch: int


@dataclass(frozen=True, slots=True)
class HaveReplicas:
    """The revision's object exists and has n replicas. `seen` is the count that was observed (None: no object)."""

    revision: str
    replicas: int
    seen: int | None


@dataclass(frozen=True, slots=True)
class Select:
    """The Service exists and selects this revision. `exists` says whether it was observed."""

    service: str
    revision: str
    exists: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """The ledger of this pool holds exactly this for the revision, in thousandths; all of it or nothing is changed."""

    revision: str
    pool: str
    vector: ResourceVector


@dataclass(frozen=True, slots=True)
class Release:
    """No ledger holds anything for the revision."""

    revision: str


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Every ready replica of the revision gets the warm-up requests that it has not had."""

    revision: str


@dataclass(frozen=True, slots=True)
class Weigh:
    """The update Service gets this percentage of the route's traffic, the other Service the rest."""

    update_percent: int
    seen: int | None  # the percentage that was observed


@dataclass(frozen=True, slots=True)
class DeleteRevision:
    """The revision's object does not exist. `immediate`: it never served, so its pods get no more than 5 s of grace."""

    revision: str
    immediate: bool


Command = SaveRevision | Stamp | HaveReplicas | Select | Hold | Release | WarmUp | Weigh | DeleteRevision
