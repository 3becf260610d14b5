"""When cycles run: on a fixed grid of ticks, and at once on a poke, which moves no tick."""

from __future__ import annotations

import asyncio

import pytest

from autoscaler.controller.loop import Loop, next_due
from autoscaler.model.report import CycleReport
from tests import virtual_time


@pytest.mark.parametrize(
    ("due", "now", "expected"),
    [(10.0, 10.1, 12.0), (12.0, 10.5, 12.0), (10.0, 15.5, 16.0), (10.0, 12.0, 14.0)],
    ids=["on time", "poked before it is due", "slow", "exactly on the next"],
)
def test_deadlines_stay_on_their_grid(due: float, now: float, expected: float) -> None:
    assert next_due(due, now, 2.0) == expected


class Recorder:
    """Stands for the cycle: notes when it ran, takes `lasts_s`, and fails when told to."""

    def __init__(self, lasts_s: float = 0.0, crashes: bool = False, led_until: float = 0.0) -> None:
        """Somebody else leads until `led_until`."""
        self.at: list[float] = []
        self.reports: list[CycleReport | None] = []
        self._lasts_s = lasts_s
        self._crashes = crashes
        self._led_until = led_until
        self.rests = 0

    def stands_by(self) -> bool:
        return asyncio.get_running_loop().time() < self._led_until

    def rest(self) -> None:
        self.rests += 1

    def take(self, report: CycleReport | None) -> None:
        self.reports.append(report)

    async def run(self) -> CycleReport:
        self.at.append(round(asyncio.get_running_loop().time(), 3))
        await asyncio.sleep(self._lasts_s)
        if self._crashes:
            raise ZeroDivisionError
        return CycleReport(0.0)


def ran_at(recorder: Recorder, for_s: float, pokes: tuple[float, ...] = (), synced_at: float = 0.0) -> list[float]:
    """When cycles ran within so many virtual seconds, with pokes at these times."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        poked = asyncio.Event()
        subject = Loop(recorder, 2.0, poked, lambda: loop.time() >= synced_at, recorder.stands_by, recorder)
        for at in pokes:
            loop.call_at(at, poked.set)
        task = asyncio.create_task(subject.run())
        await asyncio.sleep(for_s)
        task.cancel()

    virtual_time.run(main())
    return recorder.at


def test_a_cycle_runs_every_tick() -> None:
    assert ran_at(Recorder(), 7) == [0, 2, 4, 6]


def test_a_poke_brings_a_cycle_forward_and_delays_none() -> None:
    """Pokes once added a tick each: a busy start was followed by 12 s without a decision."""
    assert ran_at(Recorder(), 7, pokes=(0.5, 1.0, 1.5)) == [0, 0.5, 1.0, 1.5, 2, 4, 6]


def test_pokes_in_a_burst_are_one() -> None:
    assert ran_at(Recorder(), 3, pokes=(0.5, 0.51, 0.52)) == [0, 0.5, 0.75, 2]


def test_a_slow_cycle_skips_ticks_instead_of_piling_them_up() -> None:
    assert ran_at(Recorder(lasts_s=3.0), 9) == [0, 4, 8]


def test_nothing_is_decided_before_the_copies_are_complete() -> None:
    assert ran_at(Recorder(), 7, synced_at=3.0) == [4, 6]


def test_a_cycle_that_crashes_is_reported_and_the_next_one_runs() -> None:
    recorder = Recorder(crashes=True)
    assert ran_at(recorder, 3) == [0, 2]
    assert recorder.reports == [None, None]


def test_while_somebody_else_leads_nothing_is_decided() -> None:
    recorder = Recorder(led_until=5.0)
    assert ran_at(recorder, 9) == [6, 8]
    assert recorder.rests == 6  # the cycle and the board, at 0, 2 and 4
    assert len(recorder.reports) == 2
