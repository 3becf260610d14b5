"""The clock that decisions are made with: whatever the machine's does, it goes on evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from autoscaler.clock import SLEW_RATIO, WORTH_TELLING_S, SteadyClock

START_S = 1_700_000_000.0
ROUNDING_S = 1e-3  # of sums of floats of this size


@dataclass
class Machine:
    """Its two clocks, moved by the test."""

    wall: float = START_S
    steady: float = 100.0

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.steady)

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


def test_undisturbed_it_is_the_time_of_day() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.run(3600.0)
    assert clock.now() == pytest.approx(START_S + 3600.0, abs=ROUNDING_S)
    assert clock.behind_s == pytest.approx(0.0, abs=ROUNDING_S)


@pytest.mark.parametrize("step_s", [300.0, -300.0])
def test_a_step_is_made_good_by_one_per_cent_and_then_it_is_the_time_of_day_again(step_s: float) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.run(10.0)
    before = clock.now()
    machine.wall += step_s
    assert clock.now() == pytest.approx(before, abs=ROUNDING_S)
    assert clock.behind_s == pytest.approx(step_s, abs=ROUNDING_S)
    machine.run(100.0)
    assert clock.now() - before == pytest.approx(100.0 + (1.0 if step_s > 0 else -1.0), abs=ROUNDING_S)
    for _ in range(300):
        machine.run(100.0)
        clock.now()
    assert clock.now() == pytest.approx(machine.wall, abs=ROUNDING_S)


def test_a_process_that_was_suspended_follows_at_once() -> None:
    """The steady clock counts the time of a suspension, so windows and deadlines see the gap."""
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    machine.run(7200.0)
    with capture_logs() as lines:
        assert clock.now() == pytest.approx(before + 7200.0, abs=ROUNDING_S)
    assert lines == []


def test_a_step_is_told_once_each_way_and_a_drift_never() -> None:
    machine = Machine()
    clock = machine.clock()
    with capture_logs() as lines:
        for step_s in (300.0, -300.0):
            machine.run(1.0)
            machine.wall += step_s
            for _ in range(500):
                machine.run(0.5)
                clock.now()
        for _ in range(5_000):  # 100 ppm off, corrected by nobody
            machine.run(10.0)
            machine.wall += 0.001
            clock.now()
    assert [(line["event"], line["log_level"], line["by_s"]) for line in lines] == [
        ("clock.stepped", "warning", 300.0),
        ("clock.stepped", "warning", -300.0),
    ]


Move = tuple[float, float]  # seconds that pass, and the step of the machine's clock after them
MOVES = st.lists(st.tuples(st.floats(0.0, 100_000.0), st.floats(-1e7, 1e7)), max_size=50)


def _readings(moves: Sequence[Move]) -> list[tuple[float, float]]:
    """After each move: seconds of ours and of the steady clock since the one before."""
    machine = Machine()
    clock = machine.clock()
    at, found = clock.now(), []
    for passed_s, step_s in moves:
        machine.run(passed_s)
        machine.wall += step_s
        now = clock.now()
        found.append((now - at, passed_s))
        at = now
    return found


@given(MOVES)
def test_it_never_goes_back_and_never_far_from_the_pace_of_time(moves: list[Move]) -> None:
    for ours_s, passed_s in _readings(moves):
        assert ours_s >= 0.0
        assert abs(ours_s - passed_s) <= SLEW_RATIO * passed_s + ROUNDING_S


@given(MOVES)
def test_left_alone_it_comes_back_to_the_time_of_day(moves: list[Move]) -> None:
    machine = Machine()
    clock = machine.clock()
    for passed_s, step_s in moves:
        machine.run(passed_s)
        machine.wall += step_s
        clock.now()
    machine.run(abs(machine.wall - clock.now()) / SLEW_RATIO + 1.0)
    assert clock.now() == pytest.approx(machine.wall, abs=1.0)
    assert clock.behind_s == pytest.approx(0.0, abs=1.0)


@given(MOVES)
def test_each_step_is_told_when_it_is_seen_and_never_again(moves: list[Move]) -> None:
    machine = Machine()
    clock = machine.clock()
    for passed_s, step_s in moves:
        machine.run(passed_s)
        machine.wall += step_s
        with capture_logs() as lines:
            clock.now()
        if abs(abs(step_s) - WORTH_TELLING_S) > ROUNDING_S:
            assert len(lines) == (1 if abs(step_s) > WORTH_TELLING_S else 0)
        with capture_logs() as lines:
            clock.now()
        assert lines == []


@given(st.floats(-1e6, 1e6), st.floats(-100.0, 0.0))
def test_a_steady_clock_that_is_not_moves_nothing_back(step_s: float, back_s: float) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    machine.wall += step_s
    machine.steady += back_s
    assert clock.now() >= before
