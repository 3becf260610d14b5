"""How a workload is updated, resolved: `spec.rollout`, `spec.nodePools` and `spec.traffic.httpRoute`."""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.cluster.inferenceworkload import HttpRoute, Rollout, RolloutStep, WarmUp
from autoscaler.model.duration import parse_duration
from autoscaler.model.rollout import (
    DEFAULT_POOL,
    RolloutSpec,
    RouteSpec,
    WarmUpSpec,
    WeightStep,
    WhenQuotaShort,
)
from autoscaler.model.workload import ScalingSpec

BUILT_IN = RolloutSpec()


def rollout_of(asked: Rollout, scaling: ScalingSpec, pools: tuple[str, ...], routed: bool) -> RolloutSpec:
    """`asked`: merged with the defaults. Raises ValueError with a sentence."""
    least, most = _bounds(scaling)
    drain = asked.drain
    return RolloutSpec(
        min_replicas=least,
        max_replicas=most,
        queue_timeout_s=_seconds(asked.queue_timeout_seconds, BUILT_IN.queue_timeout_s),
        schedule_timeout_s=_seconds(asked.schedule_timeout_seconds, BUILT_IN.schedule_timeout_s),
        progress_deadline_s=_seconds(asked.progress_deadline_seconds, BUILT_IN.progress_deadline_s),
        when_quota_short=WhenQuotaShort(asked.when_quota_short or BUILT_IN.when_quota_short),
        steps=tuple(map(_step, asked.steps or ())) if routed else (),
        warmup=_warm_up(asked.warmup),
        drain_timeout_s=_seconds(drain.timeout_seconds if drain else None, BUILT_IN.drain_timeout_s),
        drain_quiet_s=_seconds(drain.quiet_seconds if drain else None, BUILT_IN.drain_quiet_s),
        node_pools=pools,
        paused=bool(asked.paused),
        revision_history_limit=(
            BUILT_IN.revision_history_limit if asked.revision_history_limit is None else asked.revision_history_limit
        ),
    )


def _bounds(scaling: ScalingSpec) -> tuple[int, int]:
    """Within the operator's ceiling. A count set by hand is both bounds: an update has as many replicas as that."""
    least, most = scaling.min_replicas, scaling.max_replicas
    if scaling.manual_replicas is not None:
        least = most = scaling.manual_replicas
    if scaling.ceiling_replicas is not None:
        most = min(most, scaling.ceiling_replicas)
    return min(least, most), most


def _seconds(own: int | None, built_in: float) -> float:
    return built_in if own is None else float(own)


def _step(step: RolloutStep) -> WeightStep:
    try:
        pause_s = parse_duration(step.pause) if step.pause is not None else 0.0
    except ValueError:
        raise ValueError(
            f"spec.rollout.steps has pause {step.pause!r}; allowed: a duration such as 30s or 1m30s"
        ) from None
    if step.weight is None or not 1 <= step.weight <= 100:
        raise ValueError(f"spec.rollout.steps has weight {step.weight}; allowed: a whole number from 1 to 100")
    return WeightStep(step.weight, pause_s)


def _warm_up(asked: WarmUp | None) -> WarmUpSpec | None:
    if asked is None or asked.path is None:
        return None
    return WarmUpSpec(asked.path, asked.body, 1 if asked.requests is None else asked.requests)


def route_of(route: HttpRoute | None) -> RouteSpec | None:
    return RouteSpec(route.name, route.rule_name) if route is not None and route.name is not None else None


def pools_of(
    asked: list[str] | None,
    project: str,
    projects: Mapping[str, tuple[str, ...]],
    known: Mapping[str, Mapping[str, str]],
) -> tuple[str, ...]:
    """The node pools of a workload, in order of preference. Raises ValueError with a sentence.

    `projects`: those of which the configuration says where they run; nobody runs elsewhere, where no limit would bind.
    """
    own = projects.get(project)
    if not asked:
        return own or (DEFAULT_POOL,)
    allowed = own or tuple(known)
    if odd := [pool for pool in asked if pool not in allowed]:
        raise ValueError(f"spec.nodePools has {odd[0]}; allowed in project {project}: {', '.join(allowed)}")
    return tuple(asked)
