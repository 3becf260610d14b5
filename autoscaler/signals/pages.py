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
from autoscaler.signals.engines import ENGINES, NEEDS, EngineWords, Kind, Quantity, Ranks, Source, own_metric
from autoscaler.signals.faults import Fault
from autoscaler.signals.scanner import REMEMBERED_BYTES, Scanned, labels_of, scan, type_of

# Kept per pod from page to page, so a pod must not choose how many.
MAX_SERIES: Final = 2_000
MOST_VALUE: Final = 1e15  # no count, rate or number of tokens of one pod comes near it
MOST_SHARE: Final = 2.0  # a larger one is a percentage, or something else: nobody knows what one replica carries
MAX_BUCKETS: Final = 256
# How far a timestamp that a pod prints may be from our clock: what collects for others is some seconds late.
STAMP_OFF_S: Final = 15.0
ACTIVITY: Final = "activity"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read from the pages of an engine, for the wanted signals."""

    engine: Engine
    sources: tuple[Source, ...]
    signals: Mapping[str, tuple[str, ...]]  # signal → keys of its sources; () where the engine has no such signal
    activity: tuple[str, ...]  # keys of the sources that prove work; () where the engine does not show it
    missing: Mapping[str, str]  # signal, or ACTIVITY → what the engine has no series for

    def series(self, key: str) -> str:
        """The newest name of a source, for sentences."""
        return next((source.names[0].decode() for source in self.sources if source.key == key), key)


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
    missing: dict[str, str] = {}
    for signal in signals:
        needed = _sources(words, words.needs(signal) if words else ()) if signal in NEEDS else (own_metric(signal),)
        if isinstance(needed, Quantity):
            missing[signal], needed = needed, ()
        sources |= {source.key: source for source in needed}
        keys[signal] = tuple(source.key for source in needed)
    activity = _sources(words, words.activity) if words is not None else tuple(sources.values())
    if isinstance(activity, Quantity):
        missing[ACTIVITY], activity = activity, ()
    sources |= {source.key: source for source in activity}
    return Plan(engine, tuple(sources.values()), keys, tuple(source.key for source in activity), missing)


def _sources(words: EngineWords | None, quantities: tuple[Quantity, ...]) -> tuple[Source, ...] | Quantity:
    """Where an engine shows these quantities, all of them; else the first that it does not show."""
    if words is None:
        return ()
    lacking = [quantity for quantity in quantities if quantity not in words.sources]
    return lacking[0] if lacking else tuple(words.sources[quantity] for quantity in quantities)


def read_page(page: bytes, plan: Plan, now_s: float) -> PageValues:
    """Everything that the plan asks of the page that came at this instant, or why not."""
    values = PageValues()
    for source in plan.sources:
        spelling, found = _newest_present(page, source)
        fault = found.fault or _unfit(found, source, now_s) or _store(values, source, page, spelling, found)
        if fault is not None:
            values.faults[source.key] = fault
    return values


def _newest_present(page: bytes, source: Source) -> tuple[bytes, Scanned]:
    """The first of its spellings that the page has, else the newest, absent: a look for each costs the whole page."""
    spellings = _spellings(source)
    for name in spellings:
        found = scan(page, (name,))[name]
        if found.fault is not Fault.NO_SUCH_SERIES:
            return name, found
    return spellings[0], found


def _spellings(source: Source) -> tuple[bytes, ...]:
    if source.kind is Kind.HISTOGRAM:
        return tuple(name + b"_bucket" for name in source.names)
    return source.names


def _unfit(found: Scanned, source: Source, now_s: float) -> Fault | None:
    if len(found.samples) > MAX_SERIES:
        return Fault.TOO_MANY_SERIES
    if any(not abs(stamp / 1000 - now_s) <= STAMP_OFF_S for stamp in found.stamps_ms):
        return Fault.DATED_OTHERWISE  # a page that is shown again may look idle, and say nothing of now
    if len(dict(found.samples)) < len(found.samples):
        return Fault.PRINTED_TWICE
    most = most_of(source)
    return next((fault for _, value in found.samples if (fault := unfit(value, most)) is not None), None)


def most_of(source: Source) -> float:
    """The highest value that a measurement of one pod can have, as it is printed."""
    return MOST_VALUE if source.ranks is Ranks.SUM else MOST_SHARE / source.scale


def unfit(value: float, most: float) -> Fault | None:
    """Why this cannot be a measurement of a pod; None where it can. `most`: see `most_of`."""
    if math.isnan(value):
        return Fault.NOT_A_NUMBER
    if math.isinf(value):
        return Fault.INFINITE
    if value < 0:
        return Fault.NEGATIVE
    return Fault.ABSURD if value > most else None


def _store(values: PageValues, source: Source, page: bytes, name: bytes, found: Scanned) -> Fault | None:
    kind = source.kind
    if kind is Kind.DECLARED:
        counts = (type_of(page, name) or ("counter" if name.endswith(b"_total") else "")) == "counter"
        kind = Kind.COUNTER if counts else Kind.GAUGE
    samples = found.samples
    if source.copies:
        samples = _without_copies(samples, source)
    if kind is Kind.HISTOGRAM:
        buckets = _buckets(samples, source.scale)
        if isinstance(buckets, Fault):
            return buckets
        values.buckets[source.key] = buckets
    elif kind is Kind.COUNTER:
        values.counters[source.key] = dict(samples)
    else:
        numbers = [value for _, value in samples]
        whole = max(numbers) if source.ranks is Ranks.MAX else math.fsum(numbers)
        values.gauges[source.key] = whole * source.scale
    return None


def _without_copies(samples: tuple[tuple[bytes, float], ...], source: Source) -> tuple[tuple[bytes, float], ...]:
    """One sample for each number: copies differ in `source.copies` alone, and parts stand beside their total.

    Of copies that disagree, because one was written later, the largest counts. A kept sample's labels are what all
    its copies have in common, so that a counter stays itself when another rank is printed first.
    """
    kept: dict[bytes, float] = {}
    totals = any(_is_total(raw, source.parts) for raw, _ in samples)
    for raw, value in samples:
        if totals and not _is_total(raw, source.parts):
            continue
        common = _common_labels(raw, source.copies)
        kept[common] = max(value, kept.get(common, value))
    return tuple(kept.items())


def _is_total(raw: bytes, parts: str) -> bool:
    return any(name == parts and not value for name, value in labels_of(raw) or ())


def _common_labels(raw: bytes, copies: frozenset[str]) -> bytes:
    """The label set without the labels by which copies differ, in one order and as the format writes it."""
    if len(raw) > REMEMBERED_BYTES:
        return _written_without(raw, copies)
    return _remembered_common_labels(raw, copies)


@lru_cache(maxsize=16_384)
def _remembered_common_labels(raw: bytes, copies: frozenset[str]) -> bytes:
    return _written_without(raw, copies)


def _written_without(raw: bytes, copies: frozenset[str]) -> bytes:
    pairs = [(name, value) for name, value in labels_of(raw) or () if name not in copies]
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _buckets(samples: tuple[tuple[bytes, float], ...], scale: float) -> dict[float, float] | Fault:
    """Cumulative counts by upper bound, over all ranks of the page."""
    sums: dict[float, float] = {}
    for raw, count in samples:
        bound = _upper_bound(raw)
        if bound is None:
            return Fault.MALFORMED
        if scale != 1.0:
            bound *= scale
        sums[bound] = sums.get(bound, 0.0) + count
    if len(sums) > MAX_BUCKETS:
        return Fault.TOO_MANY_SERIES
    return sums if math.inf in sums else Fault.MALFORMED


def _upper_bound(raw: bytes) -> float | None:
    """None where it cannot be read. Remembered, so that all pages share one number for a bound as keys."""
    return _remembered_bound(raw) if len(raw) <= REMEMBERED_BYTES else _parsed_bound(raw)


@lru_cache(maxsize=16_384)
def _remembered_bound(raw: bytes) -> float | None:
    return _parsed_bound(raw)


def _parsed_bound(raw: bytes) -> float | None:
    text = dict(labels_of(raw) or ()).get("le")
    try:
        bound = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return None if math.isnan(bound) else bound
