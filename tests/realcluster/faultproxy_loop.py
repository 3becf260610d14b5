"""An event loop in a thread of its own, so that synchronous tests can steer asynchronous servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CALL_S = 20.0


class LoopThread:
    """Start it, hand it coroutines, stop it. What still runs at the end is cancelled."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T], timeout_s: float = CALL_S) -> T:
        """Runs it in the loop; its result. From other threads only."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def soon(self, call: Callable[[], object]) -> None:
        """Calls it in the loop, without waiting."""
        self._loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self.do(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S)
        self._loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
