"""The local copies of all kinds, over the watched namespaces, with the look-ups that a cycle needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from autoscaler.cluster import resources
from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.foreignpods import ForeignPods
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import (
    DEPLOYMENTS,
    LEADER_WORKER_SETS,
    Autoscaler,
    ControllerRevision,
    EndpointSlice,
    HTTPRoute,
    Pod,
    Resource,
    Scalable,
    Service,
)
from autoscaler.cluster.targets import Targets
from autoscaler.cluster.watch import HasMetadata, Outages, Selection, Watched

T = TypeVar("T", bound=HasMetadata)
Group = TypeVar("Group")
GroupKey = tuple[str, str]  # namespace, value of a label
Moved = Callable[[T | None, T | None], None]  # a copy lost the one object and gained the other


class Copies(dict[str, Watched[T]]):
    """One copy per watched namespace ("" for all)."""

    def find(self, namespace: str, name: str) -> T | None:
        copy = self.get("") or self.get(namespace)
        return copy.get(namespace, name) if copy else None

    def every(self) -> Iterator[T]:
        for copy in self.values():
            yield from copy

    def assume(self, item: T) -> None:
        copy = self.get("", self.get(item.metadata.namespace))  # one that is empty is a copy, too
        if copy is not None:
            copy.assume(item)


class Index(Mapping[GroupKey, Group], Generic[T, Group]):
    """Objects by namespace and the value of a label ("" where there is none), in step with the copies.

    A live view of groups; each look-up returns a group of the reader's own.
    """

    def __init__(self, label: str, shown: Callable[[dict[str, T]], Group]) -> None:
        self._label = label
        self._shown = shown
        self._groups: dict[GroupKey, dict[str, T]] = {}  # then by name

    def moved(self, before: T | None, after: T | None) -> None:
        """A copy lost the one object and gained the other, which has the same name."""
        place = None if after is None else self._place(after)
        if before is not None and (left := self._place(before)) != place:
            group = self._groups[left]
            del group[before.metadata.name]
            if not group:
                del self._groups[left]
        if after is not None and place is not None:
            self._groups.setdefault(place, {})[after.metadata.name] = after

    def _place(self, item: T) -> GroupKey:
        return (item.metadata.namespace, (item.metadata.labels or {}).get(self._label, ""))

    def __getitem__(self, key: GroupKey) -> Group:
        return self._shown(self._groups[key])

    def __iter__(self) -> Iterator[GroupKey]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)


class Store:
    """All that is known of the cluster. `run` must be running; nothing may be decided before `synced`."""

    def __init__(
        self, api: KubeApi, namespaces: Sequence[str], changed: Callable[[], None], routes: bool = True
    ) -> None:
        """`changed` is called when a workload changed; the other kinds wait for the next tick. `routes`: HTTPRoutes
        and EndpointSlices are followed, too."""
        places = list(namespaces) or [""]
        ours = resources.WORKLOAD_LABEL
        outages = self.outages = Outages()
        self._close: frozenset[GroupKey] = frozenset()
        self._changed = changed

        def copies(
            resource: Resource,
            kind: type[T],
            labels: str,
            poke: Callable[[], None] = _nothing,
            moved: Callable[[T | None, T | None], None] | None = None,
            optional: bool = False,
        ) -> Copies[T]:
            def copy(place: str) -> Watched[T]:
                selection = Selection(resource, place, labels)
                return Watched(api, selection, kind, poke, moved=moved, optional=optional, outages=outages)

            return Copies({place: copy(place) for place in places})

        self._pods_by_revision = Index[Pod, list[Pod]](resources.OWNER_REVISION_LABEL, _as_list)
        self._revisions_by_workload = Index[ControllerRevision, dict[str, ControllerRevision]](ours, dict)
        self.workloads = copies(resources.WORKLOADS, InferenceWorkload, "", changed)
        self._scalables_by_workload = Index[Scalable, list[Scalable]](ours, _as_list)
        moved: Moved[Scalable] = self._poking(ours, self._scalables_by_workload.moved)
        self.deployments = copies(DEPLOYMENTS, Scalable, ours, moved=moved)
        self.leader_worker_sets = copies(LEADER_WORKER_SETS, Scalable, ours, moved=moved, optional=True)
        self.scalables = {  # the revisions' objects, by where their kind lives
            DEPLOYMENTS: self.deployments,
            LEADER_WORKER_SETS: self.leader_worker_sets,
        }
        self.revisions = copies(
            resources.CONTROLLER_REVISIONS, ControllerRevision, ours, moved=self._revisions_by_workload.moved
        )
        self.pods = copies(resources.PODS, Pod, ours, moved=self._poking(ours, self._pods_by_revision.moved))
        self.services = copies(resources.SERVICES, Service, "")
        self.horizontal_pod_autoscalers = copies(resources.HORIZONTAL_POD_AUTOSCALERS, Autoscaler, "")
        self.scaled_objects = copies(resources.SCALED_OBJECTS, Autoscaler, "", optional=True)
        self.targets = Targets(api, outages)
        self.foreign_pods = ForeignPods(api, outages, namespaces)
        self._slices_by_service = Index[EndpointSlice, list[EndpointSlice]](resources.SERVICE_LABEL, _as_list)
        self.http_routes: Copies[HTTPRoute] = Copies()
        self.endpoint_slices: Copies[EndpointSlice] = Copies()
        if routes:
            self.http_routes = copies(
                resources.HTTP_ROUTES, HTTPRoute, "", moved=self._poking("", _forget), optional=True
            )
            self.endpoint_slices = copies(
                resources.ENDPOINT_SLICES,
                EndpointSlice,
                "",
                moved=self._poking(resources.SERVICE_LABEL, self._slices_by_service.moved),
            )

    def watch_closely(self, names: frozenset[GroupKey]) -> None:
        """Changes of objects of these workloads, Services and routes cannot wait for the next tick either."""
        self._close = names

    def _poking(self, label: str, moved: Moved[T]) -> Moved[T]:
        """`moved`, and a poke where the object is closely watched: by that label, or by its own name."""

        def poke(before: T | None, after: T | None) -> None:
            moved(before, after)
            item = after if after is not None else before
            if self._close and item is not None:
                meta = item.metadata
                name = (meta.labels or {}).get(label, "") if label else meta.name
                if (meta.namespace, name) in self._close:
                    self._changed()

        return poke

    @property
    def copies(self) -> list[Watched[InferenceWorkload] | Watched[Scalable] | Watched[Pod]]:
        """Every copy of every kind."""
        objects = (self.deployments, self.leader_worker_sets, self.pods, self.services)
        scalers = (self.horizontal_pod_autoscalers, self.scaled_objects)
        kinds = (self.workloads, *objects, self.revisions, *scalers, self.http_routes, self.endpoint_slices)
        return [copy for kind in kinds for copy in kind.values()]  # type: ignore[misc]

    @property
    def synced(self) -> bool:
        return all(copy.synced.is_set() for copy in self.copies)

    def follows(self, namespace: str) -> bool:
        """Is what runs there seen as it is now? After an outage not at once: much may have changed meanwhile."""
        kinds = (self.deployments, self.leader_worker_sets, self.pods)
        copies = [kind.get("", kind.get(namespace)) for kind in kinds]
        return all(copy is not None and (copy.follows or copy.absent) for copy in copies)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for copy in self.copies:
                group.create_task(copy.run())
            group.create_task(self.targets.run())
            group.create_task(self.foreign_pods.run())

    def pods_by_revision(self) -> Mapping[GroupKey, list[Pod]]:
        """Pods by (namespace, owner revision)."""
        return self._pods_by_revision

    def revisions_by_workload(self) -> Mapping[GroupKey, dict[str, ControllerRevision]]:
        """Stored revisions by (namespace, workload), by name."""
        return self._revisions_by_workload

    def scalables_by_workload(self) -> Mapping[GroupKey, list[Scalable]]:
        """The revisions' objects by (namespace, workload)."""
        return self._scalables_by_workload

    def slices_by_service(self) -> Mapping[GroupKey, list[EndpointSlice]]:
        """EndpointSlices by (namespace, Service)."""
        return self._slices_by_service

    def knows_http_routes(self, namespace: str) -> bool:
        """Has the server, asked last, known the kind?"""
        copy = self.http_routes.get("", self.http_routes.get(namespace))
        return copy is not None and not copy.absent


def _as_list(group: dict[str, T]) -> list[T]:
    return list(group.values())


def _nothing() -> None:
    return None


def _forget(before: object, after: object) -> None:
    return None
