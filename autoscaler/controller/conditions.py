"""Conditions of a workload: a function of what was decided, granted and seen. Reasons are HPA's and ours, frozen."""

from __future__ import annotations

from typing import Final

import msgspec

from autoscaler.controller.phases import Phase, shortfall
from autoscaler.controller.specs import Unresolved
from autoscaler.model.decision import Grant, Rule, ScalingDecision
from autoscaler.model.report import ConditionReport, Counts, Status
from autoscaler.model.signal import Direction, Quality
from autoscaler.model.workload import Mode, WorkloadSpec
from rollouts.record import Phase as RolloutPhase
from rollouts.record import Record

HELD = {
    Rule.UNTRUSTED: "no scale-down on data that is not fresh",
    Rule.WARMING_UP: "no scale-down before the windows are warm",
    Rule.LOADING: "not to zero while a pod loads",
    Rule.NOT_IDLE: "not to zero while requests are in flight",
    Rule.WAITING: "not to zero while a request waits",
    Rule.ACTIVATION_UNKNOWN: "not to zero while the activation page or query says nothing",
    Rule.NO_WAKER: "not to zero: nothing could wake it; set autoscaling.activation",
    Rule.RETENTION: "retention",
}


class Facts(msgspec.Struct, frozen=True):
    """What the conditions are made of."""

    spec: WorkloadSpec
    record: Record
    phase: Phase
    phase_message: str
    counts: Counts
    decision: ScalingDecision
    grant: Grant
    untrusted_for_s: float  # how long some ready pod has had no fresh page
    patience_s: float  # a page may be missing this long before it is worth a word
    rebuilt: bool  # the record was lost not long ago
    taking_over: bool  # a lower count waits until every object carries the new leader's epoch
    error: str | None  # why the count could not be written; worth another try
    stalled: tuple[str, str] | None  # what only a person can mend: reason and message
    update: str | None = None  # the sentence that tells of the update
    warning: str | None = None  # what the route will do to long answers


def conditions(facts: Facts) -> tuple[ConditionReport, ...]:
    """All conditions of a resolved workload, sorted by type."""
    found = [
        _ready(facts),
        _available(facts),
        _able_to_scale(facts),
        _scaling_active(facts),
        _scaling_limited(facts),
        _fallback(facts),
        _flag("Paused", facts.spec.mode is Mode.PAUSED, "Paused", "mode is paused: the count is held", "Active"),
        _flag(
            "ManualReplicas",
            facts.spec.scaling.manual_replicas is not None,
            "ReplicasSet",
            f"spec.replicas is {facts.spec.scaling.manual_replicas}: automatic scaling is off until it is removed",
            "Automatic",
        ),
        _update_pending(facts),
        _flag(
            "Unverified",
            facts.record.phase is RolloutPhase.UNVERIFIED,
            "NeverServed",
            f"{facts.record.current} became current at zero and has not served yet; {facts.record.previous} comes back "
            "if it does not come up",
            "Verified",
        ),
        _flag(
            "RecordRebuilt",
            facts.rebuilt,
            "StatusLost",
            f"the status was lost; rebuilt from its objects: {facts.record.current}, {facts.record.replicas} replicas",
            "RecordKept",
        ),
        _reconciling(facts),
        _progressing(facts),
        _stalled(facts),
        *_route_timeout(facts),
    ]
    return tuple(sorted(found, key=lambda each: each.type))


def unresolved(why: Unresolved) -> tuple[ConditionReport, ...]:
    """Conditions of a workload that cannot be worked on. Everything that runs stays as it is."""
    found = [
        ConditionReport(
            why.condition,
            Status.FALSE if why.condition in ("ScalingActive", "AbleToScale") else Status.TRUE,
            why.reason,
            why.message,
        ),
        ConditionReport("Stalled", Status.TRUE, why.reason, why.message),
    ]
    return tuple(sorted(found, key=lambda each: each.type))


def _route_timeout(facts: Facts) -> list[ConditionReport]:
    """Only where there is a route."""
    if facts.spec.route is None:
        return []
    unset = facts.warning is not None
    return [_flag("RequestTimeoutUnset", unset, "GatewayDefault", facts.warning or "", "Set")]


def _flag(kind: str, on: bool, reason: str, message: str, otherwise: str) -> ConditionReport:
    return ConditionReport(kind, Status.TRUE, reason, message) if on else ConditionReport(kind, Status.FALSE, otherwise)


def _ready(facts: Facts) -> ConditionReport:
    ready = facts.phase in (Phase.RUNNING, Phase.STOPPED)
    return ConditionReport("Ready", Status.TRUE if ready else Status.FALSE, facts.phase.value, facts.phase_message)


def _available(facts: Facts) -> ConditionReport:
    message = f"{facts.counts.ready} ready"
    if facts.counts.ready > 0:
        return ConditionReport("Available", Status.TRUE, "MinimumReplicasAvailable", message)
    return ConditionReport("Available", Status.FALSE, "NoReplicaReady", message)


def _able_to_scale(facts: Facts) -> ConditionReport:
    if facts.error is not None:
        return ConditionReport("AbleToScale", Status.FALSE, "FailedUpdateScale", facts.error)
    if facts.taking_over:
        message = "nothing is lowered until every object carries this leader's epoch and the watches have caught up"
        return ConditionReport("AbleToScale", Status.TRUE, "TakingOver", message)
    held = {Rule.UNTRUSTED, Rule.WARMING_UP, Rule.RETENTION, Rule.LOADING}
    if facts.decision.rule in held and facts.decision.adjustments:
        return ConditionReport("AbleToScale", Status.TRUE, "ScaleDownStabilized", HELD[facts.decision.rule])
    return ConditionReport("AbleToScale", Status.TRUE, "ReadyForNewScale", "the count can be written")


def _scaling_active(facts: Facts) -> ConditionReport:
    decision = facts.decision
    if facts.spec.mode is Mode.OBSERVE:
        return ConditionReport("ScalingActive", Status.FALSE, "ScalingDisabled", "mode is observe: nothing is written")
    off = {Rule.STOPPED: "stopped", Rule.MANUAL: "spec.replicas is set", Rule.PAUSED: "mode is paused"}
    if decision.rule in off:
        return ConditionReport("ScalingActive", Status.FALSE, "ScalingDisabled", off[decision.rule])
    if facts.spec.scaling.signal is None:
        return ConditionReport("ScalingActive", Status.TRUE, "ValidMetricFound", "minReplicas equals maxReplicas")
    if facts.counts.ready == 0:
        return ConditionReport("ScalingActive", Status.TRUE, "ValidMetricFound", "no replica to measure")
    bad = facts.untrusted_for_s >= facts.patience_s
    best = min((each.quality for each in decision.inputs), key=list(Quality).index, default=None)
    if bad and best is Quality.ABSENT:  # of several signals one suffices to raise; `Fallback` tells of the others
        return ConditionReport("ScalingActive", Status.FALSE, "MetricsUnavailable", _missing(facts))
    if bad and best is Quality.STALE:
        return ConditionReport("ScalingActive", Status.FALSE, "MetricsStale", _missing(facts))
    return ConditionReport("ScalingActive", Status.TRUE, "ValidMetricFound", _signal_text(decision))


def _signal_text(decision: ScalingDecision) -> str:
    return ", ".join(f"{each.name} per replica aims at {each.target:.4g}" for each in decision.inputs)


def _missing(facts: Facts) -> str:
    """ "3 of 6 pods have no fresh page with concurrency (pod-a: http 500): no scale-down until they have"."""
    may_lower = [each for each in facts.decision.inputs if each.direction is not Direction.UP]
    used = next((each for each in may_lower if each.quality is facts.decision.quality), next(iter(may_lower), None))
    fresh, expected = (used.pods_fresh, used.pods_expected) if used else (0, facts.counts.ready)
    name = used.name if used else "metrics"
    if expected == fresh:  # every pod has a first page, and nothing was drawn from them yet
        return f"no value of {name} yet: no scale-down until there is one"
    faults = f" ({'; '.join(facts.decision.faults[:3])})" if facts.decision.faults else ""
    return (
        f"{expected - fresh} of {expected} pods have no fresh page with {name}{faults}: no scale-down until they have"
    )


def _fallback(facts: Facts) -> ConditionReport:
    """True while some ready pod is not measured: the count is held or raised, never lowered."""
    if facts.untrusted_for_s >= facts.patience_s:
        return ConditionReport("Fallback", Status.TRUE, "ScaleDownHeld", _missing(facts))
    return ConditionReport("Fallback", Status.FALSE, "MetricsFresh")


def _scaling_limited(facts: Facts) -> ConditionReport:
    if facts.grant.clipped:
        reason = "QuotaUnknown" if facts.grant.others_unknown else "QuotaLimited"
        return ConditionReport("ScalingLimited", Status.TRUE, reason, shortfall(facts.grant, facts.spec))
    reasons = {Rule.MIN: "TooFewReplicas", Rule.MAX: "TooManyReplicas", Rule.CEILING: "TooManyReplicas"}
    rule = facts.decision.rule
    if rule in reasons:
        last = facts.decision.adjustments[-1] if facts.decision.adjustments else None
        wanted = f"{last.before} wanted, " if last else ""
        return ConditionReport(
            "ScalingLimited", Status.TRUE, reasons[rule], f"{wanted}{facts.decision.desired} by {rule.value}"
        )
    if rule in (Rule.NO_WAKER, Rule.ACTIVATION_UNKNOWN):
        return ConditionReport("ScalingLimited", Status.TRUE, rule.value, HELD[rule])
    return ConditionReport("ScalingLimited", Status.FALSE, "DesiredWithinRange")


def _update_pending(facts: Facts) -> ConditionReport:
    """True as long as the template asks for another revision than the current one."""
    if facts.record.update is None:
        return ConditionReport("UpdatePending", Status.FALSE, "UpToDate")
    rollout = facts.record.rollout
    reason = rollout.phase.value if rollout is not None else "Noticed"
    message = facts.update or f"the template asks for {facts.record.update}"
    return ConditionReport("UpdatePending", Status.TRUE, reason, message)


def _reconciling(facts: Facts) -> ConditionReport:
    """kstatus: the object is Reconciling while it is not yet what the spec asks for."""
    rollout = facts.record.rollout
    if rollout is not None and rollout.phase is not RolloutPhase.FAILED:
        return ConditionReport("Reconciling", Status.TRUE, rollout.phase.value, facts.update or "")
    moving = facts.phase in (Phase.CREATING, Phase.PENDING, Phase.INITIALIZING, Phase.RESUMING, Phase.STOPPING)
    return _flag("Reconciling", moving, facts.phase.value, facts.phase_message, "Settled")


_PROGRESS: Final = {
    RolloutPhase.QUEUED: "QuotaInsufficient",
    RolloutPhase.STARTING: "RevisionScaling",
    RolloutPhase.WARMING: "RevisionScaling",
    RolloutPhase.SHIFTING: "TrafficShifting",
    RolloutPhase.DRAINING: "TrafficShifting",
    RolloutPhase.PAUSED: "RolloutPaused",
}


def _progressing(facts: Facts) -> ConditionReport:
    """How far the newest revision has come, in a Deployment's words."""
    rollout = facts.record.rollout
    if facts.record.phase is RolloutPhase.FAILED:
        return ConditionReport("Progressing", Status.FALSE, "ProgressDeadlineExceeded", facts.phase_message)
    if rollout is not None:
        going, message = _PROGRESS.get(rollout.phase), facts.update or ""
        if going is not None:
            return ConditionReport("Progressing", Status.TRUE, going, message)
        why = rollout.reason.value if rollout.reason is not None else rollout.phase.value
        return ConditionReport("Progressing", Status.FALSE, why, message)
    if facts.record.served_at is not None:
        return ConditionReport("Progressing", Status.TRUE, "RevisionAvailable", f"{facts.record.current} serves")
    if facts.grant.clipped and not facts.grant.others_unknown:
        return ConditionReport("Progressing", Status.TRUE, "QuotaInsufficient", shortfall(facts.grant, facts.spec))
    return ConditionReport("Progressing", Status.TRUE, "RevisionScaling", facts.phase_message)


def _stalled(facts: Facts) -> ConditionReport:
    if facts.stalled is not None:
        return ConditionReport("Stalled", Status.TRUE, *facts.stalled)
    rollout = facts.record.rollout
    if rollout is not None and rollout.phase is RolloutPhase.FAILED and rollout.reason is not None:
        return ConditionReport("Stalled", Status.TRUE, rollout.reason.value, facts.update or "")
    return _flag(
        "Stalled",
        facts.record.phase is RolloutPhase.FAILED,
        "InitializationTimeout",
        facts.phase_message,
        "Progressing",
    )
