"""Reads of Prometheus that nothing waits for on a tick: ranges of time, and what the doctor asks. Within bounds.

prometheus-api-client blocks, tries again for seconds and keeps neither time-outs nor warnings, so it runs in threads of
its own, on a session that does one try, ends in time, follows no redirect and reads no more than it may. What files
hold is read again with every request, as for the tick's queries.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
import requests
from prometheus_api_client.exceptions import PrometheusApiClientException
from prometheus_api_client.prometheus_connect import PrometheusConnect  # not the package: it would bring pandas, if any
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import RequestException, Timeout

from autoscaler.signals.faults import Fault, http_fault
from autoscaler.signals.prometheus import Access, Answer, Failure, Series, basic, secret, short

THREADS: Final = 4
_BLOCK_BYTES: Final = 64 * 1024
_QUERY_ERRORS: Final = (400, 422)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RangeSeries:
    """One series over time: (Prometheus's Unix seconds, value), oldest first. What a step lacks is not there."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Ranges:
    """An answer over time."""

    series: tuple[RangeSeries, ...]
    warnings: tuple[str, ...] = ()  # with any of them, series may be missing


class RangeReader:
    """One session and its threads; `close` when done. `timeout_s` bounds each read as a whole."""

    def __init__(self, access: Access, timeout_s: float | None = None, threads: int = THREADS) -> None:
        self._access = access
        self._session = _Session(access, timeout_s or access.timeout_s)
        url = access.url.rstrip("/")
        self._prometheus = PrometheusConnect(url, session=self._session, auth=_Credentials(access))
        self._session.mount(url, HTTPAdapter(pool_connections=1, pool_maxsize=threads, max_retries=0))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prometheus")

    def close(self) -> None:
        """What is under way ends in its own time; nobody waits for it."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def query(self, promql: str) -> Answer | Failure:
        """The instant vector of this expression, at Prometheus's own now."""
        return await self._read(lambda: self._prometheus.custom_query(promql), _answer)

    async def query_range(self, promql: str, start_s: int, end_s: int, step_s: int) -> Ranges | Failure:
        """The expression at start, start + step, … until end; Unix seconds of Prometheus's clock."""
        start, end = datetime.fromtimestamp(start_s, UTC), datetime.fromtimestamp(end_s, UTC)
        return await self._read(lambda: self._prometheus.custom_query_range(promql, start, end, str(step_s)), _ranges)

    async def samples(self, promql: str) -> Ranges | Failure:
        """What a range selector, such as `up[60s]`, holds now."""
        return await self._read(lambda: self._prometheus.custom_query(promql), _ranges)

    async def version(self) -> str | Failure:
        """As it calls itself; "" where it keeps that to itself, as what answers like a Prometheus often does."""
        url = f"{self._access.url.rstrip('/')}/api/v1/status/buildinfo"

        def read() -> Any:
            found = self._session.request("GET", url, auth=self._prometheus.auth, timeout=None)
            return found.json()["data"] if found.status_code == 200 else {}

        return await self._read(read, lambda data, _: str(data.get("version", "")))

    async def _read(self, read: Callable[[], Any], shape: Callable[[Any, tuple[str, ...]], T]) -> T | Failure:
        def in_thread() -> T | Failure:
            try:
                result = read()
                return shape(result, self._session.warnings)
            except Exception as error:
                return _failure(error)

        return await asyncio.get_running_loop().run_in_executor(self._threads, in_thread)


class _TooLarge(Exception):
    pass


class _Encoded(Exception):
    pass


class _NoCredentials(Exception):
    pass


class _Session(requests.Session):  # type: ignore[misc]
    """One try within `timeout_s`, from its first byte to its last."""

    def __init__(self, access: Access, timeout_s: float) -> None:
        super().__init__()
        self.trust_env = False
        self.headers.update({"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tidegate"})
        self.verify = str(access.ca_file) if access.ca_file else ssl.get_default_verify_paths().cafile or True
        if access.cert_file is not None:
            self.cert = (str(access.cert_file), str(access.key_file)) if access.key_file else str(access.cert_file)
        self._timeout_s, self._most = timeout_s, access.max_answer_bytes
        self._seen = threading.local()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of this thread's newest answer; the library drops them."""
        return getattr(self._seen, "warnings", ())

    def request(self, method: str, url: str, params: Any = None, **others: Any) -> Any:
        """As requests does it, but a query travels in the body: an address of 8 KiB is too long for many a proxy."""
        ends_at = time.monotonic() + self._timeout_s
        others["timeout"] = (self._timeout_s / 2, self._timeout_s)
        if url.endswith(("/api/v1/query", "/api/v1/query_range")):
            form = {**(params or {}), "timeout": f"{math.ceil(self._timeout_s * 1000)}ms"}
            method, params, others["data"] = "POST", None, form
        self.cookies.clear()
        self._seen.warnings = ()
        answer = super().request(method, url, params=params, stream=True, allow_redirects=False, **others)
        try:
            body = self._body(answer, ends_at)
        finally:
            answer.close()
        answer._content, answer._content_consumed = body, True
        if answer.status_code == 200:
            self._seen.warnings = tuple(map(short, _WARNED.decode(body).warnings or ()))
        return answer

    def _body(self, answer: Any, ends_at: float) -> bytes:
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Encoded
        blocks, size = [], 0
        for block in answer.iter_content(_BLOCK_BYTES):
            blocks.append(block)
            size += len(block)
            if size > self._most:
                raise _TooLarge
            if time.monotonic() > ends_at:
                raise Timeout
        return b"".join(blocks)


class _Warned(msgspec.Struct):
    warnings: list[str] | None = None


_WARNED: Final = msgspec.json.Decoder(_Warned)


class _Credentials(AuthBase):  # type: ignore[misc]
    """The header of now."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def __call__(self, request: Any) -> Any:
        access = self._access
        try:
            if access.bearer_token_file is not None:
                request.headers["Authorization"] = f"Bearer {secret(access.bearer_token_file)}"
            elif access.username is not None and access.password_file is not None:
                request.headers["Authorization"] = basic(access.username, secret(access.password_file))
        except (OSError, ValueError) as error:
            raise _NoCredentials(str(error)) from error
        return request


def _answer(result: Any, warnings: tuple[str, ...]) -> Answer | Failure:
    if result and not isinstance(result[0], dict):  # a scalar comes as a bare pair
        return Answer(float(result[0]), (Series({}, float(result[1])),), warnings)
    series = tuple(Series(each["metric"], float(each["value"][1])) for each in result if "value" in each)
    at_s = next((float(each["value"][0]) for each in result if "value" in each), None)
    return Answer(at_s, series, warnings)


def _ranges(result: Any, warnings: tuple[str, ...]) -> Ranges:
    series = (
        RangeSeries(each["metric"], tuple((float(at), float(value)) for at, value in each["values"]))
        for each in result
        if "values" in each
    )
    return Ranges(tuple(series), warnings)


def _failure(error: Exception) -> Failure:
    """What went wrong, in the words of the tick's queries."""
    match error:
        case _TooLarge():
            return Failure(Fault.TOO_LARGE)
        case _Encoded():
            return Failure(Fault.NOT_TEXT)
        case _NoCredentials():
            return Failure(Fault.NO_CREDENTIALS, short(str(error)))
        case Timeout():
            return Failure(Fault.TIME_OUT)
        case PrometheusApiClientException():
            return _http(str(error))
        case NoConnection() if "refused" in str(error).lower():
            return Failure(Fault.REFUSED)
        case RequestException():
            return Failure(Fault.UNREACHABLE, short(_root_of(error)))
        case OSError():  # a certificate's file
            return Failure(Fault.NO_CREDENTIALS, short(str(error)))
        case _:
            return Failure(Fault.NO_ANSWER, short(f"{type(error).__name__}: {error}"))


def _root_of(error: Exception) -> str:
    """The cause without the libraries that it came through."""
    reason = getattr(error.args[0] if error.args else None, "reason", None) or error
    return str(reason).rpartition("): ")[2]


def _http(told: str) -> Failure:
    """The library has the status in a sentence alone: HTTP Status Code 401 (b'Unauthorized')."""
    words = told.split()
    status = int(words[3]) if len(words) > 3 and words[3].isdigit() else 0
    if status in _QUERY_ERRORS:
        return Failure(Fault.QUERY_REFUSED, short(told.partition("(")[2].rstrip(")")))
    return Failure(http_fault(status))
