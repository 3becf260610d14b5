"""The one-word phase of a workload (Run:ai's names) and the sentence beside it.

Creating > (pods exist) Pending > (all placed) Initializing > (ready) Running. Running stays as long as it is served.
"""

from __future__ import annotations

from enum import StrEnum

from autoscaler.model.decision import Grant, Rule, ScalingDecision
from autoscaler.model.report import Counts
from autoscaler.model.resources import GPU, ResourceVector
from autoscaler.model.workload import DesiredPhase, Mode, WorkloadSpec
from rollouts import planner
from rollouts.record import Phase as RolloutPhase
from rollouts.record import Record


class Phase(StrEnum):
    CREATING = "Creating"
    PENDING = "Pending"
    INITIALIZING = "Initializing"
    RESUMING = "Resuming"
    RUNNING = "Running"
    UPDATING = "Updating"  # nothing serves, and the update is on its way
    DEGRADED = "Degraded"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"


def phase_of(
    spec: WorkloadSpec,
    record: Record,
    counts: Counts,
    decision: ScalingDecision,
    grant: Grant,
    update: str | None = None,
    served_by_update: bool = False,
) -> tuple[Phase, str]:
    """The phase and its message. What there is to say of an update comes first; it changes the phase only where nothing
    else serves."""
    phase, message = _phase_of(spec, record, counts, decision, grant)
    if update is None:
        return phase, message
    if served_by_update and counts.ready == 0:
        return Phase.RUNNING, update
    if phase in _NOT_SERVED and record.rollout is not None and planner.runs(record.rollout) is not None:
        phase = Phase.UPDATING
    return phase, f"{update}; {message}"


def _phase_of(
    spec: WorkloadSpec, record: Record, counts: Counts, decision: ScalingDecision, grant: Grant
) -> tuple[Phase, str]:
    if spec.desired_phase is DesiredPhase.STOPPED:
        left = counts.ready + counts.starting + counts.terminating
        return (Phase.STOPPING, f"{left} replicas left") if left else (Phase.STOPPED, "stopped by desiredPhase")
    if record.phase is RolloutPhase.FAILED:
        limit = spec.initialization_timeout_s or 0
        return Phase.FAILED, f"{record.current} did not serve within {limit:.0f} s; its GPUs are released"
    if grant.desired == 0 and record.initialized:
        return Phase.RUNNING, f"at zero ({_ZERO.get(decision.rule, decision.rule.value)})"
    if counts.ready > 0:
        return Phase.RUNNING, _running(counts, decision, grant, spec)
    if grant.clipped and grant.granted == 0:
        return Phase.PENDING, shortfall(grant, spec)
    if record.served_at is not None:
        phase = Phase.DEGRADED if record.serving else Phase.RESUMING
        return phase, f"0 of {counts.applied} replicas ready, {counts.starting} starting"
    return _first_start(counts)


_NOT_SERVED = (Phase.CREATING, Phase.PENDING, Phase.INITIALIZING, Phase.RESUMING, Phase.DEGRADED)
_ZERO = {
    Rule.AT_ZERO: "wakes with the first waiting request",
    Rule.ACTIVATION_UNKNOWN: "the activation page or query says nothing",
    Rule.POLICY: "idle",
    Rule.MANUAL: "spec.replicas is 0",
}


def _first_start(counts: Counts) -> tuple[Phase, str]:
    if counts.starting == 0:
        return Phase.CREATING, "creating pods"
    if counts.unscheduled > 0:
        return Phase.PENDING, f"{counts.unscheduled} of {counts.starting} replicas not placed on a node"
    return Phase.INITIALIZING, f"0 of {counts.applied} replicas ready"


def _running(counts: Counts, decision: ScalingDecision, grant: Grant, spec: WorkloadSpec) -> str:
    parts = [f"{counts.ready} of {counts.applied} replicas ready"]
    if spec.mode is Mode.OBSERVE:
        parts.append(f"{decision.desired} wanted and not written, as mode is observe")
    elif grant.clipped:
        parts.append(shortfall(grant, spec))
    elif decision.adjustments:
        last = decision.adjustments[-1]
        parts.append(f"{last.rule.value} {last.before} -> {last.after}{f' ({last.detail})' if last.detail else ''}")
    return "; ".join(parts)


def shortfall(grant: Grant, spec: WorkloadSpec) -> str:
    """ "wants 6, has 4: 2 GPU short in project ml-team (0 of 12 free)"."""
    name = GPU if GPU in grant.short else min(grant.short, default="")
    if not name:
        why = grant.unheld or (others_unknown(spec) if grant.others_unknown else "")
        return f"wants {grant.desired}, has {grant.granted}{f': {why}' if why else ''}"
    free, limit = max(0, grant.free.get(name, 0)), grant.limit.get(name, 0)
    unit = "GPU" if name == GPU else name
    return (
        f"wants {grant.desired}, has {grant.granted}: {_units(grant.short, name)} {unit} short "
        f"in project {spec.project} ({free / 1000:g} of {limit / 1000:g} free)"
    )


def others_unknown(spec: WorkloadSpec) -> str:
    """Said in place of what is short, until the first list of them is there."""
    return f"it is not known yet what pods of others use of the quota of project {spec.project}"


def _units(vector: ResourceVector, name: str) -> str:
    return f"{vector[name] / 1000:g}"
