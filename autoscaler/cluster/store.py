"""The local copies of all kinds, over the watched namespaces, with the look-ups that a cycle needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from autoscaler.cluster import resources
from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import ControllerRevision, Deployment, Pod, Resource, Service
from autoscaler.cluster.watch import HasMetadata, Selection, Watched

T = TypeVar("T", bound=HasMetadata)


class Copies(dict[str, Watched[T]]):
    """One copy per watched namespace ("" for all)."""

    def find(self, namespace: str, name: str) -> T | None:
        copy = self.get("") or self.get(namespace)
        return copy.get(namespace, name) if copy else None

    def every(self) -> Iterator[T]:
        for copy in self.values():
            yield from copy

    def assume(self, item: T) -> None:
        copy = self.get("") or self.get(item.metadata.namespace)
        if copy is not None:
            copy.assume(item)


class Store:
    """All that is known of the cluster. `run` must be running; nothing may be decided before `synced`."""

    def __init__(self, api: KubeApi, namespaces: Sequence[str], changed: Callable[[], None]) -> None:
        """`changed` is called when a workload changed; the other kinds wait for the next tick."""
        places = list(namespaces) or [""]
        ours = resources.WORKLOAD_LABEL

        def copies(resource: Resource, kind: type[T], labels: str, poke: Callable[[], None]) -> Copies[T]:
            return Copies({place: Watched(api, Selection(resource, place, labels), kind, poke) for place in places})

        self.workloads = copies(resources.WORKLOADS, InferenceWorkload, "", changed)
        self.deployments = copies(resources.DEPLOYMENTS, Deployment, ours, _nothing)
        self.revisions = copies(resources.CONTROLLER_REVISIONS, ControllerRevision, ours, _nothing)
        self.pods = copies(resources.PODS, Pod, ours, _nothing)
        self.services = copies(resources.SERVICES, Service, "", _nothing)

    @property
    def _all(self) -> list[Watched[InferenceWorkload] | Watched[Deployment] | Watched[Pod]]:
        kinds = (self.workloads, self.deployments, self.revisions, self.pods, self.services)
        return [copy for kind in kinds for copy in kind.values()]  # type: ignore[misc]

    @property
    def synced(self) -> bool:
        return all(copy.synced.is_set() for copy in self._all)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for copy in self._all:
                group.create_task(copy.run())

    def pods_by_revision(self) -> Mapping[tuple[str, str], list[Pod]]:
        """Pods by (namespace, owner revision)."""
        grouped: dict[tuple[str, str], list[Pod]] = {}
        for pod in self.pods.every():
            revision = (pod.metadata.labels or {}).get(resources.OWNER_REVISION_LABEL, "")
            grouped.setdefault((pod.metadata.namespace, revision), []).append(pod)
        return grouped

    def revisions_by_workload(self) -> Mapping[tuple[str, str], dict[str, ControllerRevision]]:
        """Stored revisions by (namespace, workload), by name."""
        grouped: dict[tuple[str, str], dict[str, ControllerRevision]] = {}
        for revision in self.revisions.every():
            workload = (revision.metadata.labels or {}).get(resources.WORKLOAD_LABEL, "")
            grouped.setdefault((revision.metadata.namespace, workload), {})[revision.metadata.name] = revision
        return grouped


def _nothing() -> None:
    return None
