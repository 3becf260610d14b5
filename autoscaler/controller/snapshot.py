"""The first part of a cycle: all that is known at one instant, as frozen values. Stale things are marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import owned
from autoscaler.cluster.resources import (
    GROUP,
    REVISION_LABEL,
    WORKLOAD_LABEL,
    WORKLOADS,
    ControllerRevision,
    Pod,
    Resource,
    Scalable,
    TargetPod,
)
from autoscaler.cluster.scalable import Kind, is_live, serves
from autoscaler.cluster.scalers import Scaler, Target, by_target
from autoscaler.cluster.status import record_of
from autoscaler.cluster.store import Store
from autoscaler.cluster.targets import SeenTarget, Unseen
from autoscaler.cluster.traffic import service as service_traffic
from autoscaler.cluster.workloads import deployment
from autoscaler.controller.kinds import kind_of, shape_of
from autoscaler.controller.ports import Activations, Signals
from autoscaler.controller.specs import (
    DEFAULT_POOL,
    Resolver,
    Unresolved,
    demand_of_pods,
    of_revision,
    project_of,
)
from autoscaler.model.decision import Observation
from autoscaler.model.quota import Domain, Hold
from autoscaler.model.resources import ResourceVector, add, largest
from autoscaler.model.signal import Activation, WorkloadSignals
from autoscaler.model.workload import Mode, TargetKey, TargetSpec, WorkloadKey, WorkloadSpec
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from rollouts.machine import Observed, ObservedService
from rollouts.rebuild import rebuild
from rollouts.record import Phase, Record
from rollouts.revision import Revision

KNATIVE_LABEL: Final = "serving.knative.dev/revision"  # on the Deployment that Knative makes of a revision
_NO_SERVICE: Final = ObservedService("", False)
log = structlog.get_logger()
Rival = tuple[Scaler, Target]  # who scales the workload too, and by which object


@dataclass(frozen=True, slots=True)
class Subject:
    """One workload as seen at this instant."""

    key: WorkloadKey
    workload: InferenceWorkload
    spec: WorkloadSpec
    stored: Record  # as the status has it
    record: Record  # the same, or rebuilt where the status was lost
    observed: Observed
    observation: Observation
    contents: Mapping[str, Mapping[str, Any]]  # identity by revision name
    pods: tuple[PodAddress, ...]  # those that serve
    there: Scalable | None = None  # the current revision's object
    rival: Rival | None = None
    kind: Kind = deployment.KIND  # of the current revision
    follows: bool = True  # is what is seen how it is now?
    priced: bool = True  # is it known what a replica is charged?
    selector: str = ""  # of a target's pods

    @property
    def resource(self) -> Resource:
        """Where the object that is scaled lives."""
        target = self.spec.target
        return Resource(target.api_version, target.resource, target.kind) if target else self.kind.resource

    @property
    def object_name(self) -> str | None:
        if self.spec.target is not None:
            return self.spec.target.name
        return self.observed.current.name if self.observed.current is not None else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All workloads at `at_s` (Unix seconds)."""

    at_s: float
    subjects: tuple[Subject, ...]  # sorted by key
    unresolved: tuple[tuple[InferenceWorkload, Unresolved], ...]
    patience_s: float  # a page may be missing this long before it is worth a word
    leftovers: Mapping[Domain, tuple[Hold, ...]]  # of pods of ours that belong to no subject's current revision

    @property
    def others(self) -> Mapping[Domain, ResourceVector]:
        """What the leftovers hold, by domain."""
        return {domain: add(*(hold.vector for hold in holds)) for domain, holds in self.leftovers.items()}

    def without(self, broken: Sequence[tuple[InferenceWorkload, Unresolved]]) -> Snapshot:
        """The same, with these workloads left alone."""
        gone = {_key(workload) for workload, _ in broken}
        kept = tuple(subject for subject in self.subjects if subject.key not in gone)
        return replace(self, subjects=kept, unresolved=(*self.unresolved, *broken))


def take(store: Store, signals: Signals, activations: Activations, resolver: Resolver, now: float) -> Snapshot:
    """Reads the copies, the readings and the activation pages; waits for nothing."""
    readings = signals.readings(now)
    pods = store.pods_by_revision()
    stored = store.revisions_by_workload()
    scalers = by_target(store.horizontal_pod_autoscalers.every(), store.scaled_objects.every())
    claims = _claims(store.workloads.every())
    named: list[tuple[str, TargetSpec]] = []
    subjects: list[Subject] = []
    unresolved: list[tuple[InferenceWorkload, Unresolved]] = []
    for workload in sorted(store.workloads.every(), key=_key):
        if workload.metadata.deletion_timestamp:
            continue  # the garbage collector takes what we own
        try:
            spec = resolver.resolve(workload)
            if isinstance(spec, Unresolved):
                unresolved.append((workload, spec))
                continue
            known = stored.get((spec.key.namespace, spec.key.name), {})
            activation = activations.state(spec.scaling.activation, now) if spec.scaling.activation else None
            kept = record_of(workload)
            reading = readings.get(spec.key)
            if kept.current and ("/" in kept.current) != (spec.target is not None):
                unresolved.append((workload, Unresolved("ScalingActive", "InvalidConfiguration", _SWITCHED)))
                continue
            if spec.target is not None:
                named.append((spec.key.namespace, spec.target))
                found = _of_target(store, workload, spec, spec.target, kept, reading, activation, resolver)
                if isinstance(found, Unresolved):
                    unresolved.append((workload, found))
                if found is None or isinstance(found, Unresolved):
                    continue
                subject = found
            else:
                record = kept if kept.current else _rebuilt(store, workload, spec, known, pods, now)
                newest = resolver.newest(workload, record.collision_count, known)
                subject = _subject(store, workload, spec, (kept, record), newest, known, pods, reading, activation)
            rival = _claimed(subject, claims) or (_rival(subject, scalers) if scalers else None)
            subjects.append(replace(subject, rival=rival) if rival else subject)
        except Exception as error:  # one odd object must not stop the others
            unresolved.append((workload, crashed(workload, error)))
    store.targets.keep(named)
    resolver.forget_all_but({workload.metadata.uid for workload in store.workloads.every()})
    leftovers = _leftovers(store, subjects, pods, resolver)
    return Snapshot(now, tuple(subjects), tuple(unresolved), 3 * signals.effective_period_s + 2.0, leftovers)


def crashed(workload: InferenceWorkload, error: Exception) -> Unresolved:
    """What is said of a workload that our own code could not work on; it stays as it is."""
    log.error("workload.not_understood", workload=str(_key(workload)), exc_info=error)
    message = f"internal error ({type(error).__name__}): the workload stays as it is; the log has more"
    return Unresolved("ScalingActive", "InternalError", message)


def _leftovers(
    store: Store,
    subjects: Sequence[Subject],
    pods: Mapping[tuple[str, str], Sequence[Pod]],
    resolver: Resolver,
) -> dict[Domain, tuple[Hold, ...]]:
    """What pods of ours hold whose workload is being deleted, cannot be resolved, or has another current revision."""
    counted = {
        (subject.key.namespace, subject.observed.current.name) for subject in subjects if subject.observed.current
    }
    held: dict[Domain, tuple[Hold, ...]] = {}
    for (namespace, revision), group in pods.items():
        stored = None if (namespace, revision) in counted else store.revisions.find(namespace, revision)
        live = [pod for pod in group if is_live(pod)]
        if stored is None or not live:
            continue
        leaders = sum(1 for pod in live if REVISION_LABEL in (pod.metadata.labels or {}))
        demand = demand_of_pods(stored.data or {}, leaders, len(live) - leaders)
        domain = (project_of(namespace, resolver.operator), DEFAULT_POOL)
        owner = str(WorkloadKey(namespace, (live[0].metadata.labels or {}).get(WORKLOAD_LABEL, "")))
        held[domain] = (*held.get(domain, ()), Hold(owner, revision, demand))
    return held


def _key(workload: InferenceWorkload) -> WorkloadKey:
    return WorkloadKey(workload.metadata.namespace, workload.metadata.name)


def _subject(
    store: Store,
    workload: InferenceWorkload,
    spec: WorkloadSpec,
    records: tuple[Record, Record],
    identified: tuple[Revision, int],
    known: Mapping[str, ControllerRevision],
    pods: Mapping[tuple[str, str], list[Pod]],
    signals: WorkloadSignals | None,
    activation: Activation | None,
) -> Subject:
    (stored, record), (newest, collisions) = records, identified
    namespace = spec.key.namespace
    current = record.current or newest.name
    own_pods = pods.get((namespace, current), [])
    contents: dict[str, Mapping[str, Any]] = {name: each.data or {} for name, each in known.items()}
    contents.setdefault(newest.name, newest.identity)
    kind = kind_of(store, namespace, current, contents.get(current))
    there = store.scalables[kind.resource].find(namespace, current)
    seen = kind.observe(current, there, own_pods)
    update_service = service_traffic.update_service_name(spec.service)
    observed = Observed(
        newest=newest,
        collision_count=collisions,
        saved=frozenset(known),
        current=seen,
        service=service_traffic.observe(spec.service, store.services.find(namespace, spec.service)),
        update_service=service_traffic.observe(update_service, store.services.find(namespace, update_service)),
    )
    if newest.name != current and current in contents:
        spec = of_revision(spec, contents[current])
    observation = Observation(
        applied=_applied(spec, record, seen.replicas),
        ready=seen.ready,
        starting=seen.starting,
        terminating=seen.terminating,
        initialized=record.initialized,
        signals=signals if seen.ready else None,
        activation=activation or Activation.NOT_CONFIGURED,
    )
    addresses = tuple(sorted((_address(pod) for pod in own_pods if serves(pod)), key=lambda each: each.name))
    return Subject(
        spec.key,
        workload,
        spec,
        stored,
        record,
        observed,
        observation,
        contents,
        addresses,
        there,
        kind=kind,
        follows=store.follows(namespace),
    )


def _of_target(
    store: Store,
    workload: InferenceWorkload,
    spec: WorkloadSpec,
    target: TargetSpec,
    stored: Record,
    signals: WorkloadSignals | None,
    activation: Activation | None,
    resolver: Resolver,
) -> Subject | Unresolved | None:
    """A workload whose object somebody else owns. None: it is being read, and will be known in a moment."""
    found = store.targets.find(spec.key.namespace, target)
    if not isinstance(found, SeenTarget):
        return Unresolved("AbleToScale", "FailedGetScale", found.message) if isinstance(found, Unseen) else None
    if KNATIVE_LABEL in (found.there.metadata.labels or {}):
        return Unresolved("AbleToScale", "FailedGetScale", _OF_KNATIVE.format(kind=target.kind, name=target.name))
    shape = shape_of(target)
    pods = store.targets.pods(spec.key.namespace, shape.selector(target.name, found.selector))
    current = shape.observe(str(target), found.there, pods)
    record = stored if stored.current == current.name else Record()
    price = resolver.price(spec.uid, _price(shape.replicas(pods)))
    observation = Observation(
        applied=_applied(spec, record, current.replicas),
        ready=current.ready,
        starting=current.starting,
        terminating=current.terminating,
        signals=signals if current.ready else None,
        activation=activation or Activation.NOT_CONFIGURED,
    )
    newest = Revision(current.name, "", {})
    return Subject(
        spec.key,
        workload,
        replace(spec, per_replica=price or {}),
        stored,
        record,
        Observed(newest, 0, frozenset(), current, _NO_SERVICE, _NO_SERVICE),
        observation,
        contents={},
        pods=tuple(_address(pod) for pod in pods if shape.serves(pod)),
        there=found.there,
        follows=found.follows,
        priced=price is not None,
        selector=found.selector,
    )


_SWITCHED: Final = (
    "spec.serving changed between targetRef and a kind of ours, and what ran goes on as it is; set it back, or make "
    "another workload"
)
_OF_KNATIVE: Final = (
    "{kind} {name} is of a Knative revision, which Knative scales itself; set autoscaling.knative.dev/min-scale, "
    "max-scale, metric and target on the Knative Service, or move its pod template to serving.deployment"
)


def _price(replicas: Sequence[Sequence[TargetPod]]) -> ResourceVector | None:
    """What a replica is charged, by the dearest that is there."""
    return largest(add(*(pod.demand for pod in pods)) for pods in replicas) if replicas else None


def _claims(workloads: Iterable[InferenceWorkload]) -> dict[Target, str]:
    """The workload that may scale each target: the oldest that names it and does more than observe."""
    oldest: dict[Target, tuple[str, str]] = {}
    for each in workloads:
        ref = each.spec.serving.target_ref if each.spec.serving else None
        if ref is None or each.metadata.deletion_timestamp or each.spec.mode == Mode.OBSERVE:
            continue
        group = _group(ref.api_version or "")
        target = Target(each.metadata.namespace, group, ref.kind or "", ref.name or "")
        mine = (each.metadata.creation_timestamp or "", each.metadata.name)
        oldest[target] = min(mine, oldest.get(target, mine))
    return {target: name for target, (_, name) in oldest.items()}


def _claimed(subject: Subject, claims: Mapping[Target, str]) -> Rival | None:
    """Another workload that scales the target: an older one that names it too, or the one that made it."""
    target = subject.spec.target
    if target is None or subject.there is None:
        return None
    scaled = Target(subject.key.namespace, _group(target.api_version), target.kind, target.name)
    owners = subject.there.metadata.owner_references or ()
    made = next((each.name for each in owners if each.controller and each.kind == WORKLOADS.kind), None)
    other = made or claims.get(scaled, subject.key.name)
    return (Scaler(WORKLOADS.kind, other), scaled) if made or other != subject.key.name else None


def _group(api_version: str) -> str:
    group, slash, _ = api_version.partition("/")
    return group if slash else ""


def _rival(subject: Subject, scalers: Mapping[Target, Scaler]) -> Rival | None:
    """Who scales the revision's object, or the workload itself: that would write spec.replicas and make it manual."""
    namespace, name = subject.key
    targets = [Target(namespace, GROUP, WORKLOADS.kind, name)]
    if subject.object_name is not None:
        resource = subject.resource
        targets.append(Target(namespace, _group(resource.group_version), resource.kind, subject.object_name))
    return next(((scalers[target], target) for target in targets if target in scalers), None)


def _applied(spec: WorkloadSpec, record: Record, observed: int | None) -> int | None:
    """The count to start from: the one that we wrote. Where more is there, more: only data may lower it.

    A crash between record and object, or a hand on the object while the daemon was away, leaves them apart.
    """
    if spec.mode is Mode.OBSERVE:
        return observed
    if record.replicas is None or observed is None:
        return observed if record.replicas is None else record.replicas
    held = spec.mode is Mode.PAUSED or spec.scaling.manual_replicas is not None
    return record.replicas if held or record.phase is Phase.FAILED else max(record.replicas, observed)


def _rebuilt(
    store: Store,
    workload: InferenceWorkload,
    spec: WorkloadSpec,
    known: Mapping[str, ControllerRevision],
    pods: Mapping[tuple[str, str], list[Pod]],
    now: float,
) -> Record:
    """The record of a workload whose status has none: rebuilt from its objects, or empty for a new workload."""
    namespace = spec.key.namespace
    names = [name for name, each in known.items() if owned(workload, each.metadata)]
    kinds = {name: kind_of(store, namespace, name, known[name].data) for name in sorted(names)}
    there = [
        kind.observe(name, store.scalables[kind.resource].find(namespace, name), pods.get((namespace, name), []))
        for name, kind in kinds.items()
    ]
    selected = service_traffic.observe(spec.service, store.services.find(namespace, spec.service)).selects
    return rebuild(there, selected, now) or Record()


def _address(pod: Pod) -> PodAddress:
    meta = pod.metadata
    return PodAddress(meta.name, meta.uid, pod.status.pod_ip or "", meta.creation_timestamp or "")


def scrape_targets(snapshot: Snapshot, republish: bool) -> dict[TargetKey, ScrapeTarget]:
    """The pods to scrape: those that serve, where a signal or what is republished needs them."""
    targets: dict[TargetKey, ScrapeTarget] = {}
    for subject in snapshot.subjects:
        serving, signals = subject.spec.serving, subject.spec.scaling.signals
        if subject.pods and (signals or republish):
            current = subject.observed.current
            targets[subject.key] = ScrapeTarget(
                serving.metrics_port,
                serving.metrics_path,
                serving.engine,
                signals,
                subject.pods,
                republish,
                current.name if current else "",
            )
    return targets
