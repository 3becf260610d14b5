"""Somebody else scales the same workload: nothing is written to it, who it is stands in the condition, and when it is
gone everything goes on by itself. The HorizontalPodAutoscalers are real ones, without metrics; KEDA is a stand-in: the
shape of its definition, and no operator.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

FIXED = {"minReplicas": 2, "maxReplicas": 2}
AUTOSCALING = {"minReplicas": 1, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}  # 7 a replica
EPOCH = "tidegate.dev/epoch"
KEDA = "keda.sh"
# group, version, names and scope are KEDA's; its schema is longer and refuses more
SCALED_OBJECTS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"scaledobjects.{KEDA}"},
    "spec": {
        "group": KEDA,
        "scope": "Namespaced",
        "names": {
            "plural": "scaledobjects",
            "singular": "scaledobject",
            "kind": "ScaledObject",
            "listKind": "ScaledObjectList",
            "shortNames": ["so"],
        },
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
SEEN_S = 40.0  # a busy machine is no failure
LOOKED_FOR_S = 100.0  # a kind that is not installed is looked for once a minute


def hpa(name: str, kind: str, target: str) -> dict[str, Any]:
    version = "apps/v1" if kind == "Deployment" else "tidegate.dev/v1alpha1"
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": target},
            "minReplicas": 1,
            "maxReplicas": 10,
        },
    }


def scaled_object(name: str, target: str) -> dict[str, Any]:
    """Paused: KEDA keeps no HorizontalPodAutoscaler for it."""
    return {
        "apiVersion": f"{KEDA}/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name, "annotations": {f"autoscaling.{KEDA}/paused": "true"}},
        "spec": {"scaleTargetRef": {"name": target}, "triggers": [{"type": "cron", "metadata": {}}]},
    }


def apply(cluster: Cluster, namespace: str, body: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(body))


def held(workload: Workload, seconds: float) -> None:
    """Nothing is written to its Deployment for so long."""
    before = workload.deployment()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = workload.deployment()
        assert now["metadata"]["generation"] == before["metadata"]["generation"], now["spec"]["replicas"]
        assert now["metadata"]["annotations"] == before["metadata"]["annotations"]
        time.sleep(0.2)


def busy(cluster: Cluster, namespace: str, servers: ModelServers, name: str) -> Workload:
    """Two replicas with the load of two."""
    servers.set_load(namespace, name, concurrency=14, slots=100)
    workload = Workload(cluster, namespace, manifest(name, AUTOSCALING))
    workload.wait_replicas(2, timeout_s=60)
    workload.wait_ready(2)
    return workload


@pytest.mark.parametrize("kind", ["Deployment", "InferenceWorkload"])
def test_nothing_is_written_where_an_hpa_scales_until_it_is_deleted(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon, kind: str
) -> None:
    workload = busy(cluster, namespace, servers, "chat")
    target = workload.status()["currentRevision"] if kind == "Deployment" else "chat"
    apply(cluster, namespace, hpa("chat-hpa", kind, target))
    message = workload.wait_condition("Conflict", "True", "HorizontalPodAutoscaler", SEEN_S)
    assert message.startswith(f"HorizontalPodAutoscaler chat-hpa scales {kind} {target}: delete it")
    workload.wait_condition("Stalled", "True", "Conflict")
    record = workload.status()["record"]

    servers.set_load(namespace, "chat", concurrency=42, slots=100)
    cluster.wait_for(lambda: daemon.explain("chat")["decision"]["desired"] == 6, "the decision to follow", SEEN_S)
    held(workload, 5)
    assert workload.status()["record"] == record
    assert workload.replicas() == 2

    cluster.kubectl("delete", "hpa", "chat-hpa", "-n", namespace)
    workload.wait_replicas(6)
    workload.wait_condition("Conflict", "False", "Resolved")
    workload.wait_condition("Stalled", "False")
    assert len(workload.told("ConflictDetected")) == 1


def test_a_new_workload_that_an_hpa_waits_for_is_not_begun(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    apply(cluster, namespace, hpa("early", "InferenceWorkload", "chat"))
    time.sleep(2)
    workload = Workload(cluster, namespace, manifest("chat", FIXED))
    workload.wait_condition("Conflict", "True", "HorizontalPodAutoscaler", SEEN_S)
    assert "record" not in workload.status()
    for kind in ("deployments", "controllerrevisions", "services"):
        assert cluster.kubectl("get", kind, "-n", namespace, "-l", "tidegate.dev/workload", "-o", "name") == ""
    cluster.kubectl("delete", "hpa", "early", "-n", namespace)
    workload.wait_ready(2)


def test_a_new_leader_waits_for_no_stamp_on_what_is_in_conflict(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    contested, free = (busy(cluster, namespace, servers, name) for name in ("contested", "free"))
    apply(cluster, namespace, hpa("other", "Deployment", contested.status()["currentRevision"]))
    contested.wait_condition("Conflict", "True", "HorizontalPodAutoscaler", SEEN_S)

    def stamps() -> tuple[str, str]:
        one, other = (each.deployment()["metadata"]["annotations"][EPOCH] for each in (contested, free))
        return one, other

    before = stamps()
    daemon.kill()
    daemon.start()
    servers.set_load(namespace, "free", concurrency=0, slots=100)
    free.wait_replicas(1, timeout_s=90)
    assert stamps()[1] != before[1]
    assert stamps()[0] == before[0]
    assert contested.condition("Conflict")["status"] == "True"


@pytest.fixture
def without_keda(cluster: Cluster) -> Iterator[None]:
    """KEDA's definition is the whole cluster's; it is gone before and after."""

    def remove() -> None:
        cluster.kubectl("delete", "crd", f"scaledobjects.{KEDA}", "--ignore-not-found", "--timeout=60s")

    remove()
    yield
    remove()


def test_keda_that_is_installed_while_the_daemon_runs_is_noticed(
    cluster: Cluster, namespace: str, servers: ModelServers, without_keda: None, daemon: Daemon
) -> None:
    workload = Workload(cluster, namespace, manifest("chat", FIXED))
    workload.wait_ready(2)
    assert daemon.log_lines("watch.failed") == []

    cluster.kubectl("apply", "-f", "-", input=json.dumps(SCALED_OBJECTS))
    cluster.wait_established(f"scaledobjects.{KEDA}")
    body = scaled_object("chat-so", workload.status()["currentRevision"])
    served = f"/apis/{KEDA}/v1alpha1/namespaces/{namespace}/scaledobjects"
    cluster.wait_for(lambda: cluster.get(served), "the kind to be served", SEEN_S)
    apply(cluster, namespace, body)
    message = workload.wait_condition("Conflict", "True", "ScaledObject", LOOKED_FOR_S)
    assert message.startswith(f"ScaledObject chat-so scales Deployment {body['spec']['scaleTargetRef']['name']}: ")
    workload.patch({"autoscaling": {"minReplicas": 3, "maxReplicas": 3}})
    held(workload, 3)

    cluster.kubectl("delete", "crd", f"scaledobjects.{KEDA}", "--timeout=60s")
    workload.wait_replicas(3)
    workload.wait_condition("Conflict", "False", "Resolved")
    assert len(workload.told("ConflictDetected")) == 1
    failed = [line for line in daemon.log_lines("watch.failed") if line["kind"] == "ScaledObject"]
    assert failed == []


# --- another manager of the count ---


class Manager:
    """Sets the Deployment's count back whenever it is not what it wants, so many times at most."""

    def __init__(self, workload: Workload, name: str, wants: int, most: int) -> None:
        self._workload = workload
        self._name = name
        self._wants = wants
        self._most = most
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.changes = 0

    def __enter__(self) -> Manager:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(30)

    def _run(self) -> None:
        workload = self._workload
        name = workload.deployment()["metadata"]["name"]
        path = f"/apis/apps/v1/namespaces/{workload.namespace}/deployments/{name}"
        while not self._stopped.wait(0.02) and self.changes < self._most:
            if workload.cluster.get(path)["spec"]["replicas"] == self._wants:
                continue
            body = {"spec": {"replicas": self._wants}}
            merge = "application/merge-patch+json"
            status, answer = workload.cluster.request(
                "PATCH", f"{path}?fieldManager={self._name}", body, content_type=merge
            )
            assert status == 200, answer
            self.changes += 1


def test_another_manager_that_sets_the_count_back_again_and_again_is_named_and_left_alone(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    workload = Workload(cluster, namespace, manifest("chat", FIXED))
    workload.wait_ready(2)
    with Manager(workload, "flux", wants=1, most=10) as manager:
        message = workload.wait_condition("Conflict", "True", "ForeignManager", 90)
        assert message.startswith("flux (last at 20"), message
        assert f"spec.replicas of Deployment {workload.status()['currentRevision']}" in message
        changes = manager.changes
        assert 3 <= changes < 10
        held(workload, 5)
        assert (workload.replicas(), manager.changes) == (1, changes)
    workload.wait_condition("Stalled", "True", "Conflict")
    assert len(workload.told("ConflictDetected")) == 1


@pytest.mark.parametrize("times", [1, 2])
def test_what_a_person_changes_is_corrected_and_no_conflict(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon, times: int
) -> None:
    workload = Workload(cluster, namespace, manifest("chat", FIXED))
    workload.wait_ready(2)
    revision = workload.status()["currentRevision"]
    for _ in range(times):
        cluster.kubectl("scale", "deployment", revision, "--replicas=5", "-n", namespace)
        workload.wait_replicas(2)
    time.sleep(2)
    assert workload.replicas() == 2
    assert workload.condition("Conflict") == {}
    assert workload.events("ConflictDetected") == []


def test_our_own_writes_bear_our_name(cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon) -> None:
    workload = Workload(cluster, namespace, manifest("chat", FIXED))
    workload.wait_ready(2)

    def writers(holds: Callable[[dict[str, Any]], bool]) -> set[tuple[str, str]]:
        entries = workload.deployment()["metadata"]["managedFields"]
        return {(each["manager"], each.get("subresource", "")) for each in entries if holds(each["fieldsV1"])}

    def of_count(fields: dict[str, Any]) -> bool:
        return "f:replicas" in fields.get("f:spec", {})

    assert writers(of_count) == {("tidegate", "")}
    workload.patch({"autoscaling": {"minReplicas": 3, "maxReplicas": 3}})
    workload.wait_replicas(3)
    assert writers(of_count) == {("tidegate", "scale")}
