"""`step` for a workload with one revision, and what the driver makes of it when it is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from rollouts.driver import Driver
from rollouts.machine import (
    HaveReplicas,
    Limits,
    Observed,
    ObservedRevision,
    ObservedService,
    Reason,
    SaveRevision,
    Select,
    Stamp,
    Step,
    Weigh,
    step,
)
from rollouts.record import Phase, Record
from rollouts.revision import Revision

FIRST = Revision("llama-11111111", "1" * 64, {"port": 8000})
SECOND = Revision("llama-22222222", "2" * 64, {"port": 9000})
ONE = Limits(initial_replicas=1)


def observed(newest: Revision = FIRST, replicas: int | None = None, ready: int = 0, starting: int = 0) -> Observed:
    """The revision FIRST with so many replicas, saved and routed to once it exists."""
    there = replicas is not None
    return Observed(
        newest=newest,
        collision_count=0,
        saved=frozenset([FIRST.name] if there else []),
        current=ObservedRevision(FIRST.name, replicas, ready, starting),
        service=ObservedService("llama", there, FIRST.name if there else None),
        update_service=ObservedService("llama-update", there, "none" if there else None),
    )


def test_a_new_workload_gets_content_then_capacity_then_services() -> None:
    done = step(ONE, Record(), observed(), 2, 100.0)
    assert done.commands == (
        SaveRevision(FIRST),
        HaveReplicas(FIRST.name, 2, None),
        Select("llama", FIRST.name, False),
        Select("llama-update", "none", False),
    )
    assert done.record == Record(current=FIRST.name, replicas=2, started_at=100.0)
    assert done.reasons == (Reason.REVISION_CREATED,)


STEADY = Record(Phase.COMPLETE, FIRST.name, None, 0, 2, True, 100.0, 110.0, True)


def test_a_steady_workload_needs_nothing() -> None:
    done = step(ONE, STEADY, observed(replicas=2, ready=2), 2, 200.0)
    assert (done.commands, done.record, done.reasons) == ((), STEADY, ())


def test_another_count_is_one_command() -> None:
    done = step(ONE, STEADY, observed(replicas=2, ready=2), 5, 200.0)
    assert done.commands == (HaveReplicas(FIRST.name, 5, 2),)
    assert done.record == replace(STEADY, replicas=5)


def test_a_count_that_somebody_else_wrote_is_healed() -> None:
    assert step(ONE, STEADY, observed(replicas=9, ready=2), 2, 200.0).commands == (HaveReplicas(FIRST.name, 2, 9),)


def test_a_template_edit_is_remembered_and_changes_nothing() -> None:
    done = step(ONE, STEADY, observed(SECOND, replicas=2, ready=2), 2, 200.0)
    assert (done.commands, done.record.update) == ((), SECOND.name)
    assert done.reasons == (Reason.UPDATE_PENDING,)


def test_a_template_edit_taken_back_is_forgotten() -> None:
    pending = replace(STEADY, update=SECOND.name)
    assert step(ONE, pending, observed(replicas=2, ready=2), 2, 200.0).record == STEADY


def test_a_service_that_lost_its_selector_is_pointed_back() -> None:
    world = replace(observed(replicas=2, ready=2), service=ObservedService("llama", True, None))
    assert step(ONE, STEADY, world, 2, 200.0).commands == (Select("llama", FIRST.name, True),)


def test_the_first_ready_replica_completes_the_revision() -> None:
    before = Record(current=FIRST.name, replicas=2, started_at=100.0)
    done = step(Limits(2), before, observed(replicas=2, ready=1, starting=1), 2, 130.0)
    assert (done.record.phase, done.record.served_at, done.record.initialized) == (Phase.COMPLETE, 130.0, False)
    assert done.reasons == (Reason.REVISION_AVAILABLE,)


@pytest.mark.parametrize(("now", "phase", "replicas"), [(399.9, Phase.STARTING, 2), (400.0, Phase.FAILED, 0)])
def test_a_first_revision_that_does_not_serve_in_time_gives_its_gpus_back(
    now: float, phase: Phase, replicas: int
) -> None:
    before = Record(current=FIRST.name, replicas=2, started_at=100.0)
    done = step(Limits(2, 300.0), before, observed(replicas=2, starting=2), 2, now)
    assert (done.record.phase, done.record.replicas) == (phase, replicas)


def test_a_revision_that_served_never_times_out() -> None:
    assert step(Limits(1, 1.0), STEADY, observed(replicas=2), 2, 9_999.0).record.phase is Phase.COMPLETE


def test_a_first_template_that_was_refused_is_replaced_by_its_correction() -> None:
    refused = Record(current=FIRST.name, replicas=2, started_at=100.0)
    world = replace(observed(SECOND), current=ObservedRevision(FIRST.name, None))
    done = step(ONE, refused, world, 2, 130.0)
    assert done.record == Record(current=SECOND.name, replicas=2, started_at=130.0)
    assert HaveReplicas(SECOND.name, 2, None) in done.commands


def test_a_failed_first_revision_is_replaced_by_its_correction_once_its_pods_are_asked_to_go() -> None:
    failed = Record(Phase.FAILED, FIRST.name, None, 0, 0, False, 100.0)
    still_there = step(ONE, failed, observed(SECOND, replicas=2, starting=2), 0, 500.0)
    assert (still_there.record.current, still_there.commands) == (FIRST.name, (HaveReplicas(FIRST.name, 0, 2),))
    done = step(ONE, failed, observed(SECOND, replicas=0), 1, 500.0)
    assert (done.record.current, done.record.phase) == (SECOND.name, Phase.STARTING)
    assert HaveReplicas(SECOND.name, 1, None) in done.commands


def test_time_while_stopped_does_not_count_against_the_first_start() -> None:
    before = Record(Phase.FAILED, FIRST.name, None, 0, 0, False, 100.0)
    done = step(Limits(1, 10.0, stopped=True), before, observed(replicas=0), 0, 500.0)
    assert (done.record.phase, done.record.started_at) == (Phase.STARTING, None)


def test_an_initial_count_that_quota_never_grants_is_reached_with_what_it_grants() -> None:
    before = Record(current=FIRST.name, replicas=2, started_at=100.0)
    assert step(Limits(4), before, observed(replicas=2, ready=2), 2, 130.0).record.initialized
    assert not step(Limits(4), before, observed(replicas=2, ready=1), 2, 130.0).record.initialized
    assert not step(Limits(4), before, observed(replicas=0), 0, 130.0).record.initialized


NEW_LEADER = Limits(initial_replicas=1, epoch=7, may_lower=False)


def test_a_new_leader_stamps_the_object_before_it_writes_the_count() -> None:
    done = step(NEW_LEADER, STEADY, observed(replicas=2, ready=2), 5, 200.0)
    assert done.commands == (Stamp(FIRST.name, 7), HaveReplicas(FIRST.name, 5, 2))
    assert (done.record.epoch, done.record.replicas) == (7, 5)


@pytest.mark.parametrize("phase", [Phase.COMPLETE, Phase.FAILED])
def test_nothing_is_lowered_while_objects_wait_for_their_stamps(phase: Phase) -> None:
    done = step(NEW_LEADER, replace(STEADY, phase=phase), observed(replicas=5, ready=5), 2, 200.0)
    assert done.commands == (Stamp(FIRST.name, 7),)
    assert done.record.replicas == 5
    assert Reason.TAKING_OVER in done.reasons


def test_a_stamped_object_is_not_stamped_again() -> None:
    seen = observed(replicas=5, ready=5)
    assert seen.current is not None
    seen = replace(seen, current=replace(seen.current, epoch=7))
    done = step(replace(NEW_LEADER, may_lower=True), STEADY, seen, 2, 200.0)
    assert done.commands == (HaveReplicas(FIRST.name, 2, 5),)


def test_an_object_that_does_not_exist_needs_no_stamp() -> None:
    done = step(NEW_LEADER, Record(), observed(), 2, 100.0)
    assert not any(isinstance(each, Stamp) for each in done.commands)


@dataclass
class World:
    """Objects in memory, behind all three ports. `fail_at` interrupts the nth call."""

    record: Record = field(default_factory=Record)
    saved: set[str] = field(default_factory=set)
    replicas: dict[str, int] = field(default_factory=dict)
    selects: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    fail_at: int | None = None
    after_effect: bool = False

    def _call(self, effect: Callable[[], object]) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            if self.after_effect:
                effect()
            raise ConnectionError("interrupted")
        effect()

    async def save(self, thing: Record | Revision) -> None:
        if isinstance(thing, Record):
            self._call(lambda: setattr(self, "record", thing))
        else:
            self._call(lambda: self.saved.add(thing.name))

    async def stamp(self, revision: str, epoch: int) -> None:
        self._call(lambda: self.stamps.__setitem__(revision, epoch))

    async def have_replicas(self, revision: str, replicas: int, seen: int | None) -> None:
        self._call(lambda: self.replicas.__setitem__(revision, replicas))

    async def select(self, service: str, revision: str, exists: bool) -> None:
        self._call(lambda: self.selects.__setitem__(service, revision))

    def observe(self) -> Observed:
        current = self.record.current or FIRST.name
        count = self.replicas.get(current)
        return Observed(
            newest=FIRST,
            collision_count=0,
            saved=frozenset(self.saved),
            current=ObservedRevision(current, count, count or 0, epoch=self.stamps.get(current)),
            service=ObservedService("llama", "llama" in self.selects, self.selects.get("llama")),
            update_service=ObservedService("u", "u" in self.selects, self.selects.get("u")),
        )

    def cycle(self, granted: int) -> bool:
        """One step; False when nothing was left to do."""
        todo = step(ONE, self.record, self.observe(), granted, 100.0)
        if todo.record == self.record and not todo.commands:
            return False
        asyncio.run(Driver(self, self, self, lambda _: True).run(self.record, todo))
        return True


def settle(world: World, granted: int) -> None:
    for _ in range(10):
        try:
            if not world.cycle(granted):
                return
        except ConnectionError:
            continue
    raise AssertionError("it does not settle")


CLEAN = World()
settle(CLEAN, 3)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, CLEAN.calls + 1))
def test_interrupted_at_any_call_it_ends_in_the_same_state(call: int, after_effect: bool) -> None:
    world = World(fail_at=call, after_effect=after_effect)
    settle(world, 3)
    assert (world.record, world.saved, world.replicas, world.selects) == (
        CLEAN.record,
        CLEAN.saved,
        CLEAN.replicas,
        CLEAN.selects,
    )


def test_the_record_is_saved_before_anything_is_done() -> None:
    world = World(fail_at=2)
    with pytest.raises(ConnectionError):
        world.cycle(3)
    assert (world.record.current, world.saved, world.replicas) == (FIRST.name, set(), {})


def test_commands_of_updates_need_their_ports() -> None:
    world = World()
    todo = Step(world.record, (Weigh(10, 0),))
    with pytest.raises(RuntimeError, match="no ports for"):
        asyncio.run(Driver(world, world, world, lambda _: True).run(world.record, todo))
