"""What the daemon writes into the status of an InferenceWorkload. The CRD is generated from here.

Instants are RFC 3339. Numbers that tell nothing are left out, never written as 0 or -1.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from autoscaler.model.signal import Quality
from autoscaler.settings.rules import Ruled
from autoscaler.settings.scalars import Count

RESOURCES_MAX: Final = 16
REVISIONS_MAX: Final = 64
HANDLED_MAX: Final = 253  # as long as a verb may be: rollouts/verbs.py

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=64)]
Milli = Annotated[int, Field(strict=True, ge=0, json_schema_extra={"format": "int64"})]
Vector = Annotated[dict[str, Milli], Field(max_length=RESOURCES_MAX)]
RevisionName = Annotated[str, Field(max_length=253)]
PoolName = Annotated[str, Field(max_length=63)]
Word = Annotated[str, Field(max_length=63)]  # of a closed set that a newer version may extend
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]


class ScalingMode(StrEnum):
    """Who decides the replica count."""

    AUTO = "Auto"
    MANUAL = "Manual"
    PAUSED = "Paused"
    STOPPED = "Stopped"
    OBSERVE = "Observe"


class Counts(Ruled):
    """Replicas, from what the policy wants to what is seen."""

    desired: Count | None = None
    """Wanted by the policy, or by spec.replicas."""
    granted: Count | None = None
    """Left of it by the quota and the operator's ceilings."""
    applied: Count | None = None
    """Written to the Deployment, LeaderWorkerSet or target; with mode observe, seen there."""
    ready: Count | None = None
    """Seen serving."""
    starting: Count | None = None
    """Created and not ready yet."""
    terminating: Count | None = None
    """On their way out; they still hold their GPUs."""


class BoundsRecord(Ruled):
    """minReplicas and maxReplicas."""

    least: Count
    most: Count


class LeavingRecord(Ruled):
    """A revision on its way out, until its object, its pods and its hold are gone."""

    revision: RevisionName
    since: Instant
    served: bool
    """It may have requests in flight."""
    drained: bool
    """It has finished them."""
    deadline_at: Instant | None = None
    """It goes then in any case."""


class RolloutRecord(Ruled):
    """What must survive a restart of the daemon."""

    phase: str | None = None
    """Where the revision stands."""
    replicas: Count | None = None
    """The count last written for the current revision."""
    initialized: bool | None = None
    """The initial count was reached once."""
    epoch: Count | None = None
    """Epoch of the leader that last wrote it."""
    serving: bool | None = None
    """Was ready since it was last given replicas."""
    started_at: Instant | None = None
    """When the current revision was first given replicas."""
    served_at: Instant | None = None
    """When the current revision was first ready."""
    previous: RevisionName | None = None
    """Comes back if the current revision, which has not served yet, fails."""
    pool: PoolName | None = None
    """Node pool of the current revision."""
    handled: Annotated[str, Field(max_length=HANDLED_MAX)] | None = None
    """The annotation tidegate.dev/rollout as it was last obeyed or refused."""
    bounds: BoundsRecord | None = None
    """Those of the current revision."""
    bounds_seen: BoundsRecord | None = None
    """Those of the spec when it was last looked at."""
    leaving: Annotated[list[LeavingRecord], Field(max_length=REVISIONS_MAX)] | None = None


class PauseRecord(Ruled):
    """An interruption; every deadline moves by its length."""

    by: Word
    """step, verb or spec (rollout.paused)."""
    since: Instant
    until: Instant | None = None
    """Absent: until somebody resumes it."""
    resumes: Word
    """The phase that goes on then."""


class RolloutStatus(Ruled):
    """The update that runs, or the last one if it failed."""

    revision: RevisionName
    phase: Word
    """Queued, Starting, Warming, Shifting, Paused, Draining, RollingBack or Failed."""
    reason: Word | None = None
    """Why it is there, e.g. WaitingForQuota or ProgressDeadlineExceeded."""
    since: Instant
    """In this phase since then."""
    queued_at: Instant
    queue_deadline_at: Instant
    """Of waiting for quota; pauses move it."""
    size: Count | None = None
    """Replicas that are held and created at once."""
    pool: PoolName | None = None
    """Node pool whose quota it has."""
    first_pool: Count | None = None
    """Index of the first node pool to try; those before it did not place the pods."""
    attempts: Count | None = None
    """How often it was queued again."""
    not_before: Instant | None = None
    """It is not tried again before."""
    overtaken: Count | None = None
    """How often somebody else was served while it was the head of the queue."""
    head_since: Instant | None = None
    """It is the head of the queue for quota since then."""
    held_at: Instant | None = None
    """When its quota was reserved."""
    schedule_deadline_at: Instant | None = None
    progress_deadline_at: Instant | None = None
    step: Count | None = None
    """Index of the next step."""
    weight: Percent | None = None
    """Wanted of the traffic."""
    accepted_at: Instant | None = None
    """When the route was first seen to have accepted it."""
    verified: Percent | None = None
    """Proven of the traffic."""
    served: bool | None = None
    """It was given traffic."""
    floor: Count | None = None
    """The current revision keeps at least as many replicas."""
    ready_at_start: Count | None = None
    """Ready replicas of the current revision when traffic began to move."""
    full: bool | None = None
    """Promoted to all of the traffic; the remaining steps are left out."""
    drain_deadline_at: Instant | None = None
    drained: bool | None = None
    """The old revision has finished its requests."""
    home: bool | None = None
    """The workload's Service leads to the update's pods."""
    pause: PauseRecord | None = None


class TrafficShare(Ruled):
    """Percent of the requests to one revision."""

    revision_name: RevisionName
    percent: Percent


class RevisionRole(StrEnum):
    CURRENT = "Current"
    UPDATE = "Update"
    LEAVING = "Leaving"


class RevisionStatus(Ruled):
    """One revision as last seen. Counts are replicas: pods, or whole groups."""

    name: RevisionName
    role: RevisionRole | None = None
    """Current serves, Update is coming, Leaving is on its way out."""
    replicas: Count | None = None
    """Asked of its object."""
    ready: Count | None = None
    starting: Count | None = None
    terminating: Count | None = None
    unscheduled: Count | None = None
    """Of the starting ones, without a node."""
    traffic_percent: Percent | None = None
    node_pool: PoolName | None = None
    held: Vector | None = None
    """Quota reserved for it: resource to whole thousandths."""


class QuotaStatus(Ruled):
    """The project's quota on the node pool, in whole thousandths of a GPU; absent where there is no limit."""

    project: Annotated[str, Field(max_length=253)] | None = None
    node_pool: PoolName | None = None
    gpus_limit: Milli | None = None
    gpus_free: Milli | None = None
    gpus_short: Milli | None = None
    """Missing for what is wanted."""


class SignalStatus(Ruled):
    """One signal as last read."""

    name: Annotated[str, Field(max_length=128)]
    """A built-in signal, or a metric of the pods."""
    value: str | None = None
    """The reading over all ready replicas; absent while unknown."""
    target: str | None = None
    """What one replica should carry."""
    recommended: Count | None = None
    """Replicas that this signal asks for; the highest of all signals wins."""
    quality: Quality | None = None
    """fresh, partial, stale or absent. Only a fresh signal lowers a replica count."""
    age_seconds: Count | None = None
    """Age of the oldest page behind the value."""
    pods_fresh: Count | None = None
    """Ready pods whose page is fresh."""
    pods_expected: Count | None = None
    """Ready pods."""


class Condition(Ruled):
    """A condition as in all of Kubernetes."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    observed_generation: Annotated[int, Field(strict=True, ge=0)] | None = None
    last_transition_time: Instant
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=32768)]


class LastScale(Ruled):
    """The last change of the replica count."""

    at: Instant | None = None
    from_: Annotated[Count | None, Field(alias="from")] = None
    to: Count | None = None
    reason: str | None = None
    """The rule that decided, e.g. Policy, Manual, Quota."""


class WorkloadStatus(Ruled):
    """What was last decided and seen."""

    phase: str | None = None
    """Summary in one word: Creating, Pending, Initializing, Running, Stopped, Failed, …"""
    phase_message: str | None = None
    """The summary in one sentence."""
    observed_generation: Annotated[int, Field(strict=True, ge=0)] | None = None
    """The generation of the spec that this status speaks of."""
    url: str | None = None
    """Where clients reach the workload inside the cluster."""
    replicas: Count | None = None
    """Replicas of the scale subresource: the pods that exist."""
    selector: str | None = None
    """Label selector of the pods, for the scale subresource."""
    scaling_mode: ScalingMode | None = None
    """Who decides the count: Auto, Manual (spec.replicas), Paused, Stopped, or Observe: decided and not written."""
    counts: Counts | None = None
    current_revision: str | None = None
    """The revision that serves; with targetRef the target, as kubectl names it."""
    update_revision: str | None = None
    """The revision that is coming."""
    collision_count: Count | None = None
    """How often two templates hashed to the same revision name."""
    record: RolloutRecord | None = None
    rollout: RolloutStatus | None = None
    rollout_message: Annotated[str, Field(max_length=4096)] | None = None
    """What the update waits for, in one sentence."""
    rollout_deadline_at: Instant | None = None
    """When the clock that runs for the update ends."""
    traffic: Annotated[list[TrafficShare], Field(max_length=REVISIONS_MAX)] | None = None
    """Who gets how much of the requests."""
    revisions: (
        Annotated[
            list[RevisionStatus],
            Field(
                max_length=REVISIONS_MAX,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    quota: QuotaStatus | None = None
    signals: (
        Annotated[
            list[SignalStatus],
            Field(
                max_length=16,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    conditions: (
        Annotated[
            list[Condition],
            Field(
                max_length=64,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            ),
        ]
        | None
    ) = None
    last_scale: LastScale | None = None
    next_eligible_at: Instant | None = None
    """A clock (a delay, a window that fills, a retention) keeps a lower count back until then; absent where none does.
    A higher one may come at any time."""
