"""The Run:ai inference API, field by field: each test's name quotes a rule of it, as its reference has it.

Each object goes both ways that a user's goes: through `tidegate validate` and to the real API server, and both must
agree. Defaults are those that the daemon resolves from what the API server stored. Where Tidegate differs on purpose,
the test says so in its docstring and shows what is done instead.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.controller.phases import Phase
from autoscaler.controller.specs import Operator, Unresolved, resolve
from autoscaler.model.signal import SignalSpec
from autoscaler.model.workload import ScalingSpec, WorkloadSpec
from autoscaler.settings.load import parse
from autoscaler.wiring import operator_of
from tests.cli.desk import run as tidegate
from tests.crd.refusals import changed
from tests.realcluster.cluster import Cluster

CREATE = "/apis/tidegate.dev/v1alpha1/namespaces/default/inferenceworkloads?dryRun=All&fieldValidation=Strict"
AUTOSCALING, SERVING = "spec.autoscaling", "spec.serving"
UNKNOWN = 'unknown field "spec.{}"'


class Both:
    """`tidegate validate` and the real API server, which must say the same of every object."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def answers(self, change: dict[str, Any]) -> tuple[str, str]:
        """What each says against the good workload with this change; "" where it is accepted."""
        workload = changed(change)
        offline = tidegate("validate", "-", stdin=json.dumps(workload))
        status, answer = self.cluster.request("POST", CREATE, workload)
        assert status in (201, 400, 422), answer
        return "" if offline.status == 0 else offline.out + offline.err, "" if status == 201 else answer["message"]

    def accept(self, change: dict[str, Any]) -> WorkloadSpec:
        """Both accept it; what the daemon makes of the object as stored."""
        assert self.answers(change) == ("", "")
        return self.resolved(change)

    def scaling(self, **autoscaling: Any) -> ScalingSpec:
        """Both accept autoscaling with nothing but these."""
        return self.accept({AUTOSCALING: autoscaling}).scaling

    def signal(self, **autoscaling: Any) -> SignalSpec:
        found = self.scaling(**{"maxReplicas": 8, **autoscaling}).signal
        assert found is not None
        return found

    def resolved(self, change: dict[str, Any], operator: Operator | None = None) -> WorkloadSpec:
        stored = self.cluster.request("POST", CREATE, changed(change))[1]
        found = resolve(msgspec.convert(stored, InferenceWorkload, strict=False), operator or Operator())
        assert not isinstance(found, Unresolved), found
        return found

    def refuse(self, change: dict[str, Any], *offline: str, server: str = "") -> None:
        """Both refuse it. `offline`: what must stand in our sentence, key, value and what is allowed; `server`: in the
        API server's, where its schema words a range in its own way."""
        ours, theirs = self.answers(change)
        assert ours and theirs, (ours, theirs)
        for part in offline:
            assert part in ours, ours
            if not server:
                assert part in theirs, theirs
        assert server in theirs, theirs

    def refuse_scaling(self, *offline: str, server: str = "", **autoscaling: Any) -> None:
        self.refuse({AUTOSCALING: autoscaling}, *offline, server=server)

    def in_range(self, path: str, low: int, high: int | None, around: dict[str, Any] | None = None) -> None:
        """The bounds are accepted, and what is just outside is refused with key, value and the allowed range."""
        key, rest = path.rpartition(".")[2], around or {}
        self.accept({**rest, path: low})
        above = high if high is not None else 2**31 - 1
        allowed = f"allowed: a whole number from {low} to {above}"
        self.refuse(
            {**rest, path: low - 1}, key, f"value {low - 1}", allowed, server=f"{key}: Invalid value: {low - 1}"
        )
        self.refuse({**rest, path: low - 1}, server=f"greater than or equal to {low}")
        self.refuse({**rest, path: above + 1}, key, f"value {above + 1}", allowed, server=f"{key}: Invalid value:")
        self.refuse({**rest, path: above + 1}, server=f"less than or equal to {above}")
        if high is not None:
            self.accept({**rest, path: high})
        for odd in ("5", 5.5, True):
            self.refuse({**rest, path: odd}, key, "is not a whole number", server=key)


@pytest.fixture
def both(crds: Cluster) -> Both:
    return Both(crds)


# spec.autoscaling: how many


def test_min_replicas_is_0_or_more_and_1_by_default_and_0_allows_scale_to_zero(both: Both) -> None:
    both.in_range(
        f"{AUTOSCALING}.minReplicas", 0, None, {AUTOSCALING: {}, f"{AUTOSCALING}.maxReplicas": 2**31 - 1, **ANY}
    )
    assert both.scaling().min_replicas == 1
    assert both.scaling(minReplicas=0).min_replicas == 0


def test_max_replicas_is_1_or_more_and_min_replicas_by_default_or_1_if_min_is_0(both: Both) -> None:
    both.in_range(f"{AUTOSCALING}.maxReplicas", 1, None)
    assert both.scaling(minReplicas=3).max_replicas == 3
    assert both.scaling(minReplicas=0).max_replicas == 1
    assert both.scaling().max_replicas == 1


def test_max_replicas_is_not_below_min_replicas(both: Both) -> None:
    """Run:ai's table says so of the NIM variant and means it everywhere."""
    both.scaling(minReplicas=3, maxReplicas=3)
    says = "maxReplicas 2 is below minReplicas 3; set maxReplicas to 3 or more"
    both.refuse_scaling(says, minReplicas=3, maxReplicas=2)


def test_initial_replicas_is_0_or_more_and_min_replicas_by_default_or_1_if_min_is_0(both: Both) -> None:
    """Stricter than Run:ai, which names 0 alone: outside minReplicas to maxReplicas it is refused, because the first
    count would be corrected in the same second."""
    both.in_range(
        f"{AUTOSCALING}.initialReplicas", 0, None, {AUTOSCALING: {"minReplicas": 0, "maxReplicas": 2**31 - 1}, **ANY}
    )
    assert both.scaling(minReplicas=3).initial_replicas == 3
    assert both.scaling(minReplicas=0).initial_replicas == 1
    says = "initialReplicas 9 is outside minReplicas 2 to maxReplicas 4; set a number from 2 to 4"
    both.refuse_scaling(says, minReplicas=2, maxReplicas=4, initialReplicas=9, **METRIC)
    both.refuse_scaling("initialReplicas 0 is outside", minReplicas=2, maxReplicas=4, initialReplicas=0, **METRIC)


def test_activation_replicas_is_1_or_more_and_min_replicas_by_default_or_1_if_min_is_0(both: Both) -> None:
    """Stricter than Run:ai: not above maxReplicas."""
    around = {AUTOSCALING: {"minReplicas": 0, "maxReplicas": 2**31 - 1}, **ANY}
    both.in_range(f"{AUTOSCALING}.activationReplicas", 1, None, around)
    assert both.scaling(minReplicas=3).activation_replicas == 3
    assert both.scaling(minReplicas=0).activation_replicas == 1
    says = "activationReplicas 5 is above maxReplicas 4; set a number from 1 to 4"
    both.refuse_scaling(says, minReplicas=0, maxReplicas=4, activationReplicas=5, **METRIC)


def test_concurrency_hard_limit_is_0_or_more_and_0_is_no_limit(both: Both) -> None:
    """Only 0: Tidegate is not in the path of requests, so nothing would enforce another limit, and it is refused."""
    both.scaling(concurrencyHardLimit=0)
    both.refuse_scaling(
        "concurrencyHardLimit", "value -1", server="greater than or equal to 0", concurrencyHardLimit=-1
    )
    says = "concurrencyHardLimit 4 is refused: nothing enforces it; remove it or set 0"
    both.refuse_scaling(says, concurrencyHardLimit=4)


# spec.autoscaling: on what

METRIC: dict[str, Any] = {"metric": "concurrency", "metricThreshold": 10}
ANY = {f"{AUTOSCALING}.metric": "concurrency", f"{AUTOSCALING}.metricThreshold": 10}


@pytest.mark.parametrize("metric", ["throughput", "concurrency", "latency", "my_metric", "app:jobs", "_x", "Ab9"])
def test_metric_is_throughput_concurrency_latency_or_any_custom_metric(both: Both, metric: str) -> None:
    assert both.signal(metric=metric, metricThreshold=10).name == metric


@pytest.mark.parametrize("metric", ["queue", "tokens", "ttft", "itl", "kv-cache"])
def test_metric_is_also_one_of_five_more_signals(both: Both, metric: str) -> None:
    """Wider than Run:ai. kv-cache is the one name that its pattern does not allow."""
    assert both.signal(metric=metric, metricThreshold=1).name == metric


@pytest.mark.parametrize("metric", ["9lives", "queue length", "a-", "", "latency%"])
def test_metric_matches_letters_digits_underscores_and_colons_not_starting_with_a_digit(
    both: Both, metric: str
) -> None:
    """Wider than Run:ai: dashes inside, as in the names of queries that the operator configures."""
    says = ("metric", f"value '{metric}' is not of the right form", "allowed: concurrency, queue, throughput")
    both.refuse_scaling(*says, server="should match '^([a-zA-Z_:]", maxReplicas=8, metric=metric, metricThreshold=10)


@pytest.mark.parametrize(
    ("bounds", "low", "high"),
    [
        ({"maxReplicas": 2}, 1, 2),
        ({"minReplicas": 0, "maxReplicas": 2}, 0, 2),
        ({"minReplicas": 3, "maxReplicas": 4}, 3, 4),
    ],
)
def test_metric_is_mandatory_if_min_is_below_max(both: Both, bounds: dict[str, Any], low: int, high: int) -> None:
    says = (
        f"metric is missing: something must decide between {low} and {high} replicas; set metric to concurrency, queue"
    )
    both.refuse_scaling(says, **bounds)


def test_metric_is_not_mandatory_for_min_0_and_max_1_where_activity_decides(both: Both) -> None:
    assert both.scaling(minReplicas=0, maxReplicas=1).signal == SignalSpec("concurrency", 1.0, 1.0), "any request"


def test_metric_is_not_mandatory_if_min_equals_max_and_nothing_is_scaled_then(both: Both) -> None:
    found = both.scaling(minReplicas=3, maxReplicas=3)
    assert (found.signal, found.min_replicas, found.max_replicas) == (None, 3, 3)


@pytest.mark.parametrize("metric", ["throughput", "concurrency"])
def test_throughput_and_concurrency_may_scale_to_zero(both: Both, metric: str) -> None:
    assert both.scaling(minReplicas=0, maxReplicas=4, metric=metric, metricThreshold=10).min_replicas == 0


@pytest.mark.parametrize("metric", ["latency", "my_metric", "kv-cache"])
def test_only_throughput_and_concurrency_may_scale_to_zero(both: Both, metric: str) -> None:
    """Others show nothing at 0 replicas. Wider than Run:ai: with `activation`, which does, they may."""
    asked: dict[str, Any] = {"minReplicas": 0, "maxReplicas": 4, "metric": metric, "metricThreshold": 1}
    both.refuse_scaling(f"activation is missing: metric {metric} shows nothing at 0 replicas; set activation", **asked)
    activation = {"page": "gateway", "metric": "waiting"}
    assert both.answers({AUTOSCALING: {**asked, "activation": activation}}) == ("", "")


@pytest.mark.parametrize("metric", ["throughput", "concurrency", "latency", "my_metric"])
def test_metric_threshold_is_mandatory_with_metric(both: Both, metric: str) -> None:
    says = f"metricThreshold is missing: say how much of {metric} one replica should carry; set a number or quantity"
    both.refuse_scaling(says, maxReplicas=8, metric=metric)


def test_metric_threshold_stands_with_a_metric_only(both: Both) -> None:
    both.refuse_scaling("metricThreshold 10 belongs to no metric; set metric to concurrency, queue", metricThreshold=10)


def test_metric_threshold_of_kv_cache_is_0_8_by_default_and_acts_before_it(both: Both) -> None:
    """Run:ai has no such metric. We act at 0.9 of the threshold."""
    found = both.signal(metric="kv-cache")
    assert found.threshold == 0.8
    assert found.target == pytest.approx(0.72)
    assert both.signal(metric="kv-cache", metricThreshold="500m").target == pytest.approx(0.45)
    says = "metricThreshold 80 is no share of kv-cache; set a quantity above 0 and at most 1, e.g. 800m"
    both.refuse_scaling(says, maxReplicas=8, metric="kv-cache", metricThreshold=80)


def test_metric_threshold_is_an_integer(both: Both) -> None:
    """Wider than Run:ai: a Kubernetes quantity, too. Narrower: above 0, because nothing can carry 0 a replica."""
    assert both.signal(metric="my_metric", metricThreshold=7).threshold == 7.0
    assert both.signal(metric="my_metric", metricThreshold="2500m").threshold == 2.5
    for wrong in (0, -3, "0", "ten", "10 s"):
        says = f"metricThreshold {wrong} is not above 0; set a number or quantity above 0, e.g. 10 or 500m"
        both.refuse_scaling(says, maxReplicas=8, metric="my_metric", metricThreshold=wrong)
    decimal = ("metricThreshold", "value 0.5 is a decimal number", 'write "0.5" in quotes or 500m')
    both.refuse_scaling(
        *decimal, server="must be of type integer,string", maxReplicas=8, metric="m", metricThreshold=0.5
    )


def test_latency_is_in_milliseconds_throughput_in_requests_a_second_concurrency_in_requests(both: Both) -> None:
    """Latencies act at half of their threshold, and a suffixed quantity is seconds."""
    latency = both.signal(metric="latency", metricThreshold=500)
    assert (latency.threshold, latency.target, latency.percentile) == (0.5, 0.25, 0.99)
    assert both.signal(metric="latency", metricThreshold="500m").threshold == 0.5
    assert both.signal(metric="throughput", metricThreshold=50).threshold == 50.0
    assert both.signal(metric="concurrency", metricThreshold=10).threshold == 10.0


@pytest.mark.parametrize("metric", ["throughput", "concurrency"])
def test_metric_threshold_percentage_is_a_float_from_1_to_100_and_70_by_default(both: Both, metric: str) -> None:
    assert both.signal(metric=metric, metricThreshold=10).target == pytest.approx(7.0)
    for percentage, target in ((1, 0.1), (72.5, 7.25), (100, 10.0)):
        found = both.signal(metric=metric, metricThreshold=10, metricThresholdPercentage=percentage)
        assert found.target == pytest.approx(target)
    for outside, bound in ((0.5, "greater than or equal to 1"), (100.5, "less than or equal to 100")):
        says = ("metricThresholdPercentage", f"value {outside} is out of range", "allowed: a number from 1 to 100")
        asked: dict[str, Any] = {"metric": metric, "metricThreshold": 10, "metricThresholdPercentage": outside}
        both.refuse_scaling(*says, server=bound, maxReplicas=8, **asked)


@pytest.mark.parametrize("metric", ["latency", "my_metric", "kv-cache"])
def test_metric_threshold_percentage_is_for_throughput_and_concurrency_only(both: Both, metric: str) -> None:
    says = (
        "metricThresholdPercentage 60 applies to the metrics concurrency and throughput only, and metric is "
        f"{metric}; remove metricThresholdPercentage"
    )
    asked: dict[str, Any] = {"metric": metric, "metricThreshold": 1, "metricThresholdPercentage": 60}
    both.refuse_scaling(says, maxReplicas=8, **asked)


# spec.autoscaling: when


def test_scale_to_zero_retention_seconds_is_0_to_3600_and_0_by_default_and_only_with_min_0(both: Both) -> None:
    around = {AUTOSCALING: {"minReplicas": 0}}
    both.in_range(f"{AUTOSCALING}.scaleToZeroRetentionSeconds", 0, 3600, around)
    assert both.scaling(minReplicas=0).retention_s == 0.0
    assert both.scaling(minReplicas=0, scaleToZeroRetentionSeconds=3600).retention_s == 3600.0
    says = (
        "scaleToZeroRetentionSeconds 300 needs minReplicas 0, and minReplicas is 1; set minReplicas to 0 or remove "
        "scaleToZeroRetentionSeconds"
    )
    both.refuse_scaling(says, scaleToZeroRetentionSeconds=300)
    both.scaling(scaleToZeroRetentionSeconds=0)


def test_scale_down_delay_seconds_is_0_to_3600_and_none_by_default(both: Both) -> None:
    both.in_range(f"{AUTOSCALING}.scaleDownDelaySeconds", 0, 3600)
    assert both.scaling().scale_down_delay_s == 0.0
    assert both.scaling(scaleDownDelaySeconds=3600).scale_down_delay_s == 3600.0


def test_initialization_timeout_seconds_of_autoscaling_is_deprecated(both: Both) -> None:
    """Run:ai ignores it there. Here it is refused with its place, because what is ignored looks as if it worked."""
    says = ("spec.autoscaling.initializationTimeoutSeconds", "unknown key, it stands in spec.serving")
    unknown = UNKNOWN.format("autoscaling.initializationTimeoutSeconds")
    both.refuse_scaling(*says, server=unknown, initializationTimeoutSeconds=600)


# the NIM variant


def test_scale_window_seconds_of_the_nim_variant_is_the_operators_window(both: Both) -> None:
    """Run:ai: 60 to 3600, 300 by default, for NIM alone. Here every engine has the policy's window, which the operator
    sets for all (kpa.stable-window, 6s to 1h, 60s by default): one workload must not slow the loop of another."""
    says = ("unknown key, the averaging window is the operator's: kpa.stable-window",)
    both.refuse_scaling(*says, server=UNKNOWN.format("autoscaling.scaleWindowSeconds"), scaleWindowSeconds=300)
    assert both.scaling().kpa.stable_window_s == 60.0
    for window, fine in (("6s", True), ("1h", True), ("5s", False), ("61m", False)):
        ended = tidegate("validate", "-", stdin=f"kpa: {{stable-window: {window}}}")
        assert (ended.status == 0) is fine
        if not fine:
            assert (
                f"kpa.stable-window: value '{window}' is out of range; allowed: a duration from 6s to 1h" in ended.out
            )


def test_the_nim_variant_has_a_mandatory_metric_and_threshold_and_max_not_below_min(both: Both) -> None:
    """The same rules as for every engine. Wider than Run:ai: minReplicas 0 is allowed for NIM, too."""
    nim = {f"{SERVING}.engine": "nim"}
    both.refuse({**nim, AUTOSCALING: {"maxReplicas": 2}}, "metric is missing: something must decide between 1 and 2")
    both.refuse({**nim, AUTOSCALING: {"maxReplicas": 2, "metric": "latency"}}, "metricThreshold is missing")
    both.refuse({**nim, AUTOSCALING: {"minReplicas": 3, "maxReplicas": 2}}, "maxReplicas 2 is below minReplicas 3")
    assert both.accept({**nim, AUTOSCALING: {"minReplicas": 0, "maxReplicas": 2, **METRIC}}).scaling.min_replicas == 0


# spec.servingConfiguration and spec.servingPort


def test_serving_initialization_timeout_seconds_is_1_or_more(both: Both) -> None:
    """In `serving`, not in `servingConfiguration`; no limit by default."""
    both.in_range(f"{SERVING}.initializationTimeoutSeconds", 1, None)
    assert both.accept({f"{SERVING}.initializationTimeoutSeconds": 1}).initialization_timeout_s == 1
    assert both.accept({}).initialization_timeout_s is None
    server = UNKNOWN.format("servingConfiguration")
    says = ("spec.servingConfiguration", "unknown key, initializationTimeoutSeconds and")
    both.refuse({"spec.servingConfiguration": {"initializationTimeoutSeconds": 600}}, *says, server=server)


def test_request_timeout_seconds_is_1_or_more_and_needs_a_route(both: Both) -> None:
    """Only a route is in the path of requests. 86400 is the most that its shortest spelling takes safely."""
    route = {"spec.traffic": {"httpRoute": {"name": "llama"}}}
    key = f"{SERVING}.requestTimeoutSeconds"
    for value in (1, 86_400):
        assert both.accept({key: value, **route}).request_timeout_s == value
    assert both.accept(route).request_timeout_s is None
    both.refuse({key: 0, **route}, key, "a whole number from 1 to 86400", server="greater than or equal to 1")
    both.refuse({key: 30}, key, "requestTimeoutSeconds 30 is kept by a route alone; set traffic.httpRoute")


def test_serving_port_is_1_to_65535_and_mandatory(both: Both) -> None:
    """`serving.port`; Run:ai's servingPort.container."""
    both.in_range(f"{SERVING}.port", 1, 65535)
    without = changed({})["spec"]["serving"]
    del without["port"]
    both.refuse({SERVING: without}, "spec.serving.port", "is missing", server="spec.serving.port: Required value")
    both.refuse(
        {"spec.servingPort": {"container": 8000}}, "unknown key, the port", server=UNKNOWN.format("servingPort")
    )


def test_serving_protocol_is_http_or_grpc_and_http_by_default(both: Both) -> None:
    assert both.accept({f"{SERVING}.protocol": "grpc"}).serving.protocol == "grpc"
    assert both.accept({}).serving.protocol == "http"
    says = ("protocol", "value 'https' is not known", "allowed: http, grpc")
    both.refuse({f"{SERVING}.protocol": "https"}, *says, server='supported values: "http", "grpc"')


# common fields and phases


def test_priority_is_one_of_seven_and_very_high_by_default_for_inference(both: Both) -> None:
    names = ["very-low", "low", "medium-low", "medium", "medium-high", "high", "very-high"]
    ranks = [both.accept({"spec.priority": name}).priority.rank for name in names]
    assert ranks == list(range(7))
    assert both.accept({}).priority == "very-high"
    says = ("spec.priority", "value 'urgent' is not known", f"allowed: {', '.join(names)}")
    both.refuse({"spec.priority": "urgent"}, *says, server='supported values: "very-low"')


def test_desired_phase_is_running_or_stopped_and_running_by_default(both: Both) -> None:
    """Run:ai's third, Deleted, is `kubectl delete` here."""
    assert both.accept({}).desired_phase == "Running"
    assert both.accept({"spec.desiredPhase": "Stopped"}).desired_phase == "Stopped"
    says = ("spec.desiredPhase", "value 'Deleted' is not known", "allowed: Running, Stopped")
    both.refuse({"spec.desiredPhase": "Deleted"}, *says, server='supported values: "Running", "Stopped"')


def test_phases_are_run_ais_names() -> None:
    """Not among ours: Updating (there are no updates yet), Deleting, Completed, Terminating, Unknown."""
    enum = "Creating Initializing Resuming Pending Deleting Running Updating Stopped Stopping Degraded Failed Completed"
    assert {phase.value for phase in Phase} <= {*enum.split(), "Terminating", "Unknown"}


# distributed inference


def group(**fields: Any) -> dict[str, Any]:
    """The good workload as groups; the template is that of its Deployment."""
    serving = changed({})["spec"]["serving"]
    template = serving.pop("deployment")["template"]
    return {SERVING: {**serving, "leaderWorkerSet": {"size": 2, "workerTemplate": template, **fields}}}


def test_distributed_replicas_are_0_or_more_and_workers_are_the_group_without_its_leader(both: Both) -> None:
    """Run:ai: replicas 0 to 1000 = 1, workers 0 to 1000 = 0. Here a group's `size` counts the leader, the count is that
    of autoscaling, and neither stops at 1000."""
    both.in_range("spec.replicas", 0, None)
    size = f"{SERVING}.leaderWorkerSet.size"
    both.in_range(size, 1, None, group())
    assert both.accept({**group(), "spec.replicas": 0}).scaling.manual_replicas == 0


def test_distributed_startup_policy_is_leader_created_or_leader_ready(both: Both) -> None:
    """The default, LeaderCreated, is LeaderWorkerSet's own."""
    for policy in ("LeaderCreated", "LeaderReady"):
        both.accept(group(startupPolicy=policy))
    says = ("startupPolicy", "value 'WorkersFirst' is not known", "allowed: LeaderCreated, LeaderReady")
    both.refuse(group(startupPolicy="WorkersFirst"), *says, server='supported values: "LeaderCreated", "LeaderReady"')


def test_distributed_restart_policy_is_recreate_group_on_pod_restart_or_none(both: Both) -> None:
    """Wider: also RecreateGroupAfterStart, which LeaderWorkerSet 0.9 has. The default is LeaderWorkerSet's own."""
    for policy in ("RecreateGroupOnPodRestart", "None", "RecreateGroupAfterStart"):
        both.accept(group(restartPolicy=policy))
    says = ("restartPolicy", "value 'Always' is not known", "allowed: RecreateGroupOnPodRestart")
    both.refuse(group(restartPolicy="Always"), *says, server='supported values: "RecreateGroupOnPodRestart"')


# the operator's defaults for all workloads


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("minReplicas", -1, "a whole number from 0 to 2147483647"),
        ("maxReplicas", 0, "a whole number from 1 to 2147483647"),
        ("initialReplicas", -1, "a whole number from 0 to 2147483647"),
        ("activationReplicas", 0, "a whole number from 1 to 2147483647"),
        ("metricThresholdPercentage", 100.5, "a number from 1 to 100"),
        ("scaleToZeroRetentionSeconds", 3601, "a whole number from 0 to 3600"),
        ("scaleDownDelaySeconds", 3601, "a whole number from 0 to 3600"),
    ],
)
def test_defaults_of_the_configuration_have_the_same_ranges(key: str, value: float, allowed: str) -> None:
    ended = tidegate("validate", "-", stdin=f"defaults: {{autoscaling: {{{key}: {value}}}}}")
    assert ended.status == 1
    assert f"defaults.autoscaling.{key}: value {value} is out of range; allowed: {allowed}" in ended.out


def test_the_built_in_configuration_changes_no_default_of_these_rules(both: Both) -> None:
    """Without a word from the operator a workload resolves as it does without any configuration."""
    operator = operator_of(parse(b"", {}, name="config.yaml").config)
    for change in ({}, {AUTOSCALING: None}, {AUTOSCALING: {"minReplicas": 0}}):
        found, bare = both.resolved(change, operator), both.resolved(change)
        assert replace(found, uid="") == replace(bare, uid=""), "each is an object of its own"
