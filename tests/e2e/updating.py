"""Rolling updates in the end-to-end tests: other templates, where an update is, and what it may not touch.

body = KINDS["deployment"].manifest("llama", FIXED)
workload = KINDS["deployment"].start(cluster, namespace, body)
with watched(cluster, namespace) as seen:              # pods, ledgers and phases at 20 Hz
    apply(workload, edited(body, "2"))
    wait_phase(workload, "Complete")
seen.check(quota=12)
"""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tests.e2e.daemon import Daemon
from tests.e2e.workload import Groups, Workload, group_manifest, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Exchange

Body = dict[str, Any]

PROJECT: Final = "team"
GPU: Final = "nvidia.com/gpu"
NEVER_READY_S: Final = 86400.0
OURS: Final = "tidegate.dev/"
REVISION: Final = "tidegate.dev/revision"
OWNER_REVISION: Final = "tidegate.dev/owner-revision"
VERB: Final = "tidegate.dev/rollout"


# --- kinds ---


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between the kinds for a test that runs on each."""

    name: str  # of the field in spec.serving
    workload: type[Workload]
    gpus: int  # of one replica
    pods: int  # of one replica

    def manifest(self, name: str, autoscaling: Mapping[str, Any], **spec: Any) -> Body:
        """Without `rollout` in `spec`: short clocks."""
        body = manifest(name, autoscaling) if self.name == "deployment" else group_manifest(name, autoscaling)
        body["spec"] |= {"rollout": rollout(), **spec}
        return body

    def start(self, cluster: Cluster, namespace: str, body: Body) -> Workload:
        """Returns when its minReplicas serve, and this is told."""
        workload = self.workload(cluster, namespace, body)
        wait_started(workload, body["spec"]["autoscaling"]["minReplicas"])
        return workload


def wait_started(workload: Workload, replicas: int) -> None:
    """Until so many serve, this is told, and the Service leads to them: its endpoints may come a second later."""

    def serves() -> bool:
        running = workload.status().get("phase") == "Running"
        return running and workload.ready() == len(endpoints(workload)) == replicas

    workload.cluster.wait_for(serves, f"{replicas} replicas of {workload.name} to serve", timeout_s=60)


KINDS: Final = {
    "deployment": Kind("deployment", Workload, gpus=1, pods=1),
    "leaderWorkerSet": Kind("leaderWorkerSet", Groups, gpus=3, pods=2),  # a leader with one, a worker with two
}


def of_the_team(namespace: str, gpus: int) -> dict[str, Any]:
    """The daemon's configuration: the namespace's project may have so many GPUs."""
    return {"projects": {PROJECT: {"namespaces": [namespace], "quota": {"limits": {"default": {GPU: gpus}}}}}}


# --- what a user does ---


def rollout(**fields: Any) -> dict[str, Any]:
    """Clocks that suit tests, but for those that are given."""
    drain = {"timeoutSeconds": 5, "quietSeconds": 1}
    return {
        "queueTimeoutSeconds": 600,
        "scheduleTimeoutSeconds": 300,
        "progressDeadlineSeconds": 300,
        "drain": drain,
    } | fields


def bounds(replicas: int) -> dict[str, int]:
    return {"minReplicas": replicas, "maxReplicas": replicas}


def templates(body: Body) -> list[dict[str, Any]]:
    """Its pod templates, to be changed in place: of groups the leader's first."""
    serving = body["spec"]["serving"]
    if "deployment" in serving:
        return [serving["deployment"]["template"]]
    return [serving["leaderWorkerSet"][part] for part in ("leaderTemplate", "workerTemplate")]


def edited(body: Body, tag: str, *, ready_after_s: float | None = None, **spec: Any) -> Body:
    """A copy with another image in every template, and with these fields of the spec.

    `ready_after_s`: how long its pods load; None as before.
    """
    other = copy.deepcopy(body)
    other["spec"] |= spec
    for template in templates(other):
        template["spec"]["containers"][0]["image"] = f"example/vllm:{tag}"
        if ready_after_s is not None:
            annotations = template["metadata"].setdefault("annotations", {})
            annotations["pod-ready.stage.kwok.x-k8s.io/delay"] = f"{ready_after_s:g}s"
    return other


def apply(workload: Workload, body: Body) -> None:
    """Its spec is this one from now on: nothing of the one before stays."""
    patch = [{"op": "replace", "path": "/spec", "value": body["spec"]}]
    _patch(workload, patch)


def verb(workload: Workload, name: str, revision: str) -> None:
    """Asks for it as the commands do: by the annotation."""
    annotations = workload.object()["metadata"].get("annotations") or {}
    _patch(
        workload,
        [
            {
                "op": "add",
                "path": "/metadata/annotations",
                "value": {**annotations, VERB: f"{name} {revision} {time.time():.3f}"},
            }
        ],
    )


def _patch(workload: Workload, patch: list[dict[str, Any]]) -> None:
    path = f"/apis/tidegate.dev/v1alpha1/namespaces/{workload.namespace}/inferenceworkloads/{workload.name}"
    status, answer = workload.cluster.request("PATCH", path, patch, content_type="application/json-patch+json")
    assert status == 200, answer


def take_gpus(cluster: Cluster, namespace: str, name: str, gpus: int) -> None:
    """Somebody else's pod in the project."""
    container = {"name": "x", "image": "none", "resources": {"limits": {GPU: str(gpus)}}}
    path = f"/api/v1/namespaces/{namespace}/pods"
    cluster.create(path, {"metadata": {"name": name}, "spec": {"containers": [container]}})


def wait_used(daemon: Daemon, gpus: int) -> None:
    """Until the daemon counts so many of the project. It sees pods and workloads by two watches: what was created first
    may be seen last."""
    used = f'tidegate_quota_gpus{{node_pool="default",project="{PROJECT}",type="used"}} {gpus:.1f}'
    daemon.cluster.wait_for(lambda: used in daemon.get("/metrics")[1], f"{gpus} GPUs of the project to be used")


def set_pod_status(cluster: Cluster, pod: dict[str, Any], status: dict[str, Any]) -> None:
    """As a kubelet would."""
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
    content_type = "application/strategic-merge-patch+json"
    code, answer = cluster.request("PATCH", path, {"status": status}, content_type=content_type)
    assert code == 200, answer


# --- where it is ---


def update_of(workload: Workload) -> dict[str, Any]:
    """The update's part of the record; empty where there is none."""
    found: dict[str, Any] = workload.status().get("rollout") or {}
    return found


def wait_phase(
    workload: Workload, phase: str, reason: str | None = None, timeout_s: float = 60.0, revision: str | None = None
) -> dict[str, Any]:
    """The update's part of the record once it is there."""

    def there() -> dict[str, Any] | None:
        found = update_of(workload)
        same = found.get("phase") == phase and revision in (None, found["revision"])
        return found if same and reason in (None, found.get("reason")) else None

    what = f"the update of {workload.name} to be {phase} {reason or ''}"
    found = workload.cluster.wait_for(there, what, timeout_s)
    assert found is not None
    return found


def wait_served(workload: Workload, tag: str, replicas: int, timeout_s: float = 60.0) -> str:
    """Waits until this image has all the traffic, with so many replicas, and nothing else is left; its revision."""

    def served() -> bool:
        status = workload.status()
        if status.get("rollout") or status["record"].get("leaving") or workload.ready() != replicas:
            return False
        revision = status["currentRevision"]
        images = {each["spec"]["containers"][0]["image"] for each in workload.pods()}
        return images == {f"example/vllm:{tag}"} and selected(workload) == revision

    workload.cluster.wait_for(served, f"{tag} alone to serve as {workload.name}", timeout_s)
    return str(workload.status()["currentRevision"])


def wait_message(workload: Workload, part: str, timeout_s: float = 30.0) -> str:
    """Waits until this is in the phase's message; the whole of it."""

    def there() -> str | None:
        message: str = workload.status().get("phaseMessage", "")
        return message if part in message else None

    found = workload.cluster.wait_for(there, f"{part!r} in the message of {workload.name}", timeout_s)
    assert found is not None
    return found


def selected(workload: Workload) -> str:
    """The revision that `<service>` leads to."""
    service = workload.cluster.get(f"/api/v1/namespaces/{workload.namespace}/services/{workload.name}")
    return str(service["spec"]["selector"].get(REVISION))


def pods_of(workload: Workload, revision: str) -> list[dict[str, Any]]:
    """All of its pods, those that terminate, too."""
    return [each for each in workload.pods() if each["metadata"]["labels"].get(OWNER_REVISION) == revision]


def last_pods(workload: Workload) -> list[dict[str, Any]]:
    """Each pod, and of groups each worker: a replica without one of these is not whole."""
    member = "leaderworkerset.sigs.k8s.io/worker-index"
    return [each for each in workload.pods() if each["metadata"]["labels"].get(member) != "0"]


def held(cluster: Cluster, namespace: str) -> dict[str, int]:
    """GPUs in the ledgers by revision."""
    found: Counter[str] = Counter()
    for ledger in cluster.get(f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/quotaledgers")["items"]:
        for hold in ledger["spec"].get("holds") or ():
            found[hold["revision"]] += hold["vector"].get(GPU, 0) // 1000
    return dict(found)


def controller_revisions(workload: Workload) -> set[str]:
    """Names of the stored revisions of this workload."""
    items = workload.cluster.get(f"/apis/apps/v1/namespaces/{workload.namespace}/controllerrevisions")["items"]
    uid = workload.object()["metadata"]["uid"]
    return {
        each["metadata"]["name"]
        for each in items
        if any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences", ()))
    }


def objects(workload: Workload) -> set[str]:
    """Names of the objects of its revisions."""
    version, plural = workload.objects
    path = (
        f"/apis/{version}/namespaces/{workload.namespace}/{plural}?labelSelector=tidegate.dev/workload={workload.name}"
    )
    return {each["metadata"]["name"] for each in workload.cluster.get(path)["items"]}


def instant(text: str) -> float:
    """Unix seconds of what the status says."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# --- what may not change ---


@dataclass(frozen=True, slots=True)
class Left:
    """Of a revision that an update may not touch: its object but for the count and our annotations, its pods, and
    what leads to it."""

    revision: str
    uid: str
    spec: str
    labels: str
    annotations: str
    pods: frozenset[str]
    selects: str
    endpoints: frozenset[str]


def left(workload: Workload) -> Left:
    """How its current revision is now; equal to a later one if nothing touched it."""
    there = workload.deployment()
    meta, spec = there["metadata"], {key: each for key, each in there["spec"].items() if key != "replicas"}
    foreign = {key: each for key, each in meta.get("annotations", {}).items() if not key.startswith(OURS)}
    name = meta["name"]
    return Left(
        name,
        meta["uid"],
        json.dumps(spec, sort_keys=True),
        json.dumps(meta.get("labels", {}), sort_keys=True),
        json.dumps(foreign, sort_keys=True),
        frozenset(each["metadata"]["uid"] for each in pods_of(workload, name)),
        selected(workload),
        endpoints(workload),
    )


def endpoints(workload: Workload, service: str | None = None) -> frozenset[str]:
    """Names of the ready pods behind a Service; None: the workload's own."""
    label = f"kubernetes.io/service-name={service or workload.name}"
    path = f"/apis/discovery.k8s.io/v1/namespaces/{workload.namespace}/endpointslices?labelSelector={label}"
    return frozenset(
        each["targetRef"]["name"]
        for found in workload.cluster.get(path)["items"]
        for each in found.get("endpoints") or ()
        if each["conditions"].get("ready")
    )


# --- what the daemon asked for ---


def deletions(proxy: FaultProxy, revision: str) -> list[Exchange]:
    """The daemon's DELETE requests for the object and the pods of a revision, oldest first."""
    return [each for each in proxy.exchanges() if each.method == "DELETE" and f"/{revision}" in each.path]
