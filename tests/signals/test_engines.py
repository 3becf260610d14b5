"""Every engine and generation of names: the same load gives the same readings, and what is not shown has a reason."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.model.signal import Quality, Reading, SignalSpec, WorkloadSignals
from autoscaler.model.workload import Engine
from autoscaler.signals.engines import ENGINES, NEEDS, Kind, recognise
from autoscaler.signals.pages import plan_for, read_page
from autoscaler.signals.readings import WorkloadReadings
from autoscaler.signals.scanner import labels_of, scan
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.signals.engine_pages import PAGES, Load, sglang, triton, vllm

SPECS = tuple(SignalSpec(signal, 1.0, 1.0, percentile=0.5) for signal in NEEDS)
NAMES = tuple(spec.name for spec in SPECS)
# 3 running and 2 waiting; between two pages 2 s apart 10 requests finish.
WHOLE = {
    "concurrency": 5.0,
    "queue": 2.0,
    "throughput": 5.0,
    "tokens": 200.0,
    "latency": 1.75,
    "ttft": 0.15,
    "itl": 0.015,
    "kv-cache": 0.25,
}


def read(*pages: str, seconds: float = 2.0) -> tuple[Engine | None, WorkloadSignals]:
    """One pod that shows these pages one after the other, and what is known after the last."""
    engine = recognise(pages[0].encode())
    plan = plan_for(engine or Engine.CUSTOM, NAMES)
    target = ScrapeTarget(8000, "/metrics", Engine.AUTO, SPECS, (PodAddress("p", "u", "10.0.0.1"),))
    workload = WorkloadReadings(target, 60.0)
    at_s = 10.0
    for page in pages:
        workload.pods["u"].observe(plan, read_page(page.encode(), plan, at_s), at_s, 60.0)
        at_s += seconds
    workload.sample(at_s - seconds, at_s - seconds, 1.0)
    return engine, workload.signals(at_s - seconds, 1.0)


def shown(reading: Reading) -> float | str | None:
    """The value; where there is none, why."""
    if reading.value is not None and reading.quality is Quality.FRESH:
        return reading.value
    return reading.faults[0].reason if reading.faults else None


def without(**missing: str) -> dict[str, float | str]:
    return {**WHOLE, **{name.replace("_", "-"): reason for name, reason in missing.items()}}


def lacks(engine: str, quantity: str) -> str:
    return f"{engine} has no series for {quantity}"


TRITON = without(
    concurrency=lacks("triton", "running requests"),
    tokens=lacks("triton", "prompt tokens"),
    latency=lacks("triton", "end-to-end latency"),
    itl=lacks("triton", "inter-token latency"),
    kv_cache=lacks("triton", "used KV cache"),
)
OLDER_TENSORRT_LLM = without(
    concurrency="tensorrt-llm: no such series: trtllm_num_requests_running",
    queue="tensorrt-llm: no such series: trtllm_num_requests_waiting",
    tokens="tensorrt-llm: no such series: trtllm_prompt_tokens_total",
    kv_cache="tensorrt-llm: no such series: trtllm_kv_cache_utilization",
)
FRONTEND = without(kv_cache="dynamo: no such series: dynamo_component_kvstats_gpu_cache_usage_percent")
WORKER = without(
    queue="dynamo: no such series: dynamo_frontend_queued_requests",
    tokens="dynamo: no such series: dynamo_frontend_input_sequence_tokens_sum",
    ttft="dynamo: no such series: dynamo_frontend_time_to_first_token_seconds",
    itl="dynamo: no such series: dynamo_frontend_inter_token_latency_seconds",
)


@pytest.mark.parametrize(
    ("name", "engine", "expected"),
    [
        ("vllm", Engine.VLLM, WHOLE),
        ("vllm, four data-parallel ranks", Engine.VLLM, WHOLE),
        ("vllm, older names", Engine.VLLM, WHOLE),
        ("sglang", Engine.SGLANG, WHOLE),
        ("sglang, eight tensor-parallel ranks", Engine.SGLANG, WHOLE),
        ("sglang, two data-parallel groups of four ranks", Engine.SGLANG, WHOLE),
        ("sglang, priorities", Engine.SGLANG, WHOLE),
        ("sglang, underscores", Engine.SGLANG, WHOLE),
        ("sglang, older names", Engine.SGLANG, WHOLE),
        ("tgi", Engine.TGI, without(ttft=lacks("tgi", "time to first token"), kv_cache=lacks("tgi", "used KV cache"))),
        ("nim", Engine.NIM, WHOLE),
        ("triton", Engine.TRITON, TRITON),
        ("tensorrt-llm", Engine.TENSORRT_LLM, WHOLE),
        ("tensorrt-llm, older", Engine.TENSORRT_LLM, OLDER_TENSORRT_LLM),
        ("dynamo, frontend", Engine.DYNAMO, FRONTEND),
        ("dynamo, frontend, older names", Engine.DYNAMO, FRONTEND),
        ("dynamo, worker", Engine.DYNAMO, WORKER),
        ("dynamo, worker that shows vllm", Engine.VLLM, WHOLE),
    ],
)
def test_the_same_load_reads_the_same(name: str, engine: Engine, expected: dict[str, float | str]) -> None:
    page = PAGES[name]
    found, signals = read(page(Load(finished=100)), page(Load(finished=110)))
    values = {key: shown(reading) for key, reading in signals.readings.items()}
    assert found is engine
    assert values == {key: value if isinstance(value, str) else pytest.approx(value) for key, value in expected.items()}


def test_every_engine_and_every_spelling_stands_on_some_page() -> None:
    read_by_tests = {recognise(page(Load()).encode()) for page in PAGES.values()}
    assert read_by_tests == set(ENGINES)
    everything = "\n".join(page(Load()) for page in PAGES.values()).encode()
    sources = [source for words in ENGINES.values() for source in words.sources.values()]
    names = {
        name + b"_bucket" if source.kind is Kind.HISTOGRAM else name for source in sources for name in source.names
    }
    absent = {name for name in names if scan(everything, [name])[name].fault is not None}
    # time_per_output_token exists under the colon alone: those builds are older than the underscore
    assert absent == {b"request_finish_total", b"sglang_time_per_output_token_seconds_bucket"}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_the_scanner_finds_on_it_what_the_general_parser_finds(page: Callable[[Load], str]) -> None:
    text = page(Load(finished=7))
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    for name in {sample.name for sample in samples}:
        expected = sorted((tuple(sorted(one.labels.items())), one.value) for one in samples if one.name == name)
        found = scan(text.encode(), [name.encode()])[name.encode()].samples
        assert sorted((labels_of(raw) or (), value) for raw, value in found) == expected


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ("triton", "tensorrt-llm, older")])
def test_idleness_is_proven_where_the_engine_shows_what_runs(name: str) -> None:
    idle, busy = PAGES[name](Load(0, 0, 7)), PAGES[name](Load(1, 0, 7))
    assert read(idle, idle)[1].activity.value == 0.0
    assert read(idle, idle)[1].activity.quality is Quality.FRESH
    assert read(busy, busy)[1].activity.value == 1.0


def test_an_engine_that_does_not_show_what_runs_is_never_proven_idle() -> None:
    idle = triton(Load(0, 0, 7))
    activity = read(idle, idle)[1].activity
    assert (activity.quality, shown(activity)) == (Quality.ABSENT, "triton has no series for running requests")


def test_a_page_from_before_the_first_request_is_of_no_engine() -> None:
    assert recognise(b"# HELP tgi_queue_size Queue\n# TYPE tgi_queue_size gauge\nprocess_cpu_seconds_total 1\n") is None


def test_names_inside_other_names_and_labels_give_no_engine_away() -> None:
    page = b'my_num_requests_running{a="vllm:"} 1\nnum_requests_running_total 1\nnum_requests_runningx 1\n'
    assert recognise(page) is None


def test_copies_that_disagree_count_as_the_largest() -> None:
    page = sglang(Load(running=4), tp=2)
    behind = page.replace("} 4.0", "} 3.0", 1)  # rank 0 has not written yet that one more runs
    assert behind != page
    assert read(behind, behind)[1].readings["concurrency"].value == 6.0


def test_a_counter_of_ranks_stays_itself_whichever_rank_is_printed_first() -> None:
    """A label set that changes its name from page to page would be counted anew, from zero."""

    def page(*ranks: int, finished: int) -> str:
        return sglang(Load(finished=finished)).replace(
            f'sglang:num_requests_total{{model_name="m"}} {float(finished)!r}\n',
            "".join(f'sglang:num_requests_total{{model_name="m",tp_rank="{rank}"}} {finished}\n' for rank in ranks),
        )

    pages = [page(0, 1, finished=1000), page(1, 0, finished=1010), page(1, finished=1020)]
    for before, after in pairwise(pages):
        assert read(before, after)[1].readings["throughput"].value == 5.0


@pytest.mark.parametrize("page", [vllm, sglang], ids=["vllm", "sglang"])
def test_counters_and_buckets_that_began_anew_count_from_zero(page: Callable[[Load], str]) -> None:
    _, signals = read(page(Load(finished=1000)), page(Load(finished=4)))
    assert signals.readings["throughput"].value == 2.0
    assert signals.readings["latency"].value == pytest.approx(1.75)


def test_a_share_that_is_a_percentage_is_no_share() -> None:
    page = vllm(Load(kv=45.0))
    reading = read(page, page)[1].readings["kv-cache"]
    assert (reading.quality, shown(reading)) == (Quality.ABSENT, "absurdly large")
