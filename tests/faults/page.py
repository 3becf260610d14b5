"""The metrics pages of the fault matrix's pods: what a pod shows at its share of the load, and how a fault spoils it.

SYNTHETIC: no line was printed by vLLM. A share is in units of what one replica should carry, whatever the signal: pods
with 0.85 each need as many replicas as they are, and one with 3.0 needs three alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from autoscaler.model.signal import Signal
from autoscaler.signals.engines import NEEDS
from tests.faults.cells import OWN_COUNTER, OWN_GAUGE, Fault

# What one replica carries, as our decision has it; latency-like signals act at half the threshold, KV cache at 0.9.
TARGETS: Final = {
    Signal.CONCURRENCY: 10.0,
    Signal.QUEUE: 10.0,
    Signal.THROUGHPUT: 10.0,
    Signal.TOKENS: 1000.0,
    Signal.LATENCY: 1.0,
    Signal.TTFT: 0.5,
    Signal.ITL: 0.05,
    Signal.KV_CACHE: 0.36,
    OWN_GAUGE: 10.0,
    OWN_COUNTER: 10.0,
}
# ... and as a user writes it
THRESHOLDS: Final[dict[str, int | str]] = {
    Signal.TOKENS: 1000,
    Signal.LATENCY: 2000,
    Signal.TTFT: 1000,
    Signal.ITL: 100,
    Signal.KV_CACHE: "400m",
}
HISTOGRAMS: Final = {
    Signal.LATENCY: "vllm:e2e_request_latency_seconds",
    Signal.TTFT: "vllm:time_to_first_token_seconds",
    Signal.ITL: "vllm:inter_token_latency_seconds",
}
BOUNDS: Final = (0.25, 0.5, 0.85, 1.5, 2.0, 2.9, 3.0, 6.0)  # times the target
HIGHEST_CACHE: Final = 1.0
RESET_EVERY_S: Final = 3.0
HOUR_S: Final = 3600.0


def autoscaling(signal: str) -> dict[str, Any]:
    """The part of a workload's spec: three replicas at first, none at last, and never more than four."""
    found: dict[str, Any] = {
        "minReplicas": 0,
        "maxReplicas": 4,
        "initialReplicas": 3,
        "metric": signal,
        "metricThreshold": THRESHOLDS.get(signal, 10),
        "activation": {"page": "gateway", "metric": "gateway_pending_requests", "labels": {"workload": "none"}},
    }
    if signal in (Signal.CONCURRENCY, Signal.THROUGHPUT):
        found["metricThresholdPercentage"] = 100
    return found


@dataclass(slots=True)
class Shown:
    """One pod: its share, and what it has counted so far."""

    signal: str
    number: int  # of the pod, from 0
    share: float
    now: float  # of its counters
    fault: Fault | None = None
    fault_at: float = 0.0
    reset_at: float = 0.0
    finished: float = 50.0  # what a server has done before we look
    tokens: float = 5000.0
    jobs: float = 50.0
    buckets: dict[float, float] = field(default_factory=lambda: dict.fromkeys((*BOUNDS, float("inf")), 7.0))

    def advance(self, now: float) -> None:
        passed, self.now = max(0.0, now - self.now), now
        busy = self.share > 0
        own = self.signal if busy else ""
        self.finished += passed * (10.0 * self.share if own == Signal.THROUGHPUT else 5.0 * busy)
        self.tokens += passed * (1000.0 * self.share if own == Signal.TOKENS else 100.0 * busy)
        self.jobs += passed * 10.0 * self.share
        bound = next((each for each in BOUNDS if each >= self.share), float("inf"))
        self.buckets[bound] += passed * 20.0 * busy
        if self.fault is Fault.RESET and now - self.reset_at >= RESET_EVERY_S:
            self.reset_at = now
            self.finished = self.tokens = self.jobs = 0.0
            self.buckets = dict.fromkeys(self.buckets, 0.0)

    def carry(self, share: float, now: float) -> None:
        """Another share from now on."""
        self.advance(now)
        self.share = share

    def spoil(self, fault: Fault | None, now: float) -> None:
        """Another fault from now on; None ends it."""
        self.advance(now)
        self.fault, self.fault_at = fault, now

    def samples(self) -> list[tuple[str, float]]:
        """Every sample of the page, without comments."""
        if self.signal == OWN_GAUGE:
            return [(OWN_GAUGE, 10.0 * self.share)]
        if self.signal == OWN_COUNTER:
            return [(OWN_COUNTER, self.jobs)]
        at = 'engine="0",model_name="m"'
        share = {name: self.share if self.signal == name else 0.5 * (self.share > 0) for name in NEEDS}
        found = [
            (f"vllm:num_requests_running{{{at}}}", 8.0 * share[Signal.CONCURRENCY]),
            (f"vllm:num_requests_waiting{{{at}}}", 2.0 * share[Signal.CONCURRENCY] + 10.0 * self._queue()),
            (f"vllm:kv_cache_usage_perc{{{at}}}", min(HIGHEST_CACHE, 0.36 * share[Signal.KV_CACHE])),
            (f'vllm:request_success_total{{{at},finished_reason="stop"}}', self.finished),
            (f"vllm:prompt_tokens_total{{{at}}}", 0.4 * self.tokens),
            (f"vllm:generation_tokens_total{{{at}}}", 0.6 * self.tokens),
        ]
        for signal, stem in HISTOGRAMS.items():
            count = 0.0
            for bound, inside in self.buckets.items():
                count += inside
                le = "+Inf" if bound == float("inf") else f"{bound * TARGETS[signal]:g}"
                found.append((f'{stem}_bucket{{{at},le="{le}"}}', count))
        return found

    def _queue(self) -> float:
        """Requests that wait, beside those of `concurrency`, in tens; of the signal queue alone."""
        return self.share - 0.1 * (self.share > 0) if self.signal == Signal.QUEUE else 0.0

    def page(self, now: float) -> bytes:
        """The page at this instant, spoilt where the fault spoils what is printed."""
        self.advance(now)
        fault = self.fault
        if fault is Fault.EMPTY:
            return b""
        if fault is Fault.STALE:
            idle = Shown(self.signal, self.number, 0.0, now)
            return _text(idle.samples(), stamp_s=self.fault_at - HOUR_S)
        samples = self.samples()
        bad = {Fault.NAN: "NaN", Fault.INF: "+Inf", Fault.NEGATIVE: "-1.0"}.get(fault) if fault else None
        if bad is not None:
            return "".join(f"{name} {bad}\n" for name, _ in samples).encode()
        if fault is Fault.SKEWED:
            return _text(samples, stamp_s=now + (HOUR_S if self.number % 2 else -HOUR_S))
        if fault is Fault.RENAMED:
            return _text([("renamed_" + name, value) for name, value in samples])
        if fault is Fault.DUPLICATE:
            return _text([*samples, *((name, 0.0) for name, _ in samples)])
        return _text(samples)

    def idle_page(self) -> bytes:
        """What a page that is too long to be read whole begins with: believed, it would say that nothing goes on."""
        return _text(Shown(self.signal, self.number, 0.0, self.now).samples())


def _text(samples: list[tuple[str, float]], stamp_s: float | None = None) -> bytes:
    stamp = "" if stamp_s is None else f" {round(stamp_s * 1000)}"
    return "".join(f"{name} {value!r}{stamp}\n" for name, value in samples).encode()
