"""The imitated model servers of all pods: which listeners are open, what each answers, what was shown when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.realcluster.load import PREFILL_SHARE, Offer, OfferedWorkload, Replica, Request
from tests.realcluster.modelserver_page import PageFault, vllm_page
from tests.realcluster.modelserver_watch import Pod, PodWatch

TICK_S: Final = 0.02
HISTORY: Final = 200_000
WORKER_SHOWS: Final = 50  # requests running
POD_HEADER: Final = "X-Served-By"  # the pod that answered
_TEXT: Final = "text/plain"

Key = tuple[str, str]  # namespace, workload


@dataclass(slots=True)
class Workload:
    """One workload: its load, its faults, and the pages it has served."""

    load: OfferedWorkload
    fault: PageFault = PageFault.OK  # of pods without one of their own, also those to come
    pod_faults: dict[str, PageFault] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)  # by pod, in flight on its newest page
    worker_pages: int = 0  # that somebody asked of workers
    history: deque[tuple[float, str, int]] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def fault_of(self, pod: str) -> PageFault:
        return self.pod_faults.get(pod, self.fault)

    def record(self, pod: str, now: float) -> None:
        """A page of this pod is being served: history has the sum over all pods' newest pages."""
        self.shown[pod] = self.load.replicas[pod].in_flight
        self.history.append((now, pod, sum(self.shown.values())))


@dataclass(slots=True, eq=False)
class Listener:
    """One pod's open port."""

    pod: Pod
    web: web.Server
    socket: asyncio.Server


class Fleet:
    """Opens a listener for every pod that has been Ready, until the pod is gone or failed."""

    def __init__(self, watch: PodWatch, clock: Callable[[], float] = time.time) -> None:
        self.workloads: dict[Key, Workload] = {}
        self._watch = watch
        self._clock = clock
        self._listeners: dict[str, Listener] = {}  # by uid
        self._reconciling = asyncio.Lock()
        self._served: set[str] = set()  # uids that have been Ready: KWOK may take readiness back

    async def run(self) -> None:
        """Follow pods and let time pass until cancelled."""
        while True:
            await self.reconcile()
            self._watch.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._watch.changed.wait(), TICK_S)

    async def reconcile(self) -> None:
        """Make listeners and replicas match the pods."""
        async with self._reconciling:
            await self._reconcile(self._clock())

    async def _reconcile(self, now: float) -> None:
        pods = [pod for pod in self._watch.pods.values() if not pod.failed]
        self._served |= {pod.uid for pod in pods if pod.ready and pod.ip}
        self._served &= {pod.uid for pod in pods}
        alive = [pod for pod in pods if pod.uid in self._served]
        wanted = {pod.uid: pod for pod in alive if self._workload(pod).fault_of(pod.name) is not PageFault.REFUSE}
        for uid in self._listeners.keys() - wanted.keys():
            await self._close(self._listeners.pop(uid))
        for uid, pod in wanted.items():
            if uid not in self._listeners:
                await self._open(pod)
        for key, workload in self.workloads.items():
            mine = [pod for pod in alive if (pod.namespace, pod.workload) == key and not pod.worker]
            present = {pod.name for pod in mine}
            workload.load.set_replicas(present, {pod.name for pod in mine if pod.ready and not pod.terminating}, now)
            for name in workload.shown.keys() - present:
                del workload.shown[name]

    def workload(self, key: Key) -> Workload:
        if key not in self.workloads:
            self.workloads[key] = Workload(OfferedWorkload(self._clock()))
        return self.workloads[key]

    def set_offer(self, key: Key, offer: Offer) -> None:
        self.workload(key).load.set_offer(offer, self._clock())

    def set_fault(self, key: Key, kind: PageFault, pods: float | list[str] | None) -> None:
        """None: all, those to come included. A whole number: so many; below 1: that share; a list: these."""
        workload = self.workload(key)
        known = sorted(workload.load.replicas)
        if isinstance(pods, list):
            chosen: Iterable[str] = pods
        elif pods is None:
            chosen = known
        else:
            chosen = known[: round(pods * len(known)) if pods < 1 else int(pods)]
        if kind is PageFault.RESET:
            for name in chosen:
                workload.load.replicas[name].reset_counters()
        elif pods is None:
            workload.fault = kind
            workload.pod_faults.clear()
        else:
            workload.pod_faults |= dict.fromkeys(chosen, kind)

    def state(self) -> dict[str, Any]:
        """Everything a test may ask, per "namespace/workload"."""
        now = self._clock()
        listening = {listener.pod.name for listener in self._listeners.values()}
        answer: dict[str, Any] = {}
        for (namespace, name), workload in self.workloads.items():
            load = workload.load
            load.advance(now)
            pods = {
                pod: {
                    "running": len(replica.running),
                    "waiting": len(replica.waiting),
                    "served": replica.finished,
                    "listening": pod in listening,
                    "fault": workload.fault_of(pod).value,
                }
                for pod, replica in sorted(load.replicas.items())
            }
            counts = {
                "gateway_pending": len(load.gateway),
                "gateway_total": load.gateway_total,
                "lost": load.lost,
                "refused": load.refused,
                "slowest_s": load.slowest_s,
            }
            answer[f"{namespace}/{name}"] = {"pods": pods, "worker_pages": workload.worker_pages, **counts}
        return answer

    def gateway_page(self) -> str:
        """What a gateway's metrics page would say of all workloads."""
        now = self._clock()
        pending = ["# SYNTHETIC page of an imitated gateway", "# TYPE gateway_pending_requests gauge"]
        total = ["# TYPE gateway_requests_total counter"]
        for (namespace, name), workload in sorted(self.workloads.items()):
            workload.load.advance(now)
            labels = f'{{namespace="{namespace}",workload="{name}"}}'
            pending.append(f"gateway_pending_requests{labels} {len(workload.load.gateway)}")
            total.append(f"gateway_requests_total{labels} {workload.load.gateway_total}")
        return "\n".join([*pending, *total]) + "\n"

    def _workload(self, pod: Pod) -> Workload:
        return self.workload((pod.namespace, pod.workload))

    async def _open(self, pod: Pod) -> None:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            response = await self._answer(pod, request)
            if not response.prepared:
                response.headers[POD_HEADER] = pod.name
            return response

        server = web.Server(answer, handler_cancellation=True, access_log=None)
        try:
            socket = await asyncio.get_running_loop().create_server(server, pod.ip, pod.port)
        except OSError:
            return  # the address still belongs to a pod that is going; the next tick tries again
        self._listeners[pod.uid] = Listener(pod, server, socket)

    async def _close(self, listener: Listener) -> None:
        listener.socket.close()
        await listener.web.shutdown(timeout=0.01)  # 0 would wait for ever

    async def _answer(self, pod: Pod, request: web.BaseRequest) -> web.StreamResponse:
        workload = self._workload(pod)
        replica = workload.load.replicas.get(pod.name)
        if request.path == "/health":
            return web.Response()
        if pod.worker and request.path == "/metrics":
            workload.worker_pages += 1
            return web.Response(body=vllm_page(_busy_worker(), self._clock(), pod.workload))
        if replica is None:
            return web.Response(status=503)
        if request.path == "/metrics":
            return await self._metrics(pod, workload, replica, request)
        if request.path == "/v1/completions" and request.method == "POST":
            return await self._complete(pod, workload, replica, request)
        return web.Response(status=404)

    async def _metrics(
        self, pod: Pod, workload: Workload, replica: Replica, request: web.BaseRequest
    ) -> web.StreamResponse:
        fault = workload.fault_of(pod.name)
        if fault is PageFault.HTTP_500:
            return web.Response(status=500, text="Internal Server Error")
        if fault is PageFault.TIME_OUT:
            await asyncio.sleep(3600)
        if fault is PageFault.ENDLESS:
            return await _endless(request)
        now = self._clock()
        workload.load.advance(now)
        page = vllm_page(replica, now, pod.workload, fault)
        if fault is PageFault.OK:
            workload.record(pod.name, now)
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _complete(
        self, pod: Pod, workload: Workload, replica: Replica, request: web.BaseRequest
    ) -> web.StreamResponse:
        """A completion, streamed or whole, that takes its turn in the replica's queue; cut when its client goes."""
        asked = json.loads(await request.read() or b"{}")
        finished = asyncio.Event()
        mine = Request(0.0, finished.set, tokens=asked.get("max_tokens") or None)
        workload.load.advance(self._clock())
        replica.add(mine, self._clock())
        try:
            if asked.get("stream"):
                return await self._stream(pod, replica, mine, finished, request)
            await finished.wait()
            if mine.refused:
                return web.Response(status=503)
            return web.json_response(_completion("token " * (mine.tokens or replica.offer.output_tokens), "stop"))
        finally:
            replica.abort(mine, self._clock())  # nothing where it has finished

    async def _stream(
        self, pod: Pod, replica: Replica, mine: Request, finished: asyncio.Event, request: web.BaseRequest
    ) -> web.StreamResponse:
        if mine.refused:
            return web.Response(status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", POD_HEADER: pod.name})
        await response.prepare(request)
        while not finished.is_set():
            if mine in replica.running:
                await response.write(f"data: {json.dumps(_completion('token ', None))}\n\n".encode())
            pause_s = mine.service_s * (1 - PREFILL_SHARE) / (mine.tokens or replica.offer.output_tokens)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(finished.wait(), max(pause_s, TICK_S))
        await response.write(f"data: {json.dumps(_completion('', 'stop'))}\n\ndata: [DONE]\n\n".encode())
        return response


def _completion(text: str, reason: str | None) -> dict[str, Any]:
    return {"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def _busy_worker() -> Replica:
    """What a worker's page would add to its leader's, were it read."""
    worker = Replica(Offer(slots=WORKER_SHOWS))
    worker.running = {Request(0.0) for _ in range(WORKER_SHOWS)}
    return worker


async def _endless(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": _TEXT})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"# noise\n" * 32_768)
            await asyncio.sleep(0.005)
    return response
