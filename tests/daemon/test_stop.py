"""SIGTERM on the real control plane: what was done is told, and a cluster that does not answer delays nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from autoscaler.daemon import LAST_CYCLE_WITHIN_S
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Drop, Rule

ONE = {"minReplicas": 1, "maxReplicas": 1}

HUNG_S = 20.0  # 5 s are promised; on a machine with other work only a hang decides a test


@contextlib.contextmanager
def running(cluster: Cluster, namespace: str, directory: Path, api_url: str | None = None) -> Iterator[Daemon]:
    daemon = Daemon(cluster, namespace, directory, {}, api_url)
    try:
        yield daemon.start()
    finally:
        daemon.stop()
        print(f"--- daemon of {namespace}\n{daemon.log()[-6000:]}")


def stops_within_s(daemon: Daemon) -> float:
    started = time.monotonic()
    assert daemon.stop() == 0
    return time.monotonic() - started


def test_what_was_done_before_the_end_is_told(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with running(cluster, namespace, tmp_path) as daemon:
        workloads = [Workload(cluster, namespace, manifest(f"model-{number}", ONE)) for number in range(12)]
        cluster.wait_for(workloads[-1].deployment, "the last one to be begun")
        assert stops_within_s(daemon) < HUNG_S
        begun = [each for each in workloads if each.status().get("currentRevision")]
        assert begun
        assert [each.name for each in begun if not each.events("RevisionCreated")] == []
        assert daemon.log_lines("events.lost") == []


def test_a_step_that_hangs_is_cancelled_in_time(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with FaultProxy(cluster.url, cluster.ca_path) as proxy, running(cluster, namespace, tmp_path, proxy.url) as daemon:
        dropped = proxy.arm(Rule(Drop(), methods=("POST",), path="/deployments"))
        Workload(cluster, namespace, manifest("llama", ONE))
        dropped.wait_struck()
        assert LAST_CYCLE_WITHIN_S < stops_within_s(daemon) < HUNG_S
        assert len(daemon.log_lines("steps.cancelled")) == 1


def test_events_that_nobody_takes_are_given_up_and_counted(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with FaultProxy(cluster.url, cluster.ca_path) as proxy, running(cluster, namespace, tmp_path, proxy.url) as daemon:
        dropped = proxy.arm(Rule(Drop(), methods=("POST",), path="/events", times=None))
        Workload(cluster, namespace, manifest("llama", ONE))
        dropped.wait_struck()
        assert stops_within_s(daemon) < HUNG_S
        assert len(daemon.log_lines("events.lost")) == 1
