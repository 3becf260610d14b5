"""What the chart repeats from elsewhere: CRDs, the configuration's schema, the table of values in its README.

`python -m tests.chart.derived` writes it; test_derived.py proves that it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "tidegate"
CRDS = ROOT / "config" / "crd"
CONFIGURATION = ROOT / "config" / "schema" / "config.schema.json"
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"


def derived() -> dict[Path, str]:
    """Every derived file and what it must contain."""
    crds = {CHART / "files" / "crd" / path.name: path.read_text() for path in sorted(CRDS.glob("*.yaml"))}
    return {
        **crds,
        CHART / "values.schema.json": _values_schema(CHART / "values.schema.json"),
        CHART / "README.md": _readme(CHART / "README.md"),
    }


def _values_schema(path: Path) -> str:
    """`config` refers to the configuration's schema, which stands whole under `$defs`; the rest is written by hand."""
    schema = json.loads(path.read_text())
    configuration = json.loads(CONFIGURATION.read_text())
    document = {key: value for key, value in configuration.items() if key not in ("$schema", "$id", "$defs")}
    schema["$defs"] = {"Configuration": document, **configuration["$defs"]}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _readme(path: Path) -> str:
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = [
        f"| `{'.'.join(key)}` | `{json.dumps(_at(defaults, key))}` | {text} |"
        for key, text in described((CHART / "values.yaml").read_text())
    ]
    return "\n".join((before + BEGIN + "| Value | Default | |", "|---|---|---|", *rows, END + after))


def _at(values: Any, key: tuple[str, ...]) -> Any:
    for part in key:
        values = values[part]
    return values


def described(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each value with a comment `# -- …`, e.g. (("crds", "install"), "Install and …")."""
    parents: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if said := re.match(r" *# (-- )?(.*)", line):
            comment = [said[2]] if said[1] else [*comment, said[2]] if comment else []
        elif key := re.match(r"( *)([A-Za-z]+):", line):
            parents[len(key[1]) // 2 :] = [key[2]]
            if comment:
                yield tuple(parents), " ".join(comment)
            comment = []
        else:
            comment = []


def main() -> None:
    for path, content in derived().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
