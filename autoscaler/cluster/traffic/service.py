"""Traffic by Service: the selector is the switch.

Two Services per workload whose names never change: `<service>` selects the current revision, `<service>-update` the one
that is coming (none while there is no update). Both select by the one key that only serving pods carry. Of an existing
Service, only that key of the selector is ours.
"""

from __future__ import annotations

from typing import Any

import msgspec

from autoscaler.cluster.client import MERGE_PATCH, KubeApi
from autoscaler.cluster.errors import Conflict, Foreign, NotFound
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import check_owned, metadata_of
from autoscaler.cluster.resources import REVISION_LABEL, SERVICES, Service
from autoscaler.model.workload import Protocol, WorkloadSpec
from rollouts.machine import ObservedService
from rollouts.revision import NO_REVISION, is_revision_of


def update_service_name(service: str) -> str:
    return f"{service}-update"


def observe(name: str, service: Service | None) -> ObservedService:
    """What the Service selects now."""
    selector = (service.spec.selector or {}) if service else {}
    return ObservedService(name, service is not None, selector.get(REVISION_LABEL))


class ServiceTraffic:
    """The driver's port `Traffic` for one workload."""

    def __init__(self, api: KubeApi, workload: InferenceWorkload, spec: WorkloadSpec) -> None:
        self._api = api
        self._workload = workload
        self._spec = spec

    async def select(self, service: str, revision: str, exists: bool) -> None:
        if exists:
            await self._patch(service, revision)
        elif service == self._spec.service and not self._spec.own_service:
            raise NotFound(f"Service {service} does not exist: create it, or leave traffic.service unset")
        else:
            await self._create(service, revision)

    async def _create(self, service: str, revision: str) -> None:
        body = self._render(service, revision)
        try:
            await self._api.call("POST", SERVICES.path(self._workload.metadata.namespace), body=body)
        except Conflict:  # an earlier try arrived, or it is somebody else's
            await self._get(service)

    async def _patch(self, service: str, revision: str) -> None:
        there = await self._get(service)
        path = SERVICES.path(self._workload.metadata.namespace, service)
        meta = {"uid": there.metadata.uid, "resourceVersion": there.metadata.resource_version}
        body = {"metadata": meta, "spec": {"selector": {REVISION_LABEL: revision}}}
        await self._api.call("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def _get(self, service: str) -> Service:
        path = SERVICES.path(self._workload.metadata.namespace, service)
        there = msgspec.json.decode(await self._api.call("GET", path), type=Service)
        if service != self._spec.service or self._spec.own_service:
            check_owned(self._workload, there.metadata, "Service")
        holder = (there.spec.selector or {}).get(REVISION_LABEL, NO_REVISION)
        if holder != NO_REVISION and not is_revision_of(self._workload.metadata.name, holder):
            raise Foreign(f"Service {service} serves {holder} of another workload: name another traffic.service")
        return there

    def _render(self, service: str, revision: str) -> dict[str, Any]:
        serving = self._spec.serving
        port: dict[str, Any] = {"name": serving.protocol.value, "port": serving.port, "targetPort": serving.port}
        if serving.protocol is Protocol.GRPC:
            port["appProtocol"] = "kubernetes.io/h2c"
        return {
            "apiVersion": SERVICES.group_version,
            "kind": SERVICES.kind,
            "metadata": metadata_of(self._workload, service, self._spec.orphan),
            "spec": {"selector": {REVISION_LABEL: revision}, "ports": [port]},
        }
