"""Reads YAML as people mean it today, and says where each value stood.

Scalars follow YAML 1.2: `no` and `22:00` are text, 010 is ten. Duplicate keys, keys that are not text, foreign tags
and documents that unfold without end are errors. PyYAML does the parsing; this decides what the nodes mean. A message
names lines, never the text around them: that text may hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import yaml

Path = tuple[str | int, ...]

_DEPTH_MAX: Final = 100
_NODES_MAX: Final = 200_000
_DIGITS_MAX: Final = 40
_TAG: Final = "tag:yaml.org,2002:"
_IMPLICIT: Final = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", tuple("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", tuple("-+.0123456789")),
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's parser with the implicit types of YAML 1.2 in place of those of 1.1."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _name, _pattern, _first in _IMPLICIT:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass(frozen=True, slots=True)
class Mistake:
    """What makes a text no document that we read."""

    line: int | None
    sentence: str


class NotADocument(ValueError):
    """The text cannot be read. Carries every mistake found."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(mistake.sentence for mistake in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and the line of each key and item."""

    value: Any
    lines: Mapping[Path, int]

    def line_of(self, path: Path) -> int | None:
        """The line of the value at `path`, or of the nearest thing around it that is there."""
        for length in range(len(path), -1, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        return None


@dataclass(slots=True)
class _Reading:
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    nodes: int = 0


def read_documents(text: str) -> list[Document]:
    """Every document of the text. Raises NotADocument."""
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotADocument([Mistake(mark.line + 1 if mark else None, f"not YAML: {error.problem}")]) from None
    except yaml.YAMLError:
        raise NotADocument([Mistake(None, "not YAML: a character that may not stand in it")]) from None
    except RecursionError:
        raise NotADocument([Mistake(None, f"nested deeper than {_DEPTH_MAX} levels")]) from None
    documents, mistakes = [], []
    for node in nodes:
        reading = _Reading()
        documents.append(Document(_read(node, (), reading), reading.lines))
        mistakes += reading.mistakes
    if mistakes:
        raise NotADocument(mistakes)
    return documents


def read_value(text: str) -> Any:
    """One value, as the environment gives it; text that is no YAML is itself."""
    try:
        [document] = read_documents(text)
    except ValueError:
        return text
    return document.value


def _read(node: yaml.Node, path: Path, reading: _Reading) -> Any:
    line = node.start_mark.line + 1
    reading.lines.setdefault(path, line)
    reading.nodes += 1
    if len(path) > _DEPTH_MAX or reading.nodes > _NODES_MAX:
        too_much = f"nested deeper than {_DEPTH_MAX} levels, or more than {_NODES_MAX} values (aliases counted)"
        raise NotADocument([Mistake(line, too_much)])
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, reading)
    if isinstance(node, yaml.SequenceNode):
        return [_read(item, (*path, index), reading) for index, item in enumerate(node.value)]
    return _scalar(node, line, reading)


def _mapping(node: yaml.MappingNode, path: Path, reading: _Reading) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag != f"{_TAG}str" or not isinstance(key_node, yaml.ScalarNode):
            reading.mistakes.append(Mistake(line, "a key that is not text; put it in quotes"))
            continue
        key = key_node.value
        if key in first:
            reading.mistakes.append(Mistake(line, f"key {key!r} was given on line {first[key]} already; remove one"))
            continue
        first[key] = line
        reading.lines[(*path, key)] = line
        mapping[key] = _read(value_node, (*path, key), reading)
    return mapping


def _scalar(node: yaml.Node, line: int, reading: _Reading) -> Any:
    text = str(node.value)
    if node.tag in (f"{_TAG}int", f"{_TAG}float") and len(text) > _DIGITS_MAX:
        reading.mistakes.append(Mistake(line, f"a number of {len(text)} digits; allowed: at most {_DIGITS_MAX}"))
        return None
    match str(node.tag).removeprefix(_TAG):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        case "float":
            return float(text)
    reading.mistakes.append(Mistake(line, f"tag {node.tag} is not read here; remove it"))
    return None
