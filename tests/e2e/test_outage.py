"""The API server is gone, refuses, or is slow, while load changes: no wrong write, and one line each about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.behind import Behind, behind
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Answer, Delay, Rule
from tests.realcluster.modelserver import ModelServers

# target 7 a replica: 25 requests need 4, three times as many need 11
AUTOSCALING = {"minReplicas": 1, "maxReplicas": 20, "metric": "concurrency", "metricThreshold": 10}
DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments?labelSelector=tidegate.dev/workload"
LOAD, NEEDS, RISEN_NEEDS = 25, 4, 11
LAPSES_S = 10.0  # the renew deadline
RECOVERED_S = 10.0


class Three:
    """A workload under steady load, one whose load rises, and one whose load goes."""

    NAMES = ("steady", "rises", "falls")

    def __init__(self, running: Behind, namespace: str, servers: ModelServers) -> None:
        self._running = running
        self._cluster = running.cluster
        self._servers = servers
        self._namespace = namespace
        self._load(dict.fromkeys(self.NAMES, LOAD))
        self.workloads = [Workload(self._cluster, namespace, manifest(name, AUTOSCALING)) for name in self.NAMES]
        running.wait_settled(dict.fromkeys(self.workloads, NEEDS))

    def change(self) -> None:
        self._load({"rises": 3 * LOAD, "falls": 0})

    def _load(self, concurrency: dict[str, int]) -> None:
        for name, offered in concurrency.items():
            self._servers.set_load(self._namespace, name, concurrency=offered, slots=200)

    def settle(self) -> None:
        """More where more is needed, less where less is."""
        _, rises, falls = self.workloads
        asked = self._running.asked
        self._cluster.wait_for(lambda: max(asked(rises.name), default=0) >= RISEN_NEEDS, "more replicas", timeout_s=60)
        self._cluster.wait_for(lambda: min(asked(falls.name), default=NEEDS) < NEEDS, "fewer replicas", timeout_s=60)


def check(running: Behind, ended_at: float) -> None:
    """No wrong write, soon after the end of an outage that cost the Lease; one line at its start and one at its end."""
    counts = running.counts()
    by_workload = {name: [each.replicas for each in counts if each.workload == name] for name in Three.NAMES}
    assert by_workload["steady"] == []
    assert by_workload["rises"][0] == RISEN_NEEDS, "its window was full of the risen load"
    assert min(by_workload["rises"]) >= RISEN_NEEDS
    assert by_workload["falls"] in ([2], [2, 1], [1]), "halved at most, then what nothing needs"
    stamps = running.stamped_at()
    assert len(stamps) == len(running.cluster.get(DEPLOYMENTS.format(running.daemon.namespace))["items"])
    assert min(each.asked_at for each in counts if each.workload == "falls") >= max(stamps)
    assert min(each.asked_at for each in counts) >= ended_at
    recovery_s = next(each.answered_at for each in counts if each.workload == "rises") - ended_at
    print(f"figure outage_recovery {recovery_s:.2f} s")
    assert recovery_s <= RECOVERED_S
    running.cluster.wait_for(lambda: running.told("watch.recovered"), "the end of the outage to be told")
    assert running.loud() == [("warning", "watch.failed")], running.lines()
    assert len(running.told("watch.recovered")) == 1
    assert [each["epoch"] for each in running.told("leader.elected")] == [2]


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    with FaultProxy(cluster.url, cluster.ca_path) as running:
        yield running


def test_an_api_server_that_is_gone_for_60_s_under_load(
    cluster: Cluster, namespace: str, servers: ModelServers, proxy: FaultProxy, tmp_path: Path
) -> None:
    with behind(cluster, proxy, namespace, tmp_path, {}) as running:
        three = Three(running, namespace, servers)
        # its pod is ready in the outage, and its time is over before the daemon can know
        late = manifest("late", {"minReplicas": 1, "maxReplicas": 1}, ready_after_s=30)
        late["spec"]["serving"]["initializationTimeoutSeconds"] = 45
        loads = Workload(cluster, namespace, late)
        loads.wait_replicas(1)
        running.mark()
        proxy.refuse()
        running.healthy_for(5)
        three.change()
        why = running.healthy_for(LAPSES_S)
        assert running.daemon.get("/readyz")[0] == 503
        assert "could not be renewed: this process writes nothing" in why
        assert running.daemon.explain("rises")["counts"]["desired"] == RISEN_NEEDS, "it goes on deciding"
        running.healthy_for(45)
        proxy.arm(Rule(Delay(2.0), methods=("PATCH",), path="/deployments/steady"))  # its stamp comes last
        proxy.arm(Rule(Delay(5.0), methods=("GET",), path="/pods"))  # the new tenure begins before it hears of pods
        ended_at = time.time()
        proxy.accept()
        three.settle()
        check(running, ended_at)
        assert running.daemon.get("/readyz")[0] == 200
        assert three.workloads[1].told("SuccessfulRescale")
        cluster.wait_for(lambda: loads.status()["phase"] == "Running", "what became ready meanwhile to be seen")
        assert loads.replicas() == 1
        assert [each for each in running.counts() if each.workload == "late"] == []


def test_an_api_server_that_answers_503_and_429_to_everything(
    cluster: Cluster, namespace: str, servers: ModelServers, proxy: FaultProxy, tmp_path: Path
) -> None:
    """First its watches go on, then they break, too."""
    with behind(cluster, proxy, namespace, tmp_path, {}) as running:
        three = Three(running, namespace, servers)
        running.mark()
        unavailable = proxy.arm(Rule(Answer(503, "ServiceUnavailable"), times=None))
        three.change()
        running.healthy_for(10)
        proxy.arm(Rule(Answer(429, "TooManyRequests", retry_after_s=1), times=None))
        proxy.disarm(unavailable)
        proxy.cut_watches()
        assert "could not be renewed" in running.healthy_for(10)
        ended_at = time.time()
        proxy.disarm()
        three.settle()
        check(running, ended_at)


def test_an_api_server_that_takes_3_s_to_answer(
    cluster: Cluster, namespace: str, servers: ModelServers, proxy: FaultProxy, tmp_path: Path
) -> None:
    """From the start on: it takes the Lease, creates, raises and lowers, while its cycles keep their tick."""
    proxy.arm(Rule(Delay(3.0), times=None))
    tick_s = 2.0
    with behind(cluster, proxy, namespace, tmp_path, {"tick": "2s"}) as running:
        began_at = time.time()
        three = Three(running, namespace, servers)
        running.mark()
        three.change()
        running.healthy_for(8)
        three.settle()
        assert cycles(running) >= 0.8 * (time.time() - began_at) / tick_s
        report = running.counts()
        assert [each.replicas for each in report if each.workload == "steady"] == []
        assert min(each.replicas for each in report if each.workload == "rises") > NEEDS
        falls = [each.replicas for each in report if each.workload == "falls"]
        assert falls == sorted(falls, reverse=True)
        assert running.loud() == [], running.lines()
        assert [each["epoch"] for each in running.daemon.log_lines("leader.elected")] == [1]
        assert three.workloads[1].told("SuccessfulRescale")


def cycles(running: Behind) -> float:
    """So far."""
    page = running.daemon.get("/metrics")[1]
    (line,) = [each for each in page.splitlines() if each.startswith('tidegate_reconcile_total{result="success"}')]
    return float(line.rpartition(" ")[2])
