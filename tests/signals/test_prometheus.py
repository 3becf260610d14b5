"""The door to Prometheus: what it sends, what it takes for an answer, and every way in which there is none."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from autoscaler.signals.faults import Fault
from autoscaler.signals.prometheus import Access, Answer, Failure, PrometheusClient, Series, read_answer
from tests.realcluster import pki
from tests.signals.pods import Misbehaviour, Pod


def vector(*samples: tuple[dict[str, str], str], **more: Any) -> bytes:
    result = [{"metric": labels, "value": [1000.5, value]} for labels, value in samples]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more}).encode()


ONE = vector(({"pod": "a"}, "3"))


@pytest.fixture
async def server() -> AsyncIterator[Pod]:
    pod = Pod("127.0.0.1")
    pod.page = ONE
    yield pod
    await pod.stop()


async def ask(server: Pod, **access: Any) -> Answer | Failure:
    port = await server.start()
    return await ask_at(Access(f"http://127.0.0.1:{port}", **access))


async def ask_at(access: Access, promql: str = "up") -> Answer | Failure:
    client = PrometheusClient(access)
    try:
        return await client.query(promql)
    finally:
        await client.close()


async def test_an_answer_is_its_series_and_the_instant_at_which_they_hold(server: Pod) -> None:
    server.page = vector(({"pod": "a", "namespace": "n"}, "3"), ({}, "4.5e2"))
    assert await ask(server) == Answer(1000.5, (Series({"pod": "a", "namespace": "n"}, 3.0), Series({}, 450.0)))
    assert server.headers.startswith("POST /api/v1/query ")


async def test_an_empty_answer_is_an_answer_without_series(server: Pod) -> None:
    server.page = vector()
    assert await ask(server) == Answer(None, ())


async def test_warnings_are_handed_on_and_infos_are_not(server: Pod) -> None:
    server.page = vector(({}, "1"), warnings=["store gpu-2 unavailable"], infos=["metric might not be a counter"])
    answer = await ask(server)
    assert isinstance(answer, Answer)
    assert answer.warnings == ("store gpu-2 unavailable",)


@pytest.mark.parametrize(("text", "value"), [("+Inf", math.inf), ("-Inf", -math.inf), ("-1", -1.0), ("1e300", 1e300)])
async def test_odd_values_are_handed_on_as_they_are(text: str, value: float) -> None:
    assert read_answer(vector(({}, text))) == Answer(1000.5, (Series({}, value),))


def test_what_is_no_number_is_nan_and_never_zero() -> None:
    histogram = {"metric": {}, "histogram": [1000.5, {"count": "3"}]}
    for body in (
        vector(({}, "NaN")),
        json.dumps({"status": "success", "data": {"resultType": "vector", "result": [histogram]}}).encode(),
    ):
        answer = read_answer(body)
        assert isinstance(answer, Answer)
        assert math.isnan(answer.series[0].value)


def test_a_scalar_is_one_series_without_labels() -> None:
    body = b'{"status":"success","data":{"resultType":"scalar","result":[7,"2"]}}'
    assert read_answer(body) == Answer(7, (Series({}, 2.0),))


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Sign in</body></html>",
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"status":"success"}',
        b'{"status":"error","errorType":"timeout","error":"query timed out"}',
        b'{"status":"success","data":{"resultType":"matrix","result":[]}}',
        b'{"status":"success","data":{"resultType":"string","result":[1,"x"]}}',
        b'{"status":"success","data":{"resultType":"vector","result":{}}}',
        b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}',
        b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,2]}]}}',
        b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":1},"value":[1,"2"]}]}}',
        b'{"status":"success","data":{"resultType":"vector","result":' + b"[" * 100_000,
        vector(({}, "1"))[:-20],
    ],
)
def test_what_is_no_answer_is_a_failure(body: bytes) -> None:
    found = read_answer(body)
    assert isinstance(found, Failure)
    assert found.reason == Fault.NO_ANSWER
    assert len(found.detail) <= 301


@pytest.mark.parametrize(
    ("misbehaviour", "reason"),
    [
        (Misbehaviour.HANG, Fault.TIME_OUT),
        (Misbehaviour.TRICKLE, Fault.TIME_OUT),
        (Misbehaviour.ENDLESS, Fault.TOO_LARGE),
        (Misbehaviour.CUT, Fault.CUT_SHORT),
        (Misbehaviour.GARBAGE, Fault.NOT_TEXT),
        (Misbehaviour.ENDLESS_HEADER, Fault.NOT_TEXT),
    ],
)
async def test_a_server_that_breaks_the_protocol_costs_no_more_than_its_bounds(
    server: Pod, misbehaviour: Misbehaviour, reason: Fault
) -> None:
    server.misbehaviour = misbehaviour
    found = await ask(server, timeout_s=1.0, max_answer_bytes=1_000_000)
    assert isinstance(found, Failure)
    assert found.reason == reason


@pytest.mark.parametrize(
    ("status", "page", "failure"),
    [
        ("500 Oops", b"<html>", Failure("http 500")),
        (
            "503 Away",
            b'{"status":"error","errorType":"timeout","error":"took too long"}',
            Failure("http 503", "took too long"),
        ),
        (
            "400 Bad",
            b'{"status":"error","errorType":"bad_data","error":"parse error"}',
            Failure("query refused", "parse error"),
        ),
        ("422 Odd", b'{"status":"error","error":"too many samples"}', Failure("query refused", "too many samples")),
        ("401 Who", b"", Failure("http 401")),
        ("302 Found", b"", Failure("http 302")),
        ("204 None", b"", Failure("http 204")),
    ],
)
async def test_another_status_is_a_failure_with_what_prometheus_says(
    server: Pod, status: str, page: bytes, failure: Failure
) -> None:
    server.status, server.page, server.extra_header = status, page, "Location: http://127.0.0.1:9/\r\n"
    assert await ask(server) == failure


async def test_a_large_answer_and_a_packed_one_are_refused(server: Pod) -> None:
    assert await ask(server, max_answer_bytes=len(ONE) - 1) == Failure(Fault.TOO_LARGE)
    await server.stop()
    server.extra_header = "Content-Encoding: gzip\r\n"
    assert await ask(server) == Failure(Fault.NOT_TEXT)


async def test_nobody_there_is_a_failure() -> None:
    found = await ask_at(Access("http://127.0.0.1:9"))
    assert isinstance(found, Failure)
    assert found.reason == Fault.REFUSED


class Recorder:
    """A server that keeps what it was asked."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.authorizations: list[str | None] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        self.forms.append({key: str(value) for key, value in (await request.post()).items()})
        self.authorizations.append(request.headers.get("Authorization"))
        return web.Response(body=ONE, content_type="application/json")

    async def start(self, tls: ssl.SSLContext | None = None) -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        assert runner.addresses
        return runner, int(runner.addresses[0][1])


async def test_the_query_and_the_time_out_are_sent_and_the_prefix_of_the_address_is_kept() -> None:
    recorder = Recorder()
    runner, port = await recorder.start()
    assert isinstance(await ask_at(Access(f"http://127.0.0.1:{port}/prefix/", timeout_s=1.5), 'a{b="é&+"}'), Answer)
    await runner.cleanup()
    assert recorder.paths == ["/prefix/api/v1/query"]
    assert recorder.forms == [{"query": 'a{b="é&+"}', "timeout": "1500ms"}]
    assert recorder.authorizations == [None]


async def test_a_bearer_token_is_read_again_with_every_query(tmp_path: Path) -> None:
    recorder = Recorder()
    runner, port = await recorder.start()
    token = tmp_path / "token"
    client = PrometheusClient(Access(f"http://127.0.0.1:{port}", bearer_token_file=token))
    for content in ("first\n", "second"):
        token.write_text(content)
        assert isinstance(await client.query("up"), Answer)
    for content in ("", "\n", "two\nlines", "a\x00b"):
        token.write_text(content)
        refused = await client.query("up")
        assert refused == Failure(Fault.NO_CREDENTIALS, f"{token} must hold one line of printable text")
    token.unlink()
    missing = await client.query("up")
    assert isinstance(missing, Failure)
    assert missing.reason == Fault.NO_CREDENTIALS
    await client.close()
    await runner.cleanup()
    assert recorder.authorizations == ["Bearer first", "Bearer second"]


async def test_a_user_with_a_password_file(tmp_path: Path) -> None:
    recorder = Recorder()
    runner, port = await recorder.start()
    (tmp_path / "password").write_text("gehéim:1\n")
    access = Access(f"http://127.0.0.1:{port}", username="tidegate", password_file=tmp_path / "password")
    assert isinstance(await ask_at(access), Answer)
    await runner.cleanup()
    assert recorder.authorizations == ["Basic dGlkZWdhdGU6Z2Vow6lpbTox"]


async def test_tls_with_an_own_authority_and_a_client_certificate(tmp_path: Path) -> None:
    authority = pki.new_authority("prometheus-ca")
    authority.write(tmp_path, "ca")
    pki.issue(authority, "prometheus", hosts=("127.0.0.1",)).write(tmp_path, "server")
    pki.issue(authority, "tidegate").write(tmp_path, "client")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    runner, port = await Recorder().start(tls)
    plain = Access(f"https://127.0.0.1:{port}")
    trusting = replace(plain, ca_file=tmp_path / "ca.crt")
    known = replace(trusting, cert_file=tmp_path / "client.crt", key_file=tmp_path / "client.key")
    assert isinstance(await ask_at(known), Answer)
    for access in (plain, trusting):
        found = await ask_at(access)
        assert isinstance(found, Failure), "a server that is not known, or a client that is not"
        assert found.reason in (Fault.UNREACHABLE, Fault.CUT_SHORT)
    absent = await ask_at(replace(known, ca_file=tmp_path / "absent.crt"))
    assert isinstance(absent, Failure)
    assert absent.reason == Fault.NO_CREDENTIALS
    assert "absent.crt" in absent.detail
    await runner.cleanup()


async def test_a_renewed_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    authorities = [pki.new_authority("old"), pki.new_authority("new")]
    runners: list[web.AppRunner] = []
    ports: list[int] = []
    for number, authority in enumerate(authorities):
        authority.write(tmp_path, f"ca{number}")
        pki.issue(authority, "prometheus", hosts=("127.0.0.1",)).write(tmp_path, f"server{number}")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(tmp_path / f"server{number}.crt", tmp_path / f"server{number}.key")
        runner, port = await Recorder().start(tls)
        runners, ports = [*runners, runner], [*ports, port]
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes((tmp_path / "ca0.crt").read_bytes())
    client = PrometheusClient(Access(f"https://127.0.0.1:{ports[0]}", ca_file=trusted))
    assert isinstance(await client.query("up"), Answer)
    client.access = replace(client.access, url=f"https://127.0.0.1:{ports[1]}")
    assert isinstance(await client.query("up"), Failure)
    renewed = tmp_path / "renewed"
    renewed.write_bytes((tmp_path / "ca1.crt").read_bytes())
    renewed.replace(trusted)
    assert isinstance(await client.query("up"), Answer)
    await client.close()
    await asyncio.gather(*(runner.cleanup() for runner in runners))
