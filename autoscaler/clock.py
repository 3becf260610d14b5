"""The time of day that decisions are made with: it never steps, whatever happens to the machine's clock.

Windows, ages and deadlines are differences. On a clock that is set five minutes forward, every page would suddenly be
old and every deadline over. So time goes on at the pace of a steady clock from what the machine said at the start, and
a difference from what the machine says now is made good slowly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from autoscaler.cluster.lease import steady

SLEW_RATIO: Final = 0.01  # five minutes are made good in about eight hours; no window notices one per cent
WORTH_TELLING_S: Final = 5.0

log = structlog.get_logger()


class SteadyClock:
    """Unix seconds without steps."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = steady) -> None:
        self._wall = wall
        self._steady = steady
        self._at = wall()
        self._steady_at = steady()
        self.behind_s = 0.0  # how far the machine's clock is ahead of this one

    def now(self) -> float:
        """Never less than what it said before."""
        wall, steady_now = self._wall(), self._steady()
        passed_s = max(0.0, steady_now - self._steady_at)
        behind_s = wall - (self._at + passed_s)
        if abs(behind_s - self.behind_s) > WORTH_TELLING_S:
            log.warning("clock.stepped", by_s=round(behind_s - self.behind_s, 1))
        most_s = SLEW_RATIO * passed_s
        self._at += passed_s + min(most_s, max(-most_s, behind_s))
        self._steady_at = steady_now
        self.behind_s = wall - self._at
        return self._at
