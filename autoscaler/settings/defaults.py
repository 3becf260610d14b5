"""The configuration's block `defaults`: what a workload gets where it says nothing."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from autoscaler.model.rollout import WhenQuotaShort
from autoscaler.model.workload import Engine, Mode, Priority, Protocol
from autoscaler.settings.autoscaling import METRIC, Autoscaling, Policy
from autoscaler.settings.rollout import (
    STEPS_MAX,
    Clock,
    DrainTimeout,
    HistoryLimit,
    Rollout,
    RolloutStep,
    WarmUp,
)
from autoscaler.settings.rules import SHAPE_ONLY, broken_rules
from autoscaler.settings.scalars import Count, Percent, Port, Positive, Seconds, Threshold
from autoscaler.settings.section import Section
from autoscaler.settings.serving import PagePath, RequestTimeout
from autoscaler.settings.workload import DeletionPolicy


class MetricsDefaults(Section):
    port: Port | None = None
    """null is the serving port."""
    path: PagePath | None = None
    """null is the path of the engine."""


class ServingDefaults(Section):
    protocol: Protocol = Protocol.HTTP
    metrics: MetricsDefaults = MetricsDefaults()
    engine: Engine = Engine.AUTO
    initialization_timeout_seconds: Positive | None = None
    """null is no limit."""
    request_timeout_seconds: RequestTimeout | None = None
    """Of workloads with traffic.httpRoute; null is as the route says."""


_RULES_FOR_DEFAULTS: Final = frozenset({"maxReplicas", "metric", "metricThreshold"})


class AutoscalingDefaults(Section):
    """As in the workload; what is null here follows from the other numbers as described there."""

    min_replicas: Count = 1
    max_replicas: Positive | None = None
    initial_replicas: Count | None = None
    activation_replicas: Positive | None = None
    metric: Annotated[str, Field(pattern=METRIC, max_length=128)] | None = None
    metric_threshold: Threshold | None = None
    metric_threshold_percentage: Percent = 70.0
    scale_to_zero_retention_seconds: Seconds = 0
    scale_down_delay_seconds: Seconds = 0
    policy: Policy = Policy.KPA

    @model_validator(mode="after")
    def _keeps_the_rules_of_workloads(self) -> Self:
        """What the operator wrote must be a range with a metric. The other rules depend on the workload."""
        written = self.model_dump(by_alias=True, exclude_unset=True)
        refusals = Autoscaling.model_validate(written, context=SHAPE_ONLY).refusals()
        if broken := [refusal for refusal in refusals if refusal.field in _RULES_FOR_DEFAULTS]:
            raise broken_rules(broken)
        return self


class DrainDefaults(Section):
    timeout_seconds: DrainTimeout = 300
    quiet_seconds: Seconds = 5


class RolloutDefaults(Section):
    """As in the workload."""

    queue_timeout_seconds: Clock = 3600
    schedule_timeout_seconds: Clock = 300
    progress_deadline_seconds: Clock = 600
    when_quota_short: WhenQuotaShort = WhenQuotaShort.WAIT
    steps: Annotated[tuple[RolloutStep, ...], Field(max_length=STEPS_MAX)] = ()
    """Of workloads with traffic.httpRoute; the others switch at once."""
    warmup: WarmUp | None = None
    """Of workloads with protocol http; null is none."""
    drain: DrainDefaults = DrainDefaults()
    revision_history_limit: HistoryLimit = 3
    paused: Annotated[bool, Field(strict=True)] = False
    """true holds every update that says nothing else, as in a freeze."""

    @model_validator(mode="after")
    def _keeps_the_rules_of_workloads(self) -> Self:
        written = {"steps": [step.model_dump(by_alias=True) for step in self.steps]}
        if broken := Rollout.model_validate(written, context=SHAPE_ONLY).refusals():
            raise broken_rules(broken)
        return self


class Defaults(Section):
    """What a workload gets where it says nothing. Same names and places as in its spec."""

    mode: Literal[Mode.ACTIVE, Mode.PAUSED] = Mode.ACTIVE
    priority: Priority = Priority.VERY_HIGH
    serving: ServingDefaults = ServingDefaults()
    autoscaling: AutoscalingDefaults = AutoscalingDefaults()
    rollout: RolloutDefaults = RolloutDefaults()
    deletion_policy: DeletionPolicy = DeletionPolicy.DELETE
