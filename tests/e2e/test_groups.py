"""Kind leaderWorkerSet on the real control plane: groups of KWOK's pods by LeaderWorkerSet's own controller."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec

from autoscaler.cluster.fencing import epoch_of
from autoscaler.cluster.resources import Scalable
from autoscaler.cluster.scalers import foreign_writer
from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Groups, group_manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

CONCURRENCY = {"metric": "concurrency", "metricThreshold": 10}  # target 7 a group
LEADER, PART = "tidegate.dev/revision", "tidegate.dev/owner-revision"


def gateway(namespace: str, workload: str) -> dict[str, object]:
    labels = {"namespace": namespace, "workload": workload}
    return {"page": "gateway", "metric": "gateway_pending_requests", "labels": labels}


def worker_pages(servers: ModelServers, workload: Groups) -> int:
    count: int = servers.state()[f"{workload.namespace}/{workload.name}"]["worker_pages"]
    return count


def test_groups_follow_the_load_at_their_leaders_down_to_zero_and_back(
    lws: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    autoscaling = {
        "minReplicas": 0,
        "maxReplicas": 4,
        "scaleToZeroRetentionSeconds": 3,
        "activation": gateway(namespace, "llama"),
        **CONCURRENCY,
    }
    servers.set_load(namespace, "llama", concurrency=3, slots=100)
    workload = Groups(lws, namespace, group_manifest("llama", autoscaling))
    workload.wait_ready(1)
    servers.set_load(namespace, "llama", concurrency=18, slots=100)
    workload.wait_replicas(3)
    time.sleep(8)  # requests that move to new groups may count twice for a second: one too many for a window
    workload.wait_replicas(3, timeout_s=60)
    workload.wait_ready(3, timeout_s=60)
    assert max(workload.never(3, 4)) == 3, "18 requests at the leaders; a worker's page would add 50"
    assert worker_pages(servers, workload) == 0

    lws.wait_for(lambda: workload.counts().get("ready") == 3, "three ready groups to be told")
    revision = workload.status()["currentRevision"]
    labels = [each["metadata"]["labels"] for each in workload.pods()]
    assert len(labels) == 6
    assert {each[PART] for each in labels} == {revision}
    assert [each.get(LEADER) for each in labels].count(revision) == 3
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name"
    targets = {
        endpoint["targetRef"]["name"]
        for each in lws.get(f"{slices}=llama")["items"]
        for endpoint in each.get("endpoints") or ()
    }
    assert targets == {f"{revision}-{group}" for group in range(3)}, "the Service has the leaders and no worker"
    line = lws.kubectl("get", "iw", "-n", namespace, "--no-headers").split()
    assert line[:5] == ["llama", "Running", "Auto", "3", "3"]

    servers.set_load(namespace, "llama", concurrency=3, slots=100)
    workload.wait_replicas(1, timeout_s=60)
    lws.wait_for(lambda: len(workload.pods()) == 2, "the pods of one group to be left")
    servers.set_load(namespace, "llama", concurrency=0)
    workload.wait_replicas(0, timeout_s=60)
    lws.wait_for(lambda: not workload.pods(), "the last group to go")
    servers.set_load(namespace, "llama", rps=1, slots=100)
    workload.wait_replicas(1)
    workload.wait_ready(1)
    lws.wait_for(lambda: workload.status()["phase"] == "Running", "the phase Running")


def test_a_half_ready_group_is_not_ready_and_a_lost_member_is_a_lost_replica(
    lws: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    body = group_manifest("half", {"minReplicas": 2, "maxReplicas": 2}, restartPolicy="None")
    worker = body["spec"]["serving"]["leaderWorkerSet"]["workerTemplate"]
    worker["metadata"]["annotations"] = {"pod-ready.stage.kwok.x-k8s.io/delay": "12s"}
    workload = Groups(lws, namespace, body)
    lws.wait_for(lambda: len(workload.pods()) == 4, "all pods of two groups")
    lws.wait_for(lambda: _ready(workload.member(0, 0)) and _ready(workload.member(1, 0)), "leaders that are ready")
    lws.wait_for(lambda: workload.counts().get("starting") == 2, "two starting groups", timeout_s=8)
    assert workload.counts()["ready"] == 0
    assert workload.status()["phase"] != "Running"
    lws.wait_for(lambda: workload.counts()["ready"] == 2, "two whole groups", timeout_s=40)
    workload.wait_condition("Available", "True")

    name = workload.member(1, 1)["metadata"]["name"]
    lws.kubectl("delete", "pod", name, "-n", namespace, "--wait=false")
    lws.wait_for(lambda: workload.counts()["ready"] == 1, "the broken group not to count", timeout_s=10)
    assert workload.counts()["applied"] == 2
    lws.wait_for(lambda: workload.counts()["ready"] == 2, "the group to be whole again", timeout_s=40)


def test_a_group_that_restarts_as_a_whole_is_lost_capacity_until_it_is_back(
    lws: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    body = group_manifest("whole", {"minReplicas": 2, "maxReplicas": 2}, restartPolicy="RecreateGroupOnPodRestart")
    for part in ("leaderTemplate", "workerTemplate"):
        template = body["spec"]["serving"]["leaderWorkerSet"][part]
        template["metadata"]["annotations"] = {"pod-ready.stage.kwok.x-k8s.io/delay": "3s"}
    # A worker that is gone before LeaderWorkerSet's controller sees it go is replaced alone (kubernetes-sigs/lws#998):
    # no kubelet is that quick, KWOK is.
    worker = body["spec"]["serving"]["leaderWorkerSet"]["workerTemplate"]
    worker["metadata"]["annotations"]["pod-delete.stage.kwok.x-k8s.io/delay"] = "10s"
    workload = Groups(lws, namespace, body)
    lws.wait_for(lambda: workload.counts().get("ready") == 2, "two ready groups", timeout_s=40)
    broken, other = ({workload.member(group, index)["metadata"]["uid"] for index in (0, 1)} for group in (0, 1))
    lws.kubectl("delete", "pod", workload.member(0, 1)["metadata"]["name"], "-n", namespace, "--wait=false")
    lws.wait_for(lambda: workload.counts()["ready"] == 1, "the group not to count", timeout_s=10)

    def back() -> bool:  # its worker alone may be back before its leader goes, too
        there = {each["metadata"]["uid"] for each in workload.pods()}
        return not broken & there and workload.counts()["ready"] == 2

    lws.wait_for(back, "the group to be back", timeout_s=60)
    assert other <= {each["metadata"]["uid"] for each in workload.pods()}, "it was left alone"
    assert workload.replicas() == 2


def test_a_hand_on_the_count_is_corrected_a_new_leader_stamps_and_another_scaler_stops_us(
    lws: Cluster, namespace: str, servers: ModelServers, daemon: Daemon, tmp_path: Path
) -> None:
    workload = Groups(lws, namespace, group_manifest("fenced", {"minReplicas": 1, "maxReplicas": 1}))
    workload.wait_ready(1)
    lws.kubectl(
        "scale", f"leaderworkerset/{workload.deployment()['metadata']['name']}", "-n", namespace, "--replicas=2"
    )
    workload.wait_replicas(1)
    there = msgspec.json.decode(json.dumps(workload.deployment()), type=Scalable)
    assert foreign_writer(there) is None, "the last writer of the count is we"
    pods = {workload.member(0, index)["metadata"]["uid"] for index in (0, 1)}

    daemon.stop()
    second = daemon.another("tidegate-1", tmp_path / "second")
    try:
        second.start()
        before = epoch_of(there.metadata) or 0

        def stamp() -> int:
            return int(workload.deployment()["metadata"]["annotations"]["tidegate.dev/epoch"])

        lws.wait_for(lambda: stamp() > before, "the stamp of the new leader", timeout_s=40)
        target = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": there.metadata.name}
        body = {"metadata": {"name": "hpa"}, "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3}}
        lws.create(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers", body)
        message = workload.wait_condition("Conflict", "True", "HorizontalPodAutoscaler")
        assert f"scales LeaderWorkerSet {there.metadata.name}" in message
        assert pods <= {each["metadata"]["uid"] for each in workload.pods()}, "no pod was touched"
    finally:
        second.stop()


def test_a_group_is_granted_whole_or_not_at_all_and_placed_as_asked(
    lws: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    quota = {"limits": {"default": {"nvidia.com/gpu": 8}}}
    start_daemon(projects={"team": {"namespaces": [namespace], "quota": quota}})
    body = group_manifest("llama", {"minReplicas": 3, "maxReplicas": 3})
    body["metadata"]["annotations"] = {"leaderworkerset.sigs.k8s.io/exclusive-topology": "kubernetes.io/hostname"}
    workload = Groups(lws, namespace, body)
    workload.wait_ready(2)
    assert workload.never(2, 3) == {2}, "a leader with 1 and a worker with 2: two groups are 6 of 8 GPUs"
    there = workload.deployment()["metadata"]["annotations"]
    assert there["leaderworkerset.sigs.k8s.io/exclusive-topology"] == "kubernetes.io/hostname"
    nodes = [{workload.member(group, index)["spec"]["nodeName"] for index in (0, 1)} for group in (0, 1)]
    assert all(len(each) == 1 for each in nodes)
    assert nodes[0] != nodes[1]


def _ready(pod: dict[str, object]) -> bool:
    status = pod["status"]
    assert isinstance(status, dict)
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
