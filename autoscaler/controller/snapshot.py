"""The first part of a cycle: all that is known at one instant, as frozen values. Stale things are marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import owned
from autoscaler.cluster.resources import ControllerRevision, Pod
from autoscaler.cluster.status import conditions_of, record_of
from autoscaler.cluster.store import Store
from autoscaler.cluster.traffic import service as service_traffic
from autoscaler.cluster.workloads import deployment as deployments
from autoscaler.controller.ports import Activations, Signals
from autoscaler.controller.specs import Resolver, Unresolved
from autoscaler.model.decision import Observation
from autoscaler.model.report import ConditionReport
from autoscaler.model.signal import Activation, WorkloadSignals
from autoscaler.model.workload import WorkloadKey, WorkloadSpec
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from rollouts.machine import Observed
from rollouts.rebuild import rebuild
from rollouts.record import Record
from rollouts.revision import Revision, identify, identity_of


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
    conditions_before: Mapping[str, ConditionReport]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All workloads at `at_s` (Unix seconds)."""

    at_s: float
    subjects: tuple[Subject, ...]  # sorted by key
    unresolved: tuple[tuple[InferenceWorkload, Unresolved], ...]
    patience_s: float  # a page may be missing this long before it is worth a word


def take(store: Store, signals: Signals, activations: Activations, resolver: Resolver, now: float) -> Snapshot:
    """Reads the copies, the readings and the activation pages; waits for nothing."""
    readings = signals.readings(now)
    pods = store.pods_by_revision()
    stored = store.revisions_by_workload()
    subjects: list[Subject] = []
    unresolved: list[tuple[InferenceWorkload, Unresolved]] = []
    for workload in sorted(store.workloads.every(), key=_key):
        if workload.metadata.deletion_timestamp:
            continue  # the garbage collector takes what we own
        spec = resolver.resolve(workload)
        if isinstance(spec, Unresolved):
            unresolved.append((workload, spec))
            continue
        known = stored.get((spec.key.namespace, spec.key.name), {})
        activation = activations.state(spec.scaling.activation, now) if spec.scaling.activation else None
        stored_record = record_of(workload)
        record = stored_record if stored_record.current else _rebuilt(store, workload, spec, known, pods, now)
        subjects.append(
            _subject(store, workload, spec, (stored_record, record), known, pods, readings.get(spec.key), activation)
        )
    resolver.forget_all_but({workload.metadata.uid for workload in store.workloads.every()})
    return Snapshot(now, tuple(subjects), tuple(unresolved), 3 * signals.effective_period_s + 2.0)


def _key(workload: InferenceWorkload) -> WorkloadKey:
    return WorkloadKey(workload.metadata.namespace, workload.metadata.name)


def _subject(
    store: Store,
    workload: InferenceWorkload,
    spec: WorkloadSpec,
    records: tuple[Record, Record],
    known: Mapping[str, ControllerRevision],
    pods: Mapping[tuple[str, str], list[Pod]],
    signals: WorkloadSignals | None,
    activation: Activation | None,
) -> Subject:
    stored, record = records
    namespace = spec.key.namespace
    newest, collisions = _newest(workload, record, known)
    current = record.current or newest.name
    own_pods = pods.get((namespace, current), [])
    seen = deployments.observe(current, store.deployments.find(namespace, current), own_pods)
    update_service = service_traffic.update_service_name(spec.service)
    observed = Observed(
        newest=newest,
        collision_count=collisions,
        saved=frozenset(known),
        current=seen,
        service=service_traffic.observe(spec.service, store.services.find(namespace, spec.service)),
        update_service=service_traffic.observe(update_service, store.services.find(namespace, update_service)),
    )
    contents: dict[str, Mapping[str, Any]] = {name: each.data or {} for name, each in known.items()}
    contents.setdefault(newest.name, newest.identity)
    observation = Observation(
        applied=record.replicas if record.replicas is not None else seen.replicas,
        ready=seen.ready,
        starting=seen.starting,
        terminating=seen.terminating,
        initialized=record.initialized,
        signals=signals if seen.ready else None,
        activation=activation or Activation.NOT_CONFIGURED,
    )
    addresses = tuple(
        sorted((_address(pod) for pod in own_pods if deployments.serves(pod)), key=lambda each: each.name)
    )
    return Subject(
        spec.key, workload, spec, stored, record, observed, observation, contents, addresses, conditions_of(workload)
    )


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
    there = [
        deployments.observe(name, store.deployments.find(namespace, name), pods.get((namespace, name), []))
        for name in sorted(names)
    ]
    selected = service_traffic.observe(spec.service, store.services.find(namespace, spec.service)).selects
    return rebuild(there, selected, now) or Record()


def _newest(
    workload: InferenceWorkload, record: Record, known: Mapping[str, ControllerRevision]
) -> tuple[Revision, int]:
    """The revision that the stored template asks for."""
    identity = identity_of(msgspec.to_builtins(workload.spec.serving))
    taken = {name: deployments.digest_of(each) for name, each in known.items()}
    return identify(workload.metadata.name, identity, taken, record.collision_count)


def _address(pod: Pod) -> PodAddress:
    return PodAddress(pod.metadata.name, pod.metadata.uid, pod.status.pod_ip or "")


def scrape_targets(snapshot: Snapshot) -> dict[WorkloadKey, ScrapeTarget]:
    """The pods to scrape: those that serve."""
    targets = {}
    for subject in snapshot.subjects:
        serving, signal = subject.spec.serving, subject.spec.scaling.signal
        if subject.pods and signal is not None:
            targets[subject.key] = ScrapeTarget(
                serving.metrics_port, serving.metrics_path, serving.engine, (signal,), subject.pods
            )
    return targets
