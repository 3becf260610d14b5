"""A small proxy in front of a real Prometheus, for answers that a single one does not give at will.

An imitation of what stands between in large installations (Thanos and Mimir answer in part, and say so in `warnings`),
of a slow network, and of a Prometheus whose clock is wrong. The samples are the real Prometheus's own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from autoscaler.signals.aggregates import INSTANT, PART
from tests.realcluster.faultproxy_loop import LoopThread

WARNING: Final = "fetch series from store-1: connection refused"
ANSWER_S: Final = 10.0


class PrometheusProxy:
    """Set `hidden`, `warns`, `delay_s` and `ahead_s` at any time."""

    def __init__(self, url: str) -> None:
        self._behind = url
        self._loop = LoopThread("prometheus-proxy")
        self.hidden: Callable[[Mapping[str, str]], bool] = lambda labels: False  # series that are left out
        self.warns = False
        self.delay_s = 0.0  # before an answer
        self.ahead_s = 0.0  # of the real clock, in all that is told
        self.url = ""

    def __enter__(self) -> Self:
        self._loop.start()
        self.url = f"http://127.0.0.1:{self._loop.do(self._start())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.stop()

    async def _start(self) -> int:
        app = web.Application()
        app.router.add_post("/api/v1/query", self._query)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
        return int(runner.addresses[0][1])

    async def _query(self, request: web.Request) -> web.Response:
        form = await request.post()
        await asyncio.sleep(self.delay_s)
        try:
            async with self._session.post(f"{self._behind}/api/v1/query", data=dict(form)) as answer:
                status, body = answer.status, await answer.read()
        except aiohttp.ClientError:
            return web.Response(status=502)
        return web.Response(body=self._changed(body), status=status, content_type="application/json")

    def _changed(self, body: bytes) -> bytes:
        if not self.warns and not self.ahead_s:
            return body
        answer: dict[str, Any] = json.loads(body)
        if self.warns:
            answer["warnings"] = [WARNING]
        data = answer.get("data", {})
        data["result"] = [self._dated(each) for each in data.get("result", ()) if not self.hidden(each["metric"])]
        return json.dumps(answer).encode()

    def _dated(self, series: dict[str, Any]) -> dict[str, Any]:
        """The instant of the answer, and those that the question asks for as values."""
        at, value = series["value"]
        if series["metric"].get(PART, "").startswith(INSTANT):
            value = repr(float(value) + self.ahead_s)
        return {**series, "value": [at + self.ahead_s, value]}
