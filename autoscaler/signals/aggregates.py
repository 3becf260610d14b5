"""One query per quantity for all pods of all workloads, and what its answer says of each pod. No input or output.

Ranks, models and reasons are added up by Prometheus; pods are not, because only pods can be fresh, late or missing. Nor
are engines: each of them has names of its own for a quantity, and they stand side by side in one answer.
With the values come the instants of their samples: what a query shows may be five minutes old.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from autoscaler.signals.engines import Kind, Ranks, Source
from autoscaler.signals.faults import Fault
from autoscaler.signals.pages import MAX_BUCKETS, most_of, unfit
from autoscaler.signals.prometheus import Answer, Series
from autoscaler.signals.promql import quoted

PodName = tuple[str, str]  # namespace, name
PART: Final = "tidegate_part"  # tells values and instants of one answer apart
VALUE: Final = "value"
INSTANT: Final = "instant"
_AGGREGATION: Final = {Ranks.SUM: "sum", Ranks.MAX: "max", Ranks.MEAN: "avg"}


@dataclass(frozen=True, slots=True)
class Labels:
    """How Prometheus names a pod, and which series are ours."""

    namespace: str = "namespace"
    pod: str = "pod"
    match: tuple[tuple[str, str], ...] = ()  # labels that every series must have, e.g. of this cluster


@dataclass(slots=True)
class Shown:
    """What Prometheus has of one quantity of one pod."""

    sampled_at_s: float | None = None  # Prometheus's clock; None: a value without its instant is not used
    value: float | None = None
    buckets: dict[float, float] = field(default_factory=dict)  # cumulative counts by upper bound
    fault: Fault | None = None


def kind_of(source: Source) -> Kind:
    """Prometheus keeps no TYPE line with a series, so the name must say which of the pods' own metrics count."""
    if source.kind is not Kind.DECLARED:
        return source.kind
    return Kind.COUNTER if source.names[0].endswith(b"_total") else Kind.GAUGE


def by_quantity(sources: Iterable[Source]) -> list[tuple[Source, ...]]:
    """The sources that share a query, in an order that does not change."""
    ordered = sorted(set(sources), key=lambda source: (source.key, source.names))
    return [tuple(group) for _, group in groupby(ordered, key=lambda source: source.key)]


def expression(sources: Sequence[Source], labels: Labels) -> str:
    """The query of one quantity, of which each engine has a source."""
    parts = []
    for number, source in enumerate(sources):
        parts.append(marked(_values(source, labels), f"{VALUE} {number}"))
        parts.append(marked(_instants(source, labels), f"{INSTANT} {number}"))
    return " or ".join(parts)


def marked(vector: str, part: str) -> str:
    """The vector, of which each series says which part of an answer it is."""
    return f'label_replace({vector}, "{PART}", "{part}", "", "")'


def _values(source: Source, labels: Labels) -> str:
    """Per pod, the newest of the names that it has is the one read; where totals stand beside parts, the totals."""
    pod = f"{labels.namespace}, {labels.pod}"
    by = f"{pod}, le" if kind_of(source) is Kind.HISTOGRAM else pod
    terms = []
    for name in _names(source):
        if source.parts:  # Prometheus drops a label that is empty
            terms.append(_over_ranks(source, by, name + matchers(labels, (source.parts, ""))))
        terms.append(_over_ranks(source, by, name + matchers(labels)))
    return f" or on ({pod}) ".join(terms)


def _over_ranks(source: Source, by: str, series: str) -> str:
    if source.copies:  # of copies that disagree, because one was written later, the largest counts
        series = f"max without ({', '.join(sorted(source.copies))}) ({series})"
    return f"{_AGGREGATION[source.ranks]} by ({by}) ({series})"


def _instants(source: Source, labels: Labels) -> str:
    """The oldest of a pod's samples: a rank that is late makes the pod late."""
    pod = f"{labels.namespace}, {labels.pod}"
    terms = [f"min by ({pod}) (timestamp({name}{matchers(labels)}))" for name in _names(source)]
    return f" or on ({pod}) ".join(terms)


def _names(source: Source) -> list[str]:
    suffix = "_bucket" if kind_of(source) is Kind.HISTOGRAM else ""
    return [name.decode() + suffix for name in source.names]


def matchers(labels: Labels, *more: tuple[str, str]) -> str:
    """`{a="b"}` of what every series must have; "" for nothing."""
    pairs = [f"{name}={quoted(value)}" for name, value in (*labels.match, *more)]
    return "{" + ", ".join(pairs) + "}" if pairs else ""


def shown_by_pod(sources: Sequence[Source], labels: Labels, answer: Answer) -> dict[Source, dict[PodName, Shown]]:
    """What the answer to `expression` says of each pod, by source; in seconds, shares and counts."""
    found: dict[Source, dict[PodName, Shown]] = {source: {} for source in sources}
    by_mark = {f"{part} {number}": (part, source) for number, source in enumerate(sources) for part in (VALUE, INSTANT)}
    for series in answer.series:
        namespace, pod = series.labels.get(labels.namespace), series.labels.get(labels.pod)
        part, source = by_mark.get(series.labels.get(PART, ""), ("", None))
        if not namespace or not pod or source is None:
            continue
        shown = found[source].setdefault((namespace, pod), Shown())
        if part == INSTANT:
            shown.sampled_at_s = series.value if math.isfinite(series.value) else None
        else:
            _enter(shown, source, series)
    for source, pods in found.items():
        if kind_of(source) is Kind.HISTOGRAM:
            _check(pods.values())
    return found


def _enter(shown: Shown, source: Source, series: Series) -> None:
    fault = unfit(series.value, most_of(source))
    if fault is not None:
        shown.fault = fault
    elif kind_of(source) is Kind.HISTOGRAM:
        bound = _bound(series.labels.get("le", "")) * source.scale
        shown.fault = shown.fault or (Fault.MALFORMED if math.isnan(bound) else None)
        shown.buckets[bound] = series.value
    else:
        scale = source.scale if kind_of(source) is Kind.GAUGE else 1.0
        shown.value = series.value * scale


def _check(histograms: Iterable[Shown]) -> None:
    for shown in histograms:
        if len(shown.buckets) > MAX_BUCKETS:
            shown.fault = Fault.TOO_MANY_SERIES
        elif math.inf not in shown.buckets:
            shown.fault = shown.fault or Fault.MALFORMED


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
