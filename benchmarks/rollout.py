"""How long an update takes beyond the start-up of its own pods, on a real control plane, beside a plain Deployment.

Two things are updated in turn, with the same pods (one GPU each, KWOK's, Ready some seconds after they are created):

  tidegate    an InferenceWorkload behind its Service, whose GPUs are limited, with all defaults: quota is held, all new
              pods are created at once, the selector moves when they are ready together, the old ones drain
  deployment  a Deployment with maxSurge 100 % and maxUnavailable 0 behind a Service of its own: as near as Kubernetes'
              own rolling update comes to that. It has no quota to hold and drains nothing

30 of each take about 7 min.

What is measured, all instants being those of arrival in watches of this benchmark:

  overhead    [edit sent -> 100 %] - [first new pod seen -> last new pod seen Ready]
              tidegate: 100 % is verified by the daemon, as the workload's status tells. deployment: nobody verifies,
              100 % is when its EndpointSlices hold exactly the new Ready pods
  to_pods     the part before: edit sent -> first new pod seen
  to_100      the part after: last new pod Ready -> 100 %
  endpoints   tidegate's overhead by the other's measure: until the EndpointSlices hold exactly the new Ready pods
  drain       apart from all that: 100 % -> last old pod gone, drain.quietSeconds (default 5) included
  startup     what is subtracted

Imitated: the pods are KWOK's, without containers, and a process of the tests serves their metrics pages. No requests
are sent. Everything shares this machine's cores, so times are upper bounds. Lines are `figure value unit`; where there
is a bar, "met" or "MISSED" follows.
"""

from __future__ import annotations

import argparse
import copy
import http.client
import json
import math
import os
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.e2e.daemon import Daemon
from tests.e2e.updating import OWNER_REVISION, apply, of_the_team
from tests.e2e.workload import Workload, manifest
from tests.realcluster import sandbox, session
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

NAME: Final = "llama"
PLAIN: Final = "plain"
BAR_S: Final = 2.0
DONE_WITHIN_S: Final = 120.0
WATCH_S: Final = 7200
TEMPLATE_HASH: Final = "pod-template-hash"


@dataclass(frozen=True, slots=True)
class Took:
    """One update, in seconds."""

    startup: float
    overhead: float
    to_pods: float
    to_100: float
    endpoints: float
    drain: float


@dataclass(slots=True)
class SeenPod:
    """Instants of arrival, Unix seconds."""

    name: str
    group: str  # revision, or hash of the template
    seen_at: float
    ready_at: float | None = None
    gone_at: float | None = None


@dataclass
class Seen:
    """What the watches brought of one namespace."""

    pods: dict[str, SeenPod] = field(default_factory=dict)  # by uid
    slices: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)  # by name: Service, Ready pods
    behind: list[tuple[float, str, frozenset[str]]] = field(default_factory=list)  # Service, its Ready pods since then
    statuses: list[tuple[float, dict[str, Any]]] = field(default_factory=list)  # of the workload
    lost: Exception | None = None

    def follow(self, cluster: Cluster, namespace: str) -> None:
        """Begins three watches."""
        own = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads"
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        paths = {
            f"/api/v1/namespaces/{namespace}/pods": self._take_pod,
            slices: self._take_slice,
            own: self._take_workload,
        }
        for path, take in paths.items():
            threading.Thread(target=self._read, args=(cluster, path, take), daemon=True).start()

    def _read(self, cluster: Cluster, path: str, take: Callable[[str, dict[str, Any], float], None]) -> None:
        address = urlsplit(cluster.url)
        tls = ssl.create_default_context(cafile=str(cluster.ca_path))
        connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=tls, timeout=WATCH_S)
        headers = {"Authorization": f"Bearer {cluster.admin_token}"}
        try:
            connection.request("GET", f"{path}?watch=true&timeoutSeconds={WATCH_S}", headers=headers)
            response = connection.getresponse()
            while line := response.readline():
                now = time.time()
                event = json.loads(line)
                take(event["type"], event["object"], now)
            raise ConnectionError(f"the API server ended the watch of {path}")
        except Exception as error:
            self.lost = error

    def _take_pod(self, kind: str, pod: dict[str, Any], now: float) -> None:
        meta = pod["metadata"]
        labels = meta.get("labels", {})
        group = labels.get(OWNER_REVISION) or labels.get(TEMPLATE_HASH, "")
        there = self.pods.setdefault(meta["uid"], SeenPod(meta["name"], group, now))
        ready = any(
            each["type"] == "Ready" and each["status"] == "True" for each in pod.get("status", {}).get("conditions", ())
        )
        if ready and there.ready_at is None:
            there.ready_at = now
        if kind == "DELETED":
            there.gone_at = now

    def _take_slice(self, kind: str, found: dict[str, Any], now: float) -> None:
        service = found["metadata"]["labels"].get("kubernetes.io/service-name", "")
        ready = frozenset(
            each["targetRef"]["name"] for each in found.get("endpoints") or () if each["conditions"].get("ready")
        )
        self.slices[found["metadata"]["name"]] = (service, frozenset() if kind == "DELETED" else ready)
        everyone = frozenset(pod for name, pods in self.slices.values() if name == service for pod in pods)
        self.behind.append((now, service, everyone))

    def _take_workload(self, kind: str, found: dict[str, Any], now: float) -> None:
        if found["metadata"]["name"] == NAME:
            self.statuses.append((now, found.get("status", {})))

    def of(self, group: str) -> list[SeenPod]:
        return [pod for pod in list(self.pods.values()) if pod.group == group]

    def exactly(self, service: str, names: frozenset[str], since: float) -> float | None:
        """From when on the Service led to these pods alone, for the first time after `since`."""
        return next(
            (at for at, each, pods in list(self.behind) if at >= since and each == service and pods == names), None
        )

    def verified(self, revision: str) -> float | None:
        """When the status first told that the revision has verified 100 %."""
        for at, status in list(self.statuses):
            rollout = status.get("rollout") or {}
            draining = rollout.get("revision") == revision and rollout.get("phase") == "Draining"
            if draining or status.get("currentRevision") == revision:
                return at
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=30, help="of each (default: %(default)s)")
    parser.add_argument("--pods", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument(
        "--startup", type=float, default=2.0, help="seconds until a pod is Ready (default: %(default)s)"
    )
    chosen = parser.parse_args()
    with session.fresh_cluster() as cluster, tempfile.TemporaryDirectory() as directory:
        cluster.add_gpu_node("extra", gpus=10 * chosen.pods)
        namespace = cluster.create_namespace("bench")
        with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace):
            measure(cluster, namespace, Path(directory), chosen)


def measure(cluster: Cluster, namespace: str, directory: Path, chosen: argparse.Namespace) -> None:
    config = {"tick": "2s", "kpa": {}, **of_the_team(namespace, gpus=4 * chosen.pods)}  # the default tick
    daemon = Daemon(cluster, namespace, directory, config).start()
    fixed = {"minReplicas": chosen.pods, "maxReplicas": chosen.pods}
    body = manifest(NAME, fixed, ready_after_s=chosen.startup)
    workload = Workload(cluster, namespace, body)
    plain = Plain(cluster, namespace, chosen.pods, body["spec"]["serving"]["deployment"]["template"])
    workload.wait_ready(chosen.pods, timeout_s=60)
    seen = Seen()
    seen.follow(cluster, namespace)
    cluster.wait_for(lambda: plain.settled("1"), "the plain Deployment to be ready", timeout_s=60)
    took: dict[str, list[Took]] = {"tidegate": [], "deployment": []}
    try:
        for number in range(2, chosen.updates + 2):
            took["tidegate"].append(update(seen, workload, body, str(number), chosen.pods))
            took["deployment"].append(plain.update(seen, str(number)))
            last = {name: each[-1] for name, each in took.items()}
            print(f"{number - 1}: {last['tidegate']}\n   {last['deployment']}", file=sys.stderr, flush=True)
    except BaseException:
        print(daemon.log()[-6000:], file=sys.stderr)
        raise
    finally:
        daemon.stop()
    tell(took, chosen)


def update(seen: Seen, workload: Workload, body: dict[str, Any], tag: str, pods: int) -> Took:
    """Another image; returns when nothing of the revision before is left."""
    before = str(workload.status()["currentRevision"])
    other = copy.deepcopy(body)
    other["spec"]["serving"]["deployment"]["template"]["spec"]["containers"][0]["image"] = f"example/vllm:{tag}"
    began = time.time()
    apply(workload, other)

    def done() -> str | None:
        _check(seen)
        status = seen.statuses[-1][1] if seen.statuses else {}
        current = str(status.get("currentRevision", before))
        at_rest = not status.get("rollout") and not (status.get("record") or {}).get("leaving")
        gone = all(pod.gone_at is not None for pod in seen.of(before))
        return current if current != before and at_rest and gone else None

    revision = workload.cluster.wait_for(done, f"the update to image {tag}", DONE_WITHIN_S)
    assert revision is not None
    verified = seen.verified(revision)
    assert verified is not None
    return _took(seen, NAME, seen.of(revision), seen.of(before), began, verified, pods)


class Plain:
    """A Deployment and its Service."""

    def __init__(self, cluster: Cluster, namespace: str, pods: int, template: dict[str, Any]) -> None:
        self._cluster, self._namespace, self._pods = cluster, namespace, pods
        template = copy.deepcopy(template)
        template["metadata"]["labels"] = {"app": PLAIN}
        spec = {
            "replicas": pods,
            "selector": {"matchLabels": {"app": PLAIN}},
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}},
            "template": template,
        }
        self._path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        cluster.create(self._path, {"metadata": {"name": PLAIN}, "spec": spec})
        service = {"selector": {"app": PLAIN}, "ports": [{"port": 8000}]}
        cluster.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": PLAIN}, "spec": service})

    def _status(self) -> dict[str, Any]:
        return self._cluster.get(f"{self._path}/{PLAIN}")

    def settled(self, tag: str) -> bool:
        """All pods are of this image, and ready."""
        there = self._status()
        status = there.get("status", {})
        image = there["spec"]["template"]["spec"]["containers"][0]["image"]
        seen = status.get("observedGeneration") == there["metadata"]["generation"] and image == f"example/vllm:{tag}"
        counts = {status.get(each) for each in ("updatedReplicas", "readyReplicas", "replicas")}
        return seen and counts == {self._pods}

    def update(self, seen: Seen, tag: str) -> Took:
        """Another image; returns when no old pod is left."""
        old = [pod for pod in self._own(seen) if pod.gone_at is None]
        before = {pod.group for pod in old}
        patch = [
            {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"example/vllm:{tag}"},
        ]
        began = time.time()
        status, answer = self._cluster.request(
            "PATCH", f"{self._path}/{PLAIN}", patch, content_type="application/json-patch+json"
        )
        assert status == 200, answer

        def done() -> bool:
            _check(seen)
            return self.settled(tag) and all(pod.gone_at is not None for pod in old)

        self._cluster.wait_for(done, f"the Deployment's update to image {tag}", DONE_WITHIN_S)
        new = [pod for pod in self._own(seen) if pod.group not in before and pod.seen_at >= began]
        names = frozenset(pod.name for pod in new)
        full = self._cluster.wait_for(lambda: seen.exactly(PLAIN, names, began), "its EndpointSlices", DONE_WITHIN_S)
        assert full is not None
        return _took(seen, PLAIN, new, old, began, full, self._pods)

    def _own(self, seen: Seen) -> list[SeenPod]:
        return [pod for pod in list(seen.pods.values()) if pod.name.startswith(f"{PLAIN}-")]


def _took(
    seen: Seen, service: str, new: list[SeenPod], old: list[SeenPod], began: float, full: float, pods: int
) -> Took:
    assert len(new) == pods, f"{len(new)} new pods instead of {pods}"
    first = min(pod.seen_at for pod in new)
    ready = max(pod.ready_at or math.inf for pod in new)
    exactly = seen.exactly(service, frozenset(pod.name for pod in new), began)
    assert exactly is not None
    gone = max(pod.gone_at or math.inf for pod in old)
    startup = ready - first
    return Took(
        startup=startup,
        overhead=full - began - startup,
        to_pods=first - began,
        to_100=full - ready,
        endpoints=exactly - began - startup,
        drain=gone - full,
    )


def _check(seen: Seen) -> None:
    if seen.lost is not None:
        raise RuntimeError("the benchmark's own watch ended") from seen.lost


def tell(took: dict[str, list[Took]], chosen: argparse.Namespace) -> None:
    print(f"updates {chosen.updates} count")
    print(f"pods {chosen.pods} count")
    for name, each in took.items():
        figures = ["startup", "overhead", "to_pods", "to_100"]
        figures += ["endpoints", "drain"] if name == "tidegate" else []  # for the other they say nothing new
        for figure in figures:
            values = [getattr(one, figure) for one in each]
            for percent in (50, 99):
                value = percentile(values, percent)
                bar = figure == "overhead" and name == "tidegate"
                verdict = f" bar {BAR_S:g} s {'met' if value <= BAR_S else 'MISSED'}" if bar else ""
                print(f"{name}_{figure}_p{percent} {value:.3f} s{verdict}", flush=True)


def percentile(values: Sequence[float], percent: int) -> float:
    """Nearest rank: of 30 values the 99th percentile is the largest."""
    if percent == 50:
        return statistics.median(values)
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


if __name__ == "__main__":
    if not sandbox.inside():
        run_dir = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
        command = sandbox.command_to_enter(run_dir, [sys.executable, *sys.argv])
        os.execv(command[0], command)
    main()
