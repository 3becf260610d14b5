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

from autoscaler.cluster.client import JSON, KubeApi
from autoscaler.cluster.errors import NotLeading, Unreachable
from autoscaler.cluster.pacing import WriteBudget
from autoscaler.cluster.resources import GROUP, Metadata

EPOCH_ANNOTATION: Final = f"{GROUP}/epoch"
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
