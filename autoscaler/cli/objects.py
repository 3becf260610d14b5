"""What the commands read from the API server and the one thing that each of them writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from autoscaler.cli.plan import Room
from autoscaler.cli.pods import PodSeen
from autoscaler.cli.reach import Ended, Reached
from autoscaler.cli.seen import Stored, read
from autoscaler.cluster.client import JSON, JSON_PATCH, MERGE_PATCH
from autoscaler.cluster.errors import Denied, NotFound
from autoscaler.cluster.quota.ledgers import NODE_POOL_LABEL, PROJECT_LABEL
from autoscaler.cluster.resources import (
    CONTROLLER_REVISIONS,
    PODS,
    QUOTA_LEDGERS,
    WORKLOAD_LABEL,
    WORKLOADS,
    ControllerRevision,
    Resource,
)
from autoscaler.doctor.findings import Exit
from autoscaler.model.resources import GPU

PAGE: Final = 500
MANAGER: Final = {"fieldManager": "tidegate-cli"}
DRY_RUN: Final = {**MANAGER, "dryRun": "All"}


async def workload(reached: Reached, name: str) -> Stored:
    """Raises Ended where there is none of that name."""
    found = await workload_or_none(reached, name)
    if found is None:
        where = f"namespace {reached.namespace}"
        raise Ended(Exit.ERROR, f"there is no InferenceWorkload {name} in {where}; see: tidegate list -A")
    return found


async def workload_or_none(reached: Reached, name: str) -> Stored | None:
    try:
        return _read(await reached.api.call("GET", WORKLOADS.path(reached.namespace, name)))
    except NotFound as error:
        if not error.reason:
            raise  # the kind itself is unknown there
        return None


async def workloads(reached: Reached, everywhere: bool) -> list[Stored]:
    """By namespace and name."""
    found = await listed(reached, WORKLOADS, None if everywhere else reached.namespace, "")
    read_ones = [_convert(item) for item in found]
    return sorted(read_ones, key=lambda each: (each.seen.metadata.namespace, each.seen.metadata.name))


async def pods_of(reached: Reached, stored: Stored) -> list[PodSeen]:
    """By name. Those of a target are found by the selector that its scale tells."""
    meta, told = stored.seen.metadata, stored.seen.told
    by_label = f"{WORKLOAD_LABEL}={meta.name}"
    selector = told.selector or "" if stored.seen.kind_of_serving == "targetRef" else by_label
    if not selector:
        return []
    found = await listed(reached, PODS, meta.namespace, selector)
    return sorted((msgspec.convert(item, PodSeen) for item in found), key=lambda each: each.metadata.name)


async def revisions_of(reached: Reached, stored: Stored) -> list[ControllerRevision]:
    """The workload's own, the newest first."""
    meta = stored.seen.metadata
    found = await listed(reached, CONTROLLER_REVISIONS, meta.namespace, f"{WORKLOAD_LABEL}={meta.name}")
    revisions = [msgspec.convert(item, ControllerRevision) for item in found]
    ours = [each for each in revisions if _may_be_of(each, meta.uid)]
    return sorted(ours, key=lambda each: (each.metadata.creation_timestamp or "", each.metadata.name), reverse=True)


async def ledgers(reached: Reached) -> dict[tuple[str, str], Room]:
    """By project and node pool, with what pods of others have still in it; nothing where the caller may not read them,
    or there are none."""
    try:
        found = await listed(reached, QUOTA_LEDGERS, None, "")
    except (Denied, NotFound):
        return {}
    rooms = {}
    for item in found:
        labels, spec = item["metadata"].get("labels") or {}, item.get("spec") or {}
        limit = (spec.get("limit") or {}).get(GPU)
        if limit is not None:
            held = sum((hold.get("vector") or {}).get(GPU, 0) for hold in spec.get("holds") or ())
            key = (labels.get(PROJECT_LABEL, ""), labels.get(NODE_POOL_LABEL, ""))
            rooms[key] = Room(limit / 1000, max(0, limit - held) / 1000, item["metadata"].get("namespace") or "")
    return rooms


async def merge(reached: Reached, name: str, body: Mapping[str, Any], dry_run: bool = False) -> Stored:
    """A merge patch; the object as it is then."""
    path, params = WORKLOADS.path(reached.namespace, name), DRY_RUN if dry_run else MANAGER
    return _read(await reached.api.call("PATCH", path, params=params, body=body, content_type=MERGE_PATCH))


async def json_patch(reached: Reached, name: str, operations: list[dict[str, Any]]) -> Stored:
    """All of the operations, or none."""
    path = WORKLOADS.path(reached.namespace, name)
    return _read(await reached.api.call("PATCH", path, params=MANAGER, body=operations, content_type=JSON_PATCH))


async def try_to_create(reached: Reached, body: Mapping[str, Any]) -> Stored:
    """The object as the API server would store it. Nothing is stored."""
    path = WORKLOADS.path(reached.namespace)
    return _read(await reached.api.call("POST", path, params=DRY_RUN, body=body, content_type=JSON))


def _read(answer: bytes) -> Stored:
    return _convert(msgspec.json.decode(answer))


def _convert(raw: Mapping[str, Any]) -> Stored:
    try:
        return read(raw)
    except msgspec.ValidationError as error:
        name = (raw.get("metadata") or {}).get("name")
        raise Ended(Exit.ERROR, f"{name} cannot be read by this version of tidegate: {error}") from error


def _may_be_of(revision: ControllerRevision, uid: str) -> bool:
    """Orphans (deletionPolicy) have no owner; those of an earlier workload of the same name have another one."""
    owners = revision.metadata.owner_references or []
    return not owners or any(owner.uid == uid for owner in owners)


async def listed(reached: Reached, resource: Resource, namespace: str | None, labels: str) -> list[dict[str, Any]]:
    """All of them, page by page; namespace None: of the whole cluster."""
    params = {"limit": str(PAGE), **({"labelSelector": labels} if labels else {})}
    found: list[dict[str, Any]] = []
    while True:
        page = msgspec.json.decode(await reached.api.call("GET", resource.path(namespace), params=params))
        found += page.get("items") or []
        rest = (page.get("metadata") or {}).get("continue")
        if not rest:
            return found
        params["continue"] = rest
