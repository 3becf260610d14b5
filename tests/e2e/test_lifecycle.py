"""What a user does to a workload, and what the daemon refuses to do."""

from __future__ import annotations

from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.updating import apply, edited, objects, rollout, wait_phase, wait_served, wait_used
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

FIXED = {"minReplicas": 2, "maxReplicas": 2}


def test_objects_are_named_and_labelled_per_revision_and_owned(
    cluster: Cluster, namespace: str, daemon: Daemon
) -> None:
    workload = Workload(cluster, namespace, manifest("llama", FIXED))
    workload.wait_ready(2)
    revision = workload.status()["currentRevision"]
    deployment = workload.deployment()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["metadata"]["name"] == revision
    assert labels["tidegate.dev/revision"] == labels["tidegate.dev/owner-revision"] == revision
    assert deployment["metadata"]["ownerReferences"][0]["uid"] == workload.object()["metadata"]["uid"]
    services = f"/api/v1/namespaces/{namespace}/services"
    assert cluster.get(f"{services}/llama")["spec"]["selector"] == {"tidegate.dev/revision": revision}
    assert cluster.get(f"{services}/llama-update")["spec"]["selector"] == {"tidegate.dev/revision": "none"}
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"

    def endpoints(service: str) -> int:
        found = cluster.get(f"{slices}?labelSelector=kubernetes.io/service-name={service}")["items"]
        return sum(len(each.get("endpoints") or ()) for each in found)

    cluster.wait_for(lambda: endpoints("llama") == 2, "both pods behind the Service")
    assert endpoints("llama-update") == 0

    cluster.kubectl("delete", "iw", "llama", "-n", namespace)
    # the garbage collector learns of new kinds every 30 s
    cluster.wait_for(lambda: not workload.pods(), "the garbage collector to take the pods", timeout_s=75)


def test_a_template_edit_is_rolled_out_and_the_revision_before_it_goes(
    cluster: Cluster, namespace: str, daemon: Daemon
) -> None:
    """Without a quota, so it need not queue. The old pods go only when the new ones have all the traffic."""
    body = manifest("llama", FIXED, rollout=rollout())
    workload = Workload(cluster, namespace, body)
    workload.wait_ready(2)
    before = workload.deployment()["metadata"]["name"]
    apply(workload, edited(body, "2"))
    revision = wait_served(workload, "2", 2)
    assert revision != before
    assert objects(workload) == {revision}
    workload.wait_condition("UpdatePending", "False", "UpToDate")
    for reason in ("RolloutStarted", "RolloutCompleted", "RevisionScaledDown"):
        assert len(workload.told(reason)) == 1, reason
    assert workload.events("RolloutBlocked") == []


def test_while_an_update_is_paused_the_current_revision_is_healed_from_what_was_stored(
    cluster: Cluster, namespace: str, daemon: Daemon
) -> None:
    body = manifest("llama", FIXED, rollout=rollout(paused=True))
    workload = Workload(cluster, namespace, body)
    workload.wait_ready(2)
    before = workload.deployment()["metadata"]
    apply(workload, edited(body, "2"))
    wait_phase(workload, "Paused")
    assert workload.condition("UpdatePending")["status"] == "True"
    assert workload.status()["updateRevision"] not in (None, before["name"])
    cluster.kubectl("delete", "deployment", before["name"], "-n", namespace)
    cluster.wait_for(lambda: workload.deployment()["metadata"]["uid"] != before["uid"], "another object of its name")
    workload.wait_ready(2)
    image = workload.deployment()["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "example/vllm:1", "healed from the stored revision, not from the edit"
    assert objects(workload) == {before["name"]}
    workload.patch({"rollout": {"paused": False}})
    wait_served(workload, "2", 2)


def test_bounds_alone_apply_in_place(cluster: Cluster, namespace: str, daemon: Daemon) -> None:
    workload = Workload(cluster, namespace, manifest("llama", FIXED))
    workload.wait_ready(2)
    revision = workload.status()["currentRevision"]
    workload.patch({"autoscaling": {"minReplicas": 4, "maxReplicas": 4}})
    workload.wait_ready(4)
    assert workload.status()["currentRevision"] == revision
    assert "updateRevision" not in workload.status()


def test_kubectl_scale_pins_the_count_until_it_is_removed(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    workload = Workload(
        cluster,
        namespace,
        manifest("llama", {"minReplicas": 1, "maxReplicas": 3, "metric": "concurrency", "metricThreshold": 10}),
    )
    workload.wait_ready(1)
    cluster.kubectl("scale", "iw", "llama", "--replicas=5", "-n", namespace)
    workload.wait_ready(5)
    workload.wait_condition("ManualReplicas", "True")
    assert "Manual" in cluster.kubectl("get", "iw", "llama", "-n", namespace)
    workload.patch({"replicas": None})
    workload.wait_condition("ManualReplicas", "False")
    workload.wait_replicas(1, timeout_s=60)


def test_paused_holds_the_count_and_heals_it(
    cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon
) -> None:
    servers.set_load(namespace, "llama", concurrency=14, slots=100)
    workload = Workload(
        cluster,
        namespace,
        manifest("llama", {"minReplicas": 1, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}),
    )
    workload.wait_replicas(2)
    workload.patch({"mode": "paused"})
    workload.wait_condition("Paused", "True")
    servers.set_load(namespace, "llama", concurrency=50, slots=100)
    cluster.kubectl("scale", "deployment", workload.status()["currentRevision"], "--replicas=7", "-n", namespace)
    workload.wait_replicas(2)
    assert workload.never(2, 4) <= {2}
    workload.patch({"mode": "active"})
    workload.wait_replicas(8)
    assert len(workload.told("Paused")) == len(workload.told("Resumed")) == 1


def test_stopped_gives_everything_back_and_running_resumes(cluster: Cluster, namespace: str, daemon: Daemon) -> None:
    workload = Workload(cluster, namespace, manifest("llama", FIXED))
    workload.wait_ready(2)
    workload.patch({"desiredPhase": "Stopped"})
    cluster.wait_for(lambda: workload.status()["phase"] == "Stopped", "the phase Stopped")
    assert (workload.replicas(), workload.pods()) == (0, [])
    workload.patch({"desiredPhase": "Running"})
    workload.wait_ready(2)
    cluster.wait_for(lambda: workload.status()["phase"] == "Running", "the phase Running")


def test_quota_is_shared_and_the_shortfall_named(cluster: Cluster, namespace: str, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        projects={"team": {"namespaces": [namespace], "quota": {"limits": {"default": {"nvidia.com/gpu": 6}}}}}
    )
    first = Workload(cluster, namespace, manifest("first", {"minReplicas": 4, "maxReplicas": 4}))
    first.wait_ready(4)
    second = Workload(cluster, namespace, manifest("second", {"minReplicas": 3, "maxReplicas": 3}))
    second.wait_ready(2)
    message = second.wait_condition("ScalingLimited", "True", "QuotaLimited")
    assert message == "wants 3, has 2: 1 GPU short in project team (0 of 6 free)"
    assert len(second.told("QuotaInsufficient")) == 1
    wait_used(daemon, 6)
    first.patch({"autoscaling": {"minReplicas": 3, "maxReplicas": 3}})
    second.wait_ready(3)
    second.wait_condition("ScalingLimited", "False")


def test_somebody_elses_objects_are_left_alone(cluster: Cluster, namespace: str, daemon: Daemon) -> None:
    cluster.kubectl("create", "service", "clusterip", "llama", "--tcp=80:80", "-n", namespace)
    workload = Workload(cluster, namespace, manifest("llama", FIXED))
    assert "not ours" in workload.wait_condition("Conflict", "True")
    path = f"/api/v1/namespaces/{namespace}/services/llama"
    assert cluster.get(path)["spec"]["selector"] == {"app": "llama"}
    assert len(workload.told("ConflictDetected")) == 1
    cluster.kubectl("delete", "service", "llama", "-n", namespace)
    workload.wait_condition("Conflict", "False")


def test_of_an_existing_service_only_our_selector_key_is_written(
    cluster: Cluster, namespace: str, daemon: Daemon
) -> None:
    cluster.kubectl("create", "service", "clusterip", "front", "--tcp=80:80", "-n", namespace)
    workload = Workload(cluster, namespace, manifest("llama", FIXED, traffic={"service": "front"}))
    workload.wait_ready(2)
    path = f"/api/v1/namespaces/{namespace}/services/front"
    wanted = {"app": "front", "tidegate.dev/revision": workload.status()["currentRevision"]}
    cluster.wait_for(lambda: cluster.get(path)["spec"]["selector"] == wanted, "our key in the selector")
    assert "ownerReferences" not in cluster.get(path)["metadata"]


def test_a_template_that_kubernetes_refuses_is_reported_and_nothing_else_touched(
    cluster: Cluster, namespace: str, daemon: Daemon
) -> None:
    body = manifest("llama", FIXED)
    body["spec"]["serving"]["deployment"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Sometimes"
    workload = Workload(cluster, namespace, body)
    assert "imagePullPolicy" in workload.wait_condition("TemplateInvalid", "True")
    assert workload.pods() == []


def test_a_namespace_cannot_spend_another_projects_quota(cluster: Cluster, namespace: str, daemon: Daemon) -> None:
    workload = Workload(cluster, namespace, manifest("llama", FIXED, project="rich"))
    assert "not to rich" in workload.wait_condition("ProjectDenied", "True")
    assert workload.pods() == []


def test_a_first_revision_that_never_serves_fails_and_releases_its_gpus(
    cluster: Cluster, namespace: str, daemon: Daemon
) -> None:
    body = manifest("llama", FIXED, ready_after_s=86400)
    body["spec"]["serving"]["initializationTimeoutSeconds"] = 4
    workload = Workload(cluster, namespace, body)
    cluster.wait_for(lambda: workload.status()["phase"] == "Failed", "the phase Failed")
    cluster.wait_for(lambda: not workload.pods(), "its GPUs to be released")
    workload.wait_condition("Stalled", "True", "InitializationTimeout")


def test_the_pages_of_the_daemon(cluster: Cluster, namespace: str, servers: ModelServers, daemon: Daemon) -> None:
    servers.set_load(namespace, "llama", concurrency=14, slots=100)
    workload = Workload(
        cluster,
        namespace,
        manifest("llama", {"minReplicas": 2, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}),
    )
    workload.wait_ready(2)
    cluster.wait_for(lambda: workload.status()["signals"][0].get("quality") == "fresh", "fresh pages")
    assert daemon.get("/healthz")[0] == 200
    assert "ready: 1 workloads" in daemon.get("/readyz")[1]
    report = daemon.explain("llama")
    assert (report["counts"]["ready"], report["phase"]) == (2, "Running")
    assert report["decision"]["inputs"][0]["target"] == 7.0
    metrics = daemon.get("/metrics")[1]
    for name in ("tidegate_replicas_desired", "tidegate_signal_value", "tidegate_decisions_total", "tidegate_gpus"):
        assert f"{name}{{" in metrics
    assert daemon.get("/api/v1/workloads/nowhere/nothing")[0] == 404
    assert daemon.stop() == 0
