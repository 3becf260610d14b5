"""Turns what pydantic found into sentences: path, value, what is wrong with it, what is allowed.

What is allowed comes from the model's JSON schema, so that no range is written twice. Values are shown only where the
model knows the key, shortened, and with credentials in URLs taken out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from autoscaler.settings.autoscaling import LABEL_NAME, METRIC, METRIC_CHOICE, METRIC_NAME, QUERY_NAME
from autoscaler.settings.rules import BROKEN_RULES
from autoscaler.settings.scalars import (
    API_VERSION_OF_A_KIND,
    DNS_1035,
    DNS_1123,
    DNS_1123_SUBDOMAIN,
    DURATION_TEXT,
    KIND_NAME,
)
from autoscaler.settings.yaml12 import Path

_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
_SHOWN_MAX: Final = 60
_WORDS: Final = {
    DNS_1123: "lower-case letters, digits and -, starting and ending with a letter or digit, at most 63 characters",
    DNS_1035: "lower-case letters, digits and -, starting with a letter, not ending in -, at most 63 characters",
    DNS_1123_SUBDOMAIN: "lower-case letters, digits, - and ., starting and ending with a letter or digit",
    API_VERSION_OF_A_KIND: "a group and a version such as apps/v1",
    KIND_NAME: "letters and digits, starting with a capital letter, such as StatefulSet",
    METRIC: METRIC_CHOICE,
    QUERY_NAME: "lower-case letters, digits, - and _, starting with a letter and ending with a letter or digit",
    METRIC_NAME: "letters, digits, _ and :, not starting with a digit",
    LABEL_NAME: "letters, digits and _, not starting with a digit",
    r"^[^:\s]+$": "text without colons and blanks",
    DURATION_TEXT: "a duration such as 30s, 1m30s or 2h",
    r"^/[!-~]*$": "a path that starts with / and has no spaces",
}
# Keys of the Run:ai inference API that stand elsewhere here, or that nothing here would heed.
_ELSEWHERE: Final = {
    ("autoscaling", "initializationTimeoutSeconds"): "it stands in spec.serving",
    ("autoscaling", "scaleWindowSeconds"): "the averaging window is the operator's: kpa.stable-window",
    ("spec", "servingConfiguration"): "initializationTimeoutSeconds and requestTimeoutSeconds stand in spec.serving",
    ("spec", "servingPort"): "the port and protocol stand in spec.serving",
}
_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
}
_BOUNDS: Final = ("greater_than", "less_than", "too_long", "too_short", "string_too_long", "string_too_short")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to change. `path` is empty where the whole document is meant."""

    path: Path
    sentence: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.sentence}" if self.path else self.sentence


def dotted(path: Path) -> str:
    """A path as it is written: `dotted(("a", 0, "nvidia.com/gpu")) == 'a[0]["nvidia.com/gpu"]'`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def problems_of(error: ValidationError, schema: Mapping[str, Any]) -> list[Problem]:
    """Every problem, in the order of the document's models."""
    return [problem for detail in error.errors(include_url=False) for problem in _problems(detail, schema)]


def _problems(detail: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Problem]:
    path: Path = tuple(detail["loc"])
    kind, value = str(detail["type"]), detail["input"]
    if kind == BROKEN_RULES:
        return [Problem((*path, *refusal.path), refusal.sentence) for refusal in detail["ctx"]["broken"]]
    if kind == "refused":
        return [Problem(path, without_credentials(detail["msg"]))]
    if kind == "extra_forbidden":
        return [Problem(path, _unknown_key(path, _keys(_node(schema, path[:-1]))))]
    if path[-1:] == ("[key]",):
        return [Problem(path[:-1], f"this name is refused; allowed: {_words(detail.get('ctx', {}).get('pattern'))}")]
    allowed = _allowed(_node(schema, path))
    tail = f"; allowed: {allowed}" if allowed else ""
    if kind == "missing":
        return [Problem(path, f"is missing{tail}")]
    return [Problem(path, f"value {shown(value)} {_complaint(kind)}{tail}")]


def _complaint(kind: str) -> str:
    if kind.startswith(_BOUNDS):
        return "is out of range"
    if kind in ("enum", "literal_error"):
        return "is not known"
    if kind == "string_pattern_mismatch":
        return "is not of the right form"
    return f"is not {_KINDS.get(kind.split('_')[0], 'allowed')}"


def _unknown_key(path: Path, keys: list[str]) -> str:
    key, allowed = str(path[-1]), f"; allowed: {', '.join(keys) or 'none'}"
    if elsewhere := _ELSEWHERE.get((str(path[-2]), key) if len(path) > 1 else ("", key)):
        return f"unknown key, {elsewhere}{allowed}"
    close = get_close_matches(key, keys, n=1)
    return f"unknown key{f', did you mean {close[0]}?' if close else ''}{allowed}"


def shown(value: object) -> str:
    """A value in a message: short, and without credentials."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value}"
        case str():
            text = repr(without_credentials(value))
            return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
        case list() | tuple():
            return "(a list)"
    return "(a mapping)"


def without_credentials(text: str) -> str:
    """`without_credentials("http://me:secret@host") == "http://***@host"`."""
    return _CREDENTIALS.sub("//***@", text)


def _node(schema: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The schema at a path; empty where nothing is known."""
    node = _plain(schema, schema)
    for part in path:
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            patterns = node.get("patternProperties") or {"": node.get("additionalProperties")}
            below = node.get("properties", {}).get(part) or next(iter(patterns.values()))
            node = below if isinstance(below, dict) else {}
        node = _plain(node, schema)
    return node


def _plain(node: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node without references and without the null of `X | None`."""
    if "anyOf" in node:
        node = next(option for option in node["anyOf"] if option != {"type": "null"})
    if "$ref" in node:
        return _plain(root["$defs"][str(node["$ref"]).rpartition("/")[2]], root)
    return node


def _keys(node: Mapping[str, Any]) -> list[str]:
    return list(node.get("properties", {}))


def _words(pattern: str | None) -> str:
    return _WORDS.get(pattern or "", f"text that matches {pattern}")


def _allowed(node: Mapping[str, Any]) -> str:
    if comment := node.get("$comment"):
        return str(comment)
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    match node.get("type"):
        case "integer" | "number" as kind:
            return f"a {'whole ' if kind == 'integer' else ''}number{_range(node)}"
        case "string" if "pattern" in node:
            return _words(node["pattern"])
        case "string":
            return "text" + (f" of at most {node['maxLength']} characters" if "maxLength" in node else "")
        case "object":
            return f"a mapping with the keys {', '.join(_keys(node))}" if _keys(node) else "a mapping"
        case "array":
            return f"a list{_length(node.get('minItems'), node.get('maxItems'))}"
    return ""


def _length(low: int | None, high: int | None) -> str:
    if low is not None and high is not None:
        return f" of {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return f" of at most {high}" if high is not None else ""


def _range(node: Mapping[str, Any]) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of {low} or more"
    return f" above {node['exclusiveMinimum']}" if "exclusiveMinimum" in node else ""
