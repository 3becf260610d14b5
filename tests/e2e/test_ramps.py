"""Load that grows steadily, with the default windows: the count is there before the cliff is.

The model servers are imitations (tests/realcluster/load.py): a request takes longer the fuller its batch, a cache is as
full as requests are in it, and a full one refuses. Beside each workload runs one of a single replica that may not grow:
what happens to it is what the others are spared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.e2e.conftest import StartDaemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

MOST = 6
STEP_S = 0.5


def test_a_latency_ramp_scales_before_the_slo_breaks(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    """SLO 1 s. A request takes 0.4 s alone and 0.02 s more for each other in its batch, so 30 a replica break it."""
    slo_s = 1.0
    start_daemon(tick="2s", kpa={"stable-window": "60s"})
    autoscaling = {"minReplicas": 1, "maxReplicas": MOST, "metric": "latency", "metricThreshold": 1000}
    grows, fixed = _pair(cluster, namespace, autoscaling)
    offer: dict[str, Any] = {"slots": 100, "service_time_s": 0.4, "slowdown": 5.0}
    for in_flight in _ramp(2, 40, over_s=75):
        for workload in (grows, fixed):
            servers.set_load(namespace, workload.name, concurrency=round(in_flight), **offer)
    time.sleep(5)
    told = servers.state()
    slowest_s = {name: told[f"{namespace}/{name}"]["slowest_s"] for name in (grows.name, fixed.name)}
    print(
        f"figure slowest request {slowest_s[grows.name]:.2f} s of {grows.replicas()} replicas, "
        f"{slowest_s[fixed.name]:.2f} s of one; SLO {slo_s:g} s"
    )
    assert slowest_s[fixed.name] > slo_s, "else this ramp shows nothing"
    assert slowest_s[grows.name] < slo_s
    assert grows.replicas() > 1
    assert grows.told("SuccessfulRescale")


def test_a_kv_cache_ramp_never_reaches_a_refused_request_while_replicas_can_be_added(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    """A cache holds 40 requests of 2 s, so 20 a second fill it: the ramp fills one every 25 s."""
    start_daemon(tick="2s", kpa={"stable-window": "60s"})
    autoscaling = {"minReplicas": 1, "maxReplicas": MOST, "metric": "kv-cache"}
    grows, fixed = _pair(cluster, namespace, autoscaling)
    offer: dict[str, Any] = {
        "slots": 40,
        "service_time_s": 2.0,
        "prompt_tokens": 1_000,
        "output_tokens": 10,
        "refuses": True,
    }
    for rps in _ramp(4, 54, over_s=62):
        for workload in (grows, fixed):
            servers.set_load(namespace, workload.name, rps=rps, **offer)
    time.sleep(5)
    told = servers.state()
    refused = {name: told[f"{namespace}/{name}"]["refused"] for name in (grows.name, fixed.name)}
    print(f"figure refused {refused[grows.name]} with {grows.replicas()} replicas, {refused[fixed.name]} with one")
    assert refused[fixed.name] > 100, "else this ramp shows nothing"
    assert refused[grows.name] == 0
    assert grows.replicas() > 1
    assert any("kv-cache" in note for note in grows.told("SuccessfulRescale"))


def _pair(cluster: Cluster, namespace: str, autoscaling: dict[str, Any]) -> tuple[Workload, Workload]:
    """The one that may grow and the one that may not, each with a replica that is ready."""
    fixed = {**autoscaling, "maxReplicas": 1}
    pair = (
        Workload(cluster, namespace, manifest("grows", autoscaling, ready_after_s=2)),
        Workload(cluster, namespace, manifest("fixed", fixed, ready_after_s=2)),
    )
    for workload in pair:
        workload.wait_ready(1)
    return pair


def _ramp(low: float, high: float, over_s: float) -> Iterator[float]:
    """Values from low to high, one each STEP_S; a busy machine only makes the ramp slower."""
    steps = round(over_s / STEP_S)
    for step in range(steps + 1):
        yield low + (high - low) * step / steps
        time.sleep(STEP_S)
