"""What a workload's signals mean: which quantity, in base units, from which value on we act, and what wakes it at zero.

What cannot be resolved is a ValueError with a sentence that names the field, its value, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from autoscaler.cluster.inferenceworkload import Activation, Autoscaling, FurtherSignal
from autoscaler.model.aliases import ALIASES, Unit, alias_of
from autoscaler.model.quantity import parse_quantity
from autoscaler.model.signal import Direction, Signal, SignalSpec
from autoscaler.model.workload import ActivationQuery, ActivationSpec, Engine, WorkloadKey
from autoscaler.signals.queries import AT_ZERO, NamedQuery

UTILIZATION_PERCENT: Final = 70.0  # Run:ai's and Knative's default, of throughput and concurrency
LATENCY_ACTS_AT: Final = 0.5  # of the threshold: latency is a cliff (llm-d's one-replica knee)
KV_CACHE_ACTS_AT: Final = 0.9
KV_CACHE_THRESHOLD: Final = 0.8
PERCENTILE: Final = 99.0
LEAST_THRESHOLD: Final = 1e-6
MOST_THRESHOLD: Final = 1e12
MOST_MEMORY: Final = 1e15  # bytes on a replica's GPUs
LATENCIES: Final = frozenset({Signal.LATENCY, Signal.TTFT, Signal.ITL})
SHARES: Final = frozenset({Signal.KV_CACHE, Signal.GPU_UTILIZATION})
UTILIZED: Final = frozenset({Signal.CONCURRENCY, Signal.THROUGHPUT})


def activation_of(
    asked: Activation | None, pages: Set[str], queries: Mapping[str, NamedQuery], key: WorkloadKey
) -> ActivationSpec | ActivationQuery | None:
    """What wakes the workload at zero; `pages` and `queries` are those of the configuration."""
    if asked is None:
        return None
    page, metric = asked.page, asked.metric
    if asked.query is not None:
        return _activation_query(asked.query, queries, key)
    if page is None or metric is None:
        raise ValueError("autoscaling.activation needs query, or page and metric")
    if page not in pages:
        known = ", ".join(sorted(pages)) or "none"
        raise ValueError(f"autoscaling.activation.page is {page!r}; the configuration's activationPages are: {known}")
    return ActivationSpec(page, metric, tuple(sorted((asked.labels or {}).items())))


def _activation_query(name: str, queries: Mapping[str, NamedQuery], key: WorkloadKey) -> ActivationQuery:
    query = queries.get(name)
    if query is None:
        raise ValueError(f"autoscaling.activation.query is {name!r}; {_known(queries)}")
    unknown = sorted(query.query.placeholders - AT_ZERO)
    if unknown:
        raise ValueError(
            f"autoscaling.activation.query is {name!r}, which asks for {{{unknown[0]}}}, and a workload at 0 replicas "
            "has none; name a query with {namespace} and {workload} only"
        )
    return ActivationQuery(name, key)


def _known(queries: Mapping[str, NamedQuery]) -> str:
    return f"the configuration's queries are: {', '.join(sorted(queries)) or 'none'}"


@dataclass(frozen=True, slots=True)
class Names:
    """What a metric's name means to one workload: a signal, a foreign name of one, a query, a metric of the pods."""

    engine: Engine
    queries: Mapping[str, NamedQuery]

    def spec(
        self,
        name: str,
        given: int | str | None,
        percentage: float | None,
        percentile: float | None,
        direction: str | None,
        at: tuple[str, str],
    ) -> SignalSpec:
        """ValueError where it is none of these, or the threshold is none of it. `at`: fields of name and threshold."""
        alias = alias_of(name, self.engine is Engine.CUSTOM)
        query = self.queries.get(name) if alias is None and name not in list(Signal) else None
        if "-" in name and query is None and name not in list(Signal):
            raise ValueError(
                f"autoscaling.{at[0]} is {name!r}, which pods cannot expose; allowed: {', '.join(Signal)}, "
                f"{', '.join(ALIASES)}, a query, or a metric of the pods; {_known(self.queries)}"
            )
        signal = alias.signal if alias else name
        threshold = _threshold(name, signal if query is None else "", given, alias.unit if alias else None, at[1])
        asked = PERCENTILE / 100 if percentile is None else percentile / 100
        return SignalSpec(
            name=name,
            threshold=threshold,
            target=threshold * (_acts_at(signal, percentage) if query is None else 1.0),
            percentile=alias.percentile if alias and alias.percentile is not None else asked,
            direction=Direction(direction or Direction.BOTH),
            stands_for=alias.signal if alias else "",
            query=query.shape if query else None,
        )


def signals_of(asked: Autoscaling, least: int, most: int, names: Names) -> tuple[SignalSpec, ...]:
    """The first one, and those beside it, which a percentage concerns as well."""
    if asked.metric is None:
        if asked.signals:
            raise ValueError("autoscaling.metric is required with autoscaling.signals: it is the first of them")
        if least == most:
            return ()
        if (least, most) == (0, 1):
            return (SignalSpec(Signal.CONCURRENCY, 1.0, 1.0),)  # any request at all
        raise ValueError(f"autoscaling.metric is required where minReplicas ({least}) < maxReplicas ({most})")
    percentage = asked.metric_threshold_percentage
    first = names.spec(asked.metric, asked.metric_threshold, percentage, None, None, ("metric", "metricThreshold"))
    found = (first, *(_further(each, percentage, names) for each in asked.signals or ()))
    measured = [each.signal for each in found]
    if len(set(measured)) < len(measured):
        written = ", ".join(_written(each) for each in found)
        raise ValueError(f"autoscaling.signals must name each metric once, not {written}")
    return found


def _written(spec: SignalSpec) -> str:
    return f"{spec.name} (which is {spec.stands_for})" if spec.stands_for else spec.name


def _further(asked: FurtherSignal, percentage: float | None, names: Names) -> SignalSpec:
    if asked.metric is None:
        raise ValueError("autoscaling.signals needs a metric in each entry")
    at = ("signals.metric", "signals.threshold")
    return names.spec(asked.metric, asked.threshold, percentage, asked.percentile, asked.direction, at)


def _threshold(name: str, signal: str, given: int | str | None, unit: Unit | None, field: str) -> float:
    """In base units. Plain whole numbers are milliseconds of latencies (Run:ai) and percent of foreign names of shares;
    quantities are seconds (`500m`) and shares."""
    if given is None:
        if signal == Signal.KV_CACHE:
            return KV_CACHE_THRESHOLD
        raise ValueError(f"autoscaling.{field} is required with metric {name}")
    value = float(min(max(parse_quantity(given), Fraction(-1)), Fraction(10**30)))  # before it could overflow
    plain = isinstance(given, int) or given.isdigit()
    if plain and unit is Unit.PERCENT:
        value /= 100
    if signal in SHARES and not 0 < value <= 1:
        allowed = "a whole number of percent up to 100, or " if unit is Unit.PERCENT else ""
        raise ValueError(f"autoscaling.{field} is {given}, no share; allowed: {allowed}a quantity up to 1, e.g. 800m")
    most = MOST_MEMORY if signal == Signal.GPU_MEMORY else MOST_THRESHOLD
    if not LEAST_THRESHOLD <= value <= most:
        raise ValueError(f"autoscaling.{field} is {given}, must be from {LEAST_THRESHOLD:g} to {most:g}")
    return value / 1000 if signal in LATENCIES and plain else value


def _acts_at(signal: str, percentage: float | None) -> float:
    """The share of the threshold at which we act."""
    if signal in UTILIZED:
        return (UTILIZATION_PERCENT if percentage is None else percentage) / 100
    if signal in LATENCIES:
        return LATENCY_ACTS_AT
    return KV_CACHE_ACTS_AT if signal == Signal.KV_CACHE else 1.0
