"""The model servers of benchmarks/scale.py: one listener for thousands of pods. An imitation: no model, no vLLM.

KWOK's pod addresses are local in the private namespace, so one socket on all addresses serves every pod; the address
that a reader connected to says which pod is meant. Pages are those of tests/realcluster/modelserver_page, of full size
(about 60 KiB), written once per number in flight: making each anew would cost more than the daemon that reads them.
So their counters stand still; only the requests in flight change.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import cache
from typing import Final

from benchmarks.scale_pods import SERVE, Loads, control, follow, listen, started_with
from tests.e2e.workload import PORT
from tests.realcluster.load import Offer, Replica, Request
from tests.realcluster.modelserver_page import vllm_page
from tests.realcluster.modelserver_watch import ApiAccess, PodWatch

SLOTS: Final = 1000  # all in flight are running
BACKLOG: Final = 4096
HEAD: Final = "HTTP/1.1 {}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\r\n"


@cache
def page(in_flight: int) -> bytes:
    """The whole answer of a pod with so many requests in flight."""
    replica = Replica(Offer(slots=SLOTS))
    for _ in range(in_flight):
        replica.add(Request(0.0), 0.0)
    body = vllm_page(replica, 0.0, "model")
    return HEAD.format("200 OK", len(body)).encode() + body


NOBODY: Final = HEAD.format("503 Service Unavailable", 0).encode()


class Server(asyncio.Protocol):
    """One kept connection to one pod: every request gets the pod's page, whatever it asks for."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._address: str = transport.get_extra_info("sockname")[0]

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            _, _, self._received = self._received.partition(b"\r\n\r\n")
            self._transport.write(self._answer())

    def _answer(self) -> bytes:
        pod = self._loads.by_address.get(self._address)
        if pod is None:
            return NOBODY
        self._loads.shown(pod[0])
        return page(self._loads.in_flight[pod])


async def main() -> None:
    watch, loads = PodWatch(ApiAccess(**started_with()["access"])), Loads()
    await asyncio.get_running_loop().create_server(lambda: Server(loads), "0.0.0.0", PORT, backlog=BACKLOG)
    print(json.dumps({"control": await listen(control(loads))}), flush=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch.run())
        group.create_task(follow(watch, loads))


if __name__ == "__main__" and SERVE in sys.argv:  # started by scale.py; alone it measures nothing
    asyncio.run(main())
