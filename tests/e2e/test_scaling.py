"""The main job on the real control plane: load comes, load goes, and the count follows within its bounds."""

from __future__ import annotations

import time

from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

# target 7 a replica; its slots hold more, so that what is measured is the load and not a queue behind it
CONCURRENCY = {"metric": "concurrency", "metricThreshold": 10}
ACTIVATION = {"page": "gateway", "metric": "gateway_pending_requests"}


def gateway(namespace: str, workload: str) -> dict[str, object]:
    return {**ACTIVATION, "labels": {"namespace": namespace, "workload": workload}}


def test_load_at_three_times_the_target_is_answered_within_three_seconds_and_a_tick(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    """Three bursts, and the quickest answer counts: a busy machine only ever adds to it."""
    tick_s = 2.0
    start_daemon(tick="2s", kpa={"stable-window": "60s"})
    names = ("first", "second", "third")
    for name in names:
        servers.set_load(namespace, name, concurrency=14, slots=100)
    autoscaling = {"minReplicas": 2, "maxReplicas": 5, **CONCURRENCY}
    workloads = [Workload(cluster, namespace, manifest(name, autoscaling, ready_after_s=1)) for name in names]
    for workload in workloads:
        workload.wait_ready(2)
    time.sleep(5)  # a panic window of the load before
    took_s = [_answer_to_a_burst(cluster, namespace, servers, workload) for workload in workloads]
    print(f"figure page_to_write {' '.join(f'{each:.2f}' for each in took_s)} s")
    assert min(took_s) <= 3.0 + tick_s

    for workload in workloads:
        workload.wait_replicas(5)
    assert workloads[0].never(5, 3) == {5}, "it stops at the maximum"
    workloads[0].wait_condition("ScalingLimited", "True", "TooManyReplicas")
    assert any("New size:" in note and "concurrency" in note for note in workloads[0].told("SuccessfulRescale"))


def _answer_to_a_burst(cluster: Cluster, namespace: str, servers: ModelServers, workload: Workload) -> float:
    """Seconds from the first page that shows the burst to the written count."""
    offered_at = servers.set_load(namespace, workload.name, concurrency=42, slots=100)
    cluster.wait_for(lambda: workload.replicas() > 2, "the count to follow", timeout_s=20, poll_s=0.02)
    written_at = time.time()
    shown_at = servers.first_page_with(namespace, workload.name, lambda in_flight: in_flight > 14, since=offered_at)
    assert shown_at is not None
    return written_at - shown_at


def test_calm_comes_back_down_after_the_delay_and_not_before(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    servers.set_load(namespace, "llama", concurrency=25, slots=100)
    workload = Workload(
        cluster,
        namespace,
        manifest("llama", {"minReplicas": 1, "maxReplicas": 8, "scaleDownDelaySeconds": 20, **CONCURRENCY}),
    )
    workload.wait_replicas(4)
    workload.wait_ready(4)
    time.sleep(8)  # a stable window of this load, so that only the delay holds it afterwards
    calm_at = servers.set_load(namespace, "llama", concurrency=1, slots=100)
    workload.never(4, 12)
    workload.wait_replicas(1, timeout_s=60)
    assert time.time() - calm_at >= 18, "the delay's slots are 2 s wide"


def test_the_highest_of_several_signals_decides_and_a_blind_one_only_stops_lowering(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    servers.set_load(namespace, "llama", concurrency=25, slots=100)
    further: list[dict[str, object]] = [{"metric": "throughput", "threshold": 500}]
    body = manifest("llama", {"minReplicas": 1, "maxReplicas": 8, **CONCURRENCY, "signals": further})
    workload = Workload(cluster, namespace, body)
    workload.wait_replicas(4)
    workload.wait_ready(4)

    blind = {"metric": "jobs_of_ours", "threshold": 5}
    workload.patch({"autoscaling": {"signals": [*further, blind]}})
    servers.set_load(namespace, "llama", concurrency=1, slots=100)
    message = workload.wait_condition("Fallback", "True", "ScaleDownHeld")
    assert "no fresh page with jobs_of_ours" in message
    assert "vllm: no such series: jobs_of_ours" in message
    assert workload.condition("ScalingActive")["status"] == "True", "the others may still raise"
    workload.never(4, 12)
    shown = {each["name"]: each.get("recommended") for each in workload.status()["signals"]}
    assert shown.keys() == {"concurrency", "throughput", "jobs_of_ours"}
    assert shown["jobs_of_ours"] is None

    workload.patch({"autoscaling": {"signals": [*further, {**blind, "direction": "up"}]}})
    workload.wait_replicas(1, timeout_s=60)


def test_pods_that_are_still_loading_cause_no_runaway(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    servers.set_load(namespace, "llama", concurrency=6, slots=100)
    workload = Workload(
        cluster, namespace, manifest("llama", {"minReplicas": 1, "maxReplicas": 40, **CONCURRENCY}, ready_after_s=12)
    )
    workload.wait_ready(1, timeout_s=40)
    servers.set_load(namespace, "llama", concurrency=27, slots=100)
    workload.wait_replicas(4)
    assert max(workload.never(4, 10)) == 4, "one ready, three loading: still 27 requests for 7 a replica"
    workload.wait_ready(4, timeout_s=40)
    assert workload.replicas() == 4


def test_idle_goes_to_zero_after_the_retention_and_the_first_waiting_request_brings_it_back(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    autoscaling = {
        "minReplicas": 0,
        "maxReplicas": 4,
        "scaleToZeroRetentionSeconds": 8,
        "activationReplicas": 2,
        "activation": gateway(namespace, "llama"),
        **CONCURRENCY,
    }
    servers.set_load(namespace, "llama", concurrency=3, slots=100)
    workload = Workload(cluster, namespace, manifest("llama", autoscaling, ready_after_s=2))
    workload.wait_ready(1)
    time.sleep(8)
    idle_at = servers.set_load(namespace, "llama", concurrency=0)
    workload.wait_replicas(0, timeout_s=60)
    assert time.time() - idle_at >= 8
    cluster.wait_for(lambda: not workload.pods(), "the last pod to go")
    cluster.wait_for(lambda: "at zero" in workload.status()["phaseMessage"], "the message")
    assert workload.status()["phase"] == "Running"
    assert workload.told("ScaledToZero")

    servers.set_load(namespace, "llama", rps=1, slots=100)
    workload.wait_replicas(2, timeout_s=20)
    cluster.wait_for(lambda: workload.status()["phase"] == "Resuming", "the phase Resuming", poll_s=0.02)
    workload.wait_ready(2)
    cluster.wait_for(lambda: workload.status()["phase"] == "Running", "the phase Running")
    assert workload.told("ScaledFromZero")

    def served() -> int:
        return sum(pod["served"] for pod in servers.state()[f"{namespace}/llama"]["pods"].values())

    cluster.wait_for(lambda: served() > 0, "the request that waited to be served")


def test_never_to_zero_while_a_pod_is_loading(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    autoscaling = {
        "minReplicas": 0,
        "maxReplicas": 4,
        "activation": gateway(namespace, "llama"),
        **CONCURRENCY,
    }
    servers.set_load(namespace, "llama", rps=1, slots=100)
    workload = Workload(cluster, namespace, manifest("llama", autoscaling, ready_after_s=20))
    workload.wait_replicas(1)
    servers.set_load(namespace, "llama", concurrency=0)
    workload.never(1, 16)
    workload.wait_ready(1)
    workload.wait_replicas(0, timeout_s=60)


def test_never_to_zero_while_a_page_is_missing(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon
) -> None:
    start_daemon(activationPages={"gateway": {"url": servers.gateway_url}, "gone": {"url": "http://127.0.0.1:9/m"}})
    pods_gone = {"minReplicas": 0, "maxReplicas": 4, "activation": gateway(namespace, "pods-gone"), **CONCURRENCY}
    gateway_gone = {**pods_gone, "activation": {"page": "gone", "metric": "gateway_pending_requests"}}
    nothing = {"minReplicas": 0, "maxReplicas": 4, **CONCURRENCY}
    blind = Workload(cluster, namespace, manifest("pods-gone", pods_gone))
    deaf = Workload(cluster, namespace, manifest("gateway-gone", gateway_gone))
    unwakeable = Workload(cluster, namespace, manifest("unwakeable", nothing))
    for workload in (blind, deaf, unwakeable):
        workload.wait_ready(1)
    servers.set_fault(namespace, "pods-gone", "http 500")
    time.sleep(12)
    for workload, reason in ((deaf, "ActivationUnknown"), (unwakeable, "NothingWakesIt")):
        assert workload.replicas() == 1
        workload.wait_condition("ScalingLimited", "True", reason)
    assert blind.replicas() == 1
    assert "http 500" in blind.wait_condition("Fallback", "True")
    servers.set_fault(namespace, "pods-gone", "ok")
    blind.wait_replicas(0, timeout_s=60)
