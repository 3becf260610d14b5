"""InferenceWorkloads for the tests, and short ways to ask the cluster about them."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from typing import Any

from tests.realcluster.cluster import Cluster

WORKLOADS = "/apis/tidegate.dev/v1alpha1/namespaces/{}/inferenceworkloads"
PORT = 8000


def manifest(name: str, autoscaling: Mapping[str, Any], *, ready_after_s: float = 0, **spec: Any) -> dict[str, Any]:
    """A workload of pods with one GPU. `ready_after_s`: how long a pod loads."""
    annotations = {}
    if ready_after_s:
        annotations = {"pod-ready.stage.kwok.x-k8s.io/delay": f"{ready_after_s:g}s"}
    template = {
        "metadata": {"annotations": annotations},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "vllm",
                    "image": "example/vllm:1",
                    "ports": [{"containerPort": PORT}],
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                }
            ],
        },
    }
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "InferenceWorkload",
        "metadata": {"name": name},
        "spec": {"serving": {"deployment": {"template": template}, "port": PORT}, "autoscaling": autoscaling, **spec},
    }


def group_manifest(name: str, autoscaling: Mapping[str, Any], size: int = 2, **fields: Any) -> dict[str, Any]:
    """Groups instead of pods: leaders with one GPU, workers with two. `fields` are those of leaderWorkerSet."""
    body = manifest(name, autoscaling)
    leader = body["spec"]["serving"].pop("deployment")["template"]
    worker = copy.deepcopy(leader)
    worker["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    groups = {"size": size, "leaderTemplate": leader, "workerTemplate": worker, **fields}
    body["spec"]["serving"]["leaderWorkerSet"] = groups
    return body


class Workload:
    """One workload in the cluster."""

    objects = "apps/v1", "deployments"  # of its revisions

    def __init__(self, cluster: Cluster, namespace: str, body: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name: str = body["metadata"]["name"]
        cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(body))

    @property
    def _path(self) -> str:
        return f"{WORKLOADS.format(self.namespace)}/{self.name}"

    def object(self) -> dict[str, Any]:
        return self.cluster.get(self._path)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.object().get("status", {})
        return found

    def patch(self, spec: Mapping[str, Any]) -> None:
        status, answer = self.cluster.request(
            "PATCH", self._path, {"spec": spec}, content_type="application/merge-patch+json"
        )
        assert status == 200, answer

    def condition(self, kind: str) -> dict[str, str]:
        found = [each for each in self.status().get("conditions", ()) if each["type"] == kind]
        return found[0] if found else {}

    def deployment(self) -> dict[str, Any]:
        """The object of the current revision; LookupError before there is one."""
        revision = self.status().get("currentRevision")
        if not revision:
            raise LookupError("no revision yet")
        version, plural = self.objects
        return self.cluster.get(f"/apis/{version}/namespaces/{self.namespace}/{plural}/{revision}")

    def replicas(self) -> int:
        """spec.replicas as written."""
        count: int = self.deployment()["spec"]["replicas"]
        return count

    def ready(self) -> int:
        count: int = self.deployment().get("status", {}).get("readyReplicas", 0)
        return count

    def pods(self) -> list[dict[str, Any]]:
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=tidegate.dev/workload={self.name}"
        found: list[dict[str, Any]] = self.cluster.get(path)["items"]
        return found

    def events(self, reason: str) -> list[str]:
        """Notes of this workload's events of one reason."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events?limit=500"
        return [
            each.get("note", "")
            for each in self.cluster.get(path)["items"]
            if each["reason"] == reason and each["regarding"]["name"] == self.name
        ]

    def told(self, reason: str) -> list[str]:
        """Notes of the events of this reason, once there is one: they are written beside the decisions."""
        return self.cluster.wait_for(lambda: self.events(reason), f"an event {reason} about {self.name}")

    def wait_replicas(self, count: int, timeout_s: float = 30.0) -> None:
        self.cluster.wait_for(lambda: self.replicas() == count, f"{self.name} to have {count} replicas", timeout_s)

    def wait_ready(self, count: int, timeout_s: float = 30.0) -> None:
        self.cluster.wait_for(lambda: self.ready() == count, f"{self.name} to have {count} ready", timeout_s)

    def wait_condition(self, kind: str, status: str, reason: str | None = None, timeout_s: float = 30.0) -> str:
        """Waits for a condition; its message."""

        def holds() -> bool:
            found = self.condition(kind)
            return found.get("status") == status and reason in (None, found.get("reason"))

        self.cluster.wait_for(holds, f"{self.name} to be {kind}={status} {reason or ''}", timeout_s)
        return self.condition(kind).get("message", "")

    def never(self, forbidden: int, seconds: float) -> set[int]:
        """Watches the written count for so long; fails below `forbidden`. Returns the counts that were seen."""
        seen: set[int] = set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen.add(self.replicas())
            assert min(seen) >= forbidden, f"{self.name} went down to {min(seen)}"
            time.sleep(0.1)
        return seen


class Groups(Workload):
    """A workload whose replicas are groups."""

    objects = "leaderworkerset.x-k8s.io/v1", "leaderworkersets"

    def counts(self) -> dict[str, int]:
        """As we tell them."""
        found: dict[str, int] = self.status().get("counts", {})
        return found

    def member(self, group: int, index: int) -> dict[str, Any]:
        """A pod by its place; LookupError where there is none."""
        place = {"group-index": str(group), "worker-index": str(index)}
        labels = {f"leaderworkerset.sigs.k8s.io/{key}": value for key, value in place.items()}
        found = [each for each in self.pods() if labels.items() <= each["metadata"]["labels"].items()]
        return found[0]
