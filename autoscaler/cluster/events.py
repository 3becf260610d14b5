"""Writes events (events.k8s.io/v1) about workloads: a bounded queue, never in the way of a decision.

What cannot be written now is kept and tried again, later and later, as long as the error may go away; other events are
tried in between. A server that is away costs one warning at most, however many events it costs.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError, Conflict, TooManyRequests
from autoscaler.cluster.inferenceworkload import API_VERSION, KIND, InferenceWorkload
from autoscaler.cluster.resources import EVENTS
from autoscaler.cluster.watch import BackOff, Timing
from autoscaler.model.report import EventReport

QUEUE_MOST: Final = 1000
NOTE_MOST: Final = 1024  # the API server's limit, in bytes
CONTROLLER: Final = "tidegate.dev/controller"
TIMING: Final = Timing(back_off_first_s=1.0, back_off_most_s=30.0)
KEPT_MOST_S: Final = 600.0  # then it is no news any more

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class _Queued:
    namespace: str
    body: dict[str, Any]
    since: float  # loop time


class EventWriter:
    """Queues events and writes them one by one. What is not written is counted in `dropped`.

    A full queue drops the newest.
    """

    def __init__(self, api: KubeApi, instance: str) -> None:
        """`instance` names this process, e.g. its pod."""
        self._api = api
        self._instance = instance
        self._queue: deque[_Queued] = deque()
        self._stirred = asyncio.Event()  # there is something to try now
        self._empty = asyncio.Event()
        self._empty.set()
        self._back_off = BackOff(TIMING)
        self._warned = False  # of those given up since one was written
        self.dropped = 0

    def emit(self, workload: InferenceWorkload, event: EventReport, at_s: float) -> None:
        if len(self._queue) >= QUEUE_MOST:
            self.dropped += 1
            return
        body = self._render(workload, event, at_s)
        self._queue.append(_Queued(workload.metadata.namespace, body, asyncio.get_running_loop().time()))
        if self._empty.is_set():
            self._empty.clear()
            self._stirred.set()

    @property
    def queued(self) -> int:
        return len(self._queue)

    async def flush(self) -> None:
        """Tries again at once, and returns when all has been written or given up; `run` must be running."""
        self._stirred.set()
        await self._empty.wait()

    async def run(self) -> None:
        while True:
            self._stirred.clear()
            wait_s = await self._turn() if self._queue else None
            if not self._queue:
                self._empty.set()
            elif wait_s is None:
                continue
            try:
                async with asyncio.timeout(wait_s if self._queue else None):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    async def _turn(self) -> float | None:
        """Tries the first one. Seconds until the next try; None: at once."""
        event = self._queue[0]
        try:
            await self._api.call("POST", EVENTS.path(event.namespace), body=event.body)
        except Conflict:  # its name is nobody else's: an earlier try arrived
            pass
        except ApiError as error:
            if error.retryable:
                return self._later(error)
            self._give_up(event, error)
            return None
        self._queue.popleft()
        self._back_off.reset()
        self._warned = False
        return None

    def _later(self, error: ApiError) -> float:
        """Behind the others: what one namespace's webhook refuses must not hold up all."""
        now = asyncio.get_running_loop().time()
        for event in [each for each in self._queue if now - each.since >= KEPT_MOST_S]:
            self._give_up(event, error)
        self._queue.rotate(-1)
        told_s = error.retry_after_s if isinstance(error, TooManyRequests) else 0.0
        return max(self._back_off.next_s(), min(told_s, TIMING.told_most_s))

    def _give_up(self, event: _Queued, error: ApiError) -> None:
        self._queue.remove(event)
        self.dropped += 1
        if not self._warned:
            log.warning("event.not_written", reason=event.body["reason"], error=str(error))
        self._warned = True

    def _render(self, workload: InferenceWorkload, event: EventReport, at_s: float) -> dict[str, Any]:
        meta = workload.metadata
        note = event.note.encode()[:NOTE_MOST].decode(errors="ignore")
        return {
            "apiVersion": EVENTS.group_version,
            "kind": EVENTS.kind,
            "metadata": {"name": f"{meta.name}.{uuid.uuid4().hex[:16]}", "namespace": meta.namespace},
            "eventTime": datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": event.reason,
            "reason": event.reason,
            "note": note,
            "type": "Warning" if event.warning else "Normal",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": meta.name,
                "namespace": meta.namespace,
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
            },
        }
