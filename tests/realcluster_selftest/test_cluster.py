"""The test control plane keeps its promises: real objects, asked-for delays, local pod addresses, real crashes."""

from __future__ import annotations

import json
import socket
import time
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError, WaitError

READY_DELAY = "pod-ready.stage.kwok.x-k8s.io/delay"
GRACEFUL = "pod-delete.stage.kwok.x-k8s.io/graceful"


def deployment(name: str, replicas: int, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """One GPU per pod."""
    labels = {"app": name}
    container = {"name": "server", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    template = {
        "metadata": {"labels": labels, "annotations": annotations or {}},
        "spec": {"containers": [container], **spec},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def deploy(cluster: Cluster, namespace: str, body: dict[str, Any]) -> None:
    cluster.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", body)


def pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return items


def ready_pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    return [pod for pod in pods(cluster, namespace) if condition(pod, "Ready").get("status") == "True"]


def condition(pod: dict[str, Any], kind: str) -> dict[str, str]:
    return next((entry for entry in pod["status"].get("conditions", ()) if entry["type"] == kind), {})


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def test_gpu_pods_become_ready_within_seconds_by_default(cluster: Cluster, namespace: str) -> None:
    deploy(cluster, namespace, deployment("llama", 3))
    cluster.wait_for(lambda: len(ready_pods(cluster, namespace)) == 3, "3 ready pods", timeout_s=5)
    assert {pod["spec"]["nodeName"] for pod in pods(cluster, namespace)} <= {"gpu-0", "gpu-1"}


def test_gpu_pods_become_ready_with_the_delay_that_their_template_asks_for(cluster: Cluster, namespace: str) -> None:
    deploy(cluster, namespace, deployment("llama", 3, {READY_DELAY: "3s"}))
    cluster.wait_for(lambda: len(ready_pods(cluster, namespace)) == 3, "3 ready pods", timeout_s=15)
    for pod in ready_pods(cluster, namespace):
        took = seconds_between(
            condition(pod, "Initialized")["lastTransitionTime"], condition(pod, "Ready")["lastTransitionTime"]
        )
        assert 3 <= took <= 4  # the API keeps whole seconds


def test_a_pod_that_asks_for_a_day_does_not_become_ready(cluster: Cluster, namespace: str) -> None:
    deploy(cluster, namespace, deployment("stuck", 1, {READY_DELAY: "24h"}))
    cluster.wait_for(lambda: pods(cluster, namespace)[0]["status"]["podIP"], "an address")
    with pytest.raises(WaitError, match=r"waited 1 s for a ready pod; last seen: \[\]"):
        cluster.wait_for(lambda: ready_pods(cluster, namespace), "a ready pod", timeout_s=1)


def test_an_address_of_a_pod_is_local(cluster: Cluster, namespace: str) -> None:
    deploy(cluster, namespace, deployment("llama", 1))
    pod = cluster.wait_for(lambda: ready_pods(cluster, namespace)[0], "a ready pod")
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((pod["status"]["podIP"], port), timeout=5):
            accepted, _ = server.accept()
            with accepted:
                assert accepted.getsockname() == (pod["status"]["podIP"], port)  # which pod was meant


def test_a_service_finds_its_ready_pods(cluster: Cluster, namespace: str) -> None:
    deploy(cluster, namespace, deployment("llama", 2))
    cluster.kubectl("-n", namespace, "expose", "deployment/llama", "--port=80", "--target-port=8000")
    cluster.wait_for(lambda: len(ready_pods(cluster, namespace)) == 2, "2 ready pods")
    addresses = {pod["status"]["podIP"] for pod in ready_pods(cluster, namespace)}
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"

    def serving() -> set[str]:
        endpoints = [each for item in cluster.get(slices)["items"] for each in item["endpoints"] or ()]
        return {each["addresses"][0] for each in endpoints if each["conditions"]["ready"]}

    cluster.wait_for(lambda: serving() == addresses, f"an EndpointSlice with {addresses}", timeout_s=10)


def test_kubectl_scale_changes_the_number_of_pods(cluster: Cluster, namespace: str) -> None:
    deploy(cluster, namespace, deployment("llama", 1))
    assert cluster.kubectl("-n", namespace, "scale", "deployment/llama", "--replicas=4").strip() == (
        "deployment.apps/llama scaled"
    )
    cluster.wait_for(lambda: len(ready_pods(cluster, namespace)) == 4, "4 ready pods")
    cluster.kubectl("-n", namespace, "scale", "deployment/llama", "--replicas=0")
    cluster.wait_for(lambda: not pods(cluster, namespace), "no pods", timeout_s=5)


def test_graceful_deletion_takes_the_grace_period(cluster: Cluster, namespace: str) -> None:
    deploy(cluster, namespace, deployment("llama", 1, {GRACEFUL: "true"}, terminationGracePeriodSeconds=4))
    cluster.wait_for(lambda: ready_pods(cluster, namespace), "a ready pod")
    started = time.monotonic()
    cluster.kubectl("-n", namespace, "scale", "deployment/llama", "--replicas=0")
    cluster.wait_for(lambda: not pods(cluster, namespace), "no pods", timeout_s=15)
    assert 2.9 <= time.monotonic() - started <= 6  # the API cuts the deadline to whole seconds


def test_no_more_pods_are_placed_than_there_are_gpus(cluster: Cluster, namespace: str) -> None:
    cluster.add_gpu_node("small", gpus=2, labels={"pool": namespace})
    deploy(cluster, namespace, deployment("llama", 3, nodeSelector={"pool": namespace}))
    cluster.wait_for(lambda: len(ready_pods(cluster, namespace)) == 2, "2 ready pods")
    unplaced = cluster.wait_for(
        lambda: [pod for pod in pods(cluster, namespace) if condition(pod, "PodScheduled").get("status") == "False"],
        "an unplaced pod",
    )
    assert "Insufficient nvidia.com/gpu" in condition(unplaced[0], "PodScheduled")["message"]
    cluster.request("DELETE", "/api/v1/nodes/small")


def test_two_namespaces_do_not_see_each_other(cluster: Cluster, namespace: str) -> None:
    other = cluster.create_namespace("other")
    deploy(cluster, namespace, deployment("llama", 1))
    cluster.wait_for(lambda: pods(cluster, namespace), "a pod")
    assert pods(cluster, other) == []
    cluster.delete_namespace(other)


def test_an_account_without_a_role_may_do_nothing(cluster: Cluster, namespace: str) -> None:
    token = cluster.service_account_token(namespace, "default")
    status, answer = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods", token=token)
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert "Forbidden" in cluster.kubectl("-n", namespace, "get", "pods", check=False, token=token)
    with pytest.raises(ClusterError, match="cannot list resource"):
        cluster.kubectl("-n", namespace, "get", "pods", token=token)


def test_an_account_with_a_role_may_do_what_it_says(cluster: Cluster, namespace: str) -> None:
    account = f"--serviceaccount={namespace}:default"
    cluster.kubectl("-n", namespace, "create", "rolebinding", "viewer", "--clusterrole=view", account)
    token = cluster.service_account_token(namespace, "default")
    path = f"/api/v1/namespaces/{namespace}/pods"
    cluster.wait_for(lambda: cluster.request("GET", path, token=token)[0] == 200, "the role to take effect")
    assert cluster.request("POST", path, {}, token=token)[0] == 403


def test_a_quota_is_enforced(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "quota", "gpus", "--hard=requests.nvidia.com/gpu=2")
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/gpus"
    cluster.wait_for(lambda: cluster.get(path)["status"]["hard"], "the quota to be counted")
    deploy(cluster, namespace, deployment("llama", 3))
    cluster.wait_for(lambda: len(ready_pods(cluster, namespace)) == 2, "2 ready pods")
    assert cluster.get(path)["status"]["used"] == {"requests.nvidia.com/gpu": "2"}


def test_versions_are_those_that_are_pinned(cluster: Cluster) -> None:
    assert cluster.request("GET", "/version")[1]["gitVersion"] == "v1.36.2"
    assert json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["minor"] == "36"
    assert cluster.helm("version", "--short").strip().partition("+")[0] == "v4.2.4"


def test_a_fresh_api_server_comes_back_after_sigkill_with_its_data(fresh_cluster: Cluster) -> None:
    namespace = fresh_cluster.create_namespace("kept")
    fresh_cluster.kill("kube-apiserver")
    with pytest.raises(ConnectionRefusedError):
        fresh_cluster.request("GET", "/readyz")
    fresh_cluster.restart("kube-apiserver")
    assert fresh_cluster.get(f"/api/v1/namespaces/{namespace}")["status"]["phase"] == "Active"
    deploy(fresh_cluster, namespace, deployment("llama", 2))  # the controllers have found it again
    found = fresh_cluster.wait_for(lambda: ready_pods(fresh_cluster, namespace)[1], "2 ready pods")
    assert ip_address(found["status"]["podIP"]) not in ip_network("10.244.0.0/17")  # the shared one's


def test_a_fresh_control_plane_survives_the_loss_of_all_its_processes(fresh_cluster: Cluster) -> None:
    namespace = fresh_cluster.create_namespace("kept")
    deploy(fresh_cluster, namespace, deployment("llama", 1))
    fresh_cluster.wait_for(lambda: ready_pods(fresh_cluster, namespace), "a ready pod")
    for name in fresh_cluster.processes:
        fresh_cluster.kill(name)
    fresh_cluster.processes["etcd"].start()
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"):
        fresh_cluster.restart(name)
    fresh_cluster.kubectl("-n", namespace, "scale", "deployment/llama", "--replicas=2")
    fresh_cluster.wait_for(lambda: len(ready_pods(fresh_cluster, namespace)) == 2, "2 ready pods")


def test_a_paused_api_server_is_silent_and_then_goes_on(cluster: Cluster) -> None:
    with cluster.fresh() as own:
        own.pause("kube-apiserver")
        with pytest.raises(TimeoutError):
            own.request("GET", "/readyz", timeout_s=1)
        own.resume("kube-apiserver")
        assert own.request("GET", "/readyz")[0] == 200
    assert not any(process.alive() for process in own.processes.values())
    assert cluster.request("GET", "/readyz")[0] == 200
