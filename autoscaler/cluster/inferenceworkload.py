"""The shape of InferenceWorkload as the API server sends it, for fast decoding.

Unknown fields are ignored and nothing is checked: the CRD did that at `kubectl apply`. Absent and null both read
as None, never as a default; defaults are merged where workloads are resolved. The same fields as pydantic models,
with ranges and rules, are in `autoscaler.settings.workload`; `tests/crd/test_shapes.py` holds the two together.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from autoscaler.cluster.resources import GROUP, Metadata, Struct

VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InferenceWorkload"
PLURAL: Final = "inferenceworkloads"


class Deployment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`template` is the PodTemplateSpec as stored: the revision hash is made of it, so nothing is dropped."""

    template: dict[str, Any] | None = None


class SubGroupPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    sub_group_policy_type: str | None = None
    sub_group_size: int | None = None


class NetworkConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    subdomain_policy: str | None = None


class LeaderWorkerSet(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The templates as stored, like that of a Deployment."""

    size: int | None = None
    leader_template: dict[str, Any] | None = None
    worker_template: dict[str, Any] | None = None
    startup_policy: str | None = None
    restart_policy: str | None = None
    sub_group_policy: SubGroupPolicy | None = None
    network_config: NetworkConfig | None = None


class TargetRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    api_version: str | None = None
    kind: str | None = None
    name: str | None = None


class MetricsEndpoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    port: int | None = None
    path: str | None = None


class Serving(Struct, frozen=True, kw_only=True, omit_defaults=True):
    deployment: Deployment | None = None
    leader_worker_set: LeaderWorkerSet | None = None
    target_ref: TargetRef | None = None
    port: int | None = None
    protocol: str | None = None
    metrics: MetricsEndpoint | None = None
    engine: str | None = None
    initialization_timeout_seconds: int | None = None
    request_timeout_seconds: int | None = None


class Activation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    page: str | None = None
    metric: str | None = None
    labels: dict[str, str] | None = None
    query: str | None = None


class FurtherSignal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    metric: str | None = None
    threshold: int | str | None = None
    percentile: float | None = None
    direction: str | None = None


class Autoscaling(Struct, frozen=True, kw_only=True, omit_defaults=True):
    min_replicas: int | None = None
    max_replicas: int | None = None
    initial_replicas: int | None = None
    activation_replicas: int | None = None
    metric: str | None = None
    metric_threshold: int | str | None = None
    metric_threshold_percentage: float | None = None
    signals: list[FurtherSignal] | None = None
    scale_to_zero_retention_seconds: int | None = None
    scale_down_delay_seconds: int | None = None
    concurrency_hard_limit: int | None = None
    policy: str | None = None
    activation: Activation | None = None


class RolloutStep(Struct, frozen=True, kw_only=True, omit_defaults=True):
    weight: int | None = None
    pause: str | None = None


class WarmUp(Struct, frozen=True, kw_only=True, omit_defaults=True):
    path: str | None = None
    body: str | None = None
    requests: int | None = None


class Drain(Struct, frozen=True, kw_only=True, omit_defaults=True):
    timeout_seconds: int | None = None
    quiet_seconds: int | None = None


class Rollout(Struct, frozen=True, kw_only=True, omit_defaults=True):
    queue_timeout_seconds: int | None = None
    schedule_timeout_seconds: int | None = None
    progress_deadline_seconds: int | None = None
    when_quota_short: str | None = None
    steps: list[RolloutStep] | None = None
    warmup: WarmUp | None = None
    drain: Drain | None = None
    revision_history_limit: int | None = None
    paused: bool | None = None


class HttpRoute(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str | None = None
    rule_name: str | None = None


class Traffic(Struct, frozen=True, kw_only=True, omit_defaults=True):
    service: str | None = None
    http_route: HttpRoute | None = None


class Spec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    desired_phase: str | None = None
    mode: str | None = None
    project: str | None = None
    priority: str | None = None
    node_pools: list[str] | None = None
    replicas: int | None = None
    serving: Serving | None = None
    autoscaling: Autoscaling | None = None
    rollout: Rollout | None = None
    deletion_policy: str | None = None
    traffic: Traffic | None = None


class Counts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    desired: int | None = None
    granted: int | None = None
    applied: int | None = None
    ready: int | None = None
    starting: int | None = None
    terminating: int | None = None


class BoundsRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    least: int | None = None
    most: int | None = None


class LeavingRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    revision: str | None = None
    since: str | None = None
    served: bool | None = None
    drained: bool | None = None
    deadline_at: str | None = None


class RolloutRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    phase: str | None = None
    replicas: int | None = None
    initialized: bool | None = None
    epoch: int | None = None
    serving: bool | None = None
    started_at: str | None = None
    served_at: str | None = None
    previous: str | None = None
    pool: str | None = None
    handled: str | None = None
    bounds: BoundsRecord | None = None
    bounds_seen: BoundsRecord | None = None
    leaving: list[LeavingRecord] | None = None


class PauseRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    by: str | None = None
    since: str | None = None
    until: str | None = None
    resumes: str | None = None


class RolloutStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    revision: str | None = None
    phase: str | None = None
    reason: str | None = None
    since: str | None = None
    queued_at: str | None = None
    queue_deadline_at: str | None = None
    size: int | None = None
    pool: str | None = None
    first_pool: int | None = None
    attempts: int | None = None
    not_before: str | None = None
    overtaken: int | None = None
    head_since: str | None = None
    held_at: str | None = None
    schedule_deadline_at: str | None = None
    progress_deadline_at: str | None = None
    step: int | None = None
    weight: int | None = None
    accepted_at: str | None = None
    verified: int | None = None
    served: bool | None = None
    floor: int | None = None
    ready_at_start: int | None = None
    full: bool | None = None
    drain_deadline_at: str | None = None
    drained: bool | None = None
    home: bool | None = None
    pause: PauseRecord | None = None


class TrafficShare(Struct, frozen=True, kw_only=True, omit_defaults=True):
    revision_name: str | None = None
    percent: int | None = None


class RevisionStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str | None = None
    role: str | None = None
    replicas: int | None = None
    ready: int | None = None
    starting: int | None = None
    terminating: int | None = None
    unscheduled: int | None = None
    traffic_percent: int | None = None
    node_pool: str | None = None
    held: dict[str, int] | None = None


class QuotaStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    project: str | None = None
    node_pool: str | None = None
    gpus_limit: int | None = None
    gpus_free: int | None = None
    gpus_short: int | None = None


class SignalStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str | None = None
    value: str | None = None
    target: str | None = None
    recommended: int | None = None
    quality: str | None = None
    age_seconds: int | None = None
    pods_fresh: int | None = None
    pods_expected: int | None = None


class Condition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str | None = None
    status: str | None = None
    observed_generation: int | None = None
    last_transition_time: str | None = None
    reason: str | None = None
    message: str | None = None


class LastScale(Struct, frozen=True, kw_only=True, omit_defaults=True):
    at: str | None = None
    from_: int | None = msgspec.field(default=None, name="from")
    to: int | None = None
    reason: str | None = None


class Status(Struct, frozen=True, kw_only=True, omit_defaults=True):
    phase: str | None = None
    phase_message: str | None = None
    observed_generation: int | None = None
    url: str | None = None
    replicas: int | None = None
    selector: str | None = None
    scaling_mode: str | None = None
    counts: Counts | None = None
    current_revision: str | None = None
    update_revision: str | None = None
    collision_count: int | None = None
    record: RolloutRecord | None = None
    rollout: RolloutStatus | None = None
    rollout_message: str | None = None
    rollout_deadline_at: str | None = None
    traffic: list[TrafficShare] | None = None
    revisions: list[RevisionStatus] | None = None
    quota: QuotaStatus | None = None
    signals: list[SignalStatus] | None = None
    conditions: list[Condition] | None = None
    last_scale: LastScale | None = None
    next_eligible_at: str | None = None


class InferenceWorkload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One object. `spec` is empty rather than None where it is missing, so that readers need no extra step."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: Metadata = Metadata()
    spec: Spec = Spec()
    status: Status | None = None


def unix_seconds(instant: str) -> float:
    """RFC 3339 as Unix seconds: `unix_seconds("1970-01-01T00:01:00Z") == 60.0`. Raises ValueError."""
    return datetime.fromisoformat(instant).timestamp()
