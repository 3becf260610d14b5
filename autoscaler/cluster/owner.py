"""What marks an object as ours: labels, and the owner reference that deletes it with its workload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoscaler.cluster.errors import Foreign
from autoscaler.cluster.inferenceworkload import API_VERSION, KIND, InferenceWorkload
from autoscaler.cluster.resources import MANAGED_BY, WORKLOAD_LABEL, Metadata


def owner_labels(workload: str) -> dict[str, str]:
    """Labels of every object that we create for a workload."""
    return {**MANAGED_BY, WORKLOAD_LABEL: workload}


def metadata_of(
    workload: InferenceWorkload,
    name: str,
    orphan: bool,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Metadata of an object of this workload. `orphan` (deletionPolicy) leaves the owner reference out."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": workload.metadata.namespace,
        "labels": {**owner_labels(workload.metadata.name), **(labels or {})},
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    if not orphan:
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": workload.metadata.name,
                "uid": workload.metadata.uid,
                "controller": True,
            }
        ]
    return metadata


def owned(workload: InferenceWorkload, there: Metadata) -> bool:
    """Is this object ours? By owner reference; an orphan by its labels."""
    owners = there.owner_references or []
    if any(owner.controller for owner in owners):
        return any(owner.uid == workload.metadata.uid for owner in owners)
    ours = owner_labels(workload.metadata.name)
    return all((there.labels or {}).get(key) == value for key, value in ours.items())


def check_owned(workload: InferenceWorkload, there: Metadata, kind: str) -> None:
    """Raises Foreign where the object belongs to somebody else."""
    if not owned(workload, there):
        raise Foreign(f"{kind} {there.name} exists and is not ours: rename it or the workload")
