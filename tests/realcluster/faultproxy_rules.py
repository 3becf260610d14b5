"""What the fault proxy can do to a request, and to which ones.

A rule says which requests it is for (method, path, anything else), and which of those it strikes (the nth, and how
many). Faults are values; faultproxy.py carries them out.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
Hook = Callable[[], object]


@dataclass(slots=True)
class Exchange:
    """One request and what became of it. Instants in Unix seconds."""

    at_s: float
    method: str
    path: str  # without the query
    query: str
    body: bytes  # its first 64 KiB
    user_agent: str
    fault: str = ""  # the fault that struck it
    server_status: int | None = None  # what the API server answered; None: nothing, or it was never asked
    status: int | None = None  # what the client was answered; None: nothing
    ended_at: float | None = None

    @property
    def is_watch(self) -> bool:
        return self.method == "GET" and parse_qs(self.query).get("watch") in (["true"], ["1"])

    @property
    def is_write(self) -> bool:
        """Can it change anything on the server?"""
        return self.method in WRITES and "dryRun" not in parse_qs(self.query)

    def json(self) -> Any:
        """The body, decoded; None where there is none."""
        return msgspec.json.decode(self.body) if self.body else None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Hold:
    """Keeps the request until `Armed.release()`, then forwards it, whether its client still waits or not."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Forwards the request after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Sends the request to the server twice; the client gets the first answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answers in the server's stead, which never hears of it: 409, 410, 429 (with Retry-After), 500, 503 …"""

    status: int
    reason: str = ""
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """The server never hears of it, the client never hears back. `then` is called meanwhile (e.g. to kill it)."""

    then: Hook | None = None


@dataclass(frozen=True, slots=True)
class CommitThenTimeOut:
    """The server does it, the client never hears back. `then` is called after the server's answer."""

    then: Hook | None = None


@dataclass(frozen=True, slots=True)
class HangUp:
    """Closes the connection; `commit` says whether the server was asked first."""

    commit: bool = False


@dataclass(frozen=True, slots=True)
class Skew:
    """Dates the answer, and when its objects were created, deleted and leased, by a clock that is so far ahead."""

    seconds: float


Fault = Hold | Delay | Duplicate | Answer | Drop | CommitThenTimeOut | HangUp | Skew


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests a fault is for.

    `methods` empty: any. `path`: a regular expression, found anywhere in the path. `nth`: the first match that is
    struck, counted from 1. `times`: how many are struck from there on; None = all.
    """

    fault: Fault
    methods: Collection[str] = ()
    path: str = ""
    where: Callable[[Exchange], bool] | None = None
    nth: int = 1
    times: int | None = 1

    def matches(self, exchange: Exchange) -> bool:
        if self.methods and exchange.method not in self.methods:
            return False
        if not re.search(self.path, exchange.path):
            return False
        return self.where is None or self.where(exchange)


class Armed:
    """A rule at work, and its handle: what it has seen and struck."""

    def __init__(self, rule: Rule, soon: Callable[[Hook], None]) -> None:
        self.rule = rule
        self.hits: list[Exchange] = []
        self.seen = 0  # matches so far
        self._soon = soon
        self._struck = threading.Event()
        self._over = threading.Event()
        self._released = asyncio.Event()

    def strikes(self, exchange: Exchange) -> bool:
        """Counts a request; is it one to strike?"""
        if not self.rule.matches(exchange):
            return False
        self.seen += 1
        times = self.rule.times
        if self.seen < self.rule.nth or (times is not None and self.seen >= self.rule.nth + times):
            return False
        self.hits.append(exchange)
        self._over.clear()
        self._struck.set()
        return True

    def wait_struck(self, timeout_s: float = 10.0) -> Exchange:
        """The last struck request, once there is one."""
        if not self._struck.wait(timeout_s):
            raise TimeoutError(f"no request met the rule within {timeout_s:g} s ({self.seen} matched)")
        return self.hits[-1]

    def wait_over(self, timeout_s: float = 10.0) -> Exchange:
        """The last struck request, once the proxy has done with it (for silence: once the client gave up)."""
        if not self._over.wait(timeout_s):
            raise TimeoutError(f"no struck request ended within {timeout_s:g} s ({len(self.hits)} struck)")
        return self.hits[-1]

    @property
    def is_over(self) -> bool:
        """Has a request been struck, and has the proxy done with it?"""
        return self._over.is_set()

    def release(self) -> None:
        """Lets held requests go on."""
        self._soon(self._released.set)

    async def released(self) -> None:
        await self._released.wait()

    def end(self) -> None:
        """The proxy has done with a struck request."""
        self._over.set()
