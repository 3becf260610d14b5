"""How the commands say numbers, times and states. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NONE: Final = "-"  # nothing to show
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_MARKS: Final = {"good": "✔", "bad": "✖", "warn": "⚠", "wait": "◌", "held": "॥"}
_STYLES: Final = {"good": "green", "bad": "red", "warn": "yellow", "wait": "cyan", "held": "magenta"}
_GOOD: Final = frozenset({"Running", "Ready", "Complete"})
_BAD: Final = frozenset({"Failed", "Degraded", "RollingBack"})
_WARN: Final = frozenset({"Stopping", "Terminating", "Superseded", "Unplaced", "Restarted"})
_HELD: Final = frozenset({"Paused", "Stopped"})


def mood(word: str) -> str:
    """good, bad, warn, wait or held: what a phase or a pod's state means for whoever looks."""
    for words, found in ((_GOOD, "good"), (_BAD, "bad"), (_WARN, "warn"), (_HELD, "held")):
        if word in words:
            return found
    return "wait"


def mark(word: str) -> str:
    """A sign for a word; never shown without it."""
    return _MARKS[mood(word)]


def style(word: str) -> str:
    """The colour of a word, as rich names it."""
    return _STYLES[mood(word)]


def span(seconds: float | None) -> str:
    """A length of time in at most two units: `span(190) == "3m10s"`, `span(7200) == "2h"`, `span(0.4) == "0s"`."""
    if seconds is None:
        return NONE
    left = max(0, int(seconds))
    parts: list[str] = []
    for length, unit in _UNITS:
        if left >= length and len(parts) < 2:
            parts.append(f"{left // length}{unit}")
            left %= length
        elif parts:
            break
    return "".join(parts) or "0s"


def age(seconds: float | None) -> str:
    """How long ago, in one unit from ten minutes on, as kubectl does: `age(130) == "2m10s"`, `age(7300) == "2h"`."""
    if seconds is None:
        return NONE
    if seconds < 600:
        return span(seconds)
    return next(f"{int(seconds) // length}{unit}" for length, unit in _UNITS if seconds >= length)


def number(value: float) -> str:
    """`number(3.0) == "3"`, `number(0.5) == "0.5"`."""
    return f"{value:g}"


def counted(count: float, what: str) -> str:
    """`counted(1, "GPU") == "1 GPU"`, `counted(2, "GPU") == "2 GPUs"`."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"


def short_revision(workload: str, revision: str | None) -> str:
    """The hash alone: `short_revision("llama", "llama-1a2b3c4d") == "1a2b3c4d"`."""
    return revision.removeprefix(f"{workload}-") if revision else NONE


def clean(text: str) -> str:
    """Without characters that steer a terminal or turn the reading direction: images, names of nodes and messages are
    written by others."""
    return text if text.isprintable() else "".join(each if each.isprintable() or each == "\n" else "�" for each in text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, each column as wide as its widest cell, three blanks apart."""
    cleaned = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cleaned, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cleaned]
