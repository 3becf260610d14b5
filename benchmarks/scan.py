"""What reading metrics pages costs: the scanner beside the general parser, and whole scrapes of pods on loopback.

Prints lines `figure value unit`. Takes about 15 s; the servers run in a process of their own, so that CPU
figures are the scraper's alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from autoscaler.model.signal import SignalSpec
from autoscaler.model.workload import Engine, WorkloadKey
from autoscaler.signals.pages import plan_for, read_page
from autoscaler.signals.scanner import scan
from autoscaler.signals.scraper import PodScraper
from autoscaler.signals.targets import PodAddress, ScrapeTarget

PAGE: Final = Path(__file__).parents[1] / "tests" / "data" / "pages" / "vllm-synthetic.txt"
NAMES: Final = (
    b"vllm:num_requests_running",
    b"vllm:num_requests_waiting",
    b"vllm:request_success_total",
    b"vllm:kv_cache_usage_perc",
    b"vllm:generation_tokens_total",
)
PODS: Final = 1_000
PORT: Final = 18_099
SCRAPE_S: Final = 4.0


def main() -> None:
    allow_open_files()
    page = PAGE.read_bytes()
    show("page size", len(page) / 1024, "KiB")
    scanner_us = per_call_us(lambda: scan(page, NAMES), 0.5)
    parser_us = per_call_us(lambda: list(text_string_to_metric_families(page.decode())), 1.0)
    show("scanner, 5 series, per page", scanner_us, "us")
    show("general parser, per page", parser_us, "us")
    show("general parser / scanner", parser_us / scanner_us, "times")
    for signal in ("concurrency", "latency"):
        plan = plan_for(Engine.VLLM, (signal,))
        took_us = per_call_us(lambda plan=plan: read_page(page, plan, 0.0), 0.5)  # type: ignore[misc]
        show(f"reading a page for {signal} and activity", took_us, "us")
        show(f"pages for {signal} that one core reads", 1e6 / took_us, "1/s")
    scrape_loopback(page)


def scrape_loopback(page: bytes) -> None:
    """Scrape PODS servers once a second, for one signal and for another, and report the scraper's CPU."""
    parent, child = multiprocessing.Pipe()
    servers = multiprocessing.get_context("spawn").Process(target=serve, args=(child, page), daemon=True)
    servers.start()
    parent.recv()
    try:
        for signal in ("concurrency", "latency"):
            pages, cpu_s, readings_ms = asyncio.run(scrape(signal))
            show(f"pages in {SCRAPE_S:g} s of {PODS} pods once a second, {signal}", pages, "pages")
            show(f"scraper's CPU per page, all included, {signal}", 1e6 * cpu_s / pages, "us")
            show(f"readings of one workload with these pods, {signal}", readings_ms, "ms")
    finally:
        servers.kill()
        servers.join()


async def scrape(signal: str) -> tuple[int, float, float]:
    """(pages read, CPU seconds, milliseconds for one call of `readings`)."""
    pods = tuple(PodAddress(f"p{n}", f"u{n}", address(n)) for n in range(PODS))
    signals = (SignalSpec(signal, 10, 7),)
    scraper = PodScraper(time.time)
    scraper.set_targets({WorkloadKey("ns", "w"): ScrapeTarget(PORT, "/metrics", Engine.AUTO, signals, pods)})
    running = asyncio.create_task(scraper.run())
    await asyncio.sleep(1.5)  # connections are made
    pages, cpu_s = scraper.pages_total["ok"], time.process_time()
    await asyncio.sleep(SCRAPE_S)
    pages, cpu_s = scraper.pages_total["ok"] - pages, time.process_time() - cpu_s
    readings_us = per_call_us(lambda: scraper.readings(time.time()), 0.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return pages, cpu_s, readings_us / 1000


def allow_open_files() -> None:
    """A connection per pod: 1,024, the usual soft limit, is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))


def serve(ready: Connection, page: bytes) -> None:
    """One server per pod, each at an address of its own; answers everything with the page."""
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(page)}\r\n\r\n".encode() + page

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, _: bytes) -> None:
            assert isinstance(self.transport, asyncio.WriteTransport)
            self.transport.write(answer)

    async def listen() -> None:
        loop = asyncio.get_running_loop()
        for number in range(PODS):
            await loop.create_server(Server, address(number), PORT)
        ready.send("ready")
        await asyncio.Event().wait()

    asyncio.run(listen())


def address(number: int) -> str:
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def per_call_us(call: Callable[[], object], about_s: float) -> float:
    """The best mean of five rounds, in microseconds: other processes only ever make it slower."""
    began = time.perf_counter()
    call()
    calls = max(1, int(about_s / 5 / max(time.perf_counter() - began, 1e-7)))
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - began) / calls)
    return 1e6 * min(rounds)


def show(figure: str, value: float, unit: str) -> None:
    print(f"{figure} {value:.3g} {unit}" if value < 1000 else f"{figure} {value:.0f} {unit}", flush=True)


if __name__ == "__main__":
    main()
