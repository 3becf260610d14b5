"""What must hold: the same end state, whatever was interrupted, and nothing forbidden on the way there.

Only values: what the watches of the test saw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from autoscaler.cluster.fencing import EPOCH_ANNOTATION
from tests.crash import holding, route
from tests.crash.world import Change, Object, World

OURS: Final = "tidegate.dev/"
OBJECTS: Final = ("Deployment", "LeaderWorkerSet")  # of revisions
CREATED: Final = ("ControllerRevision", *OBJECTS, "Service")  # what the daemon makes
STATUS_FIELDS: Final = (
    *("phase", "scalingMode", "url", "replicas", "selector", "counts", "collisionCount"),
    *("rolloutMessage", "traffic", "revisions"),
)
INSTANTS: Final = ("startedAt", "servedAt")


def end_state(world: World, workload: str) -> dict[str, Any]:
    """All that should be equal: names, labels, owners, counts, selectors, holds, weights, the record, phase and
    conditions.

    Not uids, versions, times and epochs (each new process has its own), nor `lastScale`, which tells of a decision and
    not of a state; nor the stored content of an update that failed, which is made with its pods and kept as history:
    one whose deadline passes before that has none. The names of the workload and the namespace are replaced, so that
    runs can be compared.
    """
    failed = {
        rollout["revision"]
        for each in world.objects("InferenceWorkload", workload)
        if (rollout := each.get("status", {}).get("rollout") or {}).get("phase") == "Failed"
    }
    state: dict[str, Any] = {
        "workload": [_workload(each) for each in world.objects("InferenceWorkload", workload)],
        "pods": sorted((_pod(each) for each in world.objects("Pod", workload)), key=json.dumps),
        "holds": [_hold(each) for each in world.holds(workload)],
        "routes": [[route.weights(each), route.accepted(each)] for each in world.objects("HTTPRoute", workload)],
    }
    uids = {each["metadata"]["uid"] for each in world.objects("InferenceWorkload", workload)}
    for kind in CREATED:
        left_out = failed if kind == "ControllerRevision" else set()
        found = [each for each in world.objects(kind, workload) if each["metadata"]["name"] not in left_out]
        state[kind] = [_created(each, uids) for each in found]
    text = json.dumps(state, sort_keys=True).replace(workload, "<workload>").replace(world.namespace, "<namespace>")
    anonymous: dict[str, Any] = json.loads(text)
    return anonymous


def _workload(item: Object) -> dict[str, Any]:
    status = item.get("status", {})
    record = dict(status.get("record", {}))
    record |= {name: name in record for name in (*INSTANTS, "epoch")}
    return {
        "spec": item["spec"],
        "record": record,
        "rollout": {key: value for key, value in (status.get("rollout") or {}).items() if not _is_instant(key)},
        "names": [status.get("currentRevision"), status.get("updateRevision")],
        "seen": status.get("observedGeneration") == item["metadata"]["generation"],
        "conditions": {each["type"]: [each["status"], each["reason"]] for each in status.get("conditions", ())},
        **{name: status.get(name) for name in STATUS_FIELDS},
    }


def _is_instant(key: str) -> bool:
    return key == "since" or key.endswith("At")


def _hold(hold: Object) -> dict[str, Any]:
    return {"revision": hold["revision"], "vector": hold["vector"]}


def _pod(item: Object) -> dict[str, Any]:
    conditions = {each["type"]: each["status"] for each in item.get("status", {}).get("conditions", ())}
    labels = {key: value for key, value in item["metadata"]["labels"].items() if key.startswith(OURS)}
    return {
        "ready": conditions.get("Ready"),
        "leaving": "deletionTimestamp" in item["metadata"],
        "labels": labels,
    }


def _created(item: Object, uids: set[str]) -> dict[str, Any]:
    metadata, spec = item["metadata"], item.get("spec", {})
    return {
        "name": metadata["name"],
        "labels": metadata.get("labels"),
        "annotations": {
            key: key == EPOCH_ANNOTATION or value
            for key, value in metadata.get("annotations", {}).items()
            if key.startswith(OURS)
        },
        "owned": [owner["uid"] in uids for owner in metadata.get("ownerReferences", ())],
        "replicas": spec.get("replicas"),
        "selector": spec.get("selector"),
        "template": spec.get("template") or spec.get("leaderWorkerTemplate"),
        "data": item.get("data"),
    }


def difference(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    """Where two states differ, one line each."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            yield from difference(wanted.get(key), found.get(key), f"{where}.{key}" if where else key)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from difference(one, other, f"{where}[{index}]")
    elif wanted != found:
        yield f"{where}: {_short(found)} instead of {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:160]}…"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a scenario allows on its way: counts that may be written, how many pods may end, how many revisions there
    may be, one after another."""

    least: int
    most: int
    pods_ended: int = 0
    revisions: int = 1


def broken_invariants(
    life: Sequence[Change], since_act: Sequence[Change], bounds: Bounds, uid: str, ledgers: Sequence[Change] = ()
) -> list[str]:
    """What must not happen in any version that the server stored.

    `life`: all changes since the workload was created; `since_act`: the later part, to which `bounds` apply. `uid`: the
    workload's. `ledgers`: all changes of its project's.
    """
    begin = min((each.version for each in since_act), default=0)
    broken = [
        *_counts(since_act, bounds),
        *_pods_lost(since_act, bounds),
        *_revisions(life, bounds),
        *_owned(life, uid),
        *_recorded_first(life),
        *_told(life),
        *holding.broken([*life, *ledgers], begin, bounds.least),
    ]
    return list(dict.fromkeys(broken))  # each once: a wrong count is in several versions


def _counts(changes: Sequence[Change], bounds: Bounds) -> Iterator[str]:
    for change in changes:
        if change.kind in OBJECTS and change.type != "DELETED":
            count = change.object["spec"]["replicas"]
            if not bounds.least <= count <= bounds.most:
                yield f"{change.name} was given {count} replicas; {bounds.least}..{bounds.most} would be right"


def _told(changes: Sequence[Change]) -> Iterator[str]:
    """What a daemon found to be untrue by itself."""
    for each in changes:
        if each.kind == "InferenceWorkload":
            yield from untrue(each.object)


def untrue(workload: Mapping[str, Any]) -> list[str]:
    """Messages of its condition InvariantBroken; none where it has none, or is over it."""
    conditions = (workload.get("status") or {}).get("conditions", ())
    return [
        f"the daemon told: {each['message']}"
        for each in conditions
        if (each["type"], each["status"]) == ("InvariantBroken", "True")
    ]


def _revisions(changes: Sequence[Change], bounds: Bounds) -> Iterator[str]:
    uids: dict[str, set[str]] = {}
    for each in changes:
        if each.kind in OBJECTS:
            uids.setdefault(each.name, set()).add(each.object["metadata"]["uid"])
    for name, found in sorted(uids.items()):
        if len(found) > 1:
            yield f"{name} was made {len(found)} times"
    names = {each.name for each in changes if each.kind in ("ControllerRevision", *OBJECTS)}
    if len(names) > bounds.revisions:
        yield f"{len(names)} revisions, {bounds.revisions} would be right: {', '.join(sorted(names))}"


def _pods_lost(changes: Sequence[Change], bounds: Bounds) -> Iterator[str]:
    leaving = {
        each.name
        for each in changes
        if each.kind == "Pod" and (each.type == "DELETED" or "deletionTimestamp" in each.object["metadata"])
    }
    if len(leaving) > bounds.pods_ended:
        yield f"{len(leaving)} pods were ended; {bounds.pods_ended} would be right"


def _owned(changes: Sequence[Change], uid: str) -> Iterator[str]:
    for change in changes:
        owners = [owner["uid"] for owner in change.object["metadata"].get("ownerReferences", ())]
        if change.kind in CREATED and owners != [uid]:
            yield f"{change.kind} {change.name} is nobody's: it would outlive its workload"


def _recorded_first(changes: Sequence[Change]) -> Iterator[str]:
    """The record names a revision before anything of it exists, so that a successor finds it."""
    recorded: dict[str, int] = {}
    for change in changes:
        if change.kind == "InferenceWorkload":
            status = change.object.get("status", {})
            for name in (status.get("currentRevision"), (status.get("rollout") or {}).get("revision")):
                recorded.setdefault(str(name), change.version)
    for change in changes:
        if change.kind in ("ControllerRevision", *OBJECTS) and change.type == "ADDED":
            since = recorded.get(change.name)
            if since is None or since > change.version:
                yield f"{change.kind} {change.name} existed before any record of it"
