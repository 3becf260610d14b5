"""What the imitated pods of benchmarks/scale.py carry, and how that process is steered.

A workload's load is a number of requests in flight, spread evenly over its ready pods. The two imitations, the model
servers (scale_pages) and the adapter (scale_adapter), are one process each. Each is started with one JSON line on
standard input, prints its ports, and ends when standard input does. All instants are Unix seconds.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from tests.realcluster.modelserver_watch import ApiAccess, Pod, PodWatch

FOLLOW_GAP_S: Final = 0.1  # between two looks at changed pods: thousands come at once
SERVE: Final = "--serve"


class Loads:
    """Which pod carries how much, and when a workload's newest rise was first shown."""

    def __init__(self) -> None:
        self.in_flight: dict[tuple[str, str], int] = {}  # by workload and pod, ready pods only
        self.by_address: dict[str, tuple[str, str]] = {}
        self.first_shown: dict[str, float] = {}
        self._totals: dict[str, int] = {}
        self._pods: dict[str, list[Pod]] = {}
        self._unseen: set[str] = set()

    def set_pods(self, pods: Iterable[Pod]) -> None:
        """These pods exist."""
        groups: dict[str, list[Pod]] = {}
        for pod in pods:
            if pod.ready and pod.ip and not pod.failed:
                groups.setdefault(pod.workload, []).append(pod)
        self._pods = {name: sorted(group, key=lambda pod: pod.name) for name, group in groups.items()}
        self.in_flight = {}
        self.by_address = {}
        for name, group in self._pods.items():
            self.by_address |= {pod.ip: (name, pod.name) for pod in group}
            self._spread(name)

    def set_total(self, workload: str, total: int) -> None:
        """This many in flight from now on."""
        if total > self._totals.get(workload, 0):
            self.first_shown.pop(workload, None)
            self._unseen.add(workload)
        self._totals[workload] = total
        self._spread(workload)

    def shown(self, workload: str) -> None:
        """A reader is about to get a value of this workload."""
        if workload in self._unseen:
            self._unseen.discard(workload)
            self.first_shown[workload] = time.time()

    def pods_of(self, workload: str) -> list[Pod]:
        return self._pods.get(workload, [])

    def _spread(self, workload: str) -> None:
        """19 over three pods: 7, 6, 6."""
        group = self.pods_of(workload)
        if not group:
            return
        each, over = divmod(self._totals.get(workload, 0), len(group))
        for index, pod in enumerate(group):
            self.in_flight[workload, pod.name] = each + (index < over)


async def follow(watch: PodWatch, loads: Loads) -> None:
    """Keep `loads` in step with the pods until cancelled."""
    while True:
        await watch.changed.wait()
        watch.changed.clear()
        loads.set_pods(watch.pods.values())
        await asyncio.sleep(FOLLOW_GAP_S)


def control(loads: Loads) -> web.Application:
    """The loopback endpoint that the benchmark steers with."""

    async def load(request: web.Request) -> web.Response:
        at = time.time()
        for workload, total in (await request.json()).items():
            loads.set_total(workload, total)
        return web.json_response({"at": at})

    async def shown(_: web.Request) -> web.Response:
        return web.json_response(loads.first_shown)

    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.add_routes([web.post("/load", load), web.get("/shown", shown)])
    return app


async def listen(app: web.Application) -> int:
    """Serve `app` on a free port of loopback; the port."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port: int = runner.addresses[0][1]
    return port


def started_with() -> dict[str, Any]:
    """The line on standard input; from here on the process ends when standard input does."""
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    asyncio.get_running_loop().run_in_executor(None, _end_with_input)
    return given


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


class Imitation:
    """The client: starts one of the two processes, steers it, ends it."""

    def __init__(self, module: str, access: ApiAccess, log: Path, **more: str) -> None:
        self._module = module
        self._given = {"access": asdict(access), **more}
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.ports: dict[str, int] = {}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def set_loads(self, totals: Mapping[str, int]) -> float:
        """Requests in flight by workload, from now on; the instant just before."""
        at: float = self._ask("POST", "/load", totals)["at"]
        return at

    def first_shown(self) -> dict[str, float]:
        """By workload, when its newest rise was first handed to a reader; without those that nobody has read."""
        found: dict[str, float] = self._ask("GET", "/shown")
        return found

    def __enter__(self) -> Self:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, SERVE],
                cwd=Path(__file__).resolve().parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._given) + "\n")
        self._process.stdin.flush()
        self.ports = json.loads(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["control"], timeout=30)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()
