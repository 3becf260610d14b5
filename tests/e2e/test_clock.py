"""The machine's clock is set, the process is suspended, the API server's clock is off: no decision is another one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.behind import behind
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Rule, Skew
from tests.realcluster.modelserver import ModelServers

CONCURRENCY = {"metric": "concurrency", "metricThreshold": 10}  # target 7 a replica
STEADY = {"minReplicas": 1, "maxReplicas": 20, **CONCURRENCY}
STABLE_WINDOW_S = 6.0  # of the tests' daemon
SUSPENDED_S = 20.0  # longer than the Lease
SLOTS_S = 2.0  # the windows of a delay are this wide


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultProxy]:
    with FaultProxy(cluster.url, cluster.ca_path) as running:
        yield running


class MachineClock:
    """How far the clock of the daemon's machine is off."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "offset"
        self.set(0.0)

    def set(self, offset_s: float) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(str(offset_s))
        new.rename(self.path)


def test_steps_of_five_minutes_with_deadlines_pending(
    cluster: Cluster, namespace: str, servers: ModelServers, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Steady load, a scale-down delay, a retention and an initialization timeout; the load comes and goes meanwhile."""
    hold_s = 45
    offers = {"steady": (25, STEADY), "bursts-1": (6, STEADY), "bursts-2": (6, STEADY)}
    offers["delays"] = (25, {**STEADY, "scaleDownDelaySeconds": hold_s})
    activation = {"page": "gateway", "metric": "gateway_pending_requests"}
    labels = {"namespace": namespace, "workload": "retains"}
    to_zero = {"scaleToZeroRetentionSeconds": hold_s, "activation": {**activation, "labels": labels}}
    offers["retains"] = (6, {**STEADY, "minReplicas": 0, **to_zero})
    machine = MachineClock(tmp_path)
    config = {"activationPages": {"gateway": {"url": servers.gateway_url}}}
    command = (sys.executable, "-m", "tests.e2e.skewed_daemon", str(machine.path))
    with behind(cluster, proxy, namespace, tmp_path, config, command) as running:
        for name, (concurrency, _) in offers.items():
            servers.set_load(namespace, name, concurrency=concurrency, slots=100)
        workloads = {name: Workload(cluster, namespace, manifest(name, each)) for name, (_, each) in offers.items()}
        loading = manifest("loads", {"minReplicas": 1, "maxReplicas": 1}, ready_after_s=3600)
        loading["spec"]["serving"]["initializationTimeoutSeconds"] = 240
        loads = Workload(cluster, namespace, loading)
        loads.wait_replicas(1)
        running.wait_settled({each: 4 if name in ("steady", "delays") else 1 for name, each in workloads.items()})
        running.mark()
        calm_at = servers.set_load(namespace, "delays", concurrency=1, slots=100)
        servers.set_load(namespace, "retains", concurrency=0)
        machine.set(300.0)
        running.healthy_for(4)
        _burst(servers, workloads["bursts-1"])
        machine.set(0.0)
        running.healthy_for(4)
        _burst(servers, workloads["bursts-2"])
        machine.set(-300.0)
        assert time.time() - calm_at < hold_s, "a machine too slow for this test"
        workloads["retains"].wait_replicas(0, timeout_s=120)
        lowered = {"delays", "retains"}
        cluster.wait_for(lambda: lowered <= {each.workload for each in running.counts()}, "both to be lowered", 120)
        for name in ("delays", "retains"):
            first = next(each for each in running.counts() if each.workload == name)
            assert first.asked_at - calm_at >= hold_s - SLOTS_S, name
        assert {each.workload for each in running.counts()} == {"bursts-1", "bursts-2", "delays", "retains"}
        assert loads.status()["phase"] != "Failed"
        assert running.loud() == [("warning", "clock.stepped")] * 3, running.lines()
        assert [round(each["by_s"]) for each in running.told("clock.stepped")] == [300, -300, -300]
        assert len(running.daemon.log_lines("leader.elected")) == 1, "the Lease stayed held"


def _burst(servers: ModelServers, workload: Workload) -> None:
    """A rise is answered as quickly as ever."""
    offered_at = servers.set_load(workload.namespace, workload.name, concurrency=27, slots=100)
    workload.cluster.wait_for(lambda: workload.replicas() > 1, "the count to follow", timeout_s=20)
    print(f"figure after_a_step {time.time() - offered_at:.2f} s")


def test_a_suspended_process_beside_a_server_whose_clock_is_off(
    cluster: Cluster, namespace: str, servers: ModelServers, proxy: FaultProxy, tmp_path: Path
) -> None:
    """It comes back with windows that have a gap, a Lease that is over, and commands that it was about to carry out."""
    ahead = proxy.arm(Rule(Skew(300.0), times=None))
    names = ("steady", "rises", "falls", "rises-again")
    with behind(cluster, proxy, namespace, tmp_path, {}) as running:
        for name in names:
            servers.set_load(namespace, name, concurrency=25, slots=200)
        workloads = {name: Workload(cluster, namespace, manifest(name, STEADY)) for name in names}
        running.wait_settled(dict.fromkeys(workloads.values(), 4))
        running.mark()
        proxy.arm(Rule(Skew(-300.0), times=None))
        proxy.disarm(ahead)
        os.kill(running.daemon.pid, signal.SIGSTOP)
        try:
            servers.set_load(namespace, "rises", concurrency=75, slots=200)
            servers.set_load(namespace, "falls", concurrency=0)
            time.sleep(SUSPENDED_S)
        finally:
            resumed_at = time.time()
            os.kill(running.daemon.pid, signal.SIGCONT)
        cluster.wait_for(lambda: workloads["rises"].replicas() >= 11, "the load of the meantime to be answered")
        servers.set_load(namespace, "rises-again", concurrency=75, slots=200)
        cluster.wait_for(lambda: workloads["rises-again"].replicas() >= 11, "it to go on scaling")
        cluster.wait_for(lambda: running.asked("falls")[-1:] == [1], "the count to be lowered", 60)

        counts = running.counts()
        assert [each for each in counts if each.workload == "steady"] == []
        for name in ("rises", "rises-again"):
            assert min(each.replicas for each in counts if each.workload == name) > 4
        lowered = [each for each in counts if each.workload == "falls"]
        assert [each.replicas for each in lowered] in ([2, 1], [1])
        assert lowered[0].asked_at - resumed_at >= STABLE_WINDOW_S - 1, "a window with a gap lowers nothing"
        assert lowered[0].asked_at >= max(running.stamped_at())
        assert [each["epoch"] for each in running.told("leader.elected")] == [2]
        assert [each for each in running.loud() if each != ("warning", "watch.failed")] == [], running.lines()
