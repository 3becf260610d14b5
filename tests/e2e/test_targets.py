"""Objects of others, scaled through /scale on the real control plane. StatefulSet and LeaderWorkerSet have their real
controllers; the operators of NIMService and DynamoGraphDeployment are imitations (tests/e2e/targets.py says of what).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.behind import behind
from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.targets import (
    ADAPTER,
    DYNAMO,
    GRAPH,
    NIM,
    NIM_SERVICE,
    Target,
    apply,
    dynamo_operator,
    install,
    nim_operator,
    running,
    stateful_set,
    target_manifest,
    template,
)
from tests.e2e.test_conflict import hpa
from tests.e2e.test_scaling import gateway
from tests.e2e.workload import group_manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.modelserver import ModelServers

CONCURRENCY = {"metric": "concurrency", "metricThreshold": 10}  # 7 a replica
SETS = "apps/v1/statefulsets"
ALLOWED = [
    {"apiVersion": "apps/v1", "kind": "Deployment", "resource": "deployments"},
    {"apiVersion": f"{NIM}/v1alpha1", "kind": "NIMService", "resource": "nimservices"},
    {
        "apiVersion": f"{DYNAMO}/v1alpha1",
        "kind": "DynamoGraphDeploymentScalingAdapter",
        "resource": "dynamographdeploymentscalingadapters",
    },
]
SEEN_S = 40.0  # a busy machine is no failure


def test_a_stateful_set_follows_the_load_down_after_the_delay_to_zero_and_back(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    apply(cluster, namespace, stateful_set("llama"))
    autoscaling = {
        "minReplicas": 0,
        "maxReplicas": 4,
        "activationReplicas": 2,
        "scaleDownDelaySeconds": 12,
        "scaleToZeroRetentionSeconds": 3,
        "activation": gateway(namespace, "llama"),
        **CONCURRENCY,
    }
    servers.set_load(namespace, "llama", concurrency=25, slots=100)
    workload = Target(cluster, namespace, target_manifest("llama", autoscaling), SETS)
    workload.wait_replicas(4, SEEN_S)
    workload.wait_ready(4, SEEN_S)
    assert workload.told("SuccessfulRescale")
    assert ("tidegate", "scale") in _writers(workload), "a scale of 0 has no field, so later its writer is not told"
    time.sleep(8)  # a stable window of this load, so that only the delay holds it afterwards
    calm_at = servers.set_load(namespace, "llama", concurrency=1, slots=100)
    workload.never(4, 8)
    workload.wait_replicas(2, timeout_s=60)  # activationReplicas is the least beside zero
    assert time.time() - calm_at >= 10, "the delay's slots are 2 s wide"

    servers.set_load(namespace, "llama", concurrency=0)
    workload.wait_replicas(0, timeout_s=60)
    cluster.wait_for(lambda: not workload.pods(), "the last pod to go")
    cluster.wait_for(lambda: "at zero" in workload.status()["phaseMessage"], "the message")
    servers.set_load(namespace, "llama", rps=1, slots=100)
    workload.wait_replicas(2, SEEN_S)
    workload.wait_ready(2, SEEN_S)

    there = workload.deployment()
    assert "tidegate" not in str(there["metadata"]["annotations"]), "nothing of it is ours but the count"
    assert ("tidegate", "") not in _writers(workload)
    status = workload.status()
    assert (status["currentRevision"], status["selector"]) == ("statefulsets.apps/llama", "app=llama")
    assert "url" not in status
    for kind in ("services", "deployments", "controllerrevisions"):
        assert cluster.kubectl("get", kind, "-n", namespace, "-l", "tidegate.dev/workload", "-o", "name") == ""
    cluster.kubectl("delete", "iw", "llama", "-n", namespace)
    time.sleep(2)
    assert workload.replicas() == 2, "it stays when the workload goes"


def _writers(workload: Target) -> set[tuple[str, str]]:
    """Who wrote what is there, and by way of which subresource."""
    entries = workload.deployment()["metadata"]["managedFields"]
    return {(each["manager"], each.get("subresource", "")) for each in entries}


def test_a_set_that_is_paused_set_by_hand_and_stopped(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    apply(cluster, namespace, stateful_set("llama", replicas=2))
    servers.set_load(namespace, "llama", concurrency=14, slots=100)
    body = target_manifest("llama", {"minReplicas": 1, "maxReplicas": 8, **CONCURRENCY}, mode="paused")
    workload = Target(cluster, namespace, body, SETS)
    workload.wait_condition("Paused", "True", timeout_s=SEEN_S)
    servers.set_load(namespace, "llama", concurrency=42, slots=100)
    assert workload.never(2, 4) == {2}
    cluster.kubectl("scale", "statefulset", "llama", "-n", namespace, "--replicas=5")
    workload.wait_replicas(2, SEEN_S)
    workload.patch({"mode": "active", "replicas": 3})
    workload.wait_replicas(3, SEEN_S)
    workload.patch({"replicas": None})
    workload.wait_replicas(6, SEEN_S)
    workload.patch({"desiredPhase": "Stopped"})
    workload.wait_replicas(0, SEEN_S)
    cluster.wait_for(lambda: workload.status()["phase"] == "Stopped", "the phase Stopped", SEEN_S)
    workload.patch({"desiredPhase": "Running"})
    workload.wait_ready(1, SEEN_S)


def test_the_pods_of_a_target_are_charged_to_the_project(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    quota = {"limits": {"default": {"nvidia.com/gpu": 3}}}
    daemon = start_daemon(projects={"team": {"namespaces": [namespace], "quota": quota}})
    apply(cluster, namespace, stateful_set("llama", replicas=0))
    servers.set_load(namespace, "llama", concurrency=42, slots=100)
    body = target_manifest("llama", {"minReplicas": 1, "maxReplicas": 8, **CONCURRENCY})
    workload = Target(cluster, namespace, body, SETS)
    workload.wait_replicas(3, SEEN_S)
    workload.wait_condition("ScalingLimited", "True", "QuotaLimited")
    assert workload.never(3, 3) == {3}
    assert f'tidegate_gpus{{namespace="{namespace}",state="ready",workload="llama"}} 3.0' in daemon.get("/metrics")[1]


def test_groups_of_another_owner_count_as_groups_and_their_leaders_alone_are_measured(
    lws: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    """The LeaderWorkerSet of `group_manifest`, applied as it is instead of by us."""
    groups = group_manifest("llama", {})["spec"]["serving"]["leaderWorkerSet"]
    for part in ("leaderTemplate", "workerTemplate"):
        groups[part]["metadata"]["labels"] = template("llama", {})["metadata"]["labels"]
    groups["workerTemplate"]["metadata"]["annotations"] = {"pod-ready.stage.kwok.x-k8s.io/delay": "6s"}
    spec = {"replicas": 1, "leaderWorkerTemplate": groups}
    kind = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"}
    apply(lws, namespace, {**kind, "metadata": {"name": "llama"}, "spec": spec})
    servers.set_load(namespace, "llama", concurrency=18, slots=100)
    body = target_manifest("llama", {"minReplicas": 1, "maxReplicas": 3, **CONCURRENCY}, ref=kind)
    workload = Target(lws, namespace, body, "leaderworkerset.x-k8s.io/v1/leaderworkersets")
    lws.wait_for(lambda: workload.status()["counts"].get("starting") == 1, "a leader without its worker", SEEN_S)
    assert workload.status()["counts"]["ready"] == 0
    workload.wait_replicas(3, SEEN_S)
    workload.wait_ready(3, SEEN_S)
    assert len(workload.pods()) == 6
    assert servers.state()[f"{namespace}/llama"]["worker_pages"] == 0


def test_a_nim_service_has_no_scale_and_the_deployment_that_its_operator_makes_has(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    install(cluster, NIM_SERVICE)
    start_daemon(targetKinds=ALLOWED)
    service = {"apiVersion": f"{NIM}/v1alpha1", "kind": "NIMService", "metadata": {"name": "llama"}, "spec": {}}
    with running(cluster, namespace, nim_operator):
        apply(cluster, namespace, service)
        servers.set_load(namespace, "llama", concurrency=25, slots=100)
        ref: dict[str, Any] = {"apiVersion": f"{NIM}/v1alpha1", "kind": "NIMService"}
        body = target_manifest("llama", {"minReplicas": 1, "maxReplicas": 8, **CONCURRENCY}, ref=ref)
        workload = Target(cluster, namespace, body, "apps/v1/deployments")
        message = workload.wait_condition("AbleToScale", "False", "FailedGetScale", SEEN_S)
        assert message.startswith("NIMService llama has no scale subresource, so nobody can scale it; name the object")

        workload.patch({"serving": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment"}}})
        _follows_the_load(servers, workload)
        workload.wait_condition("AbleToScale", "True")

        apply(cluster, namespace, {**service, "spec": {"replicas": 2}})
        message = workload.wait_condition("Conflict", "True", "ForeignManager", 90)
        assert message.startswith("nim-operator (last at 20")


def test_a_service_of_a_dynamo_graph_is_scaled_by_its_scaling_adapter(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    install(cluster, GRAPH, ADAPTER)
    start_daemon(targetKinds=ALLOWED)
    graph = {"services": {"Frontend": {"replicas": 1}, "decode": {"replicas": 1}}}
    adapter = {"replicas": 1, "dgdRef": {"name": "llama", "serviceName": "decode"}}
    version = f"{DYNAMO}/v1alpha1"
    kind = {"apiVersion": version, "kind": "DynamoGraphDeploymentScalingAdapter"}
    meta = {"name": "llama"}
    apply(cluster, namespace, {"apiVersion": version, "kind": "DynamoGraphDeployment", "metadata": meta, "spec": graph})
    apply(cluster, namespace, {**kind, "metadata": {"name": "llama-decode"}, "spec": adapter})
    body = target_manifest("llama-decode", {"minReplicas": 1, "maxReplicas": 8, **CONCURRENCY}, ref=kind)
    workload = Target(cluster, namespace, body, f"{version}/dynamographdeploymentscalingadapters")
    message = workload.wait_condition("AbleToScale", "False", "FailedGetScale", SEEN_S)
    assert "tells no selector" in message
    with running(cluster, namespace, dynamo_operator):
        _follows_the_load(servers, workload)
        graphs = f"/apis/{version}/namespaces/{namespace}/dynamographdeployments/llama"
        cluster.wait_for(lambda: cluster.get(graphs)["spec"]["services"]["decode"]["replicas"] == 1, "one decoder")
        assert cluster.get(graphs)["spec"]["services"]["Frontend"]["replicas"] == 1


def _follows_the_load(servers: ModelServers, workload: Target) -> None:
    """25 requests in flight need 4, and 3 need 1."""
    servers.set_load(workload.namespace, workload.name, concurrency=25, slots=100)
    workload.wait_replicas(4, 60)
    workload.wait_ready(4, SEEN_S)
    servers.set_load(workload.namespace, workload.name, concurrency=3, slots=100)
    workload.wait_replicas(1, 60)


def test_what_cannot_be_scaled_is_refused_with_what_to_change(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    autoscaling = {"minReplicas": 1, "maxReplicas": 4, **CONCURRENCY}
    other = Target(cluster, namespace, target_manifest("other", autoscaling, ref={"kind": "ReplicaSet"}), SETS)
    message = other.wait_condition("ScalingActive", "False", "InvalidConfiguration", SEEN_S)
    allowed = "apps/v1 Deployment, apps/v1 StatefulSet, leaderworkerset.x-k8s.io/v1 LeaderWorkerSet"
    assert message == (
        f"spec.serving.targetRef is apps/v1 ReplicaSet; allowed by the configuration's targetKinds: {allowed}"
    )
    gone = Target(cluster, namespace, target_manifest("gone", autoscaling), SETS)
    message = gone.wait_condition("AbleToScale", "False", "FailedGetScale", SEEN_S)
    assert message.startswith(f"StatefulSet gone does not exist in namespace {namespace}: create it, or name another")
    apply(cluster, namespace, stateful_set("gone"))
    gone.wait_ready(1, SEEN_S)

    second = target_manifest("zweite", autoscaling, ref={"name": "gone"})
    workload = Target(cluster, namespace, second, SETS)
    message = workload.wait_condition("Conflict", "True", "InferenceWorkload", SEEN_S)
    assert message.startswith("InferenceWorkload gone scales StatefulSet gone: one alone may;")
    body = hpa("rival", "Deployment", "gone")
    body["spec"]["scaleTargetRef"]["kind"] = "StatefulSet"
    apply(cluster, namespace, body)
    message = gone.wait_condition("Conflict", "True", "HorizontalPodAutoscaler", SEEN_S)
    assert message.startswith("HorizontalPodAutoscaler rival scales StatefulSet gone: delete it")

    knative = target_manifest("kn", autoscaling, ref={"apiVersion": "serving.knative.dev/v1", "kind": "Service"})
    status, answer = cluster.request(
        "POST", f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads", knative
    )
    assert status == 422
    assert "set autoscaling.knative.dev/min-scale, max-scale, metric and target on the Knative Service" in str(answer)


@pytest.fixture
def proxy(cluster: Cluster) -> Any:
    with FaultProxy(cluster.url, cluster.ca_path) as running_proxy:
        yield running_proxy


def test_observe_writes_nothing_tells_what_it_would_do_and_active_goes_on_from_there(
    cluster: Cluster, namespace: str, servers: ModelServers, proxy: FaultProxy, tmp_path: Path
) -> None:
    with behind(cluster, proxy, namespace, tmp_path, {}) as daemon:
        apply(cluster, namespace, stateful_set("llama", replicas=2))
        servers.set_load(namespace, "llama", concurrency=14, slots=100)
        body = target_manifest("llama", {"minReplicas": 1, "maxReplicas": 8, **CONCURRENCY}, mode="observe")
        workload = Target(cluster, namespace, body, SETS)
        workload.wait_ready(2, SEEN_S)
        servers.set_load(namespace, "llama", concurrency=42, slots=100)
        note = "recommends 6, 2 are there; reason: concurrency: "
        cluster.wait_for(
            lambda: any(each.startswith(note) for each in workload.events("RecommendationChanged")), "the event", SEEN_S
        )
        assert workload.never(2, 3) == {2}
        line = cluster.kubectl("get", "iw", "llama", "-n", namespace, "--no-headers").split()
        assert line[:5] == ["llama", "Running", "Observe", "2", "6"]
        assert workload.condition("ScalingActive")["message"] == "mode is observe: nothing is written"
        page = daemon.daemon.get("/metrics")[1]
        assert f'tidegate_observe_only{{namespace="{namespace}",workload="llama"}} 1.0' in page
        cluster.kubectl("scale", "statefulset", "llama", "-n", namespace, "--replicas=3")
        workload.wait_ready(3, SEEN_S)
        assert workload.never(3, 3) == {3}, "its owner's count is left alone"
        written = {each.path.partition("?")[0] for each in proxy.exchanges() if each.is_write}
        ours = ("/leases", "/events", "/inferenceworkloads/llama/status")
        assert [path for path in written if not any(part in path for part in ours)] == []

        servers.set_load(namespace, "llama", concurrency=21, slots=100)
        time.sleep(8)  # a stable window of what three carry
        cluster.wait_for(lambda: daemon.daemon.explain("llama")["decision"]["desired"] == 3, "no other wish", SEEN_S)
        workload.patch({"mode": "active"})
        cluster.wait_for(lambda: workload.status()["scalingMode"] == "Auto", "the mode", SEEN_S)
        assert workload.never(3, 4) == {3}, "from the count that is there, not from one of long ago"
        servers.set_load(namespace, "llama", concurrency=42, slots=100)
        workload.wait_replicas(6, SEEN_S)
