"""The fault matrix: every fault of the metrics × every signal × both sources; nothing goes down wrongly.

    python -m tests.faults.matrix [--source pods] [--fault stale] [--signal latency]

A cell is one workload of three replicas on the real control plane, its pods' pages served by real HTTP servers, read by
the real daemon, directly or by way of a real Prometheus. lane.py says what happens in it, cells.py which do not apply.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.cells import OF_PAGES, OF_PROMETHEUS, SIGNALS, Cell, Fault, Source, every, why_not
from tests.faults.lane import Lane, Result
from tests.realcluster import program, session
from tests.realcluster.cluster import Cluster

AT_ONCE: Final = 2  # lanes: each is a daemon, a Prometheus and 150 pods on a machine that runs the control plane, too
FAULTS_A_LANE: Final = 5  # of pages: 50 workloads of three or four pods


@dataclass(frozen=True, slots=True)
class Matrix:
    """What a run found, of the cells that it had."""

    results: tuple[Result, ...]
    not_applicable: tuple[tuple[Cell, str], ...]

    @property
    def failed(self) -> list[Result]:
        return [each for each in self.results if each.problems]

    def table(self) -> str:
        """One row per fault and source, one column per signal: ok, FAIL, n/a, or empty where it was not asked for."""
        marks = {each.cell: "FAIL" if each.problems else "ok" for each in self.results}
        marks |= {cell: "n/a" for cell, _ in self.not_applicable}
        lines = [f"{'source':12}{'fault':34}" + "".join(f"{name[:14]:>15}" for name in SIGNALS)]
        for source in Source:
            for fault in Fault:
                row = [marks.get(Cell(fault, signal, source), "") for signal in SIGNALS]
                if any(row):
                    lines.append(f"{source:12}{fault:34}" + "".join(f"{mark:>15}" for mark in row))
        return "\n".join(lines)

    def verdict(self) -> str:
        """What went wrong, what does not apply and why, and the last line: cells passed/total."""
        lines = [str(each) for each in self.failed]
        reasons: dict[str, list[Cell]] = {}
        for cell, why in self.not_applicable:
            reasons.setdefault(why, []).append(cell)
        lines += [f"not applicable, {len(cells)} cells: {why}" for why, cells in reasons.items()]
        passed, total = len(self.results) - len(self.failed), len(self.results)
        lines.append(f"cells passed/total: {passed}/{total}, {len(self.not_applicable)} not applicable")
        return "\n".join(lines)


def run(
    cluster: Cluster, cells: Iterable[Cell], directory: Path, say: Callable[[str], None] = print, at_once: int = AT_ONCE
) -> Matrix:
    """All these cells, in as many lanes as their faults need."""
    asked = list(cells)
    reasons = [(cell, why) for cell in asked if (why := why_not(cell)) is not None]
    lanes = [
        Lane(cluster, group, directory / f"lane-{number}", say)
        for number, group in enumerate(_lanes([cell for cell in asked if why_not(cell) is None]))
    ]
    with ThreadPoolExecutor(at_once) as pool:
        found = [result for results in pool.map(Lane.run, lanes) for result in results]
    return Matrix(tuple(found), tuple(reasons))


def _lanes(cells: Sequence[Cell]) -> list[list[Cell]]:
    """What may stand beside each other: a few faults of pages, and each fault of Prometheus by itself."""
    groups: dict[tuple[Source, Fault | int], list[Cell]] = {}
    for cell in cells:
        place = cell.fault if cell.fault in OF_PROMETHEUS else OF_PAGES.index(cell.fault) // FAULTS_A_LANE
        groups.setdefault((cell.source, place), []).append(cell)
    return list(groups.values())


def main() -> int:
    arguments = _arguments()
    program.enter("fault matrix")
    chosen = [
        cell
        for cell in every()
        if cell.source in (arguments.source or [cell.source])
        and cell.fault in (arguments.fault or [cell.fault])
        and cell.signal in (arguments.signal or [cell.signal])
    ]
    began = time.monotonic()
    directory = program.logs("faults")
    matrix = run(session.shared_cluster(), chosen, directory, program.say)
    print(f"\n{matrix.table()}\n\n{matrix.verdict()}, {time.monotonic() - began:.0f} s")
    if matrix.failed:
        print(f"logs of the daemons: {directory}/lane-*/daemon.log")
    return 1 if matrix.failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.matrix", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", action="append", choices=list(Source), help="both by default")
    parser.add_argument("--fault", action="append", choices=list(Fault), help="all by default")
    parser.add_argument("--signal", action="append", choices=SIGNALS, help="all by default")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
