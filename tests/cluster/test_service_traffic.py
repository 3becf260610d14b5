"""A Service serves one workload: who comes second is refused, told so, and changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.errors import ApiError, Conflict, Foreign, NotFound
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import REVISION_LABEL, Service
from autoscaler.cluster.traffic.service import ServiceTraffic
from autoscaler.controller.backoff import trouble_of
from autoscaler.controller.specs import Operator, resolve
from autoscaler.model.workload import WorkloadSpec
from rollouts.commands import Select
from rollouts.revision import NO_REVISION

PATH = "/api/v1/namespaces/ml/services"


class Services:
    """An imitation of KubeApi: the Services of one namespace, by name. Between two calls of one caller come others."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self._version = 0

    def look(self, name: str) -> Service | None:
        return msgspec.convert(self.stored[name], Service) if name in self.stored else None

    def put(self, body: Mapping[str, Any]) -> None:
        self._version += 1
        name = body["metadata"]["name"]
        versioned = {"uid": f"uid-{name}", **body["metadata"], "resourceVersion": str(self._version)}
        self.stored[name] = {**body, "metadata": versioned}

    def selector(self, name: str) -> dict[str, str]:
        selector: dict[str, str] = self.stored[name]["spec"]["selector"]
        return selector

    async def call(self, method: str, path: str, *, body: Any = None, **others: object) -> bytes:
        await asyncio.sleep(0)
        name = path.removeprefix(PATH).lstrip("/") or body["metadata"]["name"]
        there = self.stored.get(name)
        if method == "POST":
            if there is not None:
                raise Conflict(f"{name} exists", 409)
            self.put(body)
        elif there is None:
            raise NotFound(f"{name} not found", 404)
        elif method == "PATCH":
            if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
                raise Conflict(f"{name} has been modified", 409)
            metadata = {**there["metadata"], "annotations": body["metadata"]["annotations"]}
            selector = {**there["spec"]["selector"], **body["spec"]["selector"]}
            self.put({"metadata": metadata, "spec": {"selector": selector}})
        return json.dumps(self.stored[name]).encode()

    def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        raise AssertionError("nobody watches here")


@pytest.fixture
def services() -> Services:
    """One Service that a person made, which selects nothing of ours."""
    made = Services()
    made.put({"metadata": {"name": "front"}, "spec": {"selector": {"team": "ml"}}})
    return made


def traffic(services: Services, workload: str, service: str | None = None) -> ServiceTraffic:
    template = {"spec": {"containers": [{"name": "engine", "image": "vllm"}]}}
    body = {
        "metadata": {"name": workload, "namespace": "ml", "uid": f"uid-of-{workload}"},
        "spec": {
            "serving": {"port": 8000, "protocol": "http", "deployment": {"template": template}},
            "autoscaling": {"metric": "concurrency", "metricThreshold": 10},
            "traffic": {"service": service},
        },
    }
    stored = msgspec.convert(body, InferenceWorkload)
    spec = resolve(stored, Operator(projects={"ml": "ml"}))
    assert isinstance(spec, WorkloadSpec), spec
    return ServiceTraffic(services, stored, spec, services.look, lambda _: None, epoch=1)


async def test_a_service_that_serves_another_workload_is_refused_and_stays_as_it_is(services: Services) -> None:
    await traffic(services, "llama", "front").select("front", "llama-11111111", exists=True)
    before = dict(services.stored)
    with pytest.raises(Foreign, match="Service front serves llama-11111111 of another workload") as refused:
        await traffic(services, "mistral", "front").select("front", "mistral-22222222", exists=True)
    assert services.stored == before
    told = trouble_of(refused.value, Select("front", "mistral-22222222", True))
    assert (told.condition, "name another traffic.service" in told.message) == ("Conflict", True)


async def test_a_name_that_only_begins_like_the_workloads_is_another_workloads(services: Services) -> None:
    await traffic(services, "llama-8b", "front").select("front", "llama-8b-11111111", exists=True)
    with pytest.raises(Foreign):
        await traffic(services, "llama", "front").select("front", "llama-22222222", exists=True)


async def test_who_came_first_goes_on_and_only_its_key_changes(services: Services) -> None:
    first = traffic(services, "llama", "front")
    await first.select("front", "llama-11111111", exists=True)
    with pytest.raises(Foreign):
        await traffic(services, "mistral", "front").select("front", "mistral-22222222", exists=True)
    await first.select("front", "llama-33333333", exists=True)
    assert services.selector("front") == {"team": "ml", REVISION_LABEL: "llama-33333333"}


async def test_a_service_that_serves_nobody_is_free(services: Services) -> None:
    await traffic(services, "llama", "front").select("front", NO_REVISION, exists=True)
    await traffic(services, "mistral", "front").select("front", "mistral-22222222", exists=True)
    assert services.selector("front")[REVISION_LABEL] == "mistral-22222222"


async def test_of_two_that_want_it_at_once_one_gets_it(services: Services) -> None:
    wanted = ("llama-11111111", "mistral-22222222")
    results = await asyncio.gather(
        traffic(services, "llama", "front").select("front", wanted[0], exists=True),
        traffic(services, "mistral", "front").select("front", wanted[1], exists=True),
        return_exceptions=True,
    )
    [refused] = [result for result in results if result is not None]
    assert isinstance(refused, ApiError)
    winner = results.index(None)
    assert services.selector("front")[REVISION_LABEL] == wanted[winner]
    workload = ("mistral", "llama")[winner]
    with pytest.raises(Foreign):  # and it stays so when the other one looks again
        await traffic(services, workload, "front").select("front", wanted[1 - winner], exists=True)


async def test_the_service_that_another_workload_made_for_itself_is_refused(services: Services) -> None:
    await traffic(services, "llama").select("llama", "llama-11111111", exists=False)
    with pytest.raises(Foreign, match="of another workload"):
        await traffic(services, "mistral", "llama").select("llama", "mistral-22222222", exists=True)


async def test_a_service_of_the_workloads_name_that_serves_another_one_is_not_made_its_own(services: Services) -> None:
    services.put({"metadata": {"name": "mistral"}, "spec": {"selector": {REVISION_LABEL: "llama-11111111"}}})
    with pytest.raises(Foreign, match="Service mistral exists and is not ours"):
        await traffic(services, "mistral").select("mistral", "mistral-22222222", exists=False)
    assert services.selector("mistral") == {REVISION_LABEL: "llama-11111111"}


async def test_the_service_of_the_coming_revision_is_refused_where_it_is_somebodys(services: Services) -> None:
    services.put({"metadata": {"name": "front-update"}, "spec": {"selector": {"team": "ml"}}})
    with pytest.raises(Foreign, match="Service front-update exists and is not ours"):
        await traffic(services, "llama", "front").select("front-update", "llama-11111111", exists=True)
