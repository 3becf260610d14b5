"""The composition root: the one place where settings, rooms and loops meet."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import structlog
from aiohttp import web

from autoscaler.api.board import Board, Totals
from autoscaler.api.server import application
from autoscaler.cluster.client import KubernetesClient, connect
from autoscaler.cluster.events import EventWriter
from autoscaler.cluster.inferenceworkload import Spec
from autoscaler.cluster.pacing import PacedApi
from autoscaler.cluster.store import Store
from autoscaler.controller.cycle import Cycle
from autoscaler.controller.loop import Loop
from autoscaler.controller.specs import DEFAULT_POOL, Operator
from autoscaler.model.resources import ResourceVector
from autoscaler.model.workload import KpaParameters
from autoscaler.scaling.allocation import Domain
from autoscaler.settings.config import Config
from autoscaler.settings.load import LoadedConfig
from autoscaler.signals.activation import ActivationPages
from autoscaler.signals.scraper import PodScraper

STOP_WITHIN_S: Final = 5.0
OPEN_FILES: Final = 65_536
STATUS_SHARE: Final = 0.5  # of a tick's write budget; the rest is for counts, records and events

log = structlog.get_logger()


def operator_of(config: Config) -> Operator:
    """The configuration as the controller reads it: seconds, ratios, thousandths."""
    defaults = config.defaults.model_dump(mode="json", by_alias=True, exclude_none=True)
    limits: dict[Domain, ResourceVector] = {
        (name, DEFAULT_POOL): dict(project.quota.limits.default) for name, project in config.projects.items()
    }
    return Operator(
        defaults=msgspec.convert(defaults, Spec),
        kpa=KpaParameters(
            stable_window_s=config.kpa.stable_window,
            panic_window_percent=config.kpa.panic_window_percentage,
            panic_threshold_ratio=config.kpa.panic_threshold_percentage / 100,
            max_scale_up_rate=config.kpa.max_scale_up_rate,
            max_scale_down_rate=config.kpa.max_scale_down_rate,
        ),
        projects={namespace: name for name, project in config.projects.items() for namespace in project.namespaces},
        limits=limits,
        pages=frozenset(config.activation_pages),
        ceiling_replicas=config.ceilings.max_replicas,
    )


async def run(loaded: LoadedConfig, kubeconfig: Path | None) -> None:
    """Runs until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    _raise_open_files()
    client = await connect(kubeconfig)
    log.info("daemon.started", version=version("tidegate"), api=client.host, config=loaded.sha256[:12])
    try:
        root = asyncio.create_task(_run_parts(client, loaded))
        waiter = asyncio.create_task(stopped.wait())
        await asyncio.wait({root, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if root.done():
            root.result()  # a part died: that is fatal, and its error is the reason
        root.cancel()
        await asyncio.wait({root}, timeout=STOP_WITHIN_S)
    finally:
        await client.close()
        log.info("daemon.stopped")


def _raise_open_files() -> None:
    """A thousand pods are a thousand kept connections; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, OPEN_FILES) if hard > 0 else OPEN_FILES, hard))


async def _run_parts(client: KubernetesClient, loaded: LoadedConfig) -> None:
    config = loaded.config
    api = PacedApi(client, config.writes.budget_per_second)
    poked = asyncio.Event()
    store = Store(api, config.watch.namespaces, poked.set)
    scraper = PodScraper(
        time.time,
        period_s=config.scrape.period,
        timeout_s=config.scrape.timeout,
        max_page_bytes=config.scrape.max_page_size,
        concurrency=config.scrape.concurrency,
        pages_per_s=config.scrape.pages_per_second,
    )
    pages = ActivationPages({name: page.url for name, page in config.activation_pages.items()}, time.time)
    events = EventWriter(api, os.environ.get("POD_NAME") or socket.gethostname())
    status_writes = max(1, int(config.writes.budget_per_second * config.tick * STATUS_SHARE))
    cycle = Cycle(api, store, scraper, pages, events, operator_of(config), time.time, status_writes)
    board = Board(
        tick_s=config.tick,
        clock=time.monotonic,
        synced=lambda: store.synced,
        totals=lambda: Totals(
            client.requests,
            client.host,
            scraper.pages_total,
            scraper.scrape_seconds_total,
            scraper.effective_period_s,
            events.dropped,
        ),
        version=version("tidegate"),
    )
    loop = Loop(cycle, config.tick, poked, lambda: store.synced, board.take)
    async with asyncio.TaskGroup() as group:
        group.create_task(_serve(board, config.api.bind, config.api.port))
        for part in (store.run, scraper.run, pages.run, events.run, loop.run):
            group.create_task(part())


async def _serve(board: Board, bind: str, port: int) -> None:
    runner = web.AppRunner(application(board), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, bind, port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
