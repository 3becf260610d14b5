"""A Prometheus, its queries and its exporter's labels come and go while the daemon runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from autoscaler.cluster.client import KubernetesClient
from autoscaler.daemon import Daemon
from autoscaler.model.workload import Engine, RevisionKey, WorkloadKey
from autoscaler.settings.load import LoadedConfig, parse
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.signals.pods import Pod, until

WITH = """
prometheus:
  url: http://prometheus.test
  scrapeInterval: 20s
  match: {cluster: gpu-1}
  dcgm: {labels: {namespace: namespace, pod: pod}, scrapeInterval: 30s}
queries:
  pending: {query: sum(pending), interval: 5s}
"""


def loaded(text: str) -> LoadedConfig:
    return parse(text.encode(), {}, name="config.yaml")


async def test_what_needs_a_prometheus_follows_the_configuration(tmp_path: Path) -> None:
    daemon = Daemon(cast(KubernetesClient, object()), loaded(""), tmp_path / "config.yaml")
    assert (daemon._sources.has_prometheus, daemon._queries._queries) == (False, {})

    daemon._take_prometheus(loaded(WITH).config)
    assert daemon._sources.has_prometheus
    assert {name: query.interval_s for name, query in daemon._queries._queries.items()} == {"pending": 5.0}
    assert (daemon._queries._access.url, daemon._gpus._access.url) == ("http://prometheus.test",) * 2
    assert daemon._gpus.period_s == 30.0
    labels = daemon._gpus._labels
    assert (labels.namespace, labels.pod, labels.match) == ("namespace", "pod", (("cluster", "gpu-1"),))

    daemon._take_prometheus(loaded("").config)
    assert (daemon._sources.has_prometheus, daemon._queries._queries) == (False, {})
    assert (daemon._gpus.period_s, daemon._gpus._labels.pod) == (15.0, "exported_pod")


@pytest.mark.parametrize("source", ["pods", "prometheus"])
async def test_requests_are_counted_on_the_pods_pages_whoever_brings_the_signals(tmp_path: Path, source: str) -> None:
    pod = Pod("127.0.0.31")
    port = await pod.start()
    pod.page = (
        b"vllm:num_requests_running 2\nvllm:num_requests_waiting 1\n"
        b'vllm:request_success_total{finished_reason="stop"} 7\n'
    )
    config = loaded(f"{WITH}\nsignals: {{source: {source}}}\nscrape: {{period: 200ms}}\n")
    daemon = Daemon(cast(KubernetesClient, object()), config, tmp_path / "config.yaml")
    key = RevisionKey(WorkloadKey("ml", "llama"), "llama-2")
    target = ScrapeTarget(port, "/metrics", Engine.AUTO, (), (PodAddress("p", "u", pod.ip),), counters=True)
    daemon._sources.set_targets({key: target})

    def in_flight() -> int | None:
        requests = daemon._sources.readings(daemon._clock.now())[key].requests
        return requests.in_flight if requests is not None else None

    parts = daemon._parts()
    assert ("counters" in parts) is (source == "prometheus")
    running = [asyncio.ensure_future(parts[name]()) for name in ("signals", "counters") if name in parts]
    try:
        await until(lambda: in_flight() == 3)
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await pod.stop()
