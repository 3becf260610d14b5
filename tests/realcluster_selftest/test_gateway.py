"""The real Envoy Gateway and Envoy of the tests, and what of them Tidegate relies on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.realcluster.cluster import Cluster
from tests.realcluster.gateway import PROXY, Gateway
from tests.realcluster.gateway_clients import Clients, Visit
from tests.realcluster.gateway_routes import JSON_PATCH, PORT, Route, rule
from tests.realcluster.modelserver import ModelServers
from tests.realcluster.waiting import wait_for_async

pytestmark = pytest.mark.xdist_group("gateway")  # one of them stops Envoy for a moment
OLD, NEW = "llama", "llama-update"  # Services, and the revisions that they select
TOKENS_PER_S = 50


class Sides:
    """Two Services with pods of their own, as of a workload in an update."""

    def __init__(self, cluster: Cluster, namespace: str, servers: ModelServers) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.servers = servers

    def start(self, **pods: int) -> None:
        """Returns when every pod is ready and listens."""
        for name, count in pods.items():
            service = name.replace("_", "-")
            self.cluster.create(f"/api/v1/namespaces/{self.namespace}/services", _service(service))
            self.cluster.create(f"/apis/apps/v1/namespaces/{self.namespace}/deployments", _deployment(service, count))
        self.servers.set_load(self.namespace, "llama", slots=1000, service_time_s=1.0, output_tokens=TOKENS_PER_S)
        self.cluster.wait_for(lambda: len(self.listening()) == sum(pods.values()), "model servers")

    def listening(self) -> list[str]:
        pods = self.servers.state()[f"{self.namespace}/llama"]["pods"]
        return [name for name, pod in pods.items() if pod["listening"]]

    def in_flight(self, side: str) -> int:
        pods = self.servers.state()[f"{self.namespace}/llama"]["pods"]
        return sum(pod["running"] + pod["waiting"] for name, pod in pods.items() if _side(name) == side)

    def served(self, side: str) -> int:
        pods = self.servers.state()[f"{self.namespace}/llama"]["pods"]
        return sum(int(pod["served"]) for name, pod in pods.items() if _side(name) == side)

    def delete(self, side: str) -> None:
        """Its pods go at the end of their grace period."""
        self.cluster.kubectl("-n", self.namespace, "delete", "deployment", side, "--wait=false")


def _service(name: str) -> dict[str, Any]:
    ports = [{"port": PORT, "targetPort": PORT}]
    return {"metadata": {"name": name}, "spec": {"selector": {"side": name}, "ports": ports}}


def _deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {"side": name}
    annotations = {"pod-delete.stage.kwok.x-k8s.io/graceful": "true"}
    container = {"name": "server", "image": "none", "ports": [{"containerPort": PORT}]}
    template = {
        "metadata": {"labels": {**labels, "tidegate.dev/workload": "llama"}, "annotations": annotations},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 2},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name}, "spec": spec}


def _side(pod: str) -> str:
    return pod.rsplit("-", 2)[0]


def sides_of(visits: list[Visit]) -> Counter[str]:
    """Where the answers came from; a status where nobody did."""
    return Counter(_side(visit.pod) if visit.pod else str(visit.status) for visit in visits)


@pytest.fixture
def sides(cluster: Cluster, namespace: str) -> Iterator[Sides]:
    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace) as servers:
        yield Sides(cluster, namespace, servers)


async def test_a_split_is_kept_and_a_change_of_weights_followed(gateway: Gateway, sides: Sides, namespace: str) -> None:
    await asyncio.to_thread(sides.start, llama=2, llama_update=1)
    route = Route(gateway, namespace, "llama", [rule({OLD: 90, NEW: 10})])
    await wait_for_async(route.accepted, "the route to be accepted")
    async with Clients(route) as clients:
        await first_answer(clients)
        split = sides_of(await clients.ask_many(1000))
        print(f"split 90/10 of 1,000 requests: {dict(split)}")
        assert split.keys() == {OLD, NEW}
        assert 870 <= split[OLD] <= 930  # random draws would stay within 900 ± 30 in 998 of 1,000 runs

        changed = await asyncio.to_thread(route.set_weights, 0, 100)
        await wait_for_async(route.accepted, "the new weights to be accepted")
        assert route.conditions()["Accepted"] == ("True", "Accepted", changed["metadata"]["generation"])
        await clients.ask_until(lambda visits: sides_of(visits) == {NEW: 20}, "only the new side to answer", 20)
        before = sides.served(OLD)
        assert sides_of(await clients.ask_many(200)) == {NEW: 200}
        assert sides.served(OLD) == before


async def first_answer(clients: Clients) -> None:
    await clients.ask_until(lambda visits: all(visit.good for visit in visits), "an answer of a model server")


async def test_the_default_timeout_cuts_a_stream_after_15_s_and_a_longer_one_does_not(
    gateway: Gateway, sides: Sides, namespace: str
) -> None:
    await asyncio.to_thread(sides.start, llama=1)
    cut = Route(gateway, namespace, "cut", [rule({OLD: 100})])
    kept = Route(gateway, namespace, "kept", [rule({OLD: 100}, timeout="60s")])
    async with Clients(cut) as short, Clients(kept) as long:
        await asyncio.gather(first_answer(short), first_answer(long))
        tokens = 18 * TOKENS_PER_S
        broken, whole = await asyncio.gather(
            short.ask(tokens=tokens, stream=True), long.ask(tokens=tokens, stream=True)
        )
    print(f"cut after {broken.took_s:.1f} s ({broken.said}); kept for {whole.took_s:.1f} s")
    assert (broken.status, broken.whole) == (200, False)
    assert broken.took_s > 14  # both were to last 18 s
    assert whole.good
    assert whole.took_s > 17


async def test_a_side_without_pods_answers_503_for_its_share(gateway: Gateway, sides: Sides, namespace: str) -> None:
    await asyncio.to_thread(sides.start, llama=1, llama_update=0)
    route = Route(gateway, namespace, "llama", [rule({OLD: 50, NEW: 50})])
    await wait_for_async(route.accepted, "the route to be accepted")
    async with Clients(route) as clients:
        await clients.ask_until(lambda visits: OLD in sides_of(visits), "the first answer")
        seen = sides_of(await clients.ask_many(200))
        assert seen.keys() == {OLD, "503"}
        assert 60 <= seen["503"] <= 140
        conditions = await asyncio.to_thread(route.conditions)
        assert conditions["ResolvedRefs"][0] == "True"  # so it tells nothing of pods
        assert conditions["BackendsAvailable"][:2] == ("False", "EndpointsNotFound")
        await asyncio.to_thread(route.set_weights, 100, 0)
        await clients.ask_until(lambda visits: sides_of(visits) == {OLD: 50}, "no share for the empty side", 50)


async def test_the_status_of_a_route_does_not_wait_for_envoy(
    cluster: Cluster, gateway: Gateway, sides: Sides, namespace: str
) -> None:
    await asyncio.to_thread(sides.start, llama=1, llama_update=1)
    route = Route(gateway, namespace, "llama", [rule({OLD: 100, NEW: 0})])
    async with Clients(route) as clients:
        await first_answer(clients)
        cluster.pause(PROXY)
        try:
            await asyncio.to_thread(route.set_weights, 0, 100)
            await wait_for_async(route.accepted, "the route to be accepted while Envoy stands still")
        finally:
            cluster.resume(PROXY)
        await clients.ask_until(lambda visits: sides_of(visits) == {NEW: 10}, "Envoy to follow", 10)


async def test_streams_outlive_a_change_of_weights_and_break_when_their_pod_dies(
    gateway: Gateway, sides: Sides, namespace: str
) -> None:
    await asyncio.to_thread(sides.start, llama=1, llama_update=1)
    route = Route(gateway, namespace, "llama", [rule({OLD: 100, NEW: 0}, timeout="0s")])
    async with Clients(route) as clients:
        await first_answer(clients)
        finishing, doomed = (
            asyncio.create_task(clients.ask(tokens=seconds * TOKENS_PER_S, stream=True)) for seconds in (4, 60)
        )
        await wait_for_async(lambda: sides.in_flight(OLD) == 2, "two streams at the old side")
        await asyncio.to_thread(route.set_weights, 0, 100)
        assert (await finishing).good  # it began before and ended after
        assert sides.in_flight(OLD) == 1
        await asyncio.to_thread(sides.delete, OLD)
        broken = await doomed
        assert (broken.status, broken.whole) == (200, False)
        await wait_for_async(lambda: len(sides.listening()) == 1, "the dead pod's listener to be closed")
        assert sides_of(await clients.ask_many(50)) == {NEW: 50}


async def test_a_client_that_goes_away_is_served_no_longer(gateway: Gateway, sides: Sides, namespace: str) -> None:
    await asyncio.to_thread(sides.start, llama=1)
    route = Route(gateway, namespace, "llama", [rule({OLD: 100}, timeout="0s")])
    async with Clients(route) as clients:
        await first_answer(clients)
        leaving = asyncio.create_task(clients.ask(tokens=60 * TOKENS_PER_S, stream=True))
        await wait_for_async(lambda: sides.in_flight(OLD) == 1, "a stream")
        leaving.cancel()
        await asyncio.wait({leaving})
        await wait_for_async(lambda: sides.in_flight(OLD) == 0, "nothing in flight")


def test_a_failed_test_of_a_patch_is_422_and_changes_nothing(gateway: Gateway, namespace: str) -> None:
    route = Route(gateway, namespace, "llama", [rule({OLD: 100, NEW: 0})])
    before = route.get()
    weight = "/spec/rules/0/backendRefs/0/weight"

    def patch(*operations: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return route.cluster.request("PATCH", route.path, list(operations), content_type=JSON_PATCH)

    to_50 = {"op": "replace", "path": weight, "value": 50}
    status, answer = patch({"op": "test", "path": weight, "value": 99}, to_50)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert patch({"op": "test", "path": "/metadata/generation", "value": 7}, to_50)[0] == 422
    assert patch({"op": "replace", "path": weight, "value": 1_000_001})[0] == 422  # a wrong value looks the same
    assert route.get()["spec"] == before["spec"]
    status, answer = patch({"op": "test", "path": weight, "value": 100}, to_50)
    assert (status, answer["metadata"]["generation"]) == (200, before["metadata"]["generation"] + 1)
