"""The record comes back from the status as it was written, whatever stood there before."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.status import differs, record_of, status_of
from rollouts.record import Leaving, Pause, PausedBy, Phase, Record, Rollout
from tests.cluster import records

ROLLOUT = Rollout("llama-2", 1.0, 3601.0, 2.0, Phase.PAUSED, pause=Pause(PausedBy.STEP, 2.5, None, Phase.SHIFTING))
RECORD = Record(Phase.COMPLETE, "llama-1", "llama-2", rollout=ROLLOUT, leaving=(Leaving("llama-0", 1.0, served=True),))


def merged(stored: Any, patch: Any) -> Any:
    """RFC 7396, as the API server patches."""
    if not isinstance(patch, dict):
        return patch
    result = dict(stored) if isinstance(stored, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def read(status: Any) -> Record:
    return record_of(msgspec.json.decode(msgspec.json.encode({"status": status}), type=InferenceWorkload))


@settings(max_examples=300, deadline=None)
@given(before=records.RECORDS, record=records.RECORDS)
def test_what_is_written_is_read_back(before: Record, record: Record) -> None:
    assert read(merged(status_of(before), status_of(record))) == record


@pytest.mark.parametrize("part", records.EVERY_PART)
def test_every_field_is_drawn(part: type) -> None:
    """One that is added to the record and forgotten here would be stored by luck alone."""
    assert {field.name for field in fields(part)} == set(records.EVERY_PART[part])


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Admiring"},
        {"reason": "NotInTheMood"},
        {"pause": {"by": "moon", "since": "2026-01-01T00:00:00Z", "resumes": "Shifting"}},
        {"pause": {"by": "verb", "since": "2026-01-01T00:00:00Z", "resumes": "Admiring"}},
        {"pause": {"since": None}},
        {"pause": {"resumes": None}},
        {"since": "yesterday"},
        {"revision": None},
        {"queuedAt": None},
    ],
)
def test_an_update_of_a_newer_version_is_left_out_and_the_current_revision_followed(change: dict[str, Any]) -> None:
    status = merged(status_of(RECORD), {"rollout": change})
    assert read(status) == replace(RECORD, rollout=None)


def test_a_status_without_record_is_an_empty_record() -> None:
    assert read(None) == Record()
    assert read({"rollout": None, "record": {"leaving": [{"since": "2026-01-01T00:00:00Z"}]}}) == Record()


def test_instants_are_written_to_the_microsecond() -> None:
    record = Record(started_at=1_767_225_600.123456, rollout=replace(ROLLOUT, since=1_767_225_600.0))
    status = status_of(record)
    assert status["record"]["startedAt"] == "2026-01-01T00:00:00.123456Z"
    assert status["rollout"]["since"] == "2026-01-01T00:00:00.000000Z"


def test_every_field_is_written_so_that_what_ended_is_cleared() -> None:
    status = status_of(Record())
    assert status["rollout"] is None
    assert status["record"]["previous"] is None
    assert status_of(RECORD)["rollout"]["drainDeadlineAt"] is None


@pytest.mark.parametrize(
    ("change", "worth", "worth_now"),
    [
        ({}, False, False),
        ({"rolloutMessage": None}, True, True),
        ({"rolloutDeadlineAt": None}, False, False),
        ({"observedGeneration": 3}, True, True),
        ({"phaseMessage": "3 of 4 replicas ready"}, True, False),
        ({"quota": {"gpusFree": 1000}}, True, False),
        ({"quota": {"gpusFree": None}}, True, False),
        ({"phase": "Degraded"}, True, True),
    ],
)
def test_a_status_is_written_at_once_where_its_meaning_changes(
    change: dict[str, Any], worth: bool, worth_now: bool
) -> None:
    """An update that is over clears its sentence, which is as much of a change as another one; so is that a newer spec
    was seen."""
    status = {"phase": "Running", "phaseMessage": "4 of 4 replicas ready", "observedGeneration": 2}
    status |= {"rolloutMessage": "Update llama-2 has all traffic", "quota": {"gpusFree": 2000}}
    stored = msgspec.json.decode(msgspec.json.encode({"status": status}), type=InferenceWorkload)
    found = [differs(stored, status | change, numbers_too) for numbers_too in (True, False)]
    assert found == [worth, worth_now]
