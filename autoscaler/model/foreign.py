"""The series that guides of GPU inference platforms list, and what we mean by each: one table of names, units, labels.

They are published under these names for dashboards that know them; our own are tidegate_…, and the two never meet: what
is published here must not be read back as a signal. A value that nobody measured has no entry, and so no series.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Measure(StrEnum):
    """A number of one workload as a whole. The unit ends the name."""

    REQUESTS = "requests"  # finished since the daemon first saw each pod; begins anew where no pod was left
    LATENCY_P50 = "latency_p50_s"  # end to end, of the requests that finished in the last 15 s
    LATENCY_P95 = "latency_p95_s"
    LATENCY_P99 = "latency_p99_s"
    THROUGHPUT = "throughput"  # finished requests per second
    ACTIVE = "active_requests"  # running and waiting
    GPU_UTILIZATION = "gpu_utilization_percent"  # mean over the GPUs, 0..100; needs DCGM's exporter
    GPU_MEMORY = "gpu_memory_used_bytes"  # sum over the GPUs; needs DCGM's exporter
    REPLICAS = "replicas"  # ready ones


@dataclass(frozen=True, slots=True)
class ForeignSeries:
    """How a measure is called outside. `labels` come after namespace and workload."""

    name: str
    text: str
    labels: tuple[tuple[str, str], ...] = ()


# Seconds and requests per second: the guides' thresholds for these very names are "500m" for the latency and 50 for the
# throughput. GPUs: percent, as DCGM_FI_DEV_GPU_UTIL; bytes, where DCGM_FI_DEV_FB_USED has MiB.
FOREIGN_SERIES: Final[Mapping[Measure, ForeignSeries]] = MappingProxyType(
    {
        Measure.REQUESTS: ForeignSeries(
            "inference_request_count", "Finished requests; only ever grows, or begins anew"
        ),
        Measure.LATENCY_P50: ForeignSeries("inference_request_latency", "Seconds", (("quantile", "0.5"),)),
        Measure.LATENCY_P95: ForeignSeries("inference_request_latency", "Seconds", (("quantile", "0.95"),)),
        Measure.LATENCY_P99: ForeignSeries("inference_request_latency", "Seconds", (("quantile", "0.99"),)),
        Measure.THROUGHPUT: ForeignSeries("inference_throughput", "Finished requests per second"),
        Measure.ACTIVE: ForeignSeries("inference_active_requests", "Requests running and waiting"),
        Measure.GPU_UTILIZATION: ForeignSeries("gpu_utilization", "Percent, 0 to 100"),
        Measure.GPU_MEMORY: ForeignSeries("gpu_memory_used", "Bytes"),
        Measure.REPLICAS: ForeignSeries("replica_count", "Ready replicas"),
    }
)
