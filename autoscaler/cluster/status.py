"""Reads and writes the status of a workload: the rollout record and the report, each with compare-and-set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

from autoscaler.cluster.client import MERGE_PATCH, KubeApi
from autoscaler.cluster.inferenceworkload import (
    BoundsRecord,
    InferenceWorkload,
    LeavingRecord,
    PauseRecord,
    RolloutRecord,
    RolloutStatus,
    Status,
    unix_seconds,
)
from autoscaler.cluster.resources import WORKLOADS
from autoscaler.model.report import ConditionReport
from autoscaler.model.report import Status as ConditionStatus
from rollouts.record import (
    PHASES_OF_CURRENT,
    Bounds,
    Leaving,
    Pause,
    PausedBy,
    Phase,
    Record,
    Rollout,
    Why,
)

P = TypeVar("P", Bounds, Leaving, Rollout)

NUMBERS_EVERY_S: Final = 30.0  # plain numbers are not worth a write of their own more often
_NUMBERS: Final = frozenset(
    {"ageSeconds", "value", "recommended", "message", "phaseMessage", "gpusFree", "gpusShort", "nextEligibleAt"}
)
INSTANTS: Final = frozenset(  # fields of the record, by the names that both sides have
    {"started_at", "served_at", "since", "until", "not_before", "deadline_at", "queued_at", "queue_deadline_at"}
    | {"head_since", "held_at", "schedule_deadline_at", "progress_deadline_at", "accepted_at", "drain_deadline_at"}
)


def timestamp(at_s: float) -> str:
    """RFC 3339 in whole seconds, as Kubernetes writes it."""
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(at_s: float) -> str:
    """RFC 3339 to the microsecond: a record reads back as it was written."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def record_of(workload: InferenceWorkload) -> Record:
    """The record that the status holds; an empty one where there is none.

    What a newer version wrote and this one cannot follow is left out: then only the current revision is followed.
    """
    status = workload.status or Status()
    stored = status.record or RolloutRecord()
    leaving = (_read(Leaving, each) for each in stored.leaving or ())
    return Record(
        phase=_phase(stored),
        current=status.current_revision,
        update=status.update_revision,
        collision_count=status.collision_count or 0,
        replicas=stored.replicas,
        initialized=bool(stored.initialized),
        started_at=unix_seconds(stored.started_at) if stored.started_at else None,
        served_at=unix_seconds(stored.served_at) if stored.served_at else None,
        epoch=stored.epoch,
        serving=bool(stored.serving),
        rollout=_read(Rollout, status.rollout),
        leaving=tuple(each for each in leaving if each is not None),
        previous=stored.previous,
        pool=stored.pool,
        handled=stored.handled,
        bounds=_read(Bounds, stored.bounds),
        bounds_seen=_read(Bounds, stored.bounds_seen),
    )


def _phase(stored: RolloutRecord) -> Phase:
    """A phase of a newer version is not ours to follow: what served once is taken as complete."""
    known = {phase.value: phase for phase in PHASES_OF_CURRENT}
    unknown = Phase.COMPLETE if stored.served_at else Phase.STARTING
    return known.get(stored.phase or "", unknown)


def _read(part: type[P], stored: msgspec.Struct | None) -> P | None:
    """A part of the record; None where it is absent, incomplete, or has a word that this version does not know."""
    try:
        return None if stored is None else _made(part, stored)
    except (TypeError, ValueError):
        return None


def _made(part: type[P], stored: msgspec.Struct) -> P:
    """The fields have the same names on both sides. Those that are absent take the defaults of the record."""
    given = {name: getattr(stored, name) for name in stored.__struct_fields__}
    return part(**{name: _READERS.get(name, _as_it_is)(value) for name, value in given.items() if value is not None})


def _as_it_is(value: Any) -> Any:
    return value


def _pause(stored: PauseRecord) -> Pause:
    until = None if stored.until is None else unix_seconds(stored.until)
    return Pause(PausedBy(stored.by or ""), unix_seconds(stored.since or ""), until, Phase(stored.resumes or ""))


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "phase": Phase,
    "reason": Why,
    "pause": _pause,
    **dict.fromkeys(INSTANTS, unix_seconds),
}


def status_of(record: Record) -> dict[str, Any]:
    """The record as fields of the status, each of them always there: None clears a field."""
    return {
        "currentRevision": record.current,
        "updateRevision": record.update,
        "collisionCount": record.collision_count,
        "record": {
            "phase": record.phase.value,
            "replicas": record.replicas,
            "initialized": record.initialized,
            "epoch": record.epoch,
            "serving": record.serving,
            "startedAt": _written("started_at", record.started_at),
            "servedAt": _written("served_at", record.served_at),
            "previous": record.previous,
            "pool": record.pool,
            "handled": record.handled,
            "bounds": _fields(BoundsRecord, record.bounds),
            "boundsSeen": _fields(BoundsRecord, record.bounds_seen),
            # a patch takes no None out of what stands in a list
            "leaving": [_without_none(_fields(LeavingRecord, each)) for each in record.leaving],
        },
        "rollout": _fields(RolloutStatus, record.rollout),
    }


def _fields(stored: type[msgspec.Struct], part: object | None) -> dict[str, Any] | None:
    if part is None:
        return None
    return {each.encode_name: _written(each.name, getattr(part, each.name)) for each in msgspec.structs.fields(stored)}


def _written(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in INSTANTS:
        return instant(value)
    if isinstance(value, Pause):
        return _fields(PauseRecord, value)
    return value.value if isinstance(value, StrEnum) else value


def conditions_of(workload: InferenceWorkload) -> dict[str, ConditionReport]:
    """The conditions last written, by type."""
    stored = (workload.status.conditions if workload.status else None) or []
    known = {status.value for status in ConditionStatus}
    return {
        each.type: ConditionReport(each.type, ConditionStatus(each.status), each.reason or "", each.message or "")
        for each in stored
        if each.type and each.status in known
    }


def render_conditions(
    workload: InferenceWorkload, conditions: tuple[ConditionReport, ...], now: float
) -> list[dict[str, Any]]:
    """Conditions as stored. `lastTransitionTime` moves only with the status."""
    before = {each.type: each for each in ((workload.status.conditions if workload.status else None) or [])}
    rendered = []
    for condition in conditions:
        was = before.get(condition.type)
        same = was is not None and was.status == condition.status.value
        since = was.last_transition_time if was is not None and same else None
        rendered.append(
            {
                "type": condition.type,
                "status": condition.status.value,
                "reason": condition.reason,
                "message": condition.message,
                "observedGeneration": workload.metadata.generation,
                "lastTransitionTime": since or timestamp(now),
            }
        )
    return rendered


class StatusWriter:
    """Port `Records` of the driver for one workload, and the writer of its report."""

    def __init__(
        self,
        api: KubeApi,
        workload: InferenceWorkload,
        wrote: Callable[[InferenceWorkload], None],
        told: Callable[[InferenceWorkload], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        """`wrote` is given the object as the server answered it; `told` is what the status says of the next record."""
        self._api = api
        self._workload = workload
        self._wrote = wrote
        self._told = told

    async def save(self, record: Record) -> None:
        """With what is told of it: whoever reads the status never finds an update that is over beside words that it is
        on its way."""
        await self.write({**self._told(self._workload), **status_of(record)})

    async def write(self, status: Mapping[str, Any]) -> None:
        """Merges these fields into the status, if nobody changed the object meanwhile."""
        meta = self._workload.metadata
        path = WORKLOADS.path(meta.namespace, meta.name, "status")
        body = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "status": status}
        answer = await self._api.call("PATCH", path, body=body, content_type=MERGE_PATCH)
        self._workload = msgspec.json.decode(answer, type=InferenceWorkload)
        self._wrote(self._workload)


def differs(workload: InferenceWorkload, status: Mapping[str, Any], numbers_too: bool) -> bool:
    """Is this status worth a write? Changes of plain numbers count only with `numbers_too`."""
    stored = msgspec.to_builtins(workload.status) if workload.status else {}
    wanted = {key: _without_none(value) for key, value in status.items()}  # None clears a field, which is a change
    if numbers_too:
        return any(stored.get(key) != value for key, value in wanted.items())
    return any(_meaning(stored.get(key)) != _meaning(value) for key, value in wanted.items() if key not in _NUMBERS)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


def _meaning(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _meaning(each) for key, each in value.items() if key not in _NUMBERS}
    return [_meaning(each) for each in value] if isinstance(value, list) else value
