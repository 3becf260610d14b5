"""Clients of model servers behind the real Gateway, and what each of them saw.

An answer counts as whole when it ended as its server ends it: a stream by its last line, not only without an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp

from tests.realcluster.errors import WaitError
from tests.realcluster.gateway_routes import Route
from tests.realcluster.modelserver_fleet import POD_HEADER

LAST_LINE: Final = b"data: [DONE]\n\n"
LONGEST_S: Final = 120.0
FOLLOWED_WITHIN_S: Final = 30.0
Began = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Visit:
    """What one client saw."""

    at_s: float  # Unix seconds
    took_s: float
    status: int  # 0: no answer
    pod: str  # that answered; "" where the Gateway did, or nobody
    whole: bool
    said: str = ""  # the error, or the beginning of an answer that is not 200

    @property
    def good(self) -> bool:
        return self.status == 200 and self.whole


async def visit(
    session: aiohttp.ClientSession,
    url: str,
    headers: Mapping[str, str],
    *,
    tokens: int,
    stream: bool,
    began: Began | None = None,
) -> Visit:
    """One request for a completion; every outcome is a value. `began` is told the pod with the answer's first byte."""
    at_s, started = time.time(), time.monotonic()
    status, pod, body = 0, "", b""
    asked = {"max_tokens": tokens, "stream": stream}
    try:
        async with session.post(url, json=asked, headers=headers) as response:
            status, pod = response.status, response.headers.get(POD_HEADER, "")
            if began is not None:
                began(pod)
            async for chunk in response.content.iter_any():
                body += chunk
        said, whole = "", not stream or body.endswith(LAST_LINE)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        said, whole = f"{type(error).__name__}: {error}", False
    if status != 200 and not said:
        said = body[:200].decode(errors="replace")
    return Visit(at_s, time.monotonic() - started, status, pod, whole, said)


class Clients:
    """Asks for completions at a route's host. Use it in an `async with` statement."""

    def __init__(self, route: Route, parallel: int = 100) -> None:
        self._url = f"{route.gateway.url}/v1/completions"
        self._headers = {"Host": route.host}
        self._parallel = parallel

    async def __aenter__(self) -> Clients:
        connector = aiohttp.TCPConnector(limit=self._parallel)
        timeout = aiohttp.ClientTimeout(total=LONGEST_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, *, tokens: int = 1, stream: bool = False) -> Visit:
        """One request; every outcome is a value."""
        return await visit(self._session, self._url, self._headers, tokens=tokens, stream=stream)

    async def ask_many(self, count: int, at_once: int = 16) -> list[Visit]:
        """Short requests, so many at once."""
        turns = asyncio.Semaphore(at_once)

        async def one() -> Visit:
            async with turns:
                return await self.ask()

        return list(await asyncio.gather(*(one() for _ in range(count))))

    async def ask_until(self, predicate: Callable[[list[Visit]], bool], what: str, count: int = 1) -> list[Visit]:
        """So many short requests, again and again until the answers are as wanted: Envoy follows a little after the
        route's status."""
        deadline = time.monotonic() + FOLLOWED_WITHIN_S
        while True:
            visits = await self.ask_many(count)
            if predicate(visits):
                return visits
            if time.monotonic() >= deadline:
                raise WaitError(f"waited {FOLLOWED_WITHIN_S:g} s for {what}; last seen: {visits[:5]}")
            await asyncio.sleep(0.02)
