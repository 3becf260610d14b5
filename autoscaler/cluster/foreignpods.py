"""Pods that hold GPUs and are not ours, in the namespaces of projects with a quota; and the labels of nodes.

Followed only while they are asked for: a project without limits and a node pool without a selector cost no watch. What
is not known yet is told apart from nothing. Decides nothing, writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Set
from typing import Final

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.resources import NODES, OWNER_REVISION_LABEL, PODS, Node, TargetPod
from autoscaler.cluster.watch import Outages, Selection, Watched

NOT_OURS: Final = f"!{OWNER_REVISION_LABEL}"
COPIES_MOST: Final = 100  # each is a connection; beyond that one over all namespaces is cheaper, where it is allowed
ALL: Final = ""


class ForeignPods:
    """`run` must be running; `keep` says what to follow."""

    def __init__(self, api: KubeApi, outages: Outages, places: Collection[str] = ()) -> None:
        """`places`: the namespaces that may be read; none: all of them."""
        self._api = api
        self._outages = outages
        self._places = frozenset(places)
        self._wanted: frozenset[str] = frozenset()
        self._wants_nodes = False
        self._pods: dict[str, Watched[TargetPod]] = {}
        self._holding: dict[
            str, dict[str, TargetPod]
        ] = {}  # by namespace and name: those with more than CPU and memory
        self._nodes: Watched[Node] | None = None
        self._tasks: dict[object, asyncio.Task[None]] = {}  # by copy
        self._changed = asyncio.Event()

    def keep(self, namespaces: Set[str], nodes: bool) -> None:
        """Follows these from now on, and no others. Call it as often as you like."""
        wanted = frozenset(namespaces & self._places if self._places else namespaces)
        if len(wanted) > COPIES_MOST and not self._places:
            wanted = frozenset([ALL])
        if (wanted, nodes) != (self._wanted, self._wants_nodes):
            self._wanted, self._wants_nodes = wanted, nodes
            self._changed.set()

    def known(self, namespace: str) -> bool:
        """Are the pods there known? Those of a namespace that may not be read never count."""
        if self._places and namespace not in self._places:
            return True
        copy = self._pods.get(ALL) or self._pods.get(namespace)
        return copy is not None and copy.synced.is_set()

    @property
    def nodes_known(self) -> bool:
        return self._nodes is not None and self._nodes.synced.is_set()

    def labels_of(self, node: str) -> Mapping[str, str] | None:
        """None: there is no such node, or none that is known."""
        found = self._nodes.get("", node) if self._nodes is not None else None
        return (found.metadata.labels or {}) if found is not None else None

    def of(self, namespace: str) -> Iterator[TargetPod]:
        """The pods there that ask for more than CPU and memory, finished ones too."""
        yield from self._holding.get(namespace, {}).values()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                self._follow(group)
                await self._changed.wait()

    def _follow(self, group: asyncio.TaskGroup) -> None:
        for namespace in self._pods.keys() - self._wanted:
            copy = self._pods.pop(namespace)
            self._end(copy, Selection(PODS, namespace, NOT_OURS))
            for pod in copy:
                self._moved(pod, None)
        for namespace in self._wanted - self._pods.keys():
            self._pods[namespace] = pods = self._copy(namespace)
            self._tasks[pods] = group.create_task(pods.run())
        if self._nodes is not None and not self._wants_nodes:
            self._end(self._nodes, Selection(NODES))
            self._nodes = None
        if self._nodes is None and self._wants_nodes:
            self._nodes = nodes = Watched(self._api, Selection(NODES), Node, _nothing, outages=self._outages)
            self._tasks[nodes] = group.create_task(nodes.run())

    def _copy(self, namespace: str) -> Watched[TargetPod]:
        selection = Selection(PODS, namespace, NOT_OURS)
        return Watched(self._api, selection, TargetPod, _nothing, moved=self._moved, outages=self._outages)

    def _end(self, copy: object, selection: Selection) -> None:
        self._tasks.pop(copy).cancel()
        self._outages.ended(selection)  # or an outage that it took part in would never be over

    def _moved(self, before: TargetPod | None, after: TargetPod | None) -> None:
        if before is not None:
            self._holding.get(before.metadata.namespace, {}).pop(before.metadata.name, None)
        if after is not None and any(is_device(name) for name in after.demand):
            self._holding.setdefault(after.metadata.namespace, {})[after.metadata.name] = after


def is_device(name: str) -> bool:
    """Is this resource one of a device plugin, such as nvidia.com/gpu? CPU, memory and huge pages are not."""
    return "/" in name


def _nothing() -> None:
    return None
