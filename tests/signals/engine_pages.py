"""Short pages of every engine and generation of names that we read.

Written by hand from the engines' sources and documentation, not from autoscaler/signals/engines.py: the names here are
what that dictionary is held against. No line was printed by an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Load:
    """What a replica shows. Of `finished` requests each took 1 to 2.5 s, 0.1 to 0.2 s to the first token, then 10 to
    20 ms a token, and had 10 prompt and 30 generated tokens."""

    running: float = 3
    waiting: float = 2
    finished: int = 0
    kv: float = 0.25


def _lines(labels: str, series: Mapping[str, float]) -> str:
    return "".join(f"{name}{{{labels}}} {float(value)!r}\n" for name, value in series.items())


def _histogram(name: str, labels: str, low: float, high: float, count: int) -> str:
    """`count` observations between two bounds, and everything that a family prints."""
    buckets = "".join(
        f'{name}_bucket{{{labels},le="{bound}"}} {inside}\n'
        for bound, inside in ((low, 0), (high, count), ("+Inf", count))
    )
    return (
        f"# TYPE {name} histogram\n{buckets}{name}_sum{{{labels}}} {high * count!r}\n{name}_count{{{labels}}} {count}\n"
    )


def _times(labels: str, load: Load, ttft: str, itl: str, latency: str) -> str:
    return (
        _histogram(ttft, labels, 0.1, 0.2, load.finished)
        + _histogram(itl, labels, 0.01, 0.02, load.finished)
        + _histogram(latency, labels, 1.0, 2.5, load.finished)
    )


def vllm(load: Load, ranks: int = 1) -> str:
    """vLLM 0.11 and newer: each data-parallel rank has requests of its own; all load is shared evenly."""
    page = ""
    for rank in range(ranks):
        at = f'engine="{rank}",model_name="m"'
        page += _lines(
            at,
            {
                "vllm:num_requests_running": load.running / ranks,
                "vllm:num_requests_waiting": load.waiting / ranks,
                "vllm:kv_cache_usage_perc": load.kv if rank == 0 else 0.0,
                "vllm:prompt_tokens_total": 10 * load.finished / ranks,
                "vllm:generation_tokens_total": 30 * load.finished / ranks,
            },
        )
        page += _lines(f'{at},reason="capacity"', {"vllm:num_requests_waiting_by_reason": load.waiting / ranks})
        for reason in ("stop", "length"):
            finished = {"vllm:request_success_total": load.finished / ranks / 2}
            page += _lines(f'{at},finished_reason="{reason}"', finished)
    at = 'engine="0",model_name="m"'
    stem = "vllm:{}_seconds".format
    return page + _times(
        at, load, stem("time_to_first_token"), stem("inter_token_latency"), stem("e2e_request_latency")
    )


def vllm_older(load: Load) -> str:
    """vLLM before the label `engine`, with the older names of the cache and of the time per token."""
    names = {
        "vllm:num_requests_running": load.running,
        "vllm:num_requests_swapped": 0,
        "vllm:num_requests_waiting": load.waiting,
        "vllm:gpu_cache_usage_perc": load.kv,
        "vllm:cpu_cache_usage_perc": 0.9,
        "vllm:prompt_tokens_total": 10 * load.finished,
        "vllm:generation_tokens_total": 30 * load.finished,
    }
    at, stem = 'model_name="m"', "vllm:{}_seconds".format
    return (
        _lines(at, names)
        + _lines(f'finished_reason="stop",{at}', {"vllm:request_success_total": load.finished})
        + _times(at, load, stem("time_to_first_token"), stem("time_per_output_token"), stem("e2e_request_latency"))
    )


def sglang(load: Load, tp: int = 1, dp: int = 0, mark: str = ":", itl: str = "inter_token_latency") -> str:
    """SGLang. `tp` ranks print the same numbers; `dp` ranks (0: no such label) have requests of their own."""
    page = ""
    for data in range(max(dp, 1)):
        for tensor in range(tp):
            at = f'engine_type="unified",model_name="m",moe_ep_rank="{tensor}",pp_rank="0",tp_rank="{tensor}"'
            page += _lines(
                f'dp_rank="{data}",{at}' if dp else at,
                {
                    f"sglang{mark}num_running_reqs": load.running / max(dp, 1),
                    f"sglang{mark}num_queue_reqs": load.waiting / max(dp, 1),
                    f"sglang{mark}token_usage": load.kv,
                    f"sglang{mark}gen_throughput": 99.0,
                },
            )
    at, stem = 'model_name="m"', f"sglang{mark}{{}}_seconds".format
    counters = {
        f"sglang{mark}prompt_tokens_total": 10 * load.finished,
        f"sglang{mark}generation_tokens_total": 30 * load.finished,
        f"sglang{mark}num_requests_total": load.finished,
    }
    return (
        page
        + _lines(at, counters)
        + _times(at, load, stem("time_to_first_token"), stem(itl), stem("e2e_request_latency"))
    )


def sglang_priorities(load: Load) -> str:
    """SGLang with priority scheduling: a total, and beside it what each priority has of it."""
    page = sglang(load).replace('model_name="m",moe', 'model_name="m",priority="",moe')
    at = 'engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",priority="{}",tp_rank="0"'.format
    parts = {"sglang:num_running_reqs": load.running / 2, "sglang:num_queue_reqs": load.waiting / 2}
    return page + _lines(at(0), parts) + _lines(at(7), parts)


def tgi(load: Load) -> str:
    """TGI: gauges without labels, no TYPE line that matters, tokens as sums of histograms."""
    at = 'method="single"'
    return (
        f"tgi_batch_current_size {load.running}\ntgi_queue_size {load.waiting}\n"
        + _lines(at, {"tgi_request_success": load.finished, "tgi_request_count": load.finished + load.running})
        + f"tgi_request_input_length_sum {10 * load.finished}\ntgi_request_input_length_count {load.finished}\n"
        + f"tgi_request_generated_tokens_sum {30 * load.finished}\ntgi_request_generated_tokens_count {load.finished}\n"
        + _histogram("tgi_request_mean_time_per_token_duration", at, 0.01, 0.02, load.finished)
        + _histogram("tgi_request_duration", at, 1.0, 2.5, load.finished)
        + _histogram("tgi_request_queue_duration", at, 3.0, 4.0, load.finished)
    )


def nim(load: Load) -> str:
    """NIM for LLMs: vLLM's older names without prefix, at /v1/metrics."""
    at = 'model_name="m"'
    names = {
        "num_requests_running": load.running,
        "num_requests_waiting": load.waiting,
        "num_request_max": 256,
        "gpu_cache_usage_perc": load.kv,
        "prompt_tokens_total": 10 * load.finished,
        "generation_tokens_total": 30 * load.finished,
        "request_success_total": load.finished,
        "request_failure_total": 0,
    }
    stem = "{}_seconds".format
    return _lines(at, names) + _times(
        at, load, stem("time_to_first_token"), stem("time_per_output_token"), stem("e2e_request_latency")
    )


def triton(load: Load) -> str:
    """Triton with histogram latencies switched on: milliseconds there, microseconds in the sums."""
    at = 'model="m",version="1"'
    names = {
        "nv_inference_request_success": load.finished,
        "nv_inference_request_failure": 0,
        "nv_inference_pending_request_count": load.waiting,
        "nv_inference_request_duration_us": 1.75e6 * load.finished,
        "nv_inference_queue_duration_us": 5.0 * load.finished,
    }
    first = _histogram("nv_inference_first_response_histogram_ms", at, 100, 200, load.finished)
    return _lines(at, names) + first + "nv_gpu_utilization 0.5\n"


def tensorrt_llm(load: Load) -> str:
    """trtllm-serve, at /prometheus/metrics."""
    at = 'engine_type="trtllm",model_name="m"'
    names = {
        "trtllm_num_requests_running": load.running,
        "trtllm_num_requests_waiting": load.waiting,
        "trtllm_kv_cache_utilization": load.kv,
        "trtllm_kv_cache_hit_rate": 0.9,
        "trtllm_prompt_tokens_total": 10 * load.finished,
        "trtllm_generation_tokens_total": 30 * load.finished,
    }
    return _lines(at, names) + tensorrt_llm_older(load)


def tensorrt_llm_older(load: Load) -> str:
    """trtllm-serve when it printed finished requests and latencies only."""
    at, stem = 'engine_type="trtllm",model_name="m"', "trtllm_{}_seconds".format
    finished = _lines(f'{at},finished_reason="stop"', {"trtllm_request_success_total": load.finished})
    return finished + _times(
        at, load, stem("time_to_first_token"), stem("time_per_output_token"), stem("e2e_request_latency")
    )


def dynamo_frontend(load: Load, prefix: str = "dynamo_frontend_") -> str:
    """Dynamo's frontend: in flight is from begin to end, queued until the first token, so queued is a part of it."""
    at, stem = 'model="m"', f"{prefix}{{}}_seconds".format
    names = {
        f"{prefix}inflight_requests": load.running + load.waiting,
        f"{prefix}queued_requests": load.waiting,
        f"{prefix}input_sequence_tokens_sum": 10 * load.finished,
        f"{prefix}output_sequence_tokens_sum": 30 * load.finished,
    }
    done = 'endpoint="chat_completions",model="m",request_type="stream",status="success"'
    return (
        _lines(at, names)
        + _lines(done, {f"{prefix}requests_total": load.finished})
        + _times(at, load, stem("time_to_first_token"), stem("inter_token_latency"), stem("request_duration"))
    )


def dynamo_worker(load: Load) -> str:
    """A component of Dynamo whose engine prints nothing of its own."""
    at = 'dynamo_component="backend",dynamo_endpoint="generate",dynamo_namespace="ns"'
    names = {
        "dynamo_component_inflight_requests": load.running + load.waiting,
        "dynamo_component_requests_total": load.finished,
    }
    kv = 'dp_rank="{}",dynamo_component="backend"'.format
    usage = "dynamo_component_kvstats_gpu_cache_usage_percent"
    return (
        _lines(at, names)
        + _lines(kv(0), {usage: load.kv})
        + _lines(kv(1), {usage: 0.0})
        + _histogram("dynamo_component_request_duration_seconds", at, 1.0, 2.5, load.finished)
    )


PAGES: Final[Mapping[str, Callable[[Load], str]]] = {
    "vllm": vllm,
    "vllm, four data-parallel ranks": lambda load: vllm(load, ranks=4),
    "vllm, older names": vllm_older,
    "sglang": sglang,
    "sglang, eight tensor-parallel ranks": lambda load: sglang(load, tp=8),
    "sglang, two data-parallel groups of four ranks": lambda load: sglang(load, tp=4, dp=2),
    "sglang, priorities": sglang_priorities,
    "sglang, underscores": lambda load: sglang(load, mark="_"),
    "sglang, older names": lambda load: sglang(load, itl="time_per_output_token"),
    "tgi": tgi,
    "nim": nim,
    "triton": triton,
    "tensorrt-llm": tensorrt_llm,
    "tensorrt-llm, older": tensorrt_llm_older,
    "dynamo, frontend": dynamo_frontend,
    "dynamo, frontend, older names": lambda load: dynamo_frontend(load, "nv_llm_http_service_"),
    "dynamo, worker": dynamo_worker,
    "dynamo, worker that shows vllm": lambda load: dynamo_worker(load) + vllm(load),
}
