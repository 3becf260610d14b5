"""The past as a real Prometheus kept it, beside the same seconds seen live: the same windows and the same answers.

Prometheus is real, and so is the way from it to the policy; the pages are imitations, and no daemon runs.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from autoscaler.controller.recall import Kept, Recall
from autoscaler.model.signal import SignalSpec
from autoscaler.model.workload import Engine, KpaParameters, ScalingSpec, WorkloadKey
from autoscaler.scaling.policy import PolicyState, ask
from autoscaler.signals.aggregates import Labels
from autoscaler.signals.prometheus import Access
from autoscaler.signals.prometheus_pods import PrometheusPods
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.realcluster.cluster import Cluster
from tests.realcluster.prometheus import Prometheus
from tests.signals.engine_pages import Load, vllm

KEY = WorkloadKey("ml", "llama")
PODS = tuple(f"llama-1a2b3c4d-7c9d8f6b5-{end}" for end in ("x8k2p", "b4c6d", "zz2zz"))
SIGNALS = (SignalSpec("concurrency", 10, 7), SignalSpec("throughput", 10, 7), SignalSpec("latency", 4.0, 2.0))
WINDOW_S = 10
SCALING = ScalingSpec(1, 50, 1, 1, SIGNALS[0], further_signals=SIGNALS[1:], kpa=KpaParameters(stable_window_s=WINDOW_S))


def target(pods: int) -> ScrapeTarget:
    addresses = tuple(PodAddress(name, name, "127.0.0.1", "2020-01-01T00:00:00Z") for name in PODS[:pods])
    return ScrapeTarget(8000, "/metrics", Engine.AUTO, SIGNALS, addresses)


@dataclass
class Servers:
    """Three pages with a load that moves, and the list of those that Prometheus finds."""

    ports: tuple[int, ...]
    found: Path

    def show(self, pods: int) -> None:
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "ml", "pod": name}}
            for port, name in zip(self.ports[:pods], PODS, strict=False)
        ]
        new = self.found.with_suffix(".new")
        new.write_text(json.dumps(targets))
        new.rename(self.found)


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Servers]:
    begun = time.time()

    async def page(_: web.Request) -> web.Response:
        passed = time.time() - begun
        return web.Response(text=vllm(Load(8 + 5 * math.sin(passed / 7), 2, round(3 * passed))))

    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    for _ in PODS:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Servers(tuple(address[1] for address in runner.addresses), tmp_path / "found.json")
    await runner.cleanup()


async def test_the_past_gives_the_windows_and_answers_that_were_had_live(
    cluster: Cluster, namespace: str, tmp_path: Path, pages: Servers
) -> None:
    pages.show(3)
    job = {"job_name": "static", "file_sd_configs": [{"files": [str(pages.found)], "refresh_interval": "1s"}]}
    with Prometheus(cluster, namespace, tmp_path / "prometheus", more_jobs=[job]) as prometheus:
        access = Access(prometheus.url, timeout_s=5.0)
        live = PrometheusPods(time.time, access, Labels(), 1.0)
        live.set_targets({KEY: target(3)})
        running = asyncio.create_task(live.run())
        states: dict[str, PolicyState] = {}
        ready = 3
        for second in range(5 * WINDOW_S):
            if second == 4 * WINDOW_S:  # one goes, and carried load in the window
                ready = 2
                pages.show(2)
                live.set_targets({KEY: target(2)})
            await asyncio.sleep(1)
            now = time.time()
            seen = live.readings(now)[KEY]
            for signal in SIGNALS:
                states[signal.name], _ = ask(SCALING, signal, states.get(signal.name), seen, ready, now)
        recall = Recall(time.time, kept := Kept(access, Labels(), 1.0))
        found = await recall._within_time({KEY: (target(2), SCALING)}, kept)
        assert found is not None
        recalled = found[KEY]
        now = time.time()
        seen = live.readings(now)[KEY]
        running.cancel()
    for signal, past in zip(SIGNALS, recalled, strict=True):
        _, by_live = ask(SCALING, signal, states[signal.name], seen, ready, now)
        state, by_past = ask(SCALING, signal, past, seen, ready, now)
        print(signal.name, by_live.read.stable, by_past.read.stable, by_live.read.desired, by_past.read.desired)
        assert by_past.read.stable == pytest.approx(by_live.read.stable, rel=0.1)  # a scrape earlier or later
        assert abs((by_past.read.desired or 0) - (by_live.read.desired or 0)) <= 1
        assert state.trusted_since is not None
        assert now - state.trusted_since >= WINDOW_S, "whole for a stable window, so that it may lower"
