"""The composition root: the one place where settings, rooms and loops meet, and where the daemon begins and ends."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from autoscaler.api.board import Board, Bounds, Configuration, Leader, Totals
from autoscaler.api.server import application
from autoscaler.clock import SteadyClock
from autoscaler.cluster.client import KubernetesClient, connect
from autoscaler.cluster.errors import ApiError
from autoscaler.cluster.events import QUEUE_MOST, EventWriter
from autoscaler.cluster.fencing import FencedApi, Tenure, epoch_of
from autoscaler.cluster.lease import Election
from autoscaler.cluster.pacing import WriteBudget
from autoscaler.cluster.status import record_of
from autoscaler.cluster.store import Store
from autoscaler.controller.cycle import Cycle
from autoscaler.controller.loop import Loop
from autoscaler.controller.recall import Recall
from autoscaler.controller.specs import Operator
from autoscaler.controller.sweeping import Sweep
from autoscaler.reload import Refused, Reload
from autoscaler.settings.config import Config, Source
from autoscaler.settings.load import ConfigError, LoadedConfig, load
from autoscaler.signals.activation import ActivationPages
from autoscaler.signals.prometheus import Access
from autoscaler.signals.prometheus_pods import PrometheusPods
from autoscaler.signals.query_poller import QueryPoller
from autoscaler.signals.scraper import PodScraper
from autoscaler.signals.sources import SignalSources
from autoscaler.signals.warmups import WarmUps
from autoscaler.wiring import (
    access_of,
    gpu_interval_s,
    gpu_labels_of,
    kept_of,
    labels_of,
    operator_of,
    page_urls,
    queries_of,
    scrape_limits,
    statuses_per_cycle,
    terms_of,
    waits_for_restart,
)

OK: Final = 0
FAILED: Final = 1
STOP_WITHIN_S: Final = 4.5  # 5 for whoever looks from outside: a process takes a moment to go
LAST_CYCLE_WITHIN_S: Final = 2.5  # of those; then it is cancelled, which is as safe as a crash
LAST_EVENTS_WITHIN_S: Final = 1.0  # of those; what is not written by then is lost
RESIGN_WITHIN_S: Final = 0.5  # of those; else the others wait until the Lease runs out
LAST_PAGES_WITHIN_S: Final = 0.5  # of those, for answers to whoever reads our pages
SEARCH_EVERY: Final = (50_000, 20, 20)  # new containers; then every so many searches, an older generation
OPEN_FILES: Final = 65_536
NOWHERE: Final = Access("")  # where the configuration names no Prometheus: nobody is asked
log = structlog.get_logger()


class Failed(Exception):
    """The daemon cannot go on for a reason that a person can mend; the message says which."""


class Died(Exception):
    """A part ended of itself: a bug."""

    def __init__(self, name: str, cause: Exception) -> None:
        super().__init__(f"the part {name} died")
        self.name = name
        self.cause = cause


def highest_epoch(store: Store) -> int:
    """Of all objects that carry one; 0 where none does."""
    there = (each for kind in store.scalables.values() for each in kind.every())
    stamps = [epoch_of(each.metadata) or 0 for each in there]
    return max([0, *stamps, *(record_of(each).epoch or 0 for each in store.workloads.every())])


async def run(loaded: LoadedConfig, path: Path, kubeconfig: Path | None) -> int:
    """Runs until SIGTERM or SIGINT, following changes of the configuration at `path`. Returns the exit status.

    Whatever else ends it is the last line of the log.
    """
    stopped = stopped_by_signal()
    _raise_open_files()
    _spare_the_search_for_cycles()
    try:
        await _run(loaded, path, kubeconfig, stopped)
    except Exception as error:
        _leave_at_latest(FAILED)
        _tell(_first(error))
        return FAILED
    log.info("daemon.stopped")
    return OK


def _tell(error: Exception) -> None:
    if isinstance(error, Failed):
        log.error("daemon.failed", error=str(error))
        return
    part = error.name if isinstance(error, Died) else None
    cause = _first(error.cause) if isinstance(error, Died) else error
    log.error("daemon.failed", part=part, error=f"{type(cause).__name__}: {cause}", exc_info=cause)


def _first(error: Exception) -> Exception:
    """The first error of a group is the reason; the others follow from it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def stopped_by_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once, whatever it does."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        _leave_at_latest(OK)
        stopped.set()

    for number in numbers:
        loop.add_signal_handler(number, stop)
    return stopped


def _leave_at_latest(status: int) -> None:
    """Ends the process when its time is up: a look-up of a name, for example, runs in a thread that nothing cancels."""
    timer = threading.Timer(STOP_WITHIN_S, os._exit, (status,))
    timer.daemon = True
    timer.start()


def _raise_open_files() -> None:
    """A thousand pods are a thousand kept connections; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, OPEN_FILES) if hard > 0 else OPEN_FILES, hard))


def _spare_the_search_for_cycles() -> None:
    """What is imported is not searched again: beside 10,000 pods the loop stands still for 50 ms, not 110.

    A cycle makes frozen values that die with the next one; searched every 700, a fifth of its CPU went into that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SEARCH_EVERY)


async def _run(loaded: LoadedConfig, path: Path, kubeconfig: Path | None, stopped: asyncio.Event) -> None:
    client = await _connect(kubeconfig)
    try:
        daemon = Daemon(client, loaded, path)
        async with _served(daemon.board, loaded.config.api.bind, loaded.config.api.port):
            log.info("daemon.started", version=version("tidegate"), api=client.host, config=loaded.sha256[:12])
            await daemon.run(stopped)
    finally:
        await client.close()


async def _connect(kubeconfig: Path | None) -> KubernetesClient:
    try:
        return await connect(kubeconfig)
    except Exception as error:  # of many libraries: files, YAML, certificates, commands of the kubeconfig
        where = "without --kubeconfig, the ServiceAccount of a pod is used" if kubeconfig is None else str(kubeconfig)
        raise Failed(f"no access to a cluster: {type(error).__name__}: {error} ({where})") from error


@asynccontextmanager
async def _served(board: Board, bind: str, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(application(board), access_log=None, shutdown_timeout=LAST_PAGES_WITHIN_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, bind, port).start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise Failed(f"cannot listen on {bind} port {port} (keys api.bind, api.port): {why}") from error
        yield
    finally:
        await runner.cleanup()


class Daemon:
    """All parts, made from one configuration and changed by the next."""

    def __init__(self, client: KubernetesClient, loaded: LoadedConfig, path: Path) -> None:
        config = self._started_with = loaded.config
        self._path = path
        self._client = client
        self._clock = clock = SteadyClock()
        self._budget = WriteBudget(config.writes.budget_per_second)
        poked = asyncio.Event()
        self._store = store = Store(client, config.watch.namespaces, poked.set)
        terms = terms_of(config.leader_election, os.environ)
        self._election = Election(
            client, terms, lambda: store.synced, lambda: highest_epoch(store), poked.set, outages=store.outages
        )
        self._signals = _signals_of(config, clock.now)
        self._gpus = _gpus_of(config, clock.now)
        self._queries = QueryPoller(clock.now, access_of(config.prometheus) or NOWHERE, queries_of(config))
        self._pages = ActivationPages(page_urls(config), clock.now)
        self._counters = _counters_of(config, clock.now, self._signals)
        self._sources = SignalSources(self._signals, self._gpus, self._queries, self._pages, self._counters)
        self._sources.has_prometheus = config.prometheus.url is not None
        self._events = EventWriter(self._fenced(), terms.identity)
        operator, statuses = operator_of(config), statuses_per_cycle(config)
        self._recall = Recall(clock.now, kept_of(config))
        self._warm_ups = WarmUps(clock.now)
        self._cycle = Cycle(
            self._tenure,
            store,
            self._sources,
            self._sources,
            self._events,
            operator,
            clock.now,
            statuses,
            self._recall,
            self._election.terms.namespace,
            self._warm_ups,
        )
        self._sweep = Sweep(self._tenure, store, lambda: self._cycle.seen)
        self.board = Board(
            config.tick, time.monotonic, lambda: store.synced, self._leader, self._totals, version("tidegate")
        )
        self._loop = Loop(
            self._cycle,
            config.tick,
            poked,
            lambda: store.synced,
            lambda: self._election.standing_by,
            self.board,
        )
        running = Configuration(loaded.sha256, time.time())
        self._reload = Reload(path, self._read, self._change, self.board.show, running, time.time)

    async def run(self, stopped: asyncio.Event) -> None:
        """Runs all parts until `stopped`. The death of one ends all, and is raised in a group."""
        async with asyncio.TaskGroup() as group:
            parts = self._parts()
            tasks = [group.create_task(_named(name, part)) for name, part in parts.items()]
            loop = group.create_task(_named("loop", self._loop.run, ends=stopped.is_set))
            await stopped.wait()
            await self._finish(loop)
            for task in tasks:
                task.cancel()

    def _parts(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs beside the loop, by name."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "store": self._store.run,
            "election": self._election.run,
            "signals": self._signals.run,
            "gpus": self._gpus.run,
            "queries": self._queries.run,
            "pages": self._pages.run,
            "warm-ups": self._warm_ups.run,
            "recall": self._recall.run,
            "events": self._events.run,
            "sweep": self._sweep.run,
            "reload": self._reload.run,
        }
        if self._counters is not None:
            parts["counters"] = self._counters.run
        return parts

    async def _finish(self, loop: asyncio.Task[None]) -> None:
        """Nothing new is decided; what is under way may end; what was to be told is told."""
        log.info("daemon.stopping")
        self.board.stopping = True
        self._loop.stop()
        ends_at = asyncio.get_running_loop().time() + LAST_CYCLE_WITHIN_S
        await asyncio.wait({loop}, timeout=LAST_CYCLE_WITHIN_S)
        if not loop.done():
            log.warning("cycle.cancelled", after_s=LAST_CYCLE_WITHIN_S)
            loop.cancel()
        await self._cycle.finish(max(0.1, ends_at - asyncio.get_running_loop().time()))
        try:
            async with asyncio.timeout(LAST_EVENTS_WITHIN_S):
                await self._events.flush()
        except TimeoutError:
            log.warning("events.lost", queued=self._events.queued)
        try:
            async with asyncio.timeout(RESIGN_WITHIN_S):
                await self._election.resign()
        except (TimeoutError, ApiError) as error:
            log.warning("leader.lease_kept", error=str(error) or "no answer in time")

    def _read(self) -> tuple[str, LoadedConfig]:
        try:
            loaded = load(self._path, os.environ)
        except ConfigError as error:
            raise Refused(error.problems) from None
        return loaded.sha256, loaded

    async def _change(self, loaded: LoadedConfig) -> tuple[str, ...]:
        """Changes everything between two cycles, or nothing. Returns the keys that wait for a restart."""
        config = loaded.config
        operator = operator_of(config)
        await self._loop.between_cycles(lambda: self._take(config, operator))
        return waits_for_restart(self._started_with, config)

    def _take(self, config: Config, operator: Operator) -> None:
        """No `await`, so nobody sees half of it; what may raise comes first and changes all or nothing."""
        self._pages.set_pages(page_urls(config))
        _limit(self._signals, config)
        if self._counters is not None:
            _limit(self._counters, config)
        self._take_prometheus(config)
        self._recall.kept = kept_of(config)
        self._cycle.reconfigure(operator, statuses_per_cycle(config))
        self._budget.set(config.writes.budget_per_second)
        self._loop.set_tick(config.tick)
        self.board.set_tick(config.tick)
        level = structlog.make_filtering_bound_logger(config.log.level.value)
        structlog.configure(**{**structlog.get_config(), "wrapper_class": level})

    def _take_prometheus(self, config: Config) -> None:
        """For what needs one whoever reads the pods."""
        access = access_of(config.prometheus)
        self._sources.has_prometheus = access is not None
        self._queries.configure(access or NOWHERE, queries_of(config))
        self._gpus.configure(access or NOWHERE, gpu_labels_of(config.prometheus), gpu_interval_s(config.prometheus))

    def _totals(self) -> Totals:
        bounds = Bounds(
            events_queued=self._events.queued,
            events_queue_most=QUEUE_MOST,
            scrape_period_asked_s=self._signals.period_s,
            writes_per_s=self._budget.per_s,
            write_waits_s=self._budget.waited_s_total,
            steps_queued=len(self._cycle.queue),
            steps_queue_most=self._cycle.queue.most,
            steps_refused=self._cycle.queue.refused,
            step_longest_s=self._cycle.queue.longest_s(),
            watch_silent_s=max((each.last_event_age_s or 0.0 for each in self._store.copies), default=0.0),
            statuses_deferred=self._cycle.statuses_deferred,
        )
        return Totals(
            self._client.requests,
            self._client.host,
            self._signals.pages_total,
            self._signals.scrape_seconds_total,
            self._signals.effective_period_s,
            self._events.dropped,
            bounds,
            self._clock.behind_s,
            self._queries.answers_total + self._gpus.pages_total,
        )

    def _tenure(self) -> Tenure | None:
        epoch = self._election.epoch
        return None if epoch is None else Tenure(epoch, self._fenced(epoch))

    def _fenced(self, epoch: int | None = None) -> FencedApi:
        """For the writes of one tenure; None: of whichever there is."""

        def left_s() -> float:
            tenure = epoch if epoch is not None else self._election.epoch
            return 0.0 if tenure is None else self._election.left_s(tenure)

        return FencedApi(self._client, self._budget, left_s)

    def _leader(self) -> Leader:
        election = self._election
        lapsed = election.epoch is None and not election.standing_by
        return Leader(election.terms.name, election.holder, election.epoch, lapsed, self._cycle.unstamped)


def _signals_of(config: Config, clock: Callable[[], float]) -> PodScraper | PrometheusPods:
    """Who brings the readings: the scraper, or the Prometheus that scrapes instead."""
    access = access_of(config.prometheus)
    if config.signals.source is Source.PROMETHEUS and access is not None:
        return PrometheusPods(clock, access, labels_of(config.prometheus), config.prometheus.scrape_interval)
    return PodScraper(clock, **scrape_limits(config), concurrency=config.scrape.concurrency)


def _counters_of(config: Config, clock: Callable[[], float], signals: PodScraper | PrometheusPods) -> PodScraper | None:
    """Who counts the requests of pods on their own pages while they are updated; None where `signals` does."""
    if isinstance(signals, PodScraper):
        return None
    return PodScraper(clock, **scrape_limits(config), concurrency=config.scrape.concurrency)


def _gpus_of(config: Config, clock: Callable[[], float]) -> PrometheusPods:
    """Who reads the GPU signals. Without a Prometheus it is given no pods, and asks nothing."""
    access = access_of(config.prometheus) or NOWHERE
    labels, interval_s = gpu_labels_of(config.prometheus), gpu_interval_s(config.prometheus)
    return PrometheusPods(clock, access, labels, interval_s, of="GPUs")


def _limit(signals: PodScraper | PrometheusPods, config: Config) -> None:
    """Other limits while it runs. Which of the two it is stays until a restart."""
    if isinstance(signals, PodScraper):
        signals.set_limits(**scrape_limits(config))
    elif (access := access_of(config.prometheus)) is not None:
        signals.configure(access, labels_of(config.prometheus), config.prometheus.scrape_interval)


async def _named(name: str, run: Callable[[], Awaitable[None]], ends: Callable[[], bool] = lambda: False) -> None:
    """Runs a part, which must not end, not even well, but where `ends` says so."""
    try:
        await run()
        if not ends():
            raise RuntimeError("it ended, and never should")
    except Exception as error:
        raise Died(name, error) from error
