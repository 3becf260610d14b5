"""The one door to the API server: authentication and transport by kubernetes-asyncio, everything else ours.

Its typed models, watch and error handling are not used (slow, and wrong under faults); bytes go in and out. Every call
has a time limit, every answer's status is checked, every response is released.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import msgspec
from kubernetes_asyncio import client as kubernetes_client
from kubernetes_asyncio import config as kubernetes_config

from autoscaler.cluster.errors import ApiError, Unreachable, error_for

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
JSON: Final = "application/json"
USER_AGENT: Final = "tidegate"
CONNECT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 10.0
MAX_ERROR_BYTES: Final = 64 * 1024


class KubeApi(Protocol):
    """What the rest of the cluster room needs of the API server."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        """One request; the answer's bytes. Raises ApiError."""

    def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        """Lines of a watch. Ends when the server ends it; raises ApiError when silent for longer than `silence_s`."""


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""


class KubernetesClient:
    """KubeApi over HTTP. `requests` counts answers by (method, status code or "error")."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._api.user_agent = USER_AGENT
        self.host: str = api.configuration.host
        self.requests: Counter[tuple[str, str]] = Counter()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
        try:
            # not aiohttp's own total: it swallows a cancellation that arrives together with the time-out
            async with (
                asyncio.timeout(CONNECT_TIMEOUT_S + READ_TIMEOUT_S),
                self._request(method, path, params, body, content_type, timeout) as response,
            ):
                return await response.read()
        except TimeoutError as cause:
            raise Unreachable(
                f"{method} {path}: no answer within {CONNECT_TIMEOUT_S + READ_TIMEOUT_S:.0f} s"
            ) from cause

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        async with self._request("GET", path, params, None, JSON, timeout) as response:
            async for line in response.content:
                yield line

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: object,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._api.call_api(
                path,
                method,
                query_params=list((params or {}).items()),
                header_params={"Accept": JSON, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout,
            )
            self.requests[(method, str(response.status))] += 1
            if response.status >= 400:
                raise await _error(response)
            yield response
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as cause:
            self.requests[(method, "error")] += 1
            raise Unreachable(f"{method} {path}: {type(cause).__name__}: {cause}") from cause
        finally:
            if response is not None:
                response.release()

    async def close(self) -> None:
        await self._api.close()


async def connect(kubeconfig: Path | None = None) -> KubernetesClient:
    """A client for the given kubeconfig file, else the pod's ServiceAccount."""
    configuration = kubernetes_client.Configuration()
    if kubeconfig is not None:
        await kubernetes_config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    else:
        kubernetes_config.load_incluster_config(client_configuration=configuration)
    return KubernetesClient(kubernetes_client.ApiClient(configuration))


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    """The ApiError of an answer. A load balancer's HTML page is an error too, not an object."""
    body = await response.content.read(MAX_ERROR_BYTES)
    try:
        status = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        status = _Status(message=body[:200].decode(errors="replace"))
    retry_after = response.headers.get("Retry-After", "1")
    retry_after_s = float(retry_after) if retry_after.isdigit() else 1.0
    return error_for(response.status, status.message or f"HTTP {response.status}", status.reason, retry_after_s)
