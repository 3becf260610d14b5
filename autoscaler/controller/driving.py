"""What the driver of one workload acts through: the adapters of its kind, for the tenure that acts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.cluster.fencing import Tenure
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.removal import Removal
from autoscaler.cluster.resources import Pod, Scalable
from autoscaler.cluster.scalable import Kind, ScalableRevisions
from autoscaler.cluster.status import StatusWriter, record_of
from autoscaler.cluster.store import Store
from autoscaler.cluster.traffic.gatewayapi import RouteTraffic
from autoscaler.cluster.traffic.service import ServiceTraffic
from autoscaler.cluster.workloads.scaletarget import TargetScale
from autoscaler.controller.kinds import kind_of
from autoscaler.controller.reserving import LedgerQuota, Reservations
from autoscaler.controller.revisions import address_of
from autoscaler.controller.specs import Operator
from autoscaler.controller.subject import Subject
from autoscaler.model.rollout import DEFAULT_POOL, WarmUpSpec
from autoscaler.model.workload import RevisionKey
from autoscaler.signals.warmups import WarmUps
from rollouts.commands import Command
from rollouts.driver import Driver
from rollouts.ports import OwnPorts


@dataclass(frozen=True, slots=True)
class Ports:
    """What all workloads share."""

    store: Store
    reservations: Reservations
    warm_ups: WarmUps
    operator: Callable[[], Operator]

    def driver(
        self,
        subject: Subject,
        tenure: Tenure,
        wanted: Callable[[Command], bool],
        told: Callable[[InferenceWorkload], Mapping[str, Any]],
    ) -> Driver:
        """For one step of one workload. `told`: what its status says once the step's record is stored."""
        workload = as_decided_on(subject, self.store.workloads.find(*subject.key))
        records = StatusWriter(tenure.api, workload, self.store.workloads.assume, told)
        if subject.spec.target is not None and subject.there is not None:
            return Driver(records, TargetScale(tenure.api, subject.resource, subject.there), wanted)
        traffic = ServiceTraffic(
            tenure.api,
            workload,
            subject.spec,
            lambda name: self.store.services.find(subject.key.namespace, name),
            self.store.services.assume,
            tenure.epoch,
            serving={name: each.serving for name, each in subject.specs.items()},
        )
        route = self._route(subject, tenure)

        async def stamp_traffic() -> None:
            await traffic.stamp()
            if route is not None:
                await route.stamp()

        revisions = self._revisions(subject, workload, tenure, stamp_traffic)
        warmup = subject.spec.rollout.warmup
        own = OwnPorts(
            revisions,
            traffic,
            self._removal(subject, workload, tenure),
            LedgerQuota(self.reservations, str(subject.key), subject.spec.project),
            route,
            _Warming(self.warm_ups, subject, warmup) if warmup is not None else None,
        )
        return Driver(records, revisions, wanted, own)

    def _kind(self, subject: Subject, revision: str) -> Kind:
        return kind_of(self.store, subject.key.namespace, revision, subject.revisions.contents.get(revision))

    def _object(self, subject: Subject, revision: str) -> Scalable | None:
        kind = self._kind(subject, revision)
        return self.store.scalables[kind.resource].find(subject.key.namespace, revision)

    def _wrote(self, kind: Kind, there: Scalable) -> None:
        self.store.scalables[kind.resource].assume(there)

    def _pods(self, subject: Subject, revision: str) -> Sequence[Pod]:
        return self.store.pods_by_revision().get((subject.key.namespace, revision), [])

    def _route(self, subject: Subject, tenure: Tenure) -> RouteTraffic | None:
        address = address_of(subject.spec)
        if address is None:
            return None
        routes = self.store.http_routes
        return RouteTraffic(
            tenure.api,
            address,
            lambda: routes.find(address.namespace, address.route),
            routes.assume,
            tenure.epoch,
            subject.spec.request_timeout_s,
        )

    def _removal(self, subject: Subject, workload: InferenceWorkload, tenure: Tenure) -> Removal:
        return Removal(
            tenure.api,
            workload,
            lambda revision: self._kind(subject, revision),
            lambda revision: self._object(subject, revision),
            lambda revision: self._pods(subject, revision),
            tenure.epoch,
            self._wrote,
        )

    def _revisions(
        self,
        subject: Subject,
        workload: InferenceWorkload,
        tenure: Tenure,
        stamp_traffic: Callable[[], Awaitable[None]],
    ) -> ScalableRevisions:
        return ScalableRevisions(
            tenure.api,
            workload,
            subject.spec.orphan,
            subject.revisions.contents,
            lambda revision: self._kind(subject, revision),
            lambda revision: self._object(subject, revision),
            self._wrote,
            tenure.epoch,
            stamp_traffic,
            lambda revision: pool_of(subject, revision),
            self.operator().node_pools,
        )


class _Warming:
    """The driver's port `WarmUps` for one workload."""

    def __init__(self, warm_ups: WarmUps, subject: Subject, spec: WarmUpSpec) -> None:
        self._warm_ups = warm_ups
        self._subject = subject
        self._spec = spec

    async def warm_up(self, revision: str) -> None:
        serving = self._subject.specs[revision].serving
        pods = self._subject.revisions.of(revision).pods
        key = RevisionKey(self._subject.key, revision)
        self._warm_ups.begin(key, serving.port, serving.protocol, self._spec, pods)


def pool_of(subject: Subject, revision: str) -> str:
    """Where the revision's pods belong: as recorded before its object is made."""
    record = subject.record
    rollout = record.rollout
    if rollout is not None and rollout.revision == revision and rollout.pool is not None:
        return rollout.pool
    hold = subject.observed.hold(revision)
    if hold is not None:
        return hold.pool
    return (record.pool if revision == record.current else None) or next(
        iter(subject.spec.rollout.node_pools), DEFAULT_POOL
    )


def as_decided_on(subject: Subject, latest: InferenceWorkload | None) -> InferenceWorkload:
    """The newest version of the workload, where nothing changed in it that the decision was made from."""
    seen = subject.workload.metadata
    if latest is None or (latest.metadata.uid, latest.metadata.generation) != (seen.uid, seen.generation):
        return subject.workload
    return latest if record_of(latest) == subject.stored else subject.workload
