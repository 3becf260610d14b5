"""The autoscaling annotations of a Knative revision: reading, refusing, resolving.

Resolves what a revision asks for against the cluster's settings (knative_config). An annotation that
cannot be read counts as not set here; `problems_of` is what refuses it at the door.

Source: Knative KPA, knative/serving @ 98e5ef9 (tests/data/kpa/README.md, "Targets and annotations").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from autoscaler.scaling.knative_config import (
    HPA_CLASS,
    KPA_CLASS,
    PANIC_WINDOW_PERCENT,
    TARGET_FLOOR,
    WINDOW_MAX_NS,
    WINDOW_MIN_NS,
    KnativeConfig,
    whole_seconds,
)
from autoscaler.scaling.knative_values import NANOSECONDS, parse_duration_ns, parse_float, parse_int

Annotations = Mapping[str, str]
Spellings = tuple[str, ...]  # of one key, the preferred one first

_DOMAIN: Final = "autoscaling.knative.dev/"
_RESERVED_CLASS_SUFFIX: Final = ".knative.dev"
_MAX_INT32: Final = 2**31 - 1
_DURATION_LIMIT_NS: Final = 2.0**63


def _spellings(*names: str) -> Spellings:
    return tuple(_DOMAIN + name for name in names)


CLASS: Final = _spellings("class")
METRIC: Final = _spellings("metric")
TARGET: Final = _spellings("target")
TARGET_UTILIZATION: Final = _spellings("target-utilization-percentage", "targetUtilizationPercentage")
TARGET_BURST_CAPACITY: Final = _spellings("target-burst-capacity", "targetBurstCapacity")
WINDOW: Final = _spellings("window")
PANIC_WINDOW: Final = _spellings("panic-window-percentage", "panicWindowPercentage")
PANIC_THRESHOLD: Final = _spellings("panic-threshold-percentage", "panicThresholdPercentage")
AGGREGATION: Final = _spellings("metric-aggregation-algorithm", "metricAggregationAlgorithm")
INITIAL_SCALE: Final = _spellings("initial-scale", "initialScale")
ACTIVATION_SCALE: Final = _spellings("activation-scale")
MIN_SCALE: Final = _spellings("min-scale", "minScale")
MAX_SCALE: Final = _spellings("max-scale", "maxScale")
SCALE_DOWN_DELAY: Final = _spellings("scale-down-delay", "scaleDownDelay")
POD_RETENTION: Final = _spellings("scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod")
PROGRESS_DEADLINE: Final[Spellings] = ("serving.knative.dev/progress-deadline",)

_AGGREGATIONS: Final = frozenset({"linear", "weighted-exponential", "weightedExponential"})


class Reachability(StrEnum):
    """Whether a route refers to the revision. Not known counts as reachable."""

    NOT_KNOWN = ""
    REACHABLE = "Reachable"
    UNREACHABLE = "Unreachable"


def find(annotations: Annotations, key: Spellings) -> tuple[str, str] | None:
    """(spelling, text) of the first spelling that is there, whether or not its text makes sense."""
    for spelling in key:
        if spelling in annotations:
            return spelling, annotations[spelling]
    return None


def read_float(annotations: Annotations, key: Spellings) -> float | None:
    """The number, or None if it is not there or cannot be read."""
    found = find(annotations, key)
    return None if found is None else parse_float(found[1])


def read_int(annotations: Annotations, key: Spellings) -> int | None:
    """The whole number of 32 bits, or None if it is not there or cannot be read."""
    found = find(annotations, key)
    return None if found is None else parse_int(found[1])


def read_duration_ns(annotations: Annotations, key: Spellings) -> int | None:
    """The duration, or None if it is not there or cannot be read."""
    found = find(annotations, key)
    return None if found is None else parse_duration_ns(found[1])


def class_of(annotations: Annotations) -> str:
    """The autoscaler class; without an annotation KPA, whatever the cluster's default says."""
    return annotations.get(CLASS[0], KPA_CLASS)


def metric_of(annotations: Annotations) -> str:
    """The metric; without an annotation the class's own: concurrency, cpu, or nothing for a foreign class."""
    default = {KPA_CLASS: "concurrency", HPA_CLASS: "cpu"}.get(class_of(annotations), "")
    return annotations.get(METRIC[0], default)


def target_utilization_ratio(annotations: Annotations) -> float | None:
    """The utilisation annotation as a ratio: 80 -> 0.8."""
    percent = read_float(annotations, TARGET_UTILIZATION)
    return None if percent is None else percent / 100.0


def stable_window_ns(annotations: Annotations, config: KnativeConfig) -> int:
    window = read_duration_ns(annotations, WINDOW)
    return config.stable_window_ns if window is None else window


def panic_window_ns(annotations: Annotations, config: KnativeConfig) -> int:
    """The share of the stable window in whole seconds, halves up, at least 1 s: 75 s × 10 % -> 8 s."""
    percent = read_float(annotations, PANIC_WINDOW)
    share = stable_window_ns(annotations, config) * (config.panic_window_percent if percent is None else percent)
    if not 0 <= share / 100.0 < _DURATION_LIMIT_NS:  # also for "inf" and "nan", which are numbers to Knative
        return NANOSECONDS
    seconds = (int(share / 100.0) + NANOSECONDS // 2) // NANOSECONDS
    return max(1, seconds) * NANOSECONDS


def target_burst_capacity(annotations: Annotations, config: KnativeConfig) -> float:
    capacity = read_float(annotations, TARGET_BURST_CAPACITY)
    return config.target_burst_capacity if capacity is None else capacity


def initial_scale(annotations: Annotations, config: KnativeConfig) -> int:
    """0 only where the cluster allows it; else the cluster's number stands in for a 0."""
    scale = read_int(annotations, INITIAL_SCALE)
    if scale is None or (scale == 0 and not config.allow_zero_initial_scale):
        return config.initial_scale
    return scale


def scale_bounds(annotations: Annotations, reachability: Reachability, config: KnativeConfig) -> tuple[int, int]:
    """(minimum, maximum), 0 meaning none; an unreachable revision has no minimum."""
    minimum = 0
    if reachability is not Reachability.UNREACHABLE:
        annotated = read_int(annotations, MIN_SCALE)
        minimum = config.min_scale if annotated is None else annotated
    maximum = read_int(annotations, MAX_SCALE)
    return minimum, config.max_scale if maximum is None else maximum


def target_and_total(
    annotations: Annotations, container_concurrency: float, config: KnativeConfig
) -> tuple[float, float]:
    """(target, total): what one pod should carry, and what it can carry at most.

    Container concurrency 20 with 70 % gives (14, 20); a target annotation of 50 is capped by it,
    but only for the metric concurrency.
    """
    metric = metric_of(annotations)
    if metric == "rps":
        total, ratio = config.rps_target_default, config.rps_target_ratio
    else:
        total = container_concurrency or config.container_concurrency_target_default
        ratio = config.container_concurrency_target_ratio
    annotated = read_float(annotations, TARGET)
    if annotated is not None:
        total = annotated
        if metric == "concurrency" and container_concurrency:
            total = min(annotated, container_concurrency)
    annotated_ratio = target_utilization_ratio(annotations)
    target = total * (ratio if annotated_ratio is None else annotated_ratio)
    return max(TARGET_FLOOR, target), total


def aggregation_of(annotations: Annotations) -> str:
    """How windows average, one spelling for the weighted one; "" is Knative's default (linear)."""
    found = find(annotations, AGGREGATION)
    if found is None:
        return ""
    return "weighted-exponential" if found[1] == "weightedExponential" else found[1]


@dataclass(frozen=True, slots=True)
class KnativeDecider:
    """Everything about one revision that the KPA decides with, resolved. None: not set anywhere."""

    class_name: str
    metric: str
    aggregation: str
    target_value: float
    total_value: float
    target_burst_capacity: float
    activator_capacity: float
    panic_threshold_ratio: float
    max_scale_up_rate: float
    max_scale_down_rate: float
    stable_window_ns: int
    panic_window_ns: int
    scale_down_delay_ns: int
    initial_scale: int
    activation_scale: int
    min_scale: int
    max_scale: int
    pod_retention_ns: int | None
    progress_deadline_ns: int | None
    reachable: bool


def resolve(
    annotations: Annotations, container_concurrency: float, reachability: Reachability, config: KnativeConfig
) -> KnativeDecider:
    """What a revision's annotations mean in a cluster with these settings."""
    target, total = target_and_total(annotations, container_concurrency, config)
    minimum, maximum = scale_bounds(annotations, reachability, config)
    threshold = read_float(annotations, PANIC_THRESHOLD)
    delay_ns = read_duration_ns(annotations, SCALE_DOWN_DELAY)
    return KnativeDecider(
        class_name=class_of(annotations),
        metric=metric_of(annotations),
        aggregation=aggregation_of(annotations),
        target_value=target,
        total_value=total,
        target_burst_capacity=target_burst_capacity(annotations, config),
        activator_capacity=config.activator_capacity,
        panic_threshold_ratio=(config.panic_threshold_percent if threshold is None else threshold) / 100.0,
        max_scale_up_rate=config.max_scale_up_rate,
        max_scale_down_rate=config.max_scale_down_rate,
        stable_window_ns=stable_window_ns(annotations, config),
        panic_window_ns=panic_window_ns(annotations, config),
        scale_down_delay_ns=config.scale_down_delay_ns if delay_ns is None else delay_ns,
        initial_scale=initial_scale(annotations, config),
        activation_scale=read_int(annotations, ACTIVATION_SCALE) or 0,
        min_scale=minimum,
        max_scale=maximum,
        pod_retention_ns=read_duration_ns(annotations, POD_RETENTION),
        progress_deadline_ns=read_duration_ns(annotations, PROGRESS_DEADLINE),
        reachable=reachability is not Reachability.UNREACHABLE,
    )


def problems_of(annotations: Annotations, config: KnativeConfig) -> tuple[str, ...]:
    """Why Knative's admission would refuse these annotations; () if it would not.

    Each problem names the key as it was written, its text and what is allowed.
    """
    return (
        *_class_problems(annotations, config),
        *_scale_problems(annotations, config),
        *_number_problems(annotations),
        *_duration_problems(annotations),
    )


def _class_problems(annotations: Annotations, config: KnativeConfig) -> list[str]:
    """A foreign class may give any metric and aggregation a meaning of its own."""
    problems: list[str] = []
    stated = annotations.get(CLASS[0])
    if stated is not None and stated.endswith(_RESERVED_CLASS_SUFFIX) and stated not in (KPA_CLASS, HPA_CLASS):
        problems.append(
            f"{CLASS[0]} is {stated!r}, under {_RESERVED_CLASS_SUFFIX} only {KPA_CLASS} and {HPA_CLASS} exist"
        )
    metric = annotations.get(METRIC[0])
    effective = config.pod_autoscaler_class if stated is None else stated
    if metric is not None and effective == KPA_CLASS and metric not in ("concurrency", "rps"):
        problems.append(f"{METRIC[0]} is {metric!r}, must be concurrency or rps")
    if metric == "" and effective == HPA_CLASS:
        problems.append(f"{METRIC[0]} is empty")
    aggregation = find(annotations, AGGREGATION)
    if stated == KPA_CLASS and aggregation is not None and aggregation[1] and aggregation[1] not in _AGGREGATIONS:
        problems.append(f"{aggregation[0]} is {aggregation[1]!r}, must be linear or weighted-exponential")
    return problems


def _scale_problems(annotations: Annotations, config: KnativeConfig) -> list[str]:
    minimum, problems = _bound(annotations, MIN_SCALE)
    maximum, more = _bound(annotations, MAX_SCALE)
    problems += more
    if 0 < maximum < minimum:
        problems.append(f"{MAX_SCALE[0]} is {maximum}, must be at least {MIN_SCALE[0]}, which is {minimum}")
    limit = config.max_scale_limit
    if find(annotations, MAX_SCALE) is not None and limit != 0 and (maximum > limit or maximum == 0):
        problems.append(f"{MAX_SCALE[0]} is {maximum}, must be in [1, {limit}] (max-scale-limit)")
    activation = find(annotations, ACTIVATION_SCALE)
    if activation is not None:
        count = parse_int(activation[1])
        if count is None or count < max(2, minimum) or 0 < maximum < count:
            problems.append(
                f"{activation[0]} is {activation[1]!r}, must be at least 2 and between the bounds"
                f" {minimum} and {maximum or 'none'}"
            )
    initial = find(annotations, INITIAL_SCALE)
    if initial is not None:
        count = parse_int(initial[1], bits=64)  # the door is wider than the reader, which takes 32
        least = 0 if config.allow_zero_initial_scale else 1
        if count is None or count < least:
            problems.append(f"{initial[0]} is {initial[1]!r}, must be a whole number of at least {least}")
    return problems


def _bound(annotations: Annotations, key: Spellings) -> tuple[int, list[str]]:
    """The bound (0 if there is none or it is wrong) and what is wrong with it."""
    found = find(annotations, key)
    if found is None:
        return 0, []
    count = parse_int(found[1])
    if count is None or count < 0:
        return 0, [f"{found[0]} is {found[1]!r}, must be a whole number in [0, {_MAX_INT32}]"]
    return count, []


def _number_problems(annotations: Annotations) -> list[str]:
    """Comparisons say what is outside, so that a NaN passes where it passes in Knative."""
    problems: list[str] = []
    for key, low, high in (
        (PANIC_WINDOW, *PANIC_WINDOW_PERCENT),
        (PANIC_THRESHOLD, 110.0, 1000.0),
        (TARGET, TARGET_FLOOR, float("inf")),
        (TARGET_UTILIZATION, 1.0, 100.0),
    ):
        found = find(annotations, key)
        value = None if found is None else parse_float(found[1])
        if found is not None and (value is None or value < low or value > high):
            problems.append(f"{found[0]} is {found[1]!r}, must be a number in [{low:g}, {high:g}]")
    burst = find(annotations, TARGET_BURST_CAPACITY)
    value = None if burst is None else parse_float(burst[1])
    if burst is not None and (value is None or (value < 0 and value != -1)):
        problems.append(f"{burst[0]} is {burst[1]!r}, must be -1 or at least 0")
    return problems


def _duration_problems(annotations: Annotations) -> list[str]:
    problems: list[str] = []
    for key, low_ns, must_be_whole in (
        (WINDOW, WINDOW_MIN_NS, True),
        (SCALE_DOWN_DELAY, 0, True),
        (POD_RETENTION, 0, False),
    ):
        found = find(annotations, key)
        if found is None:
            continue
        value = parse_duration_ns(found[1])
        if value is None or value < low_ns or value > WINDOW_MAX_NS or (must_be_whole and not whole_seconds(value)):
            kind = "whole seconds" if must_be_whole else "a duration"
            problems.append(f"{found[0]} is {found[1]!r}, must be {kind} in [{low_ns // NANOSECONDS}s, 1h]")
    return problems
