"""The ledger comes first: no pod is there that is not held, whatever happens to the ledger's writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.behind import behind
from tests.e2e.conftest import StartDaemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Answer, Rule
from tests.realcluster.modelserver import ModelServers

GPUS = 6
LEDGER = "/apis/tidegate.dev/v1alpha1/namespaces/{}/quotaledgers/team.default"
AUTOSCALING = {"minReplicas": 1, "maxReplicas": 6, "metric": "concurrency", "metricThreshold": 10}  # 7 a replica
SAMPLED_EVERY_S = 0.05


def of_the_team(namespace: str) -> dict[str, object]:
    limits = {"default": {"nvidia.com/gpu": GPUS}}
    return {"projects": {"team": {"namespaces": [namespace], "quota": {"limits": limits}}}}


def held(cluster: Cluster, namespace: str) -> int:
    """GPUs in the ledger; 0 while there is none."""
    status, body = cluster.request("GET", LEDGER.format(namespace))
    return sum(each["vector"]["nvidia.com/gpu"] for each in body["spec"]["holds"]) // 1000 if status == 200 else 0


@contextmanager
def sampled(cluster: Cluster, namespace: str) -> Iterator[list[tuple[int, int]]]:
    """(GPUs of pods, GPUs in the ledger) at 20 Hz. A hold may only have shrunk after a pod went: pods are read first
    and last, and the fewer of both counted."""
    pods = f"/api/v1/namespaces/{namespace}/pods?labelSelector=tidegate.dev/workload"
    found: list[tuple[int, int]] = []
    ended = threading.Event()

    def count() -> int:
        return len(cluster.get(pods)["items"])

    def look() -> None:
        while not ended.wait(SAMPLED_EVERY_S):
            before = count()
            in_ledger = held(cluster, namespace)
            found.append((min(before, count()), in_ledger))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def test_pods_never_exceed_the_ledger_nor_the_ledger_the_quota(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    start_daemon(**of_the_team(namespace))
    with sampled(cluster, namespace) as samples:
        both = [Workload(cluster, namespace, manifest(name, AUTOSCALING)) for name in ("first", "second")]
        for workload in both:
            workload.wait_ready(1)
        servers.set_load(namespace, "first", concurrency=60, slots=200)
        both[0].wait_ready(5)
        both[0].wait_condition("ScalingLimited", "True", "QuotaLimited")
        servers.set_load(namespace, "first", concurrency=0, slots=200)
        servers.set_load(namespace, "second", concurrency=60, slots=200)
        both[1].wait_ready(5, timeout_s=60)
        cluster.kubectl("delete", "inferenceworkload", "second", "-n", namespace)
        # the garbage collector learns of kinds that were just installed every 30 s
        cluster.wait_for(lambda: held(cluster, namespace) == 1, "the hold to go with the pods", timeout_s=120)
    assert len(samples) > 20, "too few looks to show anything"
    assert [each for each in samples if each[0] > each[1]] == [], "a pod without a hold"
    assert max(in_ledger for _, in_ledger in samples) == GPUS


def test_while_the_ledger_cannot_be_written_nothing_grows_and_all_else_goes_on(
    cluster: Cluster, namespace: str, servers: ModelServers, tmp_path: Path
) -> None:
    with (
        FaultProxy(cluster.url, cluster.ca_path) as proxy,
        behind(cluster, proxy, namespace, tmp_path, of_the_team(namespace)) as running,
    ):
        for name in ("rises", "falls"):
            servers.set_load(namespace, name, concurrency=20, slots=200)
        rises, falls = (Workload(cluster, namespace, manifest(name, AUTOSCALING)) for name in ("rises", "falls"))
        running.wait_settled({rises: 3, falls: 3})
        running.mark()
        broken = proxy.arm(Rule(Answer(503), methods=("PUT",), path="/quotaledgers", times=None))
        servers.set_load(namespace, "falls", concurrency=0, slots=200)
        falls.wait_replicas(1)
        servers.set_load(namespace, "rises", concurrency=34, slots=200)
        message = rises.wait_condition("ScalingLimited", "True", "QuotaLimited")
        assert "has 3: QuotaLedger team.default could not be written: " in message
        assert rises.never(3, 3) == {3}
        proxy.disarm(broken)
        rises.wait_ready(5)
        assert [each["event"] for each in running.lines() if each["event"].startswith("ledger.")] == [
            "ledger.not_written",
            "ledger.written_again",
        ]


def test_a_ledger_that_is_deleted_comes_back(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    start_daemon(**of_the_team(namespace))
    workload = Workload(cluster, namespace, manifest("llama", AUTOSCALING))
    workload.wait_ready(1)
    assert held(cluster, namespace) == 1
    cluster.kubectl("delete", "quotaledger", "team.default", "-n", namespace)
    servers.set_load(namespace, "llama", concurrency=20, slots=200)
    workload.wait_ready(3)
    assert held(cluster, namespace) == 3
