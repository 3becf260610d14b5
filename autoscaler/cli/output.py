"""Writes what a command found: lines and pictures for people, documents for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import yaml
from rich.console import Console
from rich.text import Text

from autoscaler.cli.options import Format
from autoscaler.cli.words import aligned, style
from autoscaler.cluster.resources import GROUP

_NO_LIMIT: Final = 100_000  # columns, where nobody's screen wraps
_KIND: Final = f"inferenceworkload.{GROUP}"


def console(no_color: bool) -> Console:
    """Standard output. Where it is no terminal, no line is cut or wrapped."""
    plain = no_color or bool(os.environ.get("NO_COLOR"))
    reconfigure: Callable[..., None] | None = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a locale without ✔ shows ? in its place
    shown = Console(highlight=False, color_system=None if plain else "auto")
    if not shown.is_terminal:
        shown.width = _NO_LIMIT
    return shown


def lines(rows: Sequence[Sequence[str]], no_headers: bool, coloured: str = "") -> Text:
    """The rows below each other; `coloured` names the column whose words have colours."""
    shown = aligned(rows)
    column = rows[0].index(coloured) if coloured in rows[0] else None
    text = Text(end="")
    for number, (row, line) in enumerate(zip(rows, shown, strict=True)):
        if number == 0 and no_headers:
            continue
        text.append_text(_line(row, line, column if number else None)).append("\n")
    return text


def _line(row: Sequence[str], line: str, column: int | None) -> Text:
    text = Text(line)
    if column is not None:
        start = line.index(row[column], sum(len(cell) for cell in row[:column]))
        text.stylize(style(row[column].rpartition(",")[2]), start, start + len(row[column]))
    return text


def document(shown: Console, value: Mapping[str, Any], form: Format) -> None:
    """As JSON or YAML."""
    if form is Format.JSON:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=1000)
    shown.file.write(text)


def object_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The object as stored, without the bookkeeping of who wrote which field."""
    meta = {key: value for key, value in (raw.get("metadata") or {}).items() if key != "managedFields"}
    return {**raw, "metadata": meta}


def list_of(raws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Objects as kubectl shows several of them."""
    items = [object_of(raw) for raw in raws]
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def names(shown: Console, found: Iterable[str]) -> None:
    """One a line; nothing where there are none."""
    shown.file.write("".join(f"{each}\n" for each in found))


def name_of(name: str) -> str:
    """`inferenceworkload.tidegate.dev/llama`."""
    return f"{_KIND}/{name}"
