"""When the past is asked for, and that whatever goes wrong with it leaves everything as it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from autoscaler.controller.recall import MOST_POINTS, Kept, Recall, _NotKnown, _steps
from autoscaler.controller.subject import Snapshot
from autoscaler.model.signal import Quality, Reading, Sample, SignalSpec, WorkloadSignals
from autoscaler.model.workload import Engine, KpaParameters, ScalingSpec, WorkloadKey
from autoscaler.signals.aggregates import Labels
from autoscaler.signals.prometheus import Access
from autoscaler.signals.targets import PodAddress

SCALING = ScalingSpec(1, 8, 1, 1, SignalSpec("queue", 10.0, 7.0), kpa=KpaParameters(stable_window_s=30))
OLD, NOW = "2020-01-01T00:00:00Z", 1_800_000_000.0


def subject(name: str, lives: bool, pod: str = "{}-7c9d8f6b5-x8k2p") -> Any:
    """What `look` reads of a Subject."""
    reading = Reading("queue", 1.0, Quality.FRESH, (Sample(1.0, 1.0),) if lives else ())
    serving = SimpleNamespace(metrics_port=8000, metrics_path="/metrics", engine=Engine.VLLM)
    return SimpleNamespace(
        key=WorkloadKey("ml", name),
        observed=SimpleNamespace(current=None),
        spec=SimpleNamespace(serving=serving, scaling=SCALING),
        updating=False,
        pods=(PodAddress(pod.format(name), "uid", "10.0.0.1", OLD),),
        observation=SimpleNamespace(signals=WorkloadSignals({"queue": reading}, reading)),
    )


def seen(at_s: float, *subjects: Any) -> Snapshot:
    return cast(Snapshot, SimpleNamespace(at_s=at_s, subjects=subjects))


class Wanting(Recall):
    def wants(self) -> set[str]:
        return {key.name for key in self._wanted}


def recall() -> Wanting:
    return Wanting(lambda: 0.0, Kept(Access("http://127.0.0.1:1"), Labels(), 1.0))


async def test_it_waits_until_live_samples_have_begun_but_not_for_ever() -> None:
    one = recall()
    one.look(seen(100.0, subject("a", True), subject("b", False)))
    assert one.wants() == set()
    one.look(seen(104.0, subject("a", True), subject("b", False)))
    assert one.wants() == set()
    one.look(seen(105.0, subject("a", True), subject("b", False)))
    assert one.wants() == {"a"}
    together = recall()
    together.look(seen(100.0, subject("a", True), subject("b", True)))
    assert together.wants() == {"a", "b"}


async def test_each_workload_is_asked_for_once_and_not_when_it_is_too_late() -> None:
    one = recall()
    one.look(seen(100.0, subject("a", True)))
    one._wanted = {}  # it was read
    one.look(seen(106.0, subject("a", True), subject("b", True)))
    assert one.wants() == {"b"}
    one._wanted = {}
    one.look(seen(107.0, subject("a", True), subject("d", True)))
    assert one.wants() == set(), "not more often than every five seconds"
    one.look(seen(131.0, subject("a", True), subject("c", True)))
    assert one.wants() == set()
    one.rest()
    one.look(seen(200.0, subject("a", True)))
    assert one.wants() == {"a"}


async def test_without_prometheus_nothing_is_asked() -> None:
    none = Wanting(lambda: 0.0, None)
    none.look(seen(100.0, subject("a", True)))
    assert none.wants() == set()
    assert none.take() == {}


async def test_pods_of_no_family_have_no_past() -> None:
    one = recall()
    one.look(seen(100.0, subject("a", True, pod="{}")))
    assert one.wants() == set()


def test_too_much_is_not_begun() -> None:
    assert _steps([SCALING], 100, 1, 1.0) == 2 * 30 + 4 + 1
    least = MOST_POINTS // 34
    assert _steps([SCALING], least, 1, 1.0) == 34
    with pytest.raises(_NotKnown):
        _steps([SCALING], least + 1_000, 1, 1.0)


class Store:
    """A Prometheus whose answers go wrong from some question on."""

    def __init__(self) -> None:
        self.questions = 0
        self.wrong_from = 99
        self.status, self.warnings = 200, list[str]()

    async def answer(self, request: web.Request) -> web.Response:
        self.questions += 1
        wrong = self.questions >= self.wrong_from
        if wrong and self.status != 200:
            return web.Response(status=self.status)
        form = await request.post()
        result: Any = [NOW, str(NOW)] if form["query"] == "time()" else []
        body = {"status": "success", "data": {"result": result}, "warnings": self.warnings if wrong else []}
        return web.Response(text=json.dumps(body))


@pytest.fixture
async def store() -> AsyncIterator[tuple[Store, Kept]]:
    served = Store()
    app = web.Application()
    app.router.add_post("/{path:.*}", served.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield served, Kept(Access(f"http://127.0.0.1:{runner.addresses[0][1]}"), Labels(), 1.0)
    await runner.cleanup()


async def recalled(kept: Kept) -> Any:
    """As the daemon runs it: beside the cycles, until something was read or was not."""
    one = Wanting(lambda: NOW, kept)
    running = asyncio.create_task(one.run())
    one.look(seen(NOW, subject("a", True)))
    async with asyncio.timeout(20):
        while one.wants():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    return one.take()


@pytest.mark.parametrize("wrong_from", [1, 2, 3, 5])
@pytest.mark.parametrize(("status", "warnings"), [(503, []), (200, ["a store is away"])])
async def test_failures_and_warnings_give_nothing(
    store: tuple[Store, Kept], wrong_from: int, status: int, warnings: list[str]
) -> None:
    served, kept = store
    served.wrong_from, served.status, served.warnings = wrong_from, status, warnings
    assert await recalled(kept) == {}
    assert served.questions >= wrong_from


async def test_a_failure_is_tried_again_and_not_for_ever(store: tuple[Store, Kept]) -> None:
    served, kept = store
    served.wrong_from, served.status = 1, 503
    one = Wanting(lambda: NOW, kept)
    tries = 0
    for at in range(0, 30, 5):
        one.look(seen(NOW + at, subject("a", True)))
        if one.wants():
            tries += 1
            one._take_over(one._wanted, await one._within_time(one._wanted, kept))
            one._wanted = {}
    assert tries == 6
    one.look(seen(NOW + 29.9, subject("a", True)))
    assert one.wants() == set()


async def test_a_prometheus_that_knows_nothing_leaves_no_trust(store: tuple[Store, Kept]) -> None:
    """The pod of today is older than the range: all of it is a hole."""
    states = (await recalled(store[1]))[WorkloadKey("ml", "a")]
    assert [state.trusted_since for state in states] == [None]
