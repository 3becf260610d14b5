"""Events: one for each change worth telling, none for what stays as it was. A function of two reports."""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.model.report import ConditionReport, EventReport, Status, WorkloadReport

Conditions = Mapping[str, ConditionReport]

# (condition, status it turned to) -> (event, is it a warning)
_EDGES: Mapping[tuple[str, Status], tuple[str, bool]] = {
    ("Fallback", Status.TRUE): ("MetricsUnavailable", True),
    ("Fallback", Status.FALSE): ("MetricsRecovered", False),
    ("Paused", Status.TRUE): ("Paused", False),
    ("Paused", Status.FALSE): ("Resumed", False),
    ("Conflict", Status.TRUE): ("ConflictDetected", True),
    ("TemplateInvalid", Status.TRUE): ("TemplateInvalid", True),
    ("ProjectDenied", Status.TRUE): ("ProjectDenied", True),
    ("RecordRebuilt", Status.TRUE): ("RecordRebuilt", True),
    ("Stalled", Status.TRUE): ("Stalled", True),
    ("InvariantBroken", Status.TRUE): ("InvariantBroken", True),
    ("RequestTimeoutUnset", Status.TRUE): ("RequestTimeoutUnset", True),
}


def events(before: Conditions | None, report: WorkloadReport, why: str) -> tuple[EventReport, ...]:
    """What to tell after this cycle. `before`: the conditions last reported (None: the workload is new).

    `why` is the decision's reason for a count that was written.
    """
    found = [*_scale_events(report, why)]
    for condition in report.conditions:
        found += _edge(before or {}, condition)
    return tuple(found)


def _scale_events(report: WorkloadReport, why: str) -> list[EventReport]:
    if report.scaled is None:
        return []
    start, end = report.scaled
    told = [EventReport("SuccessfulRescale", f"New size: {end}; reason: {why}")]
    if end == 0:
        told.append(EventReport("ScaledToZero", f"{start} -> 0; reason: {why}"))
    elif start == 0:
        told.append(EventReport("ScaledFromZero", f"0 -> {end}; reason: {why}"))
    return told


def _edge(before: Conditions, now: ConditionReport) -> list[EventReport]:
    was = before.get(now.type)
    told: list[EventReport] = []
    turned = was is not None and was.status is not now.status
    if turned or (was is None and now.status is Status.TRUE):
        event = _EDGES.get((now.type, now.status))
        if event is not None:
            told.append(EventReport(event[0], now.message or now.reason, event[1]))
    if now.type == "ScalingLimited":
        told += _limit_edge(was, now)
    if now.type == "AbleToScale":
        told += _able_edge(was, now)
    return told


def _limit_edge(was: ConditionReport | None, now: ConditionReport) -> list[EventReport]:
    """Quota has events of its own; other limits share one."""
    reason_before = was.reason if was else ""
    if now.reason == reason_before:
        return []
    over = reason_before == "QuotaLimited" and now.reason != "QuotaUnknown"
    told = [EventReport("QuotaRecovered", "quota leaves room again")] if over else []
    if now.reason == "QuotaLimited":
        told.append(EventReport("QuotaInsufficient", now.message, True))
    elif now.status is Status.TRUE and now.reason not in ("TooFewReplicas", "QuotaUnknown"):
        told.append(EventReport("ScalingLimited", now.message))
    return told


def _able_edge(was: ConditionReport | None, now: ConditionReport) -> list[EventReport]:
    if now.status is Status.FALSE and (was is None or was.message != now.message):
        return [EventReport("FailedRescale", now.message, True)]
    held = now.reason == "ScaleDownStabilized"
    return [EventReport("ScaleDownHeld", now.message)] if held and was and was.reason != now.reason else []
