"""A short list out of the crash matrix: all writes of a creation, one way to interrupt each other scenario's writes; of
updates the writes that hurt most.

The whole matrix: `python -m tests.crash.matrix`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crash import matrix
from tests.crash.lane import Cell, Clean, Kind
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.updates import UPDATES
from tests.realcluster.cluster import Cluster

LEDGER = "PUT quotaledgers"
ROUTE = "PATCH httproutes"
OBJECT_MADE = "POST (deployments|leaderworkersets)"
# a connection that breaks is to the daemon what a time-out is, ten seconds sooner
SHORT: dict[str, tuple[Kind, ...]] = {
    "create": (Kind.BEFORE, Kind.AFTER, Kind.HANG_UP),
    "scale up": (Kind.AFTER,),
    "to zero": (Kind.HANG_UP,),
    "delete": (Kind.BEFORE,),
}
# of updates: how, which write, and the how manyth of those; a group gets the first of each only
TELLING: dict[str, tuple[tuple[Kind, str, int], ...]] = {
    "full update": ((Kind.AFTER, OBJECT_MADE, 1), (Kind.BEFORE, "PATCH services/W$", 1), (Kind.HANG_UP, LEDGER, 1)),
    "steps": ((Kind.BEFORE, ROUTE, 2), (Kind.AFTER, ROUTE, 3)),
    "deadline": ((Kind.AFTER, "RollingBack", 1), (Kind.BEFORE, "DELETE", 1)),
    "superseded": ((Kind.AFTER, "DELETE", 1), (Kind.HANG_UP, LEDGER, 2)),
    "abort": ((Kind.BEFORE, "RollingBack", 1), (Kind.AFTER, LEDGER, 2)),
    "abort at half": ((Kind.AFTER, ROUTE, 2), (Kind.BEFORE, "DELETE", 1)),
    "delete": ((Kind.BEFORE, LEDGER, 2), (Kind.AFTER, OBJECT_MADE, 1)),
}
LANES = 3  # beside the other tests; `make crash-matrix` runs every scenario with every kind


def short(scenario: Scenario, clean: Clean) -> Sequence[Cell]:
    """All cells of a creation; of the others the writes that do something. A report is written again if it is lost."""
    every = matrix.cells(scenario, clean, SHORT[scenario.name])
    if scenario.name in ("create", "delete"):
        return every
    return [cell for cell in every if cell.write and not clean.writes[cell.write - 1].endswith("(report)")]


@pytest.mark.timeout(600)  # two minutes were measured on a busy machine
def test_a_crash_at_any_write_changes_no_end_state(cluster: Cluster, tmp_path: Path) -> None:
    scenarios = [each for each in SCENARIOS if each.name in SHORT]
    with matrix.open_lanes(cluster, LANES, tmp_path) as lanes:
        found = matrix.run(lanes, scenarios, short, print)
    print(found.table())
    print(found.verdict())
    assert not found.failed
    assert not found.problems
    assert len(found.passed) >= 25


def telling(scenario: Scenario, clean: Clean) -> Sequence[Cell]:
    """A cell for each line of TELLING."""
    lines = TELLING[scenario.name.rpartition(",")[0]]
    return [_cell(scenario, clean, *line) for line in (lines[:1] if scenario.shape.groups else lines)]


def _cell(scenario: Scenario, clean: Clean, kind: Kind, write: str, which: int) -> Cell:
    found = [told for told in clean.writes if re.search(write, told)]
    assert len(found) >= which, f"{scenario.name} has no {write} number {which}: {clean.writes}"
    return Cell(scenario, which, kind, like=write)


@pytest.mark.timeout(900)  # only a hang decides
def test_a_crash_in_the_middle_of_an_update_changes_no_end_state(cluster: Cluster, tmp_path: Path) -> None:
    with matrix.open_lanes(cluster, LANES, tmp_path) as lanes:
        found = matrix.run(lanes, UPDATES, telling, print)
    print(found.table())
    print(found.verdict())
    assert not found.failed
    assert not found.problems
    assert len(found.passed) >= 20
