"""A kind whose definition may be missing, come and go: in virtual time against an imitation of KubeApi, and once over a
real connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
import pytest
from aiohttp import web
from kubernetes_asyncio import client as kubernetes_client
from structlog.testing import capture_logs

from autoscaler.cluster import resources
from autoscaler.cluster.client import KubernetesClient
from autoscaler.cluster.errors import ApiError, Denied, NotFound, Unreachable
from autoscaler.cluster.resources import Autoscaler, Pod
from autoscaler.cluster.store import Store
from autoscaler.cluster.watch import Selection, Timing, Watched
from tests import virtual_time
from tests.cluster.copying import until
from tests.cluster.fakeapi import NAMESPACE, FakeApi

T = TypeVar("T")
OPTIONAL = ("/scaledobjects", "/leaderworkersets", "/httproutes")
ABSENT = NotFound("the server could not find the requested resource", 404)


class Server:
    """Scaled objects by name while the optional kinds are `installed`; all other kinds are there and empty."""

    def __init__(self) -> None:
        self.installed = False
        self.error: ApiError | None = None  # instead of any answer about the kind
        self.names: tuple[str, ...] = ()
        self.lists_at: list[float] = []
        self._cut = asyncio.Event()

    def install(self, *names: str) -> None:
        self.installed, self.names = True, names

    def remove(self) -> None:
        """Watches end, as those of a deleted definition do."""
        self.installed, self.names = False, ()
        self._cut.set()
        self._cut = asyncio.Event()

    async def call(self, method: str, path: str, **others: object) -> bytes:
        items: list[object] = []
        if path.endswith(OPTIONAL):
            self.lists_at.append(asyncio.get_running_loop().time())
            self._refuse()
            items = [{"metadata": {"name": each, "namespace": "ml", "resourceVersion": "6"}} for each in self.names]
        return msgspec.json.encode({"metadata": {"resourceVersion": "7"}, "items": items})

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        if path.endswith(OPTIONAL):
            self._refuse()
        yield b""
        await self._cut.wait()

    def _refuse(self) -> None:
        if self.error is not None:
            raise self.error
        if not self.installed:
            raise ABSENT


class Followed:
    """A copy of the scaled objects, and how often it said that something changed."""

    def __init__(self, server: Server) -> None:
        self.pokes = 0
        self.copy = Watched(server, Selection(resources.SCALED_OBJECTS), Autoscaler, self._poked, optional=True)

    def _poked(self) -> None:
        self.pokes += 1

    @property
    def names(self) -> set[str]:
        return {each.metadata.name for each in self.copy}


def play(script: Callable[[Server, Followed], Awaitable[T]]) -> T:
    """Runs the script beside a copy, in virtual time."""

    async def run() -> T:
        server = Server()
        followed = Followed(server)
        running = asyncio.create_task(followed.copy.run())
        try:
            done = await script(server, followed)
            assert not running.done(), running
            return done
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    return virtual_time.run(run())


def test_a_kind_that_is_not_installed_is_empty_synced_and_not_worth_a_word() -> None:
    async def script(server: Server, followed: Followed) -> None:
        await asyncio.sleep(1)
        assert followed.copy.synced.is_set()
        await asyncio.sleep(3_600)
        assert (followed.names, followed.copy.failures, followed.pokes) == (set(), 0, 1)
        assert (followed.copy.follows, followed.copy.absent) == (False, True)
        gaps_s = [later - earlier for earlier, later in zip(server.lists_at, server.lists_at[1:], strict=False)]
        assert 54 <= len(gaps_s) <= 60
        assert all(60 <= gap_s <= 66 for gap_s in gaps_s)

    with capture_logs() as lines:
        play(script)
    assert lines == []


def test_what_is_installed_later_is_noticed_within_66_seconds() -> None:
    async def script(server: Server, followed: Followed) -> None:
        await asyncio.sleep(1_000)
        server.install("chat")
        await asyncio.sleep(66)
        assert followed.names == {"chat"}
        assert followed.pokes == 2
        assert not followed.copy.absent

    play(script)


def test_what_is_removed_is_gone_at_once_and_may_come_back() -> None:
    async def script(server: Server, followed: Followed) -> None:
        server.install("chat", "code")
        await asyncio.sleep(100)
        assert followed.names == {"chat", "code"}
        server.remove()
        await asyncio.sleep(1)
        assert followed.names == set()
        assert followed.copy.synced.is_set()
        server.install("chat")
        await asyncio.sleep(66)
        assert followed.names == {"chat"}

    with capture_logs() as lines:
        play(script)
    assert [line for line in lines if line["log_level"] != "debug"] == []


@pytest.mark.parametrize("error", [Unreachable("no answer"), Denied("scaledobjects is forbidden", 403)])
def test_no_answer_is_not_absence(error: ApiError) -> None:
    """A server that does not answer, or that does not let us look, has not said that there is nothing."""

    async def script(server: Server, followed: Followed) -> None:
        server.error = error
        await asyncio.sleep(300)
        assert not followed.copy.synced.is_set()
        server.install("chat")
        server.error = None
        await asyncio.sleep(60)
        assert followed.names == {"chat"}
        server.error = error
        server._cut.set()
        await asyncio.sleep(300)
        assert followed.names == {"chat"}

    with capture_logs() as lines:
        play(script)
    told = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert told == ["watch.failed", "watch.recovered", "watch.failed"]


def test_an_outage_that_ends_with_a_missing_kind_has_ended() -> None:
    async def script(server: Server, followed: Followed) -> None:
        server.error = Unreachable("no answer")
        await asyncio.sleep(100)
        server.error = None
        await asyncio.sleep(100)
        assert followed.copy.synced.is_set()

    with capture_logs() as lines:
        play(script)
    assert [line["event"] for line in lines] == ["watch.failed", "watch.recovered"]


@pytest.mark.parametrize("routes", [False, True], ids=["without routes", "with routes"])
def test_a_store_is_synced_and_follows_without_keda_leader_worker_set_and_gateway_api(routes: bool) -> None:
    async def follow() -> Store:
        store = Store(Server(), ("a", "b"), lambda: None, routes)
        running = asyncio.create_task(store.run())
        await asyncio.sleep(10)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return store

    store = virtual_time.run(follow())
    assert store.synced
    assert store.follows("a")
    assert len(store.http_routes) == (2 if routes else 0)
    assert not store.knows_http_routes("a")


async def test_a_kind_comes_and_goes_over_a_real_connection() -> None:
    api, installed = FakeApi(), False

    async def maybe(api: FakeApi, request: web.Request) -> web.StreamResponse | None:
        return None if installed else web.Response(status=404, text="404 page not found\n")

    async def watched(api: FakeApi, request: web.Request) -> web.StreamResponse:
        return await maybe(api, request) or await api.follow(request)

    api.on_list, api.on_watch = maybe, watched
    api.put("a")
    await api.start()
    configuration = kubernetes_client.Configuration()
    configuration.host = api.url
    client = KubernetesClient(kubernetes_client.ApiClient(configuration))
    timing = Timing(absent_s=0.05)
    copy = Watched(client, Selection(resources.PODS, NAMESPACE), Pod, lambda: None, optional=True, timing=timing)
    running = asyncio.create_task(copy.run())
    try:
        await until(lambda: copy.synced.is_set() and api.count("list") > 2, "it to be looked for again")
        installed = True
        await until(lambda: len(copy) == 1, "what was installed")
        installed = False
        api.cut()
        await until(lambda: len(copy) == 0, "what was removed to be gone")
        assert copy.failures == 0
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.wait({running})
        await client.close()
        await api.stop()
