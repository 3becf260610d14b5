"""What a user does while the daemon is being killed. One row each; a new feature adds a row.

A scenario brings a workload to where it starts (not disturbed), then acts (disturbed). The end is known from an
undisturbed run, so a row says nothing about it but how to know that it is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.crash.verdict import Bounds
from tests.crash.world import PATHS, Object, World
from tests.e2e.workload import manifest
from tests.realcluster import waiting
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError

MERGE_PATCH: Final = "application/merge-patch+json"
ACT_S: Final = 40.0


class Subject:
    """The workload of one cell: what a user can do to it. Talks to the server directly, never through the proxy."""

    def __init__(self, cluster: Cluster, world: World, name: str) -> None:
        self.name = name
        self.uid = ""
        self.after_first_write: Callable[[], object] | None = None
        self._cluster = cluster
        self._world = world
        self._collection = PATHS["InferenceWorkload"].format(world.namespace)

    def create(self, autoscaling: Mapping[str, Any]) -> None:
        created = self._cluster.create(self._collection, manifest(self.name, autoscaling))
        self.uid = created["metadata"]["uid"]
        self._wrote()

    def patch(self, spec: Mapping[str, Any]) -> None:
        self._write("PATCH", "", {"spec": spec})

    def scale(self, replicas: int) -> None:
        """What `kubectl scale` does."""
        self._write("PATCH", "/scale", {"spec": {"replicas": replicas}})

    def delete(self) -> None:
        self._write("DELETE", "")

    def exists(self) -> bool:
        return bool(self._world.objects("InferenceWorkload", self.name))

    def left(self) -> list[str]:
        """What there is of it, and the workload itself."""
        return [f"{kind} {each['metadata']['name']}" for kind in PATHS for each in self._world.objects(kind, self.name)]

    def serves(self, count: int) -> bool:
        """Is the status settled at this count?"""
        item = self._world.workload(self.name)
        status = item.get("status", {})
        phase = "Running" if count else "Stopped"
        counts = {name: status.get("counts", {}).get(name) for name in ("desired", "applied", "ready")}
        return (
            set(counts.values()) == {count}
            and status.get("phase") == phase
            and status["observedGeneration"] == item["metadata"]["generation"]
            and self._pods_ready() == count == self._available()
        )

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        waiting.wait_for(holds, f"{self.name} {what}", ACT_S)

    def _pods_ready(self) -> int:
        pods = self._world.objects("Pod", self.name)
        return -1 if any("deletionTimestamp" in pod["metadata"] for pod in pods) else len(pods)

    def _available(self) -> int:
        (deployment,) = self._world.objects("Deployment", self.name) or ({},)
        available: int = deployment.get("status", {}).get("readyReplicas", 0)
        return available

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


@dataclass(frozen=True, slots=True)
class Scenario:
    """`prepare` ends where the scenario starts; `act` is disturbed; `done` says that its end is reached."""

    name: str
    prepare: Callable[[Subject], None]
    act: Callable[[Subject], None]
    done: Callable[[Subject], bool]
    bounds: Bounds


def _two(subject: Subject) -> None:
    _created(subject, {"minReplicas": 2, "maxReplicas": 2}, 2)


def _four_by_hand(subject: Subject) -> None:
    _two(subject)
    subject.scale(4)
    subject.wait(lambda: subject.serves(4), "to serve with 4")


def _stopped(subject: Subject) -> None:
    _two(subject)
    subject.patch({"desiredPhase": "Stopped"})
    subject.wait(lambda: subject.serves(0), "to stop")


def _created(subject: Subject, autoscaling: Mapping[str, Any], count: int) -> None:
    subject.create(autoscaling)
    subject.wait(lambda: subject.serves(count), f"to serve with {count}")


def _manual_and_back(subject: Subject) -> None:
    subject.scale(5)
    subject.wait(lambda: subject.serves(5), "to serve with 5")
    subject.patch({"replicas": None})


def _serves(count: int) -> Callable[[Subject], bool]:
    return lambda subject: subject.serves(count)


SCENARIOS: Final = (
    Scenario(
        "create",
        prepare=lambda subject: None,
        act=lambda subject: subject.create({"minReplicas": 2, "maxReplicas": 2}),
        done=_serves(2),
        bounds=Bounds(2, 2),
    ),
    Scenario("scale up", _two, lambda subject: subject.scale(4), _serves(4), Bounds(2, 4)),
    Scenario(
        "raise bounds",
        _two,
        lambda subject: subject.patch({"autoscaling": {"minReplicas": 3, "maxReplicas": 3}}),
        _serves(3),
        Bounds(2, 3),
    ),
    Scenario("scale down", _four_by_hand, lambda subject: subject.scale(1), _serves(1), Bounds(1, 4, pods_ended=3)),
    Scenario(
        "to zero",
        _two,
        lambda subject: subject.patch({"desiredPhase": "Stopped"}),
        _serves(0),
        Bounds(0, 2, pods_ended=2),
    ),
    Scenario(
        "wake",
        _stopped,
        lambda subject: subject.patch({"desiredPhase": "Running"}),
        _serves(2),
        Bounds(0, 2),
    ),
    Scenario("manual", _two, _manual_and_back, _serves(2), Bounds(2, 5, pods_ended=3)),
    Scenario(
        "delete",
        _two,
        lambda subject: subject.delete(),
        lambda subject: not subject.left(),
        Bounds(0, 2, pods_ended=2),
    ),
)
