"""What the ledgers must hold for revisions whose workload is gone, is being deleted, or cannot be resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from autoscaler.cluster.resources import REVISION_LABEL, WORKLOAD_LABEL, Pod, Scalable
from autoscaler.cluster.scalable import is_live
from autoscaler.cluster.store import Store
from autoscaler.controller.specs import Resolver, demand_of_pods, demand_of_replicas, project_of
from autoscaler.controller.subject import Subject
from autoscaler.model.quota import Domain, Hold
from autoscaler.model.resources import EMPTY, ResourceVector, largest
from autoscaler.model.rollout import DEFAULT_POOL
from autoscaler.model.workload import WorkloadKey
from rollouts.observed import ObservedHold

Name = tuple[str, str]  # namespace, revision
Holds = Mapping[tuple[str, str], tuple[ObservedHold, ...]]  # by project and owner


def leftovers(
    store: Store,
    subjects: Sequence[Subject],
    pods: Mapping[Name, Sequence[Pod]],
    holds: Holds,
    resolver: Resolver,
) -> dict[Domain, tuple[Hold, ...]]:
    """By domain. `pods`: of ours, by revision. `holds`: as last confirmed."""
    counted = {(subject.key.namespace, name) for subject in subjects for name in subject.revisions.seen}
    objects = {(namespace, each.metadata.name): each for namespace, each in _objects(store)}
    held: dict[Domain, tuple[Hold, ...]] = {}
    for namespace, revision in sorted((pods.keys() | objects.keys()) - counted):
        live = [pod for pod in pods.get((namespace, revision), ()) if is_live(pod)]
        there = objects.get((namespace, revision))
        metadata = live[0].metadata if live else there.metadata if there is not None else None
        if metadata is None:
            continue
        owner = str(WorkloadKey(namespace, (metadata.labels or {}).get(WORKLOAD_LABEL, "")))
        project = project_of(namespace, resolver.operator)
        hold = next((each for each in holds.get((project, owner), ()) if each.revision == revision), None)
        demand = _demand(store, namespace, revision, live, there, hold)
        if demand is not None:
            domain = (project, hold.pool if hold else DEFAULT_POOL)
            held[domain] = (*held.get(domain, ()), Hold(owner, revision, demand))
    return held


def _objects(store: Store) -> Iterator[tuple[str, Scalable]]:
    for (namespace, _), group in store.scalables_by_workload().items():
        for each in group:
            yield namespace, each


def _demand(
    store: Store,
    namespace: str,
    revision: str,
    live: Sequence[Pod],
    there: Scalable | None,
    hold: ObservedHold | None,
) -> ResourceVector | None:
    """What its pods have, and what pods may still come; None where nothing tells.

    As long as its object is there, all replicas may come. Where it is gone and a pod does not terminate yet, the
    garbage collector has not reached what makes pods: all of the hold stays. It may have taken the stored revision
    before the last pod ends: then the ledger is the only witness of what that pod has.
    """
    stored = store.revisions.find(namespace, revision)
    whole = hold.vector if hold is not None else None
    if stored is None:
        return whole
    content = stored.data or {}
    leaders = sum(1 for pod in live if REVISION_LABEL in (pod.metadata.labels or {}))
    has = demand_of_pods(content, leaders, len(live) - leaders)
    if there is not None:
        return largest([has, demand_of_replicas(content, there.spec.replicas)])
    going = all(pod.metadata.deletion_timestamp for pod in live)
    return has if going else largest([has, whole or EMPTY])
