"""The API objects that we read, with only the fields that we use, and where they live.

Unknown fields are ignored and missing ones default, so that a newer or older API server cannot break decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

from autoscaler.model.resources import pod_demand

GROUP: Final = "tidegate.dev"
WORKLOAD_LABEL: Final = f"{GROUP}/workload"
OWNER_REVISION_LABEL: Final = f"{GROUP}/owner-revision"  # on every pod of a revision
REVISION_LABEL: Final = f"{GROUP}/revision"  # only on pods that serve; the one key that Services select by
MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "tidegate"}
FIELD_MANAGER: Final = "tidegate"
AS_OURSELVES: Final = {"fieldManager": FIELD_MANAGER}  # so that another writer of a field can be told from us
SERVICE_LABEL: Final = "kubernetes.io/service-name"  # on EndpointSlices


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind's address on the API server."""

    group_version: str
    plural: str
    kind: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """`/apis/apps/v1/namespaces/n/deployments/d/scale`, with every part escaped."""
        parts = ["/api" if self.group_version == "v1" else "/apis", self.group_version]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


WORKLOADS: Final = Resource(f"{GROUP}/v1alpha1", "inferenceworkloads", "InferenceWorkload")
QUOTA_LEDGERS: Final = Resource(f"{GROUP}/v1alpha1", "quotaledgers", "QuotaLedger")
DEPLOYMENTS: Final = Resource("apps/v1", "deployments", "Deployment")
LEADER_WORKER_SETS: Final = Resource(  # known only where LeaderWorkerSet is
    "leaderworkerset.x-k8s.io/v1", "leaderworkersets", "LeaderWorkerSet"
)
CONTROLLER_REVISIONS: Final = Resource("apps/v1", "controllerrevisions", "ControllerRevision")
PODS: Final = Resource("v1", "pods", "Pod")
NODES: Final = Resource("v1", "nodes", "Node")
SERVICES: Final = Resource("v1", "services", "Service")
LEASES: Final = Resource("coordination.k8s.io/v1", "leases", "Lease")
EVENTS: Final = Resource("events.k8s.io/v1", "events", "Event")
HORIZONTAL_POD_AUTOSCALERS: Final = Resource("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
SCALED_OBJECTS: Final = Resource("keda.sh/v1alpha1", "scaledobjects", "ScaledObject")  # known only where KEDA is

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
HTTP_ROUTES: Final = Resource(f"{GATEWAY_GROUP}/v1", "httproutes", "HTTPRoute")  # known only where the Gateway API is
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")


class Struct(msgspec.Struct, rename="camel", frozen=True, kw_only=True, gc=False):
    """Base of all decoded objects. Decoded JSON holds no reference cycles, so the search for them may skip it: the list
    of 10,000 pods takes 0.2 s instead of 0.3.
    """


class OwnerReference(Struct, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Metadata(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None  # of what is being deleted; may only be shortened
    owner_references: list[OwnerReference] | None = None


class ManagedFields(Struct, frozen=True):
    """Who last wrote some fields. They are not decoded: hardly ever is anybody asked for."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    time: str = ""
    fields_v1: msgspec.Raw = msgspec.Raw(b"{}")

    def __post_init__(self) -> None:
        # as decoded it is a view that would keep the whole answer of the server in memory
        msgspec.structs.force_setattr(self, "fields_v1", self.fields_v1.copy())


class ScalableMetadata(Metadata, frozen=True):
    managed_fields: list[ManagedFields] | None = None


class Condition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class ScalableSpec(Struct, frozen=True):
    replicas: int = 1


class ScalableStatus(Struct, frozen=True):
    observed_generation: int | None = None  # older LeaderWorkerSets do not tell it
    replicas: int = 0
    ready_replicas: int = 0


class Scalable(Struct, frozen=True):
    """The object of a revision, whatever its kind: a Deployment, or a LeaderWorkerSet, whose replicas are groups."""

    metadata: ScalableMetadata
    spec: ScalableSpec = ScalableSpec()
    status: ScalableStatus = ScalableStatus()


class ScaleStatus(Struct, frozen=True):
    selector: str = ""


class ScaleSpec(Struct, frozen=True):
    replicas: int = 0  # as the API server leaves a zero out


class Scale(Struct, frozen=True):
    """What any object with a scale tells: its count, and the selector of its pods."""

    metadata: Metadata
    spec: ScaleSpec = ScaleSpec()
    status: ScaleStatus = ScaleStatus()


class PodSpec(Struct, frozen=True):
    node_name: str | None = None
    termination_grace_period_seconds: int | None = None  # the API server fills in 30


class PodStatus(Struct, frozen=True):
    phase: str = ""
    pod_ip: str | None = msgspec.field(name="podIP", default=None)
    conditions: list[Condition] | None = None


class Pod(Struct, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def has(self, condition: str) -> bool:
        """Is this condition True?"""
        for each in self.status.conditions or ():  # any() and a generator take three times as long, for each pod
            if each.type == condition:
                return each.status == "True"
        return False


class ServicePort(Struct, frozen=True):
    port: int = 0  # where clients ask
    target_port: int | str | None = None  # where pods answer: a number, or the name of a container's port
    app_protocol: str | None = None


class ServiceSpec(Struct, frozen=True):
    selector: dict[str, str] | None = None
    ports: list[ServicePort] | None = None


class Service(Struct, frozen=True):
    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()


class ScaleTargetRef(Struct, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""


class AutoscalerSpec(Struct, frozen=True):
    scale_target_ref: ScaleTargetRef = ScaleTargetRef()


class Autoscaler(Struct, frozen=True):
    """A HorizontalPodAutoscaler or a ScaledObject: what it scales."""

    metadata: Metadata
    spec: AutoscalerSpec = AutoscalerSpec()


class EndpointConditions(Struct, frozen=True):
    ready: bool | None = None  # to be read as True


class EndpointTarget(Struct, frozen=True):
    kind: str = ""
    name: str = ""


class Endpoint(Struct, frozen=True):
    addresses: list[str] = []
    conditions: EndpointConditions = EndpointConditions()
    target_ref: EndpointTarget | None = None


class EndpointSlice(Struct, frozen=True):
    metadata: Metadata
    endpoints: list[Endpoint] | None = None


class BackendRef(Struct, frozen=True):
    group: str = ""
    kind: str = "Service"
    name: str = ""
    namespace: str | None = None
    weight: int = 1  # the Gateway API's default; the API server fills it in


class RouteTimeouts(Struct, frozen=True):
    request: str | None = None


class RouteRule(Struct, frozen=True):
    name: str | None = None
    backend_refs: list[BackendRef] | None = None
    timeouts: RouteTimeouts | None = None


class ParentReference(Struct, frozen=True):
    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    namespace: str | None = None
    name: str = ""
    section_name: str | None = None
    port: int | None = None


class RouteCondition(Condition, frozen=True):
    observed_generation: int = 0


class RouteParent(Struct, frozen=True):
    parent_ref: ParentReference = ParentReference()
    conditions: list[RouteCondition] | None = None


class RouteStatus(Struct, frozen=True):
    parents: list[RouteParent] | None = None


class RouteSpec(Struct, frozen=True):
    parent_refs: list[ParentReference] | None = None
    rules: list[RouteRule] | None = None


class HTTPRoute(Struct, frozen=True):
    metadata: ScalableMetadata
    spec: RouteSpec = RouteSpec()
    status: RouteStatus = RouteStatus()


class PricedContainer(Struct, frozen=True):
    resources: dict[str, Any] | None = None
    restart_policy: str | None = None


class PricedPodSpec(PodSpec, frozen=True):
    """With what a pod is charged for."""

    containers: list[PricedContainer] | None = None
    init_containers: list[PricedContainer] | None = None
    resources: dict[str, Any] | None = None
    overhead: dict[str, int | float | str] | None = None


class TargetPod(Pod, frozen=True):
    """A pod whose template we do not know: what it is charged is read from itself, once."""

    spec: PricedPodSpec = PricedPodSpec()
    demand: dict[str, int] = {}

    def __post_init__(self) -> None:
        try:
            demand = pod_demand(msgspec.to_builtins(self.spec))
        except ValueError:  # a quantity beyond all bounds is no reason to lose sight of the pod
            demand = {}
        msgspec.structs.force_setattr(self, "demand", demand)


class Node(Struct, frozen=True):
    """Its labels say to which node pool it belongs."""

    metadata: Metadata


class TargetObject(Struct, frozen=True):
    """Of any kind: what its spec holds is its own affair."""

    metadata: ScalableMetadata


class ControllerRevision(Struct, frozen=True):
    metadata: Metadata
    data: dict[str, Any] | None = None


class ListMetadata(Struct, frozen=True):
    resource_version: str = ""
    next: str = msgspec.field(name="continue", default="")
