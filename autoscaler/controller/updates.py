"""What is told of an update: the sentence, the events, and its part of the status. Functions of frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from autoscaler.cluster.status import instant
from autoscaler.controller.subject import Subject
from autoscaler.model.quota import Domain
from autoscaler.model.report import EventReport, UpdateReport
from autoscaler.model.resources import EMPTY, GPU, ResourceVector
from rollouts import actions, planner
from rollouts.moves import ACTIVE
from rollouts.quota import Verdict
from rollouts.record import Phase, Record, Rollout, Why
from rollouts.revision import NO_REVISION

WORDS: Final = {
    Phase.QUEUED: "queued",
    Phase.STARTING: "starting",
    Phase.WARMING: "warming up",
    Phase.SHIFTING: "taking traffic",
    Phase.PAUSED: "paused",
    Phase.DRAINING: "has all traffic",
    Phase.ROLLING_BACK: "rolling back",
    Phase.FAILED: "failed",
}
REASONS: Final = {
    Why.WAITING_FOR_QUOTA: "its quota is not free",
    Why.RESERVATION_LOST: "its reservation was lost",
    Why.UNPLACED: "its pods were not placed within the schedule timeout",
    Why.REPLICAS_LOST: "its replicas were lost",
    Why.QUEUE_TIMEOUT: "its quota did not become free within the queue timeout",
    Why.NEVER_FITS: "it can never fit into the quota",
    Why.QUOTA_REFUSED: "its quota was not free, and whenQuotaShort is refuse",
    Why.PROGRESS_DEADLINE_EXCEEDED: "it did not serve within the progress deadline",
    Why.ACTIVATION_FAILED: "it did not come up when it was first needed",
    Why.ABORTED: "it was aborted",
    Why.TEMPLATE_REVERTED: "the template is the current revision's again",
}
TOLD: Final = frozenset(  # events that are worth a line of the log
    {"RolloutQueued", "RolloutStarted", "TrafficWeightUpdated", "RolloutPaused", "RolloutResumed", "RolloutCompleted"}
    | {"RolloutSuperseded", "RolloutAborted", "RolloutBlocked", "ProgressDeadlineExceeded", "RolledBack"}
)
_ENDED: Final = frozenset({Phase.ROLLING_BACK, Phase.FAILED})


def message(subject: Subject, record: Record, waiting: str | None) -> str | None:
    """ "Update llama-7f3a91c2 queued: 1 GPU short in project ml-team (7 of 8 free)"; None where there is no update."""
    rollout = record.rollout
    if rollout is None:
        return None
    why = REASONS[rollout.reason] if rollout.reason is not None else None
    verdict = subject.observed.verdict_on(rollout.revision)
    if rollout.phase in _ENDED:
        details = [why, f"{record.current} goes on" if rollout.phase is Phase.FAILED else waiting]
    elif rollout.phase is Phase.QUEUED and verdict is not None and verdict.pool is None and verdict.short:
        details = [shortage(verdict, subject.spec.project)]
    elif rollout.phase is Phase.SHIFTING:
        details = [f"{rollout.weight} %", waiting]
    else:
        details = [waiting]
    told = "; ".join(each for each in details if each)
    return f"Update {rollout.revision} {WORDS.get(rollout.phase, rollout.phase.value)}{f': {told}' if told else ''}"


def shortage(verdict: Verdict, project: str) -> str:
    """ "1 GPU short in project ml-team (7 of 8 free)": of the 8 that are needed, 7 are free."""
    name = GPU if GPU in verdict.short else min(verdict.short)
    short, free = verdict.short[name], max(0, verdict.free.get(name, 0))
    unit = "GPU" if name == GPU else name
    told = f"{short / 1000:g} {unit} short in project {project} ({free / 1000:g} of {(short + free) / 1000:g} free)"
    return told if verdict.blocked_by is None else f"{told}; {verdict.blocked_by[1]} is at the head of the queue"


def serves(subject: Subject, record: Record) -> bool:
    """Does the update answer requests?"""
    rollout = record.rollout
    return rollout is not None and actions.weight(record) > 0 and subject.observed.of(rollout.revision).ready > 0


def deadline(record: Record) -> float | None:
    """Of the clock that runs, Unix seconds."""
    rollout = record.rollout
    if rollout is None:
        return None
    match rollout.phase:
        case Phase.QUEUED:
            return rollout.queue_deadline_at
        case Phase.STARTING if rollout.schedule_deadline_at is not None:
            return min(rollout.schedule_deadline_at, rollout.progress_deadline_at or rollout.schedule_deadline_at)
        case Phase.STARTING | Phase.WARMING | Phase.SHIFTING:
            return rollout.progress_deadline_at
        case Phase.PAUSED:
            return rollout.pause.until if rollout.pause is not None else None
        case Phase.DRAINING:
            return rollout.drain_deadline_at
        case _:
            return None


def next_instants(record: Record) -> Iterator[float]:
    """When time alone may change something, Unix seconds."""
    if (at := deadline(record)) is not None:
        yield at
    if record.rollout is not None and record.rollout.not_before is not None:
        yield record.rollout.not_before
    if record.rollout is not None and record.rollout.progress_deadline_at is not None:
        yield record.rollout.progress_deadline_at
    yield from (each.deadline_at for each in record.leaving if each.deadline_at is not None)


# --- events ---


def events(before: Record, after: Record, told: str | None) -> tuple[EventReport, ...]:
    """What happened to the update between two records that were saved. `told`: its sentence now."""
    was, now = before.rollout, after.rollout
    found = [*_ended(before, after), *_moved(was, now, told)]
    if was is not None and now is not None and was.revision == now.revision and was.verified != now.verified:
        note = f"revision {now.revision} has {now.verified} % of the traffic"
        found.append(EventReport("TrafficWeightUpdated", note))
        if now.step > was.step:
            found.append(EventReport("RolloutStepCompleted", f"step {now.step} of revision {now.revision}"))
    gone = {each.revision for each in before.leaving} - {each.revision for each in after.leaving}
    found += [EventReport("RevisionScaledDown", f"revision {name} is gone") for name in sorted(gone)]
    return tuple(found)


def _ended(before: Record, after: Record) -> Iterator[EventReport]:
    was, now = before.rollout, after.rollout
    if was is None or (now is not None and now.revision == was.revision):
        return
    if after.current == was.revision and before.current != was.revision:
        yield EventReport("RolloutCompleted", f"revision {was.revision} serves; {before.current} goes")
    elif was.reason is Why.TEMPLATE_REVERTED:
        yield EventReport("RolledBack", f"revision {was.revision} is gone: {REASONS[was.reason]}")
    elif was.phase is not Phase.FAILED and now is not None:
        yield EventReport("RolloutSuperseded", f"revision {was.revision} makes room for {now.revision}")


def _moved(was: Rollout | None, now: Rollout | None, told: str | None) -> Iterator[EventReport]:
    if now is None or _place(was) == _place(now):
        return
    note = told or f"revision {now.revision}: {now.phase.value}"
    resumed = was is not None and was.revision == now.revision and was.phase is Phase.PAUSED and now.phase in ACTIVE
    if resumed:
        yield EventReport("RolloutResumed", note)
    match now.phase:
        case Phase.QUEUED if not resumed:
            yield EventReport("RolloutQueued", note)
        case Phase.STARTING if not resumed:
            yield EventReport("RolloutStarted", note)
        case Phase.PAUSED:
            yield EventReport("RolloutPaused", note)
        case Phase.ROLLING_BACK if now.reason is Why.ABORTED:
            yield EventReport("RolloutAborted", note, warning=True)
        case Phase.ROLLING_BACK if now.reason is Why.PROGRESS_DEADLINE_EXCEEDED:
            yield EventReport("ProgressDeadlineExceeded", note, warning=True)
        case Phase.ROLLING_BACK if now.reason is not Why.TEMPLATE_REVERTED:
            yield EventReport("RolloutBlocked", note, warning=True)
        case Phase.FAILED:
            yield EventReport("RolledBack", note, warning=True)
        case _:
            return


def _place(rollout: Rollout | None) -> tuple[str, Phase, float] | None:
    return (rollout.revision, rollout.phase, rollout.since) if rollout is not None else None


# --- the report, and the status ---


def summary(subject: Subject, before: Record | None, record: Record, told: str | None) -> UpdateReport:
    """`before`: the record that this one replaced; None where nothing was saved."""
    if subject.spec.target is not None:
        return UpdateReport()
    rollout = record.rollout
    beside = (hold for hold in subject.observed.holds if hold.revision != record.current)
    ended = _result(before, record) if before is not None else ""
    began_at = before.rollout.queued_at if before is not None and before.rollout is not None else 0.0
    ended_at = rollout.since if rollout is not None else record.served_at or began_at
    return UpdateReport(
        phase=rollout.phase.value if rollout is not None else "",
        message=told,
        step=rollout.step if rollout is not None else 0,
        percents=_shares(subject),
        surge_gpus=sum(hold.vector.get(GPU, 0) for hold in beside) / 1000,
        ended=ended,
        took_s=max(0.0, ended_at - began_at) if ended else 0.0,
    )


def _result(before: Record, after: Record) -> str:
    """What ended between two records; "" where nothing did."""
    was, now = before.rollout, after.rollout
    if was is None or was.phase is Phase.FAILED:
        return ""
    if now is not None and now.revision == was.revision:
        failed = now.phase is Phase.FAILED
        return ("Aborted" if now.reason is Why.ABORTED else "RolledBack") if failed else ""
    if after.current == was.revision:
        return "FastPromoted" if was.full else "Promoted"
    return "RolledBack" if was.reason is Why.TEMPLATE_REVERTED else "Superseded"


def status(
    subject: Subject,
    record: Record,
    told: str | None,
    limits: Mapping[Domain, ResourceVector],
) -> dict[str, Any]:
    """Fields of the status that tell of all revisions. None clears a field."""
    if subject.spec.target is not None:
        return {}
    at = deadline(record)
    shares = _shares(subject)
    return {
        "rolloutMessage": told,
        "rolloutDeadlineAt": instant(at) if at is not None else None,
        "traffic": [{"revisionName": name, "percent": percent} for name, percent in sorted(shares.items()) if percent],
        "revisions": [_revision(subject, record, each, shares.get(each, 0)) for each in _names(subject, record)],
        "quota": _quota(subject, record, limits),
    }


def _names(subject: Subject, record: Record) -> list[str]:
    """Those that the record speaks of or that are there: the current one, the update, those that leave."""
    rollout = record.rollout.revision if record.rollout is not None else None
    first = [each for each in (record.current, rollout) if each is not None]
    rest = sorted((record.names | subject.revisions.seen.keys()) - set(first) - {record.previous})
    return [*first, *rest]


def _shares(subject: Subject) -> dict[str, int]:
    """Percent by revision, as the Services and the route say."""
    traffic, found = subject.traffic, dict[str, int]()
    weight = traffic.route.weight if traffic.route is not None else 0
    for service, percent in ((traffic.service, 100 - (weight or 0)), (traffic.update_service, weight or 0)):
        if service.selects not in (None, NO_REVISION) and percent:
            name = str(service.selects)
            found[name] = found.get(name, 0) + percent
    return found


def _revision(subject: Subject, record: Record, name: str, percent: int) -> dict[str, Any]:
    seen, hold = subject.observed.of(name), subject.observed.hold(name)
    rollout = record.rollout
    update = rollout is not None and rollout.revision == name and rollout.phase in ACTIVE
    role = "Current" if name == record.current else "Update" if update else "Leaving"
    return {
        "name": name,
        "role": role,
        "replicas": seen.replicas or 0,
        "ready": seen.ready,
        "starting": seen.starting,
        "terminating": seen.terminating,
        "unscheduled": seen.unscheduled,
        "trafficPercent": percent,
        "nodePool": hold.pool if hold is not None else None,
        "held": dict(hold.vector) if hold is not None else None,
    }


def _quota(subject: Subject, record: Record, limits: Mapping[Domain, ResourceVector]) -> dict[str, Any]:
    """Of the pool that the update waits for or has, else the current revision's. What is free is told while an update
    asks for it: at other times a number that is written every 30 s would be believed."""
    spec, verdict = subject.spec, subject.observed.verdict
    pool = (record.rollout.pool if record.rollout is not None else None) or record.pool or spec.node_pool
    limit = limits.get((spec.project, pool), EMPTY).get(GPU)
    asks = verdict is not None and planner.runs(record.rollout) is None and limit is not None
    return {
        "project": spec.project,
        "nodePool": pool,
        "gpusLimit": limit,
        "gpusFree": max(0, verdict.free.get(GPU, 0)) if verdict is not None and asks else None,
        "gpusShort": verdict.short.get(GPU, 0) if verdict is not None and asks else None,
    }
