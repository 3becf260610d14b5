"""The crash matrix: every write of every scenario, interrupted in every way; the end must be the same.

    python -m tests.crash.matrix [--scenario create] [--kind "kill before"] [--lanes 6]

Each scenario runs once undisturbed through the fault proxy, which lists its W writes (events and leases left out).
Then it runs again for each write and kind: kill -9 before the write reaches the server, kill -9 right after the server
has answered, done but never answered. Row 0 kills the daemon before and after what the user does. Afterwards a new
daemon starts, and the end state must equal the undisturbed one; every version that any object had on the way is
checked against the invariants (verdict.py). Cells run side by side, in lanes.
"""

from __future__ import annotations

import argparse
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from tests.crash.lane import Cell, Clean, Kind, Lane, Result
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.updates import UPDATES
from tests.realcluster import gateway, lws, program, session
from tests.realcluster.cluster import Cluster

T = TypeVar("T")

KINDS: Final = (Kind.BEFORE, Kind.AFTER, Kind.TIME_OUT)
LANES: Final = 6
ALL: Final = (*SCENARIOS, *UPDATES)


@dataclass(slots=True)
class Matrix:
    """What a run found. `problems`: what belongs to no cell."""

    clean: dict[str, Clean]
    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    crashes: int = 0

    @property
    def failed(self) -> list[Result]:
        return [each for each in self.results if each.problems]

    @property
    def unreached(self) -> list[Result]:
        return [each for each in self.results if not each.problems and each.struck is None]

    @property
    def passed(self) -> list[Result]:
        return [each for each in self.results if not each.problems and each.struck is not None]

    def table(self) -> str:
        """One row per write, one column per kind: ok, FAIL, or - where this run had no such write."""
        kinds = sorted({each.cell.kind for each in self.results}, key=list(Kind).index)
        places = ((each.cell.scenario.name, each) for each in self.results)
        by_cell = {(name, each.cell.row(self.clean[name]), each.cell.kind): each for name, each in places}
        lines = [f"{'scenario':20}{'write':>5}  {'':62}" + "".join(f"{kind:>13}" for kind in kinds)]
        for name, clean in self.clean.items():
            for number, write in enumerate(("(the user's own)", *clean.writes)):
                marks = "".join(f"{_mark(by_cell.get((name, number, kind))):>13}" for kind in kinds)
                if marks.strip():
                    lines.append(f"{name:20}{number:>5}  {write[:62]:62}{marks}")
        return "\n".join(lines)

    def verdict(self) -> str:
        """What went wrong, and the last line: cells passed/total."""
        lines = [f"FAIL {each.cell} ({each.struck}): {'; '.join(each.problems)}" for each in self.failed]
        lines += [f"FAIL {problem}" for problem in self.problems]
        writes = sum(len(each.writes) for each in self.clean.values())
        reached = len(self.results) - len(self.unreached)
        lines.append(
            f"cells passed/total: {len(self.passed)}/{reached}, {writes} writes, {self.crashes} crashes"
            + (f"; {len(self.unreached)} cells whose write did not come again" if self.unreached else "")
        )
        return "\n".join(lines)


def _mark(result: Result | None) -> str:
    if result is None:
        return ""
    if result.problems:
        return "FAIL"
    return "-" if result.struck is None else "ok"


def cells(scenario: Scenario, clean: Clean, kinds: Sequence[Kind] = KINDS) -> list[Cell]:
    """All cells of a scenario. The user's own write can only be crashed around."""
    around = [Cell(scenario, 0, kind) for kind in (Kind.BEFORE, Kind.AFTER) if kind in kinds]
    return around + [Cell(scenario, write, kind) for write in range(1, len(clean.writes) + 1) for kind in kinds]


def run(
    lanes: Sequence[Lane],
    scenarios: Iterable[Scenario],
    choose: Callable[[Scenario, Clean], Sequence[Cell]] = cells,
    say: Callable[[str], None] = lambda text: None,
) -> Matrix:
    """The clean runs, then the cells that `choose` names, on as many threads as there are lanes."""
    free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def on_a_lane(work: Callable[[Lane], T]) -> T:
        lane = free.get()
        try:
            return work(lane)
        finally:
            free.put(lane)

    chosen = {scenario.name: scenario for scenario in scenarios}
    with ThreadPoolExecutor(len(lanes)) as pool:
        waiting = {
            name: pool.submit(on_a_lane, lambda lane, it=scenario: lane.run_clean(it))
            for name, scenario in chosen.items()
        }
        matrix = Matrix({name: each.result() for name, each in waiting.items()})
        matrix.problems += [
            f"{name}, clean run: {each}" for name, clean in matrix.clean.items() for each in clean.problems
        ]
        todo = [cell for name, clean in matrix.clean.items() for cell in choose(chosen[name], clean)]
        say(f"{len(todo)} cells")
        for result in pool.map(lambda cell: on_a_lane(lambda lane: _run_one(lane, cell, matrix.clean)), todo):
            matrix.results.append(result)
            say(f"{result.seconds:5.1f} s  {_mark(result):4}  {result.cell}: {result.struck}")
        for lane, left in zip(lanes, pool.map(Lane.left_behind, lanes), strict=True):
            matrix.problems += [f"left behind in {lane.namespace}: {each}" for each in left]
    matrix.crashes = sum(lane.crashes for lane in lanes)
    return matrix


def _run_one(lane: Lane, cell: Cell, clean: Mapping[str, Clean]) -> Result:
    """A write that comes only in some runs gets a second chance."""
    result = lane.run_cell(cell, clean[cell.scenario.name])
    if result.struck is None and not result.problems:
        result = lane.run_cell(cell, clean[cell.scenario.name])
    return result


@contextmanager
def open_lanes(cluster: Cluster, count: int, directory: Path) -> Iterator[list[Lane]]:
    """So many lanes, started side by side, where LeaderWorkerSets and HTTPRoutes are known."""
    lws.start(cluster)
    lws.await_collector(cluster)
    gateway.apply_api(cluster)
    with ExitStack() as stack:

        def start(number: int) -> Lane:
            own = directory / f"lane-{number}"
            own.mkdir(parents=True)
            lane = Lane(cluster, cluster.create_namespace(f"crash-{number}"), own)
            return stack.enter_context(lane)

        with ThreadPoolExecutor(count) as pool:
            lanes = list(pool.map(start, range(count)))
        yield lanes
    for lane in lanes:
        cluster.delete_namespace(lane.namespace)


def main() -> int:
    arguments = _arguments()
    program.enter("crash matrix")
    chosen = [each for each in ALL if each.name in (arguments.scenario or [each.name])]
    kinds = [Kind(each) for each in arguments.kind] or list(KINDS)
    began = time.monotonic()
    cluster = session.shared_cluster()
    directory = program.logs("crash")
    with open_lanes(cluster, arguments.lanes, directory) as lanes:
        matrix = run(lanes, chosen, lambda scenario, clean: cells(scenario, clean, kinds), program.say)
    print(f"\n{matrix.table()}\n\n{matrix.verdict()}, {time.monotonic() - began:.0f} s")
    if not matrix.failed and not matrix.problems:
        return 0
    print(f"logs of the daemons: {directory}/lane-*/daemon.log")
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.matrix", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scenario", action="append", choices=[each.name for each in ALL], help="all by default")
    parser.add_argument("--kind", action="append", default=[], choices=list(Kind), help="the first three by default")
    parser.add_argument("--lanes", type=int, default=LANES, help=f"cells at once; {LANES} by default")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
