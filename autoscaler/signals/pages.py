"""What one page of one pod says, in our words: gauges, counters, buckets, and which of them could not be read.

It decides nothing about time: two pages meet in `history`. NaN, infinite and negative values are faults, because each
of them, taken for a number, would move replicas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from autoscaler.model.workload import Engine
from autoscaler.signals.engines import ACTIVITY_NEEDS, ENGINES, NEEDS, Kind, Ranks, Source, own_metric
from autoscaler.signals.faults import Fault
from autoscaler.signals.scanner import Scanned, labels_of, scan, type_of

# Kept per pod from page to page, so a pod must not choose how many.
MAX_SERIES: Final = 2_000
MOST_VALUE: Final = 1e15  # no count, rate or number of tokens of one pod comes near it
MAX_BUCKETS: Final = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read from the pages of an engine, for the wanted signals."""

    engine: Engine
    sources: tuple[Source, ...]
    signals: Mapping[str, tuple[str, ...]]  # signal → keys of its sources; () where the engine has no such signal
    activity: tuple[str, ...]  # keys of the sources that prove work
    names: tuple[bytes, ...]  # the series to look for: every spelling of every source


@dataclass(frozen=True, slots=True)
class PageValues:
    """The readable quantities of one page. Each source's key is in exactly one of the four."""

    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, dict[bytes, float]] = field(default_factory=dict)  # by label set: each resets on its own
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)  # cumulative counts by upper bound
    faults: dict[str, Fault] = field(default_factory=dict)


@lru_cache(maxsize=4_096)
def plan_for(engine: Engine, signals: tuple[str, ...]) -> Plan:
    """The plan for a known engine, and for pods that only expose metrics of their own (Engine.CUSTOM).

    Activity is what the engine runs, queues and finishes; for CUSTOM pods it is the wanted metrics themselves.
    """
    words = ENGINES.get(engine)
    sources: dict[str, Source] = {}
    keys: dict[str, tuple[str, ...]] = {}
    for signal in signals:
        if signal not in NEEDS:
            needed = [own_metric(signal)]
        else:
            needed = [words.sources[quantity] for quantity in NEEDS[signal]] if words is not None else []
        sources |= {source.key: source for source in needed}
        keys[signal] = tuple(source.key for source in needed)
    activity = [words.sources[quantity] for quantity in ACTIVITY_NEEDS] if words is not None else list(sources.values())
    sources |= {source.key: source for source in activity}
    names = tuple(name for source in sources.values() for name in _spellings(source))
    return Plan(engine, tuple(sources.values()), keys, tuple(source.key for source in activity), names)


def read_page(page: bytes, plan: Plan) -> PageValues:
    """Everything that the plan asks of the page, or why not."""
    scanned = scan(page, plan.names)
    values = PageValues()
    for source in plan.sources:
        spelling = next((name for name in _spellings(source) if _present(scanned[name])), _spellings(source)[0])
        found = scanned[spelling]
        fault = found.fault or _unfit(found) or _store(values, source, page, spelling, found)
        if fault is not None:
            values.faults[source.key] = fault
    return values


def _spellings(source: Source) -> tuple[bytes, ...]:
    if source.kind is Kind.HISTOGRAM:
        return tuple(name + b"_bucket" for name in source.names)
    return source.names


def _present(found: Scanned) -> bool:
    return found.fault is not Fault.NO_SUCH_SERIES


def _unfit(found: Scanned) -> Fault | None:
    if len(found.samples) > MAX_SERIES:
        return Fault.TOO_MANY_SERIES
    return next((fault for _, value in found.samples if (fault := unfit(value)) is not None), None)


def unfit(value: float) -> Fault | None:
    """Why this cannot be a measurement of a pod; None where it can."""
    if math.isnan(value):
        return Fault.NOT_A_NUMBER
    if math.isinf(value):
        return Fault.INFINITE
    if value < 0:
        return Fault.NEGATIVE
    return Fault.ABSURD if value > MOST_VALUE else None


def _store(values: PageValues, source: Source, page: bytes, name: bytes, found: Scanned) -> Fault | None:
    kind = source.kind
    if kind is Kind.DECLARED:
        counts = (type_of(page, name) or ("counter" if name.endswith(b"_total") else "")) == "counter"
        kind = Kind.COUNTER if counts else Kind.GAUGE
    if kind is Kind.HISTOGRAM:
        buckets = _buckets(found)
        if isinstance(buckets, Fault):
            return buckets
        values.buckets[source.key] = buckets
    elif kind is Kind.COUNTER:
        values.counters[source.key] = dict(found.samples)
    else:
        numbers = [value for _, value in found.samples]
        values.gauges[source.key] = max(numbers) if source.ranks is Ranks.MAX else math.fsum(numbers)
    return None


def _buckets(found: Scanned) -> dict[float, float] | Fault:
    """Cumulative counts by upper bound, over all ranks of the page."""
    sums: dict[float, float] = {}
    for raw, count in found.samples:
        bound = _upper_bound(raw)
        if bound is None:
            return Fault.MALFORMED
        sums[bound] = sums.get(bound, 0.0) + count
    if len(sums) > MAX_BUCKETS:
        return Fault.TOO_MANY_SERIES
    return sums if math.inf in sums else Fault.MALFORMED


def _upper_bound(raw: bytes) -> float | None:
    text = dict(labels_of(raw) or ()).get("le")
    try:
        bound = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return None if math.isnan(bound) else bound
