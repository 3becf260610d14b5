"""What the doctor says: one finding a line, how bad it is, and how to mend it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final

NAMED_PODS: Final = 3


class Level(StrEnum):
    OK = "ok"
    SKIPPED = "skipped"  # could not be looked at from here, and need not
    WARNING = "warning"  # works, but not as well as it should, or not for long
    ERROR = "error"  # does not work


class Exit(IntEnum):
    """The statuses of every command; 2 is wrong usage."""

    OK = 0
    ERROR = 1
    DEGRADED = 3
    TIMEOUT = 4


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    check: str  # what was looked at: configuration, API server, definitions, rights, Prometheus, pages, series
    subject: str  # of which one: a file, an address, a workload
    message: str
    fix: str = ""  # one line; "" where all is well

    def as_dict(self) -> dict[str, str]:
        shown = {"level": self.level.value, "check": self.check, "subject": self.subject, "message": self.message}
        return shown | ({"fix": self.fix} if self.fix else {})


def exit_of(findings: Iterable[Finding], in_time: bool = True) -> Exit:
    """The worst of them; a check that was not finished is worse than all."""
    levels = {each.level for each in findings}
    if not in_time:
        return Exit.TIMEOUT
    if Level.ERROR in levels:
        return Exit.ERROR
    return Exit.DEGRADED if Level.WARNING in levels else Exit.OK


def counted(findings: Sequence[Finding]) -> dict[str, int]:
    """How many of each level, the worst first; levels that nobody has are left out."""
    counts = {level.value: sum(1 for each in findings if each.level is level) for level in reversed(Level)}
    return {level: count for level, count in counts.items() if count}


def document(findings: Sequence[Finding], status: Exit) -> Mapping[str, Any]:
    """What `-o json` and `-o yaml` show."""
    return {
        "status": status.name.lower(),
        "counts": counted(findings),
        "findings": [each.as_dict() for each in findings],
    }


def pods_in_words(pods: Sequence[str], of: int) -> str:
    """`pods_in_words(["a", "b"], 4) == "2 of 4 pods (a, b)"`."""
    named = ", ".join(pods[:NAMED_PODS]) + (", …" if len(pods) > NAMED_PODS else "")
    return f"{len(pods)} of {of} pods ({named})"
