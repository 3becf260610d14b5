"""The same workloads by way of a real Prometheus: the same counts as from the pages, and nothing lowered without it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers
from tests.realcluster.prometheus import Prometheus
from tests.realcluster.prometheus_proxy import PrometheusProxy

AUTOSCALING = {"minReplicas": 1, "maxReplicas": 12, "metric": "concurrency", "metricThreshold": 10}
# a replica's target more or less at a time, so that the time that the way takes is not a difference of many replicas
UP, DOWN = (6, 13, 20, 27, 34, 41, 48), (41, 34, 27, 20, 13, 6)
STEP_S = 3.0
LATER_S = 4.0  # what Prometheus's own interval, our questions and the finding of new pods may cost
Counts = list[tuple[float, int]]


def by_prometheus(prometheus: Prometheus) -> dict[str, Any]:
    return {"signals": {"source": "prometheus"}, "prometheus": {"url": prometheus.url, "scrapeInterval": "1s"}}


@pytest.fixture
def other_namespace(cluster: Cluster) -> Iterator[str]:
    name = cluster.create_namespace("by-pods")
    yield name
    cluster.delete_namespace(name)


def test_the_same_load_gives_the_same_counts_as_from_the_pages(
    cluster: Cluster,
    namespace: str,
    other_namespace: str,
    servers: ModelServers,
    prometheus: Prometheus,
    start_daemon: StartDaemon,
    tmp_path: Path,
) -> None:
    start_daemon(**by_prometheus(prometheus))
    (tmp_path / "pods").mkdir()
    by_pages = Daemon(cluster, other_namespace, tmp_path / "pods", {})
    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, other_namespace) as other_servers:
        offered = ((namespace, servers), (other_namespace, other_servers))
        try:
            by_pages.start()
            workloads = [Workload(cluster, where, manifest("llama", AUTOSCALING)) for where, _ in offered]
            for workload in workloads:
                workload.wait_ready(1)
            seen: list[Counts] = [[], []]
            for load in (*UP, *DOWN):
                for where, its_servers in offered:
                    its_servers.set_load(where, "llama", concurrency=load, slots=200)
                if load in (UP[-1], DOWN[-1]):
                    rest(workloads, seen, needs=math.ceil(load / 7))
                else:
                    watch(workloads, seen, STEP_S)
        finally:
            by_pages.stop()
    compare(*seen)


def watch(workloads: list[Workload], seen: list[Counts], seconds: float) -> list[int]:
    """Look for so long; the last counts."""
    end = time.monotonic() + seconds
    while True:
        counts = [workload.replicas() for workload in workloads]
        for counted, count in zip(seen, counts, strict=True):
            counted.append((time.monotonic(), count))
        if time.monotonic() >= end:
            return counts
        time.sleep(0.2)


def rest(workloads: list[Workload], seen: list[Counts], needs: int) -> None:
    """Until both have had this count for longer than a stable window."""
    rested_since, end = time.monotonic(), time.monotonic() + 60
    while time.monotonic() - rested_since < 7:
        counts = watch(workloads, seen, 0.2)
        if counts != [needs, needs]:
            rested_since = time.monotonic()
        assert time.monotonic() < end, f"{counts} and not {needs}"


def compare(by_prometheus: Counts, by_pages: Counts) -> None:
    """Never further apart than one replica, but for the time that the way through Prometheus takes."""
    for at, count in by_prometheus:
        near = [other for when, other in by_pages if abs(when - at) <= LATER_S]
        assert min(near) - 1 <= count <= max(near) + 1, (at, count, near)


def told(daemon: Daemon, what: str) -> list[tuple[str, str]]:
    """Of whom, and why. GPU metrics are asked for beside those of pods, and tell their own troubles."""
    found = [(str(line["of"]), str(line.get("reason", ""))) for line in daemon.log_lines(f"prometheus.{what}")]
    return [each for each in found if each[0] == "pods"]


def test_without_prometheus_nothing_is_lowered_and_it_is_said_why(
    cluster: Cluster, namespace: str, servers: ModelServers, prometheus: Prometheus, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(**by_prometheus(prometheus))
    workload = busy_by_prometheus(cluster, namespace, servers, prometheus)
    prometheus.kill()
    assert "Prometheus: refused" in workload.wait_condition("Fallback", "True", "ScaleDownHeld")
    kept = workload.replicas()
    servers.set_load(namespace, "llama", concurrency=0, slots=100)
    assert workload.never(kept, 10) == {kept}
    assert len(workload.told("MetricsUnavailable")) == 1
    # what was being answered when it was killed is cut short
    assert [each for each in told(daemon, "failed") if each != ("pods", "cut short")] == [("pods", "refused")]

    servers.set_load(namespace, "llama", concurrency=25, slots=100)
    prometheus.empty()
    prometheus.start()
    workload.wait_condition("Fallback", "False", "MetricsFresh")
    workload.never(4, 7)  # what it forgot is not a load of nothing; pods that it finds first may ask for more
    servers.set_load(namespace, "llama", concurrency=6, slots=100)
    workload.wait_replicas(1, timeout_s=60)
    assert len(told(daemon, "recovered")) == 1


def test_a_slow_prometheus_is_one_that_is_away_until_its_answers_come_in_time(
    cluster: Cluster, namespace: str, servers: ModelServers, prometheus: Prometheus, start_daemon: StartDaemon
) -> None:
    with PrometheusProxy(prometheus.url) as proxy:
        config = by_prometheus(prometheus)
        config["prometheus"] |= {"url": proxy.url, "timeout": "2s"}
        daemon = start_daemon(**config)
        workload = busy_by_prometheus(cluster, namespace, servers, prometheus)
        lost, found = (len(workload.events(reason)) for reason in ("MetricsUnavailable", "MetricsRecovered"))
        proxy.delay_s = 5.0
        assert "Prometheus: time-out" in workload.wait_condition("Fallback", "True", "ScaleDownHeld")
        kept = workload.replicas()  # requests that move to new pods may count twice for a second
        servers.set_load(namespace, "llama", concurrency=0, slots=100)
        assert workload.never(kept, 12) == {kept}
        servers.set_load(namespace, "llama", concurrency=25, slots=100)
        proxy.delay_s = 0.6  # slow, and in time
        workload.wait_condition("Fallback", "False", "MetricsFresh")
        workload.never(4, 7)
        cluster.wait_for(lambda: len(workload.events("MetricsRecovered")) == found + 1, "the recovery to be told")
        assert len(workload.events("MetricsUnavailable")) == lost + 1
        servers.set_load(namespace, "llama", concurrency=46, slots=100)
        workload.wait_replicas(7)
        assert told(daemon, "failed") == [("pods", "time-out")]


def test_restarted_with_holes_under_changing_load_it_lowers_nothing_that_the_load_needs(
    cluster: Cluster, namespace: str, servers: ModelServers, prometheus: Prometheus, start_daemon: StartDaemon
) -> None:
    """Its samples are kept; what happened while it was away is not among them."""
    start_daemon(**by_prometheus(prometheus))
    workload = busy_by_prometheus(cluster, namespace, servers, prometheus)
    for hole_s, concurrency, needs in ((1.0, 25, 4), (8.0, 46, 7), (2.0, 46, 7), (4.0, 25, 4), (8.0, 46, 7)):
        prometheus.kill()
        servers.set_load(namespace, "llama", concurrency=concurrency, slots=200)  # that nobody sees yet
        before = workload.replicas()
        assert min(workload.never(min(before, needs), hole_s)) == before, "nothing is seen, so nothing moves"
        prometheus.start()
        workload.wait_replicas(needs, timeout_s=60)
        workload.never(needs, 5)
    workload.wait_condition("Fallback", "False", "MetricsFresh")
    servers.set_load(namespace, "llama", concurrency=6, slots=200)
    workload.wait_replicas(1, timeout_s=60)


def busy_by_prometheus(cluster: Cluster, namespace: str, servers: ModelServers, prometheus: Prometheus) -> Workload:
    """A workload of four replicas under a load that needs four, seen for longer than a stable window."""
    servers.set_load(namespace, "llama", concurrency=25, slots=200)
    workload = Workload(cluster, namespace, manifest("llama", AUTOSCALING))
    workload.wait_replicas(4)
    workload.wait_ready(4)
    cluster.wait_for(lambda: len(prometheus.query("vllm:num_requests_running")) == 4, "samples of all pods")
    time.sleep(7)
    workload.wait_condition("Fallback", "False", "MetricsFresh")
    return workload
