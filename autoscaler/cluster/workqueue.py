"""Work on the cluster that outlasts a cycle: in order for each object, beside each other across objects, bounded.

A slow API server must not stop the decisions on others, and work that is cut off after a time would never end while it
is slow. So what runs goes on, and what waits is replaced when the same object is asked for again: the newest word
counts.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Piece(Generic[R]):
    rank: int
    number: int  # order of asking; a replacement keeps its place
    work: Callable[[], Awaitable[R]]
    asked_at: float  # loop time


class WorkQueue(Generic[K, R]):
    """Runs at most one piece of work per key at a time, and keeps at most one more waiting behind it."""

    def __init__(self, workers: int, most: int) -> None:
        """`workers`: pieces that run at once; `most`: pieces that wait."""
        self.most = most
        self.refused = 0  # pieces that found the queue full
        self._workers = workers
        self._numbers = count()
        self._waiting: dict[K, _Piece[R]] = {}
        self._order: list[tuple[int, int, K]] = []  # a heap of the waiting; entries that were replaced are skipped
        self._running: dict[K, tuple[asyncio.Task[None], float]] = {}
        self._done: list[tuple[K, R]] = []
        self._ended = asyncio.Event()

    def __len__(self) -> int:
        """Pieces that run or wait."""
        return len(self._running) + len(self._waiting)

    def keys(self) -> set[K]:
        return self._running.keys() | self._waiting.keys()

    def longest_s(self) -> float:
        """How long the oldest piece has been running or waiting."""
        since = [at for _, at in self._running.values()] + [piece.asked_at for piece in self._waiting.values()]
        return asyncio.get_running_loop().time() - min(since) if since else 0.0

    def put(self, key: K, rank: int, work: Callable[[], Awaitable[R]]) -> bool:
        """Begins the work when its turn comes: lower ranks first, one at a time per key. False: the queue is full.

        It replaces what waits for the same key, unless that has a lower rank.
        """
        before = self._waiting.get(key)
        if before is not None and before.rank < rank:
            return True
        if before is None and len(self._waiting) >= self.most:
            self.refused += 1
            return False
        number = before.number if before is not None else next(self._numbers)
        asked_at = before.asked_at if before is not None else asyncio.get_running_loop().time()
        self._waiting[key] = _Piece(rank, number, work, asked_at)
        heapq.heappush(self._order, (rank, number, key))
        self._fill()
        return True

    def running(self, key: K) -> bool:
        return key in self._running

    async def settle(self, keys: Iterable[K], within_s: float) -> None:
        """Returns when nothing of these keys runs or waits, or after so long."""
        left = set(keys)
        try:
            async with asyncio.timeout(within_s):
                while left := {key for key in left if key in self._running or key in self._waiting}:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return

    def take(self) -> list[tuple[K, R]]:
        """The results since it was last asked, in the order of their ends."""
        done, self._done = self._done, []
        return done

    async def abandon(self) -> None:
        """Cancels what runs and forgets what waits. Returns when nothing runs."""
        self._waiting.clear()
        self._order.clear()
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fill(self) -> None:
        blocked = []  # their key runs: they stay in line
        while self._order and len(self._running) < self._workers:
            entry = heapq.heappop(self._order)
            rank, number, key = entry
            piece = self._waiting.get(key)
            if piece is None or (piece.rank, piece.number) != (rank, number):
                continue
            if key in self._running:
                blocked.append(entry)
                continue
            del self._waiting[key]
            self._running[key] = (asyncio.create_task(self._run(key, piece.work)), piece.asked_at)
        for entry in blocked:
            heapq.heappush(self._order, entry)

    async def _run(self, key: K, work: Callable[[], Awaitable[R]]) -> None:
        try:
            result = await work()
            self._done.append((key, result))  # to the list of now, which `take` may have changed meanwhile
        finally:
            del self._running[key]
            self._ended.set()
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # after the end of the loop nothing may begin
                self._fill()
