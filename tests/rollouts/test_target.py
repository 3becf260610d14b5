"""`step` for an object of somebody else's: one command, and a record that a successor can trust."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.commands import Command, HaveReplicas, Select, Stamp
from rollouts.driver import Driver
from rollouts.machine import Reason, Step
from rollouts.record import Phase, Record
from rollouts.target import Limits, ObservedTarget, step

NAME = "statefulsets.apps/llama"
LEADS = Limits(epoch=3)
STEADY = Record(
    Phase.COMPLETE, NAME, replicas=2, initialized=True, started_at=1.0, served_at=2.0, epoch=3, serving=True
)


def seen(replicas: int, ready: int = 2) -> ObservedTarget:
    return ObservedTarget(NAME, replicas, ready)


def test_what_is_as_it_should_be_needs_nothing() -> None:
    done = step(LEADS, STEADY, seen(2), 2, 100.0)
    assert (done.record, done.commands, done.reasons) == (STEADY, (), ())


def test_another_count_is_the_one_command_and_recorded_first() -> None:
    done = step(LEADS, STEADY, seen(2), 5, 100.0)
    assert done.commands == (HaveReplicas(NAME, 5, 2),)
    assert done.record == replace(STEADY, replicas=5)


def test_a_target_is_taken_over_with_its_history_unknown_and_its_count_known() -> None:
    done = step(LEADS, Record(), seen(3, ready=3), 3, 100.0)
    assert done.commands == ()
    assert done.record == Record(
        Phase.COMPLETE, NAME, replicas=3, initialized=True, started_at=100.0, served_at=100.0, epoch=3, serving=True
    )


def test_another_target_begins_another_record_and_the_former_stays() -> None:
    before = replace(STEADY, current="deployments.apps/other", replicas=7)
    done = step(LEADS, before, seen(1, ready=0), 1, 100.0)
    assert done.commands == ()
    assert (done.record.current, done.record.replicas, done.record.served_at) == (NAME, 1, None)


def test_nothing_is_lowered_while_a_write_of_the_leader_before_may_arrive() -> None:
    limits = replace(LEADS, may_lower=False)
    done = step(limits, STEADY, seen(2), 0, 100.0)
    assert (done.commands, done.record.replicas, done.reasons) == ((), 2, (Reason.TAKING_OVER,))
    on_its_way = replace(STEADY, replicas=6)  # recorded by it, and not seen yet
    done = step(limits, on_its_way, seen(2), 2, 100.0)
    assert (done.commands, done.record.replicas) == ((HaveReplicas(NAME, 6, 2),), 6)
    assert step(limits, STEADY, seen(2), 4, 100.0).commands == (HaveReplicas(NAME, 4, 2),), "raising does not wait"


@pytest.mark.parametrize("granted", [0, 2, 9])
def test_observing_follows_its_owner_whatever_is_wanted(granted: int) -> None:
    done = step(replace(LEADS, observe=True), STEADY, seen(4, ready=4), granted, 100.0)
    assert (done.commands, done.record.replicas) == ((), 4)


class Target:
    """A record and a scale, in memory."""

    def __init__(self) -> None:
        self.written: list[object] = []

    async def save(self, record: Record) -> None:
        self.written.append(record)

    async def scale(self, name: str, replicas: int, seen: int) -> None:
        self.written.append((name, replicas, seen))


async def drive(target: Target, commands: tuple[Command, ...]) -> None:
    await Driver(target, target, lambda _: True).run(STEADY, Step(replace(STEADY, replicas=5), commands))


async def test_its_driver_needs_a_scale_and_nothing_else() -> None:
    target = Target()
    await drive(target, step(LEADS, STEADY, seen(2), 5, 100.0).commands)
    assert target.written == [replace(STEADY, replicas=5), (NAME, 5, 2)]


@pytest.mark.parametrize("command", [Stamp(NAME, 3), HaveReplicas(NAME, 2, None), Select("llama", NAME, False)])
async def test_nothing_else_can_be_done_to_it(command: Command) -> None:
    target = Target()
    with pytest.raises(RuntimeError, match="no ports for"):
        await drive(target, (command,))
    assert target.written == [replace(STEADY, replicas=5)]


counts = st.integers(0, 9)


@given(
    record=st.builds(lambda n: replace(STEADY, replicas=n), st.one_of(st.none(), counts)),
    there=counts,
    ready=counts,
    granted=counts,
    may_lower=st.booleans(),
    observe=st.booleans(),
)
def test_it_settles_and_repeats_nothing(
    record: Record, there: int, ready: int, granted: int, may_lower: bool, observe: bool
) -> None:
    limits = Limits(3, may_lower, observe)
    first = step(limits, record, seen(there, ready), granted, 100.0)
    count = first.commands[0].replicas if first.commands and isinstance(first.commands[0], HaveReplicas) else there
    again = step(limits, first.record, seen(count, ready), first.record.replicas or 0, 101.0)
    assert again.commands == ()
    assert again.record == first.record
    if observe:
        assert first.commands == ()
    elif not may_lower:
        assert count >= there
