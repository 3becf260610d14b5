"""Services on the real API server: whose selector counts after a change of leaders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.client import JSON_PATCH, KubernetesClient, connect
from autoscaler.cluster.errors import Conflict
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import REVISION_LABEL, Service
from autoscaler.cluster.traffic.service import ServiceTraffic
from autoscaler.controller.specs import Operator, resolve
from autoscaler.model.workload import Engine, Protocol, ServingSpec, WorkloadSpec
from rollouts.revision import NO_REVISION
from tests.realcluster.cluster import Cluster

FIRST, SECOND = "llama-11111111", "llama-22222222"


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubernetesClient]:
    made = await connect(cluster.kubeconfig)
    yield made
    await made.close()


class Leader:
    """One leader's traffic. It knows of Services what it saw when it looked, and what it wrote."""

    def __init__(
        self,
        client: KubernetesClient,
        cluster: Cluster,
        namespace: str,
        epoch: int,
        service: str | None,
        serving: Mapping[str, ServingSpec] | None = None,
    ):
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/services"
        self.known: dict[str, Service] = {}
        template = {"spec": {"containers": [{"name": "engine", "image": "vllm"}]}}
        body = {
            "metadata": {"name": "llama", "namespace": namespace, "uid": "u"},
            "spec": {
                "serving": {"port": 8000, "protocol": "http", "deployment": {"template": template}},
                "autoscaling": {"metric": "concurrency", "metricThreshold": 10},
                "traffic": {"service": service},
                "deletionPolicy": "Orphan",  # the workload itself is not in the cluster
            },
        }
        stored = msgspec.convert(body, InferenceWorkload)
        spec = resolve(stored, Operator(projects={namespace: "ml"}))
        assert isinstance(spec, WorkloadSpec), spec
        self.traffic = ServiceTraffic(client, stored, spec, self.known.get, self._wrote, epoch, serving=serving)

    def look(self) -> None:
        found = self._cluster.get(self._path)["items"]
        self.known.update((each["metadata"]["name"], msgspec.convert(each, Service)) for each in found)

    def get(self, name: str) -> dict[str, Any]:
        return self._cluster.get(f"{self._path}/{name}")

    def selects(self, name: str) -> str:
        return str(self.get(name)["spec"]["selector"][REVISION_LABEL])

    def _wrote(self, there: Service) -> None:
        self.known[there.metadata.name] = there


@pytest.mark.parametrize("own", [True, False], ids=["our own Service", "an existing one"])
async def test_after_the_stamp_only_the_new_leaders_selectors_count(
    client: KubernetesClient, cluster: Cluster, namespace: str, own: bool
) -> None:
    service = "llama" if own else "front"
    if not own:
        body = {"metadata": {"name": service}, "spec": {"selector": {"team": "ml"}, "ports": [{"port": 8000}]}}
        cluster.create(f"/api/v1/namespaces/{namespace}/services", body)
    old, new = (Leader(client, cluster, namespace, epoch, None if own else service) for epoch in (1, 2))
    old.look()
    await old.traffic.select(service, FIRST, exists=not own)
    await old.traffic.select(f"{service}-update", FIRST, exists=False)
    new.look()
    before = new.get(service)
    await new.traffic.stamp()
    for name in (service, f"{service}-update"):
        assert new.get(name)["metadata"]["annotations"]["tidegate.dev/epoch"] == "2"
        with pytest.raises(Conflict):
            await old.traffic.select(name, SECOND, exists=True)
        assert new.selects(name) == FIRST
    assert new.get(service)["spec"] == before["spec"]
    versions = [new.get(name)["metadata"]["resourceVersion"] for name in (service, f"{service}-update")]
    await new.traffic.stamp()  # there already
    assert [new.get(name)["metadata"]["resourceVersion"] for name in (service, f"{service}-update")] == versions
    await new.traffic.select(service, SECOND, exists=True)
    assert new.selects(service) == SECOND


async def test_an_update_service_that_selects_nobody_needs_no_stamp(
    client: KubernetesClient, cluster: Cluster, namespace: str
) -> None:
    old, new = (Leader(client, cluster, namespace, epoch, None) for epoch in (1, 2))
    await old.traffic.select("llama", FIRST, exists=False)
    await old.traffic.select("llama-update", NO_REVISION, exists=False)
    new.look()
    await new.traffic.stamp()
    epochs = [new.get(name)["metadata"]["annotations"]["tidegate.dev/epoch"] for name in ("llama", "llama-update")]
    assert epochs == ["2", "1"]


async def test_a_service_that_serves_another_workload_is_not_stamped(
    client: KubernetesClient, cluster: Cluster, namespace: str
) -> None:
    spec = {"selector": {REVISION_LABEL: "mistral-11111111"}, "ports": [{"port": 8000}]}
    cluster.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": "front"}, "spec": spec})
    leader = Leader(client, cluster, namespace, 2, "front")
    leader.look()
    await leader.traffic.stamp()
    assert "annotations" not in leader.get("front")["metadata"]


async def test_what_changed_since_it_was_looked_at_is_looked_at_again(
    client: KubernetesClient, cluster: Cluster, namespace: str
) -> None:
    leader = Leader(client, cluster, namespace, 1, None)
    await leader.traffic.select("llama", FIRST, exists=False)
    cluster.kubectl("-n", namespace, "label", "service", "llama", "team=ml")
    with pytest.raises(Conflict):
        await leader.traffic.select("llama", SECOND, exists=True)
    leader.look()
    await leader.traffic.select("llama", SECOND, exists=True)
    assert leader.selects("llama") == SECOND


def serving_on(port: int, protocol: Protocol = Protocol.HTTP) -> ServingSpec:
    return ServingSpec(port, protocol, port, "/metrics", Engine.VLLM)


def port_of(service: dict[str, Any]) -> dict[str, Any]:
    """Its only port, without what the API server fills in."""
    (port,) = service["spec"]["ports"]
    return {key: value for key, value in port.items() if key != "protocol"}


async def test_our_services_lead_to_the_port_of_the_revision_that_they_select(
    client: KubernetesClient, cluster: Cluster, namespace: str
) -> None:
    serving = {FIRST: serving_on(8000), SECOND: serving_on(9000, Protocol.GRPC)}
    leader = Leader(client, cluster, namespace, 1, None, serving)
    await leader.traffic.select("llama", FIRST, exists=False)
    assert port_of(leader.get("llama")) == {"name": "http", "port": 8000, "targetPort": 8000}
    await leader.traffic.select("llama", SECOND, exists=True)
    grpc = {"name": "http", "port": 8000, "targetPort": 9000, "appProtocol": "kubernetes.io/h2c"}
    assert port_of(leader.get("llama")) == grpc, "clients go on asking the port that they know"
    await leader.traffic.select("llama-update", SECOND, exists=False)
    assert port_of(leader.get("llama-update")) == {**grpc, "name": "grpc"}, "one that comes back has it, too"
    await leader.traffic.select("llama", NO_REVISION, exists=True)
    assert port_of(leader.get("llama")) == grpc, "nobody is selected: nothing to lead to"
    await leader.traffic.select("llama", FIRST, exists=True)
    assert port_of(leader.get("llama")) == {"name": "http", "port": 8000, "targetPort": 8000}


async def test_a_port_that_somebody_added_to_our_service_stays(
    client: KubernetesClient, cluster: Cluster, namespace: str
) -> None:
    leader = Leader(client, cluster, namespace, 1, None, {FIRST: serving_on(8000), SECOND: serving_on(9000)})
    await leader.traffic.select("llama", FIRST, exists=False)
    more = [{"op": "add", "path": "/spec/ports/-", "value": {"name": "page", "port": 8080, "targetPort": "page"}}]
    path = f"/api/v1/namespaces/{namespace}/services/llama"
    assert cluster.request("PATCH", path, more, content_type=JSON_PATCH)[0] == 200
    leader.look()
    await leader.traffic.select("llama", SECOND, exists=True)
    targets = [(each["port"], each["targetPort"]) for each in leader.get("llama")["spec"]["ports"]]
    assert targets == [(8000, 9000), (8080, "page")]


async def test_the_ports_of_an_existing_service_are_its_owners(
    client: KubernetesClient, cluster: Cluster, namespace: str
) -> None:
    spec = {"selector": {"team": "ml"}, "ports": [{"port": 80, "targetPort": 8000}]}
    cluster.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": "front"}, "spec": spec})
    leader = Leader(client, cluster, namespace, 1, "front", {FIRST: serving_on(9000)})
    leader.look()
    await leader.traffic.select("front", FIRST, exists=True)
    assert (leader.selects("front"), port_of(leader.get("front"))) == (FIRST, {"port": 80, "targetPort": 8000})
