"""Bad InferenceWorkloads, each one change away from a good one, and what must be said about it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

REMOVED = object()  # the value of a key that is taken out

_POD = "spec.serving.deployment.template"
_GROUPS = "spec.serving.leaderWorkerSet"
_SCALING = "spec.autoscaling"
_ROLLOUT = "spec.rollout"
_ROUTE = {"spec.traffic": {"httpRoute": {"name": "llama"}}}


@dataclass(frozen=True)
class Refusal:
    """`says` is a part of the sentence; `server` where the API server's schema words the same in its own way."""

    name: str
    change: dict[str, Any]
    says: str
    server: str = ""
    at: str = field(default="")  # the path that both must name, if not the changed one


def good(name: str = "llama", **autoscaling: Any) -> dict[str, Any]:
    """A workload that is accepted."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "InferenceWorkload",
        "metadata": {"name": name},
        "spec": {
            "serving": {
                "port": 8000,
                "deployment": {"template": {"spec": {"containers": [{"name": "vllm", "image": "vllm:1"}]}}},
            },
            "autoscaling": {
                "minReplicas": 1,
                "maxReplicas": 8,
                "metric": "concurrency",
                "metricThreshold": 10,
                **autoscaling,
            },
        },
    }


def changed(change: dict[str, Any]) -> dict[str, Any]:
    """The good workload with each dotted path set, or taken out."""
    workload = deepcopy(good())
    for path, value in change.items():
        *above, last = path.split(".")
        block = workload
        for key in above:
            block = block.setdefault(key, {})
        if value is REMOVED:
            del block[last]
        else:
            block[last] = value
    return workload


def _scaling(**values: Any) -> dict[str, Any]:
    return {f"{_SCALING}.{key}": value for key, value in values.items()}


def _rollout(**values: Any) -> dict[str, Any]:
    return {f"{_ROLLOUT}.{key}": value for key, value in values.items()}


def _steps(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """These steps on a workload with a route."""
    return {f"{_ROLLOUT}.steps": list(steps), **_ROUTE, **more}


def _only(**values: Any) -> dict[str, Any]:
    """autoscaling with nothing but these."""
    return {_SCALING: values}


def _template(**spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "vllm", "image": "vllm:1"}], **spec}}


def _groups(**fields: Any) -> dict[str, Any]:
    """Groups of two instead of a Deployment, with these fields."""
    block = {"size": 2, "workerTemplate": _template(), **fields}
    kept = {key: value for key, value in block.items() if value is not REMOVED}
    return {"spec.serving.deployment": REMOVED, _GROUPS: kept}


def _target(**fields: Any) -> dict[str, Any]:
    """A StatefulSet of somebody else instead of a Deployment, with these fields."""
    ref = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "llama", **fields}
    kept = {key: value for key, value in ref.items() if value is not REMOVED}
    return {"spec.serving.deployment": REMOVED, "spec.serving.targetRef": kept}


REFUSALS = [
    # the name
    Refusal(
        "a name of 40 characters",
        {"metadata.name": "a" * 40},
        f"metadata.name {'a' * 40} is no name of at most 39 characters",
    ),
    Refusal("a name that starts with a digit", {"metadata.name": "7b"}, "metadata.name 7b is no name"),
    Refusal("a name with a dot", {"metadata.name": "a.b"}, "metadata.name a.b is no name", at="name"),
    # bounds
    Refusal(
        "maxReplicas below minReplicas",
        _scaling(minReplicas=3, maxReplicas=2),
        "maxReplicas 2 is below minReplicas 3; set maxReplicas to 3 or more",
        at="maxReplicas",
    ),
    Refusal(
        "minReplicas below zero",
        _scaling(minReplicas=-1),
        "value -1 is out of range; allowed: a whole number from 0",
        "should be greater than or equal to 0",
    ),
    Refusal(
        "maxReplicas of zero",
        _scaling(minReplicas=0, maxReplicas=0),
        "value 0 is out of range; allowed: a whole number from 1",
        "should be greater than or equal to 1",
        at="maxReplicas",
    ),
    Refusal(
        "more replicas than 32 bits hold",
        {"spec.replicas": 3_000_000_000},
        "value 3000000000 is out of range",
        "should be less than or equal to 2147483647",
    ),
    Refusal(
        "a negative fixed replica count",
        {"spec.replicas": -2},
        "value -2 is out of range; allowed: a whole number from 0",
        "should be greater than or equal to 0",
    ),
    Refusal(
        "replicas as text",
        {"spec.replicas": "3"},
        "value '3' is not a whole number",
        'must be of type integer: "string"',
    ),
    Refusal(
        "initialReplicas above maxReplicas",
        _scaling(initialReplicas=9),
        "initialReplicas 9 is outside minReplicas 1 to maxReplicas 8; set a number from 1 to 8",
    ),
    Refusal(
        "initialReplicas below minReplicas",
        _scaling(minReplicas=3, initialReplicas=2),
        "initialReplicas 2 is outside minReplicas 3 to maxReplicas 8",
        at="initialReplicas",
    ),
    Refusal(
        "initialReplicas of zero where zero is not allowed",
        _scaling(initialReplicas=0),
        "initialReplicas 0 is outside minReplicas 1 to maxReplicas 8",
    ),
    Refusal(
        "activationReplicas above maxReplicas",
        _scaling(activationReplicas=9),
        "activationReplicas 9 is above maxReplicas 8; set a number from 1 to 8",
    ),
    Refusal(
        "activationReplicas of zero",
        _scaling(activationReplicas=0),
        "value 0 is out of range; allowed: a whole number from 1",
        "should be greater than or equal to 1",
    ),
    Refusal(
        "bounds that default to one, and a lower initial count",
        _only(minReplicas=2, initialReplicas=3),
        "initialReplicas 3 is outside minReplicas 2 to maxReplicas 2; set a number from 2 to 2",
        at="initialReplicas",
    ),
    # metric and threshold
    Refusal(
        "a range without metric",
        _only(minReplicas=1, maxReplicas=8),
        "metric is missing: something must decide between 1 and 8 replicas; set metric to concurrency, queue",
        at="metric",
    ),
    Refusal(
        "a range without metric, minReplicas by default",
        _only(maxReplicas=2),
        "metric is missing: something must decide between 1 and 2 replicas",
        at="metric",
    ),
    Refusal(
        "0 to 2 without metric",
        _only(minReplicas=0, maxReplicas=2),
        "metric is missing: something must decide between 0 and 2 replicas",
        at="metric",
    ),
    Refusal(
        "a metric without threshold",
        _scaling(metricThreshold=REMOVED),
        "metricThreshold is missing: say how much of concurrency one replica should carry; set a number",
    ),
    Refusal(
        "a threshold without metric",
        _only(metricThreshold=10),
        "metricThreshold 10 belongs to no metric; set metric to concurrency, queue",
        at="metricThreshold",
    ),
    Refusal("a threshold of zero", _scaling(metricThreshold=0), "metricThreshold 0 is not above 0; set a number"),
    Refusal("a negative threshold", _scaling(metricThreshold=-3), "metricThreshold -3 is not above 0"),
    Refusal("a negative quantity", _scaling(metricThreshold="-500m"), "metricThreshold -500m is not above 0"),
    Refusal("a threshold that is no quantity", _scaling(metricThreshold="10 s"), "metricThreshold 10 s is not above 0"),
    Refusal(
        "a threshold with a decimal point and no quotes",
        _scaling(metricThreshold=0.8),
        'value 0.8 is a decimal number, and Kubernetes takes whole numbers or quantities; write "0.8" in quotes or 80',
        "must be of type integer,string",
    ),
    Refusal(
        "a threshold that is a list",
        _scaling(metricThreshold=[1]),
        "not a number or quantity; allowed: a number or quantity above 0",
        "must be of type integer,string",
    ),
    Refusal(
        "a threshold of 33 characters",
        _scaling(metricThreshold="1" * 33),
        "33 characters long; allowed: at most 32",
        "may not be more than 32",
    ),
    Refusal(
        "more than the whole KV cache",
        _scaling(metric="kv-cache", metricThreshold=80),
        "metricThreshold 80 is no share of kv-cache; set a quantity above 0 and at most 1, e.g. 800m",
        at="metricThreshold",
    ),
    Refusal(
        "eighty times all GPUs",
        _scaling(metric="gpu-utilization", metricThreshold=80),
        "metricThreshold 80 is no share of gpu-utilization; set a quantity above 0 and at most 1, e.g. 800m",
        at="metricThreshold",
    ),
    Refusal(
        "to zero on GPUs with nothing to wake it",
        _scaling(minReplicas=0, metric="gpu_utilization", metricThreshold=80),
        "activation is missing: metric gpu_utilization shows nothing at 0 replicas; set activation",
        at="activation",
    ),
    Refusal(
        "a percentile of a name that says one",
        _scaling(signals=[{"metric": "inference_request_latency_p99", "threshold": 500, "percentile": 95}]),
        "percentile 95 applies to the metrics latency, ttft and itl only, and metric is inference_request_latency_p99",
        at="percentile",
    ),
    Refusal(
        "nothing of the KV cache",
        _scaling(metric="kv-cache", metricThreshold="0m"),
        "metricThreshold 0m is not above 0",
        at="metricThreshold",
    ),
    Refusal(
        "a metric name with a space",
        _scaling(metric="queue length"),
        "value 'queue length' is not of the right form; allowed: concurrency, queue, throughput",
        "should match '^([a-zA-Z_:][a-zA-Z0-9_:]*|[a-z]([-a-z0-9_]*[a-z0-9])?)$'",
    ),
    Refusal(
        "a metric name of 129 characters",
        _scaling(metric="m" * 129),
        "is out of range",
        "may not be more than 128",
    ),
    Refusal(
        "a percentage for latency",
        _scaling(metric="latency", metricThreshold=500, metricThresholdPercentage=60),
        "metricThresholdPercentage 60 applies to the metrics concurrency and throughput only, and metric is latency",
        at="metricThresholdPercentage",
    ),
    Refusal(
        "a percentage without metric",
        _only(metricThresholdPercentage=72.5),
        "metricThresholdPercentage 72.5 applies to the metrics concurrency and throughput only, and metric is unset",
        at="metricThresholdPercentage",
    ),
    Refusal(
        "a percentage of zero",
        _scaling(metricThresholdPercentage=0),
        "value 0 is out of range; allowed: a number from 1 to 100",
        "should be greater than or equal to 1",
    ),
    Refusal(
        "a percentage above a hundred",
        _scaling(metricThresholdPercentage=101),
        "value 101 is out of range; allowed: a number from 1 to 100",
        "should be less than or equal to 100",
    ),
    # several signals
    Refusal(
        "signals without metric",
        _only(minReplicas=2, signals=[{"metric": "queue", "threshold": 5}]),
        "signals stands beside metric, which is the first signal, and metric is unset; set metric and metricThreshold",
        at="signals",
    ),
    Refusal(
        "a signal that metric names already",
        _scaling(signals=[{"metric": "concurrency", "threshold": 5}]),
        "signals has a metric twice, or the one that metric has; name each metric once",
    ),
    Refusal(
        "a signal twice",
        _scaling(signals=[{"metric": "queue", "threshold": 5}, {"metric": "queue", "threshold": 6}]),
        "signals has a metric twice, or the one that metric has; name each metric once",
    ),
    Refusal(
        "a signal without threshold",
        _scaling(signals=[{"metric": "queue"}]),
        "threshold is missing: say how much of queue one replica should carry; set a number or quantity above 0",
        at="threshold",
    ),
    Refusal(
        "a signal with a threshold of zero",
        _scaling(signals=[{"metric": "queue", "threshold": 1}, {"metric": "tokens", "threshold": "0m"}]),
        "threshold 0m is not above 0; set a number or quantity above 0",
        at="signals[1].threshold",
    ),
    Refusal(
        "a signal that asks for more than the whole KV cache",
        _scaling(signals=[{"metric": "kv-cache", "threshold": 80}]),
        "threshold 80 is no share of kv-cache; set a quantity above 0 and at most 1, e.g. 800m",
        at="threshold",
    ),
    Refusal(
        "a percentile of requests",
        _scaling(signals=[{"metric": "queue", "threshold": 5, "percentile": 95}]),
        "percentile 95 applies to the metrics latency, ttft and itl only, and metric is queue; remove percentile",
        at="percentile",
    ),
    Refusal(
        "a percentile above a hundred",
        _scaling(signals=[{"metric": "ttft", "threshold": 500, "percentile": 101}]),
        "value 101 is out of range; allowed: a number from 1 to 100",
        "should be less than or equal to 100",
        at="percentile",
    ),
    Refusal(
        "a direction that does not exist",
        _scaling(signals=[{"metric": "queue", "threshold": 5, "direction": "sideways"}]),
        "value 'sideways' is not known; allowed: both, up, down",
        'supported values: "both", "up", "down"',
        at="direction",
    ),
    Refusal(
        "a signal without metric",
        _scaling(signals=[{"threshold": 5}]),
        "is missing; allowed: concurrency, queue",
        "Required value",
        at="metric",
    ),
    Refusal(
        "eight signals beside metric",
        _scaling(signals=[{"metric": f"m{i}", "threshold": 5} for i in range(8)]),
        "is out of range",
        "must have at most 7 items",
    ),
    Refusal(
        "a misspelt field of a signal",
        _scaling(signals=[{"metric": "queue", "metricThreshold": 5}]),
        "unknown key, did you mean",
        'unknown field "spec.autoscaling.signals[0].metricThreshold"',
        at="metricThreshold",
    ),
    Refusal(
        "an engine's signal among several with engine custom",
        {"spec.serving.engine": "custom", **_scaling(metric="my_queue", signals=[{"metric": "ttft", "threshold": 5}])},
        "signals has a metric that is read from an engine, and engine is custom; set it to the name of a metric that",
        at="signals",
    ),
    # to zero and back
    Refusal(
        "retention where the last replica stays",
        _scaling(scaleToZeroRetentionSeconds=300),
        "scaleToZeroRetentionSeconds 300 needs minReplicas 0, and minReplicas is 1; set minReplicas to 0",
    ),
    Refusal(
        "retention above an hour",
        _scaling(minReplicas=0, scaleToZeroRetentionSeconds=3601),
        "value 3601 is out of range; allowed: a whole number from 0 to 3600",
        "should be less than or equal to 3600",
        at="scaleToZeroRetentionSeconds",
    ),
    Refusal(
        "a scale-down delay above an hour",
        _scaling(scaleDownDelaySeconds=3601),
        "value 3601 is out of range; allowed: a whole number from 0 to 3600",
        "should be less than or equal to 3600",
    ),
    Refusal(
        "to zero on latency with nothing to wake it",
        _scaling(minReplicas=0, metric="ttft", metricThreshold=500),
        "activation is missing: metric ttft shows nothing at 0 replicas; set activation, or minReplicas to 1 or more",
        at="activation",
    ),
    Refusal(
        "an activation without page",
        _scaling(activation={"metric": "waiting"}),
        "page or metric is missing; set both (a page of the configuration and a series on it), or query",
        at="page",
    ),
    Refusal(
        "an activation of nothing",
        _scaling(activation={}),
        "page or metric is missing; set both (a page of the configuration and a series on it), or query",
        at="page",
    ),
    Refusal(
        "an activation by a page and a query",
        _scaling(activation={"page": "gateway", "metric": "waiting", "query": "gateway-pending"}),
        "query stands beside page, metric or labels; remove query, or all of them",
        at="query",
    ),
    Refusal(
        "PromQL of a tenant",
        _scaling(activation={"query": 'sum(x{namespace="a"})'}),
        "is not of the right form; allowed: lower-case letters, digits, - and _",
        "should match '^[a-z]([-a-z0-9_]*[a-z0-9])?$'",
        at="query",
    ),
    Refusal(
        "an activation page given as a URL",
        _scaling(activation={"page": "http://gateway/metrics", "metric": "waiting"}),
        "value 'http://gateway/metrics' is not of the right form",
        "should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'",
        at="page",
    ),
    Refusal(
        "an activation label that no series can have",
        _scaling(activation={"page": "gateway", "metric": "waiting", "labels": {"app-name": "x"}}),
        "labels has a key that is no label name; use letters, digits and _",
        at="labels",
    ),
    Refusal(
        "seventeen activation labels",
        _scaling(activation={"page": "g", "metric": "w", "labels": {f"l{i}": "x" for i in range(17)}}),
        "value (a mapping) is out of range",
        "must have at most 16 items",
        at="labels",
    ),
    # what nothing here does
    Refusal(
        "a hard limit that nothing enforces",
        _scaling(concurrencyHardLimit=4),
        "concurrencyHardLimit 4 is refused: nothing enforces it; remove it or set 0",
    ),
    Refusal(
        "a policy that does not exist yet",
        _scaling(policy="hpa"),
        "value 'hpa' is not known; allowed: kpa",
        'supported values: "kpa"',
    ),
    Refusal(
        "mode observe, which needs a target that exists anyway",
        {"spec.mode": "observe"},
        "mode observe writes nothing, so it needs an object that is there anyway; set serving.targetRef",
    ),
    Refusal(
        "a mode that nobody knows",
        {"spec.mode": "watch"},
        "value 'watch' is not known; allowed: active, paused, observe",
        'supported values: "active", "paused", "observe"',
    ),
    # an object of somebody else
    Refusal(
        "a Knative Service, which Knative scales",
        _target(apiVersion="serving.knative.dev/v1", kind="Service"),
        "kind Service is Knative's, which scales its revisions itself, and two that write one count never agree; "
        "set autoscaling.knative.dev/min-scale, max-scale, metric and target on the Knative Service, or move its pod "
        "template to serving.deployment",
        at="targetRef.kind",
    ),
    Refusal("a target without a name", _target(name=REMOVED), "is missing", "Required value", at="targetRef.name"),
    Refusal(
        "a target of a group without a version",
        _target(apiVersion="apps"),
        "value 'apps' is not of the right form; allowed: a group and a version such as apps/v1",
        "should match",
        at="targetRef.apiVersion",
    ),
    Refusal(
        "a target's kind in small letters",
        _target(kind="statefulset"),
        "value 'statefulset' is not of the right form; allowed: letters and digits, starting with a capital letter",
        "should match",
        at="targetRef.kind",
    ),
    Refusal(
        "a Service for a target",
        {**_target(), "spec.traffic": {"service": "llama"}},
        "traffic.service is for replicas of ours; whoever made a targetRef's object routes to it: remove it",
        at="traffic.service",
    ),
    Refusal(
        "a deletion policy for a target",
        {**_target(), "spec.deletionPolicy": "Delete"},
        "deletionPolicy is for objects of ours; the one of targetRef always stays: remove it",
        at="deletionPolicy",
    ),
    Refusal(
        "a time-out of the first revision of a target",
        {**_target(), "spec.serving.initializationTimeoutSeconds": 60},
        "initializationTimeoutSeconds is for a first revision, and a targetRef has none; remove it",
        at="initializationTimeoutSeconds",
    ),
    Refusal(
        "initial replicas of a target",
        {**_target(), f"{_SCALING}.initialReplicas": 2},
        "initialReplicas is for a first start, and the object of targetRef has a count already; remove it",
        at="initialReplicas",
    ),
    Refusal(
        "a target that is stopped and observed",
        {**_target(), "spec.mode": "observe", "spec.desiredPhase": "Stopped"},
        "desiredPhase Stopped takes all replicas away, and mode observe writes nothing; set mode active",
        at="desiredPhase",
    ),
    Refusal(
        "an engine that nobody reads",
        {"spec.serving.engine": "ollama"},
        "value 'ollama' is not known; allowed: auto, vllm, sglang, tgi, nim, triton, tensorrt-llm, dynamo, custom",
        'supported values: "auto", "vllm", "sglang", "tgi", "nim", "triton", "tensorrt-llm", "dynamo", "custom"',
    ),
    Refusal(
        "a priority that does not exist",
        {"spec.priority": "urgent"},
        "value 'urgent' is not known; allowed: very-low, low, medium-low, medium, medium-high, high, very-high",
        'supported values: "very-low", "low", "medium-low"',
    ),
    Refusal(
        "desiredPhase Deleted",
        {"spec.desiredPhase": "Deleted"},
        "value 'Deleted' is not known; allowed: Running, Stopped",
        'supported values: "Running", "Stopped"',
    ),
    Refusal(
        "a deletion policy that does not exist",
        {"spec.deletionPolicy": "Retain"},
        "value 'Retain' is not known; allowed: Delete, Orphan",
        'supported values: "Delete", "Orphan"',
    ),
    Refusal(
        "a block of a later release",
        {"spec.preemptibility": "preemptible"},
        "unknown key; allowed: desiredPhase",
        'unknown field "spec.preemptibility"',
    ),
    Refusal(
        "a misspelt field",
        _scaling(minReplica=1),
        "unknown key, did you mean minReplicas?",
        'unknown field "spec.autoscaling.minReplica"',
    ),
    # serving
    Refusal(
        "no kind of serving",
        {"spec.serving.deployment": REMOVED},
        "serving has no kind; set deployment, leaderWorkerSet or targetRef",
    ),
    Refusal(
        "two kinds of serving",
        {_GROUPS: {"size": 2, "workerTemplate": _template()}},
        "serving has two kinds; keep one of deployment, leaderWorkerSet and targetRef",
    ),
    Refusal(
        "a group without size",
        _groups(size=REMOVED),
        "is missing; allowed: a whole number from 1",
        "Required value",
        at="size",
    ),
    Refusal(
        "a group of nothing",
        _groups(size=0),
        "value 0 is out of range; allowed: a whole number from 1",
        "should be greater than or equal to 1",
        at="size",
    ),
    Refusal("a group without workers", _groups(workerTemplate=REMOVED), "is missing", "Required", at="workerTemplate"),
    Refusal(
        "a worker that runs to its end",
        _groups(workerTemplate=_template(restartPolicy="Never")),
        "restartPolicy Never does not fit replicas that are kept running; set Always or remove it",
        at="restartPolicy",
    ),
    Refusal(
        "a leader with a label that decides about traffic",
        _groups(leaderTemplate={"metadata": {"labels": {"tidegate.dev/revision": "x"}}, **_template()}),
        "labels under tidegate.dev/ decide which pods get traffic and are set by Tidegate alone; remove them",
        at="labels",
    ),
    Refusal(
        "a restart policy that LeaderWorkerSet gave up",
        _groups(restartPolicy="Default"),
        "value 'Default' is not known; allowed: RecreateGroupOnPodRestart, RecreateGroupAfterStart, None",
        'supported values: "RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"',
        at="restartPolicy",
    ),
    Refusal(
        "a startup policy that does not exist",
        _groups(startupPolicy="WorkersFirst"),
        "value 'WorkersFirst' is not known; allowed: LeaderCreated, LeaderReady",
        'supported values: "LeaderCreated", "LeaderReady"',
        at="startupPolicy",
    ),
    Refusal(
        "a network without subdomains",
        _groups(networkConfig={}),
        "is missing; allowed: Shared, UniquePerReplica",
        "Required value",
        at="subdomainPolicy",
    ),
    Refusal(
        "sub-groups that do not come out even",
        _groups(size=8, subGroupPolicy={"subGroupSize": 3}),
        "subGroupSize 3 does not split a group of size 8; set a number that divides size - 1",
        at="subGroupSize",
    ),
    Refusal(
        "sub-groups that need the leader, which is in none",
        _groups(size=8, subGroupPolicy={"subGroupSize": 4, "subGroupPolicyType": "LeaderExcluded"}),
        "subGroupSize 4 does not split a group of size 8",
        at="subGroupSize",
    ),
    Refusal(
        "a sub-group larger than its group",
        _groups(size=1, subGroupPolicy={"subGroupSize": 2}),
        "subGroupSize 2 does not split a group of size 1",
        at="subGroupSize",
    ),
    Refusal("serving with nothing in it", {"spec.serving": None}, "is not a mapping", "Invalid value"),
    Refusal(
        "no port",
        {"spec.serving.port": REMOVED},
        "is missing; allowed: a whole number from 1 to 65535",
        "Required value",
    ),
    Refusal(
        "port 0",
        {"spec.serving.port": 0},
        "value 0 is out of range; allowed: a whole number from 1 to 65535",
        "should be greater than or equal to 1",
    ),
    Refusal(
        "port 65536",
        {"spec.serving.port": 65536},
        "value 65536 is out of range; allowed: a whole number from 1 to 65535",
        "should be less than or equal to 65535",
    ),
    Refusal(
        "an unknown protocol",
        {"spec.serving.protocol": "https"},
        "value 'https' is not known; allowed: http, grpc",
        'supported values: "http", "grpc"',
    ),
    Refusal(
        "a metrics path without its slash",
        {"spec.serving.metrics.path": "metrics"},
        "value 'metrics' is not of the right form; allowed: a path that starts with / and has no spaces",
        "should match '^/[!-~]*$'",
    ),
    Refusal(
        "a metrics path of 254 characters",
        {"spec.serving.metrics.path": "/" + "a" * 253},
        "is out of range",
        "may not be more than 253",
    ),
    Refusal(
        "no time to initialize",
        {"spec.serving.initializationTimeoutSeconds": 0},
        "value 0 is out of range; allowed: a whole number from 1",
        "should be greater than or equal to 1",
    ),
    Refusal(
        "an engine's signal with engine custom",
        {"spec.serving.engine": "custom"},
        "metric concurrency is read from an engine, and engine is custom; set metric to the name of a metric that",
        at="metric",
    ),
    Refusal(
        "0 to 1 without metric with engine custom",
        {"spec.serving.engine": "custom", **_only(minReplicas=0)},
        "metric is missing: with engine custom nothing else tells 0 from 1 replica",
        at="metric",
    ),
    # the template
    Refusal(
        "a template without spec",
        {_POD: {"metadata": {}}},
        "is missing; allowed: a mapping",
        "Required value",
        at="spec",
    ),
    Refusal(
        "a template without containers", {f"{_POD}.spec": {}}, "containers is missing or empty; list", at="containers"
    ),
    Refusal("an empty list of containers", {f"{_POD}.spec.containers": []}, "containers is missing or empty; list"),
    Refusal(
        "a template that runs to its end",
        {f"{_POD}.spec.restartPolicy": "Never"},
        "restartPolicy Never does not fit replicas that are kept running; set Always or remove it",
    ),
    Refusal(
        "a label that decides about traffic",
        {f"{_POD}.metadata": {"labels": {"tidegate.dev/revision": "x"}}},
        "labels under tidegate.dev/ decide which pods get traffic and are set by Tidegate alone; remove them",
        at="labels",
    ),
    # updates
    Refusal(
        "no time in the queue",
        _rollout(queueTimeoutSeconds=0),
        "value 0 is out of range; allowed: a whole number from 1 to 604800",
        "should be greater than or equal to 1",
    ),
    Refusal(
        "a queue timeout below zero",
        _rollout(queueTimeoutSeconds=-60),
        "value -60 is out of range; allowed: a whole number from 1 to 604800",
        "should be greater than or equal to 1",
    ),
    Refusal(
        "a schedule timeout below zero",
        _rollout(scheduleTimeoutSeconds=-1),
        "value -1 is out of range; allowed: a whole number from 1 to 604800",
        "should be greater than or equal to 1",
    ),
    Refusal(
        "a progress deadline below zero",
        _rollout(progressDeadlineSeconds=-600),
        "value -600 is out of range; allowed: a whole number from 1 to 604800",
        "should be greater than or equal to 1",
    ),
    Refusal(
        "a progress deadline of more than a week",
        _rollout(progressDeadlineSeconds=604801),
        "value 604801 is out of range; allowed: a whole number from 1 to 604800",
        "should be less than or equal to 604800",
    ),
    Refusal(
        "an unknown answer to short quota",
        _rollout(whenQuotaShort="replaceInPlace"),
        "value 'replaceInPlace' is not known; allowed: wait, refuse",
        'supported values: "wait", "refuse"',
    ),
    Refusal(
        "weights that fall",
        _steps({"weight": 10}, {"weight": 50}, {"weight": 20}),
        "the weights [10, 50, 20] do not rise; set each above the one before, from 1 to 100",
        at="steps",
    ),
    Refusal(
        "a weight twice",
        _steps({"weight": 10, "pause": "1m"}, {"weight": 10}),
        "the weights [10, 10] do not rise; set each above the one before, from 1 to 100",
        at="steps",
    ),
    Refusal(
        "a weight of nothing",
        _steps({"weight": 0}),
        "value 0 is out of range; allowed: a whole number from 1 to 100",
        "should be greater than or equal to 1",
        at="steps[0].weight",
    ),
    Refusal(
        "a weight of 101",
        _steps({"weight": 10}, {"weight": 101}),
        "value 101 is out of range; allowed: a whole number from 1 to 100",
        "should be less than or equal to 100",
        at="steps[1].weight",
    ),
    Refusal(
        "a step without weight",
        _steps({"pause": "2m"}),
        "is missing; allowed: a whole number from 1 to 100",
        "Required value",
        at="steps[0].weight",
    ),
    Refusal(
        "21 steps",
        _steps(*({"weight": weight} for weight in range(1, 22))),
        "is out of range; allowed: a list of at most 20",
        "must have at most 20 items",
        at="steps",
    ),
    Refusal(
        "a pause without unit",
        _steps({"weight": 10, "pause": "120"}),
        "value '120' is not of the right form; allowed: a duration such as 30s, 1m30s or 2h",
        "should match",
        at="steps[0].pause",
    ),
    Refusal(
        "a pause of words",
        _steps({"weight": 10, "pause": "two minutes"}),
        "value 'two minutes' is not of the right form; allowed: a duration such as 30s, 1m30s or 2h",
        "should match",
        at="steps[0].pause",
    ),
    Refusal(
        "a pause below zero",
        _steps({"weight": 10, "pause": "-2m"}),
        "value '-2m' is not of the right form; allowed: a duration such as 30s, 1m30s or 2h",
        "should match",
        at="steps[0].pause",
    ),
    Refusal(
        "a pause that is a number",
        _steps({"weight": 10, "pause": 120}),
        "value 120 is not text; allowed: a duration such as 30s, 1m30s or 2h",
        "must be of type string",
        at="steps[0].pause",
    ),
    Refusal(
        "a pause of more than a week",
        _steps({"weight": 10, "pause": "168h1s"}),
        "pause 168h1s is too long; set a duration from 0s to 168h, or pause by hand",
        at="steps[0].pause",
    ),
    Refusal(
        "steps without a route",
        {f"{_ROLLOUT}.steps": [{"weight": 10}]},
        "steps need a route that takes weights, and a Service's selector takes none; set traffic.httpRoute, or remove",
    ),
    Refusal(
        "a warm-up without path",
        _rollout(warmup={"requests": 2}),
        "is missing; allowed: a path that starts with / and has no spaces",
        "Required value",
        at="warmup.path",
    ),
    Refusal(
        "a warm-up path without its slash",
        {f"{_ROLLOUT}.warmup.path": "v1/models"},
        "value 'v1/models' is not of the right form; allowed: a path that starts with / and has no spaces",
        "should match '^/[!-~]*$'",
        at="warmup.path",
    ),
    Refusal(
        "a warm-up path of another host",
        {f"{_ROLLOUT}.warmup.path": "http://metadata/latest"},
        "value 'http://metadata/latest' is not of the right form; allowed: a path that starts with /",
        "should match '^/[!-~]*$'",
        at="warmup.path",
    ),
    Refusal(
        "no warm-up requests",
        _rollout(warmup={"path": "/health", "requests": 0}),
        "value 0 is out of range; allowed: a whole number from 1 to 100",
        "should be greater than or equal to 1",
        at="warmup.requests",
    ),
    Refusal(
        "a warm-up body of 8193 characters",
        _rollout(warmup={"path": "/v1/completions", "body": "a" * 8193}),
        "is out of range; allowed: text of at most 8192 characters",
        "may not be more than 8192",
        at="warmup.body",
    ),
    Refusal(
        "a warm-up by gRPC",
        {f"{_ROLLOUT}.warmup": {"path": "/health"}, "spec.serving.protocol": "grpc"},
        "warmup is sent by HTTP, and serving.protocol is grpc; remove warmup",
    ),
    Refusal(
        "a drain timeout below zero",
        _rollout(drain={"timeoutSeconds": -1}),
        "value -1 is out of range; allowed: a whole number from 0 to 86400",
        "should be greater than or equal to 0",
        at="drain.timeoutSeconds",
    ),
    Refusal(
        "a quiet time of more than an hour",
        _rollout(drain={"quietSeconds": 3601}),
        "value 3601 is out of range; allowed: a whole number from 0 to 3600",
        "should be less than or equal to 3600",
        at="drain.quietSeconds",
    ),
    Refusal(
        "a history below zero",
        _rollout(revisionHistoryLimit=-1),
        "value -1 is out of range; allowed: a whole number from 0 to 100",
        "should be greater than or equal to 0",
    ),
    Refusal(
        "paused by a word",
        _rollout(paused="yes"),
        "value 'yes' is not true or false",
        "must be of type boolean",
    ),
    Refusal(
        "a rollout of somebody else's object",
        {_ROLLOUT: {"paused": True}, **_target()},
        "rollout is for revisions of ours, and a targetRef has none; remove it",
    ),
    Refusal(
        "a route to somebody else's object",
        {**_ROUTE, **_target()},
        "traffic.httpRoute is for replicas of ours; whoever made a targetRef's object routes to it: remove it",
        at="httpRoute",
    ),
    Refusal(
        "a route without name",
        {"spec.traffic": {"httpRoute": {"ruleName": "chat"}}},
        "is missing; allowed: lower-case letters",
        "Required value",
        at="httpRoute.name",
    ),
    Refusal(
        "a rule with capitals",
        {"spec.traffic": {"httpRoute": {"name": "llama", "ruleName": "Chat"}}},
        "value 'Chat' is not of the right form; allowed: lower-case letters",
        "should match",
        at="httpRoute.ruleName",
    ),
    Refusal(
        "a request timeout that nothing keeps",
        {"spec.serving.requestTimeoutSeconds": 30},
        "requestTimeoutSeconds 30 is kept by a route alone; set traffic.httpRoute, or remove it",
    ),
    Refusal(
        "no time for a request",
        {"spec.serving.requestTimeoutSeconds": 0, **_ROUTE},
        "value 0 is out of range; allowed: a whole number from 1 to 86400",
        "should be greater than or equal to 1",
    ),
    # node pools
    Refusal(
        "a node pool twice",
        {"spec.nodePools": ["h100", "a100", "h100"]},
        "nodePools h100, a100, h100 has one twice; name each node pool once",
    ),
    Refusal(
        "no node pool",
        {"spec.nodePools": []},
        "is out of range; allowed: a list of 1 to 8",
        "should have at least 1 items",
    ),
    Refusal(
        "nine node pools",
        {"spec.nodePools": [f"pool-{number}" for number in range(9)]},
        "is out of range; allowed: a list of 1 to 8",
        "must have at most 8 items",
    ),
    Refusal(
        "a node pool with capitals",
        {"spec.nodePools": ["H100"]},
        "value 'H100' is not of the right form; allowed: lower-case letters",
        "should match",
        at="nodePools[0]",
    ),
    # names of other things
    Refusal(
        "a project with capitals",
        {"spec.project": "ML-Team"},
        "value 'ML-Team' is not of the right form; allowed: lower-case letters",
        "should match",
    ),
    Refusal(
        "a Service that starts with a digit",
        {"spec.traffic.service": "7b"},
        "value '7b' is not of the right form; allowed: lower-case letters, digits and -, starting with a letter",
        "should match",
    ),
]

ACCEPTED = {
    "the shortest": good(),
    "a name of 39 characters": good("a" * 39),
    "nulls are the same as unset": changed(
        {
            "spec.traffic": {"service": None},
            "spec.project": None,
            "spec.serving.metrics": None,
            "spec.serving.initializationTimeoutSeconds": None,
            **_scaling(initialReplicas=None, activation=None, scaleToZeroRetentionSeconds=0, concurrencyHardLimit=0),
        }
    ),
    "no autoscaling at all": changed({_SCALING: None}),
    "only a minimum": changed(_only(minReplicas=3)),
    "0 to 1 without metric": changed(_only(minReplicas=0)),
    "a KV cache without threshold": changed(_only(maxReplicas=4, metric="kv-cache")),
    "all of the KV cache": changed(_scaling(metric="kv-cache", metricThreshold=1)),
    "a share of the KV cache": changed(_scaling(metric="kv-cache", metricThreshold="0.8")),
    "a threshold in thousandths": changed(_scaling(metric="latency", metricThreshold="500m")),
    "several signals": changed(
        _scaling(
            signals=[
                {"metric": "latency", "threshold": "500m", "percentile": 95},
                {"metric": "throughput", "threshold": 50, "direction": "up"},
                {"metric": "kv-cache", "direction": "down"},
                {"metric": "app:jobs", "threshold": 3, "percentile": None, "direction": "both"},
            ]
        )
    ),
    "an empty list of signals": changed(_only(minReplicas=2, signals=[])),
    "a percentage that concerns a further signal": changed(
        _scaling(
            metric="latency",
            metricThreshold=500,
            metricThresholdPercentage=80,
            signals=[{"metric": "concurrency", "threshold": 10}],
        )
    ),
    "a percentage with a fraction": changed(_scaling(metricThresholdPercentage=72.5)),
    "to zero on throughput": changed(_scaling(minReplicas=0, metric="throughput", scaleToZeroRetentionSeconds=3600)),
    "to zero on a metric of the pods, woken by a page": changed(
        _scaling(
            minReplicas=0,
            metric="app:waiting",
            activation={"page": "gateway", "metric": "waiting", "labels": {"service": "llama"}},
        )
    ),
    "initialReplicas of zero where zero is allowed": changed(_scaling(minReplicas=0, initialReplicas=0)),
    "engine custom with a metric of the pods": changed(
        {"spec.serving.engine": "custom", **_scaling(metric="my_queue")}
    ),
    "manual replicas above maxReplicas": changed({"spec.replicas": 20}),
    "the shortest group": changed(_groups(size=1)),
    "groups with everything": changed(
        _groups(
            size=9,
            leaderTemplate={"metadata": {"labels": {"role": "head"}}, **_template(nodeSelector={"gpu": "h100"})},
            startupPolicy="LeaderReady",
            restartPolicy="None",
            subGroupPolicy={"subGroupSize": 4, "subGroupPolicyType": "LeaderExcluded"},
            networkConfig={"subdomainPolicy": "UniquePerReplica"},
        )
    ),
    "sub-groups with the leader in the first": changed(_groups(size=8, subGroupPolicy={"subGroupSize": 4})),
    "an update in every detail": changed(
        {
            "spec.nodePools": ["h100", "a100"],
            "spec.serving.requestTimeoutSeconds": 86400,
            "spec.traffic": {"httpRoute": {"name": "llama", "ruleName": "chat"}},
            **_rollout(
                queueTimeoutSeconds=604800,
                scheduleTimeoutSeconds=1,
                progressDeadlineSeconds=1800,
                whenQuotaShort="refuse",
                steps=[{"weight": 1, "pause": "1h0m30.5s"}, {"weight": 50}, {"weight": 100, "pause": "168h"}],
                warmup={"path": "/v1/completions?warm=1", "body": '{"prompt": "hi"}', "requests": 100},
                drain={"timeoutSeconds": 0, "quietSeconds": 3600},
                revisionHistoryLimit=0,
                paused=True,
            ),
        }
    ),
    "an update in no detail": changed(
        {
            "spec.nodePools": None,
            "spec.traffic": {"httpRoute": None},
            _ROLLOUT: {"steps": [], "warmup": None, "drain": {}, "paused": None},
        }
    ),
    "twenty steps": changed(_steps(*({"weight": weight, "pause": "0s"} for weight in range(5, 101, 5)))),
    "a target in a node pool": changed({"spec.nodePools": ["h100"], **_target()}),
    "everything else": changed(
        {
            "spec.desiredPhase": "Stopped",
            "spec.mode": "paused",
            "spec.project": "ml-team",
            "spec.priority": "medium-high",
            "spec.deletionPolicy": "Orphan",
            "spec.traffic": {"service": "front"},
            "spec.serving.protocol": "grpc",
            "spec.serving.engine": "vllm",
            "spec.serving.metrics": {"port": 9090, "path": "/metrics?all=1"},
            "spec.serving.initializationTimeoutSeconds": 1800,
            f"{_POD}.metadata": {"labels": {"app": "x"}, "annotations": {"a": "b"}, "creationTimestamp": None},
            f"{_POD}.spec.restartPolicy": "Always",
            f"{_POD}.spec.tolerations": [{"operator": "Exists"}],
            **_scaling(policy="kpa", scaleDownDelaySeconds=3600, activationReplicas=2),
        }
    ),
}
