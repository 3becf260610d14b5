"""Writes names into PromQL so that they stay names: string literals, regular expressions, placeholders.

A query of the operator has placeholders inside the strings of its matchers, and is PromQL as it stands:

    sum(gateway_pending{namespace="{namespace}", pod=~"{pods}"})

What a name holds cannot leave its string: it is escaped for the kind of quotes and, after =~ and !~, as a regular
expression that matches it alone. No input or output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

ONE: Final = frozenset({"namespace", "workload", "revision"})
MANY: Final = frozenset({"pods"})  # an alternative of names: only after =~ and !~
PLACEHOLDERS: Final = ONE | MANY

_TOKEN: Final = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<raw>`[^`]*`)
      | (?P<open>["'`])
      | (?P<operator>=~|!~|!=|=)
      | (?P<blank>\s+)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_PLACEHOLDER: Final = re.compile(r"\{([a-z]+)\}")  # not {2,3} nor \p{Greek}
_META: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
_ESCAPED: Final = re.compile("[\\\\\"'\x00-\x1f\x7f]")


class NotAQuery(Exception):
    """Why a template cannot be used: one sentence."""


@dataclass(frozen=True, slots=True)
class Query:
    """A template, read once: plain pieces, and placeholders with whether they stand in a regular expression."""

    pieces: tuple[str | tuple[str, bool], ...]

    @property
    def placeholders(self) -> frozenset[str]:
        return frozenset(piece[0] for piece in self.pieces if not isinstance(piece, str))

    def filled(self, names: Mapping[str, str], pods: Sequence[str]) -> str:
        """The query for one workload; `names` has all of ONE. ValueError without pods where the query asks for them:
        an empty alternative would match every series that has no such label."""
        if "pods" in self.placeholders and not pods:
            raise ValueError("a query with {pods} needs at least one pod")
        alternatives = "(?:" + "|".join(regex_of(pod) for pod in pods) + ")"
        parts = []
        for piece in self.pieces:
            if isinstance(piece, str):
                parts.append(piece)
                continue
            name, regex = piece
            if name in MANY:
                parts.append(escaped(alternatives))
            else:
                parts.append(escaped(regex_of(names[name]) if regex else names[name]))
        return "".join(parts)


def read_query(template: str) -> Query:
    """Raises NotAQuery. Whether the rest is PromQL only Prometheus can say."""
    pieces: list[str | tuple[str, bool]] = []
    operator = ""
    for token in _TOKEN.finditer(template):
        kind, text = str(token.lastgroup), token[0]
        if kind == "open":
            raise NotAQuery(f"a string that begins with {text} does not end")
        found = [match[1] for match in _PLACEHOLDER.finditer(text)]
        if kind == "text" and found:
            pieces += _pieces_of(text, operator)
        elif kind == "raw" and PLACEHOLDERS.intersection(found):
            raise NotAQuery(f"{{{found[0]}}} stands between backquotes, where nothing can be escaped; write quotes")
        else:
            pieces.append(text)
        if kind not in ("blank", "comment"):
            operator = text if kind == "operator" else ""
    _no_bare_placeholders(pieces)
    return Query(_joined(pieces))


def _pieces_of(text: str, operator: str) -> list[str | tuple[str, bool]]:
    pieces: list[str | tuple[str, bool]] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        name = match[1]
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in sorted(PLACEHOLDERS))
            raise NotAQuery(f"{{{name}}} is no placeholder; allowed: {known}")
        if not operator:
            raise NotAQuery(f'{{{name}}} stands in a string that is no matcher\'s; write label="{{{name}}}"')
        if name in MANY and operator not in ("=~", "!~"):
            raise NotAQuery(f'{{{name}}} is several names; write label=~"{{{name}}}"')
        pieces += [text[end : match.start()], (name, operator in ("=~", "!~"))]
        end = match.end()
    return [*pieces, text[end:]]


def _no_bare_placeholders(pieces: Sequence[str | tuple[str, bool]]) -> None:
    """Outside of strings `{namespace}` arrives character by character, so it is looked for in what they make."""
    bare = "".join(piece if isinstance(piece, str) and piece[:1] not in "\"'`#" else " " for piece in pieces)
    for match in re.finditer(r"\{\s*([a-z]+)\s*\}", bare):
        if match[1] in PLACEHOLDERS:
            raise NotAQuery(f'{{{match[1]}}} stands outside of a string; write label="{{{match[1]}}}"')


def _joined(pieces: Sequence[str | tuple[str, bool]]) -> tuple[str | tuple[str, bool], ...]:
    joined: list[str | tuple[str, bool]] = []
    for piece in pieces:
        if joined and isinstance(piece, str) and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return tuple(joined)


def regex_of(name: str) -> str:
    """A regular expression (RE2) that matches this name alone: `regex_of("a.b") == r"a\\.b"`."""
    return _META.sub(lambda found: "\\" + found[0], name)


def quoted(text: str) -> str:
    """A string literal: `quoted('a.b') == '"a.b"'`."""
    return f'"{escaped(text)}"'


def escaped(text: str) -> str:
    """What stands between the quotes of a literal, single or double. ValueError where it is no text."""
    text.encode()  # half a surrogate pair cannot be sent
    return _ESCAPED.sub(lambda found: _CHARACTERS.get(found[0]) or f"\\x{ord(found[0]):02x}", text)


_CHARACTERS: Final = {"\\": "\\\\", '"': "\\x22", "'": "\\x27", "\n": "\\n"}  # \" is an error between single quotes
