"""What the copies ask of a server, with which token, and what several of them tell of one outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from aiohttp import web
from kubernetes_asyncio import client as kubernetes_client
from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader
from structlog.testing import capture_logs

from autoscaler.cluster import resources
from autoscaler.cluster.errors import Denied, Unreachable
from autoscaler.cluster.watch import Outages, Selection, Timing
from tests.cluster.copying import following, until
from tests.cluster.fakeapi import FakeApi

PODS, SERVICES = Selection(resources.PODS), Selection(resources.SERVICES)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    for name in ("a", "b", "c"):
        fake.put(name)
    await fake.start()
    yield fake
    await fake.stop()


async def test_a_watch_asks_for_bookmarks_and_for_an_end_and_says_who_asks(api: FakeApi) -> None:
    asked: list[web.Request] = []

    async def noted(api: FakeApi, request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return await api.follow(request)

    api.on_watch = noted
    async with following(api, Timing(steady_s=0.01)):
        while len(asked) < 20:
            await asyncio.sleep(0.02)  # a life longer than steady_s
            api.cut()
    ends_s = {int(request.query["timeoutSeconds"]) for request in asked}
    assert min(ends_s) >= 240
    assert max(ends_s) <= 360
    assert len(ends_s) > 5, "they are spread"
    assert {request.query["allowWatchBookmarks"] for request in asked} == {"true"}
    assert {request.headers["User-Agent"] for request in asked} == {"tidegate"}


async def test_a_copy_is_synced_by_the_last_page_and_not_before(api: FakeApi) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(api: FakeApi, request: web.Request) -> web.StreamResponse | None:
        if request.query.get("continue", "").endswith("c"):
            reached.set()
            await go_on.wait()
        return None

    api.page_size, api.on_list = 1, slow
    async with following(api, synced=False) as copy:
        await reached.wait()
        assert not copy.watched.synced.is_set()
        go_on.set()
        await until(copy.watched.synced.is_set, "the copy to be synced")
        assert sorted(copy.versions) == ["a", "b", "c"]


def in_cluster(token: Path, certificate: Path) -> Any:
    """The configuration of a pod whose token is in this file; plain HTTP."""
    certificate.write_text("not read over plain HTTP")
    configuration = kubernetes_client.Configuration()
    environment = {"KUBERNETES_SERVICE_HOST": "unused", "KUBERNETES_SERVICE_PORT": "1"}
    InClusterConfigLoader(str(token), str(certificate), environ=environment).load_and_set(configuration)
    configuration.ssl_ca_cert = None
    return configuration


async def test_a_token_file_may_end_in_a_line_end(api: FakeApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with following(api, configuration=in_cluster(token, tmp_path / "ca.crt")):
        assert api.asked[-1].authorization == "Bearer first"


@pytest.mark.parametrize("broken", ["two\nlines", "sec\x00ond", "second é", "gone"])
async def test_a_token_file_that_cannot_be_used_does_not_end_the_watch(
    api: FakeApi, tmp_path: Path, broken: str
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    async with following(api, configuration=in_cluster(token, tmp_path / "ca.crt")) as copy:
        with time_machine.travel(time.time() + 61):
            if broken == "gone":
                token.unlink()
            else:
                token.write_bytes(broken.encode("latin-1"))
            api.cut()
            await until(lambda: copy.watched.failures >= 2, "the file to be noticed")
        with time_machine.travel(time.time() + 122):
            token.write_text("third")
            api.put("d")
            await copy.right(api)
            assert api.asked[-1].authorization == "Bearer third"
        assert copy.watched.relists == 1


def test_an_outage_of_the_server_is_told_once_however_many_copies_share_it() -> None:
    now_s = [0.0]
    outages = Outages(lambda: now_s[-1])
    with capture_logs() as lines:
        for selection in (PODS, SERVICES, PODS):
            outages.began(selection, Unreachable("no answer"))
        now_s.append(7.25)
        outages.ended(PODS)
        assert [line["event"] for line in lines] == ["watch.failed"]
        outages.ended(SERVICES)
        outages.ended(SERVICES)
    assert [line["event"] for line in lines] == ["watch.failed", "watch.recovered"]
    assert lines[1]["lasted_s"] == 7.2


def test_a_right_that_is_missing_is_told_for_its_copy_beside_an_outage() -> None:
    outages = Outages(lambda: 0.0)
    with capture_logs() as lines:
        outages.began(PODS, Unreachable("no answer"))
        outages.began(SERVICES, Denied("services is forbidden", 403))
        outages.ended(PODS)
    assert [(line["event"], line["kind"]) for line in lines] == [
        ("watch.failed", "Pod"),
        ("watch.failed", "Service"),
        ("watch.recovered", "Pod"),
    ]
