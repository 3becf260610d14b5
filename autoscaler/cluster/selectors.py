"""Label selectors as Kubernetes writes them in one line, e.g. in the status of a Scale: read, and held against labels.

`tests/cluster/test_selectors.py` asks the real API server the same questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

Labels = Mapping[str, str]
Selector = tuple[Callable[[Labels], bool], ...]  # all must hold

MOST_CHARACTERS: Final = 4_096  # longer ones are no selector of pods but an attack or a mistake
_KEY: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET: Final = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL: Final = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_COMPARED: Final = re.compile(rf"({_KEY})\s*([<>])\s*(-?[0-9]{{1,18}})")
_THERE: Final = re.compile(rf"(!?)\s*({_KEY})")
_OUTSIDE_PARENTHESES: Final = re.compile(r",(?![^()]*\))")


def parse(text: str) -> Selector:
    """`parse("app=nim,tier in (gpu, cpu),!old")`. Raises ValueError, for an empty text too: it would select all."""
    if not text.strip() or len(text) > MOST_CHARACTERS:
        raise ValueError("an empty selector, or one that is too long")
    return tuple(_requirement(part.strip()) for part in _OUTSIDE_PARENTHESES.split(text))


def matches(selector: Selector, labels: Labels | None) -> bool:
    return all(holds(labels or {}) for holds in selector)


def _requirement(text: str) -> Callable[[Labels], bool]:
    if found := _SET.fullmatch(text):
        return _in_set(found[1], frozenset(each.strip() for each in found[3].split(",")), found[2] == "in")
    if found := _EQUAL.fullmatch(text):
        return _in_set(found[1], frozenset([found[3]]), found[2] != "!=")
    if found := _COMPARED.fullmatch(text):
        return _compared(found[1], found[2] == ">", int(found[3]))
    if found := _THERE.fullmatch(text):
        key, wanted = found[2], not found[1]
        return lambda labels: (key in labels) is wanted
    raise ValueError(f"{text!r} is no requirement on labels")


def _in_set(key: str, values: frozenset[str], wanted: bool) -> Callable[[Labels], bool]:
    """What has no such label is in no set."""
    return lambda labels: (key in labels and labels[key] in values) is wanted


def _compared(key: str, above: bool, bound: int) -> Callable[[Labels], bool]:
    def holds(labels: Labels) -> bool:
        try:
            value = int(labels[key])
        except (KeyError, ValueError):
            return False
        return value > bound if above else value < bound

    return holds
