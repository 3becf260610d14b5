"""When a cycle runs: every tick, and at once on a poke. A poke says "look now", never what changed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from autoscaler.model.report import CycleReport

POKE_GAP_S: Final = 0.25  # between two cycles, however often it is poked

log = structlog.get_logger()


def next_due(due: float, now: float, tick_s: float) -> float:
    """The first deadline after `now` on the grid of `due`. A cycle that a poke brought forward moves no deadline.

    Tick 2: due at 10 and run at 10.1 -> 12; poked at 10.5 with 12 still ahead -> 12; slow until 15.5 -> 16.
    """
    return due if due > now else due + tick_s * (math.floor((now - due) / tick_s) + 1)


class Runs(Protocol):
    async def run(self) -> CycleReport: ...

    def rest(self) -> None:
        """Called instead while somebody else leads."""


class Watches(Protocol):
    def take(self, report: CycleReport | None) -> None:
        """The report of every cycle; None for one that crashed."""

    def rest(self) -> None:
        """One more tick on which somebody else leads."""


class Loop:
    """Runs cycles on absolute deadlines of the loop's clock; a slow cycle skips ticks instead of piling them up."""

    def __init__(
        self,
        cycle: Runs,
        tick_s: float,
        poked: asyncio.Event,
        synced: Callable[[], bool],
        standing_by: Callable[[], bool],
        board: Watches,
    ) -> None:
        self._cycle = cycle
        self._tick_s = tick_s
        self._synced = synced
        self._standing_by = standing_by
        self._board = board
        self._poked = poked
        self._turn = asyncio.Lock()  # held by a cycle, or by a change that must not fall into one
        self._stopped = False

    def set_tick(self, tick_s: float) -> None:
        self._tick_s = tick_s

    async def between_cycles(self, change: Callable[[], None]) -> None:
        """Calls it while no cycle runs, and lets one follow at once. Raises what it raises."""
        async with self._turn:
            change()
        self._poked.set()

    def stop(self) -> None:
        """No cycle begins any more; `run` returns when the present one has finished."""
        self._stopped = True
        self._poked.set()

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        due, again_in_s = clock(), None
        while not self._stopped:
            if self._synced():
                self._poked.clear()
                async with self._turn:
                    again_in_s = await self._one()
            due = min(next_due(due, clock(), self._tick_s), clock() + self._tick_s)  # the tick may be shorter now
            again_at = math.inf if again_in_s is None else clock() + again_in_s
            await asyncio.sleep(POKE_GAP_S)
            await self._wait(min(due, again_at) - clock())

    async def _one(self) -> float | None:
        """When to look again, where that cannot wait for the next tick."""
        if self._standing_by():
            self._cycle.rest()
            self._board.rest()
            return None
        try:
            report = await self._cycle.run()
        except Exception:  # a bug in one cycle; nothing was half-decided, the next one looks afresh
            log.exception("cycle.crashed")
            self._board.take(None)
            return None
        self._board.take(report)
        return report.again_in_s

    async def _wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._poked.wait()
        except TimeoutError:
            return
