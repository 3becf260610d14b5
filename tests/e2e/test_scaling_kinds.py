"""The main job once more, for groups of two and for a StatefulSet of others. Of Deployments: test_scaling."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.targets import Target, apply, stateful_set, target_manifest
from tests.e2e.test_scaling import CONCURRENCY
from tests.e2e.workload import Groups, Workload, group_manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

DELAY = "pod-ready.stage.kwok.x-k8s.io/delay"
SEEN_S = 60.0  # a busy machine is no failure
Serve = Callable[..., Workload]


def groups(cluster: Cluster, namespace: str, autoscaling: dict[str, object], ready_after_s: float = 0) -> Workload:
    body = group_manifest("llama", autoscaling)
    fields = body["spec"]["serving"]["leaderWorkerSet"]
    for each in ("leaderTemplate", "workerTemplate"):
        fields[each]["metadata"] = {"annotations": {DELAY: f"{ready_after_s:g}s"}}
    return Groups(cluster, namespace, body)


def target(cluster: Cluster, namespace: str, autoscaling: dict[str, object], ready_after_s: float = 0) -> Workload:
    body = stateful_set("llama")
    body["spec"]["template"]["metadata"]["annotations"] = {DELAY: f"{ready_after_s:g}s"}
    apply(cluster, namespace, body)
    return Target(cluster, namespace, target_manifest("llama", autoscaling), "apps/v1/statefulsets")


KINDS = pytest.mark.parametrize("serve", [groups, target], ids=["leaderWorkerSet", "targetRef"])


@KINDS
def test_load_at_three_times_the_target_is_answered_at_once_up_to_the_maximum(
    lws: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon, serve: Serve
) -> None:
    start_daemon(tick="2s", kpa={"stable-window": "60s"})
    servers.set_load(namespace, "llama", concurrency=14, slots=100)
    workload = serve(lws, namespace, {"minReplicas": 2, "maxReplicas": 5, **CONCURRENCY}, ready_after_s=1)
    workload.wait_ready(2, SEEN_S)
    time.sleep(5)  # a panic window of the load before
    offered_at = servers.set_load(namespace, "llama", concurrency=42, slots=100)
    lws.wait_for(lambda: workload.replicas() > 2, "the count to follow", timeout_s=20, poll_s=0.02)
    print(f"figure load_to_write {time.time() - offered_at:.2f} s")
    workload.wait_replicas(5)
    assert workload.never(5, 3) == {5}, "it stops at the maximum"
    workload.wait_condition("ScalingLimited", "True", "TooManyReplicas")


@KINDS
def test_replicas_that_are_still_loading_cause_no_runaway(
    lws: Cluster, namespace: str, servers: ModelServers, daemon: Daemon, serve: Serve
) -> None:
    servers.set_load(namespace, "llama", concurrency=6, slots=100)
    workload = serve(lws, namespace, {"minReplicas": 1, "maxReplicas": 40, **CONCURRENCY}, ready_after_s=12)
    workload.wait_ready(1, SEEN_S)
    servers.set_load(namespace, "llama", concurrency=27, slots=100)
    workload.wait_replicas(4)
    assert max(workload.never(4, 8)) == 4, "one ready, three loading: still 27 requests for 7 a replica"


def test_groups_come_back_down_after_the_delay_and_not_before(
    lws: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    """Of a StatefulSet: test_targets."""
    autoscaling = {"minReplicas": 1, "maxReplicas": 8, "scaleDownDelaySeconds": 20, **CONCURRENCY}
    servers.set_load(namespace, "llama", concurrency=25, slots=100)
    workload = groups(lws, namespace, autoscaling)
    lws.wait_for(lambda: workload.replicas() >= 4, "four groups", timeout_s=30)
    lws.wait_for(lambda: workload.ready() == workload.replicas(), "all of them to be ready", timeout_s=60)
    time.sleep(8)  # a stable window of this load, so that only the delay holds it afterwards
    calm_at = servers.set_load(namespace, "llama", concurrency=1, slots=100)
    workload.never(4, 12)
    workload.wait_replicas(1, timeout_s=90)
    assert time.time() - calm_at >= 18, "the delay's slots are 2 s wide"
