"""An imitation of the API server's list and watch, for faults that the real one does not show on demand.

It keeps pods of one namespace, pages its lists and replays its history to watches. Instead of that it does what
`on_list` and `on_watch` say. A real aiohttp server on loopback: what is tested includes the transport.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

NAMESPACE: Final = "ns"
PATH: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    kind: str  # "list" or "watch"
    at_s: float
    version: str
    continues: str
    authorization: str


@dataclass
class FakeApi:
    """`start` it, change pods with `put` and `delete`."""

    on_list: Callable[[FakeApi, web.Request], Awaitable[web.StreamResponse | None]] | None = None
    on_watch: Callable[[FakeApi, web.Request], Awaitable[web.StreamResponse]] | None = None
    page_size: int | None = None  # instead of the size asked for
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: int = 100
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    _history: list[tuple[int, bytes]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    # --- life ---

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get(PATH, self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """The port refuses connections, open ones end."""
        if self._runner is not None:
            self.cut()
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- what it holds ---

    def put(self, name: str, **labels: str) -> dict[str, Any]:
        """Creates or changes a pod; watches hear of it."""
        kind = "MODIFIED" if name in self.pods else "ADDED"
        self.version += 1
        self.pods[name] = pod(name, self.version, **labels)
        self._tell(kind, self.pods[name])
        return self.pods[name]

    def delete(self, name: str) -> None:
        gone = self.pods.pop(name)
        self.version += 1
        self._tell("DELETED", {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}})

    def bookmark(self) -> None:
        """As if something had happened to objects that nobody watches here."""
        self.version += 10
        self._tell("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(self.version)}})

    def cut(self) -> None:
        """Ends every watch, as a server does after timeoutSeconds."""
        self._news.set()
        self._news = asyncio.Event()

    def count(self, kind: str, since_s: float = 0.0) -> int:
        """Requests of that kind since an instant of time.monotonic."""
        return len([each for each in self.asked if each.kind == kind and each.at_s >= since_s])

    def _tell(self, kind: str, item: dict[str, Any]) -> None:
        self._history.append((self.version, line(kind, item)))
        self._news.set()

    # --- what it answers ---

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        kind = "watch" if query.get("watch") == "true" else "list"
        version, continues = query.get("resourceVersion", ""), query.get("continue", "")
        authorization = request.headers.get("Authorization", "")
        self.asked.append(Asked(kind, time.monotonic(), version, continues, authorization))
        if kind == "watch":
            return await (self.on_watch or FakeApi.follow)(self, request)
        answer = await self.on_list(self, request) if self.on_list else None
        return answer or self.page(request)

    def page(self, request: web.Request) -> web.Response:
        """One page of the list; the continue token holds the list's version and the next name."""
        limit = self.page_size or int(request.query["limit"])
        version, _, first = request.query.get("continue", f"{self.version}/").partition("/")
        names = sorted(name for name in self.pods if name >= first)
        following = f"{version}/{names[limit]}" if len(names) > limit else ""
        metadata = {"resourceVersion": version, "continue": following}
        items = [self.pods[name] for name in names[:limit]]
        return web.json_response({"kind": "PodList", "metadata": metadata, "items": items})

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """A watch without fault."""
        seen = int(request.query["resourceVersion"])
        response = await opened(request)
        while True:
            news = self._news
            for version, event in self._history:
                if version > seen:
                    await response.write(event)
                    seen = version
            await news.wait()
            if news is not self._news:
                return response
            news.clear()


async def opened(request: web.Request) -> web.StreamResponse:
    """The head of a watch's answer."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def line(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def status(code: int, message: str = "", **details: Any) -> dict[str, Any]:
    """What an ERROR event carries."""
    return {"kind": "Status", "status": "Failure", "code": code, "message": message, "metadata": {}, "details": details}


def pod(name: str, version: int, **labels: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "labels": labels,
    }
    return {"kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}}
