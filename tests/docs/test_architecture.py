"""docs/architecture.md says what the code says: layers, conditions, events, metrics, phases."""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum

import pytest

from autoscaler.controller import phases
from autoscaler.model.decision import Rule
from rollouts import record
from tests.docs import emitted
from tests.docs.emitted import CONTROLLER, ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def section(title: str) -> str:
    [text] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def rows(title: str) -> dict[str, list[str]]:
    """First cell -> the other cells of the section's table; every first cell once."""
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\| `.*$", section(title), re.M)]
    assert len({row[0] for row in found}) == len(found), "a name stands there twice"
    return {row[0].strip("`"): row[1:] for row in found}


def test_the_layers_are_the_checked_ones() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    [drawn] = re.findall(r"```text\n(.*?)```", section("Who may import whom"), re.DOTALL)
    assert drawn.splitlines() == layers


@pytest.mark.parametrize("package", ["autoscaler", "rollouts"])
def test_every_room_is_named(package: str) -> None:
    for path in (ROOT / package).iterdir():
        if path.is_dir() and (path / "__init__.py").exists():
            assert f"`{package}/{path.name}`" in section("Rooms"), path.name


def test_every_part_of_the_cycle_is_named() -> None:
    named = set(re.findall(r"`([a-z_/]+?)(?:\.py)?`", section("One cycle")))
    modules = {path.stem for path in CONTROLLER.glob("*.py")} - {"__init__"}
    assert modules <= {name.rpartition("/")[2] for name in named}


def test_the_conditions_are_those_in_the_code() -> None:
    documented = {kind: set(re.findall(r"[A-Z]\w+", cells[0])) for kind, cells in rows("Conditions").items()}
    in_code = emitted.conditions()
    assert documented.keys() == in_code.keys()
    texts = {text for path in CONTROLLER.glob("*.py") for text in re.findall(r'"([A-Z]\w+)"', path.read_text())}
    known = texts | {member.value for enum in (Rule, phases.Phase) for member in enum}
    for kind, reasons in documented.items():
        assert in_code[kind] <= reasons, f"{kind} has more reasons in the code"
        assert reasons <= known, f"{kind} has more reasons on the page"


def test_the_events_are_those_in_the_code() -> None:
    types = {reason: "Warning" if warning else "Normal" for reason, warning in emitted.event_reasons().items()}
    assert {reason: cells[0] for reason, cells in rows("Events").items()} == types


def test_the_metrics_are_those_of_the_page() -> None:
    documented = {
        name: (kind, tuple(sorted(filter(None, labels.split(", ")))))
        for name, (kind, labels) in rows("Metrics").items()
    }
    assert documented == emitted.metrics()


@pytest.mark.parametrize("enum", [phases.Phase, record.Phase], ids=["workload", "record"])
def test_every_phase_is_named(enum: type[StrEnum]) -> None:
    named = set(re.findall(r"`(\w+)`", section("Phases of a workload")))
    assert {phase.value for phase in enum} <= named
