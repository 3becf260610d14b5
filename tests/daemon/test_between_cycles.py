"""Changes and the end of the loop: never within a cycle, and soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from autoscaler.controller.loop import Loop
from autoscaler.model.report import CycleReport
from tests import virtual_time


class Diary:
    """Stands for the cycle, which takes `lasts_s`; notes what happened when."""

    def __init__(self, lasts_s: float = 0.0) -> None:
        self.lasts_s = lasts_s
        self.entries: list[tuple[float, str]] = []

    def note(self, what: str) -> None:
        self.entries.append((round(asyncio.get_running_loop().time(), 3), what))

    def rest(self) -> None:
        self.note("rests")

    def take(self, report: CycleReport | None) -> None:
        """The board's part."""

    async def run(self) -> CycleReport:
        self.note("begins")
        await asyncio.sleep(self.lasts_s)
        self.note("ends")
        return CycleReport(0.0)

    def begins(self) -> list[float]:
        return [at for at, what in self.entries if what == "begins"]


def lived(diary: Diary, tick_s: float, for_s: float, at_s: float, happens: Callable[[Loop], object]) -> None:
    """A loop for so many virtual seconds, in which something happens at `at_s`."""

    async def main() -> None:
        loop = Loop(diary, tick_s, asyncio.Event(), lambda: True, lambda: False, diary)
        task = asyncio.create_task(loop.run())
        await asyncio.sleep(at_s)
        coming = happens(loop)
        if asyncio.iscoroutine(coming):
            await coming
        await asyncio.sleep(max(0.0, for_s - asyncio.get_running_loop().time()))
        diary.note("done" if task.done() else "runs")
        task.cancel()

    virtual_time.run(main())


def test_a_change_waits_for_the_end_of_the_cycle_and_another_follows_at_once() -> None:
    diary = Diary(lasts_s=3.0)
    lived(diary, 10.0, 8.0, 1.0, lambda loop: loop.between_cycles(lambda: diary.note("change")))
    assert diary.entries == [(0, "begins"), (3, "ends"), (3, "change"), (3.25, "begins"), (6.25, "ends"), (8, "runs")]


def test_a_change_between_cycles_is_made_at_once() -> None:
    diary = Diary()
    lived(diary, 10.0, 2.0, 1.0, lambda loop: loop.between_cycles(lambda: diary.note("change")))
    assert diary.entries == [(0, "begins"), (0, "ends"), (1, "change"), (1, "begins"), (1, "ends"), (2, "runs")]


def test_a_change_that_fails_is_the_callers_and_the_loop_goes_on() -> None:
    async def change(loop: Loop) -> None:
        with pytest.raises(ZeroDivisionError):
            await loop.between_cycles(lambda: print(1 // 0))

    diary = Diary()
    lived(diary, 2.0, 5.0, 1.0, change)
    assert diary.begins() == [0, 2, 4]


def test_a_shorter_tick_does_not_wait_for_the_old_one() -> None:
    diary = Diary()
    lived(diary, 60.0, 13.5, 10.0, lambda loop: loop.between_cycles(lambda: loop.set_tick(1.0)))
    assert diary.begins() == [0, 10, 11, 12, 13]


def test_a_longer_tick_holds_from_the_next_one_on() -> None:
    diary = Diary()
    lived(diary, 1.0, 23.0, 1.5, lambda loop: loop.between_cycles(lambda: loop.set_tick(10.0)))
    assert diary.begins() == [0, 1, 1.5, 2, 12, 22]


def test_a_stopped_loop_finishes_its_cycle_and_begins_no_other() -> None:
    diary = Diary(lasts_s=3.0)
    lived(diary, 2.0, 9.0, 1.0, lambda loop: loop.stop())
    assert diary.entries == [(0, "begins"), (3, "ends"), (9, "done")]


def test_a_stopped_loop_does_not_wait_for_its_tick() -> None:
    diary = Diary()
    lived(diary, 60.0, 11.0, 10.5, lambda loop: loop.stop())
    assert diary.entries == [(0, "begins"), (0, "ends"), (11, "done")]
