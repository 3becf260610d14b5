"""Measured quantities: what was measured, how good the measurement is, and what one replica should carry.

Absent is not zero: a value that nobody saw is None and carries a quality that says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from autoscaler.model.foreign import Measure


class Signal(StrEnum):
    """The built-in signals. Any other name: one of `aliases`, else a query, else a metric that the pods expose."""

    CONCURRENCY = "concurrency"  # requests running + waiting
    QUEUE = "queue"  # requests waiting
    THROUGHPUT = "throughput"  # finished requests per second
    TOKENS = "tokens"  # prompt + generation tokens per second
    LATENCY = "latency"  # end-to-end seconds, a percentile
    TTFT = "ttft"  # seconds to the first token, a percentile
    ITL = "itl"  # seconds between tokens, a percentile
    KV_CACHE = "kv-cache"  # used share of the KV cache, 0..1
    GPU_UTILIZATION = "gpu-utilization"  # busy share of a replica's GPUs, their mean, 0..1
    GPU_MEMORY = "gpu-memory"  # bytes in use on a replica's GPUs, their sum


class Shape(StrEnum):
    """How values of several replicas become one."""

    TOTAL = "total"  # they add up: concurrency, queue, throughput, tokens, custom
    LEVEL = "level"  # each replica has the same scale: latency, KV cache, GPUs; enters a policy as level × ready


GPU_SIGNALS: Final = frozenset({Signal.GPU_UTILIZATION, Signal.GPU_MEMORY})  # by way of Prometheus alone
LEVELS: Final = frozenset({Signal.LATENCY, Signal.TTFT, Signal.ITL, Signal.KV_CACHE}) | GPU_SIGNALS


def shape_of(name: str) -> Shape:
    """LEVEL for latency-like signals, the KV cache and GPUs, TOTAL for all others."""
    return Shape.LEVEL if name in LEVELS else Shape.TOTAL


class Direction(StrEnum):
    """What a signal may do to the count, where a workload has several."""

    BOTH = "both"
    UP = "up"  # raise it, and keep others from lowering it below; its silence stops no lowering
    DOWN = "down"  # hold or lower it


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """One signal of a workload, resolved: seconds, ratios, requests."""

    name: str  # as the user wrote it
    threshold: float  # what the user wrote, in base units (seconds, ratio, requests, requests/s, tokens/s)
    target: float  # where we act, per replica: threshold × utilisation, or × 0.5 / 0.9 for cliffs
    percentile: float = 0.99  # of latency-like signals
    direction: Direction = Direction.BOTH
    stands_for: str = ""  # the Signal that a foreign name means; "": the name speaks for itself
    query: Shape | None = None  # of a query that the configuration names; None: it is none

    @property
    def signal(self) -> str:
        """What is measured: a Signal, a query of the configuration, or a metric of the pods."""
        return self.stands_for or self.name

    @property
    def shape(self) -> Shape:
        return self.query or shape_of(self.signal)


class Quality(StrEnum):
    """How far a reading may be trusted, the best first. Only FRESH may lower anything."""

    FRESH = "fresh"  # every ready pod answered within three scrape periods (a true zero is FRESH and 0.0)
    PARTIAL = "partial"  # some ready pods have no fresh page
    STALE = "stale"  # values exist, but none is fresh
    ABSENT = "absent"  # nobody ever answered, or the page lacks the series


_RANKS: Final = {quality: rank for rank, quality in enumerate(Quality)}


def worst(qualities: Iterable[Quality]) -> Quality | None:
    """The least trustworthy; None where there are none."""
    return max(qualities, key=_RANKS.__getitem__, default=None)


@dataclass(frozen=True, slots=True)
class Sample:
    """The value over all ready pods at one whole second. TOTAL: the sum; LEVEL: the level (not × ready)."""

    at_s: float  # Unix seconds, a whole number; strictly increasing within a reading
    value: float


@dataclass(frozen=True, slots=True)
class PodFault:
    """Why one pod has no fresh value, e.g. "http 500", "time-out", "triton has no series for running requests"."""

    pod: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is known of one signal of one workload at one instant."""

    name: str
    value: float | None  # the newest sample's value; None = unknown
    quality: Quality
    samples: tuple[Sample, ...] = ()  # the last seconds, oldest first; at most one a second
    age_s: float | None = None  # of the oldest page used; None where there is none
    pods_expected: int = 0  # ready pods
    pods_fresh: int = 0  # of them, with a fresh page that has this signal
    faults: tuple[PodFault, ...] = ()  # at most 5, sorted by pod


class Activation(StrEnum):
    """What an activation page or query says of a workload without replicas."""

    NOT_CONFIGURED = "not configured"
    UNKNOWN = "unknown"  # missing or not readable; a page without the series reads IDLE, a query without one does not
    IDLE = "idle"
    WAITING = "waiting"  # at least one request waits


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """What the serving pods of one revision show of their requests, in Unix seconds of the daemon's clock.

    An instant is that of the page that first showed something: it happened between that page and the one before. The
    fields are those of `rollouts.observed.ObservedRevision`, where they are explained; `supported` says why there may
    be none.
    """

    in_flight: int | None = None  # running and waiting, over all pods; None: not known of every one
    last_request_at: float | None = None  # a page first showed a request that had begun since the page before it
    counted_at: float | None = None  # counters and requests in flight of every pod are known up to then
    counted_from: float = 0.0  # and from then on without a gap; 0.0: since the pods began
    busy_at: float | None = None  # the newest page that showed a request in flight, or one that had come or ended
    supported: bool = True  # False: the pages read so far are of no engine that shows requests, so none will come


@dataclass(frozen=True, slots=True)
class WorkloadSignals:
    """The readings of one workload: those its policy asked for, and ACTIVITY."""

    readings: Mapping[str, Reading]  # by signal name
    activity: Reading  # running + waiting + finished since the previous page: 0.0 and FRESH is proof of idleness
    engine: str = ""  # as detected from the page; "" while unknown
    measures: Mapping[Measure, float] = field(default_factory=dict)  # to republish; what nobody measured is missing
    requests: RequestCounts | None = None  # None: nobody asked for them
