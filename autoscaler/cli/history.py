"""The revisions of a workload, the newest first: what `tidegate history` shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from autoscaler.cli.images import images_of
from autoscaler.cli.seen import CURRENT, LEAVING, UPDATE, Seen, gpus, is_in, seconds_of
from autoscaler.cli.words import NONE, age, number
from autoscaler.cluster.inferenceworkload import Serving
from autoscaler.cluster.resources import ControllerRevision
from rollouts.record import Phase

HEADER: Final = ("NAME", "TRAFFIC", "STATE", "READY/DESIRED", "IMAGE", "AGE", "REASON")
WIDE: Final = ("GPUS", "NODE-POOL")
STORED: Final = "Stored"  # kept, and nothing else


@dataclass(frozen=True, slots=True)
class Entry:
    """One revision. None: nobody tells."""

    name: str
    state: str
    traffic_percent: int | None = None
    ready: int | None = None
    desired: int | None = None
    images: tuple[str, ...] = ()
    created_at: str | None = None
    reason: str | None = None
    gpus: float | None = None
    node_pool: str | None = None


def entries(seen: Seen, stored: Sequence[ControllerRevision]) -> list[Entry]:
    """The stored ones as given, the newest first; before them one that the status names and nobody has stored yet."""
    contents = {each.metadata.name: each for each in stored}
    told = seen.told
    named = [each.name for each in told.revisions or ()] + [told.current_revision or "", told.update_revision or ""]
    target = seen.kind_of_serving == "targetRef"
    new = [] if target else list(dict.fromkeys(each for each in named if each and each not in contents))
    return [_entry(seen, name, contents.get(name)) for name in (*new, *contents)]


def _entry(seen: Seen, name: str, stored: ControllerRevision | None) -> Entry:
    revision = seen.revision(name)
    rollout = seen.told.rollout
    of_update = rollout is not None and rollout.revision == name
    return Entry(
        name=name,
        state=_state(seen, name),
        traffic_percent=revision.traffic_percent if revision is not None else None,
        ready=revision.ready if revision is not None else None,
        desired=revision.replicas if revision is not None else None,
        images=_images(stored),
        created_at=stored.metadata.creation_timestamp if stored is not None else None,
        reason=rollout.reason if of_update and rollout is not None else None,
        gpus=gpus(revision.held) if revision is not None and revision.held is not None else None,
        node_pool=revision.node_pool if revision is not None else None,
    )


def _state(seen: Seen, name: str) -> str:
    told = seen.told
    if name == told.current_revision:
        return CURRENT
    if told.rollout is not None and told.rollout.revision == name and told.rollout.phase:
        return told.rollout.phase if is_in(told.rollout, Phase.FAILED) else f"{UPDATE},{told.rollout.phase}"
    if name == told.update_revision:
        return UPDATE
    if told.record is not None and any(each.revision == name for each in told.record.leaving or ()):
        return LEAVING
    if told.record is not None and told.record.previous == name:
        return "Previous"
    return STORED


def _images(stored: ControllerRevision | None) -> tuple[str, ...]:
    try:
        return tuple(images_of(msgspec.convert(stored.data or {}, Serving))) if stored is not None else ()
    except msgspec.ValidationError:
        return ()


def rows(found: Sequence[Entry], now: float, wide: bool) -> list[tuple[str, ...]]:
    """The header, and a row for each revision."""
    return [(*HEADER, *(WIDE if wide else ())), *(_row(each, now, wide) for each in found)]


def _row(entry: Entry, now: float, wide: bool) -> tuple[str, ...]:
    created = seconds_of(entry.created_at)
    counts = [NONE if each is None else str(each) for each in (entry.ready, entry.desired)]
    beyond = (NONE if entry.gpus is None else number(entry.gpus), entry.node_pool or NONE) if wide else ()
    return (
        entry.name,
        NONE if entry.traffic_percent is None else str(entry.traffic_percent),
        entry.state,
        "/".join(counts),
        ",".join(entry.images) or NONE,
        age(now - created if created is not None else None),
        entry.reason or NONE,
        *beyond,
    )


def document(seen: Seen, found: Sequence[Entry]) -> Mapping[str, Any]:
    """What `-o json` and `-o yaml` show."""
    return {
        "namespace": seen.metadata.namespace,
        "name": seen.metadata.name,
        "revisions": [
            {
                "name": each.name,
                "state": each.state,
                "trafficPercent": each.traffic_percent,
                "ready": each.ready,
                "desired": each.desired,
                "images": list(each.images),
                "createdAt": each.created_at,
                "reason": each.reason,
                "gpus": each.gpus,
                "nodePool": each.node_pool,
            }
            for each in found
        ],
    }
