"""A proxy between one client and the real API server that records every request and breaks those it is told to.

    with FaultProxy(cluster.url, cluster.ca_path) as proxy:
        ...                                          # the client's kubeconfig names proxy.url: plain HTTP on loopback
        armed = proxy.arm(Rule(CommitThenTimeOut(), methods=WRITES, path="/deployments", nth=2))
        armed.wait_over()
        proxy.cut_watches()
        proxy.refuse()                               # the server is gone, until proxy.accept()
        proxy.exchanges()                            # everything that was asked, with both answers

It runs in a thread of its own; its methods are for synchronous callers. Requests pass as they are, credentials
included; watches are passed on line by line, as they come. It never retries, and changes a body for `Skew` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, assert_never

import aiohttp
from aiohttp import web
from yarl import URL

from tests.realcluster.faultproxy_loop import LoopThread
from tests.realcluster.faultproxy_rules import (
    Answer,
    Armed,
    CommitThenTimeOut,
    Delay,
    Drop,
    Duplicate,
    Exchange,
    HangUp,
    Hold,
    Hook,
    Rule,
    Skew,
)
from tests.realcluster.faultproxy_skew import Clock, readable

REMEMBERED: Final = 20_000  # exchanges
BODY_KEPT: Final = 64 * 1024
CONNECTIONS: Final = 512
SILENCE_MOST_S: Final = 120.0  # then the connection is closed, whatever the client does
HOLD_MOST_S: Final = 300.0
LOOK_S: Final = 0.05  # how soon a client that left is noticed
PER_CONNECTION: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
)


@dataclass(frozen=True, slots=True)
class _Request:
    """What goes to the server, whole."""

    method: str
    target: str  # path and query as they came
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class FaultProxy:
    """One proxy in front of one API server."""

    def __init__(self, url: str, ca_path: Path) -> None:
        self._upstream = url.rstrip("/")
        self._ca_path = ca_path
        self._loop = LoopThread("faultproxy")
        self._lock = threading.Lock()
        self._armed: list[Armed] = []
        self._exchanges: deque[Exchange] = deque(maxlen=REMEMBERED)
        self._port = 0
        self._held: socket.socket | None = None  # the port while nobody listens there
        self._watches: dict[int, tuple[web.BaseRequest, Exchange]] = {}  # by id: requests are mappings
        self.url = ""

    # --- life ---

    def start(self) -> Self:
        self._loop.start()
        self._loop.do(self._open())
        return self

    def stop(self) -> None:
        """Closes every connection; requests in flight get no answer."""
        self._loop.do(self._close())
        self._loop.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- control ---

    def arm(self, rule: Rule) -> Armed:
        """From now on; where several rules want a request, the one that was armed first has it."""
        armed = Armed(rule, self._loop.soon)
        with self._lock:
            self._armed.append(armed)
        return armed

    def disarm(self, *which: Armed) -> None:
        """Takes these rules away, or all; what they have in hand goes on."""
        with self._lock:
            self._armed = [each for each in self._armed if which and each not in which]

    def exchanges(self) -> tuple[Exchange, ...]:
        """What was asked, oldest first; the last 20,000."""
        with self._lock:
            return tuple(self._exchanges)

    def forget(self) -> None:
        with self._lock:
            self._exchanges.clear()

    def cut_watches(self, path: str = "", gone: bool = False) -> int:
        """Breaks the open watches on matching paths; how many. `gone`: each ends with an ERROR event of code 410."""
        return self._loop.do(self._cut(path, gone))

    def refuse(self) -> int:
        """Refuses connections from now on and resets those that are open; how many. What was asked already arrives."""
        return self._loop.do(self._refuse())

    def accept(self) -> None:
        """The end of `refuse`; at the same address."""
        self._loop.do(self._accept())

    # --- in the loop ---

    async def _open(self) -> None:
        tls = ssl.create_default_context(cafile=str(self._ca_path))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent", "Accept", "Content-Type"),
        )
        self._server = web.Server(self._handle)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.2)
        await self._runner.setup()
        self._held = _bound(0)
        self._port = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        await self._accept()

    async def _accept(self) -> None:
        if self._held is not None:
            self._site = web.SockSite(self._runner, self._held)
            await self._site.start()  # it listens
            self._held = None

    async def _refuse(self) -> int:
        if self._held is not None:
            return 0
        await self._site.stop()
        self._held = _bound(self._port)  # nobody else gets it meanwhile
        open_now = [each.transport for each in self._server.connections if each.transport is not None]
        for transport in open_now:
            transport.abort()
        return len(open_now)

    async def _close(self) -> None:
        for request, _ in list(self._watches.values()):
            _hang_up(request)
        await self._runner.cleanup()
        await self._session.close()
        if self._held is not None:
            self._held.close()

    async def _cut(self, path: str, gone: bool) -> int:
        cut = [request for request, exchange in self._watches.values() if re.search(path, exchange.path)]
        for request in cut:
            self._watches.pop(id(request), None)
            if gone and request.transport is not None:
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
                request.transport.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(line), line))
                request.transport.close()
            else:
                _hang_up(request)
        return len(cut)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        whole = _Request(request.method, request.raw_path, _passed_on(request.headers), await request.content.read())
        path, _, query = whole.target.partition("?")
        agent = request.headers.get("User-Agent", "")
        exchange = Exchange(time.time(), whole.method, path, query, whole.body[:BODY_KEPT], agent)
        armed = self._strike(exchange)
        try:
            if armed is None:
                return await self._pass(request, whole, exchange)
            exchange.fault = type(armed.rule.fault).__name__
            return await self._spoil(armed, request, whole, exchange)
        except (aiohttp.ClientError, OSError):  # the server is gone: so is our answer
            return _hang_up(request)
        finally:
            exchange.ended_at = time.time()
            if armed is not None:
                armed.end()

    def _strike(self, exchange: Exchange) -> Armed | None:
        """Records the request; the rule that has it."""
        with self._lock:
            self._exchanges.append(exchange)
            striking = [each for each in self._armed if each.strikes(exchange)]
        return striking[0] if striking else None

    async def _spoil(
        self, armed: Armed, request: web.BaseRequest, whole: _Request, exchange: Exchange
    ) -> web.StreamResponse:
        match armed.rule.fault:
            case Answer() as made_up:
                return _told(exchange, _made_up(made_up))
            case Delay(seconds):
                await asyncio.sleep(seconds)
                return await self._pass(request, whole, exchange)
            case Hold():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HOLD_MOST_S):
                        await armed.released()
                return await self._pass(request, whole, exchange)
            case Duplicate():
                reply = await self._forward(whole, exchange)
                await self._forward(whole, exchange)
                return _told(exchange, reply)
            case Skew(seconds):
                return await self._pass(request, replace(whole, headers=readable(whole.headers)), exchange, seconds)
            case Drop(then):
                return await _silence(request, then)
            case CommitThenTimeOut(then):
                await self._forward(whole, exchange)
                return await _silence(request, then)
            case HangUp(commit):
                if commit:
                    await self._forward(whole, exchange)
                return _hang_up(request)
            case _ as never:
                assert_never(never)

    async def _pass(
        self, request: web.BaseRequest, whole: _Request, exchange: Exchange, ahead_s: float = 0.0
    ) -> web.StreamResponse:
        """`ahead_s`: of the server's clock."""
        clock = Clock(ahead_s)
        if exchange.is_watch:
            return await self._stream(request, whole, exchange, clock)
        reply = await self._forward(whole, exchange)
        if ahead_s:
            reply = _Reply(reply.status, clock.headers(reply.headers), clock.body(reply.body))
        return _told(exchange, reply)

    async def _forward(self, whole: _Request, exchange: Exchange) -> _Reply:
        """Goes on when the client leaves: what is in the network's buffers arrives, too."""
        async with self._ask(whole) as answer:
            exchange.server_status = answer.status
            return _Reply(answer.status, _passed_on(answer.headers), await answer.read())

    async def _stream(
        self, request: web.BaseRequest, whole: _Request, exchange: Exchange, clock: Clock
    ) -> web.StreamResponse:
        async with self._ask(whole) as answer:
            exchange.server_status = exchange.status = answer.status
            headers = clock.headers(_passed_on(answer.headers))
            response = web.StreamResponse(status=answer.status, headers=_multi(headers))
            response.enable_chunked_encoding()
            await response.prepare(request)
            self._watches[id(request)] = (request, exchange)
            try:
                while not _left(request):
                    try:
                        async with asyncio.timeout(LOOK_S):
                            chunk = await answer.content.readany()
                    except TimeoutError:
                        continue
                    if not chunk:
                        break
                    await response.write(clock.stream(chunk) if exchange.fault == Skew.__name__ else chunk)
            finally:
                self._watches.pop(id(request), None)
        return response

    def _ask(self, whole: _Request) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        address = URL(self._upstream + whole.target, encoded=True)
        headers = _multi(whole.headers)
        return self._session.request(
            whole.method, address, data=whole.body or None, headers=headers, allow_redirects=False
        )


def _bound(port: int) -> socket.socket:
    """A port that is ours and refuses connections until somebody listens."""
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", port))
    return door


async def _silence(request: web.BaseRequest, then: Hook | None) -> web.StreamResponse:
    """No answer until the client gives up; `then` is called meanwhile, in a thread."""
    if then is not None:
        await asyncio.to_thread(then)
    for _ in range(int(SILENCE_MOST_S / LOOK_S)):
        if _left(request):
            break
        await asyncio.sleep(LOOK_S)
    return _hang_up(request)


def _left(request: web.BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()


def _hang_up(request: web.BaseRequest) -> web.StreamResponse:
    """Resets the connection. The response goes nowhere; the server wants one."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _told(exchange: Exchange, reply: _Reply) -> web.StreamResponse:
    exchange.status = reply.status
    return web.Response(status=reply.status, headers=_multi(reply.headers), body=reply.body)


def _made_up(answer: Answer) -> _Reply:
    """A Status as the API server would send it."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": answer.reason,
        "message": f"fault proxy: {answer.status} {answer.reason}".strip(),
        "code": answer.status,
    }
    retry = () if answer.retry_after_s is None else (("Retry-After", str(answer.retry_after_s)),)
    return _Reply(answer.status, (("Content-Type", "application/json"), *retry), json.dumps(status).encode())


def _passed_on(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in headers.items() if key.lower() not in PER_CONNECTION)


def _multi(headers: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The API server repeats no header that matters (Warning apart: the last one stays)."""
    return dict(headers)
