"""The process of the imitated model servers, started by its client (modelserver.ModelServers).

Reads one JSON line (how to reach the API server) from standard input, prints its control port, and ends when standard
input does, that is, when whoever started it is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from aiohttp import web

from tests.realcluster.load import Offer
from tests.realcluster.modelserver_fleet import Fleet
from tests.realcluster.modelserver_page import PageFault
from tests.realcluster.modelserver_watch import ApiAccess, PodWatch


def control(fleet: Fleet) -> web.Application:
    """The loopback endpoint that tests steer with, and the gateway's page."""

    async def load(request: web.Request) -> web.Response:
        body = await request.json()
        fleet.set_offer((body.pop("namespace"), body.pop("workload")), Offer(**body))
        return web.json_response({})

    async def fault(request: web.Request) -> web.Response:
        body = await request.json()
        fleet.set_fault((body["namespace"], body["workload"]), PageFault(body["kind"]), body["pods"])
        await fleet.reconcile()
        return web.json_response({})

    async def state(_: web.Request) -> web.Response:
        return web.json_response(fleet.state())

    async def history(request: web.Request) -> web.Response:
        workload = fleet.workload((request.query["namespace"], request.query["workload"]))
        since = float(request.query["since"])
        return web.json_response([entry for entry in workload.history if entry[0] >= since])

    async def gateway(_: web.Request) -> web.Response:
        return web.Response(text=fleet.gateway_page())

    app = web.Application()
    app.add_routes(
        [
            web.post("/load", load),
            web.post("/fault", fault),
            web.get("/state", state),
            web.get("/history", history),
            web.get("/gateway/metrics", gateway),
        ]
    )
    return app


async def main() -> None:
    loop = asyncio.get_running_loop()
    access = ApiAccess(**json.loads(sys.stdin.readline()))
    loop.run_in_executor(None, _end_with_input)
    watch = PodWatch(access)
    fleet = Fleet(watch)
    runner = web.AppRunner(control(fleet), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch.run())
        group.create_task(fleet.run())


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
