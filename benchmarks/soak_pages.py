"""What the pods of benchmarks/soak.py carry, and the pages that show it: waves of load on every pod's address."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.e2e.workload import PORT
from tests.realcluster.faultproxy_loop import LoopThread
from tests.realcluster.load import Offer, Replica
from tests.realcluster.modelserver_page import vllm_page
from tests.realcluster.modelserver_watch import ApiAccess, Pod, PodWatch

TARGET: Final = 7  # requests in flight a replica: 70 % of metricThreshold
WAVES: Final = 4.0  # times the target, at the crest


@dataclass(frozen=True, slots=True)
class Wave:
    """The requests in flight of one workload over time."""

    name: str
    period_s: float
    phase: float

    def in_flight(self, now_s: float) -> int:
        """One value a second, so that the pages of all its pods agree. Idle for about a fifth of each period."""
        second = int(now_s)
        noise = random.Random(f"{self.name} {second // 3}").gauss(0, 0.4)
        height = 2 + 2.7 * math.sin(math.tau * second / self.period_s + self.phase) + noise
        return round(TARGET * min(WAVES, max(0.0, height)))


class PageFault(StrEnum):
    """How the pages of a workload fail."""

    ERROR = "http 500"
    SILENT = "silent"
    CUT = "cut"
    NAN = "nan"


class PodPages:
    """One socket on every pod's address. Pods that nobody knows reset the connection, as do those that are gone."""

    def __init__(self, access: ApiAccess) -> None:
        self.waves: dict[str, Wave] = {}
        self.faults: dict[str, PageFault] = {}
        self.gateway_fails = False
        self.served = 0
        self._loop = LoopThread("pod pages")
        self._watch = PodWatch(access)
        self._pods: dict[str, Pod] = {}  # by address
        self._ready: dict[str, list[str]] = {}  # workload -> addresses, sorted
        self._finished: Counter[str] = Counter()  # by uid
        self._connections: set[_Connection] = set()
        whole = vllm_page(Replica(Offer()), 0.0, "soak").decode().splitlines()
        ours = ("vllm:num_requests_", "vllm:request_success_total")
        self._rest = "\n".join(line for line in whole if not line.startswith(ours)) + "\n"

    def __enter__(self) -> PodPages:
        self._loop.start()
        self._loop.do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.stop()

    @property
    def ready(self) -> int:
        return sum(map(len, self._ready.values()))

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "0.0.0.0", PORT)
        self._tasks = [loop.create_task(self._watch.run()), loop.create_task(self._follow())]

    async def _follow(self) -> None:
        while True:
            await self._watch.changed.wait()
            self._watch.changed.clear()
            alive = [pod for pod in self._watch.pods.values() if pod.ip and not pod.failed]
            self._pods = {pod.ip: pod for pod in alive}
            ready: dict[str, list[str]] = {}
            for pod in sorted(alive, key=lambda each: each.name):
                if pod.ready and not pod.terminating:
                    ready.setdefault(pod.workload, []).append(pod.ip)
            self._ready = ready
            uids = {pod.uid for pod in alive}
            self._finished = Counter({uid: n for uid, n in self._finished.items() if uid in uids})
            for connection in [each for each in self._connections if each.uid is not None and each.uid not in uids]:
                connection.hang_up()
            await asyncio.sleep(0.05)

    def joined(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def left(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def answer(self, connection: _Connection) -> bytes | None:
        """The whole answer; None: none."""
        if connection.address == "127.0.0.1":
            return _reply(b"503 Unavailable" if self.gateway_fails else b"200 OK", self._gateway())
        pod = self._pods.get(connection.address)
        if pod is None or (connection.uid or pod.uid) != pod.uid:
            connection.hang_up()
            return None
        connection.uid = pod.uid
        self.served += 1
        match self.faults.get(pod.workload):
            case PageFault.ERROR:
                return _reply(b"500 Internal Server Error", b"no\n")
            case PageFault.SILENT:
                return None
            case PageFault.CUT:
                connection.ends = True
                return _reply(b"200 OK", self._page(pod))[:2000]
            case PageFault.NAN:
                return _reply(b"200 OK", b"vllm:num_requests_running NaN\nvllm:num_requests_waiting NaN\n")
            case None:
                return _reply(b"200 OK", self._page(pod))

    def _page(self, pod: Pod) -> bytes:
        wave, serving = self.waves.get(pod.workload), self._ready.get(pod.workload, [])
        mine = 0
        if wave is not None and pod.ip in serving:
            share, rest = divmod(wave.in_flight(time.time()), len(serving))
            mine = share + (serving.index(pod.ip) < rest)
        self._finished[pod.uid] += mine
        labels = 'engine="0",model_name="soak"'
        return (
            f"vllm:num_requests_running{{{labels}}} {float(mine)}\n"
            f"vllm:num_requests_waiting{{{labels}}} 0.0\n"
            f'vllm:request_success_total{{{labels},finished_reason="stop"}} {float(self._finished[pod.uid])}\n'
            f"{self._rest}"
        ).encode()

    def _gateway(self) -> bytes:
        """Requests wait here while no pod is ready."""
        now_s, waves = time.time(), sorted(self.waves.items())  # a copy: the other thread changes it
        waiting = ((name, 0 if self._ready.get(name) else wave.in_flight(now_s)) for name, wave in waves)
        return "".join(f'gateway_requests_waiting{{service="{name}"}} {n}\n' for name, n in waiting).encode()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with kept connections and no bodies; as little as the daemon's client needs."""

    def __init__(self, pages: PodPages) -> None:
        self._pages = pages
        self._asked = b""
        self._transport: asyncio.Transport | None = None
        self.address = ""
        self.uid: str | None = None  # of the pod that it belongs to, once that was asked
        self.ends = False  # after the answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.address = transport.get_extra_info("sockname")[0]
        self._pages.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pages.left(self)

    def data_received(self, data: bytes) -> None:
        self._asked += data
        while b"\r\n\r\n" in self._asked:
            self._asked = self._asked.partition(b"\r\n\r\n")[2]
            answer = self._pages.answer(self)
            if answer is not None and self._transport is not None:
                self._transport.write(answer)
                if self.ends:
                    self._transport.close()

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _reply(status: bytes, body: bytes) -> bytes:
    kind = b"Content-Type: text/plain; version=0.0.4"
    return b"HTTP/1.1 %b\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body)
