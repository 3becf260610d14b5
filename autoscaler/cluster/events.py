"""Writes events (events.k8s.io/v1) about workloads: a bounded queue, never in the way of a decision."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError
from autoscaler.cluster.inferenceworkload import API_VERSION, KIND, InferenceWorkload
from autoscaler.cluster.resources import EVENTS
from autoscaler.model.report import EventReport

QUEUE_MOST: Final = 1000
NOTE_MOST: Final = 1024  # the API server's limit, in bytes
CONTROLLER: Final = "tidegate.dev/controller"

log = structlog.get_logger()


class EventWriter:
    """Queues events and writes them one by one. A full queue drops the newest and counts it in `dropped`."""

    def __init__(self, api: KubeApi, instance: str) -> None:
        """`instance` names this process, e.g. its pod."""
        self._api = api
        self._instance = instance
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(QUEUE_MOST)
        self.dropped = 0

    def emit(self, workload: InferenceWorkload, event: EventReport, at_s: float) -> None:
        body = self._render(workload, event, at_s)
        try:
            self._queue.put_nowait((workload.metadata.namespace, body))
        except asyncio.QueueFull:
            self.dropped += 1

    @property
    def queued(self) -> int:
        return self._queue.qsize()

    async def flush(self) -> None:
        """Returns when all that was queued has been written or given up; `run` must be running."""
        await self._queue.join()

    async def run(self) -> None:
        while True:
            namespace, body = await self._queue.get()
            try:
                await self._api.call("POST", EVENTS.path(namespace), body=body)
            except ApiError as error:
                self.dropped += 1
                log.warning("event.not_written", reason=body["reason"], error=str(error))
            finally:
                self._queue.task_done()

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
