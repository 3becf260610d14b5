"""Kind `deployment`: a replica is a pod, a revision's object is a Deployment.

Renders the object of a revision, writes its count, and reads how its replicas are. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from autoscaler.cluster.client import MERGE_PATCH, KubeApi
from autoscaler.cluster.errors import Conflict
from autoscaler.cluster.fencing import EPOCH_ANNOTATION, epoch_of
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import check_owned, metadata_of
from autoscaler.cluster.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    FIELD_MANAGER,
    OWNER_REVISION_LABEL,
    REVISION_LABEL,
    WORKLOAD_LABEL,
    ControllerRevision,
    Deployment,
    Metadata,
    Pod,
)
from rollouts.machine import ObservedRevision
from rollouts.revision import Revision

DIGEST_ANNOTATION: Final = "tidegate.dev/digest"
AS_OURSELVES: Final = {"fieldManager": FIELD_MANAGER}  # so that another writer of the count can be told from us
SCALE_TRIES: Final = 3  # a pod becoming ready changes the version under us; the count is looked at each time


class _Scale(msgspec.Struct):
    metadata: Metadata
    spec: dict[str, int] = {}


class DeploymentRevisions:
    """The driver's port `Revisions` for one workload."""

    def __init__(
        self,
        api: KubeApi,
        workload: InferenceWorkload,
        orphan: bool,
        contents: Mapping[str, Mapping[str, Any]],
        observed: Callable[[str], Deployment | None],
        wrote: Callable[[Deployment], None],
        epoch: int,
    ) -> None:
        """`contents`: identity by revision name; `observed`: the Deployment of that name as it was looked at;
        `wrote` is given what the server answered; `epoch` is the present leader's."""
        self._api = api
        self._workload = workload
        self._orphan = orphan
        self._contents = contents
        self._observed = observed
        self._wrote = wrote
        self._epoch = epoch

    async def save(self, revision: Revision) -> None:
        body = {
            "apiVersion": CONTROLLER_REVISIONS.group_version,
            "kind": CONTROLLER_REVISIONS.kind,
            "metadata": metadata_of(
                self._workload,
                revision.name,
                self._orphan,
                labels={OWNER_REVISION_LABEL: revision.name},
                annotations={DIGEST_ANNOTATION: revision.digest},
            ),
            "data": revision.identity,
            "revision": 1,
        }
        path = CONTROLLER_REVISIONS.path(self._workload.metadata.namespace)
        try:
            await self._api.call("POST", path, body=body)
        except Conflict:
            await self._expect_same(revision)

    async def _expect_same(self, revision: Revision) -> None:
        path = CONTROLLER_REVISIONS.path(self._workload.metadata.namespace, revision.name)
        there = msgspec.json.decode(await self._api.call("GET", path), type=ControllerRevision)
        check_owned(self._workload, there.metadata, "ControllerRevision")
        if digest_of(there) != revision.digest:
            raise Conflict(f"ControllerRevision {revision.name} holds another content")

    async def have_replicas(self, revision: str, replicas: int, seen: int | None) -> None:
        if seen is None:
            await self._create(revision, replicas)
        else:
            await self._scale(revision, replicas, seen)

    async def _create(self, revision: str, replicas: int) -> None:
        namespace = self._workload.metadata.namespace
        body = render(self._workload, revision, self._contents[revision], replicas, self._orphan, self._epoch)
        try:
            await self._api.call("POST", DEPLOYMENTS.path(namespace), params=AS_OURSELVES, body=body)
        except Conflict:  # an earlier try arrived, or it is somebody else's
            path = DEPLOYMENTS.path(namespace, revision)
            there = msgspec.json.decode(await self._api.call("GET", path), type=Deployment)
            check_owned(self._workload, there.metadata, "Deployment")

    async def stamp(self, revision: str, epoch: int) -> None:
        """Tried again where a pod's change was quicker; only the uid must be what was looked at."""
        there = self._observed(revision)
        if there is None:
            raise Conflict(f"Deployment {revision} is gone since it was looked at")
        uid = there.metadata.uid
        path = DEPLOYMENTS.path(self._workload.metadata.namespace, revision)
        for _ in range(SCALE_TRIES):
            meta = {"uid": uid, "resourceVersion": there.metadata.resource_version}
            body = {"metadata": {**meta, "annotations": {EPOCH_ANNOTATION: str(epoch)}}}
            try:
                answer = await self._patch(path, body)
            except Conflict:
                there = msgspec.json.decode(await self._api.call("GET", path), type=Deployment)
                if (epoch_of(there.metadata) or 0) > epoch:
                    raise
                continue
            self._wrote(msgspec.json.decode(answer, type=Deployment))
            return
        raise Conflict(f"Deployment {revision} changed {SCALE_TRIES} times under its stamp")

    async def _scale(self, revision: str, replicas: int, seen: int) -> None:
        """Writes the count where it still is what was seen; anything else is for the next cycle."""
        path = DEPLOYMENTS.path(self._workload.metadata.namespace, revision, "scale")
        there = self._observed(revision)
        for _ in range(SCALE_TRIES):
            scale = msgspec.json.decode(await self._api.call("GET", path), type=_Scale)
            if there is None or scale.metadata.uid != there.metadata.uid or scale.spec.get("replicas", 0) != seen:
                raise Conflict(f"Deployment {revision} has changed since it was looked at")
            meta = {"uid": scale.metadata.uid, "resourceVersion": scale.metadata.resource_version}
            try:
                body = {"metadata": meta, "spec": {"replicas": replicas}}
                await self._patch(path, body)
                return
            except Conflict:
                continue
        raise Conflict(f"Deployment {revision} changed {SCALE_TRIES} times under the write of its count")

    async def _patch(self, path: str, body: Mapping[str, Any]) -> bytes:
        return await self._api.call("PATCH", path, params=AS_OURSELVES, body=body, content_type=MERGE_PATCH)


def render(
    workload: InferenceWorkload, revision: str, identity: Mapping[str, Any], replicas: int, orphan: bool, epoch: int
) -> dict[str, Any]:
    """The Deployment of a revision. Its pods carry the user's labels and ours."""
    template = dict(identity["deployment"]["template"])
    own = {WORKLOAD_LABEL: workload.metadata.name, OWNER_REVISION_LABEL: revision}
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **own, REVISION_LABEL: revision}
    template["metadata"] = metadata
    labels, annotations = {OWNER_REVISION_LABEL: revision}, {EPOCH_ANNOTATION: str(epoch)}
    return {
        "apiVersion": DEPLOYMENTS.group_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": metadata_of(workload, revision, orphan, labels, annotations),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,  # a revision's template never changes
            "selector": {"matchLabels": own},
            "template": template,
        },
    }


def digest_of(stored: ControllerRevision) -> str:
    """The digest that a stored revision was named by; "" where somebody removed it."""
    return (stored.metadata.annotations or {}).get(DIGEST_ANNOTATION, "")


def is_live(pod: Pod) -> bool:
    """Does this pod hold its resources? Terminating ones do; finished ones do not."""
    return pod.status.phase not in ("Succeeded", "Failed")


def observe(name: str, deployment: Deployment | None, pods: Iterable[Pod]) -> ObservedRevision:
    """How the replicas of a revision are."""
    live = [pod for pod in pods if is_live(pod)]
    terminating = sum(1 for pod in live if pod.metadata.deletion_timestamp)
    ready = sum(1 for pod in live if serves(pod))
    return ObservedRevision(
        name=name,
        replicas=deployment.spec.replicas if deployment else None,
        ready=ready,
        starting=len(live) - terminating - ready,
        unscheduled=sum(1 for pod in live if not pod.metadata.deletion_timestamp and not pod.spec.node_name),
        terminating=terminating,
        epoch=epoch_of(deployment.metadata) if deployment else None,
    )


def serves(pod: Pod) -> bool:
    """Ready, with an address, and not on its way out."""
    return is_live(pod) and not pod.metadata.deletion_timestamp and pod.has("Ready") and bool(pod.status.pod_ip)
