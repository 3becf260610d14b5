"""A Prometheus, its queries and its exporter's labels come and go while the daemon runs."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from autoscaler.cluster.client import KubernetesClient
from autoscaler.daemon import Daemon
from autoscaler.settings.load import LoadedConfig, parse

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
