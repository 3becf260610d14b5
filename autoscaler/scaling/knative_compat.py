"""What Knative does around the KPA's number: to zero and back, activators, conditions, sampling.

Decides exactly what Knative's own reconciler decides for the same facts; whoever acts as a Knative
class carries it out. Probes nothing, waits for nothing, writes nothing: waiting comes back as seconds.

Source: Knative KPA, knative/serving @ 98e5ef9 (tests/data/kpa/README.md, "Scale to zero").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from autoscaler.scaling.knative_annotations import (
    POD_RETENTION,
    PROGRESS_DEADLINE,
    Annotations,
    Reachability,
    initial_scale,
    read_duration_ns,
    scale_bounds,
    stable_window_ns,
    target_burst_capacity,
)
from autoscaler.scaling.knative_config import KnativeConfig
from autoscaler.scaling.knative_values import NANOSECONDS

ACTIVATION_SLACK_NS: Final = 30 * NANOSECONDS  # on top of the progress deadline: its own report comes first
RECHECK_NS: Final = 3 * NANOSECONDS  # already in Proxy mode: no change of the service will wake us
ACTIVATORS_MIN: Final = 2
COUNT_LIMIT: Final = 2.0**31 - 1
SAMPLE_LIMIT: Final = 1.96 * 1.96 * 100.0 / (5.0 * 5.0)  # 95 % confidence, variance 100, margin 5


class ActiveStatus(StrEnum):
    """Status of the condition Active. The values are Kubernetes'."""

    ACTIVE = "True"
    ACTIVATING = "Unknown"
    INACTIVE = "False"


class ServiceMode(StrEnum):
    """Of the ServerlessService: with (Proxy) or without the activator in the request path."""

    PROXY = "Proxy"
    SERVE = "Serve"


class Probe(StrEnum):
    """What asking the service for the activator's answer gives."""

    OK = "ok"
    NOT_BACKED = "not_backed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Revision:
    """The part of a revision that bounds its scale."""

    annotations: Annotations
    reachability: Reachability
    initialized: bool  # its initial scale was reached once
    config: KnativeConfig


@dataclass(frozen=True, slots=True)
class ScaleTarget:
    """The facts for one attempt to scale. Durations are how long something has been so."""

    revision: Revision
    desired: int | None  # None: the autoscaler does not know yet
    active: ActiveStatus | None  # None: no condition was ever written
    active_for_s: float
    service_mode: ServiceMode
    proxy_for_s: float  # 0 when the activator is not in the path
    probe: Probe  # what a probe would answer; used only if `probed` comes back true
    current_replicas: int
    progress_deadline_s: float  # of the cluster; an annotation beats it


@dataclass(frozen=True, slots=True)
class ScaleOutcome:
    """What comes of the attempt."""

    result: int | None  # None: not known, stay as you are
    write: int | None  # replicas to write; None: write nothing
    requeue_after_s: float | None = None
    probed: bool = False
    probe_later: bool = False  # start asking in the background


def scale_target(facts: ScaleTarget) -> ScaleOutcome:
    """Bounds, then the way to zero. An unknown wish of a revision that is not activating changes nothing."""
    if facts.desired is None and not _activating(facts):
        return ScaleOutcome(None, None)
    wanted = _bounded(facts.revision, facts.desired)
    return _write(facts, wanted) if wanted else _to_zero(facts)


def _activating(facts: ScaleTarget) -> bool:
    return facts.active in (None, ActiveStatus.ACTIVATING)


def _bounded(revision: Revision, desired: int | None) -> int:
    """Minimum (or the initial scale until it was reached), then maximum; when they cross, minimum wins.

    Unknown is below every minimum, also below 0.
    """
    minimum, maximum = scale_bounds(revision.annotations, revision.reachability, revision.config)
    initial = initial_scale(revision.annotations, revision.config)
    reachable = revision.reachability is not Reachability.UNREACHABLE
    if initial > 1 and not revision.initialized and reachable:
        minimum = max(minimum, initial)
    if desired is None or desired < minimum:
        return max(minimum, 0)
    return min(desired, maximum) if maximum else desired


def _write(
    facts: ScaleTarget, replicas: int, probed: bool = False, requeue_after_s: float | None = None
) -> ScaleOutcome:
    changed = replicas if replicas != facts.current_replicas else None
    return ScaleOutcome(replicas, changed, requeue_after_s, probed)


def _to_zero(facts: ScaleTarget) -> ScaleOutcome:
    """Zero is written in two steps: first the condition turns inactive, later the replicas go."""
    config = facts.revision.config
    if not config.enable_scale_to_zero:
        return _write(facts, 1)
    if _activating(facts):
        return _give_up_activation(facts)
    if facts.active is ActiveStatus.ACTIVE:
        return _deactivate(facts)
    if target_burst_capacity(facts.revision.annotations, config) == -1:
        return _remove_last(facts, probed=False)  # the activator never leaves the path: nothing to ask
    if facts.probe is not Probe.OK:
        return ScaleOutcome(0, None, probed=True, probe_later=True)
    return _remove_last(facts, probed=True)


def _give_up_activation(facts: ScaleTarget) -> ScaleOutcome:
    """Only longer than the deadline plus slack is a failure; exactly as long is not yet."""
    annotated_ns = read_duration_ns(facts.revision.annotations, PROGRESS_DEADLINE)
    deadline_ns = _nanoseconds(facts.progress_deadline_s) if annotated_ns is None else annotated_ns
    timeout_ns = deadline_ns + ACTIVATION_SLACK_NS
    if facts.active is not None and _nanoseconds(facts.active_for_s) > timeout_ns:
        return _write(facts, 0)
    return ScaleOutcome(None, None, _seconds(timeout_ns))


def _deactivate(facts: ScaleTarget) -> ScaleOutcome:
    """After a stable window of activity: zero as the result (it marks inactive), but nothing written."""
    window_ns = stable_window_ns(facts.revision.annotations, facts.revision.config)
    rest_ns = window_ns - _nanoseconds(facts.active_for_s)
    if rest_ns > 0:
        return _write(facts, 1, requeue_after_s=_seconds(rest_ns))
    recheck = _seconds(RECHECK_NS) if facts.service_mode is ServiceMode.PROXY else None
    return ScaleOutcome(0, None, recheck)


def _remove_last(facts: ScaleTarget, probed: bool) -> ScaleOutcome:
    """The activator is in the path: wait for the retention, then for the grace period in Proxy mode."""
    retention_ns = _retention_ns(facts.revision)
    grace_ns = facts.revision.config.scale_to_zero_grace_period_ns
    inactive_ns = _nanoseconds(facts.active_for_s)
    if inactive_ns >= max(grace_ns, retention_ns):
        return _write(facts, 0, probed)
    if retention_ns > 0 and inactive_ns < retention_ns:
        return ScaleOutcome(0, None, _seconds(retention_ns - inactive_ns), probed)
    rest_ns = grace_ns - _nanoseconds(facts.proxy_for_s)
    if rest_ns <= 0:
        return _write(facts, 0, probed)
    return ScaleOutcome(0, None, _seconds(rest_ns), probed)


def _retention_ns(revision: Revision) -> int:
    if revision.reachability is Reachability.UNREACHABLE:
        return 0
    annotated = read_duration_ns(revision.annotations, POD_RETENTION)
    return revision.config.scale_to_zero_pod_retention_ns if annotated is None else annotated


def _nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def _seconds(nanoseconds: int) -> float:
    return nanoseconds / NANOSECONDS


class ActiveReason(StrEnum):
    """Reasons of the condition Active that Knative writes itself."""

    NONE = ""
    NO_TRAFFIC = "NoTraffic"
    TIMED_OUT = "TimedOut"
    QUEUED = "Queued"


class ActiveCondition(NamedTuple):
    status: ActiveStatus
    reason: str  # an ActiveReason, or what somebody else wrote


def active_condition(
    revision: Revision, active: ActiveCondition | None, want: int | None, ready: int, service_name: str
) -> tuple[ActiveCondition, bool]:
    """The condition Active and `initialized` for a wanted (None: unknown) and a ready count.

    Reaching the threshold marks the revision as initialized, but this call still goes by the old one.
    """
    minimum, _ = scale_bounds(revision.annotations, revision.reachability, revision.config)
    floor = 1 if revision.initialized else initial_scale(revision.annotations, revision.config)
    threshold = max(minimum, floor)
    initialized = revision.initialized or (ready >= threshold and service_name != "")
    before = active or ActiveCondition(ActiveStatus.ACTIVATING, ActiveReason.NONE)
    inactive = before.status is ActiveStatus.INACTIVE
    if want == 0 or threshold == 0:
        timed_out = before.status is ActiveStatus.ACTIVATING and threshold > 0
        reason = ActiveReason.TIMED_OUT if timed_out else ActiveReason.NO_TRAFFIC
        return ActiveCondition(ActiveStatus.INACTIVE, reason), initialized
    stays_inactive = want is None and inactive
    if ready < threshold:
        if stays_inactive:
            return ActiveCondition(ActiveStatus.INACTIVE, ActiveReason.NO_TRAFFIC), initialized
        return ActiveCondition(ActiveStatus.ACTIVATING, ActiveReason.QUEUED), initialized
    return before if stays_inactive else ActiveCondition(ActiveStatus.ACTIVE, ActiveReason.NONE), initialized


def service_mode(want: int | None, excess_burst_capacity: int) -> ServiceMode:
    """The activator leaves the path only when there is something to serve and room for a burst."""
    serve = want is not None and want > 0 and excess_burst_capacity >= 0
    return ServiceMode.SERVE if serve else ServiceMode.PROXY


def activator_count(ready: int, total_value: float, burst_capacity: float, activator_capacity: float) -> int:
    """Activators in the path: 100 ready × 10 + 211 wanted in reserve at 100 each is 13."""
    if burst_capacity == 0:
        return ACTIVATORS_MIN
    load = ready * total_value + max(0.0, burst_capacity)
    return max(ACTIVATORS_MIN, math.ceil(_limited(load / activator_capacity)))


def initial_excess_burst_capacity(burst_capacity: float, total_value: float, initial: int) -> int:
    """Before the first decision; cut towards zero (later ones round down): 2 × 10 - 20.5 is 0."""
    if burst_capacity in (-1, 0):
        return int(burst_capacity)
    return int(_limited(initial * total_value - burst_capacity))


def _limited(value: float) -> float:
    """Inside 32 bits: a target of "inf" is legal in Knative and must not stop us; what is no number is 0."""
    return 0.0 if math.isnan(value) else min(max(value, -COUNT_LIMIT), COUNT_LIMIT)


def must_notify(desired_before: int | None, burst_before: int, desired: int | None, burst: int) -> bool:
    """True if the reconciler has to look: another wanted count, or a burst capacity across zero."""
    return desired_before != desired or (burst_before < 0) != (burst < 0)


def sample_size(population: int) -> int:
    """Pods to scrape so that their mean speaks for all: 3 of 3, 4 of 5, 16 of a million."""
    if population <= 3:
        return max(0, population)
    return math.ceil(population * SAMPLE_LIMIT / (population + SAMPLE_LIMIT - 1))


class Stat(NamedTuple):
    """What one pod reports for a second."""

    concurrency: float
    proxied_concurrency: float
    requests: float
    proxied_requests: float


def averaged(stats: Sequence[Stat], sample: int, total: int) -> Stat:
    """The sampled pods' sum scaled to all pods: divided by `sample` first, then times `total`."""
    sums = [0.0, 0.0, 0.0, 0.0]
    for stat in stats:  # in order and not with sum(), which compensates since Python 3.12
        for index, value in enumerate(stat):
            sums[index] += value
    return Stat(*(value / sample * total for value in sums))
