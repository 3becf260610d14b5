"""The scraper against real servers on loopback: what it asks, how it bears faults, what it says of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from yarl import URL

from autoscaler.model.signal import Quality, RequestCounts, SignalSpec, WorkloadSignals
from autoscaler.model.workload import Engine, RevisionKey, TargetKey, WorkloadKey
from autoscaler.signals.fetch import PageFetcher
from autoscaler.signals.scraper import PodScraper
from autoscaler.signals.targets import PodAddress, ScrapeTarget, page_url
from tests.signals.pods import Misbehaviour, Pod, until

KEY = WorkloadKey("ml", "llama")
PERIOD_S = 0.1
PAGE = (
    'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_waiting{engine="0"} 2\n'
    'vllm:request_success_total{engine="0",finished_reason="stop"} 7\n'
)


class Scene:
    """Some pods, a scraper that runs, and how the test looks at it."""

    def __init__(self, pods: list[Pod], port: int, scraper: PodScraper) -> None:
        self.pods = pods
        self.port = port
        self.scraper = scraper
        self.uids = {pod.ip: f"uid-{pod.ip}" for pod in pods}

    def target(self, path: str = "/metrics", signal: str = "concurrency") -> ScrapeTarget:
        addresses = tuple(PodAddress(f"p-{ip}", uid, ip) for ip, uid in self.uids.items())
        return ScrapeTarget(self.port, path, Engine.AUTO, (SignalSpec(signal, 10, 7),), addresses)

    def aim(self, **changes: str) -> None:
        self.scraper.set_targets({KEY: self.target(**changes)})

    @property
    def signals(self) -> WorkloadSignals:
        return self.scraper.readings(time.time())[KEY]

    def reason(self, signal: str = "concurrency") -> str:
        faults = self.signals.readings[signal].faults
        return faults[0].reason if faults else ""

    async def until_reason(self, reason: str, signal: str = "concurrency") -> None:
        try:
            await until(lambda: self.reason(signal) == reason)
        except TimeoutError:
            pytest.fail(f"expected {reason!r}, got {self.reason(signal)!r}")


@contextlib.asynccontextmanager
async def scene(pods: int = 1, **scraper_options: float) -> AsyncIterator[Scene]:
    """Running servers on 127.0.0.11 and up, and a scraper of them with short periods."""
    servers = [Pod(f"127.0.0.{11 + number}") for number in range(pods)]
    port = await servers[0].start()
    for server in servers[1:]:
        await server.start(port)
    for server in servers:
        server.page = PAGE.encode()
    options: dict[str, float] = {"period_s": PERIOD_S, "timeout_s": 0.3, **scraper_options}
    made = Scene(servers, port, PodScraper(time.time, **options))  # type: ignore[arg-type]
    made.aim()
    running = asyncio.create_task(made.scraper.run())
    try:
        yield made
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        for server in servers:
            await server.stop()


async def test_pages_become_a_sample_a_second() -> None:
    async with scene(pods=2) as world:
        await until(lambda: len(world.signals.readings["concurrency"].samples) >= 2)
        reading = world.signals.readings["concurrency"]
        assert (reading.value, reading.quality, reading.pods_fresh) == (10.0, Quality.FRESH, 2)
        first, second = (sample.at_s for sample in reading.samples[-2:])
        assert second - first == 1.0
        assert first == int(first)
        assert world.signals.engine == "vllm"
        assert world.scraper.pages_total["ok"] > 10


async def test_idle_pods_prove_it_with_two_pages() -> None:
    async with scene() as world:
        world.pods[0].page = PAGE.replace(" 3\n", " 0\n").replace(" 2\n", " 0\n").encode()
        await until(lambda: world.signals.activity.value == 0.0)
        assert world.signals.activity.quality is Quality.FRESH


async def test_the_request_is_modest_and_the_connection_is_kept() -> None:
    async with scene() as world:
        await until(lambda: world.pods[0].requests >= 5)
        assert "Accept-Encoding: identity" in world.pods[0].headers
        assert world.pods[0].headers.startswith("GET /metrics HTTP/1.1")
        assert 2 * world.pods[0].connections <= world.pods[0].requests  # one more where a busy machine missed a page


@pytest.mark.parametrize(
    ("misbehaviour", "reason"),
    [
        (Misbehaviour.HANG, "time-out"),
        (Misbehaviour.TRICKLE, "time-out"),
        (Misbehaviour.ENDLESS, "too large"),
        (Misbehaviour.CUT, "cut short"),
        (Misbehaviour.GARBAGE, "not text"),
        (Misbehaviour.ENDLESS_HEADER, "not text"),
    ],
)
async def test_a_pod_that_breaks_the_protocol_is_named_and_its_value_kept(
    misbehaviour: Misbehaviour, reason: str
) -> None:
    async with scene(max_page_bytes=200_000) as world:
        await until(lambda: world.signals.readings["concurrency"].quality is Quality.FRESH)
        world.pods[0].misbehaviour = misbehaviour
        await world.until_reason(reason)
        reading = world.signals.readings["concurrency"]
        assert (reading.value, reading.quality) == (5.0, Quality.STALE)
        assert world.scraper.pages_total[reason] > 0
        world.pods[0].misbehaviour = None
        await until(lambda: world.signals.readings["concurrency"].quality is Quality.FRESH)


async def test_a_redirect_is_not_followed() -> None:
    async with scene(pods=2) as world:
        world.pods[0].status = "302 Found"
        world.pods[0].extra_header = f"Location: http://{world.pods[1].ip}:{world.port}/secret\r\n"
        await world.until_reason("http 302")
        assert "/secret" not in world.pods[1].headers


async def test_a_packed_page_is_not_unpacked() -> None:
    async with scene() as world:
        world.pods[0].extra_header = "Content-Encoding: gzip\r\n"
        await world.until_reason("not text")


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("", "unknown engine"),
        (PAGE.replace("num_requests_waiting", "renamed"), "vllm: no such series: vllm:num_requests_waiting"),
        (PAGE.replace(" 3\n", " NaN\n"), "not a number"),
        (PAGE.replace(" 3\n", " -Inf\n"), "infinite"),
        (PAGE.replace(" 3\n", " -3\n"), "negative"),
        (PAGE.replace(" 3\n", " three\n"), "malformed"),
    ],
)
async def test_a_page_without_a_usable_value_is_absent_not_zero(page: str, reason: str) -> None:
    async with scene() as world:
        world.pods[0].page = page.encode()
        world.uids = {world.pods[0].ip: "another pod"}  # one that never had a good page
        world.aim()
        await world.until_reason(reason)
        reading = world.signals.readings["concurrency"]
        assert (reading.value, reading.quality) == (None, Quality.ABSENT)


async def test_a_dead_pod_is_refused_until_it_listens_again() -> None:
    async with scene() as world:
        await until(lambda: world.pods[0].requests > 0)
        await world.pods[0].stop()
        await world.until_reason("refused")
        await world.pods[0].start(world.port)
        await until(lambda: world.signals.readings["concurrency"].quality is Quality.FRESH)


async def test_a_new_pod_at_a_known_address_starts_without_history() -> None:
    async with scene() as world:
        await until(lambda: world.signals.readings["concurrency"].value == 5.0)
        world.pods[0].misbehaviour = Misbehaviour.HANG
        world.uids = {world.pods[0].ip: "its successor"}
        world.aim()
        reading = world.signals.readings["concurrency"]
        assert (reading.value, reading.quality) == (None, Quality.ABSENT)
        assert reading.faults[0].reason == "no page yet"


async def test_a_gone_workload_is_forgotten_at_once() -> None:
    async with scene() as world:
        await until(lambda: world.pods[0].requests > 0)
        world.scraper.set_targets({})
        assert world.scraper.readings(time.time()) == {}


async def test_hanging_pods_delay_nobody() -> None:
    async with scene(pods=9, concurrency=4, timeout_s=0.5) as world:
        for pod in world.pods[1:]:
            pod.misbehaviour = Misbehaviour.HANG
        await until(lambda: world.scraper.pages_total["time-out"] >= 8)
        before, began = world.pods[0].requests, time.monotonic()
        await until(lambda: world.pods[0].requests >= before + 10)
        assert time.monotonic() - began < 10 * PERIOD_S * 2.5


async def test_a_scraper_that_was_stopped_can_run_again() -> None:
    async with scene() as world:
        world.pods[0].misbehaviour = Misbehaviour.HANG
        await until(lambda: world.pods[0].requests > 0)
    await world.pods[0].start(world.port)
    world.pods[0].misbehaviour = None
    again = asyncio.create_task(world.scraper.run())
    await until(lambda: world.signals.readings["concurrency"].quality is Quality.FRESH)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    await world.pods[0].stop()


async def test_a_cancellation_that_meets_a_time_out_is_not_lost() -> None:
    pod = Pod("127.0.0.11")
    pod.misbehaviour = Misbehaviour.HANG
    address = URL(f"http://{pod.ip}:{await pod.start()}/")
    fetcher = PageFetcher(timeout_s=0.1, max_page_bytes=1000)
    fetching = asyncio.create_task(fetcher.get(address))
    await until(lambda: pod.requests == 1)
    time.sleep(0.2)  # noqa: ASYNC251 - holds the loop, so that both are due at once
    asyncio.get_running_loop().call_soon(fetching.cancel)
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await fetcher.close()
    await pod.stop()


async def test_above_the_budget_the_period_is_stretched_and_told() -> None:
    async with scene(pods=8, pages_per_s=20.0) as world:
        assert world.scraper.effective_period_s == pytest.approx(0.4)
        await until(lambda: all(pod.requests >= 2 for pod in world.pods))
        before, began = sum(pod.requests for pod in world.pods), time.monotonic()
        await until(lambda: time.monotonic() - began > 1.2)
        rate = (sum(pod.requests for pod in world.pods) - before) / (time.monotonic() - began)
        assert 12 <= rate <= 26


async def test_the_pods_of_a_workload_are_visited_together() -> None:
    """Else a request that moves from one pod to another is counted on both, or on neither."""
    async with scene(pods=10, period_s=1.0) as world:
        await until(lambda: all(pod.requests >= 5 for pod in world.pods))
        rounds = [sorted(pod.asked_at[number] for pod in world.pods) for number in range(1, 5)]
        # spread over the period it would be 0.9 s in every round
        assert min(asked_at[-1] - asked_at[0] for asked_at in rounds) < 0.6


@pytest.mark.parametrize(
    ("ip", "port", "path"),
    [
        ("10.0.0.1", 8000, "metrics"),
        ("10.0.0.1", 8000, "@example.com/"),
        ("10.0.0.1", 8000, "/a b"),
        ("10.0.0.1", 8000, "/a\r\nHost: x"),
        ("10.0.0.1", 8000, "/" + "x" * 2000),
        ("10.0.0.1", 0, "/metrics"),
        ("10.0.0.1", 70000, "/metrics"),
        ("example.com", 8000, "/metrics"),
        ("fe80::1%eth0", 8000, "/metrics"),
        ("", 8000, "/metrics"),
    ],
)
def test_an_address_that_is_not_the_pods_is_never_asked(ip: str, port: int, path: str) -> None:
    assert page_url(ScrapeTarget(port, path, Engine.AUTO, (), ()), PodAddress("p", "u", ip)) is None


@pytest.mark.parametrize(
    "path", ["/metrics", "//example.com/metrics", "/@example.com", "/metrics?format=text", "/../x"]
)
def test_whatever_the_path_holds_the_host_is_the_pod(path: str) -> None:
    for ip, host in (("10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00::1")):
        url = page_url(ScrapeTarget(8000, path, Engine.AUTO, (), ()), PodAddress("p", "u", ip))
        assert url is not None
        assert (url.host, url.port, url.scheme) == (host, 8000, "http")


async def test_a_bad_path_is_a_fault_of_that_workload_only() -> None:
    async with scene() as world:
        world.aim(path="metrics")
        world.uids = {world.pods[0].ip: "new"}
        world.aim(path="metrics")
        await world.until_reason("bad address")


def page(running: int, finished: int) -> bytes:
    return (
        f'vllm:num_requests_running{{engine="0"}} {running}\nvllm:num_requests_waiting{{engine="0"}} 0\n'
        f'vllm:request_success_total{{engine="0",finished_reason="stop"}} {finished}\n'
    ).encode()


class Revisions:
    """The pods of a workload and of its update, counted."""

    def __init__(self, world: Scene) -> None:
        self.world = world
        self.keys: list[TargetKey] = [KEY, RevisionKey(KEY, "llama-2")]
        for pod in world.pods:
            pod.page = page(0, 7)
        world.scraper.set_targets({key: self.target(number) for number, key in enumerate(self.keys)})

    def target(self, number: int) -> ScrapeTarget:
        pod = self.world.pods[number]
        return ScrapeTarget(
            self.world.port, "/metrics", Engine.AUTO, (), (PodAddress("p", "u", pod.ip),), counters=True
        )

    def requests(self, number: int) -> RequestCounts:
        found = self.world.scraper.readings(time.time())[self.keys[number]].requests
        assert found is not None
        return found

    async def counted(self, number: int, since: float) -> None:
        await until(lambda: (self.requests(number).counted_at or 0.0) > since)


async def test_requests_are_counted_of_each_revision_apart() -> None:
    async with scene(pods=2) as world:
        revisions = Revisions(world)
        began = time.time()
        for number in range(2):
            await revisions.counted(number, began + 2 * PERIOD_S)
            seen = revisions.requests(number)
            assert (seen.in_flight, seen.last_request_at, seen.supported) == (0, None, True)
            assert seen.counted_from > began - 1.0, "what its pages counted before is unknown"
        switched = time.time()
        world.pods[1].page = page(0, 8)
        await until(lambda: revisions.requests(1).last_request_at is not None)
        assert (revisions.requests(1).last_request_at or 0.0) >= switched
        world.pods[1].page = page(2, 8)
        await until(lambda: revisions.requests(1).in_flight == 2)
        await revisions.counted(0, time.time())
        assert revisions.requests(0).last_request_at is None, "the old one has had none"


async def test_of_a_pod_that_hangs_nothing_is_known_until_its_next_page_which_has_all() -> None:
    async with scene(pods=2) as world:
        revisions = Revisions(world)
        await revisions.counted(0, 0.0)
        known_from = revisions.requests(0).counted_from
        world.pods[0].misbehaviour = Misbehaviour.HANG
        await until(lambda: revisions.requests(0).counted_at is None)
        assert (revisions.requests(0).in_flight, revisions.requests(0).supported) == (None, True)
        world.pods[0].misbehaviour = None
        world.pods[0].page = page(0, 9)
        await until(lambda: revisions.requests(0).counted_at is not None)
        assert revisions.requests(0).last_request_at is not None
        assert revisions.requests(0).counted_from == known_from


async def test_a_page_of_no_engine_we_know_counts_nothing_and_says_so() -> None:
    async with scene(pods=2) as world:
        revisions = Revisions(world)
        for pod in world.pods:
            pod.page = b"my_requests_total 7\n"
        world.scraper.set_targets({})
        world.scraper.set_targets({KEY: revisions.target(0)})
        await until(lambda: not revisions.requests(0).supported)
        assert revisions.requests(0) == RequestCounts(supported=False)


async def test_counting_ends_with_the_update_and_the_signals_stay() -> None:
    async with scene() as world:
        await until(lambda: world.signals.readings["concurrency"].quality is Quality.FRESH)
        assert world.signals.requests is None
        world.scraper.set_targets({KEY: replace(world.target(), counters=True)})
        assert world.signals.readings["concurrency"].value == 5.0
        await until(lambda: world.signals.requests is not None and world.signals.requests.in_flight == 5)
        world.aim()
        assert world.signals.requests is None
        assert world.signals.readings["concurrency"].quality is Quality.FRESH


def test_all_revisions_of_a_workload_have_one_place_in_the_round_for_as_long_as_one_is_there() -> None:
    scraper = PodScraper(time.time)
    first = ScrapeTarget(8000, "/metrics", Engine.AUTO, (), (PodAddress("p", "u", "127.0.0.11"),))
    keys: list[TargetKey] = [WorkloadKey("ml", "other"), KEY, RevisionKey(KEY, "llama-2")]
    scraper.set_targets(dict.fromkeys(keys, first))
    places = [scraper._visits[key]["u"].place for key in keys]
    assert places[0] != places[1] == places[2]
    scraper.set_targets({keys[2]: first})
    scraper.set_targets(dict.fromkeys(keys[1:], first))
    assert scraper._visits[KEY]["u"].place == places[1]
