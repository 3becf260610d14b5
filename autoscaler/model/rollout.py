"""How a workload is updated: `spec.rollout`, `spec.traffic.httpRoute` and the node pools, resolved.

Seconds, percent, names; defaults are the built-in ones (design section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEFAULT_POOL: Final = "default"  # every node


class WhenQuotaShort(StrEnum):
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class WeightStep:
    weight: int  # percent, 1..100, rising from step to step
    pause_s: float = 0.0  # after this weight was proven


@dataclass(frozen=True, slots=True)
class WarmUpSpec:
    """Requests that every new replica answers before it gets traffic."""

    path: str  # starts with /
    body: str | None = None  # sent as it is, by POST; None: a GET
    requests: int = 1  # to each replica


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """The HTTPRoute that carries the weights, in the workload's namespace."""

    name: str
    rule: str | None = None  # name of the rule that is ours; None: the route has one rule


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """The workload's replica bounds, its node pools and `spec.rollout`, defaults filled in."""

    min_replicas: int = 1
    max_replicas: int = 1
    queue_timeout_s: float = 3600.0
    schedule_timeout_s: float = 300.0
    progress_deadline_s: float = 600.0
    when_quota_short: WhenQuotaShort = WhenQuotaShort.WAIT
    steps: tuple[WeightStep, ...] = ()  # without a route they are left out
    warmup: WarmUpSpec | None = None
    drain_timeout_s: float = 300.0
    drain_quiet_s: float = 5.0
    node_pools: tuple[str, ...] = (DEFAULT_POOL,)  # in order of preference
    paused: bool = False
    revision_history_limit: int = 3  # revisions kept beside those that are in use
