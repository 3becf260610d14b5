"""The last part of a cycle: one frozen report, from which everything that is told is made."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.status import conditions_of
from autoscaler.cluster.traffic.gatewayapi import Unusable
from autoscaler.controller import updates
from autoscaler.controller.conditions import Facts, conditions, unresolved
from autoscaler.controller.events import Conditions, events
from autoscaler.controller.phases import others_unknown, phase_of
from autoscaler.controller.specs import Operator, Unresolved
from autoscaler.controller.subject import Snapshot, Subject, key_of
from autoscaler.model.decision import Grant, Rule, ScalingDecision
from autoscaler.model.foreign import Measure
from autoscaler.model.quota import Domain
from autoscaler.model.report import (
    ConditionReport,
    Counts,
    CycleReport,
    EventReport,
    QuotaReport,
    Status,
    WorkloadReport,
)
from autoscaler.model.resources import ResourceVector
from autoscaler.model.workload import DesiredPhase, Mode, WorkloadKey, WorkloadSpec
from rollouts.commands import HaveReplicas
from rollouts.invariants import Broken
from rollouts.machine import Reason
from rollouts.record import Phase, Record

UPDATES_EVERY_S: Final = 1.0  # between two looks at an update


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a step could not be carried out, and the condition that says so."""

    condition: str
    message: str
    outage: bool = False  # the server's own, which is told once for all where its copies are kept
    reason: str = "Refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one workload's step."""

    workload: InferenceWorkload  # as last answered by the server
    record: Record
    scaled: HaveReplicas | None = None  # the count that was written
    reasons: tuple[Reason, ...] = ()
    trouble: Trouble | None = None
    before: Record | None = None  # the record that this one replaced; None: nothing was saved

    def after(self, before: Outcome) -> Outcome:
        """Both as one: two steps of one workload may end within a cycle, and each has something to tell."""
        scaled = self.scaled or before.scaled
        if self.scaled is not None and before.scaled is not None:
            scaled = replace(self.scaled, seen=before.scaled.seen)
        saved = before.before if before.before is not None else self.before
        return replace(self, scaled=scaled, reasons=(*before.reasons, *self.reasons), before=saved)


@dataclass(frozen=True, slots=True)
class Before:
    """What this process last told; what it did not tell, the status may know."""

    conditions: Mapping[WorkloadKey, Conditions]
    desired: Mapping[WorkloadKey, int]

    def desired_of(self, subject: Subject) -> int | None:
        status = subject.workload.status
        stored = status.counts.desired if status and status.counts else None
        return self.desired.get(subject.key, stored)


@dataclass(frozen=True, slots=True)
class Known:
    """What a cycle knows of the workloads besides what it saw, decided and did."""

    untrusted_for_s: Mapping[WorkloadKey, float]
    rebuilt: Set[WorkloadKey]  # whose record was lost not long ago
    waiting: Mapping[WorkloadKey, str]  # what an update waits for
    used: Mapping[Domain, ResourceVector]  # of each limited quota, what is held and what others have; absent: unknown
    frozen: Mapping[WorkloadKey, Broken]  # whose step would have broken an invariant
    untrue: Mapping[WorkloadKey, Broken]  # of whom one is broken as things are


def compose(
    seen: Snapshot,
    decisions: Mapping[WorkloadKey, ScalingDecision],
    grants: Mapping[WorkloadKey, Grant],
    outcomes: Mapping[WorkloadKey, Outcome],
    known: Known,
    told: Before,
    operator: Operator,
) -> CycleReport:
    """The frozen report of a cycle."""
    reports = {
        subject.key: _workload_report(
            subject,
            decisions[subject.key],
            grants[subject.key],
            outcomes[subject.key],
            known,
            seen.patience_s,
            told.conditions.get(subject.key) or conditions_of(subject.workload),
            told.desired_of(subject),
            operator,
        )
        for subject in seen.subjects
    }
    reports |= {
        report.key: report for report in (_unresolved_report(*each, told.conditions) for each in seen.unresolved)
    }
    return CycleReport(seen.at_s, workloads=reports, quota=_quota(known.used, operator.limits))


def again_in_s(seen: Snapshot, outcomes: Mapping[WorkloadKey, Outcome], now: float) -> float | None:
    """When to look again though nothing pokes: at once where an update's step was done, as the next one may follow;
    else when one of its clocks runs out, and at least every UPDATES_EVERY_S: pages and ledgers poke nobody. None: no
    update asks for it."""
    changing = [each.key for each in seen.subjects if each.changing or outcomes[each.key].before is not None]
    if not changing:
        return None
    if any(outcomes[key].before is not None for key in changing):
        return 0.0
    instants = (at for key in changing for at in updates.next_instants(outcomes[key].record))
    return max(0.0, min([UPDATES_EVERY_S, *(at - now for at in instants if at > now)]))


def _workload_report(
    subject: Subject,
    decision: ScalingDecision,
    grant: Grant,
    outcome: Outcome,
    known: Known,
    patience_s: float,
    before: Conditions,
    desired_before: int | None,
    operator: Operator,
) -> WorkloadReport:
    spec, counts, record = subject.spec, _counts(subject, decision, grant, outcome), outcome.record
    update = updates.message(subject, record, _waiting(subject, record, known, operator))
    phase, message = phase_of(spec, record, counts, decision, grant, update, updates.serves(subject, record))
    trouble = outcome.trouble or _trouble(subject, known.frozen.get(subject.key))
    transient = trouble is not None and trouble.condition == "AbleToScale"
    facts = Facts(
        spec=spec,
        record=outcome.record,
        phase=phase,
        phase_message=message,
        counts=counts,
        decision=decision,
        grant=grant,
        untrusted_for_s=known.untrusted_for_s.get(subject.key, 0.0),
        patience_s=patience_s,
        rebuilt=subject.key in known.rebuilt,
        update=update,
        warning=subject.traffic.warning,
        taking_over=Reason.TAKING_OVER in outcome.reasons,
        error=trouble.message if trouble is not None and transient else None,
        stalled=(trouble.condition, trouble.message) if trouble is not None and not transient else None,
    )
    found = (*conditions(facts), *_refusals(trouble, before), *_untrue(known.untrue.get(subject.key), before))
    start = outcome.scaled.seen if outcome.scaled else None
    report = WorkloadReport(
        key=subject.key,
        phase=phase.value,
        phase_message=message,
        scaling_mode=_mode(spec),
        conditions=found,
        counts=counts,
        revision=outcome.record.current,
        update=outcome.record.update,
        selector=subject.selector,
        spec=spec,
        decision=decision,
        grant=grant,
        scaled=(start, outcome.scaled.replicas) if outcome.scaled and start is not None else None,
        error=trouble.message if trouble else None,
        measures=_measures(subject) if operator.republish else {},
        updating=updates.summary(subject, outcome.before, record, update),
        revisions=updates.status(subject, record, update, operator.limits),
        service_port=subject.traffic.port,
    )
    told = _events(subject, outcome, report, before, desired_before)
    return msgspec.structs.replace(report, events=told) if told else report


def _events(
    subject: Subject, outcome: Outcome, report: WorkloadReport, before: Conditions, desired_before: int | None
) -> tuple[EventReport, ...]:
    """What happened in this cycle, the most particular first."""
    decision, record = report.decision, outcome.record
    assert decision is not None
    found = events(before, report, reason_text(decision))
    if subject.spec.mode is Mode.OBSERVE and desired_before != decision.desired:
        note = f"recommends {decision.desired}, {report.counts.applied} are there; reason: {reason_text(decision)}"
        found = (EventReport("RecommendationChanged", note), *found)
    if Reason.REVISION_CREATED in outcome.reasons:
        found = (EventReport("RevisionCreated", f"revision {record.current}"), *found)
    if outcome.before is not None:
        found = (*updates.events(outcome.before, record, report.updating.message), *found)
    if Reason.VERB_IGNORED in outcome.reasons:
        verb = subject.verb
        note = verb.problem if verb is not None and verb.problem else f"{record.handled!r} has nothing to act on"
        found = (EventReport("VerbIgnored", note, warning=True), *found)
    return found


def _waiting(subject: Subject, record: Record, known: Known, operator: Operator) -> str | None:
    """What the update waits for. One that is queued is not asked for while the quota of its project is not known."""
    queued = record.rollout is not None and record.rollout.phase is Phase.QUEUED
    unknown = {project for project, _ in operator.limits.keys() - known.used.keys()}
    if queued and subject.observed.verdict is None and subject.spec.project in unknown:
        return others_unknown(subject.spec)
    return known.waiting.get(subject.key)


def _trouble(subject: Subject, broken: Broken | None) -> Trouble | None:
    """What keeps an update from going on, though no call failed."""
    if broken is not None:
        message = f"internal error: the next step would break {broken.invariant}, {broken.detail}; nothing is done"
        return Trouble("Frozen", message)
    route = subject.traffic.unusable
    if route is None:
        return None
    if route.reason is Unusable.FOREIGN_MANAGER:
        return Trouble("Conflict", route.message, reason="ForeignManager")
    return Trouble("RouteUnusable", route.message, reason=route.reason.value)


def _refusals(trouble: Trouble | None, before: Conditions) -> list[ConditionReport]:
    """Conditions that exist only once there was a reason. Those that are over are shown as False and do not vanish."""
    found = []
    for kind in ("Conflict", "TemplateInvalid", "ProjectDenied"):
        if trouble is not None and trouble.condition == kind:
            found.append(ConditionReport(kind, Status.TRUE, trouble.reason, trouble.message))
        elif kind in before:
            found.append(ConditionReport(kind, Status.FALSE, "Resolved"))
    return found


def _untrue(broken: Broken | None, before: Conditions) -> list[ConditionReport]:
    """That an invariant is broken; like a refusal a condition only once it was."""
    if broken is not None:
        return [ConditionReport("InvariantBroken", Status.TRUE, "Broken", f"{broken.invariant}: {broken.detail}")]
    return [ConditionReport("InvariantBroken", Status.FALSE, "Resolved")] if "InvariantBroken" in before else []


def _unresolved_report(
    workload: InferenceWorkload, why: Unresolved, told: Mapping[WorkloadKey, Conditions]
) -> WorkloadReport:
    """What runs goes on running; only the conditions tell."""
    status = workload.status
    key = key_of(workload)
    before = told.get(key) or conditions_of(workload)
    found = {**before, **{each.type: each for each in unresolved(why)}}
    report = WorkloadReport(
        key=key,
        phase=(status.phase if status else None) or "Pending",
        phase_message=why.message,
        scaling_mode="Auto",
        conditions=tuple(found[kind] for kind in sorted(found)),
        revision=status.current_revision if status else None,
        error=why.message,
    )
    return msgspec.structs.replace(report, events=events(before, report, ""))


def _counts(subject: Subject, decision: ScalingDecision, grant: Grant, outcome: Outcome) -> Counts:
    """Of the revision that is current from now on: an update that has just taken over is told with its own."""
    seen, name = subject.observed.current, outcome.record.current
    if subject.spec.target is None and name is not None and (seen is None or seen.name != name):
        seen = subject.observed.of(name)
    applied = outcome.scaled.replicas if outcome.scaled else (seen.replicas if seen else None)
    return Counts(
        desired=decision.desired,
        granted=grant.granted,
        applied=applied or 0,
        ready=seen.ready if seen else 0,
        starting=seen.starting if seen else 0,
        unscheduled=seen.unscheduled if seen else 0,
        terminating=seen.terminating if seen else 0,
    )


def _measures(subject: Subject) -> Mapping[Measure, float]:
    """What is republished of a workload: what its pods show, and how many are ready. The unknown has no entry."""
    signals, ready = subject.observation.signals, subject.observation.ready
    shown = signals.measures if signals else {}
    return shown if ready is None else {**shown, Measure.REPLICAS: float(ready)}


def _mode(spec: WorkloadSpec) -> str:
    if spec.desired_phase is DesiredPhase.STOPPED:
        return "Stopped"
    if spec.mode is Mode.PAUSED:
        return "Paused"
    if spec.mode is Mode.OBSERVE:
        return "Observe"
    return "Manual" if spec.scaling.manual_replicas is not None else "Auto"


def reason_text(decision: ScalingDecision) -> str:
    """Why the count is what it is, in one line."""
    if decision.rule is Rule.POLICY:
        name = _signal(decision) or "fixed size"
        return f"{name}: {decision.arithmetic}" if decision.arithmetic else name
    detail = decision.adjustments[-1].detail if decision.adjustments else ""
    return f"{decision.rule.value}{f' ({detail})' if detail else ''}{_behind(decision)}"


def _behind(decision: ScalingDecision) -> str:
    return f"; {_signal(decision)}: {decision.arithmetic}" if decision.inputs and decision.arithmetic else ""


def _signal(decision: ScalingDecision) -> str:
    """Whose count it is; without any, the first signal's name."""
    return decision.signal or (decision.inputs[0].name if decision.inputs else "")


def _quota(used: Mapping[Domain, ResourceVector], limits: Mapping[Domain, ResourceVector]) -> tuple[QuotaReport, ...]:
    return tuple(
        QuotaReport(project, pool, name, limit, used[project, pool].get(name, 0) if (project, pool) in used else None)
        for (project, pool), vector in sorted(limits.items())
        for name, limit in sorted(vector.items())
    )
