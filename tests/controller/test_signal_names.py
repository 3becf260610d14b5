"""What a metric's name means: a signal, a foreign name of one, a query of the configuration, a metric of the pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.controller.specs import Operator, Unresolved, resolve
from autoscaler.model.aliases import ALIASES
from autoscaler.model.signal import Shape, SignalSpec
from autoscaler.model.workload import ActivationQuery, WorkloadSpec
from autoscaler.settings.load import load
from autoscaler.settings.yaml12 import read_documents
from autoscaler.signals.queries import named_query
from autoscaler.wiring import operator_of
from tests.controller.test_specs import TEMPLATE, resolved, stored

PENDING = 'sum(pending{namespace="{namespace}", service="{workload}"})'
OPERATOR = Operator(
    queries={
        "gateway-pending": named_query(PENDING, Shape.TOTAL, 15.0),
        "busy_share": named_query('avg(busy{pod=~"{pods}"})', Shape.LEVEL, 5.0),
    },
    pages=frozenset({"gateway"}),
)


def signal(metric: str, threshold: int | str, engine: str = "auto") -> SignalSpec:
    asked = {"maxReplicas": 4, "metric": metric, "metricThreshold": threshold}
    serving = {"port": 8000, "deployment": {"template": TEMPLATE}, "engine": engine}
    found = resolved(asked, OPERATOR, serving=serving).scaling.signal
    assert found is not None
    return found


def refusal(autoscaling: dict[str, Any]) -> str:
    found = resolve(stored(autoscaling), OPERATOR)
    assert isinstance(found, Unresolved)
    assert (found.condition, found.reason) == ("ScalingActive", "InvalidConfiguration")
    return found.message


@pytest.mark.parametrize(
    ("name", "threshold", "means", "base", "target", "percentile"),
    [
        ("inference_active_requests", 10, "concurrency", 10, 7, 0.99),
        ("inference_request_latency_p99", "500m", "latency", 0.5, 0.25, 0.99),
        ("inference_request_latency_p99", 500, "latency", 0.5, 0.25, 0.99),
        ("inference_requests_per_second", 50, "throughput", 50, 35, 0.99),
        ("inference_throughput", 50, "throughput", 50, 35, 0.99),
        ("nim_request_concurrency", "10", "concurrency", 10, 7, 0.99),
        ("nim_time_to_first_token", 200, "ttft", 0.2, 0.1, 0.99),
        ("nim_gpu_kv_cache_utilization", 80, "kv-cache", 0.8, 0.72, 0.99),
        ("nim_gpu_kv_cache_utilization", "800m", "kv-cache", 0.8, 0.72, 0.99),
        ("nim_tokens_per_second", "2k", "tokens", 2000, 2000, 0.99),
        ("gpu_utilization", 70, "gpu-utilization", 0.7, 0.7, 0.99),
        ("gpu_utilization", "0.7", "gpu-utilization", 0.7, 0.7, 0.99),
        ("gpu_memory_used", "40Gi", "gpu-memory", 40 * 1024**3, 40 * 1024**3, 0.99),
        ("gpu-memory", "1440G", "gpu-memory", 1.44e12, 1.44e12, 0.99),
    ],
)
def test_a_foreign_name_means_a_signal_and_stays_its_name(
    name: str, threshold: int | str, means: str, base: float, target: float, percentile: float
) -> None:
    found = signal(name, threshold)
    assert (found.name, found.signal, found.percentile) == (name, means, percentile)
    assert found.threshold == pytest.approx(base)
    assert found.target == pytest.approx(target)
    assert found.shape is SignalSpec(means, 1, 1).shape


def test_a_percentage_and_a_percentile_concern_foreign_names_too() -> None:
    further = [{"metric": "nim_time_to_first_token", "threshold": 200, "percentile": 90}]
    asked = {"maxReplicas": 4, "metric": "inference_active_requests", "metricThreshold": 10, "signals": further}
    first, second = resolved(asked | {"metricThresholdPercentage": 50}).scaling.signals
    assert (first.target, second.percentile) == (5.0, 0.9)


def test_with_engine_custom_the_pods_own_series_of_a_foreign_name_is_read() -> None:
    for name in ALIASES.keys() - {"gpu_utilization", "gpu_memory_used"}:
        found = signal(name, 80, engine="custom")
        assert (found.signal, found.threshold, found.target) == (name, 80.0, 80.0), name
    assert signal("gpu_utilization", 80, engine="custom").signal == "gpu-utilization"
    assert signal("inference_active_requests", 80, engine="vllm").signal == "concurrency"


def test_a_query_has_its_own_unit_and_shape() -> None:
    total, level = signal("gateway-pending", 20), signal("busy_share", "500m")
    assert (total.query, total.shape, total.threshold, total.target) == (Shape.TOTAL, Shape.TOTAL, 20.0, 20.0)
    assert (level.query, level.shape, level.target) == (Shape.LEVEL, Shape.LEVEL, 0.5)
    assert signal("some_metric", 3).query is None


def test_a_name_with_a_dash_that_nothing_has_is_refused_with_what_there_is() -> None:
    said = refusal({"maxReplicas": 4, "metric": "gateway-pendign", "metricThreshold": 20})
    assert said.startswith("autoscaling.metric is 'gateway-pendign', which pods cannot expose; allowed: concurrency, ")
    assert said.endswith("the configuration's queries are: busy_share, gateway-pending")
    further = [{"metric": "kv-cash", "threshold": 1}]
    asked = {"maxReplicas": 4, "metric": "queue", "metricThreshold": 2, "signals": further}
    assert refusal(asked).startswith("autoscaling.signals.metric is 'kv-cash'")


@pytest.mark.parametrize(
    ("metric", "threshold", "says"),
    [
        (
            "gpu_utilization",
            101,
            "metricThreshold is 101, no share; allowed: a whole number of percent up to 100, or",
        ),
        ("gpu_utilization", "1.5", "metricThreshold is 1.5, no share; allowed: a whole number of percent"),
        ("gpu-utilization", 70, "metricThreshold is 70, no share; allowed: a quantity up to 1, e.g. 800m"),
        ("nim_gpu_kv_cache_utilization", "2k", "metricThreshold is 2k, no share"),
        ("gpu-memory", "2P", "metricThreshold is 2P, must be from 1e-06 to 1e+15"),
        ("gateway-pending", None, "metricThreshold is required with metric gateway-pending"),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(metric: str, threshold: int | str | None, says: str) -> None:
    assert says in refusal({"maxReplicas": 4, "metric": metric, "metricThreshold": threshold})


def test_two_names_of_one_signal_are_refused() -> None:
    further = [{"metric": "inference_active_requests", "threshold": 5}]
    asked = {"maxReplicas": 4, "metric": "concurrency", "metricThreshold": 5, "signals": further}
    assert "each metric once, not concurrency, inference_active_requests (which is concurrency)" in refusal(asked)


def test_a_query_wakes_a_workload_if_it_can_be_asked_without_pods() -> None:
    asked = {"minReplicas": 0, "metric": "queue", "metricThreshold": 5, "maxReplicas": 4}
    found = resolved(asked | {"activation": {"query": "gateway-pending"}}, OPERATOR)
    assert found.scaling.activation == ActivationQuery("gateway-pending", found.key)
    unknown = refusal(asked | {"activation": {"query": "pending"}})
    assert (
        unknown
        == "autoscaling.activation.query is 'pending'; the configuration's queries are: busy_share, gateway-pending"
    )
    assert "asks for {pods}, and a workload at 0 replicas has none" in refusal(
        asked | {"activation": {"query": "busy_share"}}
    )


def test_all_names_that_the_guides_use_are_known() -> None:
    inference = ("active_requests", "request_latency_p99", "requests_per_second", "throughput")
    nim = ("request_concurrency", "time_to_first_token", "gpu_kv_cache_utilization", "tokens_per_second")
    gpu = ("utilization", "memory_used")
    named = {"inference": inference, "nim": nim, "gpu": gpu}
    assert ALIASES.keys() == {f"{prefix}_{name}" for prefix, names in named.items() for name in names}


def test_the_examples_with_a_prometheus_fit_together() -> None:
    examples = Path(__file__).parents[2] / "config" / "examples"
    operator = operator_of(load(examples / "prometheus.yaml", {}).config)
    assert {name: query.shape for name, query in operator.queries.items()} == {
        "gateway-pending": Shape.TOTAL,
        "slowest-tenant": Shape.LEVEL,
    }
    [document] = read_documents((examples / "by-query.yaml").read_text())
    found = resolve(msgspec.convert(document.value, InferenceWorkload), operator)
    assert isinstance(found, WorkloadSpec)
    assert [each.name for each in found.scaling.signals] == ["gateway-pending", "gpu_utilization"]
    assert found.scaling.activation == ActivationQuery("gateway-pending", found.key)
