"""One query per quantity for all pods of all workloads, and what its answer says of each pod. No input or output.

Ranks, models and reasons are added up by Prometheus; pods are not, because only pods can be fresh, late or missing.
With the values come the instants of their samples: what a query shows may be five minutes old.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from autoscaler.signals.engines import Kind, Ranks, Source
from autoscaler.signals.faults import Fault
from autoscaler.signals.pages import MAX_BUCKETS, unfit
from autoscaler.signals.prometheus import Answer
from autoscaler.signals.promql import quoted

PodName = tuple[str, str]  # namespace, name
PART: Final = "tidegate_part"  # tells values and instants of one answer apart
VALUE: Final = "value"
INSTANT: Final = "instant"
_AGGREGATION: Final = {Ranks.SUM: "sum", Ranks.MAX: "max"}


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


def expression(source: Source, labels: Labels) -> str:
    """The query of one quantity. Per pod, the newest of the names that it has is the one read."""
    pod = f"{labels.namespace}, {labels.pod}"
    matchers = "{" + ", ".join(f"{name}={quoted(value)}" for name, value in labels.match) + "}" if labels.match else ""
    bucket = kind_of(source) is Kind.HISTOGRAM
    names = [name.decode() + ("_bucket" if bucket else "") for name in source.names]
    by = f"{pod}, le" if bucket else pod
    first = f" or on ({pod}) "
    values = first.join(f"{_AGGREGATION[source.ranks]} by ({by}) ({name}{matchers})" for name in names)
    # The oldest of a pod's samples: a rank that is late makes the pod late.
    instants = first.join(f"min by ({pod}) (timestamp({name}{matchers}))" for name in names)
    return f"{_marked(values, VALUE)} or {_marked(instants, INSTANT)}"


def _marked(vector: str, part: str) -> str:
    return f'label_replace({vector}, "{PART}", "{part}", "", "")'


def shown_by_pod(source: Source, labels: Labels, answer: Answer) -> dict[PodName, Shown]:
    """What the answer to `expression` says of each pod."""
    found: dict[PodName, Shown] = {}
    histogram = kind_of(source) is Kind.HISTOGRAM
    for series in answer.series:
        namespace, pod = series.labels.get(labels.namespace), series.labels.get(labels.pod)
        if not namespace or not pod:
            continue
        shown = found.setdefault((namespace, pod), Shown())
        if series.labels.get(PART) == INSTANT:
            shown.sampled_at_s = series.value if math.isfinite(series.value) else None
        elif (fault := unfit(series.value)) is not None:
            shown.fault = fault
        elif histogram:
            bound = _bound(series.labels.get("le", ""))
            shown.fault = shown.fault or (Fault.MALFORMED if math.isnan(bound) else None)
            shown.buckets[bound] = series.value
        else:
            shown.value = series.value
    if histogram:
        _check(found.values())
    return found


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
