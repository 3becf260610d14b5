"""Imitated model servers on the real control plane, read by the real scraper: what is offered is what is read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autoscaler.model.signal import Activation, Quality, Reading, SignalSpec
from autoscaler.model.workload import ActivationSpec, Engine, TargetKey, WorkloadKey
from autoscaler.signals.activation import ActivationPages
from autoscaler.signals.scraper import PodScraper
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers
from tests.realcluster.waiting import wait_for, wait_for_async

SIGNALS = tuple(SignalSpec(name, 1.0, 1.0, 0.5) for name in ("concurrency", "throughput", "latency", "kv-cache"))


class Workload:
    """A Deployment of KWOK pods called llama, and how the test looks at it."""

    def __init__(self, cluster: Cluster, namespace: str, replicas: int) -> None:
        self.cluster = cluster
        self.namespace = namespace
        labels = {"tidegate.dev/workload": "llama"}
        container = {"name": "server", "image": "none", "ports": [{"containerPort": 8011}]}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "llama"}, "spec": spec}
        cluster.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", body)
        wait_for(lambda: len(self.addresses()) == replicas, f"{replicas} pods")

    def scale(self, replicas: int) -> None:
        self.cluster.kubectl("-n", self.namespace, "scale", "deployment/llama", f"--replicas={replicas}")
        wait_for(lambda: len(self.addresses()) == replicas, f"{replicas} pods")

    def addresses(self) -> tuple[PodAddress, ...]:
        """The Ready pods."""
        items: list[dict[str, Any]] = self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return tuple(
            PodAddress(pod["metadata"]["name"], pod["metadata"]["uid"], pod["status"]["podIP"])
            for pod in items
            for condition in pod["status"].get("conditions", ())
            if (condition["type"], condition["status"]) == ("Ready", "True")
        )

    @property
    def target(self) -> dict[TargetKey, ScrapeTarget]:
        key = WorkloadKey(self.namespace, "llama")
        return {key: ScrapeTarget(8011, "/metrics", Engine.AUTO, SIGNALS, self.addresses())}


@contextlib.asynccontextmanager
async def running(*parts: PodScraper | ActivationPages) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_scraper_reads_what_is_offered(cluster: Cluster, namespace: str) -> None:
    workload = Workload(cluster, namespace, 3)
    key = WorkloadKey(namespace, "llama")
    scraper = PodScraper(time.time, period_s=0.25)

    def reading(name: str) -> Reading:
        return scraper.readings(time.time())[key].readings[name]

    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace) as servers:
        wait_for(lambda: len(servers.state()[str(key)]["pods"]) == 3, "3 servers")
        scraper.set_targets(workload.target)
        async with running(scraper):
            offered_at = servers.set_load(namespace, "llama", concurrency=30, slots=8, service_time_s=1.0)
            await wait_for_async(lambda: reading("concurrency").value == 30.0, "30 in flight")
            shown_at = servers.first_page_with(namespace, "llama", lambda in_flight: in_flight >= 30, offered_at)
            assert shown_at is not None
            assert offered_at < shown_at < time.time()
            await wait_for_async(lambda: (reading("latency").value or 0) > 0.5, "a latency")
            assert reading("concurrency").quality is Quality.FRESH
            assert 0.5 < (reading("kv-cache").value or 0) <= 1.0

            servers.set_fault(namespace, "llama", "time-out", pods=1)
            await wait_for_async(lambda: reading("concurrency").quality is Quality.PARTIAL, "a partial reading")
            assert reading("concurrency").value == 30.0
            servers.set_fault(namespace, "llama", "refuse")
            await wait_for_async(lambda: reading("concurrency").quality is Quality.STALE, "a stale reading")
            await wait_for_async(
                lambda: {fault.reason for fault in reading("concurrency").faults} == {"refused"}, "refusals"
            )
            servers.set_fault(namespace, "llama", "ok")
            servers.set_load(namespace, "llama", concurrency=0)
            await wait_for_async(lambda: scraper.readings(time.time())[key].activity.value == 0.0, "idleness")
            assert scraper.readings(time.time())[key].activity.quality is Quality.FRESH


async def test_requests_wait_at_the_gateway_while_there_is_no_replica(cluster: Cluster, namespace: str) -> None:
    workload = Workload(cluster, namespace, 0)
    labels = (("namespace", namespace), ("workload", "llama"))
    pending = ActivationSpec("gateway", "gateway_pending_requests", labels)
    asked = ActivationSpec("gateway", "gateway_requests_total", labels)
    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace) as servers:
        pages = ActivationPages({"gateway": servers.gateway_url}, time.time, period_s=0.25, sticky_s=1.0)
        async with running(pages):
            for spec in (pending, asked):
                await wait_for_async(lambda spec=spec: pages.state(spec, time.time()) is Activation.IDLE, "idleness")  # type: ignore[misc]
            servers.set_load(namespace, "llama", rps=20)
            for spec in (pending, asked):
                await wait_for_async(lambda spec=spec: pages.state(spec, time.time()) is Activation.WAITING, "a wait")  # type: ignore[misc]
            await asyncio.to_thread(workload.scale, 1)
            await wait_for_async(lambda: pages.state(pending, time.time()) is Activation.IDLE, "all handed over")
            state = servers.state()[f"{namespace}/llama"]
            assert state["gateway_total"] > 0
            assert state["lost"] == 0


@pytest.mark.parametrize("process", ["kube-apiserver"])
def test_the_servers_outlive_a_restart_of_the_api_server(fresh_cluster: Cluster, process: str) -> None:
    namespace = fresh_cluster.create_namespace()
    workload = Workload(fresh_cluster, namespace, 1)
    with ModelServers(fresh_cluster.url, fresh_cluster.admin_token, fresh_cluster.ca_path) as servers:

        def listening() -> int:
            pods = servers.state().get(f"{namespace}/llama", {"pods": {}})["pods"]
            return sum(pod["listening"] for pod in pods.values())

        wait_for(lambda: listening() == 1, "one listener")
        fresh_cluster.kill(process)
        assert listening() == 1
        fresh_cluster.restart(process)
        workload.scale(2)
        wait_for(lambda: listening() == 2, "two listeners")
        workload.scale(0)
        wait_for(lambda: listening() == 0, "no listener")
