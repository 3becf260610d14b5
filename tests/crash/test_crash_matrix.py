"""A short list out of the crash matrix: all writes of a creation, one way to interrupt each other scenario's writes.

The whole matrix: `python -m tests.crash.matrix`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crash import matrix
from tests.crash.lane import Cell, Clean, Kind
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.realcluster.cluster import Cluster

# a connection that breaks is to the daemon what a time-out is, ten seconds sooner
SHORT: dict[str, tuple[Kind, ...]] = {
    "create": (Kind.BEFORE, Kind.AFTER, Kind.HANG_UP),
    "scale up": (Kind.AFTER,),
    "to zero": (Kind.HANG_UP,),
    "delete": (Kind.BEFORE,),
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
