"""Kubernetes quantities ("500m", "1.5Gi", "2e3") as exact numbers.

Decides nothing; it only reads. The grammar is that of apimachinery's `resource.Quantity`: a signed decimal
number, then either one binary suffix (Ki … Ei), one decimal suffix (n u m k M G T P E) or an exponent.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

PATTERN: Final = r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d{1,3})?$"

_QUANTITY: Final = re.compile(PATTERN)
_SUFFIX: Final[dict[str, Fraction]] = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{suffix: Fraction(1024**power) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def parse_quantity(text: str | int | float) -> Fraction:
    """The exact value of a quantity. `parse_quantity("500m") == Fraction(1, 2)`.

    Raises ValueError with the offending text.
    """
    if isinstance(text, int | float):
        return Fraction(str(text))
    matched = _QUANTITY.match(text)
    if matched is None:
        raise ValueError(f"{text!r} is not a quantity such as 2, 0.5, 500m or 16Gi")
    number, suffix = matched.group(1), matched.group(3) or ""
    sign = -1 if text.startswith("-") else 1
    scale = Fraction(10) ** int(suffix[1:]) if suffix[:1] in "eE" and suffix[1:] else _SUFFIX[suffix]
    return sign * Fraction(number) * scale


def milli(text: str | int | float) -> int:
    """A quantity in whole thousandths, rounded up as the API server does: `milli("1") == 1000`."""
    value = parse_quantity(text) * 1000
    return -((-value.numerator) // value.denominator)
