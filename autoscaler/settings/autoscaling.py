"""The block `autoscaling` of a workload: how many replicas, and on which signal. Also the configuration's defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from autoscaler.model.aliases import ALIASES, names_of
from autoscaler.model.quantity import parse_quantity
from autoscaler.model.signal import Direction, Signal
from autoscaler.settings.rules import Rule, Ruled
from autoscaler.settings.scalars import DNS_1123, Count, Positive, Seconds, Threshold

METRIC_NAME: Final = r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"
QUERY_NAME: Final = r"^[a-z]([-a-z0-9_]*[a-z0-9])?$"
METRIC: Final = r"^([a-zA-Z_:][a-zA-Z0-9_:]*|[a-z]([-a-z0-9_]*[a-z0-9])?)$"
METRIC_CHOICE: Final = (
    f"{', '.join(Signal)}, a query of the configuration, or the name of a metric that the pods expose"
)
MOST_FURTHER_SIGNALS: Final = 7
REQUEST_RATES: Final = names_of(Signal.CONCURRENCY, Signal.THROUGHPUT)  # take a percentage, go to zero by themselves

_LOW: Final = "(has(self.minReplicas) ? self.minReplicas : 1)"
_HIGH: Final = f"(has(self.maxReplicas) ? self.maxReplicas : ({_LOW} == 0 ? 1 : {_LOW}))"
LATENCIES: Final = tuple(  # take a percentile; a name that says one itself takes no other
    name
    for name in names_of(Signal.LATENCY, Signal.TTFT, Signal.ITL)
    if name not in ALIASES or ALIASES[name].percentile is None
)
SHARES: Final = (Signal.KV_CACHE, Signal.GPU_UTILIZATION)  # whose thresholds are at most 1
LABEL_NAME: Final = r"^[a-zA-Z_][a-zA-Z0-9_]*$"


def _in_cel(names: Iterable[str]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


_REQUEST_RATES: Final = _in_cel(REQUEST_RATES)
_LATENCIES: Final = _in_cel(LATENCIES)
_SHARES: Final = _in_cel(SHARES)


class Policy(StrEnum):
    KPA = "kpa"


def _threshold_above(value: int | str | None, low: int, high: int | None = None) -> bool:
    """Whether it is a quantity above `low` and at most `high`. None passes."""
    try:
        return value is None or (low < parse_quantity(value) and (high is None or parse_quantity(value) <= high))
    except ValueError:
        return False


def _quantity_is(comparison: str, bound: int, field: str = "metricThreshold") -> str:
    """A threshold compared with `bound` in CEL, whether it is stored as a number or as text."""
    text = f"string(self.{field})"
    return f"(isQuantity({text}) && quantity({text}).compareTo(quantity('{bound}')) {comparison})"


_POSITIVE: Final = _quantity_is("> 0", 0)
_AT_MOST_ONE: Final = _quantity_is("<= 0", 1)


class Activation(Ruled):
    """What says that requests wait for a workload at 0 replicas: a series of a page, or a query."""

    page: Annotated[str, Field(pattern=DNS_1123, max_length=63)] | None = None
    """Name of the page in the configuration (activationPages)."""
    metric: Annotated[str, Field(pattern=METRIC_NAME, max_length=128)] | None = None
    """Series on that page; above 0 wakes the workload."""
    labels: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=16)] | None = None
    """Only series with these labels."""
    query: Annotated[str, Field(pattern=QUERY_NAME, max_length=63)] | None = None
    """Name of a query of the configuration (queries), instead of a page; above 0 wakes the workload."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="query",
            says="query stands beside page, metric or labels; remove query, or all of them",
            cel="!has(self.query) || !(has(self.page) || has(self.metric) || has(self.labels))",
            holds=lambda it: it.query is None or (it.page, it.metric, it.labels) == (None, None, None),
        ),
        Rule(
            field="page",
            says="page or metric is missing; set both (a page of the configuration and a series on it), or query",
            cel="has(self.query) || (has(self.page) && has(self.metric))",
            holds=lambda it: it.query is not None or (it.page is not None and it.metric is not None),
        ),
        Rule(
            field="labels",
            says="labels has a key that is no label name; use letters, digits and _, not starting with a digit",
            cel=f"!has(self.labels) || self.labels.all(k, k.matches('{LABEL_NAME}'))",
            holds=lambda it: all(re.search(LABEL_NAME, key) for key in it.labels or ()),
        ),
    )


class FurtherSignal(Ruled):
    """One more signal. Each has windows of its own, and the highest replica count wins."""

    metric: Annotated[str, Field(pattern=METRIC, max_length=128)]
    """concurrency, queue, throughput, tokens, latency, ttft, itl, kv-cache, gpu-utilization, gpu-memory, a query of
    the configuration, or the name of a metric that the pods expose; each name once."""
    threshold: Threshold | None = None
    """What one replica should carry, as metricThreshold. Required but for kv-cache."""
    percentile: Annotated[float, Field(strict=True, ge=1, le=100)] | None = None
    """Which percentile of latency, ttft or itl (default 99)."""
    direction: Direction | None = None
    """both (default); up: may raise the count and keep it up, and lowering does not wait for its data; down: may hold
    or lower the count, and never raises it."""

    @property
    def is_latency(self) -> bool:
        return self.metric in LATENCIES

    cel_values: ClassVar[Mapping[str, str]] = {
        "metric": "self.metric",
        "threshold": "self.threshold",
        "percentile": "self.percentile",
    }
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="threshold",
            says="threshold is missing: say how much of {metric} one replica should carry; "
            "set a number or quantity above 0, e.g. 10 or 500m",
            cel="self.metric == 'kv-cache' || has(self.threshold)",
            holds=lambda it: it.metric == Signal.KV_CACHE or it.threshold is not None,
        ),
        Rule(
            field="threshold",
            says="threshold {threshold} is not above 0; set a number or quantity above 0, e.g. 10 or 500m",
            cel=f"!has(self.threshold) || {_quantity_is('> 0', 0, 'threshold')}",
            holds=lambda it: _threshold_above(it.threshold, 0),
        ),
        Rule(
            field="threshold",
            says="threshold {threshold} is no share of {metric}; set a quantity above 0 and at most 1, e.g. 800m",
            cel=f"!(self.metric in {_SHARES}) || !has(self.threshold) || " + _quantity_is("<= 0", 1, "threshold"),
            holds=lambda it: it.metric not in SHARES or _threshold_above(it.threshold, -(2**63), 1),
        ),
        Rule(
            field="percentile",
            says="percentile {percentile} applies to the metrics latency, ttft and itl only, and metric is {metric}; "
            "remove percentile",
            cel=f"!has(self.percentile) || self.metric in {_LATENCIES}",
            holds=lambda it: it.percentile is None or it.is_latency,
        ),
    )


class Autoscaling(Ruled):
    """How many replicas, and on which signal. Names and ranges as in the Run:ai inference API."""

    min_replicas: Count | None = None
    """Never fewer (default 1). 0 allows scale to zero."""
    max_replicas: Positive | None = None
    """Never more (default minReplicas, or 1 if that is 0)."""
    initial_replicas: Count | None = None
    """Replicas at the first start (default minReplicas, or 1 if that is 0)."""
    activation_replicas: Positive | None = None
    """Replicas when leaving 0 (default minReplicas, or 1 if that is 0)."""
    metric: Annotated[str, Field(pattern=METRIC, max_length=128)] | None = None
    """concurrency, queue, throughput, tokens, latency, ttft, itl, kv-cache, gpu-utilization, gpu-memory, a query of
    the configuration, or the name of a metric that the pods expose. Required where minReplicas is below maxReplicas,
    except 0 to 1."""
    metric_threshold: Threshold | None = None
    """What one replica should carry: a number or quantity above 0, e.g. 10 or 500m. For latency, ttft and itl a plain
    number is milliseconds and a suffixed one seconds; for kv-cache (default 800m) and gpu-utilization a share up to 1;
    for gpu-memory bytes. Required with metric."""
    metric_threshold_percentage: Annotated[float, Field(strict=True, ge=1, le=100)] | None = None
    """Act at this percentage of the threshold (default 70). concurrency and throughput only."""
    signals: Annotated[list[FurtherSignal], Field(max_length=MOST_FURTHER_SIGNALS)] | None = None
    """More signals beside metric, which is the first. Nothing is lowered while one that may lower has no fresh data."""
    scale_to_zero_retention_seconds: Seconds | None = None
    """Idle this long before the last replica goes (default 0). Only with minReplicas 0."""
    scale_down_delay_seconds: Seconds | None = None
    """A lower count must be wanted this long before it is applied (default 0)."""
    concurrency_hard_limit: Count | None = None
    """0, for no limit: nothing enforces another one."""
    policy: Policy | None = None
    """The algorithm (default kpa)."""
    activation: Activation | None = None
    """What wakes a workload at 0 replicas."""

    @property
    def low(self) -> int:
        return 1 if self.min_replicas is None else self.min_replicas

    @property
    def high(self) -> int:
        return self.max_replicas if self.max_replicas is not None else max(1, self.low)

    @property
    def metric_or_unset(self) -> str:
        return self.metric or "unset"

    @property
    def metrics(self) -> list[str]:
        """Of all signals, the first one first."""
        return ([self.metric] if self.metric else []) + [each.metric for each in self.signals or ()]

    cel_values: ClassVar[Mapping[str, str]] = {
        "low": _LOW,
        "high": _HIGH,
        "metric_or_unset": "(has(self.metric) ? self.metric : 'unset')",
        "metric_threshold": "self.metricThreshold",
        "metric_threshold_percentage": "self.metricThresholdPercentage",
        "scale_to_zero_retention_seconds": "self.scaleToZeroRetentionSeconds",
        "initial_replicas": "self.initialReplicas",
        "activation_replicas": "self.activationReplicas",
        "concurrency_hard_limit": "self.concurrencyHardLimit",
    }
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            field="maxReplicas",
            says="maxReplicas {high} is below minReplicas {low}; set maxReplicas to {low} or more",
            cel=f"{_LOW} <= {_HIGH}",
            holds=lambda it: it.low <= it.high,
        ),
        Rule(
            field="metric",
            says="metric is missing: something must decide between {low} and {high} replicas; "
            f"set metric to {METRIC_CHOICE}",
            cel=f"has(self.metric) || {_LOW} >= {_HIGH} || ({_LOW} == 0 && {_HIGH} == 1)",
            holds=lambda it: it.metric is not None or it.low >= it.high or (it.low, it.high) == (0, 1),
        ),
        Rule(
            field="metricThreshold",
            says="metricThreshold is missing: say how much of {metric_or_unset} one replica should carry; "
            "set a number or quantity above 0, e.g. 10 or 500m",
            cel="!has(self.metric) || self.metric == 'kv-cache' || has(self.metricThreshold)",
            holds=lambda it: it.metric in (None, Signal.KV_CACHE) or it.metric_threshold is not None,
        ),
        Rule(
            field="metricThreshold",
            says="metricThreshold {metric_threshold} belongs to no metric; "
            f"set metric to {METRIC_CHOICE}, or remove metricThreshold",
            cel="has(self.metric) || !has(self.metricThreshold)",
            holds=lambda it: it.metric is not None or it.metric_threshold is None,
        ),
        Rule(
            field="metricThreshold",
            says="metricThreshold {metric_threshold} is not above 0; set a number or quantity above 0, e.g. 10 or 500m",
            cel=f"!has(self.metricThreshold) || {_POSITIVE}",
            holds=lambda it: _threshold_above(it.metric_threshold, 0),
        ),
        Rule(
            field="metricThreshold",
            says="metricThreshold {metric_threshold} is no share of {metric_or_unset}; "
            "set a quantity above 0 and at most 1, e.g. 800m",
            cel=f"!has(self.metric) || !(self.metric in {_SHARES}) || !has(self.metricThreshold) || {_AT_MOST_ONE}",
            holds=lambda it: it.metric not in SHARES or _threshold_above(it.metric_threshold, -(2**63), 1),
        ),
        Rule(
            field="metricThresholdPercentage",
            says="metricThresholdPercentage {metric_threshold_percentage} applies to the metrics concurrency and "
            "throughput only, and metric is {metric_or_unset}; remove metricThresholdPercentage",
            cel=f"!has(self.metricThresholdPercentage) || (has(self.metric) && self.metric in {_REQUEST_RATES}) || "
            f"(has(self.signals) && self.signals.exists(s, s.metric in {_REQUEST_RATES}))",
            holds=lambda it: (
                it.metric_threshold_percentage is None or any(metric in REQUEST_RATES for metric in it.metrics)
            ),
        ),
        Rule(
            field="signals",
            says="signals stands beside metric, which is the first signal, and metric is unset; "
            "set metric and metricThreshold to one of them",
            cel="!has(self.signals) || size(self.signals) == 0 || has(self.metric)",
            holds=lambda it: not it.signals or it.metric is not None,
        ),
        Rule(
            field="signals",
            says="signals has a metric twice, or the one that metric has; name each metric once",
            cel="!has(self.signals) || self.signals.all(s, (!has(self.metric) || s.metric != self.metric) && "
            "self.signals.exists_one(t, t.metric == s.metric))",
            holds=lambda it: len(set(it.metrics)) == len(it.metrics),
        ),
        Rule(
            field="scaleToZeroRetentionSeconds",
            says="scaleToZeroRetentionSeconds {scale_to_zero_retention_seconds} needs minReplicas 0, and minReplicas "
            "is {low}; set minReplicas to 0 or remove scaleToZeroRetentionSeconds",
            cel=f"!has(self.scaleToZeroRetentionSeconds) || self.scaleToZeroRetentionSeconds == 0 || {_LOW} == 0",
            holds=lambda it: not it.scale_to_zero_retention_seconds or it.low == 0,
        ),
        Rule(
            field="activation",
            says="activation is missing: metric {metric_or_unset} shows nothing at 0 replicas; set activation, "
            "or minReplicas to 1 or more, or metric to concurrency or throughput",
            cel=f"{_LOW} > 0 || !has(self.metric) || self.metric in {_REQUEST_RATES} || has(self.activation)",
            holds=lambda it: it.low > 0 or it.metric in (None, *REQUEST_RATES) or it.activation is not None,
        ),
        Rule(
            field="initialReplicas",
            says="initialReplicas {initial_replicas} is outside minReplicas {low} to maxReplicas {high}; "
            "set a number from {low} to {high}",
            cel=f"!has(self.initialReplicas) || {_LOW} > {_HIGH} || "
            f"(self.initialReplicas >= {_LOW} && self.initialReplicas <= {_HIGH})",
            holds=lambda it: (
                it.initial_replicas is None or it.low > it.high or it.low <= it.initial_replicas <= it.high
            ),
        ),
        Rule(
            field="activationReplicas",
            says="activationReplicas {activation_replicas} is above maxReplicas {high}; set a number from 1 to {high}",
            cel=f"!has(self.activationReplicas) || self.activationReplicas <= {_HIGH}",
            holds=lambda it: it.activation_replicas is None or it.activation_replicas <= it.high,
        ),
        Rule(
            field="concurrencyHardLimit",
            says="concurrencyHardLimit {concurrency_hard_limit} is refused: nothing enforces it; remove it or set 0",
            cel="!has(self.concurrencyHardLimit) || self.concurrencyHardLimit == 0",
            holds=lambda it: not it.concurrency_hard_limit,
        ),
    )
