"""The seven series of the guides, on the daemon's page, from pods that serve load; and the switch that ends them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

FROM_PODS = {
    "inference_request_count",
    "inference_request_latency",
    "inference_throughput",
    "inference_active_requests",
}
NAMES = FROM_PODS | {"replica_count", "gpu_utilization", "gpu_memory_used"}


def series(daemon: Daemon, workload: str) -> dict[str, float]:
    """Name, with its quantile, -> value."""
    found = {}
    for family in text_string_to_metric_families(daemon.get("/metrics")[1]):
        for sample in family.samples:
            labels = dict(sample.labels)
            if sample.name in NAMES and labels.pop("workload") == workload:
                assert labels.pop("namespace") == daemon.namespace
                found[" ".join((sample.name, *labels.values()))] = sample.value
    return found


def test_the_series_of_the_guides_tell_what_the_pods_do_and_absent_is_no_series(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    """One is autoscaled on its cache, one has a fixed size: both are told, whatever their signals."""
    kv_cache = {"minReplicas": 2, "maxReplicas": 3, "metric": "kv-cache"}
    scaled = Workload(cluster, namespace, manifest("scaled", kv_cache))
    fixed = Workload(cluster, namespace, manifest("fixed", {"minReplicas": 1}))  # a size, and no metric
    blind = Workload(cluster, namespace, manifest("blind", {"minReplicas": 1}))
    servers.set_fault(namespace, "blind", "http 500")
    servers.set_load(namespace, "scaled", concurrency=20, slots=100, service_time_s=0.6)
    servers.set_load(namespace, "fixed", rps=5, slots=100, service_time_s=0.4)
    for workload, replicas in ((scaled, 2), (fixed, 1), (blind, 1)):
        workload.wait_ready(replicas)

    def busy() -> bool:
        found = series(daemon, "scaled")
        return (
            found.get("inference_active_requests") == 20
            and found.get("replica_count") == 2
            and 20 <= found.get("inference_throughput", 0) <= 45  # 20 / 0.6 s, between two pages
            and 0.5 < found.get("inference_request_latency 0.5", 0) <= 0.8  # 0.6 s, in the bucket from 0.5 to 0.8
        )

    cluster.wait_for(busy, "what the pods do")
    found = series(daemon, "scaled")
    assert found.keys() == {
        "inference_request_count",
        "inference_request_latency 0.5",
        "inference_request_latency 0.95",
        "inference_request_latency 0.99",
        "inference_throughput",
        "inference_active_requests",
        "replica_count",
    }, "no gpu_*: nothing reads DCGM's exporter"
    assert {"requests", "latencyP99Seconds", "throughput", "replicas"} <= daemon.explain("scaled")["measures"].keys()
    counted = found["inference_request_count"]
    cluster.wait_for(lambda: series(daemon, "scaled")["inference_request_count"] >= counted + 50, "the count to grow")
    counted = series(daemon, "scaled")["inference_request_count"]
    served = sum(pod["served"] for pod in servers.state()[f"{namespace}/scaled"]["pods"].values())
    assert counted <= served, "not more than they have served since"

    cluster.wait_for(lambda: len(series(daemon, "fixed")) == 7, "those of the fixed size")
    assert series(daemon, "blind") == {"replica_count": 1.0}, "its page is missing: not a zero"
    assert blind.condition("Fallback")["status"] == "False", "nothing is decided by it"
    assert daemon.explain("blind")["decision"]["faults"] == []

    servers.set_fault(namespace, "scaled", "http 500")
    cluster.wait_for(lambda: series(daemon, "scaled") == {"replica_count": 2.0}, "old values to go")


def test_metrics_republish_false_ends_them(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(metrics={"republish": False})
    servers.set_load(namespace, "llama", concurrency=3, slots=100)
    asked = {"minReplicas": 1, "maxReplicas": 2, "metric": "concurrency", "metricThreshold": 10}
    workload = Workload(cluster, namespace, manifest("llama", asked))
    workload.wait_ready(1)
    value = f'tidegate_signal_value{{namespace="{namespace}",signal="concurrency",workload="llama"}} 3.0'
    cluster.wait_for(lambda: value in daemon.get("/metrics")[1], "the signal itself")
    assert series(daemon, "llama") == {}
