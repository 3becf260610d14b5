"""Each rule is written twice, in CEL and in Python. On any block whatever, both must break the same rules."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.settings.manifest import check_workload
from tests.crd.refusals import good
from tests.realcluster.cluster import Cluster

CREATE = "/apis/tidegate.dev/v1alpha1/namespaces/default/inferenceworkloads?dryRun=All&fieldValidation=Strict"

_COUNTS = st.integers(0, 4)
_POSITIVE = st.integers(1, 4)
_THRESHOLDS = st.sampled_from([-1, 0, 1, 2, "-1", "0", "0.8", "800m", "1", "1.5", "2k", "1e3", "x", "", "+1"])
_SIGNALS = st.fixed_dictionaries(
    {"metric": st.sampled_from(["concurrency", "latency", "kv-cache", "my_queue", "nim_time_to_first_token"])},
    optional={
        "threshold": _THRESHOLDS,
        "percentile": st.sampled_from([1, 99.9, 100]),
        "direction": st.sampled_from(["both", "up", "down"]),
    },
)
_BLOCKS = st.fixed_dictionaries(
    {},
    optional={
        "minReplicas": _COUNTS,
        "maxReplicas": _POSITIVE,
        "initialReplicas": _COUNTS,
        "activationReplicas": _POSITIVE,
        "metric": st.sampled_from(
            [
                "concurrency",
                "throughput",
                "latency",
                "kv-cache",
                "my_queue",
                "gpu-utilization",
                "nim_request_concurrency",
            ]
        ),
        "metricThreshold": _THRESHOLDS,
        "signals": st.lists(_SIGNALS, max_size=3),
        "metricThresholdPercentage": st.sampled_from([1, 70, 72.5, 100]),
        "scaleToZeroRetentionSeconds": st.sampled_from([0, 300]),
        "concurrencyHardLimit": st.sampled_from([0, 4]),
        "activation": st.fixed_dictionaries(
            {}, optional={"page": st.just("gateway"), "metric": st.just("waiting"), "query": st.just("pending")}
        )
        | st.none(),
    },
)


def _offline(workload: dict[str, Any]) -> set[str]:
    return {problem.sentence for problem in check_workload(workload)}


def _online(cluster: Cluster, workload: dict[str, Any]) -> set[str]:
    status, answer = cluster.request("POST", CREATE, workload)
    if status == 201:
        return set()
    return {cause["message"].removeprefix("Invalid value: ") for cause in answer["details"]["causes"]}


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(block=_BLOCKS, engine=st.sampled_from(["auto", "custom"]))
def test_both_break_the_same_rules_with_the_same_sentences(crds: Cluster, block: dict[str, Any], engine: str) -> None:
    workload = good()
    workload["spec"]["autoscaling"] = block
    workload["spec"]["serving"]["engine"] = engine
    assert _online(crds, workload) == _offline(workload)


_STEPS = st.lists(
    st.fixed_dictionaries(
        {"weight": st.integers(1, 5)}, optional={"pause": st.sampled_from(["0s", "2m", "168h", "168.001h", "99999h"])}
    ),
    max_size=4,
)
_UPDATES = st.fixed_dictionaries(
    {},
    optional={
        "rollout": st.fixed_dictionaries({}, optional={"steps": _STEPS, "paused": st.booleans()}),
        "nodePools": st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
        "traffic": st.fixed_dictionaries(
            {}, optional={"service": st.just("front"), "httpRoute": st.just({"name": "llama"})}
        ),
    },
)
_KINDS = st.sampled_from(
    [
        {"deployment": good()["spec"]["serving"]["deployment"]},
        {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}},
    ]
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(update=_UPDATES, kind=_KINDS, timeout=st.sampled_from([{}, {"requestTimeoutSeconds": 30}]))
def test_both_break_the_same_rules_of_updates(
    crds: Cluster, update: dict[str, Any], kind: dict[str, Any], timeout: dict[str, Any]
) -> None:
    workload = good()
    workload["spec"] |= {**update, "serving": {"port": 8000, **kind, **timeout}}
    assert _online(crds, workload) == _offline(workload)
