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
from urllib.request import getproxies_environment

import aiohttp
import msgspec

from autoscaler.cluster import transport
from autoscaler.cluster.errors import ApiError, Unreachable, error_for

MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"  # lists are merged by their keys
JSON_PATCH: Final = "application/json-patch+json"
JSON: Final = "application/json"
USER_AGENT: Final = "tidegate"
OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # of the pod that we run in
CONNECT_TIMEOUT_S: Final = 2.0
READ_TIMEOUT_S: Final = 10.0
HEAD_TIMEOUT_S: Final = 30.0  # until a watch is accepted; API priority and fairness may queue it
MAX_ERROR_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 16 * 1024 * 1024  # of one watch event; etcd stores objects of 1.5 MiB at most by default
CONNECTIONS: Final = 1_000  # a watch holds one: eight kinds in each watched namespace, and those of targets


# a token file that is empty for a moment while the kubelet rotates it is no reason to die either, nor is one that is
# no text or cannot be a header (ValueError)
_NO_ANSWER: Final = (
    aiohttp.ClientError,
    TimeoutError,
    OSError,
    ValueError,
    asyncio.IncompleteReadError,
    transport.config.ConfigException,
)


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
        """Blocks of whole lines of a watch; the first one is empty and says that the server accepted it.

        Ends when the server ends it; raises ApiError when silent for longer than `silence_s`.
        """


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""


class KubernetesClient:
    """KubeApi over HTTP. `requests` counts answers by (method, status code or "error"); `namespace` is that of the
    kubeconfig's context, "" where it names none."""

    def __init__(self, api: Any, namespace: str = "") -> None:
        self._api = api
        self.namespace = namespace
        self._api.user_agent = USER_AGENT
        # aiohttp repeats GET, PUT and DELETE by itself after a disconnect: a write that was done would meet its own
        # conflict, and every back-off would be half of what it says
        self._api.rest_client.pool_manager._retry_connection = False
        # without a proxy there is nothing in the environment to trust, and a look for it and ~/.netrc costs a thread
        # per request
        self._api.rest_client.pool_manager._trust_env = bool(getproxies_environment())
        _trim_token(api.configuration)
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
            yield b""
            async for block in _whole_lines(response.content.iter_any()):
                yield block

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
            async with asyncio.timeout(HEAD_TIMEOUT_S):
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
        except _NO_ANSWER as cause:
            self.requests[(method, "error")] += 1
            raise Unreachable(f"{method} {path}: {type(cause).__name__}: {cause}") from cause
        finally:
            if response is not None:
                response.release()

    async def close(self) -> None:
        await self._api.close()


async def connect(kubeconfig: Path | None = None, context: str | None = None) -> KubernetesClient:
    """A client for the given kubeconfig file (or several, separated as in $KUBECONFIG) and one of its contexts, by
    default the current one; without a file for the pod's ServiceAccount."""
    configuration = transport.Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    if kubeconfig is None:
        transport.config.load_incluster_config(client_configuration=configuration)
        return KubernetesClient(transport.ApiClient(configuration), _own_namespace())
    loader = await transport.config.load_kube_config(
        config_file=str(kubeconfig), context=context, client_configuration=configuration
    )
    chosen = (loader.current_context or {}).get("context") or {}
    return KubernetesClient(transport.ApiClient(configuration), str(chosen.get("namespace") or ""))


def _own_namespace() -> str:
    try:
        return OWN_NAMESPACE.read_text().strip()
    except OSError:
        return ""


def _trim_token(configuration: Any) -> None:
    """A token file may end in a line end, which no header can carry."""
    read = configuration.get_api_key_with_prefix

    async def trimmed(*arguments: Any, **others: Any) -> str | None:
        token: str | None = await read(*arguments, **others)
        return token and token.strip()

    configuration.get_api_key_with_prefix = trimmed


async def _whole_lines(received: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What was received, cut after line ends. aiohttp's own line reader refuses lines above 4 MiB."""
    tail: list[bytes] = []  # of a line that has not ended, as it came
    tail_bytes = 0
    async for data in received:
        end = data.rfind(b"\n") + 1
        if end:
            yield b"".join((*tail, data[:end]))
            tail, tail_bytes = [], 0
        tail.append(data[end:])
        tail_bytes += len(data) - end
        if tail_bytes > MAX_LINE_BYTES:
            raise aiohttp.ClientPayloadError(f"a line of more than {MAX_LINE_BYTES} bytes")
    if tail_bytes:
        yield b"".join(tail)


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    """The ApiError of an answer. A load balancer's HTML page is an error too, not an object."""
    body = await response.content.read(MAX_ERROR_BYTES)
    try:
        status = msgspec.json.decode(body, type=_Status)
    except (msgspec.DecodeError, RecursionError):
        status = _Status(message=body[:200].decode(errors="replace"))
    retry_after = response.headers.get("Retry-After", "1")
    retry_after_s = float(retry_after) if retry_after.isdigit() else 1.0
    return error_for(response.status, status.message or f"HTTP {response.status}", status.reason, retry_after_s)
