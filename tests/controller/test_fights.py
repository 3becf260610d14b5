"""Who changes a count once is corrected; who changes it again and again is left alone for a while."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.controller.fights import (
    CALM_S,
    CHANGES,
    HOLD_FIRST_S,
    HOLD_MOST_S,
    WINDOW_S,
    Fight,
    Sight,
    is_news,
    look,
)

RECORDED = 2


@dataclass
class World:
    """An object whose count we set to 2 whenever we may, and another writer; one look a change."""

    now: float = 1_000_000.0
    generation: int = 1
    fight: Fight = field(default_factory=lambda: Fight(seen=Sight("u", 1, RECORDED)))

    def look(self, replicas: int, by: str | None = "flux", recorded: int | None = RECORDED) -> None:
        seen = Sight("u", self.generation, replicas)
        self.fight = look(self.fight, seen, by if is_news(self.fight, seen, recorded) else None, self.now)

    def changed(self, after_s: float = 10.0, replicas: int = 7) -> bool:
        """Another changes the count, and we correct it where we may; is it held after that?"""
        self.now += after_s
        self.generation += 1
        self.look(replicas)
        held = self.fight.held(self.now)
        if not held:
            self.generation += 1
            self.look(RECORDED)
        return held

    def fought(self) -> float:
        """Changes until it is held; for how long it then is."""
        while not self.changed():
            pass
        return self.fight.held_until - self.now

    def pass_hold(self, and_s: float = 1.0) -> None:
        self.now = self.fight.held_until + and_s
        self.look(7)


def test_the_third_change_within_ten_minutes_is_a_fight() -> None:
    world = World()
    assert [world.changed() for _ in range(3)] == [False, False, True]
    assert world.fight.by == "flux"
    assert world.fight.held(world.now + 299)
    assert not world.fight.held(world.now + 300)


@pytest.mark.parametrize(("apart_s", "fight"), [(299.0, True), (300.0, True), (301.0, False)])
def test_changes_that_are_further_apart_are_none(apart_s: float, fight: bool) -> None:
    world = World()
    assert [world.changed(apart_s) for _ in range(3)][-1] is fight


def test_each_hold_is_twice_as_long_up_to_an_hour() -> None:
    world, holds = World(), []
    for _ in range(6):
        holds.append(world.fought())
        world.pass_hold()
    assert holds == [300, 600, 1200, 2400, 3600, 3600]


def test_after_an_hour_of_calm_the_hold_is_short_again() -> None:
    world = World()
    world.fought()
    world.pass_hold()
    assert world.fought() == 600
    world.pass_hold(CALM_S)
    assert world.fought() == 300


def test_what_others_do_during_a_hold_does_not_count() -> None:
    world = World()
    world.fought()
    until = world.fight.held_until
    for _ in range(20):
        world.changed()
    assert world.fight.held_until == until
    world.pass_hold()
    assert [world.changed() for _ in range(3)] == [False, False, True]


def test_a_count_that_stays_is_one_change() -> None:
    """Only data may lower it, so it may stay for long."""
    world = World()
    world.generation += 1
    for _ in range(100):
        world.now += 2
        world.look(7)
    assert world.fight.changes == (1_000_002.0,)


@pytest.mark.parametrize(
    ("seen", "recorded", "news"),
    [
        (Sight("u", 5, 7), 2, True),
        (Sight("u", 5, 2), 2, False),
        (Sight("u", 4, 7), 2, False),
        (Sight("u", 3, 7), 2, False),
        (Sight("another", 5, 7), 2, False),
        (Sight("u", 5, 7), None, False),
    ],
    ids=["another count", "our count", "nothing changed", "an old copy", "created anew", "no record"],
)
def test_what_is_news(seen: Sight, recorded: int | None, news: bool) -> None:
    assert is_news(Fight(seen=Sight("u", 4, 2)), seen, recorded) is news


def test_the_first_look_is_no_news() -> None:
    """Who led before us has written counts, too."""
    assert not is_news(Fight(), Sight("u", 9, 7), 2)


def test_our_own_late_write_is_no_change() -> None:
    """The record is ahead of a write that arrives late; the managed fields say whose it is."""
    world = World()
    for _ in range(10):
        world.generation += 1
        world.look(5, by=None)
    assert world.fight.changes == ()


gaps = st.lists(st.floats(0.5, 2 * WINDOW_S), max_size=40)


@given(st.floats(0, 1e6), st.integers(0, 50))
def test_a_single_change_is_never_a_fight(after_s: float, replicas: int) -> None:
    assert not World().changed(after_s, replicas)


@given(gaps)
def test_it_is_held_exactly_where_three_changes_fell_into_the_window(after: list[float]) -> None:
    """Replayed against a plain list of instants."""
    world = World()
    recent: list[float] = []
    for gap_s in after:
        before = world.fight
        held = world.changed(gap_s)
        if before.held(world.now):
            assert held
            continue
        recent = [*(at for at in recent if world.now - at <= WINDOW_S), world.now]
        assert held is (len(recent) >= CHANGES)
        if held:
            recent = []
            assert HOLD_FIRST_S <= world.fight.hold_s <= HOLD_MOST_S
            assert world.fight.held_until == world.now + world.fight.hold_s


@given(gaps)
def test_a_hold_always_ends_and_nothing_but_a_new_fight_begins_another(after: list[float]) -> None:
    world = World()
    for gap_s in after:
        world.changed(gap_s)
    world.now += HOLD_MOST_S
    world.look(7)
    assert not world.fight.held(world.now)
