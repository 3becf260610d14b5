"""Asks a Prometheus one instant query at a time, within bounds of time and size. Says nothing about what it means.

Whoever answers is not trusted: no redirect is followed, no proxy of the environment used, no cookie kept, no body
unpacked. The address comes from the operator alone. What files hold (token, password, certificates) is read again with
every query, because they are renewed under us.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from autoscaler.signals.faults import Fault, http_fault
from autoscaler.signals.fetch import MAX_HEADER_BYTES, fault_of

DEFAULT_TIMEOUT_S: Final = 2.0
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
_MAX_ERROR_BYTES: Final = 64 * 1024
_MAX_SECRET_BYTES: Final = 64 * 1024
_SHOWN_CHARACTERS: Final = 300
_QUERY_ERRORS: Final = (400, 422)  # cannot be read; cannot be carried out


@dataclass(frozen=True, slots=True)
class Access:
    """Where Prometheus is and how we show who we are: at most one of a bearer token and a user with a password."""

    url: str  # a prefix may follow the host: http://mimir/prometheus
    timeout_s: float = DEFAULT_TIMEOUT_S
    max_answer_bytes: int = MAX_ANSWER_BYTES
    bearer_token_file: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None  # None: those of the system
    cert_file: Path | None = None
    key_file: Path | None = None  # None: the key stands in the certificate's file


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer. The value may be NaN, infinite or negative: what that means is for the reader to say."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus knows at its own instant `at_s`; None where there is no series to tell it by."""

    at_s: float | None
    series: tuple[Series, ...]
    warnings: tuple[str, ...] = ()  # with any of them, series may be missing (Thanos and Mimir answer in part)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer: `reason` is a Fault or `http_fault` of the status, `detail` is for the log."""

    reason: str
    detail: str = ""


class PrometheusClient:
    """One session. Made inside a running loop; `close` when done."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._tls: ssl.SSLContext | None = None
        self._tls_files: tuple[object, ...] = ()
        self._session = aiohttp.ClientSession(
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tidegate"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def close(self) -> None:
        await self._session.close()

    async def query(self, promql: str, options: Mapping[str, str] = MappingProxyType({})) -> Answer | Failure:
        """The instant vector (or scalar) of this expression, evaluated at Prometheus's own now.

        `options`: further parameters of the API, such as `limit`; servers ignore those that they do not know.
        """
        access = self.access
        try:
            headers, tls = self._credentials()
        except (OSError, ValueError) as error:  # includes what OpenSSL says of a certificate
            return Failure(Fault.NO_CREDENTIALS, short(str(error)))
        url = URL(access.url.rstrip("/") + "/api/v1/query")
        form = {**options, "query": promql, "timeout": f"{math.ceil(access.timeout_s * 1000)}ms"}
        try:
            async with (
                asyncio.timeout(access.timeout_s),
                self._session.post(
                    url,
                    data=form,
                    headers=headers,
                    ssl=tls if tls is not None else True,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=access.timeout_s / 2),
                ) as response,
            ):
                return await self._answer(response)
        except TimeoutError:
            return Failure(Fault.TIME_OUT)
        except (aiohttp.ClientError, ValueError, OSError) as error:
            return Failure(fault_of(error), short(str(error)))

    async def _answer(self, response: aiohttp.ClientResponse) -> Answer | Failure:
        good = response.status == 200
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            response.close()
            return Failure(Fault.NOT_TEXT)
        body = await _bounded(response, self.access.max_answer_bytes if good else _MAX_ERROR_BYTES)
        if body is None:
            response.close()  # what is left is not drained
            return Failure(Fault.TOO_LARGE if good else http_fault(response.status))
        if good:
            return read_answer(body)
        reason = Fault.QUERY_REFUSED if response.status in _QUERY_ERRORS else http_fault(response.status)
        return Failure(reason, _error_in(body))

    def _credentials(self) -> tuple[dict[str, str], ssl.SSLContext | None]:
        """The header and TLS context of now. OSError or ValueError name the file that cannot be used."""
        access = self.access
        headers = {}
        if access.bearer_token_file is not None:
            headers["Authorization"] = f"Bearer {secret(access.bearer_token_file)}"
        elif access.username is not None and access.password_file is not None:
            headers["Authorization"] = basic(access.username, secret(access.password_file))
        files = (access.ca_file, access.cert_file, access.key_file)
        if not any(files):
            return headers, None
        seen = tuple(_version(file) for file in files if file is not None)
        if self._tls is None or seen != self._tls_files:
            self._tls, self._tls_files = _tls_context(access), seen
        return headers, self._tls


def read_answer(body: bytes) -> Answer | Failure:
    """What the bytes of a good answer say."""
    try:
        answer = _BODIES.decode(body)
        if answer.status != "success" or answer.data is None:
            return Failure(Fault.NO_ANSWER, short(answer.error or f"status {answer.status}"))
        match answer.data.result_type:
            case "vector":
                samples = _VECTORS.decode(answer.data.result)
            case "scalar":
                samples = [_Sample({}, _SCALARS.decode(answer.data.result))]
            case other:
                return Failure(Fault.NO_ANSWER, f"the query gives a {short(other)}, and must give a vector or scalar")
        series = tuple(Series(each.metric, float(each.value[1]) if each.value else math.nan) for each in samples)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Failure(Fault.NO_ANSWER, short(str(error)))
    at_s = next((each.value[0] for each in samples if each.value), None)
    return Answer(at_s, series, tuple(map(short, answer.warnings or ())))


class _Sample(msgspec.Struct, gc=False):
    metric: dict[str, str]
    value: tuple[float, str] | None = None  # None: a native histogram, which we do not read


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Body(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str | None = None
    warnings: list[str] | None = None  # `infos` say that a query is odd, not that data are missing


class _Error(msgspec.Struct):
    error: str


_BODIES: Final = msgspec.json.Decoder(_Body)
_VECTORS: Final = msgspec.json.Decoder(list[_Sample])
_SCALARS: Final = msgspec.json.Decoder(tuple[float, str])
_ERRORS: Final = msgspec.json.Decoder(_Error)


async def _bounded(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The whole body; None where it is larger."""
    if (response.content_length or 0) > most:
        return None
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            return None
    return b"".join(chunks)


def _error_in(body: bytes) -> str:
    """What Prometheus says of itself; nothing of a page that is not its own."""
    try:
        return short(_ERRORS.decode(body).error)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""


def basic(username: str, password: str) -> str:
    """The header Authorization of a user with a password."""
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


def short(text: str) -> str:
    """What others say, for a log or a line: cut where it grows long."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def secret(path: Path) -> str:
    """One line of a file. Whatever could end a header is refused, and never shown."""
    with path.open("rb") as file:
        raw = file.read(_MAX_SECRET_BYTES + 1)
    text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
    if not text or len(raw) > _MAX_SECRET_BYTES or not text.isprintable():
        raise ValueError(f"{path} must hold one line of printable text")
    return text


def _version(path: Path) -> tuple[int, int, int]:
    """Equal for equal contents; a mounted Secret's files change their inode."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _tls_context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(access.ca_file) if access.ca_file else None)
    except OSError as error:
        raise ValueError(f"{access.ca_file}: {error}") from error
    if access.cert_file is not None:
        try:
            context.load_cert_chain(access.cert_file, access.key_file)
        except OSError as error:
            raise ValueError(f"{access.cert_file}, {access.key_file}: {error}") from error
    return context
