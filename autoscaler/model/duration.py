"""Durations as Go and Kubernetes write them: 30s, 1m30s, 500ms, 1h."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_PIECE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def parse_duration(text: str) -> float:
    """Seconds of a duration: `parse_duration("1m30s") == 90.0`. Raises ValueError without a sentence of its own."""
    if not re.fullmatch(PATTERN, text):
        raise ValueError(text)
    return float(sum(Fraction(number) * _MILLISECONDS[unit] for number, unit in _PIECE.findall(text)) / 1000)
