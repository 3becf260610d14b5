"""When a cycle runs: every tick, and at once on a poke. A poke says "look now", never what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from autoscaler.controller.cycle import Cycle
from autoscaler.model.report import CycleReport

POKE_GAP_S: Final = 0.25  # between two cycles, however often it is poked

log = structlog.get_logger()


class Loop:
    """Runs cycles on absolute deadlines of the loop's clock; a slow cycle skips ticks instead of piling them up."""

    def __init__(
        self,
        cycle: Cycle,
        tick_s: float,
        poked: asyncio.Event,
        synced: Callable[[], bool],
        finished: Callable[[CycleReport | None], None],
    ) -> None:
        """`finished` gets the report of every cycle; None for one that crashed."""
        self._cycle = cycle
        self._tick_s = tick_s
        self._synced = synced
        self._finished = finished
        self._poked = poked

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            if self._synced():
                self._poked.clear()
                await self._one()
            due = max(due + self._tick_s, clock() + POKE_GAP_S)
            await asyncio.sleep(POKE_GAP_S)
            await self._wait(due - clock())

    async def _one(self) -> None:
        try:
            self._finished(await self._cycle.run())
        except Exception:  # a bug in one cycle; nothing was half-decided, the next one looks afresh
            log.exception("cycle.crashed")
            self._finished(None)

    async def _wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._poked.wait()
        except TimeoutError:
            return
