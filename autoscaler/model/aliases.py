"""Names by which guides of GPU inference platforms know our signals: one table of name, signal and unit.

A workload may write them as its metric and means the signal; what it wrote stays its name in records and status. No
series of such a name is asked for, so what we publish under one never comes back as a signal. With `engine: custom`,
which has no signals of an engine, the names of engine signals are the pods' own series, in their own unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from autoscaler.model.signal import GPU_SIGNALS, Signal


class Unit(StrEnum):
    """What a threshold's plain whole number is; a quantity with a suffix or a point ("500m", "0.5") has base units."""

    REQUESTS = "requests"
    PER_SECOND = "per second"
    MILLISECONDS = "milliseconds"  # base unit: seconds
    PERCENT = "percent"  # base unit: a share, 0..1
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Alias:
    """What a foreign name means."""

    signal: Signal
    unit: Unit
    percentile: float | None = None  # that the name itself says


# Run:ai's throughput is requests, not tokens; NIM's concurrency counts waiting requests, too. Percent and bytes are
# units of Run:ai's console; DCGM's exporter prints percent and MiB.
ALIASES: Final[Mapping[str, Alias]] = MappingProxyType(
    {
        "inference_active_requests": Alias(Signal.CONCURRENCY, Unit.REQUESTS),
        "inference_request_latency_p99": Alias(Signal.LATENCY, Unit.MILLISECONDS, 0.99),
        "inference_requests_per_second": Alias(Signal.THROUGHPUT, Unit.PER_SECOND),
        "inference_throughput": Alias(Signal.THROUGHPUT, Unit.PER_SECOND),
        "nim_request_concurrency": Alias(Signal.CONCURRENCY, Unit.REQUESTS),
        "nim_time_to_first_token": Alias(Signal.TTFT, Unit.MILLISECONDS),
        "nim_gpu_kv_cache_utilization": Alias(Signal.KV_CACHE, Unit.PERCENT),
        "nim_tokens_per_second": Alias(Signal.TOKENS, Unit.PER_SECOND),
        "gpu_utilization": Alias(Signal.GPU_UTILIZATION, Unit.PERCENT),
        "gpu_memory_used": Alias(Signal.GPU_MEMORY, Unit.BYTES),
    }
)


def names_of(*signals: str) -> tuple[str, ...]:
    """These signals and all names that mean one of them: names_of("tokens") == ("tokens", "nim_tokens_per_second")."""
    return (*signals, *(name for name, alias in ALIASES.items() if alias.signal in signals))


def alias_of(name: str, own_series: bool) -> Alias | None:
    """What the name means; None where it speaks for itself. `own_series`: the workload's engine is `custom`."""
    alias = ALIASES.get(name)
    return alias if alias is not None and (not own_series or alias.signal in GPU_SIGNALS) else None
