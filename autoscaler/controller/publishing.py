"""Tells the world what a cycle's report says: log lines, events, and status. Never decides, never waits for long.

Events and log lines go out at once. Status is written on change of meaning; plain numbers every 30 s. At most a share
of the write budget is spent on it each cycle, changes of meaning first, so that a thousand changes delay no decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import structlog

from autoscaler.cluster.errors import ApiError
from autoscaler.cluster.events import EventWriter
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import REVISION_LABEL, WORKLOAD_LABEL
from autoscaler.cluster.status import NUMBERS_EVERY_S, StatusWriter, differs, render_conditions, timestamp
from autoscaler.controller import updates
from autoscaler.controller.reporting import Outcome, reason_text
from autoscaler.controller.subject import Snapshot, key_of
from autoscaler.model.decision import ScalingDecision, SignalInput
from autoscaler.model.report import CycleReport, WorkloadReport
from autoscaler.model.signal import Direction
from autoscaler.model.workload import WorkloadKey
from rollouts.record import Record

WriteStatus = Callable[[Outcome, Mapping[str, Any], Callable[[], None]], None]  # the last is called when it is done

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Pending:
    """One status that is worth a write."""

    outcome: Outcome
    status: dict[str, Any]
    numbers_only: bool
    waiting_since: float


class Publisher:
    """Remembers what was told, so that nothing is told twice and nothing waits for ever."""

    def __init__(self, recorder: EventWriter, writes_per_cycle: int) -> None:
        self.writes_per_cycle = writes_per_cycle
        self.deferred = 0  # statuses that the last cycle left for later ones
        self._recorder = recorder
        self._numbers_at: dict[WorkloadKey, float] = {}
        self._waiting_since: dict[WorkloadKey, float] = {}
        self._settled: dict[WorkloadKey, tuple[object, ...]] = {}  # what the stored status is known to say
        self._last_scale: dict[WorkloadKey, dict[str, Any]] = {}

    def forget(self) -> None:
        """Another process tells now."""
        for memory in (self._numbers_at, self._waiting_since, self._settled, self._last_scale):
            memory.clear()
        self.deferred = 0

    def publish(
        self, report: CycleReport, seen: Snapshot, outcomes: Mapping[WorkloadKey, Outcome], write: WriteStatus
    ) -> None:
        """Tells what is new, and has `write` begin those statuses that are worth it and within the cycle's share."""
        unresolved = {key_of(each): Outcome(each, Record()) for each, _ in seen.unresolved}
        everything = {**outcomes, **unresolved}
        for memory in (self._numbers_at, self._waiting_since, self._settled, self._last_scale):
            for key in memory.keys() - everything.keys():
                del memory[key]
        self.tell(report, everything)
        pending = []
        for key, outcome in everything.items():
            found = self._pending(report.workloads[key], outcome, report.at_s)
            if found is not None:
                pending.append((key, found))
        pending.sort(key=lambda each: (each[1].numbers_only, each[1].waiting_since, each[0]))
        self.deferred = max(0, len(pending) - self.writes_per_cycle)
        for key, each in pending[: self.writes_per_cycle]:
            write(each.outcome, each.status, partial(self._wrote, key, report.at_s))

    def _wrote(self, key: WorkloadKey, at_s: float) -> None:
        self._numbers_at[key] = at_s
        self._waiting_since.pop(key, None)

    def tell(self, report: CycleReport, outcomes: Mapping[WorkloadKey, Outcome]) -> None:
        """Log lines and events."""
        for key, outcome in outcomes.items():
            self._tell(report.workloads[key], outcome, report.at_s)

    def _tell(self, report: WorkloadReport, outcome: Outcome, now: float) -> None:
        _log(report, outcome.trouble is not None and outcome.trouble.outage)
        for event in report.events:
            self._recorder.emit(outcome.workload, event, now)
        if report.scaled is not None and report.decision is not None:
            start, end = report.scaled
            why = reason_text(report.decision)
            self._last_scale[report.key] = {"at": timestamp(now), "from": start, "to": end, "reason": why}

    def _pending(self, report: WorkloadReport, outcome: Outcome, now: float) -> _Pending | None:
        """The status to write, if it is worth it."""
        # workloads of one age do not write their numbers all in the same cycle
        begun_at = now - NUMBERS_EVERY_S * (hash(report.key) % 1024) / 1024
        numbers_too = now - self._numbers_at.setdefault(report.key, begun_at) >= NUMBERS_EVERY_S
        meaning = _meaning(report, outcome.workload)
        if not numbers_too and self._settled.get(report.key) == meaning:
            return None
        status = render(report, outcome.workload, now)
        if report.key in self._last_scale:
            status["lastScale"] = self._last_scale[report.key]
        changed = differs(outcome.workload, status, numbers_too=False)
        if not changed:
            self._settled[report.key] = meaning
        if not changed and not (numbers_too and differs(outcome.workload, status, numbers_too=True)):
            self._waiting_since.pop(report.key, None)
            if numbers_too:
                self._numbers_at[report.key] = now
            return None
        return _Pending(outcome, status, not changed, self._waiting_since.setdefault(report.key, now))


async def write_status(
    key: WorkloadKey, writer: StatusWriter, status: Mapping[str, Any], wrote: Callable[[], None]
) -> None:
    """One status; what fails is told again by a later cycle."""
    try:
        await writer.write(status)
    except ApiError as error:
        log.debug("status.not_written", workload=str(key), error=str(error))
    else:
        wrote()


def _meaning(report: WorkloadReport, workload: InferenceWorkload) -> tuple[object, ...]:
    """All that is worth a write of its own, and the version of the object that it was compared with."""
    conditions = tuple((each.type, each.status, each.reason) for each in report.conditions)
    quality = report.decision.quality if report.decision else None
    version = workload.metadata.resource_version
    revisions = (report.revision, report.updating.message, str(report.revisions.get("revisions")))
    return (version, report.phase, report.scaling_mode, conditions, report.counts, revisions, quality)


def render(report: WorkloadReport, workload: InferenceWorkload, now: float) -> dict[str, Any]:
    """The report as fields of the status."""
    counts = report.counts
    status: dict[str, Any] = {
        "phase": report.phase,
        "phaseMessage": report.phase_message,
        "observedGeneration": workload.metadata.generation,
        "scalingMode": report.scaling_mode,
        "conditions": render_conditions(workload, report.conditions, now),
    }
    if report.spec is None:
        return status
    lower_at = report.decision.lower_at_s if report.decision is not None else None
    labels = {WORKLOAD_LABEL: report.key.name, REVISION_LABEL: report.revision or ""}  # a pod per replica
    if report.spec.target is None:  # the traffic of somebody else's object is somebody else's
        port = report.service_port or report.spec.serving.port
        status["url"] = f"http://{report.spec.service}.{report.key.namespace}.svc:{port}"
    status |= {
        "replicas": counts.ready + counts.starting,
        "selector": report.selector or ",".join(f"{key}={value}" for key, value in labels.items()),
        "counts": {
            "desired": counts.desired,
            "granted": counts.granted,
            "applied": counts.applied,
            "ready": counts.ready,
            "starting": counts.starting,
            "terminating": counts.terminating,
        },
        "signals": _signals(report.decision),
        "nextEligibleAt": timestamp(ceil(lower_at)) if lower_at is not None else None,
        **report.revisions,
    }
    return status


def _signals(decision: ScalingDecision | None) -> list[dict[str, Any]]:
    rendered = []
    for each in decision.inputs if decision else ():
        signal: dict[str, Any] = {
            "name": each.name,
            "target": f"{each.target:.4g}",
            "quality": each.quality.value,
            "podsFresh": each.pods_fresh,
            "podsExpected": each.pods_expected,
        }
        if each.value is not None:
            signal["value"] = f"{each.value:.4g}"
        if each.desired is not None:
            signal["recommended"] = each.desired
        if each.age_s is not None:
            signal["ageSeconds"] = max(0, round(each.age_s))
        rendered.append(signal)
    return rendered


def _shown(read: SignalInput) -> str:
    asks = "nothing to go by" if read.desired is None else f"asks for {read.desired}"
    direction = "" if read.direction is Direction.BOTH else f", {read.direction.value} only"
    return f"{read.name}={read.value} target={read.target} {read.quality.value}, {asks}{direction}"


def _log(report: WorkloadReport, outage: bool) -> None:
    """One canonical line for a workload that changed. An outage of the server is none of the workload's errors."""
    decision, grant = report.decision, report.grant
    if report.error is not None and any(event.warning for event in report.events):
        tell = log.info if outage else log.error
        tell("step.delayed" if outage else "step.failed", workload=str(report.key), error=report.error)
    if any(event.reason == "RevisionCreated" for event in report.events):
        log.info("revision.created", workload=str(report.key), revision=report.revision, replicas=report.counts.applied)
    for event in report.events:
        if event.reason in updates.TOLD:
            log.info("update.moved", workload=str(report.key), phase=report.updating.phase, why=event.note)
    if report.scaled is None or decision is None or grant is None:
        return
    log.info(
        "scale.decided",
        workload=str(report.key),
        revision=report.revision,
        before=report.scaled[0],
        after=report.scaled[1],
        rule=decision.rule.value,
        recommended=decision.recommended,
        signal=decision.signal,
        desired=decision.desired,
        granted=grant.granted,
        arithmetic=decision.arithmetic,
        inputs=[_shown(each) for each in decision.inputs],
        adjustments=[f"{each.rule.value} {each.before}->{each.after} {each.detail}" for each in decision.adjustments],
        ready=report.counts.ready,
        starting=report.counts.starting,
    )
