"""Keeps writes to the API server within the operator's budget."""

from __future__ import annotations

import asyncio
from typing import Final

BURST_S: Final = 1.0  # this much of the budget may come at once


class WriteBudget:
    """At most `per_s` writes a second."""

    def __init__(self, per_s: float) -> None:
        self.waited_s_total = 0.0  # by all writes together
        self.set(per_s)
        self._next_at = 0.0  # loop time at which the bucket is empty

    def set(self, per_s: float) -> None:
        """Another budget for the writes to come."""
        self.per_s = per_s
        self._interval_s = 1 / per_s

    async def turn(self) -> None:
        """Returns when one more write may be sent; in the order of the calls."""
        now = asyncio.get_running_loop().time()
        self._next_at = max(self._next_at, now - BURST_S) + self._interval_s
        if self._next_at > now:
            self.waited_s_total += self._next_at - now
            await asyncio.sleep(self._next_at - now)
