"""What a cycle starts from: the count that holds, and what the running revision is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import OWNER_REVISION_LABEL, REVISION_LABEL, WORKLOAD_LABEL, Pod
from autoscaler.cluster.store import Store
from autoscaler.controller.snapshot import _applied, _leftovers
from autoscaler.controller.specs import Operator, Resolver, of_revision, resolve
from autoscaler.model.quota import Hold
from autoscaler.model.workload import Mode, WorkloadSpec
from rollouts.observed import ObservedHold
from rollouts.record import Phase, Record
from tests.cluster.objects import Objects


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


@pytest.mark.parametrize(("phase", "holds"), [("Running", 8000), ("Succeeded", None)])
def test_pods_that_outlive_their_stored_revision_keep_what_the_ledger_holds_for_them(
    phase: str, holds: int | None
) -> None:
    """The garbage collector takes a deleted workload's revisions before the last of its pods has ended."""
    labels = {WORKLOAD_LABEL: "llama", REVISION_LABEL: "llama-1", OWNER_REVISION_LABEL: "llama-1"}
    meta = {"name": "llama-1-x", "namespace": "ml", "labels": labels, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    pod = msgspec.convert({"metadata": meta, "spec": {}, "status": {"phase": phase}}, Pod)
    ledger = {("ml", "ml/llama"): (ObservedHold("llama-1", "h100", {"nvidia.com/gpu": 8000}),)}
    store = Store(Objects(), ["ml"], lambda: None)
    found = _leftovers(store, (), {("ml", "llama-1"): [pod]}, ledger, Resolver(Operator()))
    wanted = (Hold("ml/llama", "llama-1", {"nvidia.com/gpu": holds}),) if holds else ()
    assert found.get(("ml", "h100"), ()) == wanted
