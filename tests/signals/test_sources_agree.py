"""Every signal of the same pods, read from their pages and from a real Prometheus: the same values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from autoscaler.model.signal import Quality, Sample, SignalSpec
from autoscaler.model.workload import Engine, WorkloadKey
from autoscaler.signals.aggregates import Labels
from autoscaler.signals.engines import NEEDS
from autoscaler.signals.prometheus import Access
from autoscaler.signals.prometheus_pods import PrometheusPods
from autoscaler.signals.scraper import PodScraper
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.e2e.workload import PORT
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers
from tests.realcluster.prometheus import Prometheus

SIGNALS = tuple(SignalSpec(name, 1.0, 1.0) for name in NEEDS)
STEADY_S = 20.0  # longer than the window of percentiles


def deployment(replicas: int) -> dict[str, object]:
    labels = {"tidegate.dev/workload": "llama"}
    container = {"name": "vllm", "image": "none", "ports": [{"containerPort": PORT}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "metadata": {"name": "llama"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def ready_pods(cluster: Cluster, namespace: str) -> tuple[PodAddress, ...]:
    return tuple(
        PodAddress(pod["metadata"]["name"], pod["metadata"]["uid"], pod["status"]["podIP"])
        for pod in cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        if any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
    )


def _mean(samples: Sequence[Sample]) -> float:
    """Of the last ten seconds: the two look at the pods at different instants."""
    last = [sample.value for sample in samples][-10:]
    return sum(last) / len(last)


async def test_every_signal_has_the_same_value_from_both(
    cluster: Cluster, namespace: str, prometheus: Prometheus
) -> None:
    cluster.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment(2))
    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace) as servers:
        servers.set_load(namespace, "llama", rps=20, slots=6, service_time_s=0.5)
        await asyncio.to_thread(cluster.wait_for, lambda: len(ready_pods(cluster, namespace)) == 2, "two ready pods")
        target = ScrapeTarget(PORT, "/metrics", Engine.AUTO, SIGNALS, ready_pods(cluster, namespace))
        key = WorkloadKey(namespace, "llama")
        pages = PodScraper(time.time)
        asked = PrometheusPods(time.time, Access(prometheus.url), Labels(), 1.0)
        running = [asyncio.create_task(source.run()) for source in (pages, asked)]
        for source in (pages, asked):
            source.set_targets({key: target})
        await asyncio.sleep(STEADY_S)
        now = time.time()
        ours, theirs = pages.readings(now)[key], asked.readings(now)[key]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert theirs.engine == ours.engine == "vllm"
    for name in NEEDS:
        page, answer = ours.readings[name], theirs.readings[name]
        print(name, page.value, answer.value, answer.age_s)
        assert (page.quality, answer.quality) == (Quality.FRESH, Quality.FRESH), (name, answer)
        assert _mean(answer.samples) == pytest.approx(_mean(page.samples), rel=0.2, abs=0.1), name
    assert theirs.activity.value == pytest.approx(ours.activity.value, rel=0.5)
