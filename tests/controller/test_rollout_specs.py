"""How a workload is updated follows from its object, the configuration's defaults and the built-in ones."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from autoscaler.controller.specs import Operator, Resolver, Unresolved, of_revision, project_of, resolve
from autoscaler.model.rollout import RolloutSpec, RouteSpec, WarmUpSpec, WeightStep, WhenQuotaShort
from autoscaler.model.workload import WorkloadSpec
from autoscaler.scaling.holds import after
from autoscaler.settings.load import parse
from autoscaler.wiring import operator_of
from tests.controller.test_specs import TEMPLATE, resolved, stored

GPU = "nvidia.com/gpu"
ROUTE = {"httpRoute": {"name": "llama", "ruleName": "chat"}}
STEPS = [{"weight": 10, "pause": "2m"}, {"weight": 50}]
EVERYTHING = {
    "queueTimeoutSeconds": 60,
    "scheduleTimeoutSeconds": 61,
    "progressDeadlineSeconds": 62,
    "whenQuotaShort": "refuse",
    "steps": STEPS,
    "warmup": {"path": "/v1/completions", "body": "{}", "requests": 3},
    "drain": {"timeoutSeconds": 0, "quietSeconds": 0},
    "revisionHistoryLimit": 0,
    "paused": True,
}
POOLS = """
nodePools:
  h100: {nodeSelector: {gpu: h100}}
  a100: {nodeSelector: {gpu: a100, zone: b}}
projects:
  listed: {namespaces: [listed], nodePools: [a100, h100]}
  limited:
    namespaces: [limited]
    quota: {limits: {h100: {nvidia.com/gpu: 8, cpu: 1}, a100: {nvidia.com/gpu: 500m, cpu: 2}}}
  free: {namespaces: [ml]}
"""


def operator(text: str) -> Operator:
    return operator_of(parse(text.encode(), {}, name="config.yaml").config)


def in_namespace(namespace: str, text: str = POOLS, **spec: Any) -> WorkloadSpec | Unresolved:
    workload = stored(**spec)
    there = replace(workload, metadata=replace(workload.metadata, namespace=namespace))
    return resolve(there, operator(text))


def test_without_a_limit_there_is_no_ledger_and_the_name_is_still_taken() -> None:
    found = operator(POOLS + "  bare: {namespaces: [b], quota: {limits: {h100: {}}}}\n")
    assert found.limits.keys() == {("limited", "h100"), ("limited", "a100")}
    reserved = after({}, found.limits, (), {}, frozenset(), 0.0)
    assert reserved.ledgers.keys() == found.limits.keys()
    assert [project_of(each, found) for each in ("ml", "free", "bare")] == ["free", "namespace/free", "namespace/bare"]


def test_what_is_unset_takes_the_built_in_defaults() -> None:
    spec = resolved()
    assert spec.rollout == RolloutSpec() == resolved(operator=operator("{}")).rollout
    assert (spec.route, spec.request_timeout_s, spec.node_pool) == (None, None, "default")


def test_everything_that_a_workload_says_is_taken_in_seconds() -> None:
    spec = resolved(
        {"minReplicas": 2, "maxReplicas": 6, "metric": "queue", "metricThreshold": 1}, rollout=EVERYTHING, traffic=ROUTE
    )
    assert spec.rollout == RolloutSpec(
        min_replicas=2,
        max_replicas=6,
        queue_timeout_s=60.0,
        schedule_timeout_s=61.0,
        progress_deadline_s=62.0,
        when_quota_short=WhenQuotaShort.REFUSE,
        steps=(WeightStep(10, 120.0), WeightStep(50)),
        warmup=WarmUpSpec("/v1/completions", "{}", 3),
        drain_timeout_s=0.0,
        drain_quiet_s=0.0,
        node_pools=("default",),
        paused=True,
        revision_history_limit=0,
    )
    assert spec.route == RouteSpec("llama", "chat")


DEFAULTS = """
defaults:
  serving: {requestTimeoutSeconds: 30}
  rollout:
    progressDeadlineSeconds: 1800
    whenQuotaShort: refuse
    steps: [{weight: 5, pause: 1m30s}]
    warmup: {path: /health, body: hello, requests: 9}
    drain: {quietSeconds: 7}
    revisionHistoryLimit: 9
    paused: true
"""


def test_the_configurations_defaults_fill_in_what_a_workload_leaves_out() -> None:
    spec = resolved(operator=operator(DEFAULTS), traffic=ROUTE)
    assert spec.rollout == RolloutSpec(
        progress_deadline_s=1800.0,
        when_quota_short=WhenQuotaShort.REFUSE,
        steps=(WeightStep(5, 90.0),),
        warmup=WarmUpSpec("/health", "hello", 9),
        drain_quiet_s=7.0,
        revision_history_limit=9,
        paused=True,
    )
    assert spec.request_timeout_s == 30


def test_a_workload_wins_over_the_defaults_field_by_field() -> None:
    own = {"steps": [], "drain": {"timeoutSeconds": 1}, "paused": False, "warmup": {"path": "/v1/models"}}
    spec = resolved(operator=operator(DEFAULTS), rollout=own, traffic=ROUTE).rollout
    assert (spec.steps, spec.paused, spec.drain_timeout_s, spec.drain_quiet_s) == ((), False, 1.0, 7.0)
    assert spec.warmup == WarmUpSpec("/v1/models"), "a path never goes with the body of another request"
    assert spec.progress_deadline_s == 1800.0


def test_a_warm_up_of_the_defaults_is_not_sent_to_grpc_and_an_own_one_is_refused() -> None:
    serving = {"port": 8000, "protocol": "grpc", "deployment": {"template": TEMPLATE}}
    assert resolved(operator=operator(DEFAULTS), serving=serving).rollout.warmup is None
    grpc = operator("defaults: {serving: {protocol: grpc}}")
    found = resolve(stored(rollout={"warmup": {"path": "/health"}}), grpc)
    assert isinstance(found, Unresolved)
    assert "the protocol is grpc; remove warmup" in found.message


def test_without_a_route_there_are_no_weights_and_nothing_keeps_a_request_timeout() -> None:
    spec = resolved(operator=operator(DEFAULTS))
    assert (spec.rollout.steps, spec.route, spec.request_timeout_s) == ((), None, None)


@pytest.mark.parametrize(
    ("replicas", "ceiling", "bounds"),
    [(None, None, (2, 6)), (None, 4, (2, 4)), (None, 1, (1, 1)), (9, None, (9, 9)), (9, 8, (8, 8)), (0, None, (0, 0))],
)
def test_an_update_keeps_to_the_ceiling_and_to_a_count_set_by_hand(
    replicas: int | None, ceiling: int | None, bounds: tuple[int, int]
) -> None:
    autoscaling = {"minReplicas": 2, "maxReplicas": 6, "metric": "queue", "metricThreshold": 1}
    spec = resolved(autoscaling, Operator(ceiling_replicas=ceiling), replicas=replicas).rollout
    assert (spec.min_replicas, spec.max_replicas) == bounds


@pytest.mark.parametrize(
    ("namespace", "asked", "pools"),
    [
        ("listed", None, ("a100", "h100")),
        ("listed", ["h100"], ("h100",)),
        ("limited", None, ("h100", "a100")),
        ("limited", ["a100", "h100"], ("a100", "h100")),
        ("ml", None, ("default",)),
        ("ml", ["a100"], ("a100",)),
        ("of-nobody", None, ("default",)),
        ("of-nobody", ["h100", "default"], ("h100", "default")),
    ],
)
def test_node_pools_are_the_workloads_else_the_projects(
    namespace: str, asked: list[str] | None, pools: tuple[str, ...]
) -> None:
    spec = in_namespace(namespace, nodePools=asked)
    assert isinstance(spec, WorkloadSpec)
    assert (spec.rollout.node_pools, spec.node_pool) == (pools, pools[0])


@pytest.mark.parametrize(
    ("namespace", "asked", "says"),
    [
        ("ml", ["b200"], "spec.nodePools has b200; allowed in project free: default, h100, a100"),
        ("of-nobody", ["h100", "b200"], "has b200; allowed in project of-nobody: default, h100, a100"),
        ("limited", ["h100", "default"], "has default; allowed in project limited: h100, a100"),
        ("listed", ["default"], "has default; allowed in project listed: a100, h100"),
    ],
)
def test_no_workload_runs_where_no_limit_of_its_project_binds(namespace: str, asked: list[str], says: str) -> None:
    found = in_namespace(namespace, nodePools=asked)
    assert isinstance(found, Unresolved)
    assert (found.condition, found.reason) == ("ScalingActive", "InvalidConfiguration")
    assert says in found.message


def test_limits_are_those_of_the_projects_and_pools_have_labels() -> None:
    known = operator(POOLS)
    assert known.node_pools == {"default": {}, "h100": {"gpu": "h100"}, "a100": {"gpu": "a100", "zone": "b"}}
    assert known.project_pools == {"listed": ("a100", "h100"), "limited": ("h100", "a100")}
    assert known.limits[("limited", "h100")] == {GPU: 8000, "cpu": 1000}
    assert known.limits[("limited", "a100")] == {GPU: 500, "cpu": 2000}
    assert len(known.limits) == 2


def test_a_pause_that_cannot_be_read_is_told_and_not_raised() -> None:
    found = resolve(stored(rollout={"steps": [{"weight": 10, "pause": "soon"}]}, traffic=ROUTE), Operator())
    assert isinstance(found, Unresolved)
    assert "pause 'soon'; allowed: a duration such as 30s" in found.message


def test_nothing_of_it_makes_a_new_revision() -> None:
    plain, resolver = stored(), Resolver(Operator())
    serving = {"port": 8000, "deployment": {"template": TEMPLATE}, "requestTimeoutSeconds": 30}
    whole = stored(rollout=EVERYTHING, traffic=ROUTE, nodePools=["h100"], serving=serving)
    assert resolver.newest(plain, 0, {}) == Resolver(Operator()).newest(whole, 0, {})


def test_what_a_revision_is_made_of_leaves_the_rollout_as_it_is() -> None:
    spec = resolved(rollout=EVERYTHING, traffic=ROUTE)
    of_another = of_revision(spec, {"port": 9000, "deployment": {"template": TEMPLATE}}, None)
    assert (of_another.serving.port, of_another.rollout, of_another.route) == (9000, spec.rollout, spec.route)


def test_a_target_is_in_a_node_pool_and_has_no_updates() -> None:
    ref = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "llama"}
    spec = in_namespace("limited", serving={"port": 8000, "targetRef": ref}, nodePools=["a100"])
    assert isinstance(spec, WorkloadSpec)
    assert (spec.node_pool, spec.route) == ("a100", None)
