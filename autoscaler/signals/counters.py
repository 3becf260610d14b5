"""What successive pages of a revision's pods say of its requests: did one come, is one in flight, and known till when?

For the gates of updates. The first page of a pod is only a base, because what it counts happened at unknown times; a
page that is missing or cannot be read changes nothing, and after a few of them nothing is known of the pod. Times are
Unix seconds given by the caller; no clock, no input or output.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from autoscaler.model.signal import RequestCounts, Signal
from autoscaler.model.workload import Engine
from autoscaler.signals.engines import ENGINES, Quantity
from autoscaler.signals.faults import Fault
from autoscaler.signals.history import began_anew, increase
from autoscaler.signals.pages import MAX_SERIES, Plan, read_page

NOTHING: Final = RequestCounts()


@lru_cache
def _plan(engine: Engine) -> Plan:
    """Whatever an engine shows of requests in flight and finished, even where it does not show both."""
    words = ENGINES[engine]
    wanted = (*words.needs(Signal.CONCURRENCY), Quantity.FINISHED)
    sources = tuple(words.sources[quantity] for quantity in wanted if quantity in words.sources)
    return Plan(engine, sources, {}, (), {})


class PodCounts:
    """The requests of one pod, from its pages in the order of time.

    A request is new on a page if finished + in flight is more than on the page before: one that merely ends leaves the
    one and joins the other. 7 finished and 2 in flight, then 8 and 2: one was new; then 10 and 0: none was.
    """

    __slots__ = (
        "_counts",
        "_in_flight",
        "_shown",
        "busy_at",
        "counted_at",
        "counted_from",
        "last_request_at",
        "page_at",
        "whole",
    )

    def __init__(self) -> None:
        self.last_request_at: float | None = None
        self.busy_at: float | None = None
        self.counted_at: float | None = None  # the newest page that showed everything
        self.counted_from: float | None = None  # None before that
        self.page_at: float | None = None  # the newest page that could be read
        self.whole = False  # does it show all requests in flight?
        self._shown: frozenset[str] = frozenset()  # the quantities of the newest page
        self._counts: dict[bytes, float] | None = None  # of finished requests, by label set; None before the first page
        self._in_flight: float | None = None  # None before the first page

    @property
    def in_flight(self) -> float | None:
        """None: not known of all."""
        return self._in_flight if self.whole else None

    def observe(self, engine: Engine, page: bytes, at_s: float) -> None:
        """A page of an engine of the dictionary, which arrived at this instant."""
        plan = _plan(engine)
        values = read_page(page, plan, at_s)
        shown = frozenset(values.gauges.keys() | values.counters.keys())
        if not self._shown <= shown or any(fault is not Fault.NO_SUCH_SERIES for fault in values.faults.values()):
            return  # of a half, the other half would look like requests that came or ended
        self._shown, self.page_at = shown, at_s
        self.whole = shown.issuperset(ENGINES[engine].needs(Signal.CONCURRENCY))
        more = self._entered(math.fsum(values.gauges.values()), at_s)
        # Some engines print a counter from its first request on: what it begins with is new.
        grown, anew = self._finished(values.counters.get(Quantity.FINISHED, {}))
        if grown > 0:
            self.busy_at = at_s
        if grown + more > 0 or (anew and grown > 0):
            self.last_request_at = at_s
        if self.whole and Quantity.FINISHED in shown:
            if self.counted_from is None:
                untouched = not self._in_flight and not any((self._counts or {}).values())
                self.counted_from = 0.0 if untouched else at_s
            self.counted_at = at_s
        if anew:  # another process: what the one before it had begun since the page before, nobody counted
            self.counted_from = at_s

    def _entered(self, in_flight: float, at_s: float) -> float:
        """How many more are in flight than on the page before."""
        before, self._in_flight = self._in_flight, in_flight
        more = in_flight - before if before is not None else 0.0
        if in_flight > 0 or more != 0:
            self.busy_at = at_s
        return more

    def _finished(self, counts: dict[bytes, float]) -> tuple[float, bool]:
        """How many have finished since the page before, and whether the counters began anew in between."""
        before = self._counts
        if before is None:
            self._counts = counts
            return 0.0, False
        # A label set that is away for a page must not be counted anew when it is back.
        self._counts = before | counts if len(before) + len(counts) <= 2 * MAX_SERIES else counts
        return increase(before, counts), began_anew(before, counts)


def counts_of(pods: Collection[PodCounts], gone: RequestCounts, supported: bool, since_s: float) -> RequestCounts:
    """Of a revision whose serving pods these are.

    `gone`: what pods that served before have shown. `since_s`: of a pod without a page after it nothing is known, but
    what had been seen by then.
    """
    fresh = [each for each in pods if each.page_at is not None and each.page_at > since_s]
    in_flight = [each.in_flight for each in fresh if each.in_flight is not None]
    counted_at = [each.counted_at for each in fresh if each.counted_at is not None]
    counted_from = [each.counted_from for each in pods if each.counted_from is not None]
    return RequestCounts(
        in_flight=math.ceil(math.fsum(in_flight)) if pods and len(in_flight) == len(pods) else None,
        last_request_at=_newest([gone.last_request_at, *(each.last_request_at for each in pods)]),
        counted_at=min(counted_at) if pods and len(counted_at) == len(pods) else None,
        counted_from=max(counted_from, default=0.0),
        busy_at=_newest([gone.busy_at, *(each.busy_at for each in pods)]),
        supported=supported,
    )


def _newest(instants: Collection[float | None]) -> float | None:
    return max((each for each in instants if each is not None), default=None)
