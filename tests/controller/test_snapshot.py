"""What a cycle starts from: the count that holds, and what the running revision is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.controller.snapshot import _applied
from autoscaler.controller.specs import Operator, of_revision, resolve
from autoscaler.model.workload import Mode, WorkloadSpec
from rollouts.record import Phase, Record


def serving(port: int, gpus: str) -> dict[str, Any]:
    container = {"name": "m", "resources": {"limits": {"nvidia.com/gpu": gpus}}}
    return {"port": port, "deployment": {"template": {"spec": {"containers": [container]}}}}


def spec() -> WorkloadSpec:
    body = {"metadata": {"name": "llama", "namespace": "ml"}, "spec": {"serving": serving(9999, "1")}}
    found = resolve(msgspec.convert(body, InferenceWorkload), Operator())
    assert isinstance(found, WorkloadSpec)
    return found


@pytest.mark.parametrize(
    ("recorded", "observed", "start"),
    [(2, 8, 8), (8, 2, 8), (None, 3, 3), (3, None, 3), (None, None, None)],
    ids=["more is there: only data may lower it", "less is there: heal it", "no record", "no object", "nothing yet"],
)
def test_a_restart_starts_from_the_larger_of_record_and_object(
    recorded: int | None, observed: int | None, start: int | None
) -> None:
    assert _applied(spec(), Record(replicas=recorded), observed) == start


def test_paused_and_manual_and_failed_hold_the_record() -> None:
    manual = replace(spec(), scaling=replace(spec().scaling, manual_replicas=2))
    assert _applied(replace(spec(), mode=Mode.PAUSED), Record(replicas=2), 8) == 2
    assert _applied(manual, Record(replicas=2), 8) == 2
    assert _applied(spec(), Record(Phase.FAILED, replicas=0), 8) == 0


def test_a_template_edit_changes_neither_port_nor_price_of_what_runs() -> None:
    running = of_revision(spec(), serving(8000, "8"), None)
    assert (running.serving.port, running.per_replica) == (8000, {"nvidia.com/gpu": 8000})
    assert (spec().serving.port, spec().per_replica) == (9999, {"nvidia.com/gpu": 1000})
