"""Turns stored objects and the operator's word into resolved specs: seconds, ratios, defaults merged.

Precedence: the workload's field, the configuration's default, the built-in default. What cannot be resolved is a value
that says which condition to show, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import msgspec

from autoscaler.cluster.inferenceworkload import Autoscaling, InferenceWorkload, Rollout, Serving, Spec, unix_seconds
from autoscaler.cluster.resources import ControllerRevision
from autoscaler.cluster.scalable import digest_of
from autoscaler.controller.rollout_specs import pools_of, rollout_of, route_of
from autoscaler.controller.signal_specs import Names, activation_of, signals_of
from autoscaler.model.quota import Domain
from autoscaler.model.resources import EMPTY, ResourceVector, add, pod_demand, times
from autoscaler.model.rollout import DEFAULT_POOL
from autoscaler.model.workload import (
    DesiredPhase,
    Engine,
    KpaParameters,
    Mode,
    Priority,
    Protocol,
    ScalingSpec,
    ServingSpec,
    TargetSpec,
    WorkloadKey,
    WorkloadSpec,
)
from autoscaler.signals.engines import ENGINES, METRICS_PATH
from autoscaler.signals.queries import NamedQuery
from rollouts.revision import Revision, carried_annotations, identify, identity_of

_NEEDED: Final = ("deployment.template", "leaderWorkerSet.workerTemplate and size", "a whole targetRef")
KNATIVE: Final = "serving.knative.dev/"

S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Operator:
    """What the operator fixed for all workloads."""

    defaults: Spec = field(default_factory=Spec)
    kpa: KpaParameters = field(default_factory=KpaParameters)
    projects: Mapping[str, str] = field(default_factory=dict)  # namespace -> project
    limits: Mapping[Domain, ResourceVector] = field(default_factory=dict)  # of those that have any
    node_pools: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {DEFAULT_POOL: {}})  # labels of nodes
    project_pools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # in order; those not in it: default
    pages: frozenset[str] = frozenset()  # names of activation pages
    ceiling_replicas: int | None = None
    queries: Mapping[str, NamedQuery] = field(default_factory=dict)  # of the configuration, by name
    target_kinds: Mapping[tuple[str, str], str] = field(default_factory=dict)  # apiVersion and kind -> plural
    republish: bool = False  # the series of model/foreign.py

    @property
    def project_names(self) -> Set[str]:
        """Of those that are configured, with a limit or without."""
        return {*self.projects.values(), *self.project_pools, *(project for project, _ in self.limits)}


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a workload cannot be worked on: a condition with its reason and a sentence."""

    condition: str
    reason: str
    message: str


def resolve(workload: InferenceWorkload, operator: Operator) -> WorkloadSpec | Unresolved:
    """The spec that the cores work on."""
    try:
        return _resolve(workload, operator)
    except _Wrong as wrong:
        return wrong.why
    except ValueError as error:
        return Unresolved("ScalingActive", "InvalidConfiguration", str(error))


class Resolver:
    """What follows from an object's spec, remembered per generation: at 1,000 workloads half of a cycle otherwise."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self._known: dict[str, tuple[int, WorkloadSpec | Unresolved]] = {}  # by uid
        self._newest: dict[str, tuple[object, tuple[Revision, int]]] = {}  # by uid: made from what, and what it is
        self._prices: dict[str, ResourceVector] = {}  # by uid: of a target's replica, as last seen
        self._made_of: dict[str, dict[str, tuple[WorkloadSpec, WorkloadSpec]]] = {}  # by uid and revision: from, to
        self._limited = _limited(operator)

    def resolve(self, workload: InferenceWorkload) -> WorkloadSpec | Unresolved:
        meta = workload.metadata
        known = self._known.get(meta.uid)
        if known is None or known[0] != meta.generation:
            known = self._known[meta.uid] = (meta.generation, resolve(workload, self.operator))
        return known[1]

    def newest(
        self, workload: InferenceWorkload, collision_count: int, stored: Mapping[str, ControllerRevision]
    ) -> tuple[Revision, int]:
        """The revision that the stored template asks for, and the collision count that it needed."""
        meta = workload.metadata
        taken = {name: digest_of(each) for name, each in stored.items()}
        carried = _carried(workload)  # a change of annotations makes no new generation
        made_from = (meta.generation, collision_count, tuple(taken.items()), carried)
        known = self._newest.get(meta.uid)
        if known is None or known[0] != made_from:
            identity = identity_of(msgspec.to_builtins(workload.spec.serving), carried)
            newest, collisions = identify(meta.name, identity, taken, collision_count)
            if newest.name in stored:  # equal by digest; a template is long, and there is one copy of it already
                newest = replace(newest, identity=stored[newest.name].data or identity)
            known = self._newest[meta.uid] = (made_from, (newest, collisions))
        return known[1]

    def of_revision(self, spec: WorkloadSpec, name: str, content: Mapping[str, Any] | None) -> WorkloadSpec:
        """The spec with what that revision is made of: a template edit changes neither port nor price of what runs."""
        if content is None:
            return spec
        known = self._made_of.setdefault(spec.uid, {})
        if name not in known or known[name][0] is not spec:
            known[name] = (spec, of_revision(spec, content, self.operator.defaults.serving))
        return known[name][1]

    def limited_demands(
        self, spec: WorkloadSpec, contents: Mapping[str, Mapping[str, Any]], names: Iterable[str]
    ) -> dict[str, ResourceVector]:
        """What one replica of each of these revisions takes of the project's limited resources; the unknown are left
        out."""
        limited = self._limited.get(spec.project, frozenset())
        if not limited:
            return dict.fromkeys(names, EMPTY)
        found: dict[str, ResourceVector] = {}
        for name in names:
            if name in contents:
                whole = self.of_revision(spec, name, contents[name]).per_replica
                found[name] = {each: amount for each, amount in whole.items() if each in limited}
        return found

    def price(self, uid: str, seen: ResourceVector | None) -> ResourceVector | None:
        """Of a replica of a target: what its pods show, else showed last; None where none was seen yet."""
        if seen is not None:
            self._prices[uid] = seen
        return self._prices.get(uid)

    def forget_all_but(self, uids: Set[str]) -> None:
        """Drops what is remembered of deleted workloads."""
        for memory in (self._known, self._newest, self._prices, self._made_of):
            for uid in memory.keys() - uids:
                del memory[uid]


def _carried(workload: InferenceWorkload) -> Mapping[str, str]:
    """None for most; not all annotations, which would hold another copy of the template that kubectl keeps there."""
    serving = workload.spec.serving
    groups = serving.leader_worker_set if serving is not None else None
    return carried_annotations({"leaderWorkerSet": groups}, workload.metadata.annotations) if groups else {}


class _Wrong(Exception):
    def __init__(self, condition: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.why = Unresolved(condition, reason, message)


def _resolve(workload: InferenceWorkload, operator: Operator) -> WorkloadSpec:
    spec, defaults, meta = workload.spec, operator.defaults, workload.metadata
    serving = merged(spec.serving or Serving(), defaults.serving)
    target = _target(serving, operator)
    if (_group_of(serving) is None and target is None) or serving.port is None:
        raise _Wrong("TemplateInvalid", "Incomplete", f"spec.serving needs {' or '.join(_NEEDED)}, and port")
    service = spec.traffic.service if spec.traffic else None
    route = route_of(spec.traffic.http_route) if spec.traffic and target is None else None
    project = _project(spec.project, meta.namespace, operator)
    pools = pools_of(spec.node_pools, project, operator.project_pools, operator.node_pools)
    mode = Mode(spec.mode or defaults.mode or Mode.ACTIVE)
    if mode is Mode.OBSERVE and target is None:
        raise ValueError("spec.mode is observe, which needs spec.serving.targetRef; allowed here: active, paused")
    scaling = _scaling(
        _autoscaling(spec.autoscaling or Autoscaling(), defaults.autoscaling),
        spec.replicas,
        operator,
        WorkloadKey(meta.namespace, meta.name),
        Engine(serving.engine or Engine.AUTO),
    )
    return WorkloadSpec(
        key=WorkloadKey(meta.namespace, meta.name),
        uid=meta.uid,
        generation=meta.generation,
        created_at=unix_seconds(meta.creation_timestamp) if meta.creation_timestamp else 0.0,
        desired_phase=DesiredPhase(spec.desired_phase or defaults.desired_phase or DesiredPhase.RUNNING),
        mode=mode,
        project=project,
        node_pool=pools[0],
        priority=Priority(spec.priority or defaults.priority or Priority.VERY_HIGH),
        serving=_serving(serving, serving.port),
        scaling=scaling,
        per_replica=_demand(serving),
        service=service or meta.name,
        own_service=service is None or service == meta.name,
        orphan=(spec.deletion_policy or defaults.deletion_policy) == "Orphan",
        initialization_timeout_s=None if target else serving.initialization_timeout_seconds,
        target=target,
        rollout=rollout_of(
            _rollout(spec.rollout or Rollout(), defaults.rollout, serving), scaling, pools, route is not None
        ),
        route=route,
        request_timeout_s=serving.request_timeout_seconds if route is not None else None,
    )


def _target(serving: Serving, operator: Operator) -> TargetSpec | None:
    """The object to scale, if its kind is one that the operator allows."""
    ref = serving.target_ref
    if ref is None or not (ref.api_version and ref.kind and ref.name):
        return None
    given = f"spec.serving.targetRef is {ref.api_version} {ref.kind}"
    if ref.api_version.startswith(KNATIVE):
        raise ValueError(f"{given}, which Knative scales itself; move its pod template to spec.serving.deployment")
    resource = operator.target_kinds.get((ref.api_version, ref.kind))
    if resource is None:
        allowed = ", ".join(f"{version} {kind}" for version, kind in operator.target_kinds) or "none"
        raise ValueError(f"{given}; allowed by the configuration's targetKinds: {allowed}")
    return TargetSpec(ref.api_version, resource, ref.kind, ref.name)


def merged(own: S, default: S | None) -> S:
    """`own`, with the default's value where a field is None; blocks inside are merged alike."""
    if default is None:
        return own
    return type(own)(**{name: _either(getattr(own, name), getattr(default, name)) for name in own.__struct_fields__})


def _either(own: Any, default: Any) -> Any:
    if isinstance(own, msgspec.Struct) and isinstance(default, msgspec.Struct):
        return merged(own, default)
    return default if own is None else own


def _autoscaling(own: Autoscaling, default: Autoscaling | None) -> Autoscaling:
    """Merged, but what the workload wrote is never bent by an inherited half of the same pair."""
    whole = merged(own, default)
    if own.metric is not None and default is not None and own.metric != default.metric:
        whole = msgspec.structs.replace(whole, metric_threshold=own.metric_threshold)
    least, most = whole.min_replicas, whole.max_replicas
    if least is not None and most is not None and most < least:
        if own.max_replicas is None:
            whole = msgspec.structs.replace(whole, max_replicas=least)
        elif own.min_replicas is None:
            whole = msgspec.structs.replace(whole, min_replicas=most)
    return whole


def _rollout(own: Rollout, default: Rollout | None, serving: Serving) -> Rollout:
    """Merged, but a warm-up is one HTTP request: its path, body and number are taken together, and gRPC has none."""
    whole = merged(own, default)
    if serving.protocol == Protocol.GRPC:
        if own.warmup is not None:
            raise ValueError("spec.rollout.warmup is sent by HTTP, and the protocol is grpc; remove warmup")
        return msgspec.structs.replace(whole, warmup=None)
    return msgspec.structs.replace(whole, warmup=own.warmup) if own.warmup is not None else whole


def project_of(namespace: str, operator: Operator) -> str:
    """An unmapped namespace is a project of its own, whatever a configured one is called."""
    mapped = operator.projects.get(namespace)
    if mapped is not None:
        return mapped
    return namespace if namespace not in operator.project_names else f"namespace/{namespace}"


def _project(asked: str | None, namespace: str, operator: Operator) -> str:
    """The project that pays; nobody may name another one."""
    mapped = project_of(namespace, operator)
    if asked is not None and asked != mapped:
        raise _Wrong(
            "ProjectDenied", "NamespaceNotMapped", f"namespace {namespace} belongs to {mapped}, not to {asked}"
        )
    return mapped


@dataclass(frozen=True, slots=True)
class _Group:
    """The pods that make one replica: one that serves, and its workers."""

    leader: Mapping[str, Any]  # pod templates
    worker: Mapping[str, Any]
    workers: int


def _group_of(serving: Serving) -> _Group | None:
    """None where something is missing: only the API server's rules see to it that nothing is."""
    groups = serving.leader_worker_set
    if groups is not None:
        if groups.worker_template is None or groups.size is None:
            return None
        return _Group(groups.leader_template or groups.worker_template, groups.worker_template, groups.size - 1)
    if serving.deployment is None or serving.deployment.template is None:
        return None
    return _Group(serving.deployment.template, serving.deployment.template, 0)


def _demand(serving: Serving) -> ResourceVector:
    """What one replica is charged: a pod, or a leader and its workers."""
    group = _group_of(serving)
    if group is None:
        return {}
    try:
        leader, worker = _pod_demands(group)
        return add(leader, times(worker, group.workers)) if group.workers else leader
    except (ValueError, AttributeError, TypeError) as error:
        kind = "leaderWorkerSet" if serving.leader_worker_set is not None else "deployment"
        raise _Wrong("TemplateInvalid", "Resources", f"spec.serving.{kind}: {error}") from error


def _pod_demands(group: _Group) -> tuple[dict[str, int], dict[str, int]]:
    leader, worker = (pod_demand(template.get("spec") or {}) for template in (group.leader, group.worker))
    return leader, worker


def demand_of_pods(identity: Mapping[str, Any], leaders: int, workers: int) -> ResourceVector:
    """What so many pods of a revision are charged; nothing where its content cannot be read."""
    try:
        group = _group_of(msgspec.convert(identity, Serving))
        leader, worker = _pod_demands(group) if group else ({}, {})
    except (ValueError, AttributeError, TypeError):
        return {}
    return add(times(leader, leaders), times(worker, workers))


def demand_of_replicas(identity: Mapping[str, Any], replicas: int) -> ResourceVector:
    """What so many replicas of a revision are charged; nothing where its content cannot be read."""
    try:
        return times(_demand(msgspec.convert(identity, Serving)), replicas)
    except (ValueError, _Wrong):
        return {}


def of_revision(spec: WorkloadSpec, identity: Mapping[str, Any], default: Serving | None) -> WorkloadSpec:
    """The spec with what is served by that content; as it is where the content cannot be read."""
    try:
        serving = merged(msgspec.convert(identity, Serving), default)
        if _group_of(serving) is None or serving.port is None:
            return spec
        return replace(spec, serving=_serving(serving, serving.port), per_replica=_demand(serving))
    except (ValueError, _Wrong):
        return spec


def _limited(operator: Operator) -> dict[str, frozenset[str]]:
    """Names of the resources that a project has a limit for, in any of its node pools."""
    found: dict[str, frozenset[str]] = {}
    for (project, _), limit in operator.limits.items():
        found[project] = found.get(project, frozenset()) | limit.keys()
    return found


def _serving(serving: Serving, port: int) -> ServingSpec:
    metrics, engine = serving.metrics, Engine(serving.engine or Engine.AUTO)
    words = ENGINES.get(engine)
    return ServingSpec(
        port=port,
        protocol=Protocol(serving.protocol or Protocol.HTTP),
        metrics_port=(metrics.port if metrics else None) or (words.port if words else None) or port,
        metrics_path=(metrics.path if metrics else None) or (words.path if words else METRICS_PATH),
        engine=engine,
    )


def _scaling(
    asked: Autoscaling, manual: int | None, operator: Operator, key: WorkloadKey, engine: Engine
) -> ScalingSpec:
    least = 1 if asked.min_replicas is None else asked.min_replicas
    most = max(least, 1) if asked.max_replicas is None else asked.max_replicas
    if most < least:
        raise ValueError(f"autoscaling.maxReplicas is {most}, must be at least minReplicas ({least})")
    start = max(least, 1)
    initial = start if asked.initial_replicas is None else asked.initial_replicas
    signals = signals_of(asked, least, most, Names(engine, operator.queries))
    return ScalingSpec(
        min_replicas=least,
        max_replicas=most,
        initial_replicas=min(each for each in (most, initial, operator.ceiling_replicas) if each is not None),
        activation_replicas=min(most, asked.activation_replicas or start),
        signal=signals[0] if signals else None,
        retention_s=float(asked.scale_to_zero_retention_seconds or 0),
        scale_down_delay_s=float(asked.scale_down_delay_seconds or 0),
        manual_replicas=manual,
        activation=activation_of(asked.activation, operator.pages, operator.queries, key),
        kpa=operator.kpa,
        ceiling_replicas=operator.ceiling_replicas,
        further_signals=signals[1:],
    )
