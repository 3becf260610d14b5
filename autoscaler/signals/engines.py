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

METRICS_PATH: Final = "/metrics"


class Quantity(StrEnum):
    """What an engine can show. The values contain a blank, so that no metric of a pod is named like one."""

    RUNNING = "running requests"
    WAITING = "waiting requests"
    IN_FLIGHT = "requests in flight"  # running and waiting in one number
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
    MAX = "max"  # a share: the fullest rank limits the replica
    MEAN = "mean"  # a share of several devices that one replica uses together


@dataclass(frozen=True, slots=True)
class Source:
    """Where one quantity stands on a page."""

    key: str  # a Quantity, or the name of a pod's own metric
    kind: Kind
    names: tuple[bytes, ...]  # of the gauge, the counter, or the histogram without _bucket; newest first
    ranks: Ranks = Ranks.SUM
    copies: frozenset[str] = frozenset()  # labels by which one number is printed several times, e.g. tensor ranks
    parts: str = ""  # a label that is empty on a total, beside which its parts are printed
    scale: float = 1.0  # makes seconds and ratios of what is printed: 0.001 for milliseconds


@dataclass(frozen=True, slots=True)
class EngineWords:
    """One engine's vocabulary. What it does not print is not in `sources`: those signals stay absent, never 0."""

    engine: Engine
    marks: tuple[bytes, ...]  # a line that starts with one of these gives the engine away
    sources: Mapping[Quantity, Source]
    port: int | None = None  # of the metrics page; None: the serving port
    path: str = METRICS_PATH

    def needs(self, signal: str) -> tuple[Quantity, ...]:
        """The quantities that make up a built-in signal."""
        if signal == Signal.CONCURRENCY and Quantity.IN_FLIGHT in self.sources:
            return (Quantity.IN_FLIGHT,)
        return NEEDS[signal]

    @property
    def activity(self) -> tuple[Quantity, ...]:
        """A replica is idle when nothing runs, nothing waits, and nothing has finished since we last looked."""
        return (*self.needs(Signal.CONCURRENCY), Quantity.FINISHED)


# Which quantities each signal of an engine needs; they add up, histograms stand alone.
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


def _words(
    engine: Engine, marks: tuple[bytes, ...], *sources: Source, port: int | None = None, path: str = METRICS_PATH
) -> EngineWords:
    by_quantity = MappingProxyType({Quantity(source.key): source for source in sources})
    return EngineWords(engine, marks, by_quantity, port, path)


# vLLM labels every series with model_name and engine (the data-parallel rank): each rank has requests and a cache of
# its own; tensor-parallel ranks print nothing, and older versions have no label engine. request_success_total has one
# series per finished_reason; an aborted request is finished, too.
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


def _sglang(quantity: Quantity, kind: Kind, *stems: str, ranks: Ranks = Ranks.SUM) -> Source:
    """Some builds print sglang_ where the others print sglang: in front."""
    names = tuple(f"sglang{mark}{stem}".encode() for stem in stems for mark in (":", "_"))
    return Source(quantity, kind, names, ranks, copies=_SGLANG_COPIES, parts="priority")


# Every rank of SGLang that prints (all of them with --enable-metrics-for-all-schedulers) prints what its whole group
# does, but for dp_rank: data-parallel ranks have requests and a cache of their own. With priority scheduling the total
# has an empty label priority and stands beside a series per priority. Tokens are counted as requests finish.
_SGLANG_COPIES: Final = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})
_SGLANG: Final = _words(
    Engine.SGLANG,
    (b"sglang:", b"sglang_"),
    _sglang(Quantity.RUNNING, Kind.GAUGE, "num_running_reqs"),
    _sglang(Quantity.WAITING, Kind.GAUGE, "num_queue_reqs"),
    _sglang(Quantity.FINISHED, Kind.COUNTER, "num_requests_total"),
    _sglang(Quantity.PROMPT_TOKENS, Kind.COUNTER, "prompt_tokens_total"),
    _sglang(Quantity.GENERATION_TOKENS, Kind.COUNTER, "generation_tokens_total"),
    _sglang(Quantity.KV_CACHE, Kind.GAUGE, "token_usage", ranks=Ranks.MAX),
    _sglang(Quantity.TTFT, Kind.HISTOGRAM, "time_to_first_token_seconds"),
    # time_per_output_token_seconds in older versions
    _sglang(Quantity.ITL, Kind.HISTOGRAM, "inter_token_latency_seconds", "time_per_output_token_seconds"),
    _sglang(Quantity.LATENCY, Kind.HISTOGRAM, "e2e_request_latency_seconds"),
)

# TGI's router prints a series only once it has a value, so that a pod without any request yet shows nothing: that is
# absent, not idle. Its mean time per token is one value a request and includes the prefill. No TTFT, no KV cache.
_TGI: Final = _words(
    Engine.TGI,
    (b"tgi_",),
    Source(Quantity.RUNNING, Kind.GAUGE, (b"tgi_batch_current_size",)),
    Source(Quantity.WAITING, Kind.GAUGE, (b"tgi_queue_size",)),
    Source(Quantity.FINISHED, Kind.COUNTER, (b"tgi_request_success",)),
    Source(Quantity.PROMPT_TOKENS, Kind.COUNTER, (b"tgi_request_input_length_sum",)),
    Source(Quantity.GENERATION_TOKENS, Kind.COUNTER, (b"tgi_request_generated_tokens_sum",)),
    Source(Quantity.ITL, Kind.HISTOGRAM, (b"tgi_request_mean_time_per_token_duration",)),
    Source(Quantity.LATENCY, Kind.HISTOGRAM, (b"tgi_request_duration",)),
)

# NIM prints vLLM's older names without prefix; some versions count finished requests as request_finish_total.
_NIM: Final = _words(
    Engine.NIM,
    (b"num_requests_running{", b"num_requests_running "),
    Source(Quantity.RUNNING, Kind.GAUGE, (b"num_requests_running",)),
    Source(Quantity.WAITING, Kind.GAUGE, (b"num_requests_waiting",)),
    Source(Quantity.FINISHED, Kind.COUNTER, (b"request_success_total", b"request_finish_total")),
    Source(Quantity.PROMPT_TOKENS, Kind.COUNTER, (b"prompt_tokens_total",)),
    Source(Quantity.GENERATION_TOKENS, Kind.COUNTER, (b"generation_tokens_total",)),
    Source(Quantity.KV_CACHE, Kind.GAUGE, (b"gpu_cache_usage_perc",), Ranks.MAX),
    Source(Quantity.TTFT, Kind.HISTOGRAM, (b"time_to_first_token_seconds",)),
    Source(Quantity.ITL, Kind.HISTOGRAM, (b"time_per_output_token_seconds",)),
    Source(Quantity.LATENCY, Kind.HISTOGRAM, (b"e2e_request_latency_seconds",)),
    path="/v1/metrics",
)

# Triton shows what waits and what is done, but not what runs: no concurrency, and no proof that a replica is idle. Its
# durations are sums, of which no percentile can be had; first responses are a histogram if it was switched on. An
# ensemble and the models in it count each.
_TRITON: Final = _words(
    Engine.TRITON,
    (b"nv_inference_",),
    Source(Quantity.WAITING, Kind.GAUGE, (b"nv_inference_pending_request_count",)),
    Source(Quantity.FINISHED, Kind.COUNTER, (b"nv_inference_request_success",)),
    Source(Quantity.TTFT, Kind.HISTOGRAM, (b"nv_inference_first_response_histogram_ms",), scale=0.001),
    port=8002,
)

# Older versions of trtllm-serve print latencies and finished requests only.
_TENSORRT_LLM: Final = _words(
    Engine.TENSORRT_LLM,
    (b"trtllm_",),
    Source(Quantity.RUNNING, Kind.GAUGE, (b"trtllm_num_requests_running",)),
    Source(Quantity.WAITING, Kind.GAUGE, (b"trtllm_num_requests_waiting",)),
    Source(Quantity.FINISHED, Kind.COUNTER, (b"trtllm_request_success_total",)),
    Source(Quantity.PROMPT_TOKENS, Kind.COUNTER, (b"trtllm_prompt_tokens_total",)),
    Source(Quantity.GENERATION_TOKENS, Kind.COUNTER, (b"trtllm_generation_tokens_total",)),
    Source(Quantity.KV_CACHE, Kind.GAUGE, (b"trtllm_kv_cache_utilization",), Ranks.MAX),
    Source(Quantity.TTFT, Kind.HISTOGRAM, (b"trtllm_time_to_first_token_seconds",)),
    Source(Quantity.ITL, Kind.HISTOGRAM, (b"trtllm_time_per_output_token_seconds",)),
    Source(Quantity.LATENCY, Kind.HISTOGRAM, (b"trtllm_e2e_request_latency_seconds",)),
    path="/prometheus/metrics",
)


def _dynamo(quantity: Quantity, kind: Kind, stem: str, *more: str, ranks: Ranks = Ranks.SUM) -> Source:
    """A frontend's series, then others, then the frontend's older name."""
    names = (f"dynamo_frontend_{stem}", *more, f"nv_llm_http_service_{stem}")
    return Source(quantity, kind, tuple(name.encode() for name in names), ranks)


# A pod of Dynamo is a frontend or a component (a worker). Requests are in flight from the handler's begin to the end,
# and queued until their first token, so the queue is a part of them and must not be added. "percent" is a share, 0..1.
# A worker that also prints its engine's own series is read as that engine.
_DYNAMO: Final = _words(
    Engine.DYNAMO,
    (b"dynamo_frontend_", b"dynamo_component_", b"nv_llm_http_service_"),
    _dynamo(Quantity.IN_FLIGHT, Kind.GAUGE, "inflight_requests", "dynamo_component_inflight_requests"),
    _dynamo(Quantity.WAITING, Kind.GAUGE, "queued_requests"),
    _dynamo(Quantity.FINISHED, Kind.COUNTER, "requests_total", "dynamo_component_requests_total"),
    _dynamo(Quantity.PROMPT_TOKENS, Kind.COUNTER, "input_sequence_tokens_sum"),
    _dynamo(Quantity.GENERATION_TOKENS, Kind.COUNTER, "output_sequence_tokens_sum"),
    Source(Quantity.KV_CACHE, Kind.GAUGE, (b"dynamo_component_kvstats_gpu_cache_usage_percent",), Ranks.MAX),
    _dynamo(Quantity.TTFT, Kind.HISTOGRAM, "time_to_first_token_seconds"),
    _dynamo(Quantity.ITL, Kind.HISTOGRAM, "inter_token_latency_seconds"),
    _dynamo(Quantity.LATENCY, Kind.HISTOGRAM, "request_duration_seconds", "dynamo_component_request_duration_seconds"),
)

# In the order in which a page is looked at: engines before what wraps them.
ENGINES: Final[Mapping[Engine, EngineWords]] = MappingProxyType(
    {words.engine: words for words in (_VLLM, _SGLANG, _TGI, _TENSORRT_LLM, _TRITON, _DYNAMO, _NIM)}
)


def recognise(page: bytes) -> Engine | None:
    """The engine that printed this page; None where no line gives one away (a page still empty, or an unknown one)."""
    for engine, words in ENGINES.items():
        if any(page.startswith(mark) or b"\n" + mark in page for mark in words.marks):
            return engine
    return None


# What DCGM's exporter prints of a GPU, in percent and MiB. It runs on the nodes: no pod's page has it.
GPU_SOURCES: Final[Mapping[str, Source]] = MappingProxyType(
    {
        Signal.GPU_UTILIZATION: Source(
            Signal.GPU_UTILIZATION, Kind.GAUGE, (b"DCGM_FI_DEV_GPU_UTIL",), Ranks.MEAN, scale=0.01
        ),
        Signal.GPU_MEMORY: Source(Signal.GPU_MEMORY, Kind.GAUGE, (b"DCGM_FI_DEV_FB_USED",), scale=1024.0**2),
    }
)


def own_metric(name: str) -> Source:
    """A GPU signal, or a metric that the pods expose by its own name: a gauge, or a counter whose rate counts."""
    return GPU_SOURCES.get(name) or Source(name, Kind.DECLARED, (name.encode(),))
