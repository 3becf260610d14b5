"""An imitation of Prometheus on loopback, for faults that a real one does not have at will.

It understands only what `aggregates.expression` asks: it adds a metric's series up by namespace and pod, and says when
they were sampled. What the expressions mean to a real Prometheus, tests/signals/test_prometheus_real.py shows.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from typing import Any

from aiohttp import web

_NAMES = re.compile(r"\(([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})?\)")
_MARKED = re.compile(r'label_replace\((.*?), "tidegate_part", "([^"]*)", "", ""\)')
Labels = tuple[tuple[str, str], ...]


class FakePrometheus:
    """`set` what it has stored; `status`, `body` and `warnings` spoil its answers."""

    def __init__(self) -> None:
        self.series: dict[str, dict[Labels, float]] = defaultdict(dict)
        self.sampled_at_s = time.time()
        self.clock_ahead_s = 0.0  # of ours
        self.status = 200
        self.body: bytes | None = None
        self.warnings: list[str] = []
        self.queries: list[str] = []
        self._runner: web.AppRunner | None = None

    def set(self, name: str, value: float, pod: str, namespace: str = "ml", **labels: str) -> None:
        self.series[name][tuple(sorted({**labels, "namespace": namespace, "pod": pod}.items()))] = value

    async def start(self) -> str:
        app = web.Application()
        app.router.add_post("/api/v1/query", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        self.queries.append(query)
        if self.body is not None or self.status != 200:
            return web.Response(body=self.body or b"", status=self.status)
        result = self._evaluated(query)
        body = {"status": "success", "data": {"resultType": "vector", "result": result}, "warnings": self.warnings}
        return web.Response(text=json.dumps(body))

    def _evaluated(self, query: str) -> list[dict[str, Any]]:
        now_s, instant_s = time.time() + self.clock_ahead_s, self.sampled_at_s + self.clock_ahead_s
        rows: list[tuple[dict[str, str], float]] = []
        for vector, mark in _MARKED.findall(query):
            values: dict[Labels, float] = {}
            for name in dict.fromkeys(_NAMES.findall(vector)):
                for labels, value in self.series.get(name, {}).items():
                    kept = tuple((key, text) for key, text in labels if key in ("namespace", "pod", "le"))
                    values[kept] = values.get(kept, 0.0) + value
            if mark.startswith("instant"):
                pods = {tuple((key, text) for key, text in labels if key != "le") for labels in values}
                values = dict.fromkeys(pods, instant_s)
            rows += [({**dict(labels), "tidegate_part": mark}, value) for labels, value in values.items()]
        return [{"metric": labels, "value": [now_s, repr(value).replace("inf", "+Inf")]} for labels, value in rows]
