"""Signals that only a Prometheus has: queries of the configuration, and GPUs. The pods' own pages are read as ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartDaemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers
from tests.realcluster.page import Page, dcgm_page
from tests.realcluster.prometheus import Prometheus

PENDING = 'sum(gateway_pending{ns="{namespace}", service="{workload}"})'


class Exporters:
    """An imitated gateway and an imitated DCGM exporter: what they show is what the test sets."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self.pending: dict[str, float] = {}  # by workload
        self.busy: dict[str, float] = {}  # percent of one GPU that all pods of a workload share

    def gateway(self) -> str:
        lines = [f'gateway_pending{{ns="{self._namespace}",service="{name}"}} {n}' for name, n in self.pending.items()]
        return "\n".join([*lines, "gateway_up 1"]) + "\n"

    def dcgm(self) -> str:
        found = {}
        for workload, percent in self.busy.items():
            selector = f"labelSelector=tidegate.dev/workload={workload}"
            pods = self._cluster.get(f"/api/v1/namespaces/{self._namespace}/pods?{selector}")["items"]
            for pod in pods:
                found[self._namespace, pod["metadata"]["name"]] = [(min(100.0, percent / len(pods)), 20_000.0)]
        return dcgm_page(found)


@pytest.fixture
def exporters(cluster: Cluster, namespace: str) -> Exporters:
    return Exporters(cluster, namespace)


@pytest.fixture
def config(cluster: Cluster, namespace: str, tmp_path: Path, exporters: Exporters) -> Iterator[dict[str, Any]]:
    """Of a daemon that reads the pods itself and has a Prometheus besides."""
    with Page(exporters.gateway) as gateway, Page(exporters.dcgm) as dcgm:
        jobs = (gateway.job("gateway"), dcgm.job("dcgm"))
        with Prometheus(cluster, namespace, tmp_path / "prometheus", more_jobs=jobs) as running:
            yield {
                "prometheus": {"url": running.url, "scrapeInterval": "1s"},
                "queries": {"gateway-pending": {"query": PENDING}},
            }


def test_one_workload_follows_a_query_and_another_its_gpus(
    cluster: Cluster,
    namespace: str,
    servers: ModelServers,
    exporters: Exporters,
    config: dict[str, Any],
    start_daemon: StartDaemon,
) -> None:
    start_daemon(**config)
    exporters.pending["asked"], exporters.busy["busy"] = 35, 200
    bounds = {"minReplicas": 1, "maxReplicas": 8}
    asked = Workload(
        cluster, namespace, manifest("asked", bounds | {"metric": "gateway-pending", "metricThreshold": 10})
    )
    busy = Workload(cluster, namespace, manifest("busy", bounds | {"metric": "gpu_utilization", "metricThreshold": 70}))
    asked.wait_replicas(4)
    busy.wait_replicas(3)  # two GPUs' worth of work, of which one replica carries 0.7
    for workload, count in ((asked, 4), (busy, 3)):
        workload.wait_ready(count)
        workload.wait_condition("Fallback", "False", "MetricsFresh")
    cluster.wait_for(
        lambda: [each["name"] for each in busy.status()["signals"]] == ["gpu_utilization"], "the name as it was written"
    )
    time.sleep(7)  # a stable window in which all is known
    assert (asked.replicas(), busy.replicas()) == (4, 3)

    exporters.pending.clear()
    exporters.busy.clear()
    said = asked.wait_condition("Fallback", "True", "ScaleDownHeld")
    assert "query gateway-pending: Prometheus: no samples" in said
    assert "Prometheus: no samples" in busy.wait_condition("Fallback", "True", "ScaleDownHeld")
    assert (asked.never(4, 10), busy.never(3, 2)) == ({4}, {3})

    exporters.pending["asked"], exporters.busy["busy"] = 3, 30
    asked.wait_replicas(1, timeout_s=60)
    busy.wait_replicas(1, timeout_s=60)


def test_a_query_wakes_a_workload_and_its_silence_puts_none_to_zero(
    cluster: Cluster,
    namespace: str,
    servers: ModelServers,
    exporters: Exporters,
    config: dict[str, Any],
    start_daemon: StartDaemon,
) -> None:
    start_daemon(**config)
    autoscaling = {"minReplicas": 0, "maxReplicas": 2, "metric": "concurrency", "metricThreshold": 10}
    body = manifest("llama", autoscaling | {"activation": {"query": "gateway-pending"}})
    workload = Workload(cluster, namespace, body)
    workload.wait_ready(1)
    workload.wait_condition("ScalingLimited", "True", "ActivationUnknown")
    workload.never(1, 8)
    exporters.pending["llama"] = 0
    workload.wait_replicas(0, timeout_s=60)
    exporters.pending.clear()
    time.sleep(5)
    assert workload.replicas() == 0, "what is unknown wakes nobody"
    exporters.pending["llama"] = 1
    workload.wait_replicas(1)


def test_what_cannot_be_named_or_asked_is_said(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    start_daemon()
    bounds = {"minReplicas": 1, "maxReplicas": 8}
    unknown = Workload(
        cluster, namespace, manifest("unknown", bounds | {"metric": "gateway-pendign", "metricThreshold": 1})
    )
    said = unknown.wait_condition("ScalingActive", "False", "InvalidConfiguration")
    assert "autoscaling.metric is 'gateway-pendign', which pods cannot expose" in said
    assert said.endswith("the configuration's queries are: none")
    gpus = Workload(cluster, namespace, manifest("gpus", bounds | {"metric": "gpu_utilization", "metricThreshold": 70}))
    said = gpus.wait_condition("ScalingActive", "False", "MetricsUnavailable")
    assert "needs a Prometheus: set prometheus.url in the configuration" in said
