"""What goes wrong in benchmarks/soak.py: one fault after the other, each for some seconds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from benchmarks.soak_pages import PageFault, PodPages
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Answer, Armed, Drop, HangUp, Rule


class Trouble(StrEnum):
    """In the order in which they come round."""

    CUT = "watches cut"
    TOO_MANY = "429 storm"
    PAGES = "metrics pages fail"
    UNREACHABLE = "API server unreachable"
    GONE = "watches end with 410"
    UNAVAILABLE = "503 storm"
    GATEWAY = "gateway page fails"
    SILENT = "API server silent"
    LISTS = "lists fail after 410"


LASTS_S: Final[Mapping[Trouble, float]] = {
    Trouble.CUT: 5,
    Trouble.TOO_MANY: 8,
    Trouble.PAGES: 12,
    Trouble.UNREACHABLE: 15,
    Trouble.GONE: 3,
    Trouble.UNAVAILABLE: 8,
    Trouble.GATEWAY: 10,
    Trouble.SILENT: 9,
    Trouble.LISTS: 6,
}


class Troubles:
    """One at a time."""

    def __init__(self, proxy: FaultProxy, pages: PodPages) -> None:
        self._proxy = proxy
        self._pages = pages
        self._armed: list[Armed] = []
        self.now: Trouble | None = None
        self.until = 0.0
        self.counts: Counter[str] = Counter()

    def begin(self, now: float) -> Trouble:
        trouble = list(Trouble)[self.counts.total() % len(Trouble)]
        self.now, self.until = trouble, now + LASTS_S[trouble]
        self.counts[trouble.value] += 1
        arm = self._arm
        match trouble:
            case Trouble.CUT | Trouble.GONE:
                pass  # in `go_on`
            case Trouble.TOO_MANY:
                arm(Rule(Answer(429, "TooManyRequests", 1), times=None))
            case Trouble.UNAVAILABLE:
                arm(Rule(Answer(503, "ServiceUnavailable"), times=None))
            case Trouble.UNREACHABLE:
                arm(Rule(HangUp(), times=None))
            case Trouble.SILENT:
                arm(Rule(Drop(), times=None))
            case Trouble.LISTS:
                arm(
                    Rule(
                        Answer(500, "InternalError"), methods={"GET"}, where=lambda each: not each.is_watch, times=None
                    )
                )
                self._proxy.cut_watches(gone=True)
            case Trouble.GATEWAY:
                self._pages.gateway_fails = True
            case Trouble.PAGES:
                names = sorted(self._pages.waves)
                self._pages.faults = {name: random.choice(list(PageFault)) for name in names[::2]}
        self.go_on(now)
        return trouble

    def go_on(self, now: float) -> bool:
        """Once a step; True when it has just ended."""
        if self.now is None:
            return False
        if now < self.until:
            if self.now in (Trouble.CUT, Trouble.UNREACHABLE, Trouble.GONE):
                self._proxy.cut_watches(gone=self.now is Trouble.GONE)
            return False
        self._proxy.disarm()
        self._armed.clear()
        self._pages.gateway_fails, self._pages.faults = False, {}
        self.now = None
        return True

    def _arm(self, rule: Rule) -> None:
        self._armed.append(self._proxy.arm(rule))
