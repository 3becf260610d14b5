"""Weights written to real HTTPRoutes, on the real API server and before the real Envoy Gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.client import KubernetesClient, connect
from autoscaler.cluster.errors import Conflict, Foreign, NotFound, Refused
from autoscaler.cluster.resources import HTTPRoute
from autoscaler.cluster.store import Store
from autoscaler.cluster.traffic import service as service_traffic
from autoscaler.cluster.traffic.gatewayapi import (
    ObservedRoute,
    RouteTraffic,
    RuleAddress,
    UnusableRoute,
    Weights,
    edits,
    observe,
    route_of,
)
from autoscaler.cluster.traffic.service import ready_pods
from tests.cluster.copying import until
from tests.realcluster.cluster import Cluster
from tests.realcluster.gateway import Gateway
from tests.realcluster.gateway_routes import JSON_PATCH, Route, rule
from tests.realcluster.waiting import wait_for_async

BOTH = {"llama": 100, "llama-update": 0}


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubernetesClient]:
    made = await connect(cluster.kubeconfig)
    yield made
    await made.close()


@pytest.fixture
def both(cluster: Cluster, namespace: str) -> None:
    """The two Services, without pods."""
    for name in BOTH:
        body = {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 8000}]}}
        cluster.create(f"/api/v1/namespaces/{namespace}/services", body)


def address_of(route: Route, namespace: str) -> RuleAddress:
    return RuleAddress(namespace, route.name, "serving", "llama", "llama-update")


def look(route: Route) -> HTTPRoute:
    return msgspec.json.decode(msgspec.json.encode(route.get()), type=HTTPRoute)


def seen(route: Route, namespace: str) -> ObservedRoute:
    found = observe(address_of(route, namespace), look(route), installed=True)
    assert isinstance(found, ObservedRoute), found
    return found


class Leader:
    """One leader's traffic, which sees the route as it was at `look` until it writes or looks again."""

    def __init__(
        self, client: KubernetesClient, route: Route, namespace: str, epoch: int = 1, timeout_s: int | None = None
    ) -> None:
        self._route = route
        self.look()
        self._address = address_of(route, namespace)
        self.traffic = RouteTraffic(client, self._address, lambda: self.there, self._wrote, epoch, timeout_s)

    def percent(self) -> int | None:
        """As updates see it."""
        return route_of(observe(self._address, self.there, installed=True)).weight

    def look(self) -> None:
        self.there = look(self._route)

    def _wrote(self, there: HTTPRoute) -> None:
        self.there = there


async def test_weights_are_written_and_nothing_else_changes(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    docs = {
        **rule({"docs": 3, "llama": 4}, name="docs", path="/docs"),
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x", "value": "y"}]}}],
    }
    route = Route(gateway, namespace, "front", [docs, rule({"mirror": 2, **BOTH}, timeout="30s")])
    before = route.get()
    leader = Leader(client, route, namespace)
    await leader.traffic.split(Weights(90, 10))
    after = route.get()
    expected = before["spec"]
    for ref, weight in zip(expected["rules"][1]["backendRefs"], (2, 90, 10), strict=True):
        ref["weight"] = weight
    assert after["spec"] == expected
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert seen(route, namespace).changed_by == ""

    await leader.traffic.split(Weights(90, 10))  # as it is: nothing is sent
    assert (
        route.get()["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        or seen(route, namespace).generation == (after["metadata"]["generation"])
    )
    route.set_weights(3, 4)  # of the rule that is not ours
    await Leader(client, route, namespace, timeout_s=600).traffic.split(Weights(100, 0))
    spec = route.get()["spec"]["rules"]
    assert spec[1]["timeouts"] == {"request": "600s"}
    assert [ref["weight"] for ref in spec[0]["backendRefs"]] == [3, 4]


async def test_acceptance_is_of_the_generation_that_was_written(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    route = Route(gateway, namespace, "front", [rule(BOTH)])
    await wait_for_async(lambda: seen(route, namespace).accepted, "the first generation to be accepted")
    leader = Leader(client, route, namespace)
    await leader.traffic.split(Weights(50, 50))
    written = observe(address_of(route, namespace), leader.there, installed=True)
    assert isinstance(written, ObservedRoute)
    assert not written.accepted  # the server's answer to our write carries the status of the generation before
    assert "generation" in written.waits_for
    await wait_for_async(lambda: seen(route, namespace).accepted, "the second one to be accepted")
    assert seen(route, namespace).generation == written.generation


async def test_a_missing_service_is_said_by_the_status(gateway: Gateway, namespace: str) -> None:
    route = Route(gateway, namespace, "front", [rule(BOTH)])
    await wait_for_async(lambda: "ResolvedRefs is False" in seen(route, namespace).waits_for, "unresolved backends")
    assert not seen(route, namespace).accepted


async def test_drift_is_seen_named_and_repaired(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    route = Route(gateway, namespace, "front", [rule(BOTH)])
    leader = Leader(client, route, namespace)
    await leader.traffic.split(Weights(80, 20))
    route.set_weights(1, 1)
    assert (seen(route, namespace).weights, seen(route, namespace).changed_by) == (Weights(1, 1), "kubectl-edit")
    with pytest.raises(Conflict, match="has changed since"):
        await leader.traffic.split(Weights(70, 30))  # made for what was there before
    assert route.weights() == {"llama": 1, "llama-update": 1}
    leader.look()
    await leader.traffic.split(Weights(80, 20))
    assert route.weights() == {"llama": 80, "llama-update": 20}


async def test_percents_are_weighed_for_what_was_seen_and_for_nothing_else(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    route = Route(gateway, namespace, "front", [rule(BOTH, timeout="30s")])
    leader = Leader(client, route, namespace, timeout_s=600)
    await leader.traffic.weigh(10, seen=0)
    assert (route.weights(), leader.percent()) == ({"llama": 90, "llama-update": 10}, 10)
    assert route.get()["spec"]["rules"][0]["timeouts"] == {"request": "600s"}
    with pytest.raises(Conflict, match="have changed since"):
        await leader.traffic.weigh(50, seen=0)
    route.set_weights(0, 0)
    leader.look()
    assert leader.percent() is None
    await leader.traffic.weigh(100, seen=None)
    assert (route.weights(), leader.percent()) == ({"llama": 0, "llama-update": 100}, 100)


async def test_a_route_without_our_backends_says_what_to_add(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    route = Route(gateway, namespace, "front", [rule({"llama": 100})])
    leader = Leader(client, route, namespace)
    assert leader.percent() == 0, "what is not among the backends gets nothing"
    with pytest.raises(NotFound, match="no backendRef to Service llama-update: add one with weight 0"):
        await leader.traffic.weigh(10, seen=None)
    assert route.weights() == {"llama": 100}


async def test_a_status_written_meanwhile_is_no_conflict(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    route = Route(gateway, namespace, "front", [rule(BOTH)])
    leader = Leader(client, route, namespace)
    route.patch({"metadata": {"labels": {"team": "ml"}}})  # another version of the same generation, as a status is
    await leader.traffic.split(Weights(0, 100))
    assert route.weights() == {"llama": 0, "llama-update": 100}


async def test_a_value_that_the_server_refuses_is_no_conflict(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    body: dict[str, Any] = rule(BOTH)
    body["timeouts"] = {"request": "30s", "backendRequest": "20s"}
    route = Route(gateway, namespace, "front", [body])
    await wait_for_async(lambda: seen(route, namespace).accepted, "a status")
    with pytest.raises(Refused, match="backendRequest timeout cannot be longer than request timeout"):
        await Leader(client, route, namespace, timeout_s=10).traffic.split(Weights(100, 0))


async def test_a_late_write_of_an_earlier_leader_meets_the_stamp(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    route = Route(gateway, namespace, "front", [rule(BOTH)])
    await wait_for_async(lambda: seen(route, namespace).accepted, "a status")
    old, new = Leader(client, route, namespace, epoch=1), Leader(client, route, namespace, epoch=2)
    late = _patch_that_would_be_sent(old, route, namespace)
    await new.traffic.stamp()
    assert (seen(route, namespace).epoch, seen(route, namespace).weights) == (2, Weights(100, 0))
    status, _ = route.cluster.request("PATCH", route.path, late, content_type=JSON_PATCH)
    assert status == 422
    with pytest.raises(Conflict):
        await old.traffic.split(Weights(0, 100))  # it looks again, and finds the stamp
    assert route.weights() == BOTH
    before = route.get()["metadata"]["resourceVersion"]
    await new.traffic.stamp()
    assert route.get()["metadata"]["resourceVersion"] == before
    await new.traffic.split(Weights(0, 100))
    assert route.weights() == {"llama": 0, "llama-update": 100}


def _patch_that_would_be_sent(leader: Leader, route: Route, namespace: str) -> object:
    patch = edits(address_of(route, namespace), leader.there, Weights(0, 100), None)
    assert patch
    return patch


async def test_who_applies_the_rules_is_named_and_nothing_is_written(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    route = Route(gateway, namespace, "front", [rule(BOTH)])
    manifest = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "front", "namespace": namespace},
        "spec": {"parentRefs": [gateway.parent], "hostnames": [route.host], "rules": [rule(BOTH)]},
    }
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=gitops", "--filename=-")
    route.cluster.kubectl(*apply, input=json.dumps(manifest))
    found = observe(address_of(route, namespace), look(route), installed=True)
    assert isinstance(found, UnusableRoute)
    assert (found.reason.value, found.message.split()[0]) == ("ForeignManager", "gitops")
    leader = Leader(client, route, namespace)
    with pytest.raises(Conflict, match="gitops owns"):
        await leader.traffic.split(Weights(0, 100))
    with pytest.raises(Foreign, match="gitops owns"):
        await leader.traffic.weigh(100, seen=0)
    await leader.traffic.stamp()
    assert (route.weights(), "annotations" in route.get()["metadata"]) == (BOTH, False)


@contextlib.asynccontextmanager
async def stored(client: KubernetesClient, namespace: str) -> AsyncIterator[Store]:
    store = Store(client, [namespace], lambda: None, routes=True)
    task = asyncio.create_task(store.run())
    try:
        await until(lambda: store.http_routes[namespace].synced.is_set(), "the copy of routes", 20)
        yield store
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=2)


async def test_the_store_follows_routes_and_the_pods_of_services(
    client: KubernetesClient, gateway: Gateway, namespace: str, both: None
) -> None:
    route = Route(gateway, namespace, "front", [rule(BOTH)])
    async with stored(client, namespace) as store:
        assert store.knows_http_routes(namespace)
        await until(lambda: store.http_routes.find(namespace, "front") is not None, "the route", 20)
        route.set_weights(30, 70)

        def weights() -> Weights | None:
            there = store.http_routes.find(namespace, "front")
            found = observe(address_of(route, namespace), there, store.knows_http_routes(namespace))
            return found.weights if isinstance(found, ObservedRoute) else None

        await until(lambda: weights() == Weights(30, 70), "the new weights", 20)

        slices = store.slices_by_service()

        def lead_to(service: str, pods: set[str]) -> bool:
            return ready_pods(slices.get((namespace, service), ())) == pods

        await until(lambda: (namespace, "llama") in slices, "a slice of the Service", 20)
        assert lead_to("llama", set())
        labels = {"app": "llama"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "x", "image": "none"}]}}
        spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        route.cluster.create(path, {"metadata": {"name": "llama"}, "spec": spec})
        await wait_for_async(lambda: len(_pods(route.cluster, namespace)) == 3, "three pods")
        three = await asyncio.to_thread(_pods, route.cluster, namespace)
        await until(lambda: lead_to("llama", three), "exactly these pods", 20)
        assert not lead_to("llama-update", three)
        merge = "application/merge-patch+json"
        service = f"/api/v1/namespaces/{namespace}/services/llama-update"
        await asyncio.to_thread(route.cluster.request, "PATCH", service, {"spec": {"selector": labels}}, None, merge)
        await until(lambda: lead_to("llama-update", three), "both to hold them", 20)
        await until(lambda: store.services.find(namespace, "llama") is not None, "the Service", 20)
        there = store.services.find(namespace, "llama")
        told = service_traffic.observe("llama", there, slices.get((namespace, "llama"), ()))
        assert told.endpoints == frozenset(three)


def _pods(cluster: Cluster, namespace: str) -> set[str]:
    """Names of the ready ones."""
    pods = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return {
        pod["metadata"]["name"]
        for pod in pods
        for each in pod["status"].get("conditions", ())
        if (each["type"], each["status"]) == ("Ready", "True")
    }


async def test_without_the_gateway_api_there_are_no_routes_and_no_errors(fresh_cluster: Cluster) -> None:
    made = await connect(fresh_cluster.kubeconfig)
    try:
        store = Store(made, ["default"], lambda: None, routes=True)
        task = asyncio.create_task(store.run())
        try:
            await until(lambda: store.http_routes["default"].synced.is_set(), "the answer", 20)
            assert not store.knows_http_routes("default")
            address = RuleAddress("default", "front", None, "llama", "llama-update")
            there = store.http_routes.find("default", "front")
            found = observe(address, there, store.knows_http_routes("default"))
            assert isinstance(found, UnusableRoute)
            assert found.reason.value == "GatewayAPINotInstalled"
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=2)
    finally:
        await made.close()
