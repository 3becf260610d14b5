"""What the daemon writes into the status of an InferenceWorkload. The CRD is generated from here.

Instants are RFC 3339. Numbers that tell nothing are left out, never written as 0 or -1.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from autoscaler.model.signal import Quality
from autoscaler.settings.rules import Ruled
from autoscaler.settings.scalars import Count

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


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
