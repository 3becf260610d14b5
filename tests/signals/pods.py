"""Real HTTP servers on loopback that stand for pods: each has an address of its own, one port for all.

What a server answers is set by the test, as bytes for a page or as a behaviour that breaks the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from enum import StrEnum

Writer = asyncio.StreamWriter


class Misbehaviour(StrEnum):
    HANG = "hang"  # accepts, reads, never answers
    ENDLESS = "endless"
    CUT = "cut"  # promises more bytes than it sends
    GARBAGE = "garbage"  # not HTTP
    TRICKLE = "trickle"  # a byte now and then, for ever
    ENDLESS_HEADER = "endless header"


class Pod:
    """One server. `page` or `misbehaviour` may be changed at any time; `headers` and `body` are the last request's."""

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.page: bytes = b""
        self.status = "200 OK"
        self.extra_header = ""
        self.misbehaviour: Misbehaviour | None = None
        self.asked_at: list[float] = []  # loop time of every request
        self.connections = 0
        self.headers = ""
        self.body = b""
        self.statuses: list[str] = []  # of the next answers; then `status`
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def requests(self) -> int:
        return len(self.asked_at)

    async def start(self, port: int = 0) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, self.ip, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for serving in list(self._serving):
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        serving = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    self.headers = (await reader.readuntil(b"\r\n\r\n")).decode()
                    self.body = await reader.readexactly(_length(self.headers))
                    self.asked_at.append(asyncio.get_running_loop().time())
                    await self._answer(writer)
        finally:
            writer.transport.abort()

    async def _answer(self, writer: Writer) -> None:
        if self.misbehaviour is not None:
            await _MISBEHAVE[self.misbehaviour](writer)
            return
        status = self.statuses.pop(0) if self.statuses else self.status
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(self.page)}\r\n{self.extra_header}\r\n"
        writer.write(head.encode() + self.page)
        await writer.drain()


def _length(headers: str) -> int:
    found = re.search(r"(?im)^content-length: *([0-9]+)", headers)
    return int(found[1]) if found else 0


async def _hang(_: Writer) -> None:
    await asyncio.Event().wait()


async def _repeat(writer: Writer, head: bytes, part: bytes, every_s: float) -> None:
    writer.write(head)
    while True:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(every_s)


async def _cut(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfoo 1\n")
    await writer.drain()
    raise ConnectionResetError


async def _garbage(writer: Writer) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    await writer.drain()
    raise ConnectionResetError


_OK = b"HTTP/1.1 200 OK\r\n\r\n"
_MISBEHAVE: dict[Misbehaviour, Callable[[Writer], Awaitable[None]]] = {
    Misbehaviour.HANG: _hang,
    Misbehaviour.ENDLESS: lambda writer: _repeat(writer, _OK, b"foo 1\n" * 10_000, 0.0),
    Misbehaviour.CUT: _cut,
    Misbehaviour.GARBAGE: _garbage,
    Misbehaviour.TRICKLE: lambda writer: _repeat(writer, _OK, b"#\n", 0.02),
    Misbehaviour.ENDLESS_HEADER: lambda writer: _repeat(writer, b"HTTP/1.1 200 OK\r\nX: ", b"x" * 10_000, 0.0),
}


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait for the condition; fail when the deadline passes."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in another part of the program
            await asyncio.sleep(0.01)
