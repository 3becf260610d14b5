"""A workload as the commands read it: the object as stored, and short ways to ask it.

A status of a newer daemon may hold words that this version does not know; they are shown as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from autoscaler.cluster.inferenceworkload import InferenceWorkload, RevisionStatus, RolloutStatus, Status, unix_seconds
from autoscaler.model.resources import GPU
from rollouts.record import PausedBy, Phase

VERB_ANNOTATION: Final = "tidegate.dev/rollout"
UPDATE, CURRENT, LEAVING = "Update", "Current", "Leaving"  # roles of revisions


class Seen(InferenceWorkload, frozen=True, kw_only=True, omit_defaults=True):
    """One workload."""

    @property
    def told(self) -> Status:
        """The status; an empty one where the daemon has written none."""
        return self.status or Status()

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

    def revision(self, name: str) -> RevisionStatus | None:
        return next((each for each in self.told.revisions or () if each.name == name), None)

    def reason(self, condition: str) -> str | None:
        """Of a condition that is True."""
        found = (each for each in self.told.conditions or () if each.type == condition and each.status == "True")
        return next((each.reason for each in found), None)


def is_in(rollout: RolloutStatus, *phases: Phase) -> bool:
    return rollout.phase in {each.value for each in phases}


def paused_by(rollout: RolloutStatus) -> PausedBy | None:
    known = {each.value: each for each in PausedBy}
    return known.get(rollout.pause.by or "") if rollout.pause is not None else None


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
