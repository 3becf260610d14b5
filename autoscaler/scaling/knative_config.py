"""The cluster-wide settings of Knative's autoscaler: ConfigMap `config-autoscaler`.

Reads the ConfigMap's texts into numbers and refuses what Knative refuses. Never merges them with a
workload's annotations (knative_annotations does).

Source: Knative KPA, knative/serving @ 98e5ef9; defaults as in tests/data/kpa/README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from autoscaler.scaling.knative_values import (
    NANOSECONDS,
    parse_bool,
    parse_duration_ns,
    parse_float,
    parse_int,
)

KPA_CLASS: Final = "kpa.autoscaling.knative.dev"
HPA_CLASS: Final = "hpa.autoscaling.knative.dev"
TARGET_FLOOR: Final = 0.01  # no target per replica below this
WINDOW_MIN_NS: Final = 6 * NANOSECONDS
WINDOW_MAX_NS: Final = 3600 * NANOSECONDS
PANIC_WINDOW_PERCENT: Final = (1.0, 100.0)


@dataclass(frozen=True, slots=True)
class KnativeConfig:
    """The ConfigMap with Knative's defaults. Durations in nanoseconds, 0 for a maximum means none."""

    pod_autoscaler_class: str = KPA_CLASS
    enable_scale_to_zero: bool = True
    allow_zero_initial_scale: bool = False
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    container_concurrency_target_ratio: float = 0.7
    container_concurrency_target_default: float = 100.0
    rps_target_default: float = 200.0
    rps_target_ratio: float = 0.7  # no key of its own in the ConfigMap
    target_burst_capacity: float = 211.0  # -1: unlimited
    panic_window_percent: float = 10.0
    panic_threshold_percent: float = 200.0
    activator_capacity: float = 100.0
    initial_scale: int = 1
    min_scale: int = 0
    max_scale: int = 0
    max_scale_limit: int = 0
    stable_window_ns: int = 60 * NANOSECONDS
    scale_down_delay_ns: int = 0
    scale_to_zero_grace_period_ns: int = 30 * NANOSECONDS
    scale_to_zero_pod_retention_ns: int = 0


class InvalidKnativeConfig(ValueError):
    """A ConfigMap that Knative would not take over. The message has one line per problem."""


_Parser = Callable[[str], object | None]

_KEYS: Final[dict[str, tuple[str, _Parser]]] = {
    "pod-autoscaler-class": ("pod_autoscaler_class", str.strip),
    "enable-scale-to-zero": ("enable_scale_to_zero", parse_bool),
    "allow-zero-initial-scale": ("allow_zero_initial_scale", parse_bool),
    "max-scale-up-rate": ("max_scale_up_rate", parse_float),
    "max-scale-down-rate": ("max_scale_down_rate", parse_float),
    "container-concurrency-target-percentage": ("container_concurrency_target_ratio", parse_float),
    "container-concurrency-target-default": ("container_concurrency_target_default", parse_float),
    "requests-per-second-target-default": ("rps_target_default", parse_float),
    "target-burst-capacity": ("target_burst_capacity", parse_float),
    "panic-window-percentage": ("panic_window_percent", parse_float),
    "panic-threshold-percentage": ("panic_threshold_percent", parse_float),
    "activator-capacity": ("activator_capacity", parse_float),
    "initial-scale": ("initial_scale", parse_int),
    "min-scale": ("min_scale", parse_int),
    "max-scale": ("max_scale", parse_int),
    "max-scale-limit": ("max_scale_limit", parse_int),
    "stable-window": ("stable_window_ns", parse_duration_ns),
    "scale-down-delay": ("scale_down_delay_ns", parse_duration_ns),
    "scale-to-zero-grace-period": ("scale_to_zero_grace_period_ns", parse_duration_ns),
    "scale-to-zero-pod-retention-period": ("scale_to_zero_pod_retention_ns", parse_duration_ns),
}


def parse_config(data: Mapping[str, str]) -> KnativeConfig:
    """The settings that `data` of the ConfigMap stands for; unknown keys are ignored.

    A concurrency percentage above 1 is a percentage, up to 1 it is a ratio: 70 and 0.7 are the same,
    1.5 is 1.5 %. Raises InvalidKnativeConfig with every problem at once.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    for key, (field, parser) in _KEYS.items():
        if key not in data:
            continue
        value = parser(data[key])
        if value is None:
            problems.append(f"{key} is {data[key]!r}, which cannot be read")
        else:
            values[field] = value
    if problems:
        raise InvalidKnativeConfig("\n".join(problems))
    config = replace(KnativeConfig(), **values)  # type: ignore[arg-type]  # the parsers above give the fields' types
    if config.container_concurrency_target_ratio > 1.0:
        ratio = config.container_concurrency_target_ratio / 100.0
        config = replace(config, container_concurrency_target_ratio=ratio)
    problems = [*_rate_problems(config), *_duration_problems(config), *_bound_problems(config)]
    if problems:
        raise InvalidKnativeConfig("\n".join(problems))
    return config


def whole_seconds(duration_ns: int) -> bool:
    """True for a duration without a fraction of a second."""
    return duration_ns % NANOSECONDS == 0


def _rate_problems(config: KnativeConfig) -> list[str]:
    """Written as `is outside`, so that a NaN passes where it passes in Knative."""
    ratio = config.container_concurrency_target_ratio
    target = ratio * config.container_concurrency_target_default
    burst = config.target_burst_capacity
    low, high = PANIC_WINDOW_PERCENT
    percent = config.panic_window_percent
    rules = (
        (burst < 0 and burst != -1, f"target-burst-capacity is {burst:g}, must be -1 or at least 0"),
        (ratio <= 0 or ratio > 1, f"container-concurrency-target-percentage is {ratio:%}, must be in (0, 100]"),
        (target < TARGET_FLOOR, f"the concurrency target is {target:g}, must be at least {TARGET_FLOOR}"),
        (
            config.rps_target_default < TARGET_FLOOR,
            f"requests-per-second-target-default is {config.rps_target_default:g}, must be at least {TARGET_FLOOR}",
        ),
        (config.activator_capacity < 1, f"activator-capacity is {config.activator_capacity:g}, must be at least 1"),
        (config.max_scale_up_rate <= 1, f"max-scale-up-rate is {config.max_scale_up_rate:g}, must be above 1"),
        (config.max_scale_down_rate <= 1, f"max-scale-down-rate is {config.max_scale_down_rate:g}, must be above 1"),
        (percent < low or percent > high, f"panic-window-percentage is {percent:g}, must be in [{low:g}, {high:g}]"),
    )
    return [text for broken, text in rules if broken]


def _duration_problems(config: KnativeConfig) -> list[str]:
    window, delay = config.stable_window_ns, config.scale_down_delay_ns
    grace, retention = config.scale_to_zero_grace_period_ns, config.scale_to_zero_pod_retention_ns
    rules = (
        (grace <= 0, f"scale-to-zero-grace-period is {grace / NANOSECONDS:g} s, must be above 0"),
        (delay < 0, f"scale-down-delay is {delay / NANOSECONDS:g} s, must be at least 0"),
        (not whole_seconds(delay), f"scale-down-delay is {delay / NANOSECONDS:g} s, must be whole seconds"),
        (retention < 0, f"scale-to-zero-pod-retention-period is {retention / NANOSECONDS:g} s, must be at least 0"),
        (
            window < WINDOW_MIN_NS or window > WINDOW_MAX_NS,
            f"stable-window is {window / NANOSECONDS:g} s, must be in [6, 3600] s",
        ),
        (not whole_seconds(window), f"stable-window is {window / NANOSECONDS:g} s, must be whole seconds"),
    )
    return [text for broken, text in rules if broken]


def _bound_problems(config: KnativeConfig) -> list[str]:
    """With a limit on the maximum there must be a maximum, and it must keep to the limit."""
    limit, maximum, minimum = config.max_scale_limit, config.max_scale, config.min_scale
    least_initial = 0 if config.allow_zero_initial_scale else 1
    rules = (
        (config.initial_scale < least_initial, f"initial-scale is {config.initial_scale}, least is {least_initial}"),
        (minimum < 0, f"min-scale is {minimum}, must be at least 0"),
        (maximum < 0, f"max-scale is {maximum}, must be at least 0"),
        (limit < 0, f"max-scale-limit is {limit}, must be at least 0"),
        (limit > 0 and maximum == 0, f"max-scale is 0 (none), must be in [1, {limit}] (max-scale-limit)"),
        (limit > 0 and maximum > limit, f"max-scale is {maximum}, must be in [1, {limit}] (max-scale-limit)"),
        (0 < maximum < minimum, f"min-scale is {minimum}, must be at most max-scale, which is {maximum}"),
    )
    return [text for broken, text in rules if broken]
