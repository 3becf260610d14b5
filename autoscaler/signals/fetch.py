"""Gets one page over HTTP within bounds of time and size.

Never follows a redirect, never uses a proxy from the environment, keeps no cookie, never unpacks a body: whoever
answers is not trusted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import aiohttp
from yarl import URL

from autoscaler.signals.faults import Fault, http_fault

MAX_HEADER_BYTES: Final = 16_384
# Bodies in memory at once. Above it only pages that are large themselves are cut, so that a tenant with endless pages
# harms nobody else.
MAX_BYTES_IN_FLIGHT: Final = 64 * 1024 * 1024
_SMALL_PAGE_BYTES: Final = 1024 * 1024


def plain_session(headers: Mapping[str, str], keep_alive: bool = True) -> aiohttp.ClientSession:
    """A session that knows nobody: no proxy, no cookie, no unpacking. Callers must refuse redirects."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, force_close=not keep_alive),
        headers={**headers, "Accept-Encoding": "identity", "User-Agent": "tidegate"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )


class PageFetcher:
    """One session for all pages. Made inside a running loop; `close` when done."""

    def __init__(self, timeout_s: float, max_page_bytes: int) -> None:
        self.set_limits(timeout_s, max_page_bytes)
        self._bytes_in_flight = 0
        self._session = plain_session({"Accept": "text/plain;version=0.0.4"})

    def set_limits(self, timeout_s: float, max_page_bytes: int) -> None:
        """For the pages to come."""
        self._timeout_s = timeout_s
        self._max_page_bytes = max_page_bytes
        # The total is ours (see `get`): aiohttp's own, when it meets a cancellation, takes both back and goes on.
        self._connect = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s / 2)

    async def close(self) -> None:
        await self._session.close()

    async def get(self, url: URL) -> bytes | str:
        """The page, or why there is none (a `Fault`, or `http_fault` of the status)."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.get(url, allow_redirects=False, timeout=self._connect) as response,
            ):
                if response.status != 200:
                    response.close()  # an endless error page is not drained either
                    return http_fault(response.status)
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    response.close()
                    return Fault.NOT_TEXT
                body = await self._body(response)
                if body is None:
                    response.close()
                    return Fault.TOO_LARGE
                return body
        except TimeoutError:
            return Fault.TIME_OUT
        except (aiohttp.ClientError, ValueError, OSError) as error:
            return fault_of(error)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The whole body; None where it is too large."""
        if (response.content_length or 0) > self._max_page_bytes:
            return None
        chunks: list[bytes] = []
        size = 0
        try:
            async for chunk in response.content.iter_any():
                chunks.append(chunk)
                size += len(chunk)
                self._bytes_in_flight += len(chunk)
                crowded = self._bytes_in_flight > MAX_BYTES_IN_FLIGHT and size > _SMALL_PAGE_BYTES
                if size > self._max_page_bytes or crowded:
                    return None
        finally:
            self._bytes_in_flight -= size
        return b"".join(chunks)


def fault_of(error: Exception) -> Fault:
    """Why there is no answer, in our words."""
    match error:
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return Fault.REFUSED
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL():
            return Fault.UNREACHABLE
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return Fault.CUT_SHORT
        case aiohttp.ClientError() | ValueError():
            return Fault.NOT_TEXT
        case _:
            return Fault.UNREACHABLE
