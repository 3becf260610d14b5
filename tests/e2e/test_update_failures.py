"""An update that cannot come up: its pods and its hold go at its deadline, and what serves never notices.

Imitated: KWOK's pods pull no images and run nothing. A pod of a bad image is one that never gets past its creation,
with the container status that a kubelet would write.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.mount import Mount
from tests.e2e.daemon import Daemon
from tests.e2e.denying import denying
from tests.e2e.sampling import Watched, watched
from tests.e2e.updating import (
    GPU,
    NEVER_READY_S,
    Body,
    Kind,
    apply,
    bounds,
    deletions,
    edited,
    held,
    instant,
    left,
    objects,
    of_the_team,
    pods_of,
    rollout,
    set_pod_status,
    take_gpus,
    templates,
    update_of,
    wait_message,
    wait_phase,
    wait_served,
    wait_used,
)
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Hold, Rule

REPLICAS = 2
DEADLINE_S = 5
ISSUED_WITHIN_S = 1.0  # the issue's bound on every delete
LOOKS = 4  # of the sampler, take as many requests as the daemon needs: a busy machine may slow these down
LONG_GRACE_S = 60  # what never served is not given so long
LEASE_S = 4
LEASE = {"leaderElection": {"leaseDuration": f"{LEASE_S}s", "renewDeadline": "3s", "retryPeriod": "500ms"}}


class Ground:
    """A workload that serves, in a project with room for one update, and its daemon behind a proxy."""

    def __init__(self, cluster: Cluster, namespace: str, kind: Kind, directory: Path, stack: ExitStack) -> None:
        self.cluster, self.namespace, self.kind, self._stack = cluster, namespace, kind, stack
        self.quota = 2 * REPLICAS * kind.gpus
        self.proxy = stack.enter_context(FaultProxy(cluster.url, cluster.ca_path))
        config = {**of_the_team(namespace, self.quota), **LEASE}
        self.daemon = Daemon(cluster, namespace, directory / "daemon", config, self.proxy.url)
        self._mount = Mount(directory / "daemon", (directory / "daemon" / "config.yaml").read_text())
        stack.callback(end, self.daemon)
        self.daemon.start()
        self.body = kind.manifest("llama", bounds(REPLICAS), rollout=rollout(progressDeadlineSeconds=DEADLINE_S))
        self.workload = kind.start(cluster, namespace, self.body)
        self.before = left(self.workload)
        self.seen: Watched = stack.enter_context(watched(cluster, namespace))

    def limit(self, gpus: int) -> None:
        """The operator lowers or raises the quota."""
        text = (self._mount.directory / "config.yaml").read_text()
        changed = text.replace(f"{GPU}: {self.quota}", f"{GPU}: {gpus}")
        assert changed != text
        self._mount.write(changed)

    def begin(self, body: Body) -> dict[str, Any]:
        """The template changes; the update's part of the record once its pods are wanted."""
        self.proxy.forget()
        apply(self.workload, body)
        return wait_phase(self.workload, "Starting")

    def wait_pods(self, revision: str) -> list[dict[str, Any]]:
        """All pods of the update."""
        wanted = REPLICAS * self.kind.pods

        def there() -> list[dict[str, Any]]:
            found = pods_of(self.workload, revision)
            return found if len(found) == wanted else []

        return self.cluster.wait_for(there, f"{wanted} pods of {revision}", 60)

    def stand_by(self, directory: Path) -> Daemon:
        """A second daemon of the release, which follows."""
        second = self.daemon.another("tidegate-1", directory / "second", self.proxy.url)
        self._stack.callback(end, second)
        return second.start()

    def check_gone(self, update: str, due: float) -> None:
        """All was asked for in time, nothing of the update is left, and nothing happened to what serves."""
        assert not pods_of(self.workload, update)
        assert objects(self.workload) == {self.before.revision}
        assert held(self.cluster, self.namespace) == {self.before.revision: REPLICAS * self.kind.gpus}
        self.check_in_time(update, due)
        self.check_unharmed()

    def check_in_time(self, update: str, due: float) -> None:
        """The object at once, with its pods. Where those have a long grace, it is shortened as soon as they end: the
        garbage collector makes them, from the object down, and none may be deleted before it does."""
        asked = deletions(self.proxy, update)
        late = [each.at_s - due for each in asked if "/pods/" not in each.path]
        shortened = [(each.path.rpartition("/")[2], each.at_s) for each in asked if "/pods/" in each.path]
        after = [at_s - max(due, self.seen.terminating_at(pod)) for pod, at_s in shortened]
        within_s = ISSUED_WITHIN_S + LOOKS * self.seen.slowness_s(due)
        print(f"{self.kind.name}: object {late} s after it was due, grace {after} s after the pods began to end")
        print(f"  allowed on this machine: {within_s:.2f} s")
        assert min(late) >= 0, "nothing is deleted early"
        assert max(late) <= within_s
        assert all(each <= within_s for each in after)
        assert all(at_s >= due for _, at_s in shortened)

    def check_unharmed(self) -> None:
        assert left(self.workload) == self.before
        time.sleep(0.2)  # one more look of the sampler at what the end was
        self.seen.audit.catch_up()
        self.seen.check(self.quota)
        assert self.seen.phases(self.workload) == {"Running"}
        assert self.seen.least_ready(self.workload) == REPLICAS
        assert list(self.daemon.log_lines("step.crashed")) == []


def end(daemon: Daemon) -> None:
    if daemon.running:
        os.kill(daemon.pid, signal.SIGCONT)
    daemon.stop()
    print(f"--- {daemon.pod} of {daemon.namespace}\n{daemon.log()[-6000:]}")


@pytest.fixture
def ground(cluster: Cluster, namespace: str, kind: Kind, tmp_path: Path) -> Iterator[Ground]:
    with ExitStack() as stack:
        yield Ground(cluster, namespace, kind, tmp_path, stack)


def fails_at_its_deadline(ground: Ground, started: dict[str, Any]) -> None:
    """Waits for it, and looks at what was done when."""
    update, deadline = started["revision"], instant(started["progressDeadlineAt"])
    failed = wait_phase(ground.workload, "Failed", "ProgressDeadlineExceeded", timeout_s=120)
    assert instant(failed["progressDeadlineAt"]) == deadline
    ground.check_gone(update, deadline)
    message = wait_message(ground.workload, "failed")
    assert message.startswith(
        f"Update {update} failed: it did not serve within the progress deadline; {ground.before.revision} goes on"
    )
    assert ground.workload.told("ProgressDeadlineExceeded")
    assert ground.workload.told("RolledBack")


def without_image(body: Body) -> Body:
    """Its pods are placed and never get further: the kubelet cannot pull."""
    bad = edited(body, "no-such-image")
    for template in templates(bad):
        template["metadata"].setdefault("annotations", {})["pod-create.stage.kwok.x-k8s.io/delay"] = "24h"
    return bad


def test_a_bad_image_is_rolled_back_at_its_deadline(ground: Ground) -> None:
    started = ground.begin(without_image(ground.body))
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    for pod in ground.wait_pods(started["revision"]):
        container = {"name": "vllm", "image": "", "imageID": "", "ready": False, "restartCount": 0}
        status = {"containerStatuses": [{**container, "state": {"waiting": waiting}}]}
        set_pod_status(ground.cluster, pod, status)
    fails_at_its_deadline(ground, started)


def test_one_that_is_never_ready_is_rolled_back_at_its_deadline_without_its_own_long_grace(ground: Ground) -> None:
    bad = edited(ground.body, "2", ready_after_s=NEVER_READY_S)
    for template in templates(bad):
        template["metadata"]["annotations"]["pod-delete.stage.kwok.x-k8s.io/graceful"] = "true"
        template["spec"]["terminationGracePeriodSeconds"] = LONG_GRACE_S
    started = ground.begin(bad)
    pods = ground.wait_pods(started["revision"])
    fails_at_its_deadline(ground, started)
    assert time.time() < instant(started["progressDeadlineAt"]) + LONG_GRACE_S
    paths = [each.path for each in deletions(ground.proxy, started["revision"])]
    assert len(set(paths)) >= 1 + len(pods), "the object, and each pod with a shorter grace"


def test_one_that_is_half_ready_is_rolled_back_at_its_deadline(ground: Ground) -> None:
    """Half of the pods; of groups the whole first one and the leader of the second."""
    started = ground.begin(edited(ground.body, "2", ready_after_s=NEVER_READY_S))
    pods = sorted(ground.wait_pods(started["revision"]), key=lambda each: str(each["metadata"]["name"]))
    ground.cluster.wait_for(
        lambda: all(each["status"].get("podIP") for each in pods_of(ground.workload, started["revision"])),
        "all pods of the update to have an address",
    )
    for pod in pods[:-1]:
        set_pod_status(ground.cluster, pod, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    fails_at_its_deadline(ground, started)
    assert not ground.workload.events("TrafficWeightUpdated")


def test_one_whose_pods_a_webhook_denies_is_rolled_back_at_its_deadline(ground: Ground, tmp_path: Path) -> None:
    with denying(ground.cluster, ground.namespace, tmp_path, "example/vllm:denied") as refused:
        started = ground.begin(edited(ground.body, "denied"))
        ground.cluster.wait_for(lambda: refused, "the webhook to be asked")
        fails_at_its_deadline(ground, started)
    assert ground.seen.first_pods(started["revision"]) is None


def test_one_whose_object_a_webhook_denies_is_given_up_at_its_deadline(ground: Ground, tmp_path: Path) -> None:
    """There is nothing to delete, but its hold is to go."""
    objects_of = "/".join(ground.workload.objects)
    with denying(ground.cluster, ground.namespace, tmp_path, "example/vllm:denied", objects_of) as refused:
        started = ground.begin(edited(ground.body, "denied"))
        ground.cluster.wait_for(lambda: refused, "the webhook to be asked")
        assert "is not allowed here" in ground.workload.wait_condition("TemplateInvalid", "True")
        failed = wait_phase(ground.workload, "Failed", "ProgressDeadlineExceeded")
    assert instant(failed["since"]) >= instant(started["progressDeadlineAt"])
    assert deletions(ground.proxy, started["revision"]) == []
    assert objects(ground.workload) == {ground.before.revision}
    released = {ground.before.revision: REPLICAS * ground.kind.gpus}
    ground.cluster.wait_for(lambda: held(ground.cluster, ground.namespace) == released, "its hold to be released")
    ground.workload.wait_condition("TemplateInvalid", "False")
    ground.check_unharmed()


def test_one_whose_quota_is_taken_away_while_it_starts_is_rolled_back_at_its_deadline(ground: Ground) -> None:
    started = ground.begin(edited(ground.body, "2", ready_after_s=NEVER_READY_S))
    ground.wait_pods(started["revision"])
    ground.limit(REPLICAS * ground.kind.gpus)
    fails_at_its_deadline(ground, started)
    ground.cluster.wait_for(
        lambda: last_limit(ground) == REPLICAS * ground.kind.gpus, "the ledger to have the lower limit"
    )


def test_its_deadline_passes_while_nobody_leads_and_the_next_leader_deletes_at_once(
    ground: Ground, tmp_path: Path
) -> None:
    ground.stand_by(tmp_path)
    started = ground.begin(edited(ground.body, "2", ready_after_s=NEVER_READY_S))
    ground.wait_pods(started["revision"])
    deadline = instant(started["progressDeadlineAt"])
    time.sleep(max(0.0, deadline - 1.0 - time.time()))
    ground.daemon.kill()
    killed_at = time.time()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{ground.namespace}/leases/tidegate"

    def regained() -> float:
        lease = ground.cluster.get(path)["spec"]
        assert lease["holderIdentity"].startswith("tidegate-1")
        return instant(lease["acquireTime"])

    regained_at = ground.cluster.wait_for(regained, "the second one to lead", 60)
    assert killed_at < deadline < regained_at, "nobody led when it passed"
    wait_phase(ground.workload, "Failed", "ProgressDeadlineExceeded", timeout_s=120)
    ground.check_gone(started["revision"], regained_at)


def test_while_its_hold_is_under_way_to_the_ledger_there_is_nothing_of_it(ground: Ground) -> None:
    write = ground.proxy.arm(Rule(Hold(), methods={"PUT"}, path="/quotaledgers/", times=None))
    apply(ground.workload, edited(ground.body, "2"))
    write.wait_struck(60)
    update = wait_phase(ground.workload, "Queued")["revision"]
    time.sleep(2)
    assert objects(ground.workload) == {ground.before.revision}
    assert update_of(ground.workload)["phase"] == "Queued"
    write.release()
    assert wait_served(ground.workload, "2", REPLICAS) == update
    ground.seen.audit.catch_up()
    ground.seen.check(ground.quota)


def test_one_that_cannot_be_placed_gives_its_quota_back_and_is_queued_again(ground: Ground) -> None:
    bad = edited(ground.body, "2", rollout=rollout(scheduleTimeoutSeconds=3))
    for template in templates(bad):
        template["spec"]["nodeSelector"] = {"test.tidegate.dev/nowhere": "true"}
    started = ground.begin(bad)
    update, due = started["revision"], instant(started["scheduleDeadlineAt"])
    ground.wait_pods(update)
    queued = wait_phase(ground.workload, "Queued", "Unplaced")
    ground.cluster.wait_for(lambda: update not in held(ground.cluster, ground.namespace), "its hold to be released", 90)
    ground.check_gone(update, due)
    assert instant(queued["notBefore"]) >= due + 30
    assert queued["queueDeadlineAt"] == started["queueDeadlineAt"], "being queued again does not restart that clock"
    wait_message(ground.workload, f"Update {update} queued: its pods were not placed")


@pytest.mark.parametrize("kind", ["leaderWorkerSet"], indirect=True)
def test_a_group_whose_workers_find_no_node_once_its_leader_is_ready_is_queued_again(ground: Ground) -> None:
    """All pods had a node for a while: the leaders, before there was a worker."""
    bad = edited(ground.body, "2", rollout=rollout(scheduleTimeoutSeconds=3))
    bad["spec"]["serving"]["leaderWorkerSet"]["startupPolicy"] = "LeaderReady"
    templates(bad)[-1]["spec"]["nodeSelector"] = {"test.tidegate.dev/nowhere": "true"}
    started = ground.begin(bad)
    update = started["revision"]
    ground.wait_pods(update)
    queued = wait_phase(ground.workload, "Queued", "Unplaced")
    assert instant(queued["since"]) < instant(started["progressDeadlineAt"])
    ground.cluster.wait_for(lambda: update not in held(ground.cluster, ground.namespace), "its hold to be released", 90)
    assert not pods_of(ground.workload, update)
    assert objects(ground.workload) == {ground.before.revision}
    ground.check_unharmed()


def test_one_whose_quota_is_taken_while_it_waits_ends_at_the_queue_timeout_without_a_pod(ground: Ground) -> None:
    """The quota is large enough, but pods that are not ours take of it: first one GPU, then another."""
    needed = REPLICAS * ground.kind.gpus
    take_gpus(ground.cluster, ground.namespace, "first", 1)
    wait_used(ground.daemon, needed + 1)
    apply(ground.workload, edited(ground.body, "2", rollout=rollout(queueTimeoutSeconds=20)))
    wait_message(ground.workload, f"queued: 1 GPU short in project team ({needed - 1} of {needed} free)")
    take_gpus(ground.cluster, ground.namespace, "second", 1)
    wait_message(ground.workload, f"queued: 2 GPU short in project team ({needed - 2} of {needed} free)")
    queued = wait_phase(ground.workload, "Queued")
    failed = wait_phase(ground.workload, "Failed", "QueueTimeout")
    assert instant(failed["since"]) >= instant(queued["queueDeadlineAt"])
    update = failed["revision"]
    assert ground.seen.first_pods(update) is None
    assert all(update not in each.held for each in ground.seen.samples)
    assert deletions(ground.proxy, update) == []
    assert objects(ground.workload) == {ground.before.revision}
    ground.check_unharmed()


def last_limit(ground: Ground) -> int:
    return ground.seen.samples[-1].limit
