"""The judge itself: each thing that must not happen is seen when it happens."""

from __future__ import annotations

from typing import Any

from tests.crash import holding
from tests.crash.verdict import Bounds, broken_invariants, difference
from tests.crash.world import Change

OWNER = "uid-of-the-workload"


def change(type_: str, kind: str, version: int, uid: str = "u1", name: str = "w-1", **fields: Any) -> Change:
    metadata: dict[str, Any] = {"name": name, "uid": uid, "resourceVersion": str(version)}
    if kind != "InferenceWorkload":
        metadata["ownerReferences"] = [{"uid": OWNER}]
    return Change(float(version), type_, kind, "w", {"metadata": metadata, **fields})


def record(version: int, current: str = "w-1") -> Change:
    return change("MODIFIED", "InferenceWorkload", version, name="w", status={"currentRevision": current})


def deployment(type_: str, version: int, replicas: int, uid: str = "u1") -> Change:
    return change(type_, "Deployment", version, uid, spec={"replicas": replicas})


def pod(type_: str, version: int, name: str, revision: str = "w-1", ready: bool = True, leaves: bool = False) -> Change:
    """With one GPU."""
    spec = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    found = change(type_, "Pod", version, name, name, spec=spec, status=status)
    labels = {"tidegate.dev/owner-revision": revision, "tidegate.dev/revision": revision}
    found.object["metadata"] |= {"labels": labels} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaves else {})
    return found


def ledger(version: int, limit: int = 8, **held: int) -> Change:
    """GPUs by revision, dashes as underscores."""
    holds = [
        {"revision": name.replace("_", "-"), "vector": {"nvidia.com/gpu": 1000 * gpus}} for name, gpus in held.items()
    ]
    spec = {"limit": {"nvidia.com/gpu": 1000 * limit}, "holds": holds}
    return change("MODIFIED", "QuotaLedger", version, "l", "team.default", spec=spec)


def service(version: int, revision: str) -> Change:
    return change("MODIFIED", "Service", version, "s", "w", spec={"selector": {"tidegate.dev/revision": revision}})


def replayed(*changes: Change, least: int = 1) -> list[str]:
    return list(holding.broken(changes, 0, least))


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
    assert broken(*GOOD, *again) == ["w-1 was made 2 times"]


def test_more_revisions_than_templates() -> None:
    other = [record(4, "w-2"), change("ADDED", "ControllerRevision", 5, name="w-2")]
    assert broken(*GOOD, *other) == ["2 revisions, 1 would be right: w-1, w-2"]
    assert broken(*GOOD, *other, bounds=Bounds(2, 4, revisions=2)) == []


def test_an_update_is_recorded_first() -> None:
    made = change("ADDED", "LeaderWorkerSet", 5, name="w-2", spec={"replicas": 2})
    recorded = record(4)
    recorded.object["status"]["rollout"] = {"revision": "w-2"}
    bounds = Bounds(2, 4, revisions=2)
    assert broken(*GOOD, recorded, made, bounds=bounds) == []
    assert broken(*GOOD, made, bounds=bounds) == ["LeaderWorkerSet w-2 existed before any record of it"]


def test_an_object_before_its_record() -> None:
    early = [deployment("ADDED", 1, 2), record(2)]
    assert broken(*early) == ["Deployment w-1 existed before any record of it"]


def test_an_object_without_its_owner() -> None:
    lost = service(4, "w-1")
    lost.object["metadata"]["ownerReferences"] = []
    assert broken(*GOOD, lost) == ["Service w is nobody's: it would outlive its workload"]


def test_pods_that_end_without_need() -> None:
    leaving = pod("MODIFIED", 4, "a", leaves=True)
    gone = pod("DELETED", 5, "a")
    assert broken(*GOOD, leaving, gone) == ["1 pods were ended; 0 would be right"]
    assert broken(*GOOD, leaving, gone, bounds=Bounds(2, 4, pods_ended=1)) == []


def test_pods_that_nothing_holds() -> None:
    good = [ledger(1, w_1=1), pod("ADDED", 2, "a"), pod("MODIFIED", 3, "a", leaves=True)]
    assert replayed(*good, pod("DELETED", 4, "a"), ledger(5)) == []
    told = ["pods of w-1 had 1000 thousandths of a GPU, 0 were held"]
    assert replayed(*good, ledger(4), pod("DELETED", 5, "a")) == told, "it terminates, so it is held"
    assert replayed(ledger(1, w_2=1), pod("ADDED", 2, "a")) == told, "what is held for another"


def test_the_order_is_that_of_the_server() -> None:
    assert replayed(pod("ADDED", 2, "a"), ledger(1, w_1=1)) == []


def test_a_ledger_above_its_limit() -> None:
    assert replayed(ledger(1, limit=2, w_1=2, w_2=1)) == ["ledger team.default held 3000 of 2000"]


def test_three_revisions_with_pods() -> None:
    pods = [pod("ADDED", 2 + number, f"p{number}", f"w-{number}") for number in range(3)]
    assert replayed(ledger(1, w_0=1, w_1=1, w_2=1), *pods) == ["3 revisions had pods at once: w-0, w-1, w-2"]


def test_a_service_that_leads_to_too_few() -> None:
    begin = [ledger(1, w_1=2, w_2=2), record(2), service(3, "w-1"), pod("ADDED", 4, "a"), pod("ADDED", 5, "b", "w-2")]
    assert replayed(*begin, service(6, "w-2"), pod("DELETED", 7, "a")) == []
    told = ["the Service led to 0 ready pods of w-1; 1 would be right"]
    assert replayed(*begin, pod("MODIFIED", 6, "a", leaves=True)) == told
    late = [each for each in begin if each.name != "b"]
    unready = pod("ADDED", 5, "b", "w-2", ready=False)
    assert replayed(*late, unready, service(6, "w-2")) == ["the Service led to 0 ready pods of w-2; 1 would be right"]


def test_a_difference_names_its_place() -> None:
    wanted = {"a": [{"b": 1}], "c": [1, 2]}
    assert list(difference(wanted, {"a": [{"b": 2}], "c": [1]})) == [
        "a[0].b: 2 instead of 1",
        "c: [1] instead of [1, 2]",
    ]


def test_what_a_daemon_found_to_be_untrue() -> None:
    told = {"type": "InvariantBroken", "reason": "Broken", "message": "I3: 2 replicas live, nothing is held"}
    for status, found in (("True", ["the daemon told: I3: 2 replicas live, nothing is held"]), ("False", [])):
        seen = record(5)
        seen.object["status"]["conditions"] = [{**told, "status": status}]
        assert broken(*GOOD, seen) == found
