"""What may stand in an InferenceWorkload, with ranges and rules. The CRD is generated from here.

Names, ranges and mandatory combinations follow the Run:ai inference API. Nothing has a stored default: an unset field
takes the configuration's default, else the built-in one that its description names. The rules know the built-in
defaults only, so a workload that leans on the configuration for one half of a pair states that half itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from autoscaler.model.signal import GPU_SIGNALS, Signal
from autoscaler.model.workload import DesiredPhase, Engine, Mode, Priority, Protocol
from autoscaler.settings.autoscaling import Autoscaling
from autoscaler.settings.rollout import HttpRoute, Rollout, Traffic
from autoscaler.settings.rules import Rule, Ruled
from autoscaler.settings.scalars import DNS_1123, Count, DnsName
from autoscaler.settings.serving import Serving
from autoscaler.settings.status import WorkloadStatus

API_VERSION: Final = "tidegate.dev/v1alpha1"
NAME_MAX: Final = 39  # a StatefulSet above 52 characters cannot create pods, and a revision adds 9

NODE_POOLS_MAX: Final = 8

_OF_ENGINES: Final = [signal for signal in Signal if signal not in GPU_SIGNALS]
_SIGNALS: Final = "[" + ", ".join(f"'{signal}'" for signal in _OF_ENGINES) + "]"
_NAME: Final = rf"^[a-z]([-a-z0-9]{{0,{NAME_MAX - 2}}}[a-z0-9])?$"


class DeletionPolicy(StrEnum):
    DELETE = "Delete"
    ORPHAN = "Orphan"


class WorkloadSpec(Ruled):
    """What is wanted. Every field but serving is optional."""

    desired_phase: DesiredPhase | None = None
    """Running (default), or Stopped: all replicas gone, quota released."""
    mode: Mode | None = None
    """active (default); paused: the replica count is held, and lost pods are still replaced; observe (with targetRef):
    counts are decided and shown, and nothing is written."""
    project: Annotated[str, Field(pattern=DNS_1123, max_length=63)] | None = None
    """Owner of the quota (default: the project to which the configuration maps the namespace)."""
    priority: Priority | None = None
    """Whose replicas get scarce quota first (default very-high)."""
    node_pools: Annotated[list[DnsName], Field(min_length=1, max_length=NODE_POOLS_MAX)] | None = None
    """Node pools of the configuration, in order of preference (default: the project's). A revision is in one of them,
    its whole quota and all its pods."""
    replicas: Count | None = None
    """A fixed replica count; wins over autoscaling. Set by kubectl scale; unset (default) is automatic."""
    serving: Serving
    autoscaling: Autoscaling | None = None
    rollout: Rollout | None = None
    deletion_policy: DeletionPolicy | None = None
    """Whether the revision's object and the Service go with the workload: Delete (default) or Orphan."""
    traffic: Traffic | None = None

    @property
    def metric(self) -> str | None:
        return self.autoscaling.metric if self.autoscaling else None

    @property
    def has_target(self) -> bool:
        return self.serving.target_ref is not None

    @property
    def is_custom(self) -> bool:
        return self.serving.engine is Engine.CUSTOM

    @property
    def route(self) -> HttpRoute | None:
        return self.traffic.http_route if self.traffic else None

    @property
    def pools(self) -> str:
        return ", ".join(self.node_pools or ())

    cel_values: ClassVar[Mapping[str, str]] = {
        "metric": "self.autoscaling.metric",
        "pools": "self.nodePools.join(', ')",
        "serving__request_timeout_seconds": "self.serving.requestTimeoutSeconds",
    }
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="mode",
            says="mode observe writes nothing, so it needs an object that is there anyway; set serving.targetRef, or "
            "mode paused",
            cel="!has(self.mode) || self.mode != 'observe' || has(self.serving.targetRef)",
            holds=lambda it: it.mode is not Mode.OBSERVE or it.has_target,
        ),
        Rule(
            field="desiredPhase",
            says="desiredPhase Stopped takes all replicas away, and mode observe writes nothing; set mode active",
            cel="!has(self.mode) || self.mode != 'observe' || !has(self.desiredPhase) || "
            "self.desiredPhase != 'Stopped'",
            holds=lambda it: it.mode is not Mode.OBSERVE or it.desired_phase is not DesiredPhase.STOPPED,
        ),
        Rule(
            field="traffic.service",
            says="traffic.service is for replicas of ours; whoever made a targetRef's object routes to it: remove it",
            cel="!has(self.serving.targetRef) || !has(self.traffic) || !has(self.traffic.service)",
            holds=lambda it: not it.has_target or it.traffic is None or it.traffic.service is None,
        ),
        Rule(
            field="traffic.httpRoute",
            says="traffic.httpRoute is for replicas of ours; whoever made a targetRef's object routes to it: remove it",
            cel="!has(self.serving.targetRef) || !has(self.traffic) || !has(self.traffic.httpRoute)",
            holds=lambda it: not it.has_target or it.route is None,
        ),
        Rule(
            field="rollout",
            says="rollout is for revisions of ours, and a targetRef has none; remove it",
            cel="!has(self.serving.targetRef) || !has(self.rollout)",
            holds=lambda it: not it.has_target or it.rollout is None,
        ),
        Rule(
            field="rollout.steps",
            says="steps need a route that takes weights, and a Service's selector takes none; set traffic.httpRoute, "
            "or remove steps",
            cel="!has(self.rollout) || !has(self.rollout.steps) || size(self.rollout.steps) == 0 || "
            "has(self.serving.targetRef) || (has(self.traffic) && has(self.traffic.httpRoute))",
            holds=lambda it: it.rollout is None or not it.rollout.steps or it.has_target or it.route is not None,
        ),
        Rule(
            field="rollout.warmup",
            says="warmup is sent by HTTP, and serving.protocol is grpc; remove warmup",
            cel="!has(self.rollout) || !has(self.rollout.warmup) || !has(self.serving.protocol) || "
            "self.serving.protocol != 'grpc'",
            holds=lambda it: (
                it.rollout is None or it.rollout.warmup is None or it.serving.protocol is not Protocol.GRPC
            ),
        ),
        Rule(
            field="serving.requestTimeoutSeconds",
            says="requestTimeoutSeconds {serving__request_timeout_seconds} is kept by a route alone; set "
            "traffic.httpRoute, or remove it",
            cel="!has(self.serving.requestTimeoutSeconds) || (has(self.traffic) && has(self.traffic.httpRoute))",
            holds=lambda it: it.serving.request_timeout_seconds is None or it.route is not None,
        ),
        Rule(
            field="nodePools",
            says="nodePools {pools} has one twice; name each node pool once",
            cel="!has(self.nodePools) || self.nodePools.all(p, self.nodePools.exists_one(q, q == p))",
            holds=lambda it: it.node_pools is None or len(set(it.node_pools)) == len(it.node_pools),
        ),
        Rule(
            field="deletionPolicy",
            says="deletionPolicy is for objects of ours; the one of targetRef always stays: remove it",
            cel="!has(self.serving.targetRef) || !has(self.deletionPolicy)",
            holds=lambda it: not it.has_target or it.deletion_policy is None,
        ),
        Rule(
            field="autoscaling.initialReplicas",
            says="initialReplicas is for a first start, and the object of targetRef has a count already; remove it",
            cel="!has(self.serving.targetRef) || !has(self.autoscaling) || !has(self.autoscaling.initialReplicas)",
            holds=lambda it: not it.has_target or it.autoscaling is None or it.autoscaling.initial_replicas is None,
        ),
        Rule(
            field="autoscaling.metric",
            says="metric {metric} is read from an engine, and engine is custom; set metric to the name of a metric "
            "that the pods expose, or engine to auto",
            cel="!has(self.serving.engine) || self.serving.engine != 'custom' || !has(self.autoscaling) || "
            f"!has(self.autoscaling.metric) || !(self.autoscaling.metric in {_SIGNALS})",
            holds=lambda it: not it.is_custom or it.metric not in _OF_ENGINES,
        ),
        Rule(
            field="autoscaling.signals",
            says="signals has a metric that is read from an engine, and engine is custom; set it to the name of a "
            "metric that the pods expose, or engine to auto",
            cel="!has(self.serving.engine) || self.serving.engine != 'custom' || !has(self.autoscaling) || "
            f"!has(self.autoscaling.signals) || !self.autoscaling.signals.exists(s, s.metric in {_SIGNALS})",
            holds=lambda it: (
                not it.is_custom
                or it.autoscaling is None
                or not any(each.metric in _OF_ENGINES for each in it.autoscaling.signals or ())
            ),
        ),
        Rule(
            field="autoscaling.metric",
            says="metric is missing: with engine custom nothing else tells 0 from 1 replica; set metric to the name "
            "of a metric that the pods expose, or engine to auto",
            cel="!has(self.serving.engine) || self.serving.engine != 'custom' || !has(self.autoscaling) || "
            "has(self.autoscaling.metric) || !has(self.autoscaling.minReplicas) || self.autoscaling.minReplicas > 0",
            holds=lambda it: (
                not it.is_custom
                or it.autoscaling is None
                or it.metric is not None
                or it.autoscaling.min_replicas is None
                or it.autoscaling.min_replicas > 0
            ),
        ),
    )


class WorkloadMetadata(Ruled):
    """The metadata of the object; the API server checks all but the length of the name."""

    model_config = ConfigDict(extra="allow")

    name: str | None = None


class InferenceWorkload(Ruled):
    """One model service: how it is served, how many replicas it has, and whose GPUs it uses."""

    api_version: Literal["tidegate.dev/v1alpha1"] = API_VERSION
    kind: Literal["InferenceWorkload"] = "InferenceWorkload"
    metadata: WorkloadMetadata
    spec: WorkloadSpec
    status: WorkloadStatus | None = None

    cel_values: ClassVar[Mapping[str, str]] = {"metadata__name": "self.metadata.name"}
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="",  # the API server lets no rule point into metadata
            says=f"metadata.name {{metadata__name}} is no name of at most {NAME_MAX} characters; use a to z, 0 to 9 "
            "and -, starting with a letter and not ending in -",
            cel=f"self.metadata.name.matches('{_NAME}')",
            holds=lambda it: it.metadata.name is None or bool(re.fullmatch(_NAME, it.metadata.name)),
        ),
    )
