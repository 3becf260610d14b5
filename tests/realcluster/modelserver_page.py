"""The metrics page of an imitated vLLM server, written from the engine dictionary that reads it, and its faults.

SYNTHETIC: no line of it was printed by vLLM. Names and kinds come from autoscaler/signals/engines.py, labels, bounds
and the other families imitate vLLM 0.11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Final

from autoscaler.model.workload import Engine
from autoscaler.signals.engines import ENGINES, Kind, Quantity, Source
from tests.realcluster.load import LATENCY_BOUNDS_S, Histogram, Replica

CREATED: Final = 1.7e9
FINISH_REASONS: Final = ("stop", "length", "abort", "error")
COUNT_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


class PageFault(StrEnum):
    """How a model server can fail its readers."""

    OK = "ok"
    HTTP_500 = "http 500"
    TIME_OUT = "time-out"  # accepts and never answers
    EMPTY = "empty"
    NAN = "nan"
    INF = "inf"
    NEGATIVE = "negative"
    ENDLESS = "endless"
    REFUSE = "refuse"  # the listener is closed
    RENAMED = "renamed"  # every series has another prefix
    RESET = "reset"  # not a state: counters begin anew at once


def vllm_page(replica: Replica, now: float, model: str, fault: PageFault = PageFault.OK, ranks: int = 1) -> bytes:
    """The whole page at this instant. With several ranks all load is on rank 0."""
    lines = ["# SYNTHETIC page of an imitated vLLM server"]
    for quantity, source in ENGINES[Engine.VLLM].sources.items():
        lines += _family(source, [_shown(quantity, replica, now), *_nothing(quantity, ranks - 1)], model)
    lines += ["# TYPE imitation:requests_refused_total counter", f"imitation:requests_refused_total {replica.refused}"]
    page = "\n".join(lines) + "\n" + _filler(model, ranks)
    return _spoilt(page, fault).encode()


Shown = float | Histogram


def _shown(quantity: Quantity, replica: Replica, now: float) -> Shown:
    simple: Mapping[Quantity, Callable[[], float]] = {
        Quantity.RUNNING: lambda: len(replica.running),
        Quantity.WAITING: lambda: len(replica.waiting),
        Quantity.FINISHED: lambda: replica.finished,
        Quantity.PROMPT_TOKENS: lambda: replica.prompt_tokens,
        Quantity.GENERATION_TOKENS: lambda: replica.generated_tokens(now),
        Quantity.KV_CACHE: lambda: replica.kv_share(now),
    }
    return simple[quantity]() if quantity in simple else replica.histograms[quantity]


def _nothing(quantity: Quantity, ranks: int) -> Iterator[Shown]:
    for _ in range(ranks):
        histogram = quantity in (Quantity.TTFT, Quantity.ITL, Quantity.LATENCY)
        yield Histogram(LATENCY_BOUNDS_S) if histogram else 0.0


def _family(source: Source, shown: list[Shown], model: str) -> Iterator[str]:
    """HELP, TYPE and samples of one quantity, a rank after the other, as prometheus_client prints them."""
    name = source.names[0].decode()
    yield f"# HELP {name} {source.key.capitalize()}."
    yield f"# TYPE {name} {source.kind.value}"
    for rank, value in enumerate(shown):
        at = f'engine="{rank}",model_name="{model}"'
        if isinstance(value, Histogram):
            yield from _buckets(name, at, value)
        elif source.key == Quantity.FINISHED:
            for reason in FINISH_REASONS:
                yield f'{name}{{engine="{rank}",finished_reason="{reason}",model_name="{model}"}} ' + (
                    f"{float(value)!r}" if reason == "stop" else "0.0"
                )
        else:
            yield f"{name}{{{at}}} {float(value)!r}"
    if source.kind is not Kind.GAUGE:
        yield from _created(name.removesuffix("_total"), len(shown), model)


def _buckets(name: str, at: str, histogram: Histogram) -> Iterator[str]:
    cumulative = 0
    for bound, count in zip([*histogram.bounds, float("inf")], histogram.counts, strict=True):
        cumulative += count
        text = "+Inf" if bound == float("inf") else repr(float(bound))
        yield f'{name}_bucket{{{at.split(",")[0]},le="{text}",{at.split(",", 1)[1]}}} {float(cumulative)!r}'
    yield f"{name}_count{{{at}}} {float(cumulative)!r}"
    yield f"{name}_sum{{{at}}} {histogram.sum!r}"


def _created(stem: str, ranks: int, model: str) -> Iterator[str]:
    yield f"# HELP {stem}_created When it was created."
    yield f"# TYPE {stem}_created gauge"
    for rank in range(ranks):
        yield f'{stem}_created{{engine="{rank}",model_name="{model}"}} {CREATED!r}'


_fillers: dict[tuple[str, int], str] = {}


def _filler(model: str, ranks: int) -> str:
    """The families that nobody reads, so that pages have a real server's size (about 60 KiB and 640 lines a rank)."""
    if (model, ranks) not in _fillers:
        _fillers[model, ranks] = "\n".join(_filler_lines(model, ranks)) + "\n"
    return _fillers[model, ranks]


def _filler_lines(model: str, ranks: int) -> Iterator[str]:
    yield "# TYPE process_resident_memory_bytes gauge"
    yield "process_resident_memory_bytes 4.2e+09"
    empty = 0.0
    for stem in ("num_preemptions", "prefix_cache_queries", "prefix_cache_hits", "mm_cache_queries", "mm_cache_hits"):
        source = Source(stem, Kind.COUNTER, (f"vllm:{stem}_total".encode(),))
        yield from _family(source, [empty] * ranks, model)
    timings = ("queue", "inference", "prefill", "decode")
    for stem in (f"request_{timing}_time_seconds" for timing in timings):
        source = Source(stem, Kind.HISTOGRAM, (f"vllm:{stem}".encode(),))
        yield from _family(source, [Histogram(LATENCY_BOUNDS_S) for _ in range(ranks)], model)
    counted = ("prompt_tokens", "generation_tokens", "max_num_generation_tokens", "params_n", "params_max_tokens")
    bounds = tuple(float(bound) for bound in COUNT_BOUNDS)
    for stem in (f"request_{what}" for what in counted):
        source = Source(stem, Kind.HISTOGRAM, (f"vllm:{stem}".encode(),))
        yield from _family(source, [Histogram(bounds) for _ in range(ranks)], model)
    for handler in ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics"):
        at = f'handler="{handler}",method="POST",status="2xx"'
        for name in (
            "http_request_duration_seconds",
            "http_request_duration_highr_seconds",
            "http_response_size_bytes",
        ):
            yield f"# TYPE {name} histogram"
            yield from _buckets(name, at, Histogram(LATENCY_BOUNDS_S))


_READ: Final = tuple(spelling.decode() for source in ENGINES[Engine.VLLM].sources.values() for spelling in source.names)


def _spoilt(page: str, fault: PageFault) -> str:
    bad = {PageFault.NAN: "NaN", PageFault.INF: "+Inf", PageFault.NEGATIVE: "-1.0"}.get(fault)
    if fault is PageFault.EMPTY:
        return ""
    if fault is PageFault.RENAMED:
        return page.replace("vllm:", "renamed:")
    if bad is None:
        return page
    lines = (f"{line.rpartition(' ')[0]} {bad}" if line.startswith(_READ) else line for line in page.splitlines())
    return "\n".join(lines) + "\n"
