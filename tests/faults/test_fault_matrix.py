"""Every cell of the fault matrix is a test; the run behind them happens once.

By default a short list: each fault with both sources, on the signals in turn. All cells: `make fault-matrix`, or
TIDEGATE_FAULT_MATRIX=all with this file.
"""

from __future__ import annotations

import os

import pytest

from tests.faults import matrix
from tests.faults.cells import NOT_APPLICABLE, SIGNALS, Cell, Fault, Source, every, short, why_not
from tests.faults.lane import Result
from tests.realcluster.cluster import Cluster

CELLS = every() if os.environ.get("TIDEGATE_FAULT_MATRIX") == "all" else short()
APPLY = [cell for cell in CELLS if why_not(cell) is None]


@pytest.fixture(scope="module")
def results(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Result]:
    at_once = 3 if len(CELLS) < len(every()) else matrix.AT_ONCE
    found = matrix.run(cluster, CELLS, tmp_path_factory.mktemp("faults"), at_once=at_once)
    print(found.table())
    print(found.verdict())
    return {each.cell: each for each in found.results}


@pytest.mark.timeout(900)  # some minutes for the short list, ten for all of it
@pytest.mark.xdist_group("fault-matrix")
@pytest.mark.parametrize("cell", APPLY, ids=str)
def test_no_fault_of_the_metrics_lowers_anything(results: dict[Cell, Result], cell: Cell) -> None:
    assert results[cell].problems == ()


def test_the_short_list_has_every_fault_signal_and_source() -> None:
    chosen = [cell for cell in short() if why_not(cell) is None]
    assert {cell.fault for cell in chosen} == set(Fault)
    assert {cell.signal for cell in chosen} == set(SIGNALS)
    assert {cell.source for cell in chosen} == set(Source)


def test_what_does_not_apply_is_a_cell_with_a_reason() -> None:
    left_out = [cell for cell in every() if why_not(cell) is not None]
    assert len(every()) == len(Fault) * len(SIGNALS) * len(Source)
    assert len(left_out) == 48
    assert all(reason for *_, reason in NOT_APPLICABLE)
    assert len({(cell.source, cell.workload) for cell in every()}) == len(every())
