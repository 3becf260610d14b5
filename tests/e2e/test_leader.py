"""Two daemons, one writer: what an old leader sends late changes nothing, and a partition leaves one side in charge."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Exchange, HangUp, Hold, Rule
from tests.realcluster.modelserver import ModelServers

LEASE_S = 4
CONFIG = {"leaderElection": {"leaseDuration": f"{LEASE_S}s", "renewDeadline": "3s", "retryPeriod": "500ms"}}
AUTOSCALING = {"minReplicas": 1, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}


class Pair:
    """Two daemons of one release, each behind a proxy of its own; `first` leads."""

    def __init__(self, cluster: Cluster, namespace: str, directory: Path, stack: ExitStack) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self.proxies = [stack.enter_context(FaultProxy(cluster.url, cluster.ca_path)) for _ in range(2)]
        self.first = Daemon(cluster, namespace, directory / "first", CONFIG, self.proxies[0].url)
        stack.callback(_end, self.first)
        self.first.start()
        cluster.wait_for(lambda: self.holder().startswith("tidegate-0"), "the first one to lead")
        self.second = self.first.another("tidegate-1", directory / "second", self.proxies[1].url)
        stack.callback(_end, self.second)
        self.second.start()

    def lease(self) -> dict[str, Any]:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/tidegate"
        spec: dict[str, Any] = self._cluster.get(path)["spec"]
        return spec

    def holder(self) -> str:
        try:
            return str(self.lease().get("holderIdentity", ""))
        except LookupError:
            return ""

    def wait_second_leads(self, timeout_s: float = 30.0) -> None:
        def leads() -> bool:
            return self.holder().startswith("tidegate-1") and "This process leads" in self.second.get("/readyz")[1]

        self._cluster.wait_for(leads, "the second one to lead", timeout_s)

    def writes(self, of: int) -> list[Exchange]:
        """What one of them wrote to objects, as far as the API server took it."""
        return [
            each
            for each in self.proxies[of].exchanges()
            if each.is_write and "/leases" not in each.path and (each.server_status or 500) < 300
        ]


def _end(daemon: Daemon) -> None:
    if daemon.running:
        os.kill(daemon.pid, signal.SIGCONT)
    daemon.stop()
    print(f"--- {daemon.pod}\n{daemon.log()[-5000:]}")


@pytest.fixture
def pair(cluster: Cluster, namespace: str, servers: ModelServers, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(cluster, namespace, tmp_path, stack)


def busy(cluster: Cluster, namespace: str, servers: ModelServers, name: str = "llama") -> Workload:
    """Four replicas under a load that needs four. They start as four: load that moves to new pods counts for more."""
    workload = Workload(cluster, namespace, manifest(name, {**AUTOSCALING, "initialReplicas": 4}))
    workload.wait_ready(4)
    servers.set_load(namespace, name, concurrency=25, slots=100)
    return workload


def epoch_of(workload: Workload) -> int:
    return int(workload.deployment()["metadata"]["annotations"]["tidegate.dev/epoch"])


@pytest.mark.parametrize("what", ["the count", "the record"])
def test_a_leader_stopped_past_its_lease_changes_nothing_with_a_late_write(
    cluster: Cluster, namespace: str, servers: ModelServers, pair: Pair, what: str
) -> None:
    workload = busy(cluster, namespace, servers)
    assert epoch_of(workload) == 1
    held = pair.proxies[0].arm(Rule(Hold(), methods=("PATCH",), where=IS[what]))
    servers.set_load(namespace, "llama", concurrency=0, slots=100)
    late = held.wait_struck(timeout_s=30)  # a lower count, once the window says so
    os.kill(pair.first.pid, signal.SIGSTOP)
    servers.set_load(namespace, "llama", concurrency=25, slots=100)  # four are right again: the late one is wrong
    pair.wait_second_leads()
    cluster.wait_for(lambda: epoch_of(workload) == 2, "the stamp of the second one")
    cluster.wait_for(lambda: workload.status()["record"].get("epoch") == 2, "its record")
    before = workload.deployment()
    held.release()
    held.wait_over()
    assert late.server_status == 409
    time.sleep(1.0)
    assert workload.deployment()["spec"] == before["spec"]
    assert workload.status()["record"]["replicas"] == 4

    os.kill(pair.first.pid, signal.SIGCONT)
    cluster.wait_for(lambda: "standing by" in pair.first.get("/readyz")[1], "the first one to stand by")
    written = len(pair.writes(0))
    servers.set_load(namespace, "llama", concurrency=49, slots=100)
    workload.wait_replicas(7)
    assert len(pair.writes(0)) == written  # since it was stopped, the first one has written nothing
    assert pair.lease()["leaseTransitions"] == 2


IS: dict[str, Callable[[Exchange], bool]] = {
    "the count": lambda exchange: exchange.path.endswith("/scale"),
    "the record": lambda exchange: lowers(exchange),
}


def lowers(exchange: Exchange) -> bool:
    if not exchange.path.endswith("/status"):
        return False
    replicas = exchange.json()["status"].get("record", {}).get("replicas")
    return replicas is not None and replicas < 4


def test_a_selector_that_an_earlier_leader_sent_arrives_too_late(
    cluster: Cluster, namespace: str, servers: ModelServers, pair: Pair
) -> None:
    workload = busy(cluster, namespace, servers)
    revision, path = workload.status()["currentRevision"], f"/api/v1/namespaces/{namespace}/services/llama"

    def selected() -> str:
        return str(cluster.get(path)["spec"]["selector"]["tidegate.dev/revision"])

    held = pair.proxies[0].arm(Rule(Hold(), methods=("PATCH",), path="/services/llama$"))
    drift = {"spec": {"selector": {"tidegate.dev/revision": "llama-00000000"}}}
    assert cluster.request("PATCH", path, drift, content_type="application/merge-patch+json")[0] == 200
    late = held.wait_struck(timeout_s=30)  # the repair
    os.kill(pair.first.pid, signal.SIGSTOP)
    # the second one may stamp, and not repair: so only the stamp stands between the late write and the Service
    repair = pair.proxies[1].arm(
        Rule(Hold(), methods=("PATCH",), path="/services/llama$", where=lambda each: "spec" in each.json(), times=None)
    )
    pair.wait_second_leads()
    cluster.wait_for(
        lambda: cluster.get(path)["metadata"]["annotations"]["tidegate.dev/epoch"] == "2", "the stamp of the second one"
    )
    held.release()
    held.wait_over()
    assert late.server_status == 409
    assert selected() == "llama-00000000"
    repair.release()
    cluster.wait_for(lambda: selected() == revision, "the second one to repair it")
    written = [
        each.path.rpartition("/")[2] for each in pair.writes(1) if re.search("/(services|deployments)/", each.path)
    ]
    assert written[:2] == ["llama", revision]  # what directs traffic is stamped first


def test_a_partition_leaves_the_side_that_reaches_the_api_server_in_charge(
    cluster: Cluster, namespace: str, servers: ModelServers, pair: Pair
) -> None:
    workload = busy(cluster, namespace, servers)
    follower_cut = pair.proxies[1].arm(Rule(HangUp(), times=None))
    pair.proxies[1].cut_watches()
    time.sleep(LEASE_S + 2)
    assert pair.holder().startswith("tidegate-0")
    assert not pair.writes(1)
    pair.proxies[1].disarm(follower_cut)
    cluster.wait_for(lambda: "standing by" in pair.second.get("/readyz")[1], "the second one to stand by")

    cut_at = time.time()
    pair.proxies[0].arm(Rule(HangUp(), times=None))
    pair.proxies[0].cut_watches()
    servers.set_load(namespace, "llama", concurrency=49, slots=100)
    pair.wait_second_leads()
    workload.wait_replicas(7)
    pair.proxies[0].disarm()
    cluster.wait_for(lambda: "standing by" in pair.first.get("/readyz")[1], "the first one to stand by again")
    assert [str(each) for each in pair.writes(0) if each.at_s > cut_at] == []
    assert pair.lease()["leaseTransitions"] == 2


def test_nothing_is_lowered_anywhere_until_every_object_carries_the_new_epoch(
    cluster: Cluster, namespace: str, servers: ModelServers, pair: Pair
) -> None:
    one, other = (busy(cluster, namespace, servers, name) for name in ("one", "other"))
    revision = other.status()["currentRevision"]
    held = pair.proxies[1].arm(Rule(Hold(), methods=("PATCH",), path=f"/deployments/{revision}$", times=None))
    assert pair.first.stop() == 0
    pair.wait_second_leads(timeout_s=LEASE_S)  # the first one gave the Lease back
    held.wait_struck()
    for name in ("one", "other"):
        servers.set_load(namespace, name, concurrency=0, slots=100)
    message = one.wait_condition("AbleToScale", "True", "TakingOver")
    assert "epoch" in message
    assert one.never(4, 3) == {4}
    assert "1 objects wait for its stamp" in pair.second.get("/readyz")[1]
    held.release()
    one.wait_replicas(1, timeout_s=60)
    other.wait_replicas(1, timeout_s=60)
