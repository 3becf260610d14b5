"""Readings by way of Prometheus: the same values as from pages, and never fresher than the samples behind them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator

import pytest

from autoscaler.model.signal import Quality, Reading, SignalSpec
from autoscaler.model.workload import Engine, RevisionKey, TargetKey, WorkloadKey
from autoscaler.signals.aggregates import Labels
from autoscaler.signals.prometheus import Access
from autoscaler.signals.prometheus_pods import PrometheusPods
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.signals.fakeprometheus import FakePrometheus
from tests.signals.pods import until

KEY = WorkloadKey("ml", "llama")
RUNNING, WAITING, FINISHED = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:request_success_total"
PODS = ("p-0", "p-1")


class Scene:
    """A Prometheus that has two busy pods, and who reads them."""

    def __init__(self, server: FakePrometheus, url: str) -> None:
        self.server = server
        self.source = PrometheusPods(time.time, Access(url, timeout_s=1.0), Labels(), 1.0)
        self.finished = 0.0
        self.scraping = True
        self.late_s = 0.0
        for pod in PODS:
            self.show(pod, 3, 2)

    def show(self, pod: str, running: float, waiting: float) -> None:
        self.server.set(RUNNING, running, pod, engine="0")
        self.server.set(RUNNING, 1, pod, engine="1")
        self.server.set(WAITING, waiting, pod, engine="0")
        self.server.set(FINISHED, self.finished, pod, engine="0", finished_reason="stop")

    def aim(self, signal: str = "concurrency", engine: Engine = Engine.AUTO) -> None:
        pods = tuple(PodAddress(name, f"uid-{name}", "10.0.0.1") for name in PODS)
        self.source.set_targets({KEY: ScrapeTarget(8000, "/metrics", engine, (SignalSpec(signal, 10, 7),), pods)})

    def reading(self, signal: str = "concurrency") -> Reading:
        return self.source.readings(time.time())[KEY].readings[signal]

    @property
    def activity(self) -> Reading:
        return self.source.readings(time.time())[KEY].activity

    async def sampled(self) -> None:
        """Prometheus takes samples every second from here on, as its own scrapes would."""
        while True:
            if self.scraping:
                self.server.sampled_at_s = time.time() - self.late_s
            await asyncio.sleep(1.0)

    async def until(self, value: float | None, quality: Quality, signal: str = "concurrency") -> Reading:
        with contextlib.suppress(TimeoutError):
            await until(lambda: (self.reading(signal).value, self.reading(signal).quality) == (value, quality), 8)
        reading = self.reading(signal)
        assert (reading.value, reading.quality) == (value, quality), reading
        return reading


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    server = FakePrometheus()
    scene = Scene(server, await server.start())
    scene.aim()
    running = [asyncio.create_task(scene.source.run()), asyncio.create_task(scene.sampled())]
    yield scene
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await server.stop()


async def test_ranks_and_pods_add_up_and_idleness_needs_proof(scene: Scene) -> None:
    reading = await scene.until(12.0, Quality.FRESH)
    assert (reading.pods_expected, reading.pods_fresh, reading.faults) == (2, 2, ())
    assert scene.source.readings(time.time())[KEY].engine == "vllm"
    for pod in PODS:
        scene.server.set(RUNNING, 0, pod, engine="1")
        scene.server.set(RUNNING, 0, pod, engine="0")
        scene.server.set(WAITING, 0, pod, engine="0")
    await scene.until(0.0, Quality.FRESH)
    await until(lambda: (scene.activity.value, scene.activity.quality) == (0.0, Quality.FRESH), 8)
    scene.server.set(FINISHED, 4, "p-0", engine="0", finished_reason="stop")
    await until(lambda: scene.activity.value == 4.0, 8)


async def test_one_query_a_quantity_however_many_pods(scene: Scene) -> None:
    await scene.until(12.0, Quality.FRESH)
    assert len(set(scene.server.queries)) == 4, "running, waiting, in flight, finished: of all engines"
    assert scene.source.pages_total.keys() == {"ok"}


@pytest.mark.parametrize("scraping", [False, True], ids=["the same sample", "new samples that come late"])
async def test_an_answer_of_old_samples_is_stale(scene: Scene, scraping: bool) -> None:
    await scene.until(12.0, Quality.FRESH)
    scene.scraping, scene.late_s = scraping, 60.0
    scene.server.sampled_at_s -= 60
    reading = await scene.until(12.0, Quality.STALE)
    assert reading.age_s is not None
    assert reading.age_s > 3
    assert reading.faults[0].reason == "overdue"


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
async def test_the_clock_of_prometheus_does_not_matter(scene: Scene, ahead_s: float) -> None:
    scene.server.clock_ahead_s = ahead_s
    reading = await scene.until(12.0, Quality.FRESH)
    assert reading.age_s is not None
    assert reading.age_s < 3


async def test_a_pod_that_prometheus_lacks_is_missing_and_not_idle(scene: Scene) -> None:
    await scene.until(12.0, Quality.FRESH)
    for name in (RUNNING, WAITING, FINISHED):
        scene.server.series[name] = {
            labels: value for labels, value in scene.server.series[name].items() if ("pod", "p-1") not in labels
        }
    reading = await scene.until(12.0, Quality.PARTIAL)
    assert (reading.pods_expected, reading.pods_fresh) == (2, 1)
    assert [(fault.pod, fault.reason) for fault in reading.faults] == [("p-1", "Prometheus: no samples")]
    scene.show("p-0", 30, 2)
    await scene.until(39.0, Quality.PARTIAL)  # more is seen at once, and the pod that is missing counts as it was


async def test_a_prometheus_without_samples_of_anybody_is_stale_and_not_zero(scene: Scene) -> None:
    await scene.until(12.0, Quality.FRESH)
    scene.server.series.clear()
    reading = await scene.until(12.0, Quality.STALE)
    assert {fault.reason for fault in reading.faults} == {"Prometheus: no samples"}


async def test_a_prometheus_that_never_knew_the_pods_is_absent(scene: Scene) -> None:
    scene.server.series.clear()
    await until(lambda: scene.source.pages_total["ok"] > 3, 8)
    assert (await scene.until(None, Quality.ABSENT)).faults[0].reason == "Prometheus: no samples"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, b"", "Prometheus: http 503"),
        (200, b"<html>", "Prometheus: not an answer of Prometheus"),
        (422, b"", "Prometheus: query refused"),
    ],
)
async def test_a_prometheus_that_fails_changes_no_value_and_is_named(
    scene: Scene, status: int, body: bytes, reason: str
) -> None:
    await scene.until(12.0, Quality.FRESH)
    scene.server.status, scene.server.body = status, body
    reading = await scene.until(12.0, Quality.STALE)
    assert {fault.reason for fault in reading.faults} == {reason}
    scene.server.status, scene.server.body = 200, None
    await scene.until(12.0, Quality.FRESH)


async def test_a_warned_answer_raises_and_is_no_proof(scene: Scene) -> None:
    await scene.until(12.0, Quality.FRESH)
    scene.server.warnings = ["store gpu-2 unavailable"]
    scene.show("p-0", 30, 2)
    reading = await scene.until(39.0, Quality.PARTIAL)
    assert reading.pods_fresh == 0
    assert reading.faults[-1].reason == "Prometheus: partial answer"
    assert scene.activity.quality is not Quality.FRESH
    scene.show("p-0", 0, 0)
    await asyncio.sleep(2.5)
    await scene.until(39.0, Quality.PARTIAL)  # a rank may be what is missing
    scene.scraping = False
    scene.server.warnings = []
    await scene.until(7.0, Quality.FRESH)  # the same sample, in a whole answer


async def test_a_counter_of_a_warned_answer_is_not_one_that_began_anew(scene: Scene) -> None:
    scene.finished = 100_000
    for pod in PODS:
        scene.show(pod, 3, 2)
    scene.aim("throughput")
    await scene.until(0.0, Quality.FRESH, "throughput")
    scene.finished = 50_000  # one of two ranks
    scene.server.warnings = ["store gpu-2 unavailable"]
    for pod in PODS:
        scene.show(pod, 3, 2)
    await until(lambda: scene.reading("throughput").quality is not Quality.FRESH, 8)
    await asyncio.sleep(2.5)
    assert scene.reading("throughput").value == 0.0


async def test_a_counter_of_a_warned_answer_that_is_not_smaller_raises(scene: Scene) -> None:
    for finished in (100, 100):
        scene.finished = finished
        for pod in PODS:
            scene.show(pod, 3, 2)
    scene.aim("throughput")
    await scene.until(0.0, Quality.FRESH, "throughput")
    scene.server.warnings = ["store gpu-2 unavailable"]

    def busier() -> bool:
        scene.finished += 20
        for pod in PODS:
            scene.show(pod, 3, 2)
        reading = scene.reading("throughput")
        return (reading.value or 0.0) > 0 and reading.quality is Quality.PARTIAL

    await until(busier, 8)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(math.nan, "not a number"), (math.inf, "infinite"), (-1.0, "negative"), (1e18, "absurdly large")],
)
async def test_what_cannot_be_is_no_value(scene: Scene, value: float, reason: str) -> None:
    await scene.until(12.0, Quality.FRESH)
    for pod in PODS:
        scene.server.series[WAITING].clear()
        scene.server.set(WAITING, value, pod)
    scene.server.set(WAITING, value, "p-0")
    reading = await scene.until(12.0, Quality.STALE)
    assert reason in {fault.reason for fault in reading.faults}


async def test_rates_and_percentiles_come_from_successive_samples(scene: Scene) -> None:
    scene.aim("throughput")

    async def work() -> None:
        while True:
            scene.finished += 5
            for pod in PODS:
                scene.show(pod, 3, 2)
            scene.server.sampled_at_s = time.time()
            await asyncio.sleep(1.0)

    working = asyncio.create_task(work())
    await until(lambda: 5 <= (scene.reading("throughput").value or 0) <= 20, 10)
    working.cancel()


async def test_a_histogram_gives_its_percentile(scene: Scene) -> None:
    name = "vllm:time_to_first_token_seconds_bucket"
    for pod in PODS:
        for bound in ("0.1", "1.0", "+Inf"):
            scene.server.set(name, 10, pod, le=bound)
    scene.aim("ttft")
    await until(lambda: scene.source.pages_total["ok"] > 12, 8)
    assert scene.reading("ttft").value is None, "nobody finished since we look, and requests run"
    for pod in PODS:
        scene.server.set(name, 110, pod, le="1.0")
        scene.server.set(name, 110, pod, le="+Inf")
    await until(lambda: (scene.reading("ttft").value or 0) == pytest.approx(0.991), 8)


async def test_each_revision_has_the_values_of_its_own_pods(scene: Scene) -> None:
    update = RevisionKey(KEY, "llama-2")
    scene.show("p-1", 7, 0)
    signals = (SignalSpec("concurrency", 10, 7),)
    targets: dict[TargetKey, ScrapeTarget] = {
        key: ScrapeTarget(8000, "/metrics", Engine.AUTO, signals, (PodAddress(pod, f"uid-{pod}", "10.0.0.1"),))
        for key, pod in ((KEY, "p-0"), (update, "p-1"))
    }
    scene.source.set_targets(targets)
    await scene.until(6.0, Quality.FRESH)
    await until(lambda: scene.source.readings(time.time())[update].readings["concurrency"].value == 8.0)
