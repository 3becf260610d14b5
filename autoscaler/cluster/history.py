"""Stored revisions that nobody needs any more: those beyond the history that a workload keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Set

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import Conflict, NotFound
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import owned
from autoscaler.cluster.resources import CONTROLLER_REVISIONS, ControllerRevision


def superfluous(
    workload: InferenceWorkload, stored: Iterable[ControllerRevision], used: Set[str], limit: int
) -> list[ControllerRevision]:
    """Of the workload's revisions that are not used, all but the `limit` youngest; the oldest first.

    `used`: names of those that a record names, that the template asks for, or that have an object or a pod.
    """
    idle = [
        each
        for each in stored
        if each.metadata.name not in used and not each.metadata.deletion_timestamp and owned(workload, each.metadata)
    ]
    idle.sort(key=lambda each: (each.metadata.creation_timestamp or "", each.metadata.name))
    return idle[: max(0, len(idle) - limit)]


async def forget(api: KubeApi, revision: ControllerRevision) -> None:
    """Deletes exactly this one; where it is gone or another one, there is nothing to do."""
    meta = revision.metadata
    body = {"preconditions": {"uid": meta.uid, "resourceVersion": meta.resource_version}}
    with contextlib.suppress(NotFound, Conflict):
        await api.call("DELETE", CONTROLLER_REVISIONS.path(meta.namespace, meta.name), body=body)
