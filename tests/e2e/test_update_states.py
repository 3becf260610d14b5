"""A new template in whatever state the workload is, deletion in every phase, and what a person may ask for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.behind import behind
from tests.e2e.conftest import StartDaemon
from tests.e2e.sampling import watched
from tests.e2e.updating import (
    GPU,
    KINDS,
    NEVER_READY_S,
    VERB,
    Body,
    Kind,
    apply,
    bounds,
    edited,
    held,
    instant,
    last_pods,
    left,
    objects,
    of_the_team,
    pods_of,
    rollout,
    selected,
    set_pod_status,
    take_gpus,
    templates,
    update_of,
    verb,
    wait_message,
    wait_phase,
    wait_served,
    wait_started,
    wait_used,
)
from tests.e2e.workload import Workload
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Hold, Rule
from tests.realcluster.modelserver import ModelServers

DEPLOYMENT = KINDS["deployment"]
NOWHERE = {"test.tidegate.dev/nowhere": "true"}


def wait_workload_phase(workload: Workload, phase: str, timeout_s: float = 60.0) -> None:
    workload.cluster.wait_for(lambda: workload.status().get("phase") == phase, f"the phase {phase}", timeout_s)


# --- one that never served has nothing to protect: its GPUs go to the new one ---


def test_one_that_is_initializing_hands_its_gpus_over(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    """On a quota that one revision fills."""
    quota = 2 * kind.gpus
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(2))
    with watched(cluster, namespace) as seen:
        workload = kind.workload(cluster, namespace, edited(body, "1", ready_after_s=NEVER_READY_S))
        wait_workload_phase(workload, "Initializing")
        first = workload.status()["currentRevision"]
        apply(workload, edited(body, "2"))
        second = wait_served(workload, "2", 2, timeout_s=120)
        wait_workload_phase(workload, "Running")
    seen.check(quota)
    assert first != second
    assert held(cluster, namespace) == {second: quota}
    assert objects(workload) == {second}


def test_one_whose_pods_wait_for_a_node_hands_its_gpus_over(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    """Of groups only the workers wait: their leaders are placed."""
    quota = 2 * kind.gpus
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(2))
    nowhere = edited(body, "1")
    templates(nowhere)[-1]["spec"]["nodeSelector"] = NOWHERE
    with watched(cluster, namespace) as seen:
        workload = kind.workload(cluster, namespace, nowhere)
        wait_message(workload, "2 of 2 replicas not placed on a node")
        assert workload.status()["phase"] == "Pending"
        apply(workload, edited(body, "2"))
        second = wait_served(workload, "2", 2)
    seen.check(quota)
    assert held(cluster, namespace) == {second: quota}
    assert objects(workload) == {second}


def test_of_one_that_waits_for_its_first_quota_only_the_new_template_starts(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    """What is free is one GPU less than a replica: nothing of a pod, of a group enough for its leader alone."""
    quota = 2 * kind.gpus
    taken = quota - (kind.gpus - 1)
    daemon = start_daemon(**of_the_team(namespace, quota))
    take_gpus(cluster, namespace, "notebook", taken)
    wait_used(daemon, taken)
    body = kind.manifest("llama", bounds(2))
    with watched(cluster, namespace) as seen:
        workload = kind.workload(cluster, namespace, body)
        wait_message(workload, f"{taken} GPU short in project team ({quota - taken} of {quota} free)")
        assert workload.status()["phase"] == "Pending"
        cluster.wait_for(lambda: "currentRevision" in workload.status(), "its first revision")
        first = workload.status()["currentRevision"]
        apply(workload, edited(body, "2"))
        cluster.wait_for(lambda: workload.status()["currentRevision"] != first, "the new template to be current")
        cluster.kubectl("delete", "pod", "notebook", "-n", namespace, "--wait=false")
        wait_served(workload, "2", 2)
    seen.check(quota)
    assert seen.first_pods(first) is None


def test_one_that_failed_at_first_starts_afresh_with_the_new_template(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    quota = 2 * kind.gpus
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(2))
    failing = edited(body, "1", ready_after_s=NEVER_READY_S)
    failing["spec"]["serving"]["initializationTimeoutSeconds"] = 3
    with watched(cluster, namespace) as seen:
        workload = kind.workload(cluster, namespace, failing)
        wait_workload_phase(workload, "Failed")
        apply(workload, edited(body, "2"))
        wait_served(workload, "2", 2)
        wait_workload_phase(workload, "Running")
    seen.check(quota)


def test_one_that_is_degraded_is_updated_beside_what_is_left_of_it(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    """Of groups the workers are lost, and what is left of them answers: their leaders."""
    quota = 4 * kind.gpus
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(2))
    workload = kind.start(cluster, namespace, body)
    for pod in last_pods(workload):
        set_pod_status(cluster, pod, {"conditions": [{"type": "Ready", "status": "False"}]})
    wait_workload_phase(workload, "Degraded")
    with watched(cluster, namespace) as seen:
        apply(workload, edited(body, "2", ready_after_s=2))
        wait_workload_phase(workload, "Updating")
        wait_served(workload, "2", 2)
        wait_workload_phase(workload, "Running")
    seen.check(quota)
    assert seen.phases(workload) <= {"Degraded", "Updating", "Running"}


# --- at zero, and stopped ---


@pytest.fixture
def at_zero(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon, kind: Kind
) -> tuple[Workload, Body]:
    """A workload that served and is at zero because nobody asks it anything."""
    start_daemon(**of_the_team(namespace, 2 * kind.gpus))
    labels = {"namespace": namespace, "workload": "llama"}
    autoscaling = {
        "minReplicas": 0,
        "maxReplicas": 1,
        "scaleToZeroRetentionSeconds": 1,
        "activation": {"page": "gateway", "metric": "gateway_pending_requests", "labels": labels},
    }
    servers.set_load(namespace, "llama", concurrency=1, slots=100)
    body = kind.manifest("llama", autoscaling)
    workload = kind.workload(cluster, namespace, body)
    workload.wait_ready(1)
    servers.set_load(namespace, "llama", concurrency=0)
    workload.wait_replicas(0, timeout_s=60)
    cluster.wait_for(lambda: not workload.pods(), "the last pod to go")
    return workload, body


def test_at_zero_the_new_template_is_current_without_a_pod_and_verified_when_it_first_serves(
    cluster: Cluster, namespace: str, servers: ModelServers, at_zero: tuple[Workload, Body], kind: Kind
) -> None:
    workload, body = at_zero
    first = workload.status()["currentRevision"]
    with watched(cluster, namespace) as seen:
        apply(workload, edited(body, "2"))
        message = workload.wait_condition("Unverified", "True", "NeverServed")
        second = workload.status()["currentRevision"]
        assert second != first
        assert f"{second} became current at zero" in message
        assert first in message
        time.sleep(2)
        assert workload.pods() == []
        assert held(cluster, namespace) == {}
        assert workload.status()["phase"] == "Running"
        servers.set_load(namespace, "llama", rps=1, slots=100)
        workload.wait_ready(1)
        workload.wait_condition("Unverified", "False", "Verified")
        assert wait_served(workload, "2", 1) == second
    seen.check(kind.gpus)


def test_at_zero_the_previous_revision_comes_back_if_the_first_activation_fails(
    cluster: Cluster, namespace: str, servers: ModelServers, at_zero: tuple[Workload, Body], kind: Kind
) -> None:
    workload, body = at_zero
    first = workload.status()["currentRevision"]
    with watched(cluster, namespace) as seen:
        soon = rollout(progressDeadlineSeconds=4)
        apply(workload, edited(body, "2", ready_after_s=NEVER_READY_S, rollout=soon))
        workload.wait_condition("Unverified", "True", "NeverServed")
        second = workload.status()["currentRevision"]
        servers.set_load(namespace, "llama", rps=1, slots=100)
        cluster.wait_for(lambda: pods_of(workload, second), "the activation of the new one")
        failed = wait_phase(workload, "Failed", "ActivationFailed")
        assert failed["revision"] == second
        cluster.wait_for(lambda: workload.status()["currentRevision"] == first, "the previous one to be current")
        workload.wait_ready(1)
        cluster.wait_for(lambda: not pods_of(workload, second), "the pods of the new one to go")
        cluster.wait_for(lambda: set(held(cluster, namespace)) == {first}, "its hold to be released")
        wait_workload_phase(workload, "Running")
    seen.check(2 * kind.gpus)
    assert "it did not come up when it was first needed" in wait_message(workload, f"Update {second} failed")
    assert objects(workload) == {first}
    assert selected(workload) == first
    workload.wait_condition("Unverified", "False")


def test_while_stopped_the_new_template_is_current_without_a_pod(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    start_daemon(**of_the_team(namespace, 2 * kind.gpus))
    body = kind.manifest("llama", bounds(2))
    workload = kind.start(cluster, namespace, body)
    first = workload.status()["currentRevision"]
    workload.patch({"desiredPhase": "Stopped"})
    wait_workload_phase(workload, "Stopped")
    apply(workload, edited(body, "2", desiredPhase="Stopped"))
    cluster.wait_for(lambda: workload.status()["currentRevision"] != first, "the new template to be current")
    time.sleep(1)
    assert workload.pods() == []
    assert held(cluster, namespace) == {}
    assert workload.status()["phase"] == "Stopped"
    workload.patch({"desiredPhase": "Running"})
    wait_served(workload, "2", 2)


def test_stopped_in_mid_update_everything_goes_and_the_new_template_resumes(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    quota = 4 * kind.gpus
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(2))
    workload = kind.start(cluster, namespace, body)
    with watched(cluster, namespace) as seen:
        apply(workload, edited(body, "2", ready_after_s=4))
        wait_phase(workload, "Starting")
        workload.patch({"desiredPhase": "Stopped"})
        wait_workload_phase(workload, "Stopped")
        cluster.wait_for(lambda: not workload.pods() and not held(cluster, namespace), "all pods and holds to go")
        workload.patch({"desiredPhase": "Running"})
        wait_served(workload, "2", 2)
    seen.check(quota)


# --- in the middle of another update ---


def test_a_template_in_the_middle_of_a_roll_back_waits_for_the_pods_of_the_one_before(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    quota = 2 * kind.gpus
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(1), rollout=rollout(progressDeadlineSeconds=3))
    workload = kind.start(cluster, namespace, body)
    bad = edited(body, "2", ready_after_s=NEVER_READY_S)
    for template in templates(bad):  # their end takes 4 s
        template["metadata"]["annotations"]["pod-delete.stage.kwok.x-k8s.io/delay"] = "4s"
    with watched(cluster, namespace) as seen:
        apply(workload, bad)
        second = wait_phase(workload, "RollingBack", "ProgressDeadlineExceeded")["revision"]
        apply(workload, edited(body, "3", rollout=rollout()))
        third = wait_phase(workload, "Queued")["revision"]
        assert third != second
        assert f"waits until the pods of {second} are gone" in wait_message(workload, f"Update {third} queued")
        assert wait_served(workload, "3", 1) == third
    seen.check(quota)
    assert max(map(len, seen.revisions_with_pods())) <= 2
    assert not any({second, third} <= each for each in seen.revisions_with_pods())
    assert seen.phases(workload) == {"Running"}
    assert workload.told("RolloutSuperseded")


def test_a_template_that_is_taken_back_ends_its_update_and_changes_nothing(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    start_daemon(**of_the_team(namespace, 4 * kind.gpus))
    body = kind.manifest("llama", bounds(2))
    workload = kind.start(cluster, namespace, body)
    before = left(workload)
    apply(workload, edited(body, "2", ready_after_s=NEVER_READY_S))
    update = wait_phase(workload, "Starting")["revision"]
    cluster.wait_for(lambda: len(pods_of(workload, update)) == 2 * kind.pods, "the pods of the update")
    apply(workload, body)
    wait_served(workload, "1", 2)
    assert left(workload) == before
    assert held(cluster, namespace) == {before.revision: 2 * kind.gpus}
    workload.wait_condition("UpdatePending", "False", "UpToDate")


# --- quota ---


def test_where_quota_is_short_refuse_fails_at_once_and_retry_tries_again(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    """One GPU is short, of groups as of pods: all but one of its replicas would fit."""
    quota = 4 * kind.gpus
    daemon = start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(2), rollout=rollout(whenQuotaShort="refuse"))
    workload = kind.start(cluster, namespace, body)
    take_gpus(cluster, namespace, "notebook", 1)
    wait_used(daemon, 2 * kind.gpus + 1)
    before = left(workload)
    with watched(cluster, namespace) as seen:
        apply(workload, edited(body, "2"))
        update = wait_phase(workload, "Failed", "QuotaRefused")["revision"]
        assert "whenQuotaShort is refuse" in wait_message(workload, f"Update {update} failed")
        workload.wait_condition("Stalled", "True", "QuotaRefused")
        cluster.kubectl("delete", "pod", "notebook", "-n", namespace, "--wait=false")
        time.sleep(2)
        assert left(workload) == before, "a failed one is not tried again by itself"
        assert seen.first_pods(update) is None
        verb(workload, "retry", update)
        assert wait_served(workload, "2", 2) == update
    seen.check(quota)
    assert seen.phases(workload) == {"Running"}


def test_what_can_never_fit_fails_at_once(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    """The quota is one GPU less than what serves and the update need together."""
    quota = (2 + 2) * kind.gpus - 1
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(2))
    workload = kind.start(cluster, namespace, body)
    before = left(workload)
    with watched(cluster, namespace) as seen:
        apply(workload, edited(body, "2"))
        update = wait_phase(workload, "Failed", "NeverFits")["revision"]
        assert "it can never fit" in wait_message(workload, f"Update {update} failed")
        time.sleep(1)
    seen.check(quota)
    assert seen.first_pods(update) is None
    assert seen.phases(workload) == {"Running"}
    assert left(workload) == before


# --- verbs ---


def test_abort_deletes_the_update_and_retry_begins_it_again(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    quota = 2 * kind.gpus
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(1))
    workload = kind.start(cluster, namespace, body)
    before = left(workload)
    with watched(cluster, namespace) as seen:
        apply(workload, edited(body, "2", ready_after_s=5))
        update = wait_phase(workload, "Starting")["revision"]
        cluster.wait_for(lambda: len(pods_of(workload, update)) == kind.pods, "the pods of the update")
        verb(workload, "abort", update)
        wait_phase(workload, "Failed", "Aborted")
        assert workload.told("RolloutAborted")
        assert pods_of(workload, update) == []
        assert held(cluster, namespace) == {before.revision: kind.gpus}
        assert left(workload) == before
        verb(workload, "retry", update)
        assert wait_served(workload, "2", 1) == update
    seen.check(quota)
    assert seen.phases(workload) == {"Running"}
    assert seen.least_ready(workload) == 1


def test_a_pause_stops_the_clock_and_resume_goes_on(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind
) -> None:
    quota = 4 * kind.gpus
    start_daemon(**of_the_team(namespace, quota))
    body = kind.manifest("llama", bounds(2), rollout=rollout(progressDeadlineSeconds=9))
    workload = kind.start(cluster, namespace, body)
    before = left(workload)
    with watched(cluster, namespace) as seen:
        apply(workload, edited(body, "2", ready_after_s=4))
        started = wait_phase(workload, "Starting")
        update, deadline = started["revision"], instant(started["progressDeadlineAt"])
        verb(workload, "pause", update)
        pause = wait_phase(workload, "Paused")["pause"]
        assert "paused at 0 % by a person" in wait_message(workload, f"Update {update} paused")
        time.sleep(max(0.0, deadline + 1.0 - time.time()))
        assert update_of(workload)["phase"] == "Paused", "its deadline does not count meanwhile"
        assert left(workload) == before, "ready as it is, it gets no traffic"
        assert len(pods_of(workload, update)) == 2 * kind.pods
        verb(workload, "resume", update)
        assert wait_served(workload, "2", 2) == update
    seen.check(quota)
    assert instant(pause["since"]) < deadline
    assert workload.told("RolloutPaused")
    assert workload.told("RolloutResumed")


def test_a_verb_that_is_no_verb_or_names_another_revision_does_nothing_and_is_told(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon
) -> None:
    start_daemon(**of_the_team(namespace, 4))
    body = DEPLOYMENT.manifest("llama", bounds(2))
    workload = DEPLOYMENT.start(cluster, namespace, body)
    apply(workload, edited(body, "2", ready_after_s=NEVER_READY_S))
    update = wait_phase(workload, "Starting")["revision"]
    verb(workload, "explode", update)
    cluster.wait_for(lambda: len(workload.events("VerbIgnored")) == 1, "the first to be told")
    verb(workload, "abort", workload.status()["currentRevision"])
    cluster.wait_for(lambda: len(workload.events("VerbIgnored")) == 2, "the second to be told")
    assert any("'explode' is not a verb; allowed: promote" in each for each in workload.events("VerbIgnored"))
    assert update_of(workload)["phase"] == "Starting"
    assert VERB in workload.object()["metadata"]["annotations"]


# --- deletion ---


def test_deleted_in_any_phase_of_its_update_nothing_of_it_is_left(
    cluster: Cluster, namespace: str, servers: ModelServers, tmp_path: Path, kind: Kind
) -> None:
    """One workload in each phase. Shifting is kept by a selector that is held up on its way."""
    quota = 2 * len(PHASES) * kind.gpus
    config = of_the_team(namespace, quota)
    with FaultProxy(cluster.url, cluster.ca_path) as proxy, behind(cluster, proxy, namespace, tmp_path, config):
        foreign = present(cluster, namespace, kind)
        bodies = {phase: kind.manifest(phase.lower(), bounds(1)) for phase in PHASES}
        workloads = {phase: kind.workload(cluster, namespace, body) for phase, body in bodies.items()}
        for workload in workloads.values():
            wait_started(workload, 1)
        servers.set_load(namespace, "draining", concurrency=2, slots=100, service_time_s=600)
        held_up = proxy.arm(Rule(Hold(), methods=("PATCH",), path="/services/shifting$", times=None))
        with watched(cluster, namespace) as seen:
            for phases in (PHASES[:-1], PHASES[-1:]):
                for phase in phases:
                    bring_to(workloads[phase], phase, bodies[phase], quota, kind)
                for phase in phases:
                    wait_phase(workloads[phase], phase)
            for phase, workload in workloads.items():
                assert update_of(workload)["phase"] == phase, workload.status()
            made = present(cluster, namespace, kind) - foreign
            assert {name for _, name in made} >= {each.status()["currentRevision"] for each in workloads.values()}
            for workload in workloads.values():
                cluster.kubectl("delete", "iw", workload.name, "-n", namespace, "--wait=false")
            held_up.release()
            # the garbage collector learns of kinds that were just installed every 30 s
            cluster.wait_for(
                lambda: not held(cluster, namespace) and present(cluster, namespace, kind) <= foreign,
                "everything to go",
                timeout_s=180,
                poll_s=0.5,
            )
        seen.check(quota)


# the last one ends by itself
PHASES = ("Starting", "Warming", "Shifting", "Paused", "Draining", "Failed", "Queued", "RollingBack")


def bring_to(workload: Workload, phase: str, body: Body, quota: int, kind: Kind) -> None:
    """Its update will be in this phase, and stay there for a while."""
    loading = edited(body, "2", ready_after_s=NEVER_READY_S)
    match phase:
        case "Starting":
            apply(workload, loading)
        case "Warming":  # no such page, so no pod is ever warm
            apply(workload, edited(body, "2", rollout=rollout(warmup={"path": "/nowhere"})))
        case "Shifting":
            apply(workload, edited(body, "2"))
        case "Paused":
            apply(workload, edited(body, "2", rollout=rollout(paused=True)))
        case "Draining":
            slow = {"timeoutSeconds": 3600, "quietSeconds": 5}
            apply(workload, edited(body, "2", rollout=rollout(drain=slow)))
        case "Failed":
            apply(workload, loading)
            verb(workload, "abort", wait_phase(workload, "Starting")["revision"])
        case "Queued":  # as large as can fit beside its current replica, once all the others are gone
            large = edited(body, "2")
            workers = kind.gpus - 1
            gpus = quota - kind.gpus - workers
            templates(large)[0]["spec"]["containers"][0]["resources"]["limits"][GPU] = str(gpus)
            apply(workload, large)
        case "RollingBack":
            for template in templates(loading):
                template["metadata"]["annotations"]["pod-delete.stage.kwok.x-k8s.io/delay"] = "8s"
            apply(workload, loading)
            update = wait_phase(workload, "Starting")["revision"]
            workload.cluster.wait_for(lambda: pods_of(workload, update), "its pod")
            verb(workload, "abort", update)


MADE = (
    ("apis/apps/v1", "replicasets"),
    ("apis/apps/v1", "statefulsets"),
    ("apis/apps/v1", "controllerrevisions"),
    ("api/v1", "services"),
    ("api/v1", "pods"),
)


def present(cluster: Cluster, namespace: str, kind: Kind) -> set[tuple[str, str]]:
    """Plural and name of what a workload makes, or makes others make: theirs carry no label of ours."""
    version, plural = kind.workload.objects
    own = f"apis/{version}", plural
    return {
        (made, each["metadata"]["name"])
        for path, made in (own, *MADE)
        for each in cluster.get(f"/{path}/namespaces/{namespace}/{made}")["items"]
    }
