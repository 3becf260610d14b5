"""The workload of one cell: what a user does to it, and where it stands."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.crash import route
from tests.crash.world import PATHS, Object, World
from tests.e2e.workload import group_manifest, manifest
from tests.realcluster import waiting
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError

MERGE_PATCH: Final = "application/merge-patch+json"
ACT_S: Final = 40.0
SIZE: Final = 2  # pods of a group
FIRST: Final = "example/vllm:1"
NEVER: Final = "24h"  # until a pod is ready
DELAY: Final = "pod-ready.stage.kwok.x-k8s.io/delay"
OBJECTS: Final = ("Deployment", "LeaderWorkerSet")  # of revisions


@dataclass(frozen=True, slots=True)
class Shape:
    """What is not a user's doing. `groups`: a LeaderWorkerSet instead of a Deployment. `routed`: with an HTTPRoute."""

    groups: bool = False
    routed: bool = False


DEPLOYMENT: Final = Shape()


class Subject:
    """Talks to the server directly, never through the proxy."""

    def __init__(self, cluster: Cluster, world: World, name: str, shape: Shape) -> None:
        self.name = name
        self.shape = shape
        self.uid = ""
        self.after_first_write: Callable[[], object] | None = None
        self._cluster = cluster
        self._world = world
        self._collection = PATHS["InferenceWorkload"].format(world.namespace)

    # --- what a user does ---

    def create(self, autoscaling: Mapping[str, Any], **spec: Any) -> None:
        body = (group_manifest if self.shape.groups else manifest)(self.name, autoscaling)
        body["spec"] |= spec
        if self.shape.routed:
            body["spec"]["traffic"] = {"httpRoute": {"name": self.name}}
            self._cluster.create(PATHS["HTTPRoute"].format(self._world.namespace), route.body(self.name))
        created = self._cluster.create(self._collection, body)
        self.uid = created["metadata"]["uid"]
        self._wrote()

    def patch(self, spec: Mapping[str, Any]) -> None:
        self._write("PATCH", "", {"spec": spec})

    def update(self, image: str, ready: bool = True) -> None:
        """Another template; its pods become ready at once or never."""
        serving = copy.deepcopy(self.workload["spec"]["serving"])
        kind = "leaderWorkerSet" if self.shape.groups else "deployment"
        templates = {name: each for name, each in serving[kind].items() if name.lower().endswith("template")}
        for each in templates.values():
            each["spec"]["containers"][0]["image"] = image
            each["metadata"] = {"annotations": {DELAY: None if ready else NEVER}}
        self.patch({"serving": {kind: templates}})

    def ask(self, verb: str) -> None:
        """What `tidegate abort` does; at an instant that is the same in every run."""
        text = f"{verb} {self.rollout['revision']} 2026-01-01T00:00:00Z"
        self._write("PATCH", "", {"metadata": {"annotations": {"tidegate.dev/rollout": text}}})

    def scale(self, replicas: int) -> None:
        """What `kubectl scale` does."""
        self._write("PATCH", "/scale", {"spec": {"replicas": replicas}})

    def delete(self) -> None:
        self._write("DELETE", "")

    def delete_route(self) -> None:
        """The test's own: a workload does not own it."""
        self._cluster.request("DELETE", f"{PATHS['HTTPRoute'].format(self._world.namespace)}/{self.name}")

    # --- where it stands ---

    @property
    def workload(self) -> Object:
        return self._world.workload(self.name)

    @property
    def status(self) -> Object:
        found: Object = self.workload.get("status", {})
        return found

    @property
    def rollout(self) -> Object:
        """Of the record; empty where there is no update."""
        found: Object = self.status.get("rollout") or {}
        return found

    def exists(self) -> bool:
        return bool(self._world.objects("InferenceWorkload", self.name))

    def left(self) -> list[str]:
        """What there is of it, the workload itself and its holds included; not the route, which is the user's."""
        kinds = [kind for kind in self._world.kinds if kind != "HTTPRoute"]
        found = [
            f"{kind} {each['metadata']['name']}" for kind in kinds for each in self._world.objects(kind, self.name)
        ]
        return found + [f"hold of {each['revision']}" for each in self._world.holds(self.name)]

    def objects(self) -> list[Object]:
        """Of its revisions."""
        return [each for kind in OBJECTS for each in self._world.objects(kind, self.name)]

    def pods(self, revision: str | None = None) -> list[Object]:
        """Of one revision, or all."""
        found = self._world.objects("Pod", self.name)
        return [
            each for each in found if revision in (None, each["metadata"]["labels"].get("tidegate.dev/owner-revision"))
        ]

    def serves(self, count: int) -> bool:
        """Is the status settled at this count, with one revision that holds what it has?"""
        item = self.workload
        status = item.get("status", {})
        phase = "Running" if count else "Stopped"
        counts = {name: status.get("counts", {}).get(name) for name in ("desired", "applied", "ready")}
        return (
            set(counts.values()) == {count}
            and status.get("phase") == phase
            and status["observedGeneration"] == item["metadata"]["generation"]
            and self._pods_ready() == count == self._available()
            and [each["revision"] for each in self._world.holds(self.name)] == [status["currentRevision"]] * bool(count)
        )

    def starts(self) -> bool:
        """Has its update pods?"""
        return bool(self.rollout) and bool(self.pods(self.rollout["revision"]))

    def updated(self, image: str, count: int) -> bool:
        """Does the revision of this image serve alone?"""
        if self.rollout or self.status.get("updateRevision") or not self.serves(count) or not self._is_home():
            return False
        return all(f'"image": "{image}"' in json.dumps(each["spec"]) for each in self.objects())

    def failed(self, reason: str, count: int) -> bool:
        """Has the update failed for this reason, and does the first revision serve alone?"""
        rollout = self.rollout
        ended = (rollout.get("phase"), rollout.get("reason")) == ("Failed", reason)
        return (
            ended and self.serves(count) and self._is_home() and rollout["revision"] != self.status["currentRevision"]
        )

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        waiting.wait_for(holds, f"{self.name} {what}", ACT_S)

    def _is_home(self) -> bool:
        """All the traffic where it rests: at 100/0, accepted."""
        routes = self._world.objects("HTTPRoute", self.name)
        return all(route.weights(each) == [100, 0] and route.accepted(each) for each in routes)

    def _pods_ready(self) -> int:
        """In replicas; -1 while one leaves."""
        pods = self.pods()
        per_replica = SIZE if self.shape.groups else 1
        return -1 if any("deletionTimestamp" in pod["metadata"] for pod in pods) else len(pods) // per_replica

    def _available(self) -> int:
        """As the object's own controller says; -1 while there are two."""
        objects = self.objects()
        found = [each.get("status", {}).get("readyReplicas", 0) for each in objects]
        return sum(found) if len(objects) <= 1 else -1

    def _write(self, method: str, subresource: str, body: Object | None = None) -> None:
        path = f"{self._collection}/{self.name}{subresource}"
        status, answer = self._cluster.request(method, path, body, content_type=MERGE_PATCH)
        if status != 200:
            raise ClusterError(f"{method} {path}: {status} {answer.get('message', answer)}")
        self._wrote()

    def _wrote(self) -> None:
        hook, self.after_first_write = self.after_first_write, None
        if hook is not None:
            hook()
