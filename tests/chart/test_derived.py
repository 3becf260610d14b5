"""The chart repeats nothing by hand: what it takes from elsewhere is what stands there now."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.derived import CHART, CRDS, ROOT, derived

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
FOREIGN = {"/global", "/affinity/nodeAffinity", "/affinity/podAffinity", "/affinity/podAntiAffinity"}


@pytest.mark.parametrize("path", derived(), ids=lambda path: path.relative_to(CHART).as_posix())
def test_a_derived_file_is_up_to_date(path: Path) -> None:
    assert path.read_text() == derived()[path], "run `python -m tests.chart.derived`"


def test_the_chart_ships_every_crd_and_no_other() -> None:
    assert {path.name for path in (CHART / "files" / "crd").iterdir()} == {path.name for path in CRDS.glob("*.yaml")}


def test_the_chart_has_the_version_of_the_daemon() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == project["version"]


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object within the part that the chart writes itself."""
    if schema.get("type") == "object":
        yield path, schema
    for key, inner in schema.get("properties", {}).items():
        yield from objects(inner, f"{path}/{key}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from objects(schema[key], f"{path}/*")


def test_the_schema_accepts_no_unknown_key_anywhere() -> None:
    open_ones = {path for path, schema in objects(SCHEMA) if schema.get("additionalProperties", True) is True}
    assert open_ones == FOREIGN


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    assert set(SCHEMA["properties"]) - {"global", "enabled"} == set(VALUES)
    for key in ("podDisruptionBudget", "flowSchema", "crds", "rbac", "serviceAccount", "image", "service"):
        assert set(SCHEMA["properties"][key]["properties"]) == set(VALUES[key])


def test_every_value_is_explained_in_the_readme() -> None:
    readme = (CHART / "README.md").read_text()
    for key, value in VALUES.items():
        explained_as_one = f"| `{key}` |" in readme
        assert explained_as_one or all(f"| `{key}.{inner}` |" in readme for inner in value), key
