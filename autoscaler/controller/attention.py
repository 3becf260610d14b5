"""What deserves a closer look: whose pods are read, which updates there are, what may not wait for a tick."""

from __future__ import annotations

from autoscaler.controller.subject import Snapshot
from autoscaler.model.workload import RevisionKey, TargetKey, WorkloadSpec
from autoscaler.signals.targets import PodAddress, ScrapeTarget


def scrape_targets(snapshot: Snapshot, republish: bool) -> dict[TargetKey, ScrapeTarget]:
    """The pods to scrape: those that serve, where a signal, an update, or what is republished needs them."""
    targets: dict[TargetKey, ScrapeTarget] = {}
    for subject in snapshot.subjects:
        spec, current = subject.spec, subject.observed.current
        if subject.pods and (spec.scaling.signals or republish or subject.updating):
            name = current.name if current else ""
            targets[subject.key] = _target(spec, subject.pods, republish, name, subject.updating)
        if not subject.updating:
            continue
        for name, each in subject.revisions.seen.items():
            if each.pods and current is not None and name != current.name:
                targets[RevisionKey(subject.key, name)] = _target(subject.specs[name], each.pods, False, name, True)
    return targets


def updates(snapshot: Snapshot) -> frozenset[RevisionKey]:
    """The updates that there are."""
    return frozenset(
        RevisionKey(each.key, each.record.rollout.revision)
        for each in snapshot.subjects
        if each.record.rollout is not None
    )


def busy(snapshot: Snapshot) -> frozenset[tuple[str, str]]:
    """Namespace, and name of workload, Service or route, of all that an update waits for."""
    names = (
        (each.key.namespace, name)
        for each in snapshot.subjects
        if each.changing
        for name in (
            each.key.name,
            each.traffic.service.name,
            each.traffic.update_service.name,
            each.spec.route.name if each.spec.route is not None else each.key.name,
        )
    )
    return frozenset(names)


def _target(
    spec: WorkloadSpec, pods: tuple[PodAddress, ...], republish: bool, revision: str, counters: bool
) -> ScrapeTarget:
    serving, signals = spec.serving, spec.scaling.signals
    return ScrapeTarget(
        serving.metrics_port,
        serving.metrics_path,
        serving.engine,
        signals,
        pods,
        republish,
        revision,
        counters=counters,
    )
