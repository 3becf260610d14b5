"""The pages of every engine, scraped by a real Prometheus: our queries say of them what we read from the pages."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from autoscaler.signals.aggregates import Labels, PodName, Shown, by_quantity, expression, shown_by_pod
from autoscaler.signals.engines import NEEDS, Source, recognise
from autoscaler.signals.pages import PageValues, Plan, plan_for, read_page
from autoscaler.signals.prometheus import Access, Answer, PrometheusClient
from tests.realcluster.cluster import Cluster
from tests.realcluster.prometheus import Prometheus
from tests.signals.engine_pages import PAGES, Load, sglang

NAMESPACE = "engines"
TORN = sglang(Load(running=4, finished=90), tp=2).replace("} 4.0", "} 3.0", 1)  # one rank has not written yet
SHOWN = {name: page(Load(finished=90)) for name, page in PAGES.items()} | {"torn": TORN}
SIGNALS = tuple(NEEDS)


@pytest.fixture
async def scraping(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Prometheus]:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=list(SHOWN.values())[int(request.match_info["number"])], content_type="text/plain")

    app = web.Application()
    app.router.add_get("/{number}", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    at = f"127.0.0.1:{runner.addresses[0][1]}"
    targets = [
        {
            "targets": [at],
            "labels": {"namespace": NAMESPACE, "pod": name, "__metrics_path__": f"/{list(SHOWN).index(name)}"},
        }
        for name in SHOWN
    ]
    job = {"job_name": "engines", "static_configs": targets}
    prometheus = Prometheus(cluster, namespace, tmp_path / "prometheus", more_jobs=[job])
    await asyncio.to_thread(prometheus.start)
    yield prometheus
    await asyncio.to_thread(prometheus.kill)
    await runner.cleanup()


async def test_every_engine_says_the_same_by_prometheus_as_on_its_page(scraping: Prometheus) -> None:
    plans = {name: _plan(page) for name, page in SHOWN.items()}
    client = PrometheusClient(Access(scraping.url))
    try:
        told = await _told(client, plans)
    finally:
        await client.close()
    checked = 0
    for name, plan in plans.items():
        page = read_page(SHOWN[name].encode(), plan, 0.0)
        for source in plan.sources:
            shown = told[source].get((NAMESPACE, name))
            if source.key in page.faults:
                assert shown is None, (name, source.key, shown)
                continue
            assert shown is not None, (name, source.key)
            _same(page, shown, source, name)
            checked += 1
    assert checked > 5 * len(SHOWN), "most engines show most quantities"


def _plan(page: str) -> Plan:
    engine = recognise(page.encode())
    assert engine is not None
    return plan_for(engine, SIGNALS)


async def _told(client: PrometheusClient, plans: Mapping[str, Plan]) -> dict[Source, dict[PodName, Shown]]:
    """Once all of them are scraped."""
    end = time.monotonic() + 30
    groups = by_quantity([source for plan in plans.values() for source in plan.sources])
    while True:
        found: dict[Source, dict[PodName, Shown]] = {}
        for sources in groups:
            answer = await client.query(expression(sources, Labels()))
            assert isinstance(answer, Answer), answer
            found |= shown_by_pod(sources, Labels(), answer)
        seen = {pod for pods in found.values() for _, pod in pods}
        if seen == plans.keys():
            return found
        assert time.monotonic() < end, plans.keys() - seen
        await asyncio.sleep(0.5)


def _same(page: PageValues, shown: Shown, source: Source, name: str) -> None:
    assert shown.fault is None, (name, source.key, shown)
    assert shown.sampled_at_s is not None
    if source.key in page.gauges:
        assert shown.value == pytest.approx(page.gauges[source.key]), (name, source.key)
    elif source.key in page.counters:
        assert shown.value == pytest.approx(math.fsum(page.counters[source.key].values())), (name, source.key)
    else:
        assert shown.buckets == pytest.approx(page.buckets[source.key]), (name, source.key)
