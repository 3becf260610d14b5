"""Everything that happens to the objects of one namespace, seen by watches of our own beside the daemon.

A watch shows every version that the server stored, so nothing between two looks is missed.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError
from tests.realcluster.faultproxy_loop import LoopThread

WORKLOAD_LABEL: Final = "tidegate.dev/workload"
PATHS: Final = {
    "InferenceWorkload": "/apis/tidegate.dev/v1alpha1/namespaces/{}/inferenceworkloads",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ControllerRevision": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "Service": "/api/v1/namespaces/{}/services",
    "Pod": "/api/v1/namespaces/{}/pods",
    "LeaderWorkerSet": "/apis/leaderworkerset.x-k8s.io/v1/namespaces/{}/leaderworkersets",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "QuotaLedger": "/apis/tidegate.dev/v1alpha1/namespaces/{}/quotaledgers",
}
ALWAYS: Final = ("InferenceWorkload", "Deployment", "ControllerRevision", "Service", "Pod")
OTHERS: Final = {"LeaderWorkerSet", "StatefulSet"}  # whose own ControllerRevisions carry the labels of our pods
OF_NOBODY: Final = "*"  # what a ledger belongs to: all workloads of its project
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One version of one object. `type`: ADDED, MODIFIED or DELETED (then its last version)."""

    at_s: float  # monotonic
    type: str
    kind: str
    workload: str  # that it belongs to
    object: Object

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def version(self) -> int:
        """Grows with time, across all kinds."""
        return int(self.object["metadata"]["resourceVersion"])


class World:
    """Follows one namespace. Workloads, what carries a workload's label, routes of a workload's name, and ledgers."""

    def __init__(self, cluster: Cluster, namespace: str, kinds: Sequence[str] = ALWAYS) -> None:
        """`kinds` must be served."""
        self._cluster = cluster
        self.namespace = namespace
        self.kinds = tuple(kinds)
        self._loop = LoopThread("world")
        self._lock = threading.Lock()
        self._now: dict[tuple[str, str], Object] = {}
        self._changes: list[Change] = []
        self._ended = ""

    def __enter__(self) -> Self:
        self._loop.start()
        for kind in self.kinds:
            opened = threading.Event()
            self._loop.soon(lambda kind=kind, opened=opened: self._begin(kind, opened))  # type: ignore[misc]
            if not opened.wait(20):
                raise ClusterError(f"no watch on {kind} in {self.namespace}: {self._ended or 'silence'}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.stop()

    def objects(self, kind: str, workload: str | None = None) -> list[Object]:
        """What exists now, sorted by name."""
        self._check()
        with self._lock:
            found = [each for (its, _), each in sorted(self._now.items()) if its == kind]
        return [each for each in found if workload in (None, _workload_of(kind, each))]

    def workload(self, name: str) -> Object:
        """The InferenceWorkload; LookupError where there is none."""
        for each in self.objects("InferenceWorkload", name):
            return each
        raise LookupError(name)

    def holds(self, workload: str | None = None) -> list[Object]:
        """What the ledgers hold, of one workload or of all."""
        owner = f"{self.namespace}/{workload}"
        held = [hold for each in self.objects("QuotaLedger") for hold in each["spec"]["holds"]]
        return [each for each in held if workload is None or each["owner"] == owner]

    def changes(self, workload: str, since: int = 0) -> list[Change]:
        """What happened to a workload and its objects after a `mark`; OF_NOBODY: to the ledgers."""
        self._check()
        with self._lock:
            return [each for each in self._changes[since:] if each.workload == workload]

    def mark(self) -> int:
        with self._lock:
            return len(self._changes)

    def _check(self) -> None:
        if self._ended:
            raise ClusterError(f"the watch of the test itself ended: {self._ended}")

    def _begin(self, kind: str, opened: threading.Event) -> None:
        task = asyncio.get_running_loop().create_task(self._follow(kind, opened))
        task.add_done_callback(lambda done: self._over(kind, done))

    def _over(self, kind: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._ended = f"{kind}: {task.exception()}"

    async def _follow(self, kind: str, opened: threading.Event) -> None:
        cluster = self._cluster
        tls = ssl.create_default_context(cafile=str(cluster.ca_path))
        headers = {"Authorization": f"Bearer {cluster.admin_token}", "Accept": "application/json"}
        connector = aiohttp.TCPConnector(ssl=tls)
        async with aiohttp.ClientSession(headers=headers, connector=connector, read_bufsize=2**22) as session:
            while not opened.is_set():
                async with session.get(
                    cluster.url + PATHS[kind].format(self.namespace),
                    params={"watch": "true", "timeoutSeconds": "3600"},
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                ) as answer:
                    if answer.status in (404, 429):  # a CRD that was brought a moment ago
                        await asyncio.sleep(0.2)
                        continue
                    answer.raise_for_status()
                    opened.set()
                    async for line in answer.content:
                        event = json.loads(line)
                        self._take(event["type"], kind, event["object"])

    def _take(self, type_: str, kind: str, item: Object) -> None:
        if type_ == "ERROR":
            raise ClusterError(str(item.get("message")))
        workload = _workload_of(kind, item)
        if not workload:
            return
        key = (kind, item["metadata"]["name"])
        with self._lock:
            self._changes.append(Change(time.monotonic(), type_, kind, workload, item))
            if type_ == "DELETED":
                self._now.pop(key, None)
            else:
                self._now[key] = item


def _workload_of(kind: str, item: Object) -> str:
    if kind == "QuotaLedger":
        return OF_NOBODY
    if kind in ("InferenceWorkload", "HTTPRoute"):
        return str(item["metadata"]["name"])
    makers = {owner["kind"] for owner in item["metadata"].get("ownerReferences", ())}
    if kind == "ControllerRevision" and makers & OTHERS:
        return ""
    return str(item["metadata"].get("labels", {}).get(WORKLOAD_LABEL, ""))
