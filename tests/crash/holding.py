"""Quota and traffic, version by version: what the server stored is replayed in the order in which it was stored.

Held: what live and terminating pods of a revision need is never more than what the ledger holds for it, and no ledger
holds more than its limit. Few: at most two revisions have pods. Served: once the Service leads to enough pods that have
been ready and do not leave, it goes on to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.crash.world import Change, Object

GPU: Final = "nvidia.com/gpu"
OWNER_REVISION: Final = "tidegate.dev/owner-revision"
REVISION: Final = "tidegate.dev/revision"  # only on pods that serve; what Services select by
MOST_REVISIONS: Final = 2  # with pods, at once


def broken(changes: Sequence[Change], begin: int, least: int) -> Iterator[str]:
    """`begin`: the version from which the Service must lead to `least` ready pods."""
    replay, served = _Replay(), False
    for change in sorted(changes, key=lambda each: each.version):
        replay.take(change)
        yield from replay.too_little_held(change)
        if len(replay.gpus()) > MOST_REVISIONS:
            yield f"{len(replay.gpus())} revisions had pods at once: {', '.join(sorted(replay.gpus()))}"
        if change.version >= begin and replay.exists and (selected := replay.selected) is not None:
            ready = replay.serving(selected)
            served = served or ready >= least
            if served and ready < least:
                yield f"the Service led to {ready} ready pods of {selected}; {least} would be right"


class _Replay:
    """What existed after each version."""

    def __init__(self) -> None:
        self.exists = False  # the workload
        self.selected: str | None = None  # revision that <service> leads to
        self._pods: dict[str, Object] = {}
        self._were_ready: set[str] = set()  # by uid; a fake kubelet may take readiness back
        self._ledgers: dict[str, Object] = {}

    def take(self, change: Change) -> None:
        gone, name = change.type == "DELETED", change.name
        match change.kind:
            case "InferenceWorkload":
                self.exists = not gone and "deletionTimestamp" not in change.object["metadata"]
            case "Service" if name == change.workload:
                self.selected = change.object["spec"]["selector"][REVISION]
            case "QuotaLedger":
                self._ledgers[name] = change.object
            case "Pod" if gone:
                self._pods.pop(name, None)
            case "Pod":
                self._pods[name] = change.object
                if _is_ready(change.object):
                    self._were_ready.add(change.object["metadata"]["uid"])

    def gpus(self) -> Counter[str]:
        """Of live and terminating pods, in thousandths, by revision."""
        found: Counter[str] = Counter()
        for pod in self._pods.values():
            found[pod["metadata"]["labels"].get(OWNER_REVISION, "?")] += 1000 * _gpus(pod)
        return found

    def serving(self, revision: str) -> int:
        return sum(
            1
            for pod in self._pods.values()
            if pod["metadata"]["labels"].get(REVISION) == revision
            and pod["metadata"]["uid"] in self._were_ready
            and "deletionTimestamp" not in pod["metadata"]
        )

    def too_little_held(self, change: Change) -> Iterator[str]:
        if change.kind not in ("Pod", "QuotaLedger"):
            return
        held: Counter[str] = Counter()
        for ledger in self._ledgers.values():
            holds = ledger["spec"]["holds"]
            total, limit = sum(each["vector"].get(GPU, 0) for each in holds), ledger["spec"]["limit"].get(GPU, 0)
            if total > limit:
                yield f"ledger {ledger['metadata']['name']} held {total} of {limit}"
            for each in holds:
                held[each["revision"]] += each["vector"].get(GPU, 0)
        for revision, needed in self.gpus().items():
            if self._ledgers and needed > held[revision]:
                yield f"pods of {revision} had {needed} thousandths of a GPU, {held[revision]} were held"


def _gpus(pod: Object) -> int:
    found: list[dict[str, Any]] = pod["spec"]["containers"]
    return sum(int(each.get("resources", {}).get("limits", {}).get(GPU, 0)) for each in found)


def _is_ready(pod: Object) -> bool:
    conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", ())}
    return conditions.get("Ready") == "True"
