"""Events are told once, when something changes: a function of two sets of conditions."""

from __future__ import annotations

import pytest

from autoscaler.controller.events import events
from autoscaler.model.report import ConditionReport, Status, WorkloadReport
from autoscaler.model.workload import WorkloadKey


def condition(kind: str, status: Status, reason: str = "R", message: str = "m") -> ConditionReport:
    return ConditionReport(kind, status, reason, message)


def told(
    before: ConditionReport | None, after: ConditionReport, scaled: tuple[int, int] | None = None
) -> list[tuple[str, bool]]:
    report = WorkloadReport(WorkloadKey("n", "w"), "Running", "", "Auto", (after,), scaled=scaled)
    known = {before.type: before} if before else None
    return [(event.reason, event.warning) for event in events(known, report, "because")]


@pytest.mark.parametrize(
    ("kind", "start", "end", "expected"),
    [
        ("Fallback", Status.FALSE, Status.TRUE, [("MetricsUnavailable", True)]),
        ("Fallback", Status.TRUE, Status.FALSE, [("MetricsRecovered", False)]),
        ("Fallback", Status.TRUE, Status.TRUE, []),
        ("Paused", Status.FALSE, Status.TRUE, [("Paused", False)]),
        ("Paused", Status.TRUE, Status.FALSE, [("Resumed", False)]),
        ("Conflict", Status.FALSE, Status.TRUE, [("ConflictDetected", True)]),
        ("Conflict", Status.TRUE, Status.FALSE, []),
        ("Available", Status.FALSE, Status.TRUE, []),
    ],
)
def test_a_condition_that_turns_is_told_once(
    kind: str, start: Status, end: Status, expected: list[tuple[str, bool]]
) -> None:
    assert told(condition(kind, start), condition(kind, end)) == expected


def test_a_new_workload_tells_only_what_is_wrong() -> None:
    assert told(None, condition("Fallback", Status.FALSE)) == []
    assert told(None, condition("ProjectDenied", Status.TRUE)) == [("ProjectDenied", True)]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("DesiredWithinRange", "QuotaLimited", [("QuotaInsufficient", True)]),
        ("QuotaLimited", "DesiredWithinRange", [("QuotaRecovered", False)]),
        ("QuotaLimited", "TooManyReplicas", [("QuotaRecovered", False), ("ScalingLimited", False)]),
        ("DesiredWithinRange", "TooManyReplicas", [("ScalingLimited", False)]),
        ("DesiredWithinRange", "TooFewReplicas", []),
        ("QuotaLimited", "QuotaLimited", []),
        ("QuotaLimited", "QuotaUnknown", []),
        ("DesiredWithinRange", "QuotaUnknown", []),
        ("QuotaUnknown", "QuotaLimited", [("QuotaInsufficient", True)]),
        ("QuotaUnknown", "DesiredWithinRange", []),
    ],
)
def test_quota_and_other_limits_are_told_apart(start: str, end: str, expected: list[tuple[str, bool]]) -> None:
    def limited(reason: str) -> ConditionReport:
        status = Status.FALSE if reason == "DesiredWithinRange" else Status.TRUE
        return condition("ScalingLimited", status, reason)

    assert told(limited(start), limited(end)) == expected


@pytest.mark.parametrize(
    ("scaled", "expected"),
    [
        ((2, 6), [("SuccessfulRescale", False)]),
        ((1, 0), [("SuccessfulRescale", False), ("ScaledToZero", False)]),
        ((0, 1), [("SuccessfulRescale", False), ("ScaledFromZero", False)]),
    ],
)
def test_a_written_count_is_told_with_its_size_and_reason(
    scaled: tuple[int, int], expected: list[tuple[str, bool]]
) -> None:
    calm = condition("Available", Status.TRUE)
    assert told(calm, calm, scaled) == expected


def test_a_failed_write_is_told_once_per_message() -> None:
    good = condition("AbleToScale", Status.TRUE, "ReadyForNewScale")
    bad = condition("AbleToScale", Status.FALSE, "FailedUpdateScale", "no right")
    assert told(good, bad) == [("FailedRescale", True)]
    assert told(bad, bad) == []
