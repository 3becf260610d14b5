"""The fault matrix's pods: a real HTTP server at every Ready pod's own address, each with its page and its fault.

KWOK's pods have no containers, so these answer for them; all in one thread of this process. A pod that comes later is
healthy and carries a small share.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from tests.faults.cells import Fault
from tests.faults.page import Shown
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy_loop import LoopThread
from tests.realcluster.modelserver_watch import ApiAccess, Pod, PodWatch

LATER_SHARE: Final = 0.5  # of pods that are not among the first
HUGE_BYTES: Final = 100 * 1024 * 1024
_NOISE: Final = b"# noise\n" * 32_768  # 256 KiB
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
_HEAD: Final = _OK + b"Connection: close\r\n\r\n"
Writer = asyncio.StreamWriter
Numbers = Callable[[int], bool]


def every(number: int) -> bool:
    return True


def _raise_open_files() -> None:
    """Each pod is a listener and a connection or two; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Server:
    """One pod's listener."""

    def __init__(self, pod: Pod, shown: Shown) -> None:
        self.pod = pod
        self.shown = shown
        self._listener: asyncio.Server | None = None
        self._open: set[Writer] = set()

    async def reconcile(self) -> None:
        """A dead pod's port is closed; every other one is open."""
        dead = self.shown.fault is Fault.ONE_DEAD
        if dead and self._listener is not None:
            self.close()
        elif not dead and self._listener is None:
            with contextlib.suppress(OSError):  # the address still belongs to a pod that goes
                self._listener = await asyncio.start_server(self._serve, self.pod.ip, self.pod.port)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self._open.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if await self._answer(reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass  # the end of the servers; a cancelled handler is an error to asyncio's streams before Python 3.12
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: Writer) -> bool:
        """True where the connection ends with it."""
        match self.shown.fault:
            case Fault.TIME_OUT:
                await reader.read(1)  # until whoever asked goes away
                return True
            case Fault.HTTP_5XX:
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nsorry")
            case Fault.HUGE:
                writer.write(_HEAD + self.shown.idle_page())
                for _ in range(HUGE_BYTES // len(_NOISE)):
                    writer.write(_NOISE)
                    await writer.drain()
                return True
            case Fault.ENDLESS:
                writer.write(_HEAD + self.shown.idle_page())
                while True:
                    writer.write(_NOISE[:4096])
                    await writer.drain()
                    await asyncio.sleep(0.1)
            case _:
                page = self.shown.page(time.time())
                head = (
                    f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(page)}\r\n\r\n"
                )
                writer.write(head.encode() + page)
        await writer.drain()
        return False


class PodServers:
    """The servers of one namespace's pods. `signals`: what each workload is scaled by; `share`: at first."""

    def __init__(self, cluster: Cluster, namespace: str, signals: dict[str, str], share: float) -> None:
        access = ApiAccess(cluster.url, cluster.admin_token, str(cluster.ca_path), namespace)
        self._watch = PodWatch(access)
        self._signals = signals
        self._share = share
        self._loop = LoopThread("pods")
        self._servers: dict[str, _Server] = {}  # by uid, in the order of coming

    def __enter__(self) -> Self:
        self._loop.start()
        self._loop.soon(self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.do(self._close())
        self._loop.stop()

    def load(self, workloads: Iterable[str], share: float, only: Numbers = every) -> None:
        """Another share from now on for pods of these workloads, by their number: 0 is a workload's first pod."""
        self._loop.do(self._each(workloads, only, lambda shown: shown.carry(share, time.time())))

    def fault(self, workloads: Iterable[str], fault: Fault | None, only: Numbers = every) -> None:
        """Another fault from now on; None ends it."""
        self._loop.do(self._each(workloads, only, lambda shown: shown.spoil(fault, time.time())))

    async def _each(self, workloads: Iterable[str], only: Numbers, change: Callable[[Shown], None]) -> None:
        if self._running.done():
            self._running.result()  # why nobody serves new pods any more
        chosen = frozenset(workloads)
        for server in list(self._servers.values()):
            if server.pod.workload in chosen and only(server.shown.number):
                change(server.shown)
                await server.reconcile()

    async def _close(self) -> None:
        """The cluster hands addresses out again, so no listener may stay."""
        self._running.cancel()
        for server in self._servers.values():
            server.close()

    def _begin(self) -> None:
        self._running = asyncio.get_running_loop().create_task(self._run())

    def pods(self) -> list[tuple[str, str, int]]:
        """(workload, pod, number) of those that are there."""
        return [(each.pod.workload, each.pod.name, each.shown.number) for each in list(self._servers.values())]

    async def _run(self) -> None:
        watching = asyncio.ensure_future(self._watch.run())
        try:
            while True:
                await self._reconcile()
                self._watch.changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._watch.changed.wait(), 0.2)
        finally:
            watching.cancel()

    async def _reconcile(self) -> None:
        pods = {pod.uid: pod for pod in self._watch.pods.values() if pod.ready and pod.ip and not pod.failed}
        for uid in self._servers.keys() - pods.keys():
            self._servers.pop(uid).close()
        taken: dict[str, set[int]] = defaultdict(set)
        for each in self._servers.values():
            taken[each.pod.workload].add(each.shown.number)
        for uid, pod in pods.items():
            if uid not in self._servers and pod.workload in self._signals:
                number = next(each for each in range(1_000) if each not in taken[pod.workload])
                taken[pod.workload].add(number)
                share = self._share if number < 3 else LATER_SHARE
                shown = Shown(self._signals[pod.workload], number, share, time.time())
                self._servers[uid] = _Server(pod, shown)
        for server in list(self._servers.values()):
            await server.reconcile()
