"""One leader at a time, whatever the connections to the API server do; in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cluster.lease import Election, Terms, steady
from tests import virtual_time
from tests.cluster.leases import LeaseServer, Line

FAULTS = ("", "refuse", "hang", "commit then hang", "commit then refuse")


class Candidate:
    """A process that stands for leader."""

    def __init__(self, server: LeaseServer, identity: str = "a", stamps: int = 0) -> None:
        self.line = Line(server)
        self.able = True
        self.changes = 0
        self.stamps = stamps
        terms = Terms("ns", "l", identity)
        clock = asyncio.get_running_loop().time
        self.election = Election(self.line, terms, lambda: self.able, lambda: self.stamps, self._changed, clock)
        self._task = asyncio.create_task(self.election.run())

    def _changed(self) -> None:
        self.changes += 1

    @property
    def epoch(self) -> int | None:
        return self.election.epoch

    def die(self) -> None:
        self._task.cancel()


def play(scene: Callable[[LeaseServer], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(3600):
            await scene(LeaseServer())

    virtual_time.run(main())


def test_the_first_one_leads_and_stays_in_one_tenure() -> None:
    async def scene(server: LeaseServer) -> None:
        first = Candidate(server)
        await asyncio.sleep(300)
        assert first.epoch == 1
        assert server.writes >= 300 / 2.5
        assert first.changes == 1

    play(scene)


def test_a_successor_waits_from_the_last_renewal_that_it_saw_and_has_a_higher_epoch() -> None:
    async def scene(server: LeaseServer) -> None:
        first, second = Candidate(server, "a"), Candidate(server, "b")
        await asyncio.sleep(60)
        assert (first.epoch, second.epoch) == (1, None)
        assert second.election.holder == "a"
        first.die()
        await asyncio.sleep(10)
        assert second.epoch is None
        await asyncio.sleep(12)
        assert second.epoch == 2

    play(scene)


@pytest.mark.parametrize("fault", ["refuse", "hang", "commit then hang", "commit then refuse"])
def test_leadership_ends_at_the_renew_deadline_whatever_a_call_does(fault: str) -> None:
    async def scene(server: LeaseServer) -> None:
        first = Candidate(server)
        await asyncio.sleep(60)
        first.line.fault = fault
        await asyncio.sleep(10.1)
        assert first.epoch is None
        assert first.election.left_s(1) <= 0
        assert not first.election.standing_by  # nobody else is known to lead

    play(scene)


def test_a_lapsed_tenure_is_never_taken_up_again() -> None:
    async def scene(server: LeaseServer) -> None:
        first = Candidate(server)
        await asyncio.sleep(60)
        first.line.fault = "refuse"
        await asyncio.sleep(30)
        first.line.fault = ""
        await asyncio.sleep(3)
        assert first.epoch == 2
        assert first.election.left_s(1) == 0

    play(scene)


def test_a_short_fault_ends_nothing() -> None:
    async def scene(server: LeaseServer) -> None:
        first = Candidate(server)
        await asyncio.sleep(60)
        for fault in FAULTS:
            first.line.fault = fault
            await asyncio.sleep(4)
            first.line.fault = ""
            await asyncio.sleep(6)
            assert first.epoch == 1

    play(scene)


def test_who_cannot_lead_does_not_stand_and_who_leads_stays() -> None:
    async def scene(server: LeaseServer) -> None:
        first = Candidate(server)
        first.able = False
        await asyncio.sleep(60)
        assert first.epoch is None
        assert server.spec is None
        first.able = True
        await asyncio.sleep(3)
        first.able = False
        await asyncio.sleep(60)
        assert first.epoch == 1

    play(scene)


def test_resigning_lets_the_next_one_in_at_once_and_is_final() -> None:
    async def scene(server: LeaseServer) -> None:
        first, second = Candidate(server, "a"), Candidate(server, "b")
        await asyncio.sleep(60)
        await first.election.resign()
        assert first.epoch is None
        await asyncio.sleep(3)
        assert second.epoch == 2
        second.die()
        await asyncio.sleep(60)
        assert first.epoch is None

    play(scene)


def test_the_next_container_of_one_pod_does_not_wait_for_itself() -> None:
    async def scene(server: LeaseServer) -> None:
        Candidate(server, "pod-0").die()
        await asyncio.sleep(0)
        before = Candidate(server, "pod-0")
        await asyncio.sleep(5)
        before.die()
        after = Candidate(server, "pod-0")
        await asyncio.sleep(1)
        assert after.epoch == 2

    play(scene)


def test_a_deleted_lease_goes_on_above_all_stamps_and_its_holder_is_deposed_first() -> None:
    async def scene(server: LeaseServer) -> None:
        first, second = Candidate(server, "a", stamps=41), Candidate(server, "b", stamps=41)
        await asyncio.sleep(10)
        assert (first.epoch, second.epoch) == (
            None,
            None,
        )  # there are stamps: somebody may lead by a Lease that is gone
        await asyncio.sleep(50)
        assert {first.epoch, second.epoch} == {42, None}
        server.delete()
        for _ in range(600):
            await asyncio.sleep(0.1)
            assert first.epoch is None or second.epoch is None
        assert {first.epoch, second.epoch} == {43, None}

    play(scene)


def test_a_lease_that_another_one_took_by_force_deposes() -> None:
    async def scene(server: LeaseServer) -> None:
        first = Candidate(server)
        await asyncio.sleep(60)
        assert server.spec is not None
        server.spec = {**server.spec, "holderIdentity": "admin", "leaseTransitions": 9}
        server.version += 1
        await asyncio.sleep(3)
        assert first.epoch is None
        assert first.election.standing_by
        await asyncio.sleep(20)
        assert first.epoch == 10

    play(scene)


Happening = tuple[float, int, str]  # after how long, to whom, what


@given(
    st.lists(
        st.tuples(
            st.floats(0.05, 25),
            st.integers(0, 2),
            st.sampled_from([*FAULTS, "", "die", "delete", "slow"]),
        ),
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_there_are_never_two_leaders_and_epochs_only_grow(happenings: list[Happening]) -> None:
    """Three candidates; faults come and go, processes die and come again, and once the Lease is deleted.

    Deleted twice within its duration, there may be two for a retry period: that is what the epochs are for, too.
    """

    async def scene(server: LeaseServer) -> None:
        names = (f"pod-{number}" for number in itertools.count(1))
        candidates = [Candidate(server, next(names)) for _ in range(3)]
        epochs: list[int] = []
        deleted = False

        def look() -> None:
            leading = [each.epoch for each in candidates if each.epoch is not None]
            assert len(leading) <= 1
            if leading and (not epochs or epochs[-1] != leading[0]):
                epochs.extend(leading)
            for each in candidates:
                each.stamps = max([0, *epochs])

        for after_s, who, what in happenings:
            for _ in range(int(after_s / 0.05)):
                await asyncio.sleep(0.05)
                look()
            one = candidates[who]
            if what == "die":
                one.die()
                candidates[who] = Candidate(server, next(names), max([0, *epochs]))
            elif what == "delete":
                if not deleted:
                    server.delete()
                deleted = True
            elif what == "slow":
                one.line.takes_s = 1.5
            else:
                one.line.fault, one.line.takes_s = what, 0.01
        assert epochs == sorted(set(epochs))
        for each in candidates:
            each.line.fault, each.line.takes_s = "", 0.01
        for _ in range(800):
            await asyncio.sleep(0.05)
            look()
        assert any(each.epoch is not None for each in candidates)

    play(scene)


def test_the_steady_clock_counts_suspended_time_where_the_system_can_tell() -> None:
    assert abs(steady() - steady()) < 1.0
