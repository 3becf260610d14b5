"""Resolving a stored object and the operator's word into seconds, ratios and one project."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.controller.specs import Operator, Resolver, Unresolved, demand_of_pods, resolve
from autoscaler.model.workload import ActivationSpec, KpaParameters, WorkloadSpec

TEMPLATE = {"spec": {"containers": [{"name": "m", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]}}


def stored(autoscaling: dict[str, Any] | None = None, **spec: Any) -> InferenceWorkload:
    body = {
        "metadata": {"name": "llama", "namespace": "ml", "uid": "u", "creationTimestamp": "1970-01-01T00:01:00Z"},
        "spec": {"serving": {"port": 8000, "deployment": {"template": TEMPLATE}}, "autoscaling": autoscaling} | spec,
    }
    return msgspec.convert(body, InferenceWorkload)


def resolved(autoscaling: dict[str, Any] | None = None, operator: Operator | None = None, **spec: Any) -> WorkloadSpec:
    found = resolve(stored(autoscaling, **spec), operator or Operator())
    assert isinstance(found, WorkloadSpec)
    return found


def test_what_is_unset_takes_the_built_in_defaults() -> None:
    spec = resolved()
    scaling, serving = spec.scaling, spec.serving
    assert (scaling.min_replicas, scaling.max_replicas, scaling.initial_replicas, scaling.activation_replicas) == (
        1,
        1,
        1,
        1,
    )
    assert (serving.metrics_port, serving.metrics_path, serving.engine) == (8000, "/metrics", "auto")
    assert (spec.project, spec.priority, spec.service, spec.own_service, spec.created_at) == (
        "ml",
        "very-high",
        "llama",
        True,
        60.0,
    )
    assert spec.per_replica == {"nvidia.com/gpu": 2000}


def gpus(count: int) -> dict[str, Any]:
    limits = {"nvidia.com/gpu": str(count), "cpu": "1"}
    return {"spec": {"containers": [{"name": "m", "resources": {"limits": limits}}]}}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"size": 4, "leaderTemplate": gpus(1), "workerTemplate": gpus(8)}, {"nvidia.com/gpu": 25_000, "cpu": 4000}),
        ({"size": 4, "workerTemplate": gpus(8)}, {"nvidia.com/gpu": 32_000, "cpu": 4000}),
        ({"size": 1, "leaderTemplate": gpus(1), "workerTemplate": gpus(8)}, {"nvidia.com/gpu": 1000, "cpu": 1000}),
    ],
    ids=["a leader and three workers", "all alike", "a leader alone"],
)
def test_a_replica_that_is_a_group_is_charged_for_all_of_its_pods(
    groups: dict[str, Any], expected: dict[str, int]
) -> None:
    assert resolved(serving={"port": 8000, "leaderWorkerSet": groups}).per_replica == expected


def test_the_pods_of_a_group_are_charged_one_by_one() -> None:
    identity = {"port": 8000, "leaderWorkerSet": {"size": 4, "leaderTemplate": gpus(1), "workerTemplate": gpus(8)}}
    assert demand_of_pods(identity, leaders=2, workers=3) == {"nvidia.com/gpu": 26_000, "cpu": 5000}
    alike = {"port": 8000, "deployment": {"template": gpus(2)}}
    assert demand_of_pods(alike, leaders=3, workers=0) == {"nvidia.com/gpu": 6000, "cpu": 3000}


@pytest.mark.parametrize("identity", [{}, {"deployment": 1}, {"deployment": {"template": {"spec": []}}}])
def test_a_content_that_cannot_be_read_charges_nothing(identity: dict[str, Any]) -> None:
    assert demand_of_pods(identity, leaders=1, workers=1) == {}


def test_a_template_that_cannot_be_charged_is_named_by_its_kind() -> None:
    broken = {"spec": {"containers": [{"name": "m", "resources": {"limits": {"cpu": "one"}}}]}}
    serving = {"port": 8000, "leaderWorkerSet": {"size": 2, "workerTemplate": broken}}
    found = resolve(stored(serving=serving), Operator())
    assert isinstance(found, Unresolved)
    assert (found.condition, found.reason) == ("TemplateInvalid", "Resources")
    assert found.message.startswith("spec.serving.leaderWorkerSet: ")


def test_an_annotation_that_places_groups_makes_another_revision_though_the_generation_stays() -> None:
    resolver = Resolver(Operator())
    workload = stored(serving={"port": 8000, "leaderWorkerSet": {"size": 2, "workerTemplate": gpus(8)}})
    annotations = {"leaderworkerset.sigs.k8s.io/exclusive-topology": "rack"}
    placed = replace(workload, metadata=replace(workload.metadata, annotations=annotations))
    names = [resolver.newest(each, 0, {})[0].name for each in (workload, placed, workload)]
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize(
    ("metric", "threshold", "percentage", "base", "target"),
    [
        ("concurrency", 10, None, 10.0, 7.0),
        ("concurrency", "10", 50, 10.0, 5.0),
        ("throughput", "2500m", 100, 2.5, 2.5),
        ("latency", 500, None, 0.5, 0.25),
        ("latency", "500", None, 0.5, 0.25),
        ("latency", "500m", None, 0.5, 0.25),
        ("ttft", "2", None, 0.002, 0.001),
        ("itl", "0.05", None, 0.05, 0.025),
        ("kv-cache", None, None, 0.8, 0.72),
        ("queue", 4, None, 4.0, 4.0),
        ("tokens", "2k", None, 2000.0, 2000.0),
        ("my_metric", 3, None, 3.0, 3.0),
    ],
)
def test_thresholds_become_base_units_and_the_level_where_we_act(
    metric: str, threshold: int | str | None, percentage: float | None, base: float, target: float
) -> None:
    asked = {"maxReplicas": 4, "metric": metric, "metricThreshold": threshold, "metricThresholdPercentage": percentage}
    signal = resolved(asked).scaling.signal
    assert signal is not None
    assert signal.threshold == pytest.approx(base)
    assert signal.target == pytest.approx(target)


def test_several_signals_each_have_a_target_a_percentile_and_a_direction() -> None:
    further = [
        {"metric": "concurrency", "threshold": 10},
        {"metric": "throughput", "threshold": 50, "direction": "up"},
        {"metric": "ttft", "threshold": 800, "percentile": 95},
        {"metric": "kv-cache", "direction": "down"},
    ]
    asked = {"maxReplicas": 8, "metric": "latency", "metricThreshold": "500m", "signals": further}
    found = resolved(asked).scaling.signals
    assert [(each.name, each.threshold, round(each.target, 9), each.percentile) for each in found] == [
        ("latency", 0.5, 0.25, 0.99),
        ("concurrency", 10.0, 7.0, 0.99),
        ("throughput", 50.0, 35.0, 0.99),
        ("ttft", 0.8, 0.4, 0.95),
        ("kv-cache", 0.8, 0.72, 0.99),
    ]
    assert [str(each.direction) for each in found] == ["both", "both", "up", "both", "down"]


def test_a_percentage_concerns_every_signal_that_takes_one() -> None:
    further = [{"metric": "throughput", "threshold": 50}, {"metric": "queue", "threshold": 4}]
    asked = {"maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10, "metricThresholdPercentage": 50}
    scaling = resolved({**asked, "signals": further}).scaling
    assert [each.target for each in scaling.signals] == [5.0, 25.0, 4.0]


def test_zero_or_one_without_a_metric_is_any_request_at_all() -> None:
    scaling = resolved({"minReplicas": 0}).scaling
    assert (scaling.max_replicas, scaling.signal.name if scaling.signal else "", scaling.initial_replicas) == (
        1,
        "concurrency",
        1,
    )


def test_the_workload_wins_over_the_configuration_and_that_over_the_built_in_default() -> None:
    defaults = stored(
        {"minReplicas": 2, "maxReplicas": 9, "metric": "queue", "metricThreshold": 3}, priority="low"
    ).spec
    spec = resolved({"maxReplicas": 5}, Operator(defaults=defaults))
    assert (spec.scaling.min_replicas, spec.scaling.max_replicas, spec.priority) == (2, 5, "low")
    assert spec.scaling.signal is not None
    assert spec.scaling.signal.name == "queue"


DEFAULTS = {"minReplicas": 2, "maxReplicas": 4, "metric": "queue", "metricThreshold": 10}


@pytest.mark.parametrize(
    ("own", "least", "most", "threshold"),
    [
        ({}, 2, 4, 10.0),
        ({"minReplicas": 10}, 10, 10, 10.0),
        ({"maxReplicas": 1}, 1, 1, 10.0),
        ({"metric": "kv-cache"}, 2, 4, 0.8),
        ({"metric": "queue"}, 2, 4, 10.0),
        ({"metric": "tokens", "metricThreshold": 5}, 2, 4, 5.0),
    ],
)
def test_an_inherited_half_of_a_pair_never_bends_what_the_workload_wrote(
    own: dict[str, Any], least: int, most: int, threshold: float
) -> None:
    scaling = resolved(own, Operator(defaults=stored(DEFAULTS).spec)).scaling
    assert (scaling.min_replicas, scaling.max_replicas) == (least, most)
    assert scaling.signal is not None
    assert scaling.signal.threshold == threshold


def test_blocks_inside_are_merged_field_by_field() -> None:
    serving = {"port": 1, "metrics": {"path": "/v1/metrics"}, "deployment": {"template": TEMPLATE}}
    own = {"port": 8000, "metrics": {"port": 9000}, "deployment": {"template": TEMPLATE}}
    spec = resolved({}, Operator(defaults=stored({}, serving=serving).spec), serving=own)
    assert (spec.serving.port, spec.serving.metrics_port, spec.serving.metrics_path) == (8000, 9000, "/v1/metrics")


@pytest.mark.parametrize(
    ("engine", "metrics", "port", "path"),
    [
        (None, None, 8000, "/metrics"),
        ("sglang", None, 8000, "/metrics"),
        ("nim", None, 8000, "/v1/metrics"),
        ("tensorrt-llm", None, 8000, "/prometheus/metrics"),
        ("triton", None, 8002, "/metrics"),
        ("triton", {"port": 9000}, 9000, "/metrics"),
        ("nim", {"path": "/metrics"}, 8000, "/metrics"),
        ("custom", {"port": 9100, "path": "/stats"}, 9100, "/stats"),
    ],
)
def test_the_page_is_where_the_engine_has_it_unless_the_workload_says_otherwise(
    engine: str | None, metrics: dict[str, Any] | None, port: int, path: str
) -> None:
    serving = {"port": 8000, "engine": engine, "metrics": metrics, "deployment": {"template": TEMPLATE}}
    found = resolved({}, serving=serving).serving
    assert (found.metrics_port, found.metrics_path) == (port, path)


def test_a_namespace_named_like_a_project_that_does_not_list_it_spends_nothing_of_it() -> None:
    operator = Operator(projects={"team-a": "ml"}, limits={("ml", "default"): {"nvidia.com/gpu": 8000}})
    assert resolved({}, operator).project == "namespace/ml"


def test_operators_parameters_reach_the_policy() -> None:
    operator = Operator(kpa=KpaParameters(stable_window_s=6.0), ceiling_replicas=3)
    scaling = resolved({}, operator).scaling
    assert (scaling.kpa.stable_window_s, scaling.ceiling_replicas) == (6.0, 3)


def test_activation_names_a_page_of_the_configuration() -> None:
    asked = {"minReplicas": 0, "activation": {"page": "gateway", "metric": "waiting", "labels": {"b": "2", "a": "1"}}}
    scaling = resolved(asked, Operator(pages=frozenset(["gateway"]))).scaling
    assert scaling.activation == ActivationSpec("gateway", "waiting", (("a", "1"), ("b", "2")))


@pytest.mark.parametrize(
    ("autoscaling", "spec", "condition", "says"),
    [
        (
            {"minReplicas": 3, "maxReplicas": 2},
            {},
            "ScalingActive",
            "maxReplicas is 2, must be at least minReplicas (3)",
        ),
        ({"minReplicas": 1, "maxReplicas": 2}, {}, "ScalingActive", "autoscaling.metric is required"),
        ({"maxReplicas": 2, "metric": "queue"}, {}, "ScalingActive", "metricThreshold is required with metric queue"),
        ({"maxReplicas": 2, "metric": "queue", "metricThreshold": "x"}, {}, "ScalingActive", "'x' is not a quantity"),
        (
            {"maxReplicas": 2, "metric": "queue", "metricThreshold": "-1"},
            {},
            "ScalingActive",
            "must be from 1e-06 to 1e+12",
        ),
        (
            {"maxReplicas": 2, "metric": "queue", "metricThreshold": 1, "signals": [{"metric": "ttft"}]},
            {},
            "ScalingActive",
            "autoscaling.signals.threshold is required with metric ttft",
        ),
        (
            {
                "maxReplicas": 2,
                "metric": "queue",
                "metricThreshold": 1,
                "signals": [{"metric": "queue", "threshold": 1}],
            },
            {},
            "ScalingActive",
            "autoscaling.signals must name each metric once, not queue, queue",
        ),
        (
            {"minReplicas": 2, "signals": [{"metric": "queue", "threshold": 1}]},
            {},
            "ScalingActive",
            "autoscaling.metric is required with autoscaling.signals",
        ),
        ({"activation": {"page": "nowhere", "metric": "m"}}, {}, "ScalingActive", "activationPages are: gateway"),
        ({}, {"project": "other"}, "ProjectDenied", "namespace ml belongs to ml, not to other"),
        ({}, {"serving": {"port": 8000}}, "TemplateInvalid", "needs deployment.template"),
        (
            {},
            {
                "serving": {
                    "port": 1,
                    "deployment": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}},
                }
            },
            "TemplateInvalid",
            "'x' is not a quantity",
        ),
    ],
)
def test_what_cannot_be_resolved_says_which_condition_and_why(
    autoscaling: dict[str, Any], spec: dict[str, Any], condition: str, says: str
) -> None:
    found = resolve(stored(autoscaling, **spec), Operator(pages=frozenset(["gateway"])))
    assert isinstance(found, Unresolved)
    assert found.condition == condition
    assert says in found.message
