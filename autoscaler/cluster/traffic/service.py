"""Traffic by Service: the selector is the switch.

Two Services per workload whose names never change: `<service>` selects the current revision, `<service>-update` the one
that is coming (none while there is no update). Both select by the one key that only serving pods carry. Of an existing
Service, only that key of the selector and the annotation with our epoch are ours. Of a Service of ours, so is where its
port leads to, for revisions may serve on different ports; the port that clients ask stays what it was at first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from autoscaler.cluster.client import STRATEGIC_PATCH, KubeApi
from autoscaler.cluster.errors import Conflict, Foreign, NotFound
from autoscaler.cluster.fencing import EPOCH_ANNOTATION, epoch_of, stamp
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import metadata_of, owned
from autoscaler.cluster.resources import AS_OURSELVES, REVISION_LABEL, SERVICES, Endpoint, EndpointSlice, Service
from autoscaler.model.workload import Protocol, ServingSpec, WorkloadSpec
from rollouts.observed import ObservedService
from rollouts.revision import NO_REVISION, is_revision_of

H2C: Final = "kubernetes.io/h2c"  # HTTP/2 without TLS, which is what gRPC needs


def update_service_name(service: str) -> str:
    return f"{service}-update"


def observe(name: str, service: Service | None, slices: Iterable[EndpointSlice] = ()) -> ObservedService:
    """What the Service selects now, and by its EndpointSlices, whom it really leads to.

    Without any slice that is unknown: a Service has one from the moment that its controller has seen it.
    """
    selector = (service.spec.selector or {}) if service else {}
    told = list(slices)
    endpoints = ready_pods(told) if told else None
    return ObservedService(name, service is not None, selector.get(REVISION_LABEL), endpoints)


def ready_pods(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    """Names of the pods that one Service's slices call ready; an endpoint that is no pod stands there by its address,
    in words that are no pod's name.
    """
    endpoints = (each for slice_ in slices for each in slice_.endpoints or ())
    return frozenset(_name(each) for each in endpoints if each.conditions.ready is not False)


def _name(endpoint: Endpoint) -> str:
    target = endpoint.target_ref
    if target is not None and target.kind == "Pod" and target.name:
        return target.name
    return f"address {', '.join(endpoint.addresses)}"


class ServiceTraffic:
    """The driver's port `Traffic` for one workload."""

    def __init__(
        self,
        api: KubeApi,
        workload: InferenceWorkload,
        spec: WorkloadSpec,
        observed: Callable[[str], Service | None],
        wrote: Callable[[Service], None],
        epoch: int,
        serving: Mapping[str, ServingSpec] | None = None,
    ) -> None:
        """`observed`: the Service of that name as it was looked at; `wrote` is given what the server answered; `epoch`
        is the present leader's; `serving`: where each revision serves, by its name (what is missing: as `spec` says).
        """
        self._api = api
        self._workload = workload
        self._spec = spec
        self._observed = observed
        self._wrote = wrote
        self._epoch = epoch
        self._serving = serving or {}

    async def stamp(self) -> None:
        """Makes our Services carry the epoch: no selector that an earlier leader sent takes effect any more.

        An update Service that selects nobody gets no traffic, so whatever comes late to it is harmless; it is left out,
        because a take-over has this to do for every workload.
        """
        update_service = update_service_name(self._spec.service)
        for name in (self._spec.service, update_service):
            there = self._observed(name)
            if there is None or self._another(there) is not None or epoch_of(there.metadata) == self._epoch:
                continue
            if name == update_service and observe(name, there).selects in (None, NO_REVISION):
                continue
            with contextlib.suppress(NotFound):  # gone meanwhile: nothing that was sent for it takes effect
                answer = await stamp(self._api, self._path(name), there.metadata, self._epoch)
                self._wrote(msgspec.json.decode(answer, type=Service))

    async def select(self, service: str, revision: str, exists: bool) -> None:
        if exists:
            await self._patch(service, revision)
        elif service == self._spec.service and not self._spec.own_service:
            raise NotFound(f"Service {service} does not exist: create it, or leave traffic.service unset")
        else:
            await self._create(service, revision)

    async def _create(self, service: str, revision: str) -> None:
        body = self._render(service, revision)
        path = SERVICES.path(self._workload.metadata.namespace)
        try:
            answer = await self._api.call("POST", path, params=AS_OURSELVES, body=body)
        except Conflict:  # an earlier try arrived, or it is somebody else's
            answer = await self._api.call("GET", self._path(service))
            self._check(msgspec.json.decode(answer, type=Service))
        self._wrote(msgspec.json.decode(answer, type=Service))

    async def _patch(self, service: str, revision: str) -> None:
        """For the version that was looked at: what was changed since, or stamped by a later leader, stays."""
        there = self._observed(service)
        if there is None:
            raise Conflict(f"Service {service} is gone since it was looked at")
        self._check(there)
        meta = {
            "uid": there.metadata.uid,
            "resourceVersion": there.metadata.resource_version,
            "annotations": {EPOCH_ANNOTATION: str(self._epoch)},
        }
        body = {"metadata": meta, "spec": {"selector": {REVISION_LABEL: revision}, **self._ports(there, revision)}}
        path = self._path(service)
        answer = await self._api.call("PATCH", path, params=AS_OURSELVES, body=body, content_type=STRATEGIC_PATCH)
        self._wrote(msgspec.json.decode(answer, type=Service))

    def _ports(self, there: Service, revision: str) -> dict[str, Any]:
        """The change that leads the Service's port to where the revision serves; {} where it does, or is not ours."""
        ports = there.spec.ports
        if revision == NO_REVISION or not ports or not owned(self._workload, there.metadata):
            return {}
        wanted = _leads_to(self._serving.get(revision, self._spec.serving))
        has = {"targetPort": ports[0].target_port, "appProtocol": ports[0].app_protocol}
        return {} if has == wanted else {"ports": [{"port": ports[0].port, **wanted}]}

    def _check(self, there: Service) -> None:
        """Raises Foreign where the Service is another's."""
        if (another := self._another(there)) is not None:
            raise another

    def _another(self, there: Service) -> Foreign | None:
        """Why the Service is not this workload's, if so."""
        name = there.metadata.name
        if (name != self._spec.service or self._spec.own_service) and not owned(self._workload, there.metadata):
            return Foreign(f"Service {name} exists and is not ours: rename it or the workload")
        holder = (there.spec.selector or {}).get(REVISION_LABEL, NO_REVISION)
        if holder != NO_REVISION and not is_revision_of(self._workload.metadata.name, holder):
            return Foreign(f"Service {name} serves {holder} of another workload: name another traffic.service")
        return None

    def _path(self, service: str) -> str:
        return SERVICES.path(self._workload.metadata.namespace, service)

    def _client_port(self) -> int:
        """A Service that was deleted comes back with the port that clients and routes know."""
        for name in (self._spec.service, update_service_name(self._spec.service)):
            there = self._observed(name)
            if there is not None and there.spec.ports and owned(self._workload, there.metadata):
                return there.spec.ports[0].port
        return self._spec.serving.port

    def _render(self, service: str, revision: str) -> dict[str, Any]:
        serving = self._serving.get(revision, self._spec.serving)
        leads_to = {key: value for key, value in _leads_to(serving).items() if value is not None}
        port = {"name": serving.protocol.value, "port": self._client_port(), **leads_to}
        return {
            "apiVersion": SERVICES.group_version,
            "kind": SERVICES.kind,
            "metadata": metadata_of(
                self._workload, service, self._spec.orphan, annotations={EPOCH_ANNOTATION: str(self._epoch)}
            ),
            "spec": {"selector": {REVISION_LABEL: revision}, "ports": [port]},
        }


def _leads_to(serving: ServingSpec) -> dict[str, Any]:
    return {"targetPort": serving.port, "appProtocol": H2C if serving.protocol is Protocol.GRPC else None}
