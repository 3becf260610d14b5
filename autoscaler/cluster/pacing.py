"""Keeps writes to the API server within the operator's budget. Reads are not counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from autoscaler.cluster.client import JSON, KubeApi


class PacedApi:
    """KubeApi with at most `budget_per_s` writes a second; up to one second's worth may come at once."""

    def __init__(self, api: KubeApi, budget_per_s: float) -> None:
        self.waited_s_total = 0.0  # by all writes together
        self._api = api
        self.set_budget(budget_per_s)
        self._burst_s = 1.0
        self._next_at = 0.0  # loop time at which the bucket is empty

    def set_budget(self, budget_per_s: float) -> None:
        """Another budget for the writes to come."""
        self.budget_per_s = budget_per_s
        self._interval_s = 1 / budget_per_s

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        if method != "GET":
            await self._wait()
        return await self._api.call(method, path, params=params, body=body, content_type=content_type)

    def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        return self._api.stream(path, params, silence_s)

    async def _wait(self) -> None:
        now = asyncio.get_running_loop().time()
        self._next_at = max(self._next_at, now - self._burst_s) + self._interval_s
        if self._next_at > now:
            self.waited_s_total += self._next_at - now
            await asyncio.sleep(self._next_at - now)
