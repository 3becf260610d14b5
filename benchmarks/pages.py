"""What reading metrics pages costs: 1,000 a second through the daemon's own path, beside the general parser.

Every 3 s the page of each of 3,000 pods (1,000 workloads) is fetched over HTTP on loopback, scanned, entered into the
pod's history and sampled; every 2 s the readings of all workloads are asked for, as a cycle does. The servers are a
process of their own, so CPU and memory are the scraper's alone. Pages are imitated (tests/realcluster/modelserver_page:
vLLM's families, of full size); a new one each second, with counters and histograms that grow. The general parser gets
the same pages from the same servers through the same client.

Prints lines `figure value unit`; takes about 1 min. The load average says what else the machine did.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import multiprocessing
import os
import pstats
import resource
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from autoscaler.daemon import SEARCH_EVERY
from autoscaler.model.signal import Quality, SignalSpec
from autoscaler.model.workload import Engine, TargetKey, WorkloadKey
from autoscaler.signals.fetch import PageFetcher
from autoscaler.signals.pages import plan_for, read_page
from autoscaler.signals.scraper import PodScraper
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.realcluster.load import Offer, OfferedWorkload
from tests.realcluster.modelserver_page import vllm_page

PODS_EACH: Final = 3
PERIOD_S: Final = 3.0
TICK_S: Final = 2.0
PORT: Final = 18_099
GENERATIONS: Final = 64  # of the page; after as many seconds the counters begin anew
CORES_BAR: Final = 0.5
SIGNALS: Final = {
    "concurrency": (SignalSpec("concurrency", 10, 7),),
    "p99 latency": (SignalSpec("latency", 10, 5),),
    "three signals": (
        SignalSpec("concurrency", 10, 7),
        SignalSpec("latency", 10, 5),
        SignalSpec("kv-cache", 0.8, 0.72),
    ),
}
HEAD: Final = (
    "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 20:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: {}\r\n"
    "content-type: text/plain; version=0.0.4; charset=utf-8\r\n\r\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=int, default=1000, metavar="N", help="of 3 pods each (1000)")
    parser.add_argument("--seconds", type=float, default=9.0, metavar="S", help="measured, for each choice of signals")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, about twice as slow")
    options = parser.parse_args()
    pages = made_pages()
    show("page size", len(pages[-1]) / 1024, "KiB")
    show("workloads", options.workloads, "count")
    show("pods", options.workloads * PODS_EACH, "count")
    reading_alone(pages[-1])
    spawn = multiprocessing.get_context("spawn")
    parent, child = multiprocessing.Pipe()
    servers = spawn.Process(target=serve, args=(child,), daemon=True)
    servers.start()
    child.close()  # so that servers that die are an end of file here
    parent.recv()
    try:
        for what in SIGNALS:  # each in a process of its own: memory that another one gave back would hide what it takes
            one = spawn.Process(target=scrape, args=(what, options.workloads, options.seconds, options.profile))
            one.start()
            one.join()
        asyncio.run(general_parser(options.seconds))
    finally:
        servers.kill()
        servers.join()


def made_pages() -> list[bytes]:
    """The page of one server in each of so many seconds: 8 requests a second, each of 2 s."""
    load = OfferedWorkload(0.0)
    load.set_replicas({"pod"}, {"pod"}, 0.0)
    load.set_offer(Offer(rps=8, slots=32, service_time_s=2.0), 0.0)
    pages = []
    for second in range(1, GENERATIONS + 1):
        load.advance(float(second))
        pages.append(vllm_page(load.replicas["pod"], float(second), "meta-llama/Llama-3.1-8B-Instruct"))
    return pages


def reading_alone(page: bytes) -> None:
    """Without a network: the best of five rounds, since other processes only ever make it slower."""
    text = page.decode()
    parser_us = per_call_us(lambda: list(text_string_to_metric_families(text)), 1.0)
    show("general parser, no network, a page", parser_us, "us CPU")
    for what, specs in SIGNALS.items():
        plan = plan_for(Engine.VLLM, tuple(spec.name for spec in specs))
        took_us = per_call_us(lambda plan=plan: read_page(page, plan, 0.0), 0.5)  # type: ignore[misc]
        show(f"scanner, no network, a page, {what}", took_us, "us CPU")


def scrape(what: str, workloads: int, seconds: float, profile: bool) -> None:
    """With the daemon's own settings of the process."""
    allow_open_files()
    gc.set_threshold(*SEARCH_EVERY)
    asyncio.run(scraped(what, workloads, seconds, profile))


async def scraped(what: str, workloads: int, seconds: float, profile: bool) -> None:
    """The scraper's own work with everything that a cycle asks of it."""
    gc.collect()
    before_mib = rss_mib()
    scraper = PodScraper(time.time, period_s=PERIOD_S)
    targets: dict[TargetKey, ScrapeTarget] = {
        WorkloadKey("bench", f"w{number:04}"): target(number, SIGNALS[what]) for number in range(workloads)
    }
    scraper.set_targets(targets)
    running = asyncio.create_task(scraper.run())
    await tick(scraper, targets, 2 * PERIOD_S)  # connections are made, rates known
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    pages, cpu_s, began = scraper.pages_total["ok"], time.process_time(), time.monotonic()
    await tick(scraper, targets, seconds)
    pages, cpu_s, took_s = scraper.pages_total["ok"] - pages, time.process_time() - cpu_s, time.monotonic() - began
    profiler.disable()
    show(f"pages, {what}", pages / took_s, "1/s")
    show(f"pages that failed, {what}", scraper.pages_total.total() - scraper.pages_total["ok"], "count", bar=0)
    show(f"readings not fresh, {what}", not_fresh(scraper), "count", bar=0)
    show(f"CPU a page, all included, {what}", 1e6 * cpu_s / pages, "us CPU")
    show(f"CPU at 1,000 pages a second, {what}", 1000 * cpu_s / pages, "cores", bar=CORES_BAR)
    show(f"memory of all pods and connections, {what}", rss_mib() - before_mib, "MiB")
    show(f"load average, {what}", os.getloadavg()[0], "count")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


async def tick(scraper: PodScraper, targets: dict[TargetKey, ScrapeTarget], seconds: float) -> None:
    """Asks as the cycle does, for so long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        scraper.readings(time.time())
        scraper.set_targets(targets)
        await asyncio.sleep(min(TICK_S, left))


def not_fresh(scraper: PodScraper) -> int:
    found = scraper.readings(time.time()).values()
    readings = [each for signals in found for each in (*signals.readings.values(), signals.activity)]
    return sum(1 for each in readings if each.quality is not Quality.FRESH)


async def general_parser(seconds: float) -> None:
    """Fetches and parses one page after the other, as many as it can."""
    fetcher = PageFetcher(5.0, 4 * 1024 * 1024)
    pages, cpu_s, end = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        page = await fetcher.get(URL(f"http://{address(pages % 100)}:{PORT}/metrics"))
        assert isinstance(page, bytes)
        list(text_string_to_metric_families(page.decode()))
        pages += 1
    cpu_s = time.process_time() - cpu_s
    await fetcher.close()
    show("CPU a page, general parser", 1e6 * cpu_s / pages, "us CPU")
    show("CPU at 1,000 pages a second, general parser", 1000 * cpu_s / pages, "cores")
    show("load average, general parser", os.getloadavg()[0], "count")


def target(number: int, signals: Sequence[SignalSpec]) -> ScrapeTarget:
    pods = range(number * PODS_EACH, (number + 1) * PODS_EACH)
    addresses = tuple(PodAddress(f"w{number:04}-{pod}", f"uid-{pod}", address(pod)) for pod in pods)
    return ScrapeTarget(PORT, "/metrics", Engine.AUTO, tuple(signals), addresses)


def address(number: int) -> str:
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def allow_open_files() -> None:
    """A connection per pod: 1,024, the usual soft limit, is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))


def serve(ready: Connection) -> None:
    """One socket on all loopback addresses answers for every pod, whatever it is asked."""
    allow_open_files()
    answers = [HEAD.format(len(page)).encode() + page for page in made_pages()]

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self._transport = transport

        def data_received(self, _: bytes) -> None:
            self._transport.write(answers[int(time.time()) % GENERATIONS])

    async def listen() -> None:
        await asyncio.get_running_loop().create_server(Server, "0.0.0.0", PORT, backlog=4096)
        ready.send("ready")
        await asyncio.Event().wait()

    asyncio.run(listen())


def per_call_us(call: Callable[[], object], about_s: float) -> float:
    """CPU microseconds of a call, the best mean of five rounds."""
    began = time.process_time()
    call()
    calls = max(1, int(about_s / 5 / max(time.process_time() - began, 1e-7)))
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(calls):
            call()
        rounds.append((time.process_time() - began) / calls)
    return 1e6 * min(rounds)


def rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def show(figure: str, value: float, unit: str, bar: float | None = None) -> None:
    judged = "" if bar is None else f"  (bar {bar:g}: {'met' if value <= bar else 'MISSED'})"
    print(f"{figure:55} {value:10.4g} {unit}{judged}", flush=True)


if __name__ == "__main__":
    main()
