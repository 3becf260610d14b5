"""The spellings of numbers, switches and durations that Knative accepts, and nothing else.

Python is more liberal than Go in some places (blanks around numbers, other alphabets' digits) and
stricter in others (hexadecimal floats), so annotations written for Knative are read by these rules.
An unacceptable text is None. Durations are whole nanoseconds, as exact as their text.

Source: what knative/serving @ 98e5ef9 accepts (tests/data/kpa/README.md, "Targets and annotations").
"""

from __future__ import annotations

import math
import re
from typing import Final

NANOSECONDS: Final = 1_000_000_000  # in a second

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_HEX_DIGITS = r"[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*"
_DECIMAL: Final = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_HEXADECIMAL: Final = re.compile(
    rf"[+-]?0[xX]_?(?:{_HEX_DIGITS}(?:\.(?:{_HEX_DIGITS})?)?|\.{_HEX_DIGITS})[pP][+-]?{_DIGITS}"
)
_SPECIAL: Final = re.compile(r"[+-]?inf(?:inity)?|nan", re.IGNORECASE | re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_UNIT_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek mu
    "ms": 1_000_000,
    "s": NANOSECONDS,
    "m": 60 * NANOSECONDS,
    "h": 3600 * NANOSECONDS,
}
_DURATION_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_DURATION_LIMIT: Final = 2**63  # nanoseconds in 64 bits with a sign
_FRACTION_DIGITS: Final = 18  # more than a nanosecond of an hour needs
_TRUE: Final = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "False", "FALSE"})


def parse_float(text: str) -> float | None:
    """`1_000`, `.5`, `5.`, `1e2`, `0x1p4`, `inf`, `nan`; None for blanks, `1e400`, `0x10`, `１０`."""
    if _SPECIAL.fullmatch(text):
        return float(text)
    if _DECIMAL.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else None
    if _HEXADECIMAL.fullmatch(text):
        try:
            return float.fromhex(text.replace("_", ""))
        except OverflowError:
            return None
    return None


def parse_int(text: str, bits: int = 32) -> int | None:
    """`007`, `+3`, `-1`; None for `1.5`, `1_0`, `1e1` and what does not fit into `bits` with a sign."""
    if not _INTEGER.fullmatch(text):
        return None
    limit = 1 << (bits - 1)
    if len(text.lstrip("+-").lstrip("0")) > len(str(limit)):
        return None  # Python refuses to convert thousands of digits
    value = int(text)
    return value if -limit <= value < limit else None


def parse_bool(text: str) -> bool | None:
    """`1`, `t`, `true` and their capitals; None for `yes`, `on`, `tRue`."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def parse_duration_ns(text: str) -> int | None:
    """`1m30s`, `.5m`, `-5s`, `0`; None for `30`, `1d`, `1e3s`, `1m 30s` and beyond 292 years."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    total = 0
    position = 0
    while position < len(rest):
        part = _DURATION_PART.match(rest, position)
        if part is None:
            return None
        amount = _part_ns(part[1], part[2] or "", _UNIT_NS[part[3]])
        if amount is None or total + amount > _DURATION_LIMIT:
            return None
        total += amount
        position = part.end()
    if not rest or (total == _DURATION_LIMIT and sign > 0):
        return None
    return sign * total


def _part_ns(whole: str, fraction: str, unit_ns: int) -> int | None:
    """One number with its unit; what is below a nanosecond is cut off."""
    if not whole and not fraction:
        return None
    if len(whole.lstrip("0")) > len(str(_DURATION_LIMIT)):
        return None
    amount = int(whole or "0") * unit_ns
    if amount > _DURATION_LIMIT:
        return None
    digits = fraction[:_FRACTION_DIGITS]
    if digits:  # as a float product: 0.1h must come out as everybody else's 0.1h
        amount += int(int(digits) * (unit_ns / math.pow(10.0, len(digits))))
    return amount
