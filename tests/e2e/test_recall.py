"""A daemon that ends and starts again: with the past in a real Prometheus it goes on, without it nothing is lowered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.test_prometheus import AUTOSCALING, LATER_S, Counts, compare, watch
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers
from tests.realcluster.prometheus import Prometheus

WINDOW_S = 20
LOADED, CALM = (40, 6), (6, 1)  # requests at a time, and the replicas that they need


def keeping(prometheus: Prometheus, source: str = "pods") -> dict[str, Any]:
    return {
        "kpa": {"stable-window": f"{WINDOW_S}s"},
        "signals": {"source": source},
        "prometheus": {"url": prometheus.url, "scrapeInterval": "1s"},
    }


@pytest.fixture
def other_namespace(cluster: Cluster) -> Iterator[str]:
    name = cluster.create_namespace("goes-on")
    yield name
    cluster.delete_namespace(name)


@pytest.mark.parametrize("source", ["pods", "prometheus"])
def test_with_the_past_in_prometheus_a_restart_changes_no_count(
    cluster: Cluster,
    namespace: str,
    other_namespace: str,
    servers: ModelServers,
    prometheus: Prometheus,
    start_daemon: StartDaemon,
    tmp_path: Path,
    source: str,
) -> None:
    restarted = start_daemon(**keeping(prometheus, source))
    (tmp_path / "other").mkdir()
    goes_on = Daemon(cluster, other_namespace, tmp_path / "other", {"kpa": {"stable-window": f"{WINDOW_S}s"}})
    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, other_namespace) as other_servers:
        offered = ((namespace, servers), (other_namespace, other_servers))

        def offer(load: int) -> None:
            for where, its_servers in offered:
                its_servers.set_load(where, "llama", concurrency=load, slots=100)

        try:
            goes_on.start()
            offer(LOADED[0])
            workloads = [Workload(cluster, where, manifest("llama", AUTOSCALING)) for where, _ in offered]
            for workload in workloads:
                workload.wait_replicas(LOADED[1])
                workload.wait_ready(LOADED[1])
            settled(workloads)
            seen: list[Counts] = [[], []]
            before = len(restarted.log_lines("windows.recalled"))
            restarted.kill()
            offer(CALM[0])
            time.sleep(WINDOW_S / 4)  # the other one sees it calm down; this one has to recall that
            restarted.start()
            started_at = time.monotonic()
            cluster.wait_for(lambda: len(restarted.log_lines("windows.recalled")) > before, "the past to be recalled")
            comparable_at = time.monotonic() + LATER_S  # the other one has lowered meanwhile
            end = time.monotonic() + 90
            while watch(workloads, seen, 0.2) != [CALM[1], CALM[1]]:
                assert time.monotonic() < end, seen[0][-1]
        finally:
            goes_on.stop()
    recalled = restarted.log_lines("windows.recalled")
    print(recalled, restarted.log_lines("windows.not_recalled"))
    assert recalled[-1]["workloads"] == 1  # by the second process
    compare([(at, count) for at, count in seen[0] if at >= comparable_at], seen[1])
    lowered_at = next(at for at, count in seen[0] if count < LOADED[1])
    print(f"lowered {lowered_at - started_at:.1f} s after the start, a stable window is {WINDOW_S} s")
    assert lowered_at - started_at < WINDOW_S


def settled(workloads: list[Workload]) -> None:
    """Until both have had the count for so long that neither is in panic, nor has requests that moved counted twice."""
    since, end = time.monotonic(), time.monotonic() + 180
    while time.monotonic() - since < 2 * WINDOW_S + 5:
        if watch(workloads, [[], []], 0.2) != [LOADED[1]] * 2:
            since = time.monotonic()
        assert time.monotonic() < end, "a count that does not settle"


def held_after_restart(cluster: Cluster, workload: Workload, daemon: Daemon) -> None:
    """For a stable window after its start, nothing goes down; then it does."""
    started_at = time.monotonic()
    daemon.start()
    workload.never(LOADED[1], WINDOW_S - (time.monotonic() - started_at))
    workload.wait_replicas(CALM[1], timeout_s=90)


def test_without_prometheus_a_restart_holds_for_a_stable_window(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(kpa={"stable-window": f"{WINDOW_S}s"})
    servers.set_load(namespace, "llama", concurrency=LOADED[0], slots=100)
    workload = Workload(cluster, namespace, manifest("llama", AUTOSCALING))
    workload.wait_ready(LOADED[1])
    daemon.kill()
    servers.set_load(namespace, "llama", concurrency=CALM[0], slots=100)
    time.sleep(WINDOW_S / 2)
    held_after_restart(cluster, workload, daemon)
    assert daemon.log_lines("windows.recalled") == []


def test_a_past_with_holes_holds_for_a_stable_window(
    cluster: Cluster, namespace: str, servers: ModelServers, prometheus: Prometheus, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(**keeping(prometheus))
    servers.set_load(namespace, "llama", concurrency=LOADED[0], slots=100)
    workload = Workload(cluster, namespace, manifest("llama", AUTOSCALING))
    workload.wait_ready(LOADED[1])
    cluster.wait_for(lambda: len(prometheus.query("vllm:num_requests_running")) == LOADED[1], "samples of all pods")
    time.sleep(2 * WINDOW_S)
    daemon.kill()
    prometheus.kill()
    servers.set_load(namespace, "llama", concurrency=CALM[0], slots=100)
    time.sleep(WINDOW_S / 2)
    prometheus.start()
    cluster.wait_for(lambda: len(prometheus.query("vllm:num_requests_running")) == LOADED[1], "samples of all pods")
    held_after_restart(cluster, workload, daemon)
    assert daemon.log_lines("windows.recalled")[-1]["workloads"] == 1
