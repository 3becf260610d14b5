"""Who asks the configuration's queries: how often, for whom, and what becomes of troubles."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from autoscaler.model.signal import Activation, Quality, Reading, Shape, SignalSpec
from autoscaler.model.workload import ActivationQuery, Engine, RevisionKey, WorkloadKey
from autoscaler.signals.prometheus import Access
from autoscaler.signals.queries import NamedQuery, named_query
from autoscaler.signals.query_poller import MOST_AT_ONCE, QueryPoller, next_place
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.signals.fakeprometheus import FakePrometheus
from tests.signals.pods import until

KEY = WorkloadKey("ml", "llama")
WAKING = ActivationQuery("pending", KEY)
QUERIES = {
    "pending": named_query('sum(pending{ns="{namespace}", app="{workload}"})', Shape.TOTAL, 1.0),
    "slow": named_query("sum(slow)", Shape.TOTAL, 60.0),
}


def target(*queries: str) -> ScrapeTarget:
    signals = tuple(SignalSpec(name, 10, 10, query=Shape.TOTAL) for name in queries)
    pods = (PodAddress("p-0", "uid-0", "10.0.0.1"), PodAddress("p-1", "uid-1", "10.0.0.2"))
    return ScrapeTarget(8000, "/metrics", Engine.AUTO, signals, pods, revision="llama-1")


class Scene:
    """A Prometheus that answers what the test says, and who asks it."""

    def __init__(self, server: FakePrometheus, url: str) -> None:
        self.server = server
        self.poller = QueryPoller(time.time, Access(url, timeout_s=1.0), QUERIES)
        self.says(5.0)

    def says(self, *values: float, warnings: tuple[str, ...] = ()) -> None:
        result = [{"metric": {"n": str(n)}, "value": [time.time(), str(value)]} for n, value in enumerate(values)]
        data = {"resultType": "vector", "result": result}
        self.server.body = json.dumps({"status": "success", "data": data, "warnings": warnings}).encode()

    def reading(self, name: str = "pending") -> Reading:
        return self.poller.reading(KEY, name, 2, time.time())

    async def until(self, value: float | None, quality: Quality) -> Reading:
        with contextlib.suppress(TimeoutError):
            await until(lambda: (self.reading().value, self.reading().quality) == (value, quality), 10)
        assert (self.reading().value, self.reading().quality) == (value, quality), self.reading()
        return self.reading()

    async def until_activation(self, state: Activation) -> None:
        await until(lambda: self.poller.state(WAKING, time.time()) is state, 10)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    server = FakePrometheus()
    scene = Scene(server, await server.start())
    running = asyncio.create_task(scene.poller.run())
    yield scene
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.stop()


async def test_a_workload_that_uses_a_query_has_its_value_for_all_pods(scene: Scene) -> None:
    assert (scene.reading().quality, scene.reading().faults[0].reason) == (Quality.ABSENT, "no answer yet")
    scene.poller.set_targets({KEY: target("pending")})
    reading = await scene.until(5.0, Quality.FRESH)
    assert (reading.pods_expected, reading.pods_fresh, reading.faults) == (2, 2, ())
    assert set(scene.server.queries) == {'sum(pending{ns="ml", app="llama"})'}
    scene.says(8.0)
    await scene.until(8.0, Quality.FRESH)
    assert scene.poller.answers_total.keys() == {"ok"}


async def test_one_question_an_interval_and_none_for_what_nobody_uses(scene: Scene) -> None:
    scene.poller.set_targets({KEY: target("pending", "slow")})
    await until(lambda: len(scene.server.queries) >= 6, 15)
    assert scene.server.queries.count("sum(slow)") == 1
    scene.poller.set_targets({})
    await asyncio.sleep(0.5)
    before = len(scene.server.queries)
    await asyncio.sleep(2.5)
    assert len(scene.server.queries) == before


@pytest.mark.parametrize(
    ("values", "reason"), [((), "no samples"), ((float("nan"),), "not a number"), ((1.0, 2.0), "more than one series")]
)
async def test_what_gives_no_value_is_stale_after_a_while_and_never_zero(
    scene: Scene, values: tuple[float, ...], reason: str
) -> None:
    scene.poller.set_targets({KEY: target("pending")})
    await scene.until(5.0, Quality.FRESH)
    scene.says(*values)
    reading = await scene.until(5.0, Quality.STALE)
    assert reading.pods_fresh == 0
    assert reading.faults[0].pod == "query pending"
    assert reading.faults[0].reason.startswith(f"Prometheus: {reason}")
    scene.says(0.0)
    await scene.until(0.0, Quality.FRESH)


async def test_an_outage_is_stale_and_told_once_by_query(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.poller.set_targets({KEY: target("pending"), WorkloadKey("ml", "other"): target("pending")})
    await scene.until(5.0, Quality.FRESH)
    scene.server.status = 503
    reading = await scene.until(5.0, Quality.STALE)
    assert reading.faults[0].reason == "Prometheus: http 503"
    scene.server.status = 200
    await scene.until(5.0, Quality.FRESH)
    told = capsys.readouterr().out
    assert told.count("query.failed") == 1
    assert told.count("query.recovered") == 1


async def test_a_slow_prometheus_is_never_asked_too_much_at_once(scene: Scene) -> None:
    asked = []
    ask = scene.poller._asked

    async def counted(*rest: object) -> object:
        asked.append(sum(use.busy for use in scene.poller._uses.values()))
        await asyncio.sleep(0.3)
        return await ask(*rest)  # type: ignore[arg-type]

    scene.poller._asked = counted  # type: ignore[method-assign, assignment]
    scene.poller.set_targets({WorkloadKey("ml", f"w-{n}"): target("pending") for n in range(100)})
    await until(lambda: len(asked) >= 60, 15)
    assert max(asked) <= MOST_AT_ONCE


async def test_an_answer_that_we_cannot_read_ends_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.poller.set_targets({KEY: target("pending")})
    await scene.until(5.0, Quality.FRESH)
    with monkeypatch.context() as broken:
        broken.setattr("autoscaler.signals.query_poller.judged", lambda *_: 1 / 0)
        reading = await scene.until(5.0, Quality.STALE)
        assert reading.faults[0].reason == "unreadable"
    await scene.until(5.0, Quality.FRESH)


async def test_above_zero_wakes_zero_sleeps_and_nothing_is_unknown(scene: Scene) -> None:
    assert scene.poller.state(WAKING, time.time()) is Activation.UNKNOWN, "the first question has it asked"
    await scene.until_activation(Activation.WAITING)
    scene.says(0.0)
    await scene.until_activation(Activation.IDLE)
    scene.says()
    await scene.until_activation(Activation.UNKNOWN)
    scene.says(1.0, warnings=("store gpu-2 unavailable",))
    await scene.until_activation(Activation.WAITING)
    scene.says(0.0)
    await scene.until_activation(Activation.IDLE)
    scene.says(0.0, warnings=("store gpu-2 unavailable",))
    await scene.until_activation(Activation.UNKNOWN)
    scene.server.status = 500
    await asyncio.sleep(4)
    await scene.until_activation(Activation.UNKNOWN)


async def test_an_activation_that_is_not_asked_for_any_more_is_forgotten(scene: Scene) -> None:
    scene.poller.state(WAKING, time.time() - 301)
    scene.poller.set_targets({})
    assert not scene.poller._uses


async def test_a_query_that_reads_otherwise_begins_anew_and_one_that_is_gone_says_so(scene: Scene) -> None:
    scene.poller.set_targets({KEY: target("pending")})
    await scene.until(5.0, Quality.FRESH)
    other: dict[str, NamedQuery] = {"pending": named_query("sum(other)", Shape.TOTAL, 1.0)}
    scene.poller.configure(scene.poller._access, other)
    assert (scene.reading().value, scene.reading().quality) == (None, Quality.ABSENT)
    scene.poller.set_targets({KEY: target("pending")})
    await until(lambda: "sum(other)" in scene.server.queries, 5)
    scene.poller.configure(scene.poller._access, {})
    scene.poller.set_targets({KEY: target("pending")})
    assert scene.reading().faults[0].reason == "no such query in the configuration"
    assert scene.poller.state(WAKING, time.time()) is Activation.UNKNOWN


def test_workloads_spread_over_the_interval_and_keep_their_places() -> None:
    uses = [(WorkloadKey("ml", f"w-{n}"), "pending") for n in range(1000)]
    places = [next_place(use, 10.0, 100.0) % 10 for use in uses]
    by_second = [sum(1 for place in places if int(place) == second) for second in range(10)]
    assert min(by_second) > 60, by_second
    for use, place in zip(uses, places, strict=True):
        due = next_place(use, 10.0, 123.4)
        assert due % 10 == pytest.approx(place)
        assert 5.0 <= due - 123.4 <= 15.0


async def test_a_revision_asks_beside_its_workload(scene: Scene) -> None:
    update = RevisionKey(KEY, "llama-2")
    scene.poller.set_targets({KEY: target("pending"), update: replace(target("pending"), revision="llama-2")})
    await scene.until(5.0, Quality.FRESH)
    await until(lambda: scene.poller.reading(update, "pending", 1, time.time()).value == 5.0)
    assert set(scene.server.queries) == {'sum(pending{ns="ml", app="llama"})'}
    scene.poller.set_targets({KEY: target("pending")})
    assert scene.poller.reading(update, "pending", 1, time.time()).quality is Quality.ABSENT
    assert scene.reading().quality is Quality.FRESH
