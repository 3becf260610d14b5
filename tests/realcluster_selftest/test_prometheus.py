"""The tests' Prometheus finds the pods by itself and shows what their model servers print."""

from __future__ import annotations

from typing import Any

from tests.e2e.workload import PORT
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers
from tests.realcluster.prometheus import Prometheus

STORED = "count_over_time(vllm:num_requests_running[1h]) >= 3"
RUNNING = "sum by (namespace, pod) (vllm:num_requests_running)"


def deployment(replicas: int) -> dict[str, Any]:
    labels = {"tidegate.dev/workload": "llama"}
    container = {"name": "vllm", "image": "none", "ports": [{"containerPort": PORT}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "metadata": {"name": "llama"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def test_the_model_servers_series_arrive_with_namespace_and_pod_and_a_kill_loses_only_time(
    cluster: Cluster, namespace: str, prometheus: Prometheus
) -> None:
    cluster.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment(2))

    def shown() -> dict[tuple[str, str], float]:
        found = prometheus.query(RUNNING)
        return {(each["metric"]["namespace"], each["metric"]["pod"]): float(each["value"][1]) for each in found}

    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace) as servers:
        servers.set_load(namespace, "llama", concurrency=6, slots=100)
        cluster.wait_for(lambda: sum(shown().values()) == 6, "six requests in Prometheus")
        pods = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        assert shown().keys() == {(namespace, pod["metadata"]["name"]) for pod in pods}

        cluster.wait_for(lambda: prometheus.query(STORED), "three samples")
        prometheus.kill()
        assert not prometheus.process.alive()
        servers.set_load(namespace, "llama", concurrency=8, slots=100)
        prometheus.start()
        assert prometheus.query(STORED), "what was stored is kept"
        cluster.wait_for(lambda: sum(shown().values()) == 8, "eight requests after a restart")

        prometheus.kill()
        prometheus.empty()
        servers.stop()
        prometheus.start()
        assert prometheus.query("vllm:num_requests_running") == []
