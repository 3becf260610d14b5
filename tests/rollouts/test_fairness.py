"""Nobody starves: simulated cycles of one quota with a stream of updates and growth that comes and goes.

The cluster is imitated by who holds what for how long. Growth is asked for by one workload, in single replicas.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.model.resources import GPU
from autoscaler.model.workload import WorkloadKey
from rollouts.quota import OVERTAKES_MOST, WAIT_MOST_S, Ask, Ledger, share

ONE_GPU = {GPU: 1000}
PERIOD_S = 90.0
WAIT_MOST = int(WAIT_MOST_S / PERIOD_S)  # cycles
FLOOR = 1


@dataclass
class Project:
    """So many GPUs; an update runs, and a replica beyond the floor is wanted, for so many cycles."""

    gpus: int
    runs: int
    lives: int
    waiting: list[Ask] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)  # when, how many GPUs
    grown: list[int] = field(default_factory=list)  # until when each replica beyond the floor is wanted
    cycle: int = 0
    served: list[tuple[str, int]] = field(default_factory=list)
    headed: dict[str, int] = field(default_factory=dict)  # since when it was first in the queue
    growth_at: list[int] = field(default_factory=list)
    most_overtaken: int = 0

    def update(self, name: str, wanted: int, since: float) -> None:
        key = WorkloadKey("ml", name)
        self.waiting.append(Ask(key, name, "team", ("h100",), 0, since, ONE_GPU, 0, wanted, whole=True))

    def run_one(self, wants: int) -> None:
        """A cycle in which growth wants so many replicas beyond the floor."""
        now = self.cycle
        self.ends = [each for each in self.ends if each[0] > now]
        self.grown = [each for each in self.grown if each > now]
        used = FLOOR + len(self.grown) + sum(count for _, count in self.ends)
        assert used <= self.gpus
        if self.waiting:
            self.headed.setdefault(min(self.waiting, key=lambda ask: ask.since).revision, now)
        have = FLOOR + len(self.grown)
        grows = Ask(
            WorkloadKey("ml", "g"), "g-1", "team", ("h100",), 0, 0.0, ONE_GPU, have, max(have, 1 + wants), FLOOR
        )
        ledgers = {("team", "h100"): Ledger({GPU: self.gpus * 1000}, {GPU: used * 1000})}
        verdicts = share([*self.waiting, grows], ledgers, now * PERIOD_S)
        for _ in range(verdicts[grows.id].replicas - have):
            self.grown.append(now + self.lives)
            self.growth_at.append(now)
        left = []
        for ask in self.waiting:
            verdict = verdicts[ask.id]
            assert not verdict.never
            if verdict.pool is not None:
                self.served.append((ask.revision, now))
                self.ends.append((now + self.runs, ask.wanted))
            else:
                self.most_overtaken = max(self.most_overtaken, verdict.overtaken)
                left.append(replace(ask, overtaken=verdict.overtaken, head_since=verdict.head_since))
        self.waiting = left
        self.cycle += 1


def stream(project: Project, sizes: list[int], at_once: bool, growth: int | None) -> None:
    """Runs until all are served. `growth`: replicas wanted beyond the floor; None: always one more than there are."""
    for cycle in range(100 * len(sizes)):
        due = sizes if at_once and cycle == 0 else sizes[cycle : cycle + 1] if not at_once else []
        for index, wanted in enumerate(due):
            project.update(f"u{cycle + index:03}", wanted, cycle * PERIOD_S + index / 1000)
        project.run_one(len(project.grown) + 1 if growth is None else growth)
        if cycle >= len(sizes) and not project.waiting:
            return


def check_growth(sizes: list[int], runs: int, lives: int, at_once: bool) -> None:
    project = Project(12, runs, lives)
    stream(project, sizes, at_once, growth=None)
    assert len(project.served) == len(sizes), "and all of them are served"
    gaps = [later - earlier for earlier, later in zip(project.growth_at, project.growth_at[1:], strict=False)]
    assert max(gaps, default=0) <= 2 * (max(runs, lives) + 1)


def check_heads(sizes: list[int], runs: int, lives: int, at_once: bool) -> None:
    project = Project(12, runs, lives)
    stream(project, sizes, at_once, growth=11)
    assert len(project.served) == len(sizes)
    assert project.most_overtaken < OVERTAKES_MOST + 12, "as many as one cycle can serve"
    for name, at in project.served:
        assert at - project.headed.get(name, at) <= WAIT_MOST + max(runs, lives) + 1, name


HUNDRED = [1 + (7 * index + index // 5) % 11 for index in range(100)]
BIG = [8 + index % 4 for index in range(100)]


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize("sizes", [HUNDRED, BIG], ids=["of all sizes", "big ones"])
def test_a_stream_of_a_hundred_updates_does_not_starve_growth(sizes: list[int], at_once: bool) -> None:
    """Growth always wants one replica more than it has."""
    check_growth(sizes, 5, 7, at_once)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize("sizes", [HUNDRED, BIG], ids=["of all sizes", "big ones"])
def test_growth_and_later_updates_do_not_starve_the_head_of_the_queue(sizes: list[int], at_once: bool) -> None:
    """Growth always wants everything."""
    check_heads(sizes, 5, 7, at_once)


SIZES, CYCLES = st.lists(st.integers(1, 11), min_size=1, max_size=15), st.integers(1, 12)


@settings(max_examples=25, deadline=None)
@given(SIZES, CYCLES, CYCLES, st.booleans())
def test_nor_do_streams_of_any_kind(sizes: list[int], runs: int, lives: int, at_once: bool) -> None:
    """Growth has its turn between two heads, unless the first holds its quota for longer than the patience of the
    next: then that one has waited its 15 min by the time, and blocks at once."""
    if runs < WAIT_MOST:
        check_growth(sizes, runs, lives, at_once)
    check_heads(sizes, runs, lives, at_once)


def test_growth_below_min_replicas_is_served_whoever_waits() -> None:
    head = replace(_update("head", 8), head_since=0.0, overtaken=99)
    below = Ask(WorkloadKey("ml", "g"), "g-1", "team", ("h100",), 0, 9.0, ONE_GPU, 1, 6, floor=4)
    verdicts = share([head, below], {("team", "h100"): Ledger({GPU: 12000}, {GPU: 5000})}, 9999.0)
    assert (verdicts[below.id].replicas, verdicts[head.id].pool) == (4, None)


def _update(name: str, wanted: int) -> Ask:
    return Ask(WorkloadKey("ml", name), name, "team", ("h100",), 0, 0.0, ONE_GPU, 0, wanted, whole=True)
