"""Reads of Prometheus through prometheus-api-client: the same answers as the tick's own, and bounds that it lacks."""

from __future__ import annotations

import asyncio
import base64
import gzip
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from autoscaler.signals.faults import Fault
from autoscaler.signals.prometheus import Access, Answer, Failure, PrometheusClient
from autoscaler.signals.range_reader import RangeReader, Ranges
from tests.realcluster.cluster import Cluster
from tests.realcluster.prometheus import Prometheus

EMPTY = b'{"status": "success", "data": {"resultType": "vector", "result": []}}'
WARNED = b'{"status": "success", "data": {"resultType": "matrix", "result": []}, "warnings": ["a store is away"]}'


class Faulty:
    """Answers what it is told to; a real Prometheus does not fail at will."""

    def __init__(self) -> None:
        self.body, self.status, self.headers = EMPTY, 200, dict[str, str]()
        self.waits_s = 0.0
        self.asked: list[tuple[str, str, str]] = []  # method, path with query, Authorization

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path_qs, request.headers.get("Authorization", "")))
        await asyncio.sleep(self.waits_s)
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@pytest.fixture
async def faulty() -> AsyncIterator[tuple[Faulty, Access]]:
    server = Faulty()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, Access(f"http://127.0.0.1:{runner.addresses[0][1]}/prefix/", timeout_s=1.0)
    await runner.cleanup()


async def ask(access: Access) -> Answer | Failure:
    reader = RangeReader(access)
    try:
        return await reader.query("up")
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason"),
    [
        (500, b"oh", {}, "http 500"),
        (401, b"", {}, "http 401"),
        (302, b"", {"Location": "http://169.254.169.254/"}, "http 302"),
        (400, b'{"status": "error", "error": "parse error"}', {}, Fault.QUERY_REFUSED),
        (200, b"<html>", {}, Fault.NO_ANSWER),
        (200, b'{"status": "success"}', {}, Fault.NO_ANSWER),
        (200, b"x" * 100_000, {}, Fault.TOO_LARGE),
        (200, gzip.compress(EMPTY), {"Content-Encoding": "gzip"}, Fault.NOT_TEXT),
    ],
)
async def test_one_try_and_why_it_failed(
    faulty: tuple[Faulty, Access], status: int, body: bytes, headers: dict[str, str], reason: str
) -> None:
    server, access = faulty
    server.status, server.body, server.headers = status, body, headers
    answer = await ask(replace(access, max_answer_bytes=50_000))
    assert isinstance(answer, Failure)
    assert answer.reason == reason
    assert len(server.asked) == 1


async def test_a_silent_server_is_left_in_time(faulty: tuple[Faulty, Access]) -> None:
    server, access = faulty
    server.waits_s = 20.0
    started = time.monotonic()
    assert await ask(access) == Failure(Fault.TIME_OUT)
    assert time.monotonic() - started < 10
    assert len(server.asked) == 1


async def test_nobody_listens(unused_tcp_port: int) -> None:
    answer = await ask(Access(f"http://127.0.0.1:{unused_tcp_port}"))
    assert isinstance(answer, Failure)
    assert answer.reason == Fault.REFUSED


async def test_the_question_is_in_the_body_and_warnings_are_kept(faulty: tuple[Faulty, Access]) -> None:
    server, access = faulty
    server.body = WARNED
    reader = RangeReader(access)
    try:
        assert await reader.query_range("up", 0, 10, 1) == Ranges((), ("a store is away",))
        server.body = EMPTY
        assert await reader.query("up") == Answer(None, ())
    finally:
        reader.close()
    assert server.asked == [("POST", "/prefix/api/v1/query_range", ""), ("POST", "/prefix/api/v1/query", "")]


async def test_files_are_read_with_every_question(faulty: tuple[Faulty, Access], tmp_path: Path) -> None:
    server, access = faulty
    token, password = tmp_path / "token", tmp_path / "password"
    token.write_text("first\n")
    reader = RangeReader(replace(access, bearer_token_file=token))
    try:
        await reader.query("up")
        token.write_text("second\n")
        await reader.query("up")
        token.write_text("")
        lacking = await reader.query("up")
    finally:
        reader.close()
    assert [each[2] for each in server.asked] == ["Bearer first", "Bearer second"]
    assert isinstance(lacking, Failure)
    assert lacking.reason == Fault.NO_CREDENTIALS
    password.write_text("pass\n")
    await ask(replace(access, username="user", password_file=password))
    assert server.asked[-1][2] == "Basic " + base64.b64encode(b"user:pass").decode()


async def test_a_real_one_tells_both_clients_the_same(cluster: Cluster, prometheus: Prometheus) -> None:
    access = Access(prometheus.url, timeout_s=10.0)
    client, reader = PrometheusClient(access), RangeReader(access)
    try:
        for question in (
            "vector(1)",
            "3",
            'label_replace(vector(2), "a", "b\\"c", "", "")',
            "absent(nothing)",
            "nothing",
        ):
            by_tick, by_thread = await client.query(question), await reader.query(question)
            assert isinstance(by_tick, Answer)
            assert isinstance(by_thread, Answer)
            assert by_thread.series == by_tick.series, question
        assert isinstance(await reader.query("sum("), Failure)
        steps = await reader.query_range("time()", 1_000, 1_010, 5)
        assert isinstance(steps, Ranges)
        assert [each.values for each in steps.series] == [((1000.0, 1000.0), (1005.0, 1005.0), (1010.0, 1010.0))]
        assert isinstance(await reader.version(), str)  # "" of one that was built without its number
    finally:
        await client.close()
        reader.close()


def test_no_data_frames_are_imported() -> None:
    """numpy and pandas take 60 MB; whether they are installed or not, nothing asks for them."""
    code = (
        "import sys, types\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.split('.')[0] not in ('numpy', 'pandas', 'matplotlib'), name\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import autoscaler.daemon, autoscaler.cli.doctor\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
