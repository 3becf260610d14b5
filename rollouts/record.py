"""The record of a workload's revisions: what the controller must remember across a crash.

It is saved (compare-and-set) before anything is done, so that a successor knows what was meant. Instants are Unix
seconds and absolute: a restart moves no deadline. None means not yet, or no limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where a revision stands: `Record.phase` speaks of the current one, `Rollout.phase` of the update."""

    STARTING = "Starting"  # it has not served yet; an update's whole quota is held and its pods come up
    COMPLETE = "Complete"  # one revision, all traffic
    FAILED = "Failed"  # not retried until the template changes or somebody says so
    UNVERIFIED = "Unverified"  # became current at zero and never served; the one before it may come back
    QUEUED = "Queued"  # waits for its whole quota; no pod of it exists
    WARMING = "Warming"  # all its replicas are ready together and get their warm-up requests
    SHIFTING = "Shifting"  # takes traffic, weight by weight
    PAUSED = "Paused"
    DRAINING = "Draining"  # has verified 100 %; the old revision finishes its requests
    ROLLING_BACK = "RollingBack"  # traffic goes back, its pods go
    SUPERSEDED = "Superseded"  # another template came; its pods go while the next update waits


PHASES_OF_CURRENT: Final = (Phase.STARTING, Phase.COMPLETE, Phase.FAILED, Phase.UNVERIFIED)


class Why(StrEnum):
    """Why an update failed, or is where it is."""

    WAITING_FOR_QUOTA = "WaitingForQuota"
    RESERVATION_LOST = "ReservationLost"
    UNPLACED = "Unplaced"  # quota was free, but the pods were not placed within the schedule timeout
    REPLICAS_LOST = "ReplicasLost"
    QUEUE_TIMEOUT = "QueueTimeout"
    NEVER_FITS = "NeverFits"
    QUOTA_REFUSED = "QuotaRefused"  # short, and whenQuotaShort says refuse
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    ACTIVATION_FAILED = "ActivationFailed"  # a revision that became current at zero did not come up
    ABORTED = "Aborted"
    TEMPLATE_REVERTED = "TemplateReverted"  # the template is the current revision's again: nothing to do


class PausedBy(StrEnum):
    STEP = "step"  # ends by itself
    VERB = "verb"
    SPEC = "spec"  # rollout.paused


@dataclass(frozen=True, slots=True)
class Bounds:
    """minReplicas and maxReplicas."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Pause:
    """An interruption. Its length is added to every deadline when it ends."""

    by: PausedBy
    since: float
    until: float | None  # None: until somebody resumes it
    resumes: Phase


@dataclass(frozen=True, slots=True)
class Rollout:
    """The update's own part of the record."""

    revision: str
    queued_at: float
    queue_deadline_at: float  # of waiting for quota; being queued again does not restart it
    since: float  # in this phase since then
    phase: Phase = Phase.QUEUED
    reason: Why | None = None
    size: int = 1  # replicas that are held and created at once; grows with demand, never shrinks while it runs
    pool: str | None = None  # the node pool that was found free; the whole revision goes there
    first_pool: int = 0  # index of the first node pool to try: those before it did not place the pods
    attempts: int = 0  # times that it was queued again
    not_before: float | None = None  # back-off
    overtaken: int = 0  # times that a later ask was served while this one waited at the head of the queue
    head_since: float | None = None  # it is the head of the queue for quota since then
    held_at: float | None = None
    schedule_deadline_at: float | None = None  # None as well while all pods that there are have a node
    progress_deadline_at: float | None = None  # from the hold to verified 100 %, pauses taken out
    step: int = 0  # index of the next of the spec's steps
    weight: int = 0  # percent wanted of the traffic
    accepted_at: float | None = None  # the route was first seen to have accepted it
    verified: int = 0  # percent proven
    served: bool = False  # it was given a weight: it may have requests in flight
    floor: int = 0  # the current revision keeps at least this many replicas while it may have to take all traffic back
    ready_at_start: int = 0  # ready replicas of the current revision when traffic began to move
    full: bool = False  # promoted to 100 %: the remaining steps are left out
    drain_deadline_at: float | None = None
    drained: bool = False  # the old revision has finished its requests
    home: bool = False  # `<service>` leads to the update's pods: the weights may return to 100/0
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    """A revision on its way out. It stays recorded until its object, its pods and its hold are gone."""

    revision: str
    since: float
    served: bool  # False: no request can be in flight, it is deleted at once
    drained: bool = False
    deadline_at: float | None = (
        None  # of draining; None: nobody knows where it came from, only proof of idleness counts
    )

    @property
    def deletable(self) -> bool:
        return self.drained or not self.served


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one workload."""

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
    rollout: Rollout | None = None  # the update that runs, or the last one if it failed
    leaving: tuple[Leaving, ...] = ()
    previous: str | None = None  # of an unverified current revision: the one that comes back if it fails
    pool: str | None = None  # node pool of the current revision; None: the project's first
    handled: str | None = None  # the verb last obeyed or refused, as it was written
    bounds: Bounds | None = None  # of the current revision: bounds that came with a newer template are the update's
    bounds_seen: Bounds | None = None  # those of the spec when it was last looked at

    def leaves(self, revision: str) -> Leaving | None:
        return next((each for each in self.leaving if each.revision == revision), None)

    @property
    def names(self) -> frozenset[str]:
        """Every revision that it speaks of."""
        found = {self.current, self.previous, *(each.revision for each in self.leaving)}
        if self.rollout is not None:
            found.add(self.rollout.revision)
        return frozenset(name for name in found if name is not None)
