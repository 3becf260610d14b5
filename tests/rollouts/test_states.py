"""A new template meets a workload in whatever state it is; leaders change; records get lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaler.model.rollout import RolloutSpec, WeightStep
from rollouts.machine import Reason, step
from rollouts.observed import Limits, ObservedRevision, ObservedRoute, ObservedService
from rollouts.rebuild import rebuild, serving
from rollouts.record import Phase, Why
from rollouts.verbs import Verb
from tests.rollouts.world import World, revision

A, B, C = (revision(letter).name for letter in "abc")
ZERO = RolloutSpec(0, 8)
CANARY = RolloutSpec(1, 8, steps=(WeightStep(50, 60.0),))


def never_ready() -> World:
    world = World(gpus={"default": 5})
    world.broken.add(A)
    return world.run(8)


def test_a_revision_that_never_served_hands_its_gpus_over_first() -> None:
    """Initializing: 5 GPUs, 3 taken by what never came up. The fixed template needs no second set."""
    world = never_ready().edit("b")
    world.cycle()
    assert (world.record.current, world.replicas("a"), world.live("b")) == (B, None, 0)
    while world.live("a"):
        assert not world.replicas("b")
        world.run(1)
    world.run(60, World.settled)
    assert (world.settled(), world.most_live, set(world.holds)) == (True, 1, {B})


def test_pending_for_a_node_is_corrected_in_the_same_way() -> None:
    world = World()
    world.unplaceable.add("default")
    world.run(5).edit("b")
    world.unplaceable.clear()
    world.run(60, World.settled)
    assert (world.record.current, world.record.phase) == (B, Phase.COMPLETE)


def test_pending_for_quota_is_corrected_in_the_same_way() -> None:
    world = World(gpus={"default": 0}).run(5).edit("b").run(2)
    world.gpus["default"] = 3
    world.run(60, World.settled)
    assert (world.record.current, set(world.things)) == (B, {B})


def test_a_failed_first_revision_starts_afresh_with_a_new_template() -> None:
    world = never_ready()
    world.limits = Limits(1, initialization_timeout_s=100.0)
    world.run(110)
    assert (world.record.phase, world.live("a")) == (Phase.FAILED, 0)
    world.edit("b").run(60, World.settled)
    assert (world.record.current, world.record.phase) == (B, Phase.COMPLETE)


def test_a_first_revision_that_fails_gives_its_gpus_back() -> None:
    world = never_ready()
    world.limits = Limits(1, initialization_timeout_s=100.0)
    world.run(110)
    assert (world.record.phase, world.held("a")) == (Phase.FAILED, 0)


def test_a_failed_first_revision_is_tried_again_on_retry() -> None:
    world = never_ready()
    world.limits = Limits(1, initialization_timeout_s=100.0)
    world.run(110)
    world.broken.clear()
    world.ask(Verb.RETRY, "a").run(60, World.settled)
    assert (world.settled(), world.record.phase) == (True, Phase.COMPLETE)
    assert Reason.VERB_IGNORED not in [reason for each in world.steps for reason in each.reasons]


def test_a_degraded_revision_can_be_rolled_forward() -> None:
    """flagger#639, argo#1774: the old version is broken, the new one must be able to come."""
    world = World().serving()
    world.broken.add(A)
    world.edit("b").run(60, World.settled)
    assert world.record.current == B


def test_an_update_at_zero_makes_the_new_revision_current_without_pods() -> None:
    world = World(spec=ZERO).serving()
    world.desired = 0
    world.run(20)
    world.edit("b").run(10)
    assert (world.record.current, world.record.phase, world.record.previous) == (B, Phase.UNVERIFIED, A)
    assert (world.replicas("b"), world.live("b"), set(world.holds)) == (0, 0, set())
    assert world.selects["llama"] == B
    world.desired = 2
    world.run(60, World.settled)
    assert (world.record.phase, world.record.previous) == (Phase.COMPLETE, None)


def at_zero_and_broken() -> World:
    world = World(spec=ZERO).serving()
    world.desired = 0
    world.run(20)
    world.broken.add(B)
    world.edit("b").run(10)
    world.desired = 2
    return world


def test_an_unverified_revision_that_fails_its_first_activation_brings_the_previous_one_back() -> None:
    world = at_zero_and_broken().run(595)
    assert (world.record.current, world.replicas("b")) == (B, 2)
    world.run(20)
    rollout = world.record.rollout
    assert rollout is not None
    assert (world.record.current, rollout.revision, rollout.reason) == (A, B, Why.ACTIVATION_FAILED)
    world.run(60)
    assert (world.live("a"), world.live("b"), world.held("b")) == (2, 0, 0)
    world.broken.clear()
    world.ask(Verb.RETRY, "b").run(60, World.settled)
    assert world.record.current == B


def test_the_first_activation_after_an_update_at_zero_waits_for_no_object_to_vanish() -> None:
    world = World(spec=ZERO).serving()
    world.desired = 0
    world.run(20)
    world.edit("b")
    world.cycle()
    assert world.record.leaves(A) is not None
    world.desired = 2
    world.cycle()
    assert world.replicas("b") == 2


def test_time_at_zero_does_not_count_against_an_unverified_revision() -> None:
    world = at_zero_and_broken()
    for _ in range(4):
        world.desired = 2
        world.run(300)
        world.desired = 0
        world.run(20)
    assert world.record.current == B


def test_another_template_at_zero_keeps_the_last_one_that_served() -> None:
    world = at_zero_and_broken()
    world.desired = 0
    world.edit("c").run(10)
    assert (world.record.current, world.record.previous) == (C, A)
    world.edit("a").run(10)
    assert (world.record.current, world.record.phase, world.record.previous) == (A, Phase.COMPLETE, None)


def test_a_stopped_workload_takes_a_new_template_without_pods() -> None:
    world = World().serving()
    world.limits = replace(world.limits, stopped=True)
    world.run(20).edit("b").run(20)
    assert (world.record.current, world.record.phase, world.live("b")) == (B, Phase.UNVERIFIED, 0)
    world.run(2000)
    world.limits = replace(world.limits, stopped=False)
    world.run(60, World.settled)
    assert (world.record.current, world.record.phase) == (B, Phase.COMPLETE)


def test_a_new_template_while_pods_stop_begins_nothing() -> None:
    world = World().serving()
    world.limits = replace(world.limits, stopped=True)
    world.cycle()
    world.edit("b")
    while world.live("a"):
        world.cycle()
        assert (world.record.rollout, world.held("b")) == (None, 0) or world.record.current == B
        world.pass_time()
    world.run(5)
    assert (world.record.current, world.record.phase) == (B, Phase.UNVERIFIED)


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING, Phase.PAUSED, Phase.SHIFTING, Phase.DRAINING])
def test_stopping_in_the_middle_of_an_update_leaves_no_pod_and_no_hold(phase: Phase) -> None:
    world = World(spec=CANARY, routed=True, gpus={"default": 5 if phase is Phase.QUEUED else 12}).serving()
    world.edit("b").until(phase)
    world.limits = replace(world.limits, stopped=True)
    world.run(400)
    assert (set(world.holds), sum(len(each.pods) for each in world.things.values())) == (set(), 0)
    assert (world.record.current, world.weight, world.record.leaving) == (B, 0, ())
    world.limits = replace(world.limits, stopped=False)
    world.gpus["default"] = 12
    world.run(60, World.settled)
    assert world.settled()


def test_a_new_template_in_the_middle_of_a_roll_back_waits_for_its_pods() -> None:
    world = World(gpus={"default": 30})
    world.broken.add(B)
    world.serving().edit("b").until(Phase.STARTING).ask(Verb.ABORT, "b")
    world.cycle()
    assert world.phase() is Phase.ROLLING_BACK
    world.edit("c").run(60, World.settled)
    assert (world.record.current, world.most_live) == (C, 2)


def test_a_new_leader_stamps_both_objects_before_it_writes_to_them_and_lowers_nothing_before() -> None:
    world = World()
    world.broken.add(B)
    world.limits = Limits(1, epoch=1)
    world.serving().edit("b").until(Phase.STARTING)
    deadline = world.record.rollout.progress_deadline_at if world.record.rollout else 0.0
    assert deadline is not None
    world.now = deadline + 1
    world.limits = Limits(1, epoch=2, may_lower=False)
    world.run(5)
    assert (world.phase(), world.replicas("b")) == (Phase.ROLLING_BACK, 3)
    assert {name: thing.epoch for name, thing in world.things.items()} == {A: 2, B: 2}
    world.limits = replace(world.limits, may_lower=True)
    world.cycle()
    assert world.replicas("b") is None, "leadership is whole again: all deletes are issued at once"


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING, Phase.PAUSED, Phase.SHIFTING, Phase.DRAINING])
def test_a_change_of_leaders_in_any_phase_changes_nothing_but_stamps(phase: Phase) -> None:
    world = World(spec=CANARY, routed=True, gpus={"default": 5 if phase is Phase.QUEUED else 12})
    world.limits = Limits(1, epoch=1)
    world.serving().edit("b").until(phase)
    world.limits = Limits(1, epoch=2, may_lower=False)
    world.run(3)
    world.gpus["default"] = 12
    world.limits = Limits(1, epoch=2)
    world.run(200, World.settled)
    assert world.record.current == B


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING, Phase.PAUSED, Phase.SHIFTING, Phase.DRAINING])
@pytest.mark.parametrize("routed", [False, True], ids=["service", "route"])
def test_a_record_that_is_lost_in_the_middle_is_rebuilt_and_the_update_arrives(phase: Phase, routed: bool) -> None:
    if phase is Phase.PAUSED and not routed:
        return
    spec = CANARY if routed else RolloutSpec(1, 8)
    world = World(spec=spec, routed=routed, gpus={"default": 5 if phase is Phase.QUEUED else 12})
    world.serving().edit("b").until(phase)
    before = world.traffic()
    lose_record(world)
    assert max(before, key=lambda name: (before[name], name)) in (world.record.current, B)
    world.run(3)
    world.gpus["default"] = 12
    world.run(300, World.settled)
    assert world.record.current == B, world.story()
    assert set(world.things) == {B}


def lose_record(world: World) -> None:
    there = [world.observed_revision(name) for name in sorted(world.things)]
    route = ObservedRoute(world.weight, True) if world.routed else None
    selected = serving(world.service("llama"), world.service("llama-update"), route)
    found = rebuild(there, selected, world.now)
    assert found is not None
    world.record = found


def test_an_object_that_no_record_knows_is_recorded_and_kept_until_it_is_proven_idle() -> None:
    world = World(spec=CANARY, routed=True, gpus={"default": 30}).serving().edit("b").until(Phase.PAUSED).edit("c")
    lose_record(world)
    world.in_flight[B] = 2
    world.run(1000)
    assert world.traffic() == {A: 100}
    assert B in world.things, "it may serve somebody"
    assert world.record.leaves(B) is not None
    world.in_flight[B] = 0
    world.run(200, World.settled)
    assert (world.record.current, set(world.things)) == (C, {C})


def test_most_of_the_traffic_says_who_serves() -> None:
    service, update = ObservedService("s", True, A), ObservedService("s-update", True, B)
    assert serving(service, update, None) == A
    assert serving(service, update, ObservedRoute(50, True)) == A
    assert serving(service, update, ObservedRoute(51, False)) == B
    assert serving(service, ObservedService("s-update", True, "none"), ObservedRoute(100, True)) == A


def test_pods_that_are_not_seen_yet_keep_their_hold() -> None:
    """Scaled 1 -> 3 -> 1 before the new pods were seen: two of them terminate, and still take their GPUs."""
    world = World(desired=1).serving()
    world.late_s = 6.0
    world.run(10)
    world.desired = 3
    world.run(1)
    world.desired = 1
    world.run(1)
    assert (world.live("a"), world.held("a")) == (3, 3)
    world.run(20)
    assert (world.live("a"), world.held("a")) == (1, 1)


def test_a_deleted_object_is_gone_only_when_its_pods_would_be_seen() -> None:
    assert ObservedRevision(A, None).gone
    assert not ObservedRevision(A, None, settled=False).gone
    assert not ObservedRevision(A, None, terminating=1).gone


def test_an_update_is_recorded_phase_by_phase() -> None:
    world = World().serving().edit("b")
    world.run(60, World.settled)
    phases = [each.record.rollout.phase if each.record.rollout else None for each in world.steps]
    told = [phase for phase, before in zip(phases, [None, *phases], strict=False) if phase is not before]
    assert told == [Phase.QUEUED, Phase.STARTING, Phase.SHIFTING, Phase.DRAINING, None]


def test_a_name_that_needed_another_count_keeps_it_once_it_is_current() -> None:
    world = World().serving().edit("b").until(Phase.DRAINING)
    while world.record.current == A:
        seen = replace(world.look(), collision_count=2)
        world.record = step(world.situation(seen), world.record).record
        world.pass_time()
    assert (world.record.current, world.record.collision_count) == (B, 2)
