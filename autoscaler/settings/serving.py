"""The block `serving` of a workload: pod templates, LeaderWorkerSets, targets, and where a replica serves."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field

from autoscaler.model.workload import Engine, Protocol
from autoscaler.settings.rules import Rule, Ruled
from autoscaler.settings.scalars import (
    API_VERSION_OF_A_KIND,
    DNS_1123_SUBDOMAIN,
    KIND_NAME,
    Port,
    Positive,
)

KNATIVE: Final = "serving.knative.dev/"
REQUEST_TIMEOUT_MAX: Final = 86_400
ApiVersion = Annotated[str, Field(pattern=API_VERSION_OF_A_KIND, max_length=253)]
KindName = Annotated[str, Field(pattern=KIND_NAME, max_length=63)]
ObjectName = Annotated[str, Field(pattern=DNS_1123_SUBDOMAIN, max_length=253)]
PagePath = Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=253)]
RequestTimeout = Annotated[int, Field(strict=True, ge=1, le=REQUEST_TIMEOUT_MAX)]

_RESERVED: Final = "tidegate.dev/"


class TemplateMetadata(Ruled):
    """Labels and annotations of the pods."""

    model_config = ConfigDict(extra="allow")

    labels: Annotated[dict[str, str], Field(max_length=64)] | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="labels",
            says="labels under tidegate.dev/ decide which pods get traffic and are set by Tidegate alone; remove them",
            cel=f"!has(self.labels) || !self.labels.exists(k, k.startsWith('{_RESERVED}'))",
            holds=lambda it: not any(key.startswith(_RESERVED) for key in it.labels or ()),
        ),
    )


class TemplateSpec(Ruled):
    """A PodSpec. Checked by the API server when the pods are rendered."""

    model_config = ConfigDict(extra="allow")

    containers: list[dict[str, Any]] | None = None
    restart_policy: str | None = None

    cel_values: ClassVar[Mapping[str, str]] = {"restart_policy": "self.restartPolicy"}
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="containers",
            says="containers is missing or empty; list at least the container of the model server",
            cel="has(self.containers) && size(self.containers) > 0",
            holds=lambda it: bool(it.containers),
        ),
        Rule(
            field="restartPolicy",
            says="restartPolicy {restart_policy} does not fit replicas that are kept running; set Always or remove it",
            cel="!has(self.restartPolicy) || self.restartPolicy == 'Always'",
            holds=lambda it: it.restart_policy in (None, "Always"),
        ),
    )


class PodTemplate(Ruled):
    """A PodTemplateSpec, kept as written."""

    model_config = ConfigDict(extra="allow")

    metadata: TemplateMetadata | None = None
    spec: TemplateSpec


class Deployment(Ruled):
    """Every replica is one pod of a Deployment."""

    template: PodTemplate


class StartupPolicy(StrEnum):
    LEADER_CREATED = "LeaderCreated"
    LEADER_READY = "LeaderReady"


class RestartPolicy(StrEnum):
    RECREATE_GROUP_ON_POD_RESTART = "RecreateGroupOnPodRestart"
    RECREATE_GROUP_AFTER_START = "RecreateGroupAfterStart"
    NONE = "None"


class SubGroupPolicyType(StrEnum):
    LEADER_WORKER = "LeaderWorker"
    LEADER_EXCLUDED = "LeaderExcluded"


class SubdomainPolicy(StrEnum):
    SHARED = "Shared"
    UNIQUE_PER_REPLICA = "UniquePerReplica"


class SubGroupPolicy(Ruled):
    """Groups within a group, which are placed together."""

    sub_group_policy_type: SubGroupPolicyType | None = None
    """LeaderWorker: the leader is in the first sub-group; LeaderExcluded: it is in none (default LeaderWorker)."""
    sub_group_size: Positive
    """Pods of a sub-group."""


class NetworkConfig(Ruled):
    """How the pods of a group find each other."""

    subdomain_policy: SubdomainPolicy
    """Shared: one headless Service for all groups; UniquePerReplica: one for each."""


class LeaderWorkerSet(Ruled):
    """Every replica is a group of pods of a LeaderWorkerSet: a leader, which serves, and its workers. The workload's
    annotations under leaderworkerset.sigs.k8s.io/ are set on it too, e.g. exclusive-topology."""

    size: Positive
    """Pods of a group, the leader included."""
    leader_template: PodTemplate | None = None
    """The leader (default: as the workers)."""
    worker_template: PodTemplate
    startup_policy: StartupPolicy | None = None
    """Whether workers are created with the leader or once it is ready (default of LeaderWorkerSet: LeaderCreated)."""
    restart_policy: RestartPolicy | None = None
    """What a restart in one pod does to its group (default of LeaderWorkerSet: RecreateGroupOnPodRestart)."""
    sub_group_policy: SubGroupPolicy | None = None
    network_config: NetworkConfig | None = None

    @property
    def splits(self) -> bool:
        """Do the sub-groups come out even, as LeaderWorkerSet's own webhook demands?"""
        policy = self.sub_group_policy
        if policy is None:
            return True
        whole = self.size % policy.sub_group_size == 0
        excluded = policy.sub_group_policy_type is SubGroupPolicyType.LEADER_EXCLUDED
        return policy.sub_group_size <= self.size and (
            (self.size - 1) % policy.sub_group_size == 0 or (whole and not excluded)
        )

    cel_values: ClassVar[Mapping[str, str]] = {
        "sub_group_policy__sub_group_size": "self.subGroupPolicy.subGroupSize",
        "size": "self.size",
    }
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="subGroupPolicy.subGroupSize",
            says="subGroupSize {sub_group_policy__sub_group_size} does not split a group of size {size}; set a number "
            "that divides size - 1, or size where the leader is in the first sub-group",
            cel="!has(self.subGroupPolicy) || (self.subGroupPolicy.subGroupSize <= self.size && "
            "((self.size - 1) % self.subGroupPolicy.subGroupSize == 0 || "
            "(self.size % self.subGroupPolicy.subGroupSize == 0 && "
            "(!has(self.subGroupPolicy.subGroupPolicyType) || "
            "self.subGroupPolicy.subGroupPolicyType != 'LeaderExcluded'))))",
            holds=lambda it: it.splits,
        ),
    )


class TargetRef(Ruled):
    """An object in the workload's namespace that somebody else made and keeps, of a kind that has a scale. Its count is
    written and nothing else of it; it stays when the workload is deleted."""

    api_version: ApiVersion
    """Group and version, e.g. apps/v1."""
    kind: KindName
    """One that the operator allows: the configuration's targetKinds (Deployment, StatefulSet and LeaderWorkerSet by
    default)."""
    name: ObjectName

    cel_values: ClassVar[Mapping[str, str]] = {"kind": "self.kind"}
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="kind",
            says="kind {kind} is Knative's, which scales its revisions itself, and two that write one count never "
            "agree; set autoscaling.knative.dev/min-scale, max-scale, metric and target on the Knative Service, or "
            "move its pod template to serving.deployment",
            cel=f"!self.apiVersion.startsWith('{KNATIVE}')",
            holds=lambda it: not it.api_version.startswith(KNATIVE),
        ),
    )


class MetricsEndpoint(Ruled):
    """Where a pod shows its metrics."""

    port: Port | None = None
    """Port of the metrics page (default: the serving port; 8002 with engine triton)."""
    path: PagePath | None = None
    """Path of the metrics page (default /metrics; /v1/metrics with engine nim, /prometheus/metrics with
    tensorrt-llm)."""


class Serving(Ruled):
    """How the model is served. Exactly one kind: deployment, leaderWorkerSet or targetRef."""

    deployment: Deployment | None = None
    leader_worker_set: LeaderWorkerSet | None = None
    target_ref: TargetRef | None = None
    port: Port
    """Port on which the pods serve."""
    protocol: Protocol | None = None
    """http or grpc (default http)."""
    metrics: MetricsEndpoint | None = None
    engine: Engine | None = None
    """Whose metrics the pods show (default auto: recognised from the page). With custom, autoscaling names a metric
    of the pods."""
    initialization_timeout_seconds: Positive | None = None
    """The first revision has failed, and its GPUs are released, unless it is ready within this time (default: no
    limit)."""
    request_timeout_seconds: RequestTimeout | None = None
    """How long one request may take, as written to the rule of traffic.httpRoute (default: as that rule says)."""

    @property
    def kinds(self) -> int:
        return sum(each is not None for each in (self.deployment, self.leader_worker_set, self.target_ref))

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="deployment",
            says="serving has no kind; set deployment, leaderWorkerSet or targetRef",
            cel="has(self.deployment) || has(self.leaderWorkerSet) || has(self.targetRef)",
            holds=lambda it: it.kinds > 0,
        ),
        Rule(
            field="leaderWorkerSet",
            says="serving has two kinds; keep one of deployment, leaderWorkerSet and targetRef",
            cel="[has(self.deployment), has(self.leaderWorkerSet), has(self.targetRef)].filter(x, x).size() < 2",
            holds=lambda it: it.kinds < 2,
        ),
        Rule(
            field="initializationTimeoutSeconds",
            says="initializationTimeoutSeconds is for a first revision, and a targetRef has none; remove it",
            cel="!has(self.targetRef) || !has(self.initializationTimeoutSeconds)",
            holds=lambda it: it.target_ref is None or it.initialization_timeout_seconds is None,
        ),
    )
