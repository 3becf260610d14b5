"""The pods of one API server, kept up to date: a list and a watch that outlive restarts of the server."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

WORKLOAD_LABEL: Final = "tidegate.dev/workload"
OTHERS_LABEL: Final = "modelserver.test/workload"  # the same on pods that Tidegate did not make
WORKER_LABEL: Final = "leaderworkerset.sigs.k8s.io/worker-index"  # "0" is the leader of its group
PORT_ANNOTATION: Final = "modelserver.test/port"
DEFAULT_PORT: Final = 8000
_RETRY_S: Final = 0.1
_WATCH_S: Final = 120


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """How to reach an API server. Without `ca_path` the URL is plain HTTP."""

    url: str
    token: str
    ca_path: str | None
    namespace: str | None = None  # None = all


@dataclass(frozen=True, slots=True)
class Pod:
    """What matters of one pod."""

    namespace: str
    name: str
    uid: str
    workload: str
    ip: str
    port: int
    ready: bool
    terminating: bool
    failed: bool
    worker: bool  # of a group: no request is for it


def pod_of(body: Mapping[str, Any]) -> Pod:
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    ports = [port["containerPort"] for part in spec.get("containers", ()) for port in part.get("ports", ())]
    annotated = metadata.get("annotations", {}).get(PORT_ANNOTATION)
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", ())}
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        workload=_workload_of(body),
        ip=status.get("podIP", ""),
        port=int(annotated or (ports[0] if ports else DEFAULT_PORT)),
        ready=conditions.get("Ready") == "True",
        terminating="deletionTimestamp" in metadata,
        failed=status.get("phase") in ("Failed", "Succeeded"),
        worker=metadata.get("labels", {}).get(WORKER_LABEL, "0") != "0",
    )


def _workload_of(body: Mapping[str, Any]) -> str:
    labels: Mapping[str, str] = body["metadata"].get("labels", {})
    return labels.get(WORKLOAD_LABEL) or labels.get(OTHERS_LABEL, "")


class PodWatch:
    """`pods` by uid; `changed` is set after every change."""

    def __init__(self, access: ApiAccess) -> None:
        self.pods: dict[str, Pod] = {}
        self.changed = asyncio.Event()
        self._access = access

    async def run(self) -> None:
        """Follow the pods until cancelled."""
        tls = ssl.create_default_context(cafile=self._access.ca_path) if self._access.ca_path else True
        headers = {"Authorization": f"Bearer {self._access.token}", "Accept": "application/json"}
        scope = f"/namespaces/{self._access.namespace}" if self._access.namespace else ""
        url = f"{self._access.url}/api/v1{scope}/pods"
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=tls)) as session:
            while True:
                try:
                    version = await self._list(session, url)
                    await self._follow(session, url, version)
                except (aiohttp.ClientError, OSError, KeyError, ValueError):
                    await asyncio.sleep(_RETRY_S)  # the server restarts: what we know stays true until it is back

    async def _list(self, session: aiohttp.ClientSession, url: str) -> str:
        timeout = aiohttp.ClientTimeout(total=10)
        async with session.get(url, timeout=timeout) as response:
            response.raise_for_status()
            body = await response.json()
        self.pods = {pod.uid: pod for pod in map(pod_of, body["items"]) if pod.workload}
        self.changed.set()
        return str(body["metadata"]["resourceVersion"])

    async def _follow(self, session: aiohttp.ClientSession, url: str, version: str) -> None:
        """Apply events until the watch ends or says that the version is gone."""
        options = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_S)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_WATCH_S + 10)
        async with session.get(url, params=options, timeout=timeout) as response:
            response.raise_for_status()
            async for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                pod = pod_of(event["object"])
                if event["type"] == "DELETED":
                    self.pods.pop(pod.uid, None)
                elif pod.workload:
                    self.pods[pod.uid] = pod
                self.changed.set()


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines of any length."""
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
