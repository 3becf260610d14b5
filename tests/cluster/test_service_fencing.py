"""Services on the real API server: whose selector counts after a change of leaders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.client import KubernetesClient, connect
from autoscaler.cluster.errors import Conflict
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import REVISION_LABEL, Service
from autoscaler.cluster.traffic.service import ServiceTraffic
from autoscaler.controller.specs import Operator, resolve
from autoscaler.model.workload import WorkloadSpec
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

    def __init__(self, client: KubernetesClient, cluster: Cluster, namespace: str, epoch: int, service: str | None):
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
        self.traffic = ServiceTraffic(client, stored, spec, self.known.get, self._wrote, epoch)

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
