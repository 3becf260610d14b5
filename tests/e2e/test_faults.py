"""Absent is not zero: whatever happens to the pages, nothing goes down; and it is said once."""

from __future__ import annotations

import time

from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

AUTOSCALING = {"minReplicas": 1, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}


# workload -> (fault, on which pods, what the condition says)
FAULTS: dict[str, tuple[str, float | None, str]] = {
    "half-fail": ("http 500", 0.5, "2 of 4 pods have no fresh page"),
    "all-fail": ("http 500", None, "http 500"),
    "empty": ("empty", None, "4 of 4 pods have no fresh page"),
    "nan": ("nan", None, "4 of 4 pods have no fresh page"),
    "one-refuses": ("refuse", 1, "refused"),
    "never-answers": ("time-out", None, "time-out"),
}


def busy(cluster: Cluster, namespace: str, servers: ModelServers, *names: str) -> list[Workload]:
    """Workloads of four replicas under a load that needs four, for longer than a stable window."""
    for name in names:
        servers.set_load(namespace, name, concurrency=25, slots=100)
    workloads = [Workload(cluster, namespace, manifest(name, AUTOSCALING)) for name in names]
    for workload in workloads:
        workload.wait_replicas(4)
        workload.wait_ready(4)
    time.sleep(8)
    for workload in workloads:
        workload.wait_ready(4)
    return workloads


def test_bad_pages_lower_nothing_and_recovery_is_reported_once(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    workloads = busy(cluster, namespace, servers, *FAULTS)
    for name, (fault, pods, _) in FAULTS.items():
        servers.set_fault(namespace, name, fault, pods)
    for workload in workloads:
        assert FAULTS[workload.name][2] in workload.wait_condition("Fallback", "True", "ScaleDownHeld")
    for workload in workloads:  # only now: a page younger than three periods is still a fresh one
        servers.set_load(namespace, workload.name, concurrency=0, slots=100)
    end = time.monotonic() + 14  # twice the stable window
    while time.monotonic() < end:
        assert {workload.name: workload.replicas() for workload in workloads} == dict.fromkeys(FAULTS, 4)
    for workload in workloads:
        assert len(workload.told("MetricsUnavailable")) == 1
        assert workload.status()["phase"] == "Running"

    for workload in workloads:
        servers.set_fault(namespace, workload.name, "ok")
    for workload in workloads:
        workload.wait_condition("Fallback", "False", "MetricsFresh")
        workload.wait_condition("ScalingActive", "True", "ValidMetricFound")
        workload.wait_replicas(1, timeout_s=60)
        assert len(workload.told("MetricsRecovered")) == 1
        assert len(workload.told("MetricsUnavailable")) == 1


def test_half_of_the_pages_are_enough_to_scale_up(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    (workload,) = busy(cluster, namespace, servers, "llama")
    servers.set_fault(namespace, "llama", "http 500", 0.5)
    servers.set_load(namespace, "llama", concurrency=80, slots=100)
    cluster.wait_for(lambda: workload.replicas() > 4, "the count to rise on partial data")


def test_killed_in_the_middle_of_a_load_the_successor_holds_the_count_and_goes_on(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    (workload,) = busy(cluster, namespace, servers, "llama")
    daemon.kill()
    servers.set_load(namespace, "llama", concurrency=2, slots=100)
    time.sleep(3)
    daemon.start()
    workload.never(4, 5)  # less than the first stable window: whatever the pages say, nothing goes down
    servers.set_load(namespace, "llama", concurrency=49, slots=100)
    workload.wait_replicas(7)
    servers.set_load(namespace, "llama", concurrency=1, slots=100)
    workload.wait_replicas(1, timeout_s=60)
    assert len(workload.told("RevisionCreated")) == 1


def test_a_wiped_status_is_rebuilt_with_the_counts_held_and_nothing_deleted(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    """With an update pending, too: without the record it would look like the revision to serve."""
    (workload,) = busy(cluster, namespace, servers, "llama")
    before = workload.deployment()
    pods = {pod["metadata"]["uid"] for pod in workload.pods()}
    daemon.stop()
    edited = manifest("llama", AUTOSCALING, rollout={"paused": True})
    edited["spec"]["serving"]["deployment"]["template"]["spec"]["containers"][0]["image"] = "example/vllm:2"
    Workload(cluster, namespace, edited)
    path = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads/llama/status"
    wiped = [{"op": "remove", "path": "/status"}]
    assert cluster.request("PATCH", path, wiped, content_type="application/json-patch+json")[0] == 200
    assert workload.status() == {}

    daemon.start()
    assert before["metadata"]["name"] in workload.wait_condition("RecordRebuilt", "True", "StatusLost")
    assert len(workload.told("RecordRebuilt")) == 1
    workload.never(4, 4)
    assert workload.deployment()["metadata"]["uid"] == before["metadata"]["uid"]
    assert {pod["metadata"]["uid"] for pod in workload.pods()} == pods
    assert workload.status()["updateRevision"] != workload.status()["currentRevision"]
    deployments = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments?labelSelector=tidegate.dev/workload")
    assert len(deployments["items"]) == 1
