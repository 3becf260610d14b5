"""The judge itself: each thing that must not happen is seen when it happens."""

from __future__ import annotations

from typing import Any

from tests.crash.verdict import Bounds, broken_invariants, difference
from tests.crash.world import Change

OWNER = "uid-of-the-workload"


def change(type_: str, kind: str, version: int, uid: str = "u1", name: str = "w-1", **fields: Any) -> Change:
    metadata: dict[str, Any] = {"name": name, "uid": uid, "resourceVersion": str(version)}
    if kind != "InferenceWorkload":
        metadata["ownerReferences"] = [{"uid": OWNER}]
    return Change(float(version), type_, kind, "w", {"metadata": metadata, **fields})


def record(version: int) -> Change:
    return change("MODIFIED", "InferenceWorkload", version, name="w", status={"currentRevision": "w-1"})


def deployment(type_: str, version: int, replicas: int, uid: str = "u1") -> Change:
    return change(type_, "Deployment", version, uid, spec={"replicas": replicas})


GOOD = [record(1), deployment("ADDED", 2, 2), deployment("MODIFIED", 3, 4)]


def broken(*changes: Change, bounds: Bounds = Bounds(2, 4)) -> list[str]:  # noqa: B008 (frozen)
    return broken_invariants(changes, changes, bounds, OWNER)


def test_a_good_run_breaks_nothing() -> None:
    assert broken(*GOOD) == []
    assert broken(*GOOD, deployment("DELETED", 4, 1)) == [], "the last version of what is gone is no write"


def test_counts_beyond_both_states() -> None:
    assert broken(*GOOD, deployment("MODIFIED", 4, 1)) == ["w-1 was given 1 replicas; 2..4 would be right"]
    assert broken(*GOOD, deployment("MODIFIED", 4, 5)) == ["w-1 was given 5 replicas; 2..4 would be right"]


def test_a_second_deployment_even_after_the_first_is_gone() -> None:
    again = (deployment("DELETED", 4, 4), deployment("ADDED", 5, 4, uid="u2"))
    assert broken(*GOOD, *again) == ["2 Deployments for one workload"]


def test_an_object_before_its_record() -> None:
    early = [deployment("ADDED", 1, 2), record(2)]
    assert broken(*early) == ["Deployment w-1 existed before any record of it"]


def test_an_object_without_its_owner() -> None:
    lost = change("ADDED", "Service", 4, name="w")
    lost.object["metadata"]["ownerReferences"] = []
    assert broken(*GOOD, lost) == ["Service w is nobody's: it would outlive its workload"]


def test_pods_that_end_without_need() -> None:
    pod = change("MODIFIED", "Pod", 4, name="w-1-a")
    pod.object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    gone = change("DELETED", "Pod", 5, name="w-1-a")
    assert broken(*GOOD, pod, gone) == ["1 pods were ended; 0 would be right"]
    assert broken(*GOOD, pod, gone, bounds=Bounds(2, 4, pods_ended=1)) == []


def test_a_difference_names_its_place() -> None:
    wanted = {"a": [{"b": 1}], "c": [1, 2]}
    assert list(difference(wanted, {"a": [{"b": 2}], "c": [1]})) == [
        "a[0].b: 2 instead of 1",
        "c: [1] instead of [1, 2]",
    ]
