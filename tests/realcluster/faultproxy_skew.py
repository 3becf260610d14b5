"""Answers of an API server whose clock is off: what it dates, and what others dated by such a clock."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

Headers = tuple[tuple[str, str], ...]

_DATED: Final = re.compile(
    rb'("(?:creationTimestamp|deletionTimestamp|renewTime|acquireTime)":\s*")(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)'
)


class Clock:
    """A clock that is `seconds` ahead."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)
        self._tail = b""

    def body(self, whole_lines: bytes) -> bytes:
        """JSON as that server would send it."""
        return _DATED.sub(self._moved, whole_lines)

    def stream(self, chunk: bytes) -> bytes:
        """The same for what comes in pieces; the rest of a line waits for its end."""
        lines, end, tail = (self._tail + chunk).rpartition(b"\n")
        self._tail = tail
        return self.body(lines + end)

    def headers(self, headers: Headers) -> Headers:
        return tuple((key, self._date(value) if key.lower() == "date" else value) for key, value in headers)

    def _moved(self, found: re.Match[bytes]) -> bytes:
        at = datetime.fromisoformat(found[2].decode()) + self._ahead
        return found[1] + at.isoformat(timespec="seconds").encode()

    def _date(self, value: str) -> str:
        return format_datetime(parsedate_to_datetime(value) + self._ahead, usegmt=True)


def readable(headers: Headers) -> Headers:
    """Of a request: without the wish for a compressed answer."""
    return tuple((key, value) for key, value in headers if key.lower() != "accept-encoding")
