"""An update has its whole quota before its first pod, and of a hundred templates only the last one counts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import StartDaemon
from tests.e2e.sampling import watched
from tests.e2e.updating import (
    KINDS,
    Body,
    Kind,
    apply,
    bounds,
    controller_revisions,
    edited,
    held,
    left,
    objects,
    of_the_team,
    pods_of,
    rollout,
    templates,
    update_of,
    wait_message,
    wait_phase,
    wait_served,
)
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.lws import await_collector

# kind, replicas before and after: of single pods as the issue says, of groups (three GPUs each) on a smaller scale
SIZES = [("deployment", 3, 8), ("leaderWorkerSet", 1, 2)]
OTHERS = 1  # GPUs that another workload has at first
CHANGES, BURST_ENDS = 100, (33, 66, 67)  # of the last two one has pods while those of the other still go
GOES_S = 3  # as long as that takes


@pytest.mark.parametrize(("kind", "before", "after"), SIZES, ids=[each[0] for each in SIZES], indirect=["kind"])
def test_template_and_bounds_together_hold_the_whole_new_size_first(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind, before: int, after: int
) -> None:
    """3 -> 8 replicas at 1 GPU on 11: beside the 3 that serve 7 are free, and 8 are needed, not 5."""
    needed = after * kind.gpus
    quota = before * kind.gpus + needed
    start_daemon(**of_the_team(namespace, quota))
    other = Workload(cluster, namespace, manifest("other", bounds(OTHERS)))
    body = kind.manifest("llama", bounds(before))
    workload = kind.start(cluster, namespace, body)
    other.wait_ready(OTHERS)
    serving = left(workload)
    with watched(cluster, namespace) as seen:
        apply(workload, edited(body, "2", autoscaling=bounds(after)))
        short = f"queued: 1 GPU short in project team ({needed - 1} of {needed} free)"
        message = wait_message(workload, short)
        update = wait_phase(workload, "Queued", "WaitingForQuota")["revision"]
        assert message.startswith(f"Update {update} {short}")
        time.sleep(2)
        assert left(workload) == serving
        assert objects(workload) == {serving.revision}
        assert update not in held(cluster, namespace), "all or nothing"
        freed_at = time.time()
        other.patch({"desiredPhase": "Stopped"})
        assert wait_served(workload, "2", after) == update
    first = seen.first_pods(update)
    assert first is not None
    assert first.at_s > freed_at, "no pod before the last GPU was free"
    assert first.held[update] == needed, "the whole vector is held before the first pod"
    seen.check(quota)
    assert seen.phases(workload) == {"Running"}
    assert seen.least_ready(workload) >= before
    assert held(cluster, namespace) == {update: needed}


@pytest.mark.parametrize(("kind", "before", "after"), SIZES, ids=[each[0] for each in SIZES], indirect=["kind"])
def test_bounds_alone_ask_for_the_difference_and_apply_in_place(
    cluster: Cluster, namespace: str, start_daemon: StartDaemon, kind: Kind, before: int, after: int
) -> None:
    """3 -> 8 on 11 while another one has 4: the 4 that are free are taken at once, the fifth when it is free."""
    more = (after - before) * kind.gpus
    quota = 2 * before * kind.gpus + more
    others = quota - before * kind.gpus - more + 1
    start_daemon(**of_the_team(namespace, quota))
    other = Workload(cluster, namespace, manifest("other", bounds(others)))
    body = kind.manifest("llama", bounds(before))
    workload = kind.start(cluster, namespace, body)
    other.wait_ready(others)
    revision = workload.status()["currentRevision"]
    pods = {each["metadata"]["uid"] for each in workload.pods()}
    with watched(cluster, namespace) as seen:
        workload.patch({"autoscaling": bounds(after)})
        had = before + (more - 1) // kind.gpus
        message = workload.wait_condition("ScalingLimited", "True", "QuotaLimited")
        assert f"wants {after}, has {had}: 1 GPU short in project team" in message
        workload.wait_ready(had)
        other.patch({"autoscaling": bounds(others - 1)})
        workload.wait_ready(after, timeout_s=60)
    seen.check(quota, least=3)
    assert workload.status()["currentRevision"] == revision
    assert "rollout" not in workload.status()
    assert pods <= {each["metadata"]["uid"] for each in workload.pods()}
    assert objects(workload) == {revision}
    assert held(cluster, namespace)[revision] == after * kind.gpus


def change(workload: Workload, body: Body) -> float:
    """A hundred templates in bursts; after each but the last one the newest gets pods. How long it took."""
    began = time.monotonic()
    for number in range(CHANGES):
        apply(workload, edited(body, f"v{number}", ready_after_s=1))
        if number in BURST_ENDS:
            workload.cluster.wait_for(lambda: set(update_pods(workload)), "an update to have pods", 60)
    return time.monotonic() - began


def update_pods(workload: Workload) -> list[str]:
    """Names of the pods of its update."""
    update = update_of(workload).get("revision", "")
    return [each["metadata"]["name"] for each in pods_of(workload, update)]


def test_of_a_hundred_templates_in_ten_seconds_the_last_one_serves_and_nothing_leaks(
    lws: Cluster, namespace: str, start_daemon: StartDaemon
) -> None:
    """On both kinds at once."""
    await_collector(lws)
    history, replicas = 2, 1
    quota = sum(5 * replicas * kind.gpus for kind in KINDS.values())  # it is not what keeps a third revision away
    start_daemon(**of_the_team(namespace, quota))
    fields = {"rollout": rollout(revisionHistoryLimit=history)}
    bodies = {name: kind.manifest(name.lower(), bounds(replicas), **fields) for name, kind in KINDS.items()}
    for template in (each for body in bodies.values() for each in templates(body)):
        template["metadata"].setdefault("annotations", {})["pod-delete.stage.kwok.x-k8s.io/delay"] = f"{GOES_S}s"
    workloads = {name: kind.start(lws, namespace, bodies[name]) for name, kind in KINDS.items()}
    with watched(lws, namespace) as seen, ThreadPoolExecutor(len(KINDS)) as users:
        streams = [users.submit(change, workloads[name], bodies[name]) for name in KINDS]
        took = max(each.result() for each in streams)
        current = {
            name: wait_served(workload, f"v{CHANGES - 1}", replicas, timeout_s=120)
            for name, workload in workloads.items()
        }
    seen.check(quota)
    for workload in workloads.values():
        assert seen.phases(workload) == {"Running"}
        assert seen.least_ready(workload) >= replicas
        alive = [{each for each in sample if each.startswith(workload.name)} for sample in seen.revisions_with_pods()]
        assert max(map(len, alive)) <= 2, "more than two revisions have pods"
        there = set.union(*alive)
        assert len(there) > 2, "some that came to nothing had pods"
        print(f"{workload.name}: {CHANGES} changes in {took:.1f} s, pods of {len(there)} revisions")
    assert held(lws, namespace) == {current[name]: replicas * kind.gpus for name, kind in KINDS.items()}, (
        "nothing is held for what is gone"
    )
    for name, workload in workloads.items():
        assert objects(workload) == {current[name]}
        assert {each["metadata"]["name"] for each in workload.pods()} == {
            each["metadata"]["name"] for each in pods_of(workload, current[name])
        }
    for name, workload in workloads.items():  # the sweep comes once a minute

        def kept(workload: Workload = workload, name: str = name) -> bool:
            there = controller_revisions(workload)
            return current[name] in there and len(there) <= 1 + history

        lws.wait_for(kept, "the stored revisions beyond the history to go", timeout_s=120, poll_s=0.5)
