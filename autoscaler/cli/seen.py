"""A workload as the commands read it: the object as stored, with what the daemon tells of updates in its status.

Decoded as `autoscaler.cluster.inferenceworkload` does: unknown fields are ignored, absent ones are None. A status of a
newer daemon may hold words that this version does not know; they are shown as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from autoscaler.cluster.inferenceworkload import InferenceWorkload, RolloutRecord, Status, unix_seconds
from autoscaler.cluster.resources import Struct
from autoscaler.model.resources import GPU
from rollouts.record import PausedBy, Phase

VERB_ANNOTATION: Final = "tidegate.dev/rollout"
UPDATE, CURRENT, LEAVING = "Update", "Current", "Leaving"  # roles of revisions


class PauseSeen(Struct, frozen=True):
    by: str | None = None
    since: str | None = None
    until: str | None = None
    resumes: str | None = None


class RolloutSeen(Struct, frozen=True):
    """The update that runs, or the last one if it failed."""

    revision: str | None = None
    phase: str | None = None
    reason: str | None = None
    since: str | None = None
    size: int | None = None
    pool: str | None = None
    attempts: int | None = None
    queued_at: str | None = None
    queue_deadline_at: str | None = None
    not_before: str | None = None
    schedule_deadline_at: str | None = None
    progress_deadline_at: str | None = None
    drain_deadline_at: str | None = None
    step: int | None = None
    weight: int | None = None
    verified: int | None = None
    full: bool | None = None
    pause: PauseSeen | None = None

    def is_in(self, *phases: Phase) -> bool:
        return self.phase in {each.value for each in phases}

    @property
    def paused_by(self) -> PausedBy | None:
        known = {each.value: each for each in PausedBy}
        return known.get(self.pause.by or "") if self.pause is not None else None


class LeavingSeen(Struct, frozen=True):
    revision: str = ""
    since: str | None = None
    served: bool | None = None
    drained: bool | None = None
    deadline_at: str | None = None


class RecordSeen(RolloutRecord, frozen=True, kw_only=True, omit_defaults=True):
    previous: str | None = None
    pool: str | None = None
    handled: str | None = None
    leaving: list[LeavingSeen] | None = None


class TrafficSeen(Struct, frozen=True):
    revision_name: str = ""
    percent: int = 0


class RevisionSeen(Struct, frozen=True):
    name: str = ""
    role: str | None = None
    replicas: int | None = None
    ready: int | None = None
    starting: int | None = None
    terminating: int | None = None
    unscheduled: int | None = None
    traffic_percent: int | None = None
    node_pool: str | None = None
    held: dict[str, int] | None = None  # thousandths


class QuotaSeen(Struct, frozen=True):
    """In thousandths; absent where unlimited."""

    project: str | None = None
    node_pool: str | None = None
    gpus_limit: int | None = None
    gpus_free: int | None = None
    gpus_short: int | None = None


class StatusSeen(Status, frozen=True, kw_only=True, omit_defaults=True):
    record: RecordSeen | None = None
    rollout: RolloutSeen | None = None
    traffic: list[TrafficSeen] | None = None
    revisions: list[RevisionSeen] | None = None
    rollout_message: str | None = None
    rollout_deadline_at: str | None = None
    quota: QuotaSeen | None = None

    def revision(self, name: str) -> RevisionSeen | None:
        return next((each for each in self.revisions or () if each.name == name), None)

    def condition(self, kind: str) -> str | None:
        """Its reason, where it is True."""
        return next(
            (each.reason for each in self.conditions or () if each.type == kind and each.status == "True"), None
        )


class Seen(InferenceWorkload, frozen=True, kw_only=True, omit_defaults=True):
    """One workload."""

    status: StatusSeen | None = None

    @property
    def told(self) -> StatusSeen:
        """The status; an empty one where the daemon has written none."""
        return self.status or StatusSeen()

    @property
    def kind_of_serving(self) -> str | None:
        serving = self.spec.serving
        if serving is None:
            return None
        kinds = {
            "deployment": serving.deployment,
            "leaderWorkerSet": serving.leader_worker_set,
            "targetRef": serving.target_ref,
        }
        return next((name for name, block in kinds.items() if block is not None), None)


@dataclass(frozen=True, slots=True)
class Stored:
    """A workload both ways: as answered, and as read."""

    raw: Mapping[str, Any]
    seen: Seen


def read(raw: Mapping[str, Any]) -> Stored:
    """Raises msgspec.ValidationError where a field has another type than ours."""
    return Stored(raw, msgspec.convert(raw, Seen))


def gpus(vector: Mapping[str, int] | None) -> float:
    """Whole and part GPUs of a vector of thousandths."""
    return (vector or {}).get(GPU, 0) / 1000


def seconds_of(instant: str | None) -> float | None:
    """Unix seconds; None where it is missing or no instant."""
    try:
        return unix_seconds(instant) if instant else None
    except ValueError:
        return None
