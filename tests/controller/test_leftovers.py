"""A workload is gone: what is held for it goes with the last that its controllers may still make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pytest

from autoscaler.cluster.resources import (
    OWNER_REVISION_LABEL,
    REVISION_LABEL,
    WORKLOAD_LABEL,
    ControllerRevision,
    Pod,
    Scalable,
)
from autoscaler.cluster.store import Store
from autoscaler.controller.leftovers import leftovers
from autoscaler.controller.specs import Operator, Resolver
from rollouts.observed import ObservedHold
from tests.cluster.objects import Objects

GPU: Final = "nvidia.com/gpu"
NAME: Final = "llama-1"
META: Final = {"namespace": "ml", "resourceVersion": "1", "labels": {WORKLOAD_LABEL: "llama"}}


def template(gpus: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "m", "resources": {"limits": {GPU: gpus}}}]}}


CONTENT: Final = {"leaderWorkerSet": {"size": 2, "leaderTemplate": template("1"), "workerTemplate": template("2")}}


def pod(name: str, leader: bool, ends: bool, phase: str = "Running") -> Pod:
    labels = {WORKLOAD_LABEL: "llama", OWNER_REVISION_LABEL: NAME, **({REVISION_LABEL: NAME} if leader else {})}
    metadata: dict[str, Any] = {**META, "name": name, "labels": labels}
    if ends:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return msgspec.convert({"metadata": metadata, "status": {"phase": phase}}, Pod)


def left(
    pods: Sequence[Pod], *, replicas: int | None = None, stored: bool = True, held: int | None = 6000
) -> int | None:
    """What is to be held of groups of three GPUs, in thousandths. `replicas`: of the object, if it is there."""
    store = Store(Objects(), ["ml"], lambda: None)
    if replicas is not None:
        item = {"metadata": {**META, "name": NAME, "uid": "o"}, "spec": {"replicas": replicas}}
        store.leader_worker_sets.assume(msgspec.convert(item, Scalable))
    if stored:
        item = {"metadata": {**META, "name": NAME, "uid": "r"}, "data": CONTENT}
        store.revisions.assume(msgspec.convert(item, ControllerRevision))
    holds = {("ml", "ml/llama"): (ObservedHold(NAME, "h100", {GPU: held}),)} if held is not None else {}
    groups = {("ml", NAME): list(pods)} if pods else {}
    found = leftovers(store, (), groups, holds, Resolver(Operator()))
    assert found.keys() <= {("ml", "h100" if held is not None else "default")}
    for (hold,) in found.values():
        assert (hold.owner, hold.revision) == ("ml/llama", NAME)
        return hold.vector.get(GPU, 0)
    return None


LEADERS: Final = (pod("a", leader=True, ends=False), pod("b", leader=True, ends=False))
ENDING: Final = (pod("a", leader=True, ends=True), pod("a-1", leader=False, ends=True))


def test_while_the_object_is_there_all_of_its_replicas_may_come() -> None:
    """Deleted in the middle of its start: two leaders are there, their workers are not yet."""
    assert left(LEADERS, replicas=2) == 6000
    assert left((), replicas=2) == 6000
    assert left(LEADERS, replicas=2, held=None) == 6000, "no ledger yet: what is there counts all the same"


def test_an_object_that_was_scaled_down_needs_what_its_pods_have() -> None:
    """An orphan may be scaled by hand."""
    assert left(ENDING, replicas=0) == 3000
    assert left((), replicas=1) == 3000


def test_the_object_is_gone_and_its_pods_do_not_end_yet() -> None:
    assert left(LEADERS) == 6000
    assert left((*ENDING, LEADERS[1])) == 6000


def test_the_object_is_gone_and_all_pods_end() -> None:
    assert left(ENDING) == 3000
    assert left(ENDING[1:]) == 2000
    assert left(()) is None


@pytest.mark.parametrize(("phase", "held"), [("Running", 6000), ("Succeeded", None)])
def test_pods_that_outlive_their_stored_revision_keep_what_the_ledger_holds_for_them(
    phase: str, held: int | None
) -> None:
    """The garbage collector takes a deleted workload's revisions before the last of its pods has ended."""
    assert left([pod("a", leader=True, ends=True, phase=phase)], stored=False) == held
