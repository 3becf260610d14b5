"""What each inference engine calls the things we measure. Data only: adding an engine is one more entry of ENGINES.

Names come from the engines' sources; a renamed series lists its names newest first, and the first one that a page has
is the one read, because releases in between print both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from autoscaler.model.signal import Signal
from autoscaler.model.workload import Engine


class Quantity(StrEnum):
    """What an engine can show. The values contain a blank, so that no metric of a pod is named like one."""

    RUNNING = "running requests"
    WAITING = "waiting requests"
    FINISHED = "finished requests"
    PROMPT_TOKENS = "prompt tokens"
    GENERATION_TOKENS = "generation tokens"
    KV_CACHE = "used KV cache"
    TTFT = "time to first token"
    ITL = "inter-token latency"
    LATENCY = "end-to-end latency"


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    DECLARED = "declared"  # a pod's own metric: what its TYPE line says, else a counter if it ends in _total


class Ranks(StrEnum):
    """How the series of one page that differ in their labels (data-parallel ranks, models, reasons) become one."""

    SUM = "sum"
    MAX = "max"  # the fullest rank limits the replica


@dataclass(frozen=True, slots=True)
class Source:
    """Where one quantity stands on a page."""

    key: str  # a Quantity, or the name of a pod's own metric
    kind: Kind
    names: tuple[bytes, ...]  # of the gauge, the counter, or the histogram without _bucket; newest first
    ranks: Ranks = Ranks.SUM


@dataclass(frozen=True, slots=True)
class EngineWords:
    """One engine's vocabulary."""

    engine: Engine
    marks: tuple[bytes, ...]  # a line that starts with one of these gives the engine away
    sources: Mapping[Quantity, Source]


# Which quantities each built-in signal needs; they add up, histograms stand alone.
NEEDS: Final[Mapping[str, tuple[Quantity, ...]]] = MappingProxyType(
    {
        Signal.CONCURRENCY: (Quantity.RUNNING, Quantity.WAITING),
        Signal.QUEUE: (Quantity.WAITING,),
        Signal.THROUGHPUT: (Quantity.FINISHED,),
        Signal.TOKENS: (Quantity.PROMPT_TOKENS, Quantity.GENERATION_TOKENS),
        Signal.LATENCY: (Quantity.LATENCY,),
        Signal.TTFT: (Quantity.TTFT,),
        Signal.ITL: (Quantity.ITL,),
        Signal.KV_CACHE: (Quantity.KV_CACHE,),
    }
)

# A replica is idle when nothing runs, nothing waits, and nothing has finished since we last looked.
ACTIVITY_NEEDS: Final = (Quantity.RUNNING, Quantity.WAITING, Quantity.FINISHED)


def _words(engine: Engine, marks: tuple[bytes, ...], *sources: Source) -> EngineWords:
    return EngineWords(engine, marks, MappingProxyType({Quantity(source.key): source for source in sources}))


# vLLM labels every series with model_name and engine (the data-parallel rank): each rank has requests and a cache of
# its own. request_success_total has one series per finished_reason; an aborted request is finished, too.
_VLLM: Final = _words(
    Engine.VLLM,
    (b"vllm:",),
    Source(Quantity.RUNNING, Kind.GAUGE, (b"vllm:num_requests_running",)),
    Source(Quantity.WAITING, Kind.GAUGE, (b"vllm:num_requests_waiting",)),
    Source(Quantity.FINISHED, Kind.COUNTER, (b"vllm:request_success_total",)),
    Source(Quantity.PROMPT_TOKENS, Kind.COUNTER, (b"vllm:prompt_tokens_total",)),
    Source(Quantity.GENERATION_TOKENS, Kind.COUNTER, (b"vllm:generation_tokens_total",)),
    # gpu_cache_usage_perc up to 0.10
    Source(Quantity.KV_CACHE, Kind.GAUGE, (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"), Ranks.MAX),
    Source(Quantity.TTFT, Kind.HISTOGRAM, (b"vllm:time_to_first_token_seconds",)),
    # time_per_output_token_seconds up to 0.10, hidden from 0.11 on
    Source(
        Quantity.ITL,
        Kind.HISTOGRAM,
        (b"vllm:inter_token_latency_seconds", b"vllm:time_per_output_token_seconds"),
    ),
    Source(Quantity.LATENCY, Kind.HISTOGRAM, (b"vllm:e2e_request_latency_seconds",)),
)

ENGINES: Final[Mapping[Engine, EngineWords]] = MappingProxyType({words.engine: words for words in (_VLLM,)})


def recognise(page: bytes) -> Engine | None:
    """The engine that printed this page; None where no line gives one away (a page still empty, or an unknown one)."""
    for engine, words in ENGINES.items():
        if any(page.startswith(mark) or b"\n" + mark in page for mark in words.marks):
            return engine
    return None


def own_metric(name: str) -> Source:
    """A metric that the pods expose by its own name: a gauge, or a counter whose rate counts."""
    return Source(name, Kind.DECLARED, (name.encode(),))
