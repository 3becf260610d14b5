"""What is seen of one workload's revisions: those that have an object or pods, and what directs traffic to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import owned
from autoscaler.cluster.resources import ControllerRevision, Pod, Scalable
from autoscaler.cluster.scalable import serves
from autoscaler.cluster.store import Store
from autoscaler.cluster.traffic import gatewayapi
from autoscaler.cluster.traffic import service as service_traffic
from autoscaler.controller.kinds import kind_of
from autoscaler.model.signal import RequestCounts, WorkloadSignals
from autoscaler.model.workload import RevisionKey, TargetKey, WorkloadSpec
from autoscaler.signals.targets import PodAddress
from rollouts.observed import ObservedRevision, ObservedRoute, ObservedService
from rollouts.rebuild import rebuild, serving
from rollouts.record import Record

Contents = Mapping[str, Mapping[str, Any]]  # identity by revision name


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where the workload's requests go."""

    service: ObservedService
    update_service: ObservedService
    route: ObservedRoute | None = None
    unusable: gatewayapi.UnusableRoute | None = None  # what a person has to change about the route
    warning: str | None = None  # what the route will do to long answers
    port: int | None = None  # where clients ask the Service; None: it does not exist yet


@dataclass(frozen=True, slots=True)
class SeenRevision:
    """One revision of the workload: how it is, its object, and its pods that serve."""

    observed: ObservedRevision
    there: Scalable | None = None
    pods: tuple[PodAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Revisions:
    """All of one workload."""

    contents: Contents
    seen: Mapping[str, SeenRevision] = field(default_factory=dict)  # those with an object or a pod, by name

    def of(self, name: str) -> SeenRevision:
        return self.seen.get(name) or SeenRevision(ObservedRevision(name, None))

    def others(self, current: str) -> tuple[ObservedRevision, ...]:
        return tuple(each.observed for name, each in sorted(self.seen.items()) if name != current)


def look(
    store: Store,
    workload: InferenceWorkload,
    known: Mapping[str, ControllerRevision],
    pods: Mapping[tuple[str, str], list[Pod]],
    record: Record,
) -> Revisions:
    """The workload's revisions: the stored ones, those of the record, and objects that nothing speaks of any more."""
    namespace = workload.metadata.namespace
    contents: dict[str, Mapping[str, Any]] = {name: each.data or {} for name, each in known.items()}
    strays = store.scalables_by_workload().get((namespace, workload.metadata.name), ())
    names = known.keys() | record.names | {each.metadata.name for each in strays if owned(workload, each.metadata)}
    found = {name: _seen(store, namespace, name, contents.get(name), pods.get((namespace, name), [])) for name in names}
    return Revisions(contents, {name: each for name, each in found.items() if each is not None})


def _seen(
    store: Store, namespace: str, name: str, content: Mapping[str, Any] | None, pods: Sequence[Pod]
) -> SeenRevision | None:
    kind = kind_of(store, namespace, name, content)
    there = store.scalables[kind.resource].find(namespace, name)
    if there is None and not pods:
        return None
    return SeenRevision(kind.observe(name, there, pods), there, addressed(pod for pod in pods if serves(pod)))


def addressed(pods: Iterable[Pod]) -> tuple[PodAddress, ...]:
    """Where these are, by name."""
    return tuple(sorted(map(_address, pods), key=lambda each: each.name))


def _address(pod: Pod) -> PodAddress:
    meta = pod.metadata
    return PodAddress(meta.name, meta.uid, pod.status.pod_ip or "", meta.creation_timestamp or "")


def traffic(store: Store, spec: WorkloadSpec) -> Traffic:
    """The two Services and the rule of the route, as they are now."""
    namespace, slices = spec.key.namespace, store.slices_by_service()
    service, update_service = (
        service_traffic.observe(name, store.services.find(namespace, name), slices.get((namespace, name), ()))
        for name in (spec.service, service_traffic.update_service_name(spec.service))
    )
    there = store.services.find(namespace, spec.service)
    port = there.spec.ports[0].port if there is not None and there.spec.ports else None
    if spec.route is None:
        return Traffic(service, update_service, port=port)
    address = address_of(spec)
    assert address is not None
    installed = store.knows_http_routes(namespace)
    seen = gatewayapi.observe(address, store.http_routes.find(namespace, spec.route.name), installed)
    if isinstance(seen, gatewayapi.UnusableRoute):
        return Traffic(service, update_service, gatewayapi.route_of(seen), seen, port=port)
    wanted_s, has = spec.request_timeout_s, seen.request_timeout
    timely = wanted_s is None or (has is not None and gatewayapi.seconds_of(has) == wanted_s)
    warning = gatewayapi.timeout_warning(address, seen, wanted_s)
    return Traffic(service, update_service, replace(gatewayapi.route_of(seen), timely=timely), None, warning, port)


def address_of(spec: WorkloadSpec) -> gatewayapi.RuleAddress | None:
    """Which rule splits the workload's traffic; None where the Service's selector is the switch."""
    if spec.route is None:
        return None
    update_service = service_traffic.update_service_name(spec.service)
    return gatewayapi.RuleAddress(spec.key.namespace, spec.route.name, spec.route.rule, spec.service, update_service)


def counted(
    spec: WorkloadSpec, revisions: Revisions, current: str, readings: Mapping[TargetKey, WorkloadSignals]
) -> Revisions:
    """With what the pods' own request counters say. `current` is read under the workload's own key."""

    counts = {
        name: signals.requests
        for name in revisions.seen
        if (signals := readings.get(spec.key if name == current else RevisionKey(spec.key, name))) is not None
    }
    if not any(counts.values()):
        return revisions  # nobody counts while there is no update
    seen = {
        name: replace(each, observed=_with(each.observed, found)) if (found := counts.get(name)) is not None else each
        for name, each in revisions.seen.items()
    }
    return replace(revisions, seen=seen)


def _with(seen: ObservedRevision, counts: RequestCounts) -> ObservedRevision:
    return replace(
        seen,
        in_flight=counts.in_flight,
        last_request_at=counts.last_request_at,
        counted_at=counts.counted_at,
        counted_from=counts.counted_from,
        busy_at=counts.busy_at,
    )


def rebuilt(revisions: Revisions, seen: Traffic, now: float) -> Record:
    """The record of a workload whose status has none: rebuilt from its objects, or empty for a new workload."""
    there = [each.observed for _, each in sorted(revisions.seen.items())]
    return rebuild(there, serving(seen.service, seen.update_service, seen.route), now) or Record()
