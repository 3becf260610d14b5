"""Watches on which nothing comes: in virtual time, against an imitation of KubeApi."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from structlog.testing import capture_logs

from autoscaler.cluster import resources
from autoscaler.cluster.errors import Unreachable
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.store import Store
from autoscaler.cluster.watch import Selection, Watched
from tests import virtual_time
from tests.cluster.fakeapi import line

Script = Callable[["Server", int], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Opened:
    """One watch that was asked for."""

    path: str
    at_s: float
    version: str


class Server:
    """Lists one workload at version 7; what a watch brings is in the script, which gets the number of the watch."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.lists = 0
        self.watches: list[Opened] = []

    async def call(self, method: str, path: str, **others: object) -> bytes:
        self.lists += 1
        return msgspec.json.encode({"metadata": {"resourceVersion": "7"}, "items": [workload("7")]})

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        now_s = asyncio.get_running_loop().time()
        self.watches.append(Opened(path, now_s, params["resourceVersion"]))
        async for block in self._script(self, len(self.watches)):
            yield block

    @property
    def gaps_s(self) -> list[float]:
        """From one watch to the next."""
        return [later.at_s - earlier.at_s for earlier, later in zip(self.watches, self.watches[1:], strict=False)]


def workload(version: str) -> dict[str, Any]:
    return {"metadata": {"name": "w", "namespace": "models", "uid": "u", "resourceVersion": version}}


def bookmark(version: str) -> bytes:
    return line("BOOKMARK", {"metadata": {"resourceVersion": version}})


# --- what a watch brings ---


async def nothing(server: Server, number: int) -> AsyncIterator[bytes]:
    yield b""
    await asyncio.Event().wait()


async def nothing_until_it_is_opened_anew(server: Server, number: int) -> AsyncIterator[bytes]:
    yield b""
    if number > 1:
        yield line("MODIFIED", workload("9"))
    await asyncio.Event().wait()


async def a_bookmark_a_minute(server: Server, number: int) -> AsyncIterator[bytes]:
    yield b""
    for minute in range(1, 5):
        await asyncio.sleep(60)
        yield bookmark(str(10 * number + minute))


async def a_black_hole_for_five_minutes(server: Server, number: int) -> AsyncIterator[bytes]:
    if number > 1 and asyncio.get_running_loop().time() < 300:
        await asyncio.sleep(2)
        raise Unreachable("GET: no connection within 2 s")
    yield b""
    if number > 1:
        yield line("MODIFIED", workload("9"))
    await asyncio.Event().wait()


# --- the tests ---


def followed(script: Script, for_s: float) -> tuple[Server, Watched[InferenceWorkload]]:
    """A copy of the workloads, and its server, after that time."""

    async def follow() -> tuple[Server, Watched[InferenceWorkload]]:
        server = Server(script)
        clock = asyncio.get_running_loop().time
        copy = Watched(server, Selection(resources.WORKLOADS), InferenceWorkload, lambda: None, clock=clock)
        running = asyncio.create_task(copy.run())
        await asyncio.wait({running}, timeout=for_s)
        assert not running.done(), running
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return server, copy

    return virtual_time.run(follow())


def version(copy: Watched[InferenceWorkload]) -> str:
    there = copy.get("models", "w")
    assert there is not None
    return there.metadata.resource_version


def test_a_silent_watch_is_opened_anew_from_the_last_version_within_100_seconds() -> None:
    server, copy = followed(nothing_until_it_is_opened_anew, for_s=100)
    assert len(server.watches) == 2
    assert 90 <= server.gaps_s[0] <= 99
    assert [watch.version for watch in server.watches] == ["7", "7"]
    assert version(copy) == "9"
    assert server.lists == 1


def test_a_server_that_never_sends_bookmarks_is_no_failure() -> None:
    with capture_logs() as lines:
        server, copy = followed(nothing, for_s=3_600)
    assert 36 <= len(server.watches) <= 41
    assert all(90 <= gap_s <= 99 for gap_s in server.gaps_s)
    assert (server.lists, copy.failures) == (1, 0)
    assert [entry for entry in lines if entry["log_level"] != "debug"] == []
    assert version(copy) == "7"


def test_bookmarks_keep_a_quiet_watch_open_to_its_end() -> None:
    server, copy = followed(a_bookmark_a_minute, for_s=3_600)
    assert set(server.gaps_s) == {240.0}
    assert [watch.version for watch in server.watches[:2]] == ["7", "14"]
    assert (server.lists, copy.failures) == (1, 0)


async def test_the_age_of_the_last_sign_of_life_counts_from_an_accepted_watch() -> None:
    opened = asyncio.Event()

    async def accepted(server: Server, number: int) -> AsyncIterator[bytes]:
        now_s.append(50.0)
        yield b""
        opened.set()
        await asyncio.Event().wait()

    now_s = [0.0]
    copy = Watched(
        Server(accepted), Selection(resources.WORKLOADS), InferenceWorkload, lambda: None, clock=lambda: now_s[-1]
    )
    running = asyncio.create_task(copy.run())
    await opened.wait()
    running.cancel()
    await asyncio.wait({running})
    now_s.append(51.5)
    assert copy.last_event_age_s == 1.5


def test_a_route_that_leads_nowhere_is_told_once_and_so_is_its_return() -> None:
    with capture_logs() as lines:
        server, copy = followed(a_black_hole_for_five_minutes, for_s=400)
    told = [entry["event"] for entry in lines if entry["log_level"] != "debug"]
    assert told == ["watch.failed", "watch.recovered"]
    assert server.lists == 1
    assert version(copy) == "9"


def test_a_server_that_accepts_no_watch_and_says_nothing_is_a_failure() -> None:
    async def mute(server: Server, number: int) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    _, copy = followed(mute, for_s=300)
    assert copy.failures >= 2


def test_the_watches_of_a_store_do_not_come_back_as_one() -> None:
    async def follow() -> Server:
        server = Server(nothing)
        store = Store(server, [f"n{number}" for number in range(20)], lambda: None)
        running = asyncio.create_task(store.run())
        await asyncio.wait({running}, timeout=110)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return server

    server = virtual_time.run(follow())
    again = [int(watch.at_s) for watch in server.watches if watch.at_s > 1]
    assert len(again) == 20 * 10
    assert max(map(again.count, again)) <= 35, "within one second"
