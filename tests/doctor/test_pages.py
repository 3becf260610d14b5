"""What the doctor says of pages, exit statuses, and that it asks for the rights that the chart grants."""

from __future__ import annotations

import pytest

from autoscaler.cli.doctor import lines_of
from autoscaler.doctor.cluster import Lease, Right, fields_of, rights
from autoscaler.doctor.findings import Exit, Finding, Level, counted, exit_of
from autoscaler.doctor.pages import judge
from autoscaler.doctor.patients import Patient
from autoscaler.doctor.prometheus import fix_of
from autoscaler.doctor.series import similar, stem_of
from autoscaler.model.signal import SignalSpec
from autoscaler.model.workload import (
    DesiredPhase,
    Engine,
    Mode,
    Priority,
    Protocol,
    ScalingSpec,
    ServingSpec,
    WorkloadKey,
    WorkloadSpec,
)
from autoscaler.settings.config import Config
from autoscaler.settings.crd import inference_workload_crd
from autoscaler.signals.faults import Fault
from autoscaler.signals.prometheus import Access, Failure
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from autoscaler.wiring import operator_of
from tests.chart.test_rights import OF_THE_LEASE, USED

PAGE = """\
vllm:num_requests_running 3
vllm:num_requests_waiting 2
vllm:request_success_total 7
vllm:kv_cache_usage_perc 0.4
"""
PODS = ("a", "b", "c")


def patient(metric: str, engine: Engine = Engine.AUTO, least: int = 1) -> Patient:
    signal = SignalSpec(metric, 10.0, 7.0)
    spec = WorkloadSpec(
        WorkloadKey("ml", "llama"),
        "uid",
        1,
        0.0,
        DesiredPhase.RUNNING,
        Mode.ACTIVE,
        "ml",
        "default",
        Priority.VERY_HIGH,
        ServingSpec(8000, Protocol.HTTP, 8000, "/metrics", engine),
        ScalingSpec(least, 8, 1, 1, signal),
        {},
        "llama",
        True,
    )
    pods = tuple(PodAddress(name, name, "10.0.0.1") for name in PODS)
    return Patient(spec, ScrapeTarget(8000, "/metrics", engine, (signal,), pods))


def judged(of: Patient, *pages: str) -> list[Finding]:
    shown: list[bytes | str] = [page if page in [*Fault, "http 404"] else page.encode() for page in pages]
    return list(judge(of, dict(zip(PODS, shown, strict=False)), Level.ERROR))


def test_pages_that_show_what_is_scaled_by() -> None:
    (well,) = judged(patient("concurrency"), PAGE, PAGE)
    assert (well.level, well.message) == (Level.OK, "concurrency: shown by 2 of 2 pods (a, b)")


@pytest.mark.parametrize(
    ("metric", "engine", "page", "says", "fix"),
    [
        (
            "concurrency",
            Engine.VLLM,
            PAGE.replace("vllm:", "acme:"),
            "no series vllm:num_requests_running",
            "there is acme:num_requests_running",
        ),
        (
            "concurrency",
            Engine.AUTO,
            PAGE.replace("vllm:", "acme:"),
            "no known engine",
            "there is acme:num_requests_running",
        ),
        ("concurrency", Engine.AUTO, "up 1\n", "no known engine", "set serving.engine"),
        (
            "kv-cache",
            Engine.AUTO,
            PAGE.replace("0.4", "41"),
            "above 2, for 1 of 1 pods (a): a share is 0..1, so this looks like percent",
            "divide it by 100",
        ),
        (
            "kv-cache",
            Engine.AUTO,
            PAGE.replace("0.4", "1.4"),
            "above 1, for 1 of 1 pods (a): a share is 0..1; percent?",
            "divide it by 100",
        ),
        (
            "ttft",
            Engine.SGLANG,
            "sglang:num_running_reqs 1\n",
            "no series sglang:time_to_first_token_seconds_bucket",
            "--enable-metrics",
        ),
        (
            "kv-cache",
            Engine.TGI,
            "tgi_queue_size 1\n",
            "tgi has no series for used KV cache, which kv-cache needs",
            "set autoscaling.metric to one that it has: concurrency, queue, throughput, tokens, latency, itl",
        ),
        (
            "queue",
            Engine.AUTO,
            PAGE.replace("waiting 2", "waiting NaN"),
            "its value is not a number",
            "engine's own log",
        ),
        (
            "concurrency",
            Engine.AUTO,
            "http 404",
            "port 8000, path /metrics: http 404, for 1 of 1 pods (a)",
            "set serving.metrics.path",
        ),
        ("concurrency", Engine.AUTO, Fault.REFUSED, "refused", "set serving.metrics.port"),
    ],
)
def test_pages_that_do_not(metric: str, engine: Engine, page: str, says: str, fix: str) -> None:
    found = judged(patient(metric, engine), page)
    assert any(says in each.message and fix in each.fix for each in found), found
    assert all(each.level in (Level.ERROR, Level.WARNING) for each in found)


def test_one_trouble_of_several_pods_is_told_once() -> None:
    found = judged(patient("queue"), PAGE, Fault.TIME_OUT, Fault.TIME_OUT)
    assert [each.message for each in found] == [
        "port 8000, path /metrics: time-out, for 2 of 3 pods (b, c)",
        "queue: shown by 1 of 3 pods (a)",
    ]


def test_the_proof_of_idleness_matters_on_the_way_to_zero_alone() -> None:
    page = PAGE.replace("vllm:request_success_total 7\n", "")
    assert [each.level for each in judged(patient("queue"), page)] == [Level.OK]
    assert "which activity needs" in judged(patient("queue", least=0), page)[0].message
    assert (
        "never at zero"
        in judged(patient("queue", Engine.TRITON, 0), "nv_inference_pending_request_count 0\n")[0].message
    )


def test_a_name_without_its_prefix() -> None:
    assert stem_of("vllm:num_requests_running") == "num_requests_running"
    assert similar("vllm:kv_cache_usage_perc", ["x", "my_kv_cache_usage_perc", "kv_cache_usage_perc"]) == [
        "kv_cache_usage_perc",
        "my_kv_cache_usage_perc",
    ]


def test_it_asks_for_the_rights_that_the_chart_grants() -> None:
    kinds = [
        (version.rpartition("/")[0], plural) for (version, _), plural in operator_of(Config()).target_kinds.items()
    ]
    asked = rights(["a", "b"], Lease("c", "tidegate"), kinds)
    assert len(asked) == len(set(asked))
    of_a = {(each.group, each.resource, each.verb) for each in asked if each.namespace == "a"}
    assert of_a == USED
    assert {(each.group, each.resource, each.verb) for each in asked if each.namespace == "c"} == OF_THE_LEASE
    assert len(asked) == 2 * len(USED) + len(OF_THE_LEASE)
    more = set(rights(["a", "b"], Lease("c", "tidegate"), kinds, nodes=True)) - set(asked)
    assert more == {Right("", "nodes", verb) for verb in ("list", "watch")}


def test_fields_are_compared_by_name() -> None:
    schema = inference_workload_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = set(fields_of(schema))
    assert {"spec.autoscaling.signals.metric", "spec.serving.port", "status.conditions.reason"} <= fields
    assert not any(field.startswith("metadata") for field in fields)


@pytest.mark.parametrize(
    ("levels", "in_time", "status"),
    [
        ([Level.OK, Level.SKIPPED], True, Exit.OK),
        ([Level.OK, Level.WARNING], True, Exit.DEGRADED),
        ([Level.WARNING, Level.ERROR], True, Exit.ERROR),
        ([Level.OK], False, Exit.TIMEOUT),
    ],
)
def test_the_exit_status(levels: list[Level], in_time: bool, status: Exit) -> None:
    findings = [Finding(level, "check", "subject", "message") for level in levels]
    assert exit_of(findings, in_time) is status
    assert sum(counted(findings).values()) == len(levels)


def test_a_fix_stands_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    fix = "helm upgrade " + "with-many-values " * 12
    lines = lines_of([Finding(Level.ERROR, "rights", "ours", "may not patch " * 12, fix)], 80)
    assert lines[0].startswith("✖ error    rights ours: may not patch")
    assert [line for line in lines if "fix:" in line] == [f"           fix: {fix}"]
    assert all(len(line) <= 80 for line in lines if "fix:" not in line)


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (Failure("http 401"), "set prometheus.bearerTokenFile or prometheus.basicAuth"),
        (Failure("http 404"), "must end where /api/v1 begins"),
        (Failure("http 302"), "redirects are not followed"),
        (Failure(Fault.REFUSED), "--prometheus http://127.0.0.1:9090"),
        (Failure(Fault.UNREACHABLE, "certificate verify failed: unable to get"), "set prometheus.tls.caFile"),
        (Failure(Fault.NO_ANSWER), "correct prometheus.url"),
    ],
)
def test_each_failure_of_prometheus_has_its_fix(failure: Failure, says: str) -> None:
    assert says in fix_of(failure, Access("http://prometheus:9090"))
