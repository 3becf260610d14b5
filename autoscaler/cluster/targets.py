"""The objects of others that workloads name by `targetRef`: their counts and their pods, followed while they are named.

One watch for each kind in each namespace in which a workload names one, and one for the pods of that namespace. The
count and the selector of the pods are read from `/scale`, because only that says where they stand in an object of any
kind; it is read again when the object changes. Decides nothing, writes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError, Denied, NotFound
from autoscaler.cluster.resources import (
    PODS,
    Resource,
    Scalable,
    ScalableMetadata,
    ScalableSpec,
    Scale,
    TargetObject,
    TargetPod,
)
from autoscaler.cluster.selectors import Selector, matches, parse
from autoscaler.cluster.watch import HasMetadata, Outages, Selection, Watched
from autoscaler.model.workload import TargetSpec

COPIES_MOST: Final = 400  # each is a connection to the API server, of which there are 1,000
READS_MOST: Final = 16  # of scales at once
LOOK_S: Final = 0.5
RETRY_S: Final = 1.0  # after the server gave no answer
AGAIN_S: Final = 10.0  # after it refused, or where the object changed in nothing but its status
PATIENCE_S: Final = 15.0  # what is not there by then is worth a word

T = TypeVar("T", bound=HasMetadata)
Place = tuple[str, TargetSpec]  # namespace first


@dataclass(frozen=True, slots=True)
class SeenTarget:
    """A target at this instant."""

    there: Scalable  # with the count that its scale tells
    selector: str  # of its pods, as its scale tells it
    follows: bool  # is this how it is now? After an outage not at once


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why nothing can be done with a target: a sentence that says what to change."""

    message: str


@dataclass(slots=True)
class _Reading:
    """What is known of one target's scale."""

    since: float  # when it was first named
    seen: tuple[TargetObject, Scale] | None = None  # read together
    tried: ScalableMetadata | None = None  # the object at the last try
    tried_at: float = 0.0
    problem: str = ""
    stale: bool = False  # the last try had no answer
    busy: bool = False


class _Pods:
    """The pods of one namespace, and by selector those that were asked for, in step with the copy."""

    def __init__(self) -> None:
        self._every: dict[str, TargetPod] = {}
        self._selected: dict[str, tuple[Selector, dict[str, TargetPod]]] = {}
        self._asked: set[str] = set()  # since the last `forget`

    def moved(self, before: TargetPod | None, after: TargetPod | None) -> None:
        groups = [(None, self._every), *self._selected.values()]
        for selector, group in groups:
            if before is not None:
                group.pop(before.metadata.name, None)
            if after is not None and (selector is None or matches(selector, after.metadata.labels)):
                group[after.metadata.name] = after

    def select(self, text: str) -> tuple[TargetPod, ...]:
        """Sorted by name. Raises ValueError for what is no selector."""
        self._asked.add(text)
        if text not in self._selected:
            selector = parse(text)
            chosen = {name: pod for name, pod in self._every.items() if matches(selector, pod.metadata.labels)}
            self._selected[text] = selector, chosen
        group = self._selected[text][1]
        return tuple(group[name] for name in sorted(group))

    def forget(self) -> None:
        """The selectors that nobody asks for any more."""
        self._selected = {text: each for text, each in self._selected.items() if text in self._asked}
        self._asked = set()


class Targets:
    """`run` must be running. `find` never blocks; what it was not asked for since the last `keep` is let go."""

    def __init__(self, api: KubeApi, outages: Outages, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._outages = outages
        self._clock = clock
        self._readings: dict[Place, _Reading] = {}
        self._objects: dict[tuple[str, Resource], Watched[TargetObject]] = {}
        self._pods: dict[str, tuple[Watched[TargetPod], _Pods]] = {}
        self._tasks: dict[object, asyncio.Task[None]] = {}  # by copy
        self._changed = asyncio.Event()
        self._turns = asyncio.Semaphore(READS_MOST)

    def find(self, namespace: str, target: TargetSpec) -> SeenTarget | Unseen | None:
        """None: it is being read for the first time, and will be known in a moment."""
        reading = self._readings.get((namespace, target))
        if reading is None:
            if self._crowded(namespace, target):
                return Unseen(f"more than {COPIES_MOST} namespaces and kinds of targets; name fewer per daemon")
            self._readings[(namespace, target)] = _Reading(self._clock())
            self._changed.set()
            return None
        found = self._look(namespace, target, reading)
        if found is not None or self._clock() - reading.since < PATIENCE_S:
            return found
        return Unseen(f"{target.kind} {target.name} and its pods could not be read yet; the log says why")

    def pods(self, namespace: str, selector: str) -> tuple[TargetPod, ...]:
        """Of a namespace with a target that was seen. Raises ValueError for what is no selector."""
        return self._pods[namespace][1].select(selector)

    def keep(self, wanted: Iterable[Place]) -> None:
        """Follows these alone from now on. Call it once a cycle, after all was asked."""
        for _, selected in self._pods.values():
            selected.forget()
        gone = self._readings.keys() - set(wanted)
        for place in gone:
            del self._readings[place]
        if gone:
            self._changed.set()

    def _crowded(self, namespace: str, target: TargetSpec) -> bool:
        places = {(namespace, _resource(target)), *((name, _resource(each)) for name, each in self._readings)}
        return len(places) + len({name for name, _ in places}) > COPIES_MOST

    def _look(self, namespace: str, target: TargetSpec, reading: _Reading) -> SeenTarget | Unseen | None:
        objects, pods = self._objects.get((namespace, _resource(target))), self._pods.get(namespace)
        if objects is None or pods is None or not objects.synced.is_set():
            return None
        there = objects.get(namespace, target.name)
        if there is None:
            return Unseen(_missing(namespace, target, objects.absent))
        if reading.problem:
            return Unseen(reading.problem)
        if reading.seen is None or not pods[0].synced.is_set():
            return None
        object_then, scale = reading.seen
        if object_then.metadata.uid != there.metadata.uid:
            return None  # another one of its name
        count = Scalable(object_then.metadata, ScalableSpec(scale.spec.replicas))
        follows = objects.follows and pods[0].follows and not reading.stale
        return SeenTarget(count, scale.status.selector, follows)

    # --- following ---

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                self._follow(group)
                self._read_what_changed(group)
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _follow(self, group: asyncio.TaskGroup) -> None:
        """Begins and ends copies, as targets are named."""
        wanted = {(namespace, _resource(target)) for namespace, target in self._readings}
        for key in self._objects.keys() - wanted:
            self._end(self._objects.pop(key), Selection(key[1], key[0]))
        for namespace in self._pods.keys() - {namespace for namespace, _ in wanted}:
            self._end(self._pods.pop(namespace)[0], Selection(PODS, namespace))
        for namespace, resource in wanted - self._objects.keys():
            copy = self._copy(resource, namespace, TargetObject, None)
            self._objects[(namespace, resource)] = copy
            self._tasks[copy] = group.create_task(copy.run())
        for namespace in {namespace for namespace, _ in wanted} - self._pods.keys():
            selected = _Pods()
            pods = self._copy(PODS, namespace, TargetPod, selected.moved)
            self._pods[namespace] = pods, selected
            self._tasks[pods] = group.create_task(pods.run())

    def _copy(
        self, resource: Resource, namespace: str, kind: type[T], moved: Callable[[T | None, T | None], None] | None
    ) -> Watched[T]:
        selection = Selection(resource, namespace)
        return Watched(self._api, selection, kind, self._changed.set, moved=moved, optional=True, outages=self._outages)

    def _end(self, copy: object, selection: Selection) -> None:
        self._tasks.pop(copy).cancel()
        self._outages.ended(selection)  # or an outage that it took part in would never be over

    def _read_what_changed(self, group: asyncio.TaskGroup) -> None:
        now = self._clock()
        for (namespace, target), reading in self._readings.items():
            objects = self._objects[(namespace, _resource(target))]
            there = objects.get(namespace, target.name)
            if there is not None and not reading.busy and _due(reading, there.metadata, now):
                reading.busy, reading.tried, reading.tried_at = True, there.metadata, now
                group.create_task(self._read(namespace, target, there, reading))

    async def _read(self, namespace: str, target: TargetSpec, there: TargetObject, reading: _Reading) -> None:
        path = _resource(target).path(namespace, target.name, "scale")
        try:
            async with self._turns:
                scale = msgspec.json.decode(await self._api.call("GET", path), type=Scale)
            if scale.metadata.uid == there.metadata.uid:
                parse(scale.status.selector)
                reading.seen, reading.problem = (there, scale), ""
            reading.stale = False
        except (ApiError, msgspec.DecodeError) as error:
            reading.stale = isinstance(error, ApiError) and error.retryable
            if not reading.stale:
                reading.problem = _unreadable(target, error)
        except ValueError:
            reading.problem = (
                f"{target.kind} {target.name} tells no selector in the status of its scale, so its pods cannot be found"
            )
        finally:
            reading.busy = False
            self._changed.set()


def _resource(target: TargetSpec) -> Resource:
    return Resource(target.api_version, target.resource, target.kind)


def _due(reading: _Reading, now_there: ScalableMetadata, now: float) -> bool:
    """A count changes with the generation; a selector need not."""
    before = reading.tried
    if before is None or before.uid != now_there.uid or before.generation != now_there.generation:
        return True
    if reading.stale:
        return now - reading.tried_at >= RETRY_S
    changed = before.resource_version != now_there.resource_version
    if reading.problem:
        return changed or now - reading.tried_at >= AGAIN_S
    return changed and now - reading.tried_at >= AGAIN_S


def _missing(namespace: str, target: TargetSpec, absent: bool) -> str:
    if absent:
        return f"{target.api_version} {target.kind} is not installed in this cluster, so {target.name} cannot be scaled"
    return (
        f"{target.kind} {target.name} does not exist in namespace {namespace}: create it, or name another one in "
        "spec.serving.targetRef"
    )


def _unreadable(target: TargetSpec, error: Exception) -> str:
    name = f"{target.kind} {target.name}"
    if isinstance(error, NotFound):
        return (
            f"{name} has no scale subresource, so nobody can scale it; name the object that its operator scales "
            "instead, e.g. the Deployment that it makes"
        )
    if isinstance(error, Denied):
        return f"the scale of {name} may not be read: list its kind under targetKinds in the chart's value config"
    return f"the scale of {name} cannot be read: {error}"
