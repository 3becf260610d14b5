"""Rolling updates in the end-to-end tests: other templates, where an update is, and what was so all the time.

body = KINDS["deployment"].manifest("llama", FIXED)
workload = KINDS["deployment"].start(cluster, namespace, body)
with watched(cluster, namespace) as seen:              # pods, ledgers and phases at 20 Hz
    apply(workload, edited(body, "2"))
    wait_phase(workload, "Complete")
seen.check(quota=12)
"""

from __future__ import annotations

import copy
import http.client
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from tests.e2e.workload import Groups, Workload, group_manifest, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Exchange

Body = dict[str, Any]

PROJECT: Final = "team"
GPU: Final = "nvidia.com/gpu"
SAMPLED_EVERY_S: Final = 0.05
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
        """Returns when its minReplicas are ready."""
        workload = self.workload(cluster, namespace, body)
        workload.wait_ready(body["spec"]["autoscaling"]["minReplicas"], timeout_s=60)
        return workload


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


# --- what was so all the time ---


@dataclass(frozen=True, slots=True)
class Sample:
    """At one instant."""

    at_s: float
    gpus: Mapping[str, int]  # of pods that exist, terminating ones too, by revision
    held: Mapping[str, int]  # in the ledgers, by revision
    limit: int  # of the ledgers
    phases: Mapping[str, str]  # by workload
    ready: Mapping[str, int]  # endpoints of each workload's own Service


@dataclass
class Watched:
    """What was seen."""

    samples: list[Sample] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)

    def check(self, quota: int, least: int = 20) -> None:
        """No pod without a hold, revision by revision; never more held than the quota."""
        assert not self.broken, self.broken
        assert len(self.samples) >= least
        for each in self.samples:
            for revision, gpus in each.gpus.items():
                assert gpus <= each.held.get(revision, 0), f"{revision} has pods that nothing holds: {each}"
            assert sum(each.held.values()) <= quota, f"more is held than the quota: {each}"

    def phases(self, workload: Workload) -> set[str]:
        """Those it had."""
        return {each.phases[workload.name] for each in self.samples if workload.name in each.phases}

    def least_ready(self, workload: Workload) -> int:
        """The fewest pods that its Service ever led to."""
        return min(each.ready.get(workload.name, 0) for each in self.samples)

    def revisions_with_pods(self) -> list[set[str]]:
        """In each sample."""
        return [set(each.gpus) for each in self.samples]

    def first_pods(self, revision: str) -> Sample | None:
        """The first sample with a pod of it."""
        return next((each for each in self.samples if revision in each.gpus), None)


@contextmanager
def watched(cluster: Cluster, namespace: str) -> Iterator[Watched]:
    """Looks at 20 Hz until the block ends."""
    found, ended = Watched(), threading.Event()
    reader = _Reader(cluster, namespace)

    def look() -> None:
        try:
            while not ended.wait(SAMPLED_EVERY_S):
                found.samples.append(reader.sample())
        except BaseException as error:  # told by check
            found.broken.append(error)

    thread = threading.Thread(target=look, name="watched")
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        reader.close()


class _Reader:
    """One connection that stays open: 20 looks a second cost little."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        address = urlsplit(cluster.url)
        tls = ssl.create_default_context(cafile=str(cluster.ca_path))
        self._connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=tls, timeout=30)
        self._token = cluster.admin_token
        core, own = f"/api/v1/namespaces/{namespace}", f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}"
        self._pods = f"{core}/pods?labelSelector={OWNER_REVISION}"
        self._ledgers, self._workloads = f"{own}/quotaledgers", f"{own}/inferenceworkloads"
        self._slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"

    def sample(self) -> Sample:
        """A hold may only have shrunk once a pod was gone, so pods are read before and after the ledgers: those that
        were there both times were there in between."""
        before = self._read(self._pods)
        ledgers = self._read(self._ledgers)
        after = {each["metadata"]["uid"] for each in self._read(self._pods)}
        gpus, held = Counter[str](), Counter[str]()
        for each in before:
            if each["metadata"]["uid"] in after and each.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                gpus[each["metadata"]["labels"][OWNER_REVISION]] += _gpus(each)
        for hold in (hold for each in ledgers for hold in each["spec"].get("holds") or ()):
            held[hold["revision"]] += hold["vector"].get(GPU, 0) // 1000
        limit = sum(each["spec"]["limit"].get(GPU, 0) // 1000 for each in ledgers)
        phases = {
            each["metadata"]["name"]: each.get("status", {}).get("phase", "") for each in self._read(self._workloads)
        }
        ready = Counter[str]()
        for each in self._read(self._slices):
            service = each["metadata"]["labels"].get("kubernetes.io/service-name", "")
            ready[service] += sum(bool(end["conditions"].get("ready")) for end in each.get("endpoints") or ())
        return Sample(time.time(), gpus, held, limit, phases, ready)

    def _read(self, path: str) -> list[dict[str, Any]]:
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise ConnectionError(f"{path}: {response.status} {answer}")
        found: list[dict[str, Any]] = answer["items"]
        return found

    def close(self) -> None:
        self._connection.close()


def _gpus(pod: dict[str, Any]) -> int:
    return sum(int(each.get("resources", {}).get("limits", {}).get(GPU, 0)) for each in pod["spec"]["containers"])


# --- what the daemon asked for ---


def deletions(proxy: FaultProxy, revision: str) -> list[Exchange]:
    """The daemon's DELETE requests for the object and the pods of a revision, oldest first."""
    return [each for each in proxy.exchanges() if each.method == "DELETE" and f"/{revision}" in each.path]
