"""What the daemon of benchmarks/soak.py says and takes: its log, its own page, its process."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Log:
    """The daemon's log, read on from where it was read to."""

    path: Path
    events: Counter[str] = field(default_factory=Counter)
    _at: int = 0
    _rest: bytes = b""

    def news(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """(line, its keys); no keys where it is not JSON."""
        with self.path.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        self._at += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in filter(None, lines):
            said: Mapping[str, Any] = {}
            with contextlib.suppress(ValueError):
                said = json.loads(line)
            self.events[str(said.get("event", "not JSON"))] += 1
            yield line.decode(errors="replace"), said


def values(page: str) -> dict[str, float]:
    """Each family's sum over its series, and how many series there are."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            found[name] = found.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
            found["series"] = found.get("series", 0.0) + 1
    return found


def state(pid: int) -> str:
    """As the kernel names it; Z: ended, X: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def cpu_s(pid: int) -> float:
    """User and system seconds of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
