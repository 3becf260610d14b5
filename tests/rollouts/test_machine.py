"""`step` for a workload with one revision, one look at a time. Whole lives are in `test_states` and `test_updates`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaler.model.resources import GPU
from autoscaler.model.rollout import RolloutSpec
from rollouts.commands import DeleteRevision, HaveReplicas, Hold, SaveRevision, Select, Stamp
from rollouts.machine import Reason, Step
from rollouts.machine import step as step_of
from rollouts.observed import Limits, Observed, ObservedRevision, ObservedService, Situation
from rollouts.record import Bounds, Leaving, Phase, Record
from rollouts.revision import Revision

FIRST = Revision("llama-11111111", "1" * 64, {"port": 8000})
SECOND = Revision("llama-22222222", "2" * 64, {"port": 9000})
ONE = Limits(initial_replicas=1)
SPEC = RolloutSpec(1, 8)
BOUNDS = Bounds(1, 8)


def step(limits: Limits, record: Record, seen: Observed, granted: int, now: float) -> Step:
    return step_of(Situation(limits, SPEC, seen, granted, now), record)


def recorded(**more: object) -> Record:
    """Of FIRST, which was given two replicas at 100 s."""
    values = {"current": FIRST.name, "replicas": 2, "started_at": 100.0, "bounds": BOUNDS, "bounds_seen": BOUNDS}
    return Record(**{**values, **more})  # type: ignore[arg-type]


def observed(newest: Revision = FIRST, replicas: int | None = None, ready: int = 0, starting: int = 0) -> Observed:
    """The revision FIRST with so many replicas, saved and routed to once it exists. No quota limits it."""
    there = replicas is not None
    return Observed(
        newest=newest,
        collision_count=0,
        saved=frozenset([FIRST.name] if there else []),
        current=ObservedRevision(FIRST.name, replicas, ready, starting),
        service=ObservedService("llama", there, FIRST.name if there else None),
        update_service=ObservedService("llama-update", there, "none" if there else None),
        per_replica={FIRST.name: {}, SECOND.name: {}},
    )


def test_a_new_workload_gets_content_then_quota_then_capacity_then_services() -> None:
    done = step(ONE, Record(), replace(observed(), per_replica={FIRST.name: {GPU: 1000}}), 2, 100.0)
    assert done.commands == (
        SaveRevision(FIRST),
        Hold(FIRST.name, "default", {GPU: 2000}),
        HaveReplicas(FIRST.name, 2, None),
        Select("llama", FIRST.name, False),
        Select("llama-update", "none", False),
    )
    assert done.record == recorded()
    assert done.reasons == (Reason.REVISION_CREATED,)


STEADY = recorded(phase=Phase.COMPLETE, initialized=True, served_at=110.0, serving=True)


def test_a_steady_workload_needs_nothing() -> None:
    done = step(ONE, STEADY, observed(replicas=2, ready=2), 2, 200.0)
    assert (done.commands, done.record, done.reasons) == ((), STEADY, ())


def test_another_count_is_one_command() -> None:
    done = step(ONE, STEADY, observed(replicas=2, ready=2), 5, 200.0)
    assert done.commands == (HaveReplicas(FIRST.name, 5, 2),)
    assert done.record == replace(STEADY, replicas=5)


def test_a_count_that_somebody_else_wrote_is_healed() -> None:
    assert step(ONE, STEADY, observed(replicas=9, ready=2), 2, 200.0).commands == (HaveReplicas(FIRST.name, 2, 9),)


def test_a_template_edit_is_remembered_and_changes_nothing_of_what_serves() -> None:
    done = step(ONE, STEADY, observed(SECOND, replicas=2, ready=2), 2, 200.0)
    assert (done.commands, done.record.current, done.record.update) == ((), FIRST.name, SECOND.name)
    assert done.record.rollout is not None
    assert (done.record.rollout.revision, done.record.rollout.phase) == (SECOND.name, Phase.QUEUED)


def test_a_template_edit_taken_back_is_forgotten() -> None:
    pending = step(ONE, STEADY, observed(SECOND, replicas=2, ready=2), 2, 200.0).record
    assert pending != STEADY
    assert step(ONE, pending, observed(replicas=2, ready=2), 2, 201.0).record == STEADY


def test_a_service_that_lost_its_selector_is_pointed_back() -> None:
    world = replace(observed(replicas=2, ready=2), service=ObservedService("llama", True, None))
    assert step(ONE, STEADY, world, 2, 200.0).commands == (Select("llama", FIRST.name, True),)


def test_the_first_ready_replica_completes_the_revision() -> None:
    before = recorded()
    done = step(Limits(2), before, observed(replicas=2, ready=1, starting=1), 2, 130.0)
    assert (done.record.phase, done.record.served_at, done.record.initialized) == (Phase.COMPLETE, 130.0, False)
    assert done.reasons == ()


@pytest.mark.parametrize(("now", "phase", "replicas"), [(399.9, Phase.STARTING, 2), (400.0, Phase.FAILED, 0)])
def test_a_first_revision_that_does_not_serve_in_time_gives_its_gpus_back(
    now: float, phase: Phase, replicas: int
) -> None:
    before = recorded()
    done = step(Limits(2, 300.0), before, observed(replicas=2, starting=2), 2, now)
    assert (done.record.phase, done.record.replicas) == (phase, replicas)


def test_a_revision_that_served_never_times_out() -> None:
    assert step(Limits(1, 1.0), STEADY, observed(replicas=2), 2, 9_999.0).record.phase is Phase.COMPLETE


def test_a_first_template_that_was_refused_is_replaced_by_its_correction() -> None:
    world = replace(observed(SECOND), current=ObservedRevision(FIRST.name, None))
    done = step(ONE, recorded(), world, 2, 130.0)
    assert (done.record.current, done.record.started_at) == (SECOND.name, None), "its own time begins"
    assert SaveRevision(SECOND) in done.commands
    world = replace(world, current=ObservedRevision(SECOND.name, None))
    again = step(ONE, done.record, world, 2, 131.0)
    assert again.record == recorded(current=SECOND.name, started_at=131.0)
    assert HaveReplicas(SECOND.name, 2, None) in again.commands


def test_a_failed_first_revision_is_replaced_by_its_correction_once_its_pods_are_gone() -> None:
    failed = recorded(phase=Phase.FAILED, replicas=0)
    done = step(ONE, failed, observed(SECOND, replicas=2, starting=2), 1, 500.0)
    assert (done.record.current, done.record.phase) == (SECOND.name, Phase.STARTING)
    assert DeleteRevision(FIRST.name, immediate=True) in done.commands
    assert done.record.leaving == (Leaving(FIRST.name, 500.0, served=False),)
    old = ObservedRevision(FIRST.name, None, terminating=2)
    world = replace(observed(SECOND), current=ObservedRevision(SECOND.name, 0), others=(old,))
    waits = step(ONE, done.record, world, 1, 501.0)
    assert not any(isinstance(each, HaveReplicas) for each in waits.commands)
    assert HaveReplicas(SECOND.name, 1, 0) in step(ONE, waits.record, replace(world, others=()), 1, 502.0).commands


def test_time_while_stopped_does_not_count_against_the_first_start() -> None:
    before = recorded(phase=Phase.FAILED, replicas=0)
    done = step(Limits(1, 10.0, stopped=True), before, observed(replicas=0), 0, 500.0)
    assert (done.record.phase, done.record.started_at) == (Phase.STARTING, None)


def test_an_initial_count_that_quota_never_grants_is_reached_with_what_it_grants() -> None:
    before = recorded()
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
