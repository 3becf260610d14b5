"""Reads a few series out of a page in the Prometheus text format 0.0.4 and skips the rest.

A model server's page has hundreds of lines of which five matter: finding those by `bytes.find` costs a hundredth of
parsing the page (benchmarks/pages.py). What the scanner takes for a sample of a wanted series is exactly what
`prometheus_client.parser` takes for one (tests/signals/test_scanner.py); where a wanted line cannot be read, it says
so, and never leaves the line out of a sum.

It knows neither engines nor signals, keeps no state, and does bounded work on a hostile page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from autoscaler.signals.faults import Fault

# A page is at most 4 MiB, but 4 MiB of two-byte lines would hold the event loop for seconds.
MAX_SAMPLES: Final = 10_000
MAX_LINE_BYTES: Final = 8_192
REMEMBERED_BYTES: Final = 256  # longer label sets are read anew: a tenant's labels must not fill our memory

Labels = tuple[tuple[str, str], ...]

_NEWLINE: Final = 0x0A
_COMMA: Final = 0x2C
_BLANKS: Final = b" \t\r\f\v"
_NAME_BYTES: Final = frozenset(
    bytes([byte]) for byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:"
)
_LABEL: Final = re.compile(rb'[ \t]*([A-Za-z_:][A-Za-z0-9_:]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*', re.DOTALL)
_NUMBER: Final = rb"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|(?i:inf(?:inity)?|nan))"
_VALUE: Final = re.compile(rb"\s*(" + _NUMBER + rb")(?:\s+(" + _NUMBER + rb"))?\s*")  # and perhaps a timestamp
_TYPE: Final = re.compile(rb"#[ \t]*TYPE[ \t]+([^ \t]+)[ \t]+([a-z]+)[ \t\r]*")
_ESCAPE: Final = re.compile(r'\\([\\n"])')


class Scanned(NamedTuple):
    """One series of a page. With a fault, `samples` is empty."""

    samples: tuple[tuple[bytes, float], ...]  # (labels as they stand between the braces, value)
    fault: Fault | None
    stamps_ms: tuple[float, ...] = ()  # the pod's own timestamps, where it prints any: milliseconds


_ABSENT: Final = Scanned((), Fault.NO_SUCH_SERIES)


def scan(page: bytes, names: Iterable[bytes]) -> dict[bytes, Scanned]:
    """The samples of each wanted series, in the page's order. `foo` does not match `foo_total` or `foo_bucket`.

    A value may be NaN, infinite or negative: what that means is for the caller to say.
    """
    return {name: _scan_one(page, name) for name in names}


def type_of(page: bytes, name: bytes) -> str | None:
    """The series' type as its TYPE line has it ("counter", "gauge", …); None where there is none."""
    for line in _lines_with(page, name):
        found = _TYPE.fullmatch(line) if line.startswith(b"#") else None
        if found is not None and found[1] == name:
            return found[2].decode()
    return None


def labels_of(raw: bytes) -> Labels | None:
    """The labels between the braces, sorted by name and unescaped; None where they cannot be read.

    The same few label sets come back every second, so that reading them is mostly a look-up.
    """
    return _remembered_labels(raw) if len(raw) <= REMEMBERED_BYTES else _parse_labels(raw)


def _scan_one(page: bytes, name: bytes) -> Scanned:
    samples: list[tuple[bytes, float]] = []
    stamps: list[float] = []
    lines = 0
    for line in _lines_with(page, name):
        lines += 1
        if lines > MAX_SAMPLES:
            return Scanned((), Fault.TOO_MANY_SERIES)
        if not line.startswith(name):
            continue  # a comment, or the name inside another series' label
        sample = _sample(line, len(name))
        if sample is None:
            continue  # a longer name
        if sample is _MALFORMED:
            return Scanned((), Fault.MALFORMED)
        raw, value, stamp = sample
        samples.append((raw, value))
        if stamp is not None:
            stamps.append(float(stamp))
    return Scanned(tuple(samples), None, tuple(stamps)) if samples else _ABSENT


def _lines_with(page: bytes, name: bytes) -> Iterable[bytes]:
    """The lines that contain the name, each once, without surrounding blanks and line ends."""
    at = page.find(name)
    while at >= 0:
        end = page.find(b"\n", at)
        if end < 0:
            end = len(page)
        if at == 0 or page[at - 1] == _NEWLINE:
            yield page[at:end]
        else:
            # The format allows blanks before a name; a comment is found here, too.
            yield page[page.rfind(b"\n", 0, at) + 1 : end].lstrip(_BLANKS)
        at = page.find(name, end)


_MALFORMED: Final = (b"", -1.0, None)


def _sample(line: bytes, name_end: int) -> tuple[bytes, float, bytes | None] | None:
    """The labels, value and perhaps timestamp of a line that starts with the name; None if its name is a longer one."""
    if len(line) > MAX_LINE_BYTES:
        return _MALFORMED
    rest = line[name_end:]
    if rest[:1] in _NAME_BYTES:
        return None
    raw = b""
    if not rest.startswith(b"{"):
        if rest[:1] not in (b" ", b"\t"):
            return _MALFORMED
        rest = rest.lstrip(_BLANKS)
    if rest.startswith(b"{"):
        # Neither a value nor a timestamp has a brace, so the last one closes the labels, whatever their values hold.
        close = rest.rfind(b"}")
        raw, rest = rest[1:close], rest[close + 1 :]
        if close < 0 or labels_of(raw) is None:
            return _MALFORMED
    value = _VALUE.fullmatch(rest)
    return _MALFORMED if value is None else (raw, float(value[1]), value[2])


@lru_cache(maxsize=16_384)
def _remembered_labels(raw: bytes) -> Labels | None:
    return _parse_labels(raw)


def _parse_labels(raw: bytes) -> Labels | None:
    found: dict[str, str] = {}
    raw = raw.rstrip(_BLANKS)
    at = 0
    while at < len(raw):
        pair = _LABEL.match(raw, at)
        if pair is None:
            return None
        name = pair[1].decode()
        if name in found:
            return None
        found[name] = _unescape(pair[2].decode(errors="replace"))
        at = pair.end()
        if at < len(raw) and raw[at] != _COMMA:
            return None
        at += 1
    return tuple(sorted(found.items()))


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], value)
