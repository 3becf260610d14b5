"""What pods of others take of a project's quota: counted as the daemon counts them, with the caller's own rights.

Which namespaces and nodes count stands in the daemon's configuration, the ConfigMap beside the ledgers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from autoscaler.cli.objects import listed
from autoscaler.cli.plan import Room
from autoscaler.cli.reach import Reached
from autoscaler.cli.seen import gpus
from autoscaler.cli.seen import read as read_workload
from autoscaler.cluster import selectors
from autoscaler.cluster.errors import Denied
from autoscaler.cluster.foreignpods import NOT_OURS
from autoscaler.cluster.resources import NODES, PODS, WORKLOADS, Resource, TargetPod
from autoscaler.controller.foreign import limited_pools, taken
from autoscaler.controller.kinds import shape_of
from autoscaler.model.quota import Domain
from autoscaler.model.resources import ResourceVector
from autoscaler.model.workload import TargetSpec
from autoscaler.settings.config import Config
from autoscaler.settings.load import ConfigError, parse
from autoscaler.wiring import operator_of

CONFIG_MAPS: Final = Resource("v1", "configmaps", "ConfigMap")
OF_THE_DAEMON: Final = "app.kubernetes.io/name=tidegate"
FILE: Final = "config.yaml"


class NotCounted(Exception):
    """Why not, in one clause."""


async def without_others(reached: Reached, rooms: Mapping[Domain, Room], project: str) -> dict[Domain, Room]:
    """The rooms, in those of this project without what pods of others have; where that cannot be known, with the
    reason: unknown is not zero."""
    found = dict(rooms)
    mine = {domain: room for domain, room in rooms.items() if domain[0] == project}
    for namespace in {room.namespace for room in mine.values()}:
        others: Mapping[Domain, ResourceVector] = {}
        reason = ""
        try:
            others = await _taken(reached, namespace, project)
        except NotCounted as error:
            reason = str(error)
        for domain, room in mine.items():
            if room.namespace == namespace:
                found[domain] = _without(room, gpus(others.get(domain)), reason)
    return found


def _without(room: Room, others: float, not_counted: str) -> Room:
    free = None if room.free is None else max(0.0, room.free - others)
    return replace(room, free=free, not_counted=not_counted)


async def _taken(reached: Reached, namespace: str, project: str) -> Mapping[Domain, ResourceVector]:
    """`namespace`: of the ledgers, and so the daemon's own."""
    config = await _config(reached, namespace)
    operator, watched = operator_of(config), config.watch.namespaces
    labelled = any(limited_pools(operator).get(project, {}).values())
    nodes = {each["metadata"]["name"]: each["metadata"] for each in await _all(reached, NODES)} if labelled else {}
    pods: list[tuple[str, TargetPod]] = []
    for name, its_project in operator.projects.items():
        if its_project == project and (not watched or name in watched):
            there = [msgspec.convert(each, TargetPod) for each in await _all(reached, PODS, name, NOT_OURS)]
            counted = await _of_targets(reached, name) if there else ()
            others = (pod for pod in there if not any(selectors.matches(each, pod.metadata.labels) for each in counted))
            pods += ((name, pod) for pod in others)
    return taken(operator, pods, lambda node: (nodes[node].get("labels") or {}) if node in nodes else None)


async def _of_targets(reached: Reached, namespace: str) -> list[selectors.Selector]:
    """Of the pods of targets, which the ledgers hold already."""
    found = []
    for each in await _all(reached, WORKLOADS, namespace):
        seen = read_workload(each).seen
        target = seen.spec.serving.target_ref if seen.spec.serving is not None else None
        if target is not None and seen.told.selector:
            named = TargetSpec(target.api_version or "", "", target.kind or "", target.name or "")
            found.append(selectors.parse(shape_of(named).selector(named.name, seen.told.selector)))
    return found


async def _config(reached: Reached, namespace: str) -> Config:
    stored = await _all(reached, CONFIG_MAPS, namespace, OF_THE_DAEMON)
    found = [text for each in stored if (text := (each.get("data") or {}).get(FILE)) is not None]
    if len(found) != 1:
        number = "no configuration" if not found else f"{len(found)} configurations"
        raise NotCounted(f"there is {number} of the daemon in namespace {namespace}")
    try:
        return parse(found[0].encode(), {}, name=FILE).config
    except ConfigError:
        raise NotCounted("this version of tidegate cannot read the daemon's configuration") from None


async def _all(
    reached: Reached, resource: Resource, namespace: str | None = None, labels: str = ""
) -> list[dict[str, Any]]:
    try:
        return await listed(reached, resource, namespace, labels)
    except Denied:
        where = f" in namespace {namespace}" if namespace else ""
        raise NotCounted(f"you may not list {resource.plural}{where}") from None
