"""What the kinds of serving share: a revision's content and its object, whose count is written through /scale.

Creates, stamps and scales the object of a revision, of whatever kind it is, and says which pods hold resources and
which serve. The adapters in `workloads` say how a kind's object looks and what a replica of it is. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from autoscaler.cluster.client import MERGE_PATCH, KubeApi
from autoscaler.cluster.errors import Conflict, NotFound, Refused
from autoscaler.cluster.fencing import EPOCH_ANNOTATION, epoch_of, stamp
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import check_owned, metadata_of
from autoscaler.cluster.resources import (
    AS_OURSELVES,
    CONTROLLER_REVISIONS,
    OWNER_REVISION_LABEL,
    REVISION_LABEL,
    WORKLOAD_LABEL,
    ControllerRevision,
    Pod,
    Resource,
    Scalable,
    Scale,
    TargetPod,
)
from rollouts.observed import ObservedRevision
from rollouts.revision import ANNOTATIONS, Revision

Content = Mapping[str, Any]  # of a revision, or one field of it
NodeLabels = Mapping[str, str]

DIGEST_ANNOTATION: Final = "tidegate.dev/digest"
NODE_POOL_ANNOTATION: Final = "tidegate.dev/node-pool"  # on a revision's object, for people: where its pods are
SCALE_TRIES: Final = 3  # a pod becoming ready changes the version under us; the count is looked at each time


@dataclass(frozen=True, slots=True)
class Kind:
    """What an adapter knows of its kind of serving."""

    field: str  # of spec.serving
    resource: Resource
    spec: Callable[[Content, Mapping[str, str], str, NodeLabels], dict[str, Any]]
    """The object's spec without its count, from the field's content, the labels of every pod, the revision, and the
    labels of the nodes that every pod is to be on."""
    observe: Callable[[str, Scalable | None, Iterable[Pod]], ObservedRevision]
    """How the replicas of the revision of that name are."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a replica of somebody else's object is."""

    selector: Callable[[str, str], str]
    """Which pods make its replicas, from the object's name and the selector that its scale tells."""
    observe: Callable[[str, Scalable | None, Iterable[Pod]], ObservedRevision]
    serves: Callable[[Pod], bool]
    """Is this pod one that answers requests?"""
    replicas: Callable[[Iterable[TargetPod]], list[list[TargetPod]]]
    """The pods by the replica that they make."""


class ScalableRevisions:
    """The driver's ports `Scale` and `Revisions` for one workload."""

    def __init__(
        self,
        api: KubeApi,
        workload: InferenceWorkload,
        orphan: bool,
        contents: Mapping[str, Content],
        kind_of: Callable[[str], Kind],
        observed: Callable[[str], Scalable | None],
        wrote: Callable[[Kind, Scalable], None],
        epoch: int,
        stamp_traffic: Callable[[], Awaitable[None]],
        pool_of: Callable[[str], str],
        node_pools: Mapping[str, NodeLabels],
    ) -> None:
        """`contents`: identity by revision name; `kind_of`: likewise; `observed`: the object of that revision as it was
        looked at; `wrote` is given what the server answered; `epoch` is the present leader's; `stamp_traffic` makes
        the objects that direct the workload's traffic carry it; `pool_of`: the node pool that a revision is created in;
        `node_pools`: the labels of their nodes."""
        self._api = api
        self._workload = workload
        self._orphan = orphan
        self._contents = contents
        self._kind_of = kind_of
        self._observed = observed
        self._wrote = wrote
        self._epoch = epoch
        self._stamp_traffic = stamp_traffic
        self._pool_of = pool_of
        self._node_pools = node_pools

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
            "data": _in_order(revision.identity),
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

    async def create(self, revision: str, replicas: int) -> None:
        namespace, kind = self._workload.metadata.namespace, self._kind_of(revision)
        content, pool = self._contents[revision], self._where(revision)
        body = render(kind, self._workload, revision, content, replicas, self._orphan, self._epoch, pool)
        try:
            await self._api.call("POST", kind.resource.path(namespace), params=AS_OURSELVES, body=body)
        except NotFound as error:
            if error.reason:  # the server says what is missing: the namespace
                raise
            raise NotFound(f"{kind.resource.kind} is not installed in this cluster", error.status) from error
        except Conflict:  # an earlier try arrived, or it is somebody else's
            there = await self._read(kind, revision)
            check_owned(self._workload, there.metadata, kind.resource.kind)

    def _where(self, revision: str) -> tuple[str, NodeLabels]:
        pool = self._pool_of(revision)
        if pool not in self._node_pools:
            raise Refused(f"node pool {pool} is not in the configuration; allowed: {', '.join(self._node_pools)}", 422)
        return pool, self._node_pools[pool]

    async def stamp(self, revision: str, epoch: int) -> None:
        """The traffic's objects first: while the revision's object is unstamped, this is asked for again, and nothing
        is lowered anywhere."""
        there, kind = self._observed(revision), self._kind_of(revision)
        if there is None:
            raise Conflict(f"{kind.resource.kind} {revision} is gone since it was looked at")
        await self._stamp_traffic()
        path = kind.resource.path(self._workload.metadata.namespace, revision)
        answer = await stamp(self._api, path, there.metadata, epoch)
        self._wrote(kind, msgspec.json.decode(answer, type=Scalable))

    async def scale(self, name: str, replicas: int, seen: int) -> None:
        there = self._observed(name)
        uid = there.metadata.uid if there is not None else ""
        namespace = self._workload.metadata.namespace
        await write_count(self._api, self._kind_of(name).resource, namespace, name, uid, replicas, seen)

    async def _read(self, kind: Kind, revision: str) -> Scalable:
        path = kind.resource.path(self._workload.metadata.namespace, revision)
        return msgspec.json.decode(await self._api.call("GET", path), type=Scalable)


async def write_count(
    api: KubeApi, resource: Resource, namespace: str, name: str, uid: str, replicas: int, seen: int
) -> None:
    """Writes the count where it still is what was seen; anything else is for the next cycle."""
    path = resource.path(namespace, name, "scale")
    for _ in range(SCALE_TRIES):
        scale = msgspec.json.decode(await api.call("GET", path), type=Scale)
        if scale.metadata.uid != uid or scale.spec.replicas != seen:
            raise Conflict(f"{resource.kind} {name} has changed since it was looked at")
        meta = {"uid": uid, "resourceVersion": scale.metadata.resource_version}
        body = {"metadata": meta, "spec": {"replicas": replicas}}
        try:
            await api.call("PATCH", path, params=AS_OURSELVES, body=body, content_type=MERGE_PATCH)
            return
        except Conflict:
            continue
    raise Conflict(f"{resource.kind} {name} changed {SCALE_TRIES} times under the write of its count")


def observe_pods(name: str, there: Scalable | None, pods: Iterable[Pod]) -> ObservedRevision:
    """How the replicas are where each is a pod."""
    live = [pod for pod in pods if is_live(pod)]
    terminating = sum(1 for pod in live if pod.metadata.deletion_timestamp)
    staying = len(live) - terminating
    ready = sum(1 for pod in live if is_ready(pod))
    return ObservedRevision(
        name=name,
        replicas=there.spec.replicas if there else None,
        ready=ready,
        starting=staying - ready,
        unscheduled=sum(1 for pod in live if not pod.metadata.deletion_timestamp and not pod.spec.node_name),
        terminating=terminating,
        epoch=epoch_of(there.metadata) if there else None,
        serving=frozenset(pod.metadata.name for pod in live if serves(pod)),
        settled=is_settled(there, live, staying, staying),
    )


def is_settled(there: Scalable | None, pods: Sequence[Pod], staying: int, seen: int) -> bool:
    """Has the controller acted on the present spec, and are the pods seen that it tells of since?

    `pods`: those that hold resources; `staying`: replicas of them that do not terminate; `seen`: as the controller's
    status counts replicas. Where the object is gone: when no pod is left.
    """
    if there is None:
        return not pods
    status = there.status
    acted = status.observed_generation in (None, there.metadata.generation)
    return acted and status.replicas == seen and staying == there.spec.replicas


def render(
    kind: Kind,
    workload: InferenceWorkload,
    revision: str,
    identity: Content,
    replicas: int,
    orphan: bool,
    epoch: int,
    pool: tuple[str, NodeLabels],
) -> dict[str, Any]:
    """The object of a revision. Its pods carry the user's labels and ours, and go to nodes of the pool.

    `pool`: its name and the labels of its nodes. Raises Refused where the template selects other nodes.
    """
    own = {WORKLOAD_LABEL: workload.metadata.name, OWNER_REVISION_LABEL: revision}
    ours = {EPOCH_ANNOTATION: str(epoch), NODE_POOL_ANNOTATION: pool[0]}
    annotations = {**identity.get(ANNOTATIONS, {}), **ours}
    try:
        spec = kind.spec(identity[kind.field], own, revision, pool[1])
    except Contradiction as error:
        raise Refused(f"spec.serving.{kind.field}: {error} as node pool {pool[0]} does", 422) from error
    return {
        "apiVersion": kind.resource.group_version,
        "kind": kind.resource.kind,
        "metadata": metadata_of(workload, revision, orphan, {OWNER_REVISION_LABEL: revision}, annotations),
        "spec": {"replicas": replicas, **spec},
    }


class Contradiction(Exception):
    """A template that selects other nodes than those of the pool."""


def pod_template(template: Content, labels: Mapping[str, str], nodes: NodeLabels) -> dict[str, Any]:
    """The pod template as it is, with these labels beside those that it has, on nodes with these labels.

    Raises Contradiction where it selects others.
    """
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    if not nodes:
        return {**template, "metadata": metadata}
    spec = dict(template.get("spec") or {})
    selected = spec.get("nodeSelector") or {}
    for key, value in nodes.items():
        if selected.get(key, value) != value:
            raise Contradiction(f"its nodeSelector asks for {key}: {selected[key]}, not for {value}")
    return {**template, "metadata": metadata, "spec": {**spec, "nodeSelector": {**selected, **nodes}}}


def _in_order(identity: Content) -> Content:
    """With sorted keys. The API server compares the content byte by byte with its own, sorted encoding whenever anybody
    changes a label of the revision, and would call the content changed."""
    ordered: Content = msgspec.json.decode(msgspec.json.encode(identity, order="sorted"))
    return ordered


def digest_of(stored: ControllerRevision) -> str:
    """The digest that a stored revision was named by; "" where somebody removed it."""
    return (stored.metadata.annotations or {}).get(DIGEST_ANNOTATION, "")


def is_live(pod: Pod) -> bool:
    """Does this pod hold its resources? Terminating ones do; finished ones do not."""
    return pod.status.phase not in ("Succeeded", "Failed")


def is_ready(pod: Pod) -> bool:
    """Ready, with an address, and not on its way out."""
    return is_live(pod) and not pod.metadata.deletion_timestamp and pod.has("Ready") and bool(pod.status.pod_ip)


def serves(pod: Pod) -> bool:
    """Ready, and one that Services select: of a group the leader alone, whatever else listens on the same port."""
    return REVISION_LABEL in (pod.metadata.labels or {}) and is_ready(pod)
