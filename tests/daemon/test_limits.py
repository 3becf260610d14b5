"""Limits that change while the parts run: the scraper's and the write budget."""

from __future__ import annotations

import asyncio
import time

import pytest

from autoscaler.cluster.pacing import WriteBudget
from autoscaler.model.signal import SignalSpec
from autoscaler.model.workload import Engine, WorkloadKey
from autoscaler.signals.scraper import PodScraper
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests import virtual_time
from tests.signals.pods import Misbehaviour, Pod, until

KEY = WorkloadKey("ml", "llama")


async def test_pods_do_not_wait_for_the_end_of_a_longer_period() -> None:
    pod = Pod("127.0.0.31")
    port = await pod.start()
    signals = (SignalSpec("concurrency", 10, 7),)
    target = ScrapeTarget(port, "/metrics", Engine.VLLM, signals, (PodAddress("p", "u", pod.ip),))
    scraper = PodScraper(time.time, period_s=60.0, timeout_s=60.0)
    scraper.set_targets({KEY: target})
    running = asyncio.create_task(scraper.run())
    await until(lambda: pod.requests == 1)
    await asyncio.sleep(0.2)
    scraper.set_limits(0.1, 0.2, 1024, 1000)
    await until(lambda: pod.requests >= 4)
    pod.page = b"x" * 2048
    await until(lambda: scraper.pages_total["too large"] > 0)
    pod.misbehaviour = Misbehaviour.HANG
    await until(lambda: scraper.pages_total["time-out"] > 0)
    running.cancel()
    await asyncio.wait({running})
    await pod.stop()


def test_limits_out_of_range_change_nothing() -> None:
    scraper = PodScraper(time.time)
    with pytest.raises(ValueError, match="above 0"):
        scraper.set_limits(5.0, 0.0, 1024, 1000)
    assert scraper.period_s == 1.0


def test_the_budget_holds_from_its_change_on_and_waits_are_counted() -> None:
    async def main() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        budget = WriteBudget(10.0)

        async def takes(writes: int) -> float:
            started = loop.time()
            for _ in range(writes):
                await budget.turn()
            return loop.time() - started

        await asyncio.sleep(100)
        await takes(10)  # the burst
        before, waited = await takes(20), budget.waited_s_total
        budget.set(100.0)
        return before, await takes(20), waited

    before, after, waited = virtual_time.run(main())
    assert before == pytest.approx(2.0)
    assert after == pytest.approx(0.2)
    assert waited == pytest.approx(2.0)
