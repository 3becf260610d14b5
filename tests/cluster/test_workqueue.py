"""Work in order per object, beside each other across objects, bounded; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cluster.workqueue import WorkQueue
from tests import virtual_time


class Bench:
    """A queue, and a diary of what its pieces did."""

    def __init__(self, workers: int = 2, most: int = 100) -> None:
        self.queue: WorkQueue[str, str] = WorkQueue(workers, most)
        self.began: list[str] = []
        self.running: list[str] = []
        self.at_once = 0
        self.overlaps = 0

    def put(self, key: str, what: str, rank: int = 1, takes_s: float = 1.0) -> bool:
        return self.queue.put(key, rank, self._work(key, what, takes_s))

    def _work(self, key: str, what: str, takes_s: float) -> Callable[[], Awaitable[str]]:
        async def work() -> str:
            self.overlaps += key in self.running
            self.running.append(key)
            self.began.append(what)
            self.at_once = max(self.at_once, len(self.running))
            try:
                await asyncio.sleep(takes_s)
            finally:
                self.running.remove(key)
            return what

        return work


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    virtual_time.run(scene())


def test_what_outlasts_its_cycle_goes_on_and_is_reported_to_a_later_one() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.put("a", "slow", takes_s=9.0)
        bench.put("b", "quick", takes_s=0.1)
        await bench.queue.settle(["a", "b"], 1.0)
        assert bench.queue.take() == [("b", "quick")]
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)
        assert bench.queue.longest_s() == pytest.approx(1.0)
        await bench.queue.settle(["a"], 60.0)
        assert bench.queue.take() == [("a", "slow")]
        assert (len(bench.queue), bench.queue.longest_s()) == (0, 0.0)

    play(scene)


def test_settling_waits_only_for_the_keys_that_were_named() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.put("a", "slow", takes_s=9.0)
        bench.put("b", "quick", takes_s=0.1)
        await bench.queue.settle(["b"], 60.0)
        assert asyncio.get_running_loop().time() == pytest.approx(0.1)

    play(scene)


def test_what_waits_is_replaced_by_the_newest_word_and_keeps_its_place() -> None:
    async def scene() -> None:
        bench = Bench(workers=1)
        bench.put("a", "a1")
        bench.put("b", "b1")
        bench.put("c", "c1")
        bench.put("b", "b2")
        await bench.queue.settle("abc", 60.0)
        assert bench.began == ["a1", "b2", "c1"]

    play(scene)


def test_more_urgent_work_goes_first_and_is_not_replaced_by_less_urgent() -> None:
    async def scene() -> None:
        bench = Bench(workers=1)
        bench.put("a", "a1")
        bench.put("b", "status", rank=2)
        bench.put("c", "step", rank=1)
        bench.put("d", "raise", rank=0)
        assert bench.put("d", "status", rank=2)
        bench.put("b", "raise too", rank=0)
        await bench.queue.settle("abcd", 60.0)
        assert bench.began == ["a1", "raise too", "raise", "step"]

    play(scene)


def test_the_same_key_waits_for_itself_and_lets_others_pass() -> None:
    async def scene() -> None:
        bench = Bench(workers=2)
        bench.put("a", "a1", takes_s=5.0)
        bench.put("a", "a2")
        bench.put("b", "b1")
        await bench.queue.settle("ab", 60.0)
        assert bench.began == ["a1", "b1", "a2"]
        assert bench.overlaps == 0

    play(scene)


def test_a_full_queue_refuses_and_counts() -> None:
    async def scene() -> None:
        bench = Bench(workers=1, most=2)
        assert [bench.put(key, key) for key in "abcd"] == [True, True, True, False]
        assert bench.put("b", "again")  # replaces, so it needs no room
        assert bench.queue.refused == 1

    play(scene)


def test_abandoned_work_is_cancelled_and_forgotten() -> None:
    async def scene() -> None:
        bench = Bench(workers=1)
        bench.put("a", "a1", takes_s=0.1)
        await bench.queue.settle("a", 1.0)
        bench.put("b", "b1")
        bench.put("c", "c1")
        await asyncio.sleep(0.1)
        await bench.queue.abandon()
        await asyncio.sleep(10)
        assert (bench.began, len(bench.queue), bench.running) == (["a1", "b1"], 0, [])
        assert bench.queue.take() == [("a", "a1")]
        bench.put("c", "c2")
        await bench.queue.settle("c", 60.0)
        assert bench.began[-1] == "c2"

    play(scene)


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2), st.floats(0, 3), st.floats(0, 2)), max_size=60),
    st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_never_two_of_one_key_never_too_many_and_the_last_word_is_done(
    puts: list[tuple[str, int, float, float]], workers: int
) -> None:
    async def scene() -> None:
        bench = Bench(workers)
        newest: dict[str, str] = {}
        for number, (key, _, takes_s, pause_s) in enumerate(puts):
            newest[key] = f"{key}{number}"
            assert bench.put(key, newest[key], takes_s=takes_s)
            await asyncio.sleep(pause_s)
        await bench.queue.settle("abcdef", 1000.0)
        assert bench.overlaps == 0
        assert bench.at_once <= workers
        assert dict(bench.queue.take()) == newest  # the last of each key

    play(scene)
