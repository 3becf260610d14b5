"""Does a request wait for a workload without replicas? Asks pages of the operator's choice, e.g. a gateway's metrics.

A gauge says so while it is above 0, a counter by growing. A series that a good page lacks counts as 0, because
gateways print a series only once it has counted something; a page that is missing or old says nothing at all.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from yarl import URL

from autoscaler.model.signal import Activation
from autoscaler.model.workload import ActivationSpec
from autoscaler.signals.faults import Fault
from autoscaler.signals.fetch import PageFetcher
from autoscaler.signals.history import increase
from autoscaler.signals.scanner import Scanned, labels_of, scan, type_of

DEFAULT_STICKY_S: Final = 10.0
FRESH_PERIODS: Final = 3.0
_FORGET_AFTER_S: Final = 300.0

_log = structlog.get_logger()


@dataclass(slots=True)
class _Series:
    """What successive pages said of one ActivationSpec."""

    asked_at_s: float
    waiting: bool | None = None  # a gauge above 0 on the newest page; None: that page cannot say
    counts: dict[bytes, float] | None = None  # a counter's newest counts; None before the first page
    grew_at_s: float | None = None

    def observe(self, counter: bool, samples: list[tuple[bytes, float]], at_s: float) -> None:
        """A good page has these matching samples, possibly none."""
        if any(not math.isfinite(value) or value < 0 for _, value in samples):
            self.waiting = None
            return
        counts = dict(samples)
        if counter or not counts:
            if self.counts is not None and increase(self.counts, counts) > 0:
                self.grew_at_s = at_s
            # Counts that are missing from one page must not look new on the next.
            self.counts = counts if self.counts is None or len(self.counts) > len(counts) + 64 else self.counts | counts
            self.waiting = False
        else:
            self.counts = None
            self.waiting = any(value > 0 for value in counts.values())


@dataclass(slots=True)
class _Page:
    """One page and what is asked of it."""

    url: URL
    body: bytes = b""  # the newest good one, so that a workload that comes to ask is answered at once
    at_s: float | None = None
    fault: str | None = Fault.NO_PAGE_YET
    busy: bool = False
    series: dict[ActivationSpec, _Series] = field(default_factory=dict)


class ActivationPages:
    """Polls each page once a period.

    `clock` gives Unix seconds. `sticky_s` is how long a counter's growth is reported, so that no tick misses it.
    """

    def __init__(
        self,
        pages: Mapping[str, str],
        clock: Callable[[], float],
        *,
        period_s: float = 1.0,
        timeout_s: float = 1.5,
        max_page_bytes: int = 4 * 1024 * 1024,
        sticky_s: float = DEFAULT_STICKY_S,
    ) -> None:
        self.pages_total: Counter[str] = Counter()  # by "ok" or the reason
        self._clock = clock
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._max_page_bytes = max_page_bytes
        self._sticky_s = sticky_s
        self._pages: dict[str, _Page] = {}
        self.set_pages(pages)

    def set_pages(self, pages: Mapping[str, str]) -> None:
        """Poll exactly these pages (name → URL) from now on; an unchanged one keeps what it has seen."""
        before, after = self._pages, {}
        for name, address in pages.items():
            url = URL(address)
            kept = before.get(name)
            after[name] = kept if kept is not None and kept.url == url else _Page(url)
        self._pages = after  # all or, where an address cannot be read, none

    def state(self, spec: ActivationSpec, now_s: float) -> Activation:
        """What the page says of this workload now. The first question also makes the series watched."""
        page = self._pages.get(spec.page)
        if page is None:
            return Activation.UNKNOWN
        series = page.series.get(spec)
        if series is None:
            series = page.series[spec] = _Series(now_s)
            if page.at_s is not None:
                _read(page.body, {spec: series}, page.at_s)
        series.asked_at_s = now_s
        if series.grew_at_s is not None and abs(now_s - series.grew_at_s) < self._sticky_s:
            return Activation.WAITING
        fresh = page.at_s is not None and abs(now_s - page.at_s) < FRESH_PERIODS * self._period_s
        if not fresh or series.waiting is None:
            return Activation.UNKNOWN
        return Activation.WAITING if series.waiting else Activation.IDLE

    def faults(self) -> dict[str, str]:
        """Why the newest attempt at a page failed, by page; the good ones are left out."""
        return {name: str(page.fault) for name, page in sorted(self._pages.items()) if page.fault is not None}

    async def run(self) -> None:
        """Poll until cancelled. May be called again."""
        for page in self._pages.values():
            page.busy = False
        fetcher = PageFetcher(self._timeout_s, self._max_page_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    for name, page in self._pages.items():
                        if not page.busy:
                            page.busy = True
                            group.create_task(self._visit(fetcher, name, page))
                    await asyncio.sleep(self._period_s)
        finally:
            await fetcher.close()

    async def _visit(self, fetcher: PageFetcher, name: str, page: _Page) -> None:
        try:
            got = await fetcher.get(page.url)
            outcome = got if isinstance(got, str) else self._take(name, page, got)
        finally:
            page.busy = False
        page.fault = outcome
        self.pages_total[outcome or "ok"] += 1

    def _take(self, name: str, page: _Page, body: bytes) -> str | None:
        """Enter a good page; the reason where it could not be read."""
        now_s = self._clock()
        page.series = {
            spec: series for spec, series in page.series.items() if abs(now_s - series.asked_at_s) < _FORGET_AFTER_S
        }
        try:
            _read(body, page.series, now_s)
        except Exception:  # whatever a page holds must not end the daemon
            if page.fault != Fault.UNREADABLE:
                _log.exception("page.not_read", page=name)
            return Fault.UNREADABLE
        page.body, page.at_s = body, now_s
        return None


def _read(body: bytes, watched: Mapping[ActivationSpec, _Series], at_s: float) -> None:
    """Show a page to all series watched on it: one scan per metric, one look-up per series."""
    names = sorted({spec.metric.encode() for spec in watched})
    scanned = scan(body, names)
    counters = {name: _is_counter(body, name) for name in names}
    indices: dict[tuple[bytes, tuple[str, ...]], dict[tuple[str, ...], list[tuple[bytes, float]]]] = {}
    for spec, series in watched.items():
        name = spec.metric.encode()
        found = scanned[name]
        if found.fault is not None and found.fault is not Fault.NO_SUCH_SERIES:
            series.waiting = None
            continue
        wanted = dict(spec.labels)
        label_names = tuple(sorted(wanted))
        index = indices.get((name, label_names))
        if index is None:
            index = indices[name, label_names] = _by_labels(found, label_names)
        series.observe(counters[name], index.get(tuple(wanted[label] for label in label_names), []), at_s)


def _by_labels(found: Scanned, names: tuple[str, ...]) -> dict[tuple[str, ...], list[tuple[bytes, float]]]:
    """The samples that have all these labels, by the labels' values."""
    index: dict[tuple[str, ...], list[tuple[bytes, float]]] = {}
    for raw, value in found.samples:
        labels = dict(labels_of(raw) or ())
        if all(name in labels for name in names):
            index.setdefault(tuple(labels[name] for name in names), []).append((raw, value))
    return index


def _is_counter(body: bytes, name: bytes) -> bool:
    declared = type_of(body, name)
    return declared == "counter" if declared is not None else name.endswith(b"_total")
