"""What a gateway's page says of a workload without replicas, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from autoscaler.model.signal import Activation
from autoscaler.model.workload import ActivationSpec
from autoscaler.signals.activation import ActivationPages
from tests.signals.pods import Misbehaviour, Pod, until

PERIOD_S = 0.1
PENDING = ActivationSpec("gateway", "pending", (("workload", "llama"),))
ASKED = ActivationSpec("gateway", "asked_total", (("workload", "llama"), ("namespace", "ml")))


class Gateway:
    """A page that the test writes, and the poller of it."""

    def __init__(self, server: Pod, pages: ActivationPages) -> None:
        self.server = server
        self.pages = pages

    def state(self, spec: ActivationSpec) -> Activation:
        return self.pages.state(spec, time.time())

    async def shows(self, page: str) -> None:
        """Serve this page, and wait until it has been read."""
        self.server.page = page.encode()
        self.server.misbehaviour = None
        before = self.server.requests
        await until(lambda: self.server.requests >= before + 2)

    async def until_state(self, spec: ActivationSpec, state: Activation) -> None:
        await until(lambda: self.state(spec) is state)


@contextlib.asynccontextmanager
async def gateway(**options: float) -> AsyncIterator[Gateway]:
    server = Pod("127.0.0.21")
    port = await server.start()
    address = f"http://{server.ip}:{port}/metrics"
    pages = ActivationPages({"gateway": address}, time.time, period_s=PERIOD_S, timeout_s=0.3, **options)  # type: ignore[arg-type]
    running = asyncio.create_task(pages.run())
    try:
        yield Gateway(server, pages)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await server.stop()


async def test_a_gauge_above_zero_means_that_someone_waits() -> None:
    async with gateway() as world:
        assert world.state(PENDING) is Activation.UNKNOWN
        await world.shows('pending{workload="llama",a="x"} 0\npending{workload="other"} 5\n')
        assert world.state(PENDING) is Activation.IDLE
        await world.shows('pending{workload="llama",a="x"} 0\npending{a="y",workload="llama"} 1\n')
        assert world.state(PENDING) is Activation.WAITING
        await world.shows('pending{workload="llama",a="x"} 0\n')
        assert world.state(PENDING) is Activation.IDLE


async def test_a_counter_that_grows_is_reported_for_a_while() -> None:
    async with gateway(sticky_s=0.6) as world:
        asked = 'asked_total{{namespace="ml",workload="llama",code="{}"}} {}\n'
        assert world.state(ASKED) is Activation.UNKNOWN
        await world.shows(asked.format(200, 500))
        assert world.state(ASKED) is Activation.IDLE  # it counted those before we looked
        await world.shows(asked.format(200, 500) + asked.format(503, 1))
        assert world.state(ASKED) is Activation.WAITING
        await world.until_state(ASKED, Activation.IDLE)
        await world.shows(asked.format(200, 2))  # began anew
        assert world.state(ASKED) is Activation.WAITING


async def test_a_series_that_appears_counts_from_zero() -> None:
    async with gateway() as world:
        world.state(ASKED)
        await world.shows("other 1\n")
        assert world.state(ASKED) is Activation.IDLE
        await world.shows('# TYPE asked_total counter\nasked_total{namespace="ml",workload="llama"} 1\n')
        assert world.state(ASKED) is Activation.WAITING


async def test_a_page_read_before_the_first_question_is_used() -> None:
    async with gateway() as world:
        await world.shows('pending{workload="llama"} 1\n')
        assert world.state(PENDING) is Activation.WAITING


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf", "many"])
async def test_an_impossible_value_is_unknown(value: str) -> None:
    async with gateway() as world:
        await world.shows(f'pending{{workload="llama"}} {value}\n')
        assert world.state(PENDING) is Activation.UNKNOWN


async def test_an_old_page_says_nothing() -> None:
    async with gateway() as world:
        await world.shows('pending{workload="llama"} 1\n')
        assert world.state(PENDING) is Activation.WAITING
        assert world.pages.faults() == {}
        world.server.misbehaviour = Misbehaviour.HANG
        await world.until_state(PENDING, Activation.UNKNOWN)
        await until(lambda: world.pages.faults() == {"gateway": "time-out"})


async def test_an_unknown_page_is_unknown() -> None:
    async with gateway() as world:
        assert world.state(ActivationSpec("elsewhere", "pending")) is Activation.UNKNOWN


async def test_a_page_that_is_configured_anew_is_polled_and_a_removed_one_is_not() -> None:
    async with gateway() as world:
        await world.shows("pending 1\n")
        anywhere = ActivationSpec("gateway", "pending")
        assert world.state(anywhere) is Activation.WAITING
        world.pages.set_pages({})
        assert world.state(anywhere) is Activation.UNKNOWN
