"""The record of a workload's revisions: what the controller must remember across a crash.

It is saved (compare-and-set) before anything is done, so that a successor knows what was meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where the workload's revision stands. Updates add their phases to this set."""

    STARTING = "Starting"  # the first revision has not served yet
    COMPLETE = "Complete"  # one revision, all traffic
    FAILED = "Failed"  # the first revision did not serve within its initialization timeout


@dataclass(frozen=True, slots=True)
class Record:
    """All instants in Unix seconds; None means not yet."""

    phase: Phase = Phase.STARTING
    current: str | None = None  # the revision that serves, or is to serve first
    update: str | None = None  # the revision that the stored template asks for, where it is another one
    collision_count: int = 0
    replicas: int | None = None  # the count last written for the current revision
    initialized: bool = False  # the initial count was reached once
    started_at: float | None = None  # the current revision was first given replicas
    served_at: float | None = None  # the current revision was first ready
    serving: bool = False  # was ready since it was last given replicas: losing that is a degradation, not a start
    epoch: int | None = None  # of the leader that last wrote it
