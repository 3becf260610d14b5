"""The test control plane keeps its promises: real objects, asked-for delays, local pod addresses, real crashes."""

from __future__ import annotations

from typing import Any

from tests.realcluster.cluster import Cluster


def deployment(name: str, replicas: int, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "server", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    template = {
        "metadata": {"labels": labels, "annotations": annotations or {}},
        "spec": {"containers": [container]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return items


def ready_pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    return [pod for pod in pods(cluster, namespace) if _condition(pod, "Ready")["status"] == "True"]


def _condition(pod: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((entry for entry in pod["status"].get("conditions", ()) if entry["type"] == kind), {"status": "?"})


def test_gpu_pods_become_ready_at_once_by_default(cluster: Cluster, namespace: str) -> None:
    cluster.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment("llama", 3))
    cluster.wait_for(lambda: len(ready_pods(cluster, namespace)) == 3, "3 ready pods", timeout_s=5)
    assert {pod["spec"]["nodeName"] for pod in pods(cluster, namespace)} <= {"gpu-0", "gpu-1"}
