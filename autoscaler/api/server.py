"""The daemon's own pages: /healthz, /readyz, /metrics and /api/v1/workloads. Read-only; shows only the board."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from aiohttp import web

from autoscaler.api import exposition
from autoscaler.api.board import Board
from autoscaler.model.report import WorkloadReport
from autoscaler.model.workload import WorkloadKey

BOARD: web.AppKey[Board] = web.AppKey("board", Board)
RENDERER: web.AppKey[ThreadPoolExecutor] = web.AppKey("renderer", ThreadPoolExecutor)


def application(board: Board) -> web.Application:
    """The web application; the caller runs it."""
    app = web.Application()
    app[BOARD] = board
    app[RENDERER] = ThreadPoolExecutor(1, "renderer")  # one: each thread keeps some megabytes of its own for ever
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/api/v1/workloads", _workloads)
    app.router.add_get("/api/v1/workloads/{namespace}/{name}", _workload)
    return app


async def _healthz(request: web.Request) -> web.Response:
    good, text = request.app[BOARD].alive()
    return web.Response(text=text + "\n", status=200 if good else 503)


async def _readyz(request: web.Request) -> web.Response:
    good, text = request.app[BOARD].ready()
    return web.Response(text=text + "\n", status=200 if good else 503)


async def _metrics(request: web.Request) -> web.Response:
    collected = exposition.families(request.app[BOARD])
    body = await asyncio.get_running_loop().run_in_executor(request.app[RENDERER], exposition.render, collected)
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _workloads(request: web.Request) -> web.Response:
    report = request.app[BOARD].report
    items = [describe(each) for _, each in sorted(report.workloads.items())] if report else []
    return _json({"at": report.at_s if report else None, "items": items})


async def _workload(request: web.Request) -> web.Response:
    report = request.app[BOARD].report
    key = WorkloadKey(request.match_info["namespace"], request.match_info["name"])
    found = report.workloads.get(key) if report else None
    if found is None:
        return _json({"message": f"no workload {key} is known here"}, status=404)
    return _json(describe(found))


def describe(report: WorkloadReport) -> dict[str, Any]:
    """A workload's report as JSON: camelCase keys, as in the API objects."""
    plain = msgspec.to_builtins(report)
    del plain["key"], plain["events"]
    for part in ("spec", "grant"):
        if plain[part] is not None:
            plain[part].pop("key")
    camel: dict[str, Any] = _camel(plain)
    return {"namespace": report.key.namespace, "name": report.key.name, **camel}


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {_camel_key(key): _camel(each) for key, each in value.items()}
    return [_camel(each) for each in value] if isinstance(value, list | tuple) else value


def _camel_key(key: str) -> str:
    """`stable_window_s` reads stableWindowSeconds."""
    first, *rest = (key.removesuffix("_s") + "_seconds" if key.endswith("_s") else key).split("_")
    return first + "".join(part.capitalize() for part in rest)


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
