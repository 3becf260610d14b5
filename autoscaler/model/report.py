"""What one cycle found and did: the log line, the conditions, the events, the metrics and the API's answer are made
from these values and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from autoscaler.model.decision import Grant, ScalingDecision
from autoscaler.model.foreign import Measure
from autoscaler.model.workload import WorkloadKey, WorkloadSpec


class Status(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionReport(msgspec.Struct, frozen=True):
    """One condition. `reason` is frozen vocabulary, `message` a sentence with numbers."""

    type: str
    status: Status
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class EventReport:
    """One event, emitted because something changed."""

    reason: str
    note: str
    warning: bool = False


class Counts(msgspec.Struct, frozen=True):
    """Replicas, each number named for what it is."""

    desired: int = 0  # wanted
    granted: int = 0  # after quota
    applied: int = 0  # written
    ready: int = 0  # observed serving
    starting: int = 0
    unscheduled: int = 0  # of the starting ones
    terminating: int = 0


class UpdateReport(msgspec.Struct, frozen=True):
    """The update of one workload in one cycle, and what ended in it."""

    phase: str = ""  # "" where there is none
    message: str | None = None  # a sentence; None where there is none
    step: int = 0  # steps that are done
    percents: Mapping[str, int] = msgspec.field(default_factory=dict)  # of the traffic, by revision
    surge_gpus: float = 0.0  # held beside those of the current revision
    ended: str = ""  # Promoted, FastPromoted, Aborted, RolledBack or Superseded; "" where none ended
    took_s: float = 0.0  # that one, from when it was queued


class WorkloadReport(msgspec.Struct, frozen=True):
    """One workload in one cycle."""

    key: WorkloadKey
    phase: str
    phase_message: str
    scaling_mode: str  # Auto | Manual | Paused | Stopped | Observe
    conditions: tuple[ConditionReport, ...] = ()
    events: tuple[EventReport, ...] = ()
    counts: Counts = msgspec.field(default_factory=Counts)
    revision: str | None = None
    update: str | None = None
    selector: str = ""  # of a target's pods
    spec: WorkloadSpec | None = None  # None: it could not be resolved
    decision: ScalingDecision | None = None
    grant: Grant | None = None
    scaled: tuple[int, int] | None = None  # (from, to), where a count was written
    error: str | None = None  # why the step could not be carried out
    measures: Mapping[Measure, float] = msgspec.field(default_factory=dict)  # empty where nothing is republished
    updating: UpdateReport = UpdateReport()
    revisions: Mapping[str, Any] = msgspec.field(default_factory=dict)  # what the status tells of all of them
    service_port: int | None = None  # where clients ask; None: as the revision serves

    def condition(self, kind: str) -> ConditionReport | None:
        return next((each for each in self.conditions if each.type == kind), None)


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """One limited resource of a quota domain, in thousandths."""

    project: str
    node_pool: str
    resource: str
    limit: int
    used: int | None  # None: not known yet


@dataclass(frozen=True, slots=True)
class CycleReport:
    """One cycle."""

    at_s: float
    duration_s: float = 0.0
    workloads: Mapping[WorkloadKey, WorkloadReport] = field(default_factory=dict)
    quota: tuple[QuotaReport, ...] = ()
    again_in_s: float | None = None  # an update wants to be looked at before the next tick
