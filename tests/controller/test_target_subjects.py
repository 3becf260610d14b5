"""What a cycle makes of workloads that name objects of others: who may scale which, and what is said of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from autoscaler.controller.conflicts import Conflicts
from autoscaler.controller.reporting import Before
from autoscaler.controller.specs import Operator
from autoscaler.controller.subject import Snapshot
from autoscaler.model.signal import Activation
from autoscaler.model.workload import ActivationSpec, WorkloadKey
from tests.cluster.objects import Objects
from tests.controller.following import APPS, LWS, PODS, WORKLOADS, following, until

NOW = 1_000_000.0
OPERATOR = Operator(
    target_kinds={
        ("apps/v1", "Deployment"): "deployments",
        ("apps/v1", "StatefulSet"): "statefulsets",
        ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): "leaderworkersets",
    }
)
GROUP = "leaderworkerset.sigs.k8s.io"
SCALE = {"spec": {"replicas": 2}, "status": {"selector": "app=llama"}}
HPAS = "/apis/autoscaling/v2/namespaces/ml/horizontalpodautoscalers"


class Nothing:
    """Nobody was scraped yet."""

    effective_period_s = 1.0

    def set_targets(self, targets: Mapping[Any, Any]) -> None:
        self.targets = targets

    def readings(self, now_s: float) -> Mapping[Any, Any]:
        return {}

    def state(self, spec: ActivationSpec, now_s: float) -> Activation:
        return Activation.UNKNOWN


def workload(at: str = "", status: object = None, mode: str | None = None, **ref: str) -> dict[str, Any]:
    """`at`: when it was created. It names the StatefulSet llama, if `ref` says nothing else."""
    target = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "llama", **ref}
    autoscaling = {"minReplicas": 1, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}
    spec = {"serving": {"targetRef": target, "port": 8000}, "autoscaling": autoscaling, "mode": mode}
    return {"metadata": {"creationTimestamp": f"2026-01-01T00:00:0{at or 0}Z"}, "spec": spec, "status": status}


def seen(objects: Objects, number: int = 1) -> tuple[Snapshot, Nothing]:
    """The snapshot, once it tells of so many workloads."""
    readings = Nothing()

    async def take() -> Snapshot:
        async with following(objects, readings, OPERATOR, lambda: NOW) as cycle:
            found = cycle.observe()

            def told() -> bool:
                nonlocal found
                found = cycle.observe()
                return len(found.subjects) + len(found.unresolved) == number and cycle._store.synced

            await until(told)
            return found

    return asyncio.run(take()), readings


@pytest.fixture
def objects() -> Objects:
    """A StatefulSet of two, with a ready pod of two GPUs."""
    there = Objects()
    there.put(f"{APPS}/statefulsets", "llama", {"spec": {}}, SCALE)
    there.put(PODS, "llama-0", pod({"app": "llama"}))
    return there


def pod(labels: Mapping[str, str]) -> dict[str, Any]:
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    container = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}
    meta = {"labels": dict(labels), "annotations": {f"{GROUP}/size": "2"}}
    return {"metadata": meta, "spec": {"nodeName": "n", "containers": [container]}, "status": status}


def messages(found: Snapshot) -> list[str]:
    return [why.message for _, why in found.unresolved]


def test_count_pods_and_price_are_those_that_are_there(objects: Objects) -> None:
    objects.put(WORKLOADS, "chat", workload())
    found, readings = seen(objects)
    [subject] = found.subjects
    current = subject.observed.current
    assert current is not None
    assert (current.name, current.replicas, current.ready) == ("statefulsets.apps/llama", 2, 1)
    assert (subject.spec.per_replica, subject.priced) == ({"nvidia.com/gpu": 2000}, True)
    assert [each.name for each in readings.targets[subject.key].pods] == ["llama-0"]


def test_groups_are_priced_whole_and_measured_at_their_leader() -> None:
    there = Objects()
    scale = {"spec": {"replicas": 1}, "status": {"selector": f"{GROUP}/name=llama,{GROUP}/worker-index=0"}}
    there.put(f"{LWS}/leaderworkersets", "llama", {"spec": {}}, scale)
    for member in "01":
        labels = {f"{GROUP}/name": "llama", f"{GROUP}/group-index": "0", f"{GROUP}/worker-index": member}
        there.put(PODS, f"llama-0-{member}", pod(labels))
    there.put(WORKLOADS, "chat", workload(apiVersion="leaderworkerset.x-k8s.io/v1", kind="LeaderWorkerSet"))
    found, readings = seen(there)
    [subject] = found.subjects
    assert subject.observation.ready == 1
    assert subject.spec.per_replica == {"nvidia.com/gpu": 4000}
    assert [each.name for each in readings.targets[subject.key].pods] == ["llama-0-0"]


def test_what_a_replica_costs_is_unknown_until_one_was_seen(objects: Objects) -> None:
    objects.delete(PODS, "llama-0")
    objects.put(WORKLOADS, "chat", workload())
    [subject] = seen(objects)[0].subjects
    assert (subject.priced, subject.spec.per_replica) == (False, {})


def test_of_two_that_name_one_target_the_older_scales_it(objects: Objects) -> None:
    objects.put(WORKLOADS, "aa-younger", workload("5"))
    objects.put(WORKLOADS, "older", workload("4"))
    found, _ = seen(objects, 2)
    trouble = Conflicts().find(found)
    assert {key.name: each.message.partition(":")[0] for key, each in trouble.items()} == {
        "aa-younger": "InferenceWorkload older scales StatefulSet llama"
    }


def test_who_only_observes_is_in_nobodys_way_and_nobody_in_his(objects: Objects) -> None:
    objects.put(WORKLOADS, "older", workload("4", mode="observe"))
    objects.put(WORKLOADS, "younger", workload("5"))
    assert Conflicts().find(seen(objects, 2)[0]) == {}
    ref = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "llama"}
    objects.put(HPAS, "hpa", {"spec": {"scaleTargetRef": ref}})
    trouble = Conflicts().find(seen(objects, 2)[0])
    assert {key.name: each.reason for key, each in trouble.items()} == {"younger": "HorizontalPodAutoscaler"}


def test_the_object_of_another_workload_is_no_target() -> None:
    there = Objects()
    owner = {"kind": "InferenceWorkload", "name": "llama", "uid": "u", "controller": True}
    meta = {"metadata": {"ownerReferences": [owner], "labels": {"tidegate.dev/workload": "llama"}}}
    there.put(f"{APPS}/deployments", "llama-1", {**meta, "spec": {"replicas": 2}}, SCALE)
    there.put(WORKLOADS, "chat", workload(kind="Deployment", name="llama-1"))
    [trouble] = Conflicts().find(seen(there)[0]).values()
    assert trouble.message.startswith("InferenceWorkload llama scales Deployment llama-1: one alone may;")


def test_the_deployment_of_a_knative_revision_is_no_target() -> None:
    there = Objects()
    meta = {"metadata": {"labels": {"serving.knative.dev/revision": "llama-00001"}}}
    there.put(f"{APPS}/deployments", "llama-00001-deployment", {**meta, "spec": {}}, SCALE)
    there.put(WORKLOADS, "chat", workload(kind="Deployment", name="llama-00001-deployment"))
    [message] = messages(seen(there)[0])
    assert "is of a Knative revision, which Knative scales itself; set autoscaling.knative.dev/min-scale" in message


@pytest.mark.parametrize("current", ["chat-01234567", "statefulsets.apps/llama"])
def test_a_kind_of_ours_and_a_target_are_not_exchanged(objects: Objects, current: str) -> None:
    body = workload(status={"currentRevision": current})
    if "/" in current:
        body["spec"]["serving"] = {"port": 8000, "deployment": {"template": {"spec": {"containers": [{}]}}}}
    objects.put(WORKLOADS, "chat", body)
    [message] = messages(seen(objects)[0])
    assert "changed between targetRef and a kind of ours, and what ran goes on as it is; set it back" in message


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ({"kind": "ReplicaSet"}, "spec.serving.targetRef is apps/v1 ReplicaSet; allowed by the configuration's"),
        ({"apiVersion": "serving.knative.dev/v1", "kind": "Service"}, "which Knative scales itself; move its pod"),
    ],
)
def test_kinds_that_the_operator_does_not_allow_are_named_with_those_that_he_does(
    objects: Objects, ref: dict[str, str], says: str
) -> None:
    objects.put(WORKLOADS, "chat", workload(**ref))
    [message] = messages(seen(objects)[0])
    assert says in message


def test_a_target_that_observes_starts_from_the_count_that_is_there(objects: Objects) -> None:
    status = {"currentRevision": "statefulsets.apps/llama", "record": {"replicas": 7, "phase": "Complete"}}
    objects.put(WORKLOADS, "chat", workload(status=status, mode="observe"))
    assert seen(objects)[0].subjects[0].observation.applied == 2
    objects.put(WORKLOADS, "chat", workload(status=status))
    assert seen(objects)[0].subjects[0].observation.applied == 7


@pytest.mark.parametrize(
    ("told", "stored", "before"),
    [({}, 5, 5), ({"chat": 3}, 5, 3), ({}, None, None)],
    ids=["after a restart the status knows", "what was told last counts", "nobody was ever told"],
)
def test_a_recommendation_is_told_when_it_is_another_one_than_before(
    objects: Objects, told: dict[str, int], stored: int | None, before: int | None
) -> None:
    status = None if stored is None else {"counts": {"desired": stored}}
    objects.put(WORKLOADS, "chat", workload(mode="observe", status=status))
    [subject] = seen(objects)[0].subjects
    assert Before({}, {WorkloadKey("ml", name): count for name, count in told.items()}).desired_of(subject) == before
