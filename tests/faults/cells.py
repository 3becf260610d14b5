"""The cells of the fault matrix: fault × signal × source, and which of them do not apply, each with its reason.

Data only. What happens in a cell is in lane.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from autoscaler.model.signal import Signal
from autoscaler.signals.engines import NEEDS


class Source(StrEnum):
    PODS = "pods"
    PROMETHEUS = "prometheus"


class Fault(StrEnum):
    """Those of a pod's page come first; where the source is Prometheus, it is what scrapes these pages."""

    TIME_OUT = "time-out"  # accepts and never answers
    HTTP_5XX = "5xx"
    EMPTY = "empty"
    NAN = "NaN"
    INF = "Inf"
    NEGATIVE = "negative"
    STALE = "stale"  # the page of an idle server, an hour old by its own timestamps, again and again
    SKEWED = "clock-skewed"  # every sample carries a timestamp an hour ahead or, on every other pod, behind
    RESET = "counter reset"  # counters begin anew every three seconds
    RENAMED = "renamed metric"
    DUPLICATE = "duplicate series"  # each sample a second time, with the value 0
    HUGE = "100 MB page"
    ENDLESS = "endless page"
    ONE_DEAD = "one pod of n dead"
    PARTIAL = "partial Prometheus answer"  # without two of three pods, and with a warning
    GONE = "Prometheus gone"
    HOLES = "Prometheus restarted with holes"
    CLOCK = "Prometheus's clock skewed"  # an hour ahead of ours, then an hour behind


OF_PROMETHEUS: Final = (Fault.PARTIAL, Fault.GONE, Fault.HOLES, Fault.CLOCK)
OF_PAGES: Final = tuple(fault for fault in Fault if fault not in OF_PROMETHEUS)

OWN_GAUGE: Final = "my_queue_depth"
OWN_COUNTER: Final = "my_jobs_total"
SIGNALS: Final = (*map(str, NEEDS), OWN_GAUGE, OWN_COUNTER)  # those of GPUs and queries are not on pages
GAUGES: Final = (Signal.CONCURRENCY, Signal.QUEUE, Signal.KV_CACHE, OWN_GAUGE)

# (fault, source or None for both, signals) -> why there is nothing to test
NOT_APPLICABLE: Final[tuple[tuple[Fault, Source | None, tuple[str, ...], str], ...]] = (
    (Fault.RESET, None, GAUGES, "a gauge is not counted, so nothing begins anew"),
    *((fault, Source.PODS, SIGNALS, "no Prometheus is asked") for fault in OF_PROMETHEUS),
)

# The faults under which every number stays true: nothing is lost, so nothing needs to be told.
HARMLESS: Final = (
    (Fault.RESET, Source.PODS),
    (Fault.RESET, Source.PROMETHEUS),
    (Fault.DUPLICATE, Source.PROMETHEUS),  # it keeps the first of two samples
    (Fault.CLOCK, Source.PROMETHEUS),
)

# What the condition and the record must name, one of them.
REASONS: Final[dict[tuple[Source, Fault], tuple[str, ...]]] = {
    (Source.PODS, Fault.TIME_OUT): ("time-out",),
    (Source.PODS, Fault.HTTP_5XX): ("http 503",),
    (Source.PODS, Fault.EMPTY): ("no such series",),
    (Source.PODS, Fault.NAN): ("not a number",),
    (Source.PODS, Fault.INF): ("infinite",),
    (Source.PODS, Fault.NEGATIVE): ("negative",),
    (Source.PODS, Fault.STALE): ("dated otherwise",),
    (Source.PODS, Fault.SKEWED): ("dated otherwise",),
    (Source.PODS, Fault.RENAMED): ("no such series",),
    (Source.PODS, Fault.DUPLICATE): ("printed twice",),
    (Source.PODS, Fault.HUGE): ("too large",),
    (Source.PODS, Fault.ENDLESS): ("time-out",),
    (Source.PODS, Fault.ONE_DEAD): ("refused",),
    (Source.PROMETHEUS, Fault.NAN): ("not a number",),
    (Source.PROMETHEUS, Fault.INF): ("infinite",),
    (Source.PROMETHEUS, Fault.NEGATIVE): ("negative",),
    (Source.PROMETHEUS, Fault.PARTIAL): ("partial answer", "no samples"),
    (Source.PROMETHEUS, Fault.GONE): ("Prometheus: refused",),
    (Source.PROMETHEUS, Fault.HOLES): ("Prometheus: refused",),
}
UNSAMPLED: Final = ("no samples", "overdue", "no such series")  # what Prometheus has of a page that it cannot use


@dataclass(frozen=True, slots=True)
class Cell:
    fault: Fault
    signal: str
    source: Source

    @property
    def workload(self) -> str:
        """Its name in the cluster: "t-time-out-kv-cache"."""
        words = f"t-{self.fault}-{self.signal}".lower().replace("prometheus", "p")
        return "".join(each if each.isalnum() else "-" for each in words)[:39].strip("-")

    @property
    def harmless(self) -> bool:
        return (self.fault, self.source) in HARMLESS

    @property
    def reasons(self) -> tuple[str, ...]:
        return REASONS.get((self.source, self.fault), UNSAMPLED)

    def __str__(self) -> str:
        return f"{self.source}, {self.fault}, {self.signal}"


def why_not(cell: Cell) -> str | None:
    """Why this cell does not apply; None where it does."""
    for fault, source, signals, reason in NOT_APPLICABLE:
        if cell.fault is fault and source in (None, cell.source) and cell.signal in signals:
            return reason
    return None


def every() -> list[Cell]:
    return [Cell(fault, signal, source) for source in Source for fault in Fault for signal in SIGNALS]


def short() -> list[Cell]:
    """One signal per fault and source, of all signals in turn; each fault and each signal is there."""
    chosen = []
    for shift, source in enumerate(Source):
        for number, fault in enumerate(Fault):
            asked: Sequence[Cell] = [Cell(fault, signal, source) for signal in SIGNALS]
            apply = [cell for cell in asked if why_not(cell) is None]
            if apply:
                chosen.append(apply[(number * 3 + shift * 5) % len(apply)])
    return chosen
