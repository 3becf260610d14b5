"""Writes of a leader: within its tenure, within the budget, and fenced off from those of the leader before.

Every object whose replicas we write carries the epoch of the tenure that may write it. A new leader stamps its own
epoch before it writes anything else to the object. That changes the object's version, and every write names the version
that it was made for: a late write of an earlier tenure meets a conflict, however late it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from autoscaler.cluster.client import JSON, MERGE_PATCH, KubeApi
from autoscaler.cluster.errors import Conflict, NotLeading, Unreachable
from autoscaler.cluster.pacing import WriteBudget
from autoscaler.cluster.resources import AS_OURSELVES, GROUP, Metadata

EPOCH_ANNOTATION: Final = f"{GROUP}/epoch"
STAMP_TRIES: Final = 3  # others write to the object, too: its controller, or a pod that becomes ready
EPOCH_DIGITS: Final = 9  # a Lease counts in 32 bits; what is longer is not ours


@dataclass(frozen=True, slots=True)
class Tenure:
    """What a leader may act with: its epoch, and an API whose writes end with it."""

    epoch: int
    api: KubeApi


class FencedApi:
    """KubeApi whose writes wait for the budget and are not sent, nor waited for, beyond the tenure."""

    def __init__(self, api: KubeApi, budget: WriteBudget, left_s: Callable[[], float]) -> None:
        """`left_s`: for how long writes may still be sent."""
        self._api = api
        self._budget = budget
        self._left_s = left_s

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        if method == "GET":
            return await self._api.call(method, path, params=params, body=body, content_type=content_type)
        await self._budget.turn()
        if self._left_s() <= 0:  # after the wait: the process may have been stopped meanwhile
            raise NotLeading(f"{method} {path}: not sent, this process does not lead")
        call = self._api.call(method, path, params=params, body=body, content_type=content_type)
        task = asyncio.ensure_future(call)
        try:
            while (left_s := self._left_s()) > 0:  # it may be renewed meanwhile
                await asyncio.wait({task}, timeout=left_s)
                if task.done():
                    return task.result()
            raise Unreachable(f"{method} {path}: no answer before the leadership ended")
        finally:
            task.cancel()

    def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        return self._api.stream(path, params, silence_s)


def epoch_of(metadata: Metadata) -> int | None:
    """The epoch that an object carries; None where it carries none that can be read."""
    stamp = (metadata.annotations or {}).get(EPOCH_ANNOTATION, "")
    return int(stamp) if stamp.isascii() and stamp.isdigit() and len(stamp) <= EPOCH_DIGITS else None


class _OnlyMetadata(msgspec.Struct):
    metadata: Metadata


async def stamp(api: KubeApi, path: str, there: Metadata, epoch: int) -> bytes:
    """Makes the object at `path` carry the epoch; what the server answered.

    Tried again where another's change was quicker; only the uid must be what was looked at. Raises Conflict where a
    later leader was here.
    """
    uid, version = there.uid, there.resource_version
    for _ in range(STAMP_TRIES):
        meta = {"uid": uid, "resourceVersion": version, "annotations": {EPOCH_ANNOTATION: str(epoch)}}
        try:
            return await api.call("PATCH", path, params=AS_OURSELVES, body={"metadata": meta}, content_type=MERGE_PATCH)
        except Conflict:
            now = msgspec.json.decode(await api.call("GET", path), type=_OnlyMetadata).metadata
            if (epoch_of(now) or 0) > epoch:
                raise
            version = now.resource_version
    raise Conflict(f"{path} changed {STAMP_TRIES} times under its stamp")
