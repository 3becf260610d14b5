"""The first part of a cycle: all that is known at one instant, as frozen values. Stale things are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
    Scalable,
)
from autoscaler.cluster.scalable import Kind, is_live, serves
from autoscaler.cluster.scalers import Scaler, Target, by_target
from autoscaler.cluster.status import record_of
from autoscaler.cluster.store import Store
from autoscaler.cluster.traffic import service as service_traffic
from autoscaler.cluster.workloads import deployment
from autoscaler.controller.kinds import kind_of
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
from autoscaler.model.resources import ResourceVector, add
from autoscaler.model.signal import Activation, WorkloadSignals
from autoscaler.model.workload import Mode, WorkloadKey, WorkloadSpec
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from rollouts.machine import Observed
from rollouts.rebuild import rebuild
from rollouts.record import Phase, Record
from rollouts.revision import Revision

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
            record = kept if kept.current else _rebuilt(store, workload, spec, known, pods, now)
            reading = readings.get(spec.key)
            newest = resolver.newest(workload, record.collision_count, known)
            subject = _subject(store, workload, spec, (kept, record), newest, known, pods, reading, activation)
            rival = _rival(subject, scalers) if scalers else None
            subjects.append(replace(subject, rival=rival) if rival else subject)
        except Exception as error:  # one odd object must not stop the others
            unresolved.append((workload, crashed(workload, error)))
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
        spec.key, workload, spec, stored, record, observed, observation, contents, addresses, there, kind=kind
    )


def _rival(subject: Subject, scalers: Mapping[Target, Scaler]) -> Rival | None:
    """Who scales the revision's object, or the workload itself: that would write spec.replicas and make it manual."""
    namespace, name = subject.key
    targets = [Target(namespace, GROUP, WORKLOADS.kind, name)]
    if subject.observed.current is not None:
        resource = subject.kind.resource
        group = resource.group_version.partition("/")[0]
        targets.append(Target(namespace, group, resource.kind, subject.observed.current.name))
    return next(((scalers[target], target) for target in targets if target in scalers), None)


def _applied(spec: WorkloadSpec, record: Record, observed: int | None) -> int | None:
    """The count to start from: the one that we wrote. Where more is there, more: only data may lower it.

    A crash between record and object, or a hand on the object while the daemon was away, leaves them apart.
    """
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
    return PodAddress(pod.metadata.name, pod.metadata.uid, pod.status.pod_ip or "")


def scrape_targets(snapshot: Snapshot) -> dict[WorkloadKey, ScrapeTarget]:
    """The pods to scrape: those that serve."""
    targets = {}
    for subject in snapshot.subjects:
        serving, signals = subject.spec.serving, subject.spec.scaling.signals
        if subject.pods and signals:
            targets[subject.key] = ScrapeTarget(
                serving.metrics_port, serving.metrics_path, serving.engine, signals, subject.pods
            )
    return targets
