"""Kind leaderWorkerSet: what is carried through, and when a group of pods is a replica that counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.errors import NotFound
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import Pod
from autoscaler.cluster.scalable import ScalableRevisions, render, serves
from autoscaler.cluster.workloads.leaderworkerset import KIND, observe
from rollouts.revision import identity_of

WORKER: dict[str, Any] = {
    "metadata": {"labels": {"team": "ml"}, "annotations": {"note": "kept  as is"}},
    "spec": {
        "containers": [{"name": "vllm", "image": "vllm:1", "args": ["--tensor-parallel-size", "8"]}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "unknownToUs": [None, 1.5, {"x": ""}],
    },
}
LEADER: dict[str, Any] = {"spec": {"containers": [{"name": "head", "image": "vllm:1"}], "priority": 0}}
EVERYTHING: dict[str, Any] = {
    "size": 9,
    "leaderTemplate": LEADER,
    "workerTemplate": WORKER,
    "startupPolicy": "LeaderReady",
    "restartPolicy": "None",
    "subGroupPolicy": {"subGroupSize": 4, "subGroupPolicyType": "LeaderExcluded"},
    "networkConfig": {"subdomainPolicy": "UniquePerReplica"},
}
EXCLUSIVE = {"leaderworkerset.sigs.k8s.io/exclusive-topology": "rack"}
OWN = {"tidegate.dev/workload": "llama", "tidegate.dev/owner-revision": "llama-1"}


def rendered(groups: dict[str, Any], annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """As the API server would store the workload, and as we would write the object."""
    body = {
        "metadata": {"name": "llama", "namespace": "ml", "uid": "u", "annotations": annotations},
        "spec": {"serving": {"port": 8000, "leaderWorkerSet": groups}},
    }
    workload = msgspec.json.decode(msgspec.json.encode(body), type=InferenceWorkload)
    identity = identity_of(msgspec.to_builtins(workload.spec.serving), workload.metadata.annotations)
    return render(KIND, workload, "llama-1", identity, 3, orphan=False, epoch=7, pool=("default", {}))


def without(template: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """The template without these labels, which must all be there."""
    bare = deepcopy(template)
    for key, value in labels.items():
        assert bare["metadata"]["labels"].pop(key) == value
    return bare


def test_templates_and_policies_are_carried_through_byte_for_byte() -> None:
    body = rendered(EVERYTHING)
    assert (body["apiVersion"], body["kind"]) == ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet")
    spec = body["spec"]
    groups = spec.pop("leaderWorkerTemplate")
    assert spec == {
        "replicas": 3,
        "startupPolicy": "LeaderReady",
        "networkConfig": {"subdomainPolicy": "UniquePerReplica"},
    }
    leader = without(groups.pop("leaderTemplate"), {**OWN, "tidegate.dev/revision": "llama-1"})
    worker = without(groups.pop("workerTemplate"), OWN)
    assert groups == {
        "size": 9,
        "restartPolicy": "None",
        "subGroupPolicy": {"subGroupSize": 4, "subGroupPolicyType": "LeaderExcluded"},
    }
    assert msgspec.json.encode(worker) == msgspec.json.encode(WORKER)
    assert leader == {**LEADER, "metadata": {"labels": {}}}


def test_without_a_leader_template_the_leader_is_a_worker_that_serves() -> None:
    groups = rendered({"size": 2, "workerTemplate": WORKER})["spec"]["leaderWorkerTemplate"]
    assert groups.keys() == {"size", "leaderTemplate", "workerTemplate"}, "what is unset is left to LeaderWorkerSet"
    assert without(groups["leaderTemplate"], {**OWN, "tidegate.dev/revision": "llama-1"}) == WORKER
    assert without(groups["workerTemplate"], OWN) == WORKER


def test_of_the_annotations_those_of_leader_worker_set_are_set_on_the_object() -> None:
    metadata = rendered(EVERYTHING, {**EXCLUSIVE, "other": "x"})["metadata"]
    assert metadata["annotations"] == {**EXCLUSIVE, "tidegate.dev/epoch": "7", "tidegate.dev/node-pool": "default"}
    assert metadata["labels"]["tidegate.dev/owner-revision"] == "llama-1"
    assert metadata["ownerReferences"][0]["controller"] is True


class Absent:
    """An imitation of KubeApi where the kind is not installed, or the namespace is gone."""

    def __init__(self, message: str, reason: str) -> None:
        self._error = NotFound(message, 404, reason)

    async def call(self, method: str, path: str, **others: object) -> bytes:
        raise self._error

    def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        raise self._error


@pytest.mark.parametrize(
    ("message", "reason", "said"),
    [
        ("404 page not found", "", "LeaderWorkerSet is not installed in this cluster"),
        ('namespaces "ml" not found', "NotFound", 'namespaces "ml" not found'),
    ],
)
async def test_a_kind_that_is_not_installed_is_named(message: str, reason: str, said: str) -> None:
    workload = msgspec.convert({"metadata": {"name": "llama", "namespace": "ml", "uid": "u"}}, InferenceWorkload)
    contents = {"llama-1": {"leaderWorkerSet": EVERYTHING}}
    revisions = ScalableRevisions(
        Absent(message, reason),
        workload,
        False,
        contents,
        lambda _: KIND,
        lambda _: None,
        lambda *_: None,
        7,
        lambda: asyncio.sleep(0),
        lambda _: "default",
        {"default": {}},
    )
    with pytest.raises(NotFound) as caught:
        await revisions.create("llama-1", 3)
    assert str(caught.value) == said


# --- observation ---


@dataclass(frozen=True)
class Member:
    """A pod of a group; `born` in seconds."""

    group: int
    index: int
    ready: bool = True
    going: bool = False
    placed: bool = True
    born: int = 10
    phase: str = "Running"
    size: str = "2"


def pod(member: Member, number: int = 0) -> Pod:
    leader = member.index == 0
    at = "2026-01-01T00:00:{:02}Z"
    labels = {
        "leaderworkerset.sigs.k8s.io/group-index": str(member.group),
        "leaderworkerset.sigs.k8s.io/worker-index": str(member.index),
        **OWN,
        **({"tidegate.dev/revision": "llama-1"} if leader else {}),
    }
    return msgspec.convert(
        {
            "metadata": {
                "name": f"llama-1-{member.group}-{member.index}-{number}",
                "labels": labels,
                "annotations": {"leaderworkerset.sigs.k8s.io/size": member.size},
                "creationTimestamp": at.format(member.born),
                "deletionTimestamp": at.format(59) if member.going else None,
            },
            "spec": {"nodeName": "gpu-0" if member.placed else None},
            "status": {
                "phase": member.phase,
                "podIP": "10.244.0.1",
                "conditions": [{"type": "Ready", "status": "True" if member.ready else "False"}],
            },
        },
        Pod,
    )


def counted(*members: Member) -> tuple[int, int, int, int]:
    """(ready, starting, of those unscheduled, terminating)."""
    seen = observe("llama-1", None, [pod(each, number) for number, each in enumerate(members)])
    return seen.ready, seen.starting, seen.unscheduled, seen.terminating


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([], (0, 0, 0, 0)),
        ([Member(0, 0), Member(0, 1)], (1, 0, 0, 0)),
        ([Member(0, 0), Member(0, 1), Member(1, 0), Member(1, 1, ready=False)], (1, 1, 0, 0)),
        ([Member(0, 0)], (0, 1, 0, 0)),
        ([Member(0, 0, ready=False), Member(0, 1)], (0, 1, 0, 0)),
        ([Member(0, 0), Member(0, 1, ready=False, placed=False)], (0, 1, 1, 0)),
        ([Member(0, 0), Member(0, 1, going=True)], (0, 1, 0, 0)),
        ([Member(0, 0, going=True), Member(0, 1)], (0, 0, 0, 1)),
        ([Member(0, 1), Member(1, 0, going=True), Member(1, 1, going=True)], (0, 0, 0, 2)),
        ([Member(0, 0, born=20), Member(0, 1, born=10)], (0, 1, 0, 0)),
        ([Member(0, 0), Member(0, 1, phase="Failed")], (0, 1, 0, 0)),
        ([Member(0, 0, phase="Failed"), Member(0, 1, phase="Failed")], (0, 0, 0, 0)),
        ([Member(0, 0), Member(1, 1)], (0, 1, 0, 1)),
        ([Member(0, 0), Member(0, 5)], (0, 1, 0, 0)),
        ([Member(0, 0, size="1")], (1, 0, 0, 0)),
        ([Member(0, 0, size=""), Member(0, 1)], (0, 1, 0, 0)),
        ([Member(0, 0, size="9" * 400), Member(0, 1)], (0, 1, 0, 0)),
        ([Member(0, 0, size="0")], (0, 1, 0, 0)),
    ],
    ids=[
        "nothing",
        "a whole group",
        "half of the second group",
        "a leader without its worker",
        "a worker without its leader's readiness",
        "a worker that finds no node",
        "a worker that is going",
        "a leader that is going takes its worker along",
        "leftovers of groups",
        "a worker of the group before",
        "a worker that failed",
        "a group that failed holds nothing",
        "halves of different groups are no whole",
        "a member beyond the size",
        "a group of one",
        "no size",
        "an absurd size",
        "a size of zero",
    ],
)
def test_a_group_counts_as_what_all_of_it_is(members: Sequence[Member], expected: tuple[int, int, int, int]) -> None:
    assert counted(*members) == expected


_MEMBERS = st.builds(
    Member,
    group=st.integers(0, 3),
    index=st.integers(0, 3),
    ready=st.sampled_from([True, True, True, False]),
    going=st.sampled_from([False, False, False, True]),
    placed=st.booleans(),
    born=st.integers(10, 11),
    phase=st.sampled_from(["Running", "Running", "Running", "Failed"]),
    size=st.just("3"),
)


def is_complete(members: Sequence[Member], group: int) -> bool:
    fine = {each.index for each in members if each.group == group and each.ready and each.phase == "Running"}
    return {0, 1, 2} <= fine


@given(st.lists(_MEMBERS, max_size=16, unique_by=lambda each: (each.group, each.index)))
def test_never_more_ready_than_complete_groups_and_every_live_group_in_one_state(members: list[Member]) -> None:
    ready, starting, unscheduled, terminating = counted(*members)
    assert ready <= sum(is_complete(members, group) for group in range(4))
    assert ready + starting + terminating == len({each.group for each in members if each.phase == "Running"})
    assert unscheduled <= starting


def test_only_leaders_are_served_and_scraped_whatever_the_workers_answer() -> None:
    pods = [pod(Member(0, 0)), pod(Member(0, 1)), pod(Member(1, 0, ready=False)), pod(Member(2, 0, going=True))]
    assert [each.metadata.name for each in pods if serves(each)] == ["llama-1-0-0-0"]
