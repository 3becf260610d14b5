"""Updates where the route is missing, somebody else's, or sends requests where it should not."""

from __future__ import annotations

from autoscaler.model.rollout import RolloutSpec, WeightStep
from rollouts.commands import Command, DeleteRevision, Select, Weigh
from rollouts.record import Phase, Why
from rollouts.revision import NO_REVISION
from rollouts.verbs import Verb
from tests.rollouts.world import World, revision

A, B, C = (revision(letter).name for letter in "abc")
HALF = RolloutSpec(1, 8, steps=(WeightStep(50, 3600.0),), progress_deadline_s=120.0)


def commands(world: World) -> list[Command]:
    return [command for step in world.steps for command in step.commands]


def test_a_route_of_somebody_else_gets_no_weight_and_the_update_ends_at_its_deadline_as_one_that_never_served() -> None:
    world = World(routed=True, spec=HALF, foreign_route=True).serving().edit("b").until(Phase.WARMING)
    world.run(30)
    assert (world.phase(), world.selects["llama-update"]) == (Phase.WARMING, B)
    world.run(200, lambda world: world.phase() is Phase.FAILED)
    assert not [each for each in commands(world) if isinstance(each, Weigh)]
    assert {each for each in commands(world) if isinstance(each, DeleteRevision)} == {DeleteRevision(B, immediate=True)}
    assert set(world.things) == {A}


def test_the_update_service_leads_nowhere_new_while_the_route_gives_it_a_share() -> None:
    world = World(routed=True, spec=HALF, foreign_route=True).serving()
    world.weight = 30
    world.edit("b").until(Phase.WARMING)
    world.run(30)
    assert (world.phase(), world.selects["llama-update"], world.traffic()) == (
        Phase.WARMING,
        NO_REVISION,
        {A: 70, NO_REVISION: 30},
    )
    assert not [each for each in commands(world) if isinstance(each, Select) and each.revision == B]


def test_an_abort_ends_without_the_route() -> None:
    world = World(routed=True, spec=HALF).serving().edit("b").until(Phase.PAUSED)
    world.missing = True
    world.ask(Verb.ABORT, "b")
    world.run(60, lambda world: world.phase() is Phase.FAILED)
    assert (world.phase(), set(world.things), world.selects["llama-update"]) == (Phase.FAILED, {A}, NO_REVISION)


def test_a_share_that_somebody_else_gives_keeps_what_has_it() -> None:
    world = World(routed=True, spec=HALF).serving().edit("b").until(Phase.PAUSED)
    world.foreign_route = True
    world.ask(Verb.ABORT, "b")
    world.run(1000)
    assert (world.phase(), set(world.things), world.traffic()) == (Phase.ROLLING_BACK, {A, B}, {A: 50, B: 50})
    world.foreign_route = False
    world.run(60, lambda world: world.phase() is Phase.FAILED)
    assert (set(world.things), world.traffic()) == ({A}, {A: 100})


def test_without_the_route_the_update_goes_no_further_and_with_it_again_it_does() -> None:
    world = World(routed=True, spec=HALF).serving().edit("b").until(Phase.PAUSED)
    world.missing = True
    world.ask(Verb.PROMOTE, "b")
    world.run(60)
    assert (world.phase(), set(world.things)) == (Phase.SHIFTING, {A, B})
    world.missing, world.weight = False, 0
    world.run(60, World.settled)
    assert (world.record.current, world.weight) == (B, 0)


def test_past_the_last_switch_the_old_revision_goes_without_the_route() -> None:
    world = World(routed=True).serving().edit("b").until(Phase.DRAINING)
    world.missing = True
    world.run(60, lambda world: world.record.current == B and A not in world.things)
    assert (world.record.rollout, world.selects["llama"], world.selects["llama-update"]) == (None, B, B)
    world.missing = False
    world.run(5)
    assert (world.weight, world.selects["llama-update"]) == (0, NO_REVISION)
    assert Why.ABORTED not in {each.record.rollout.reason for each in world.steps if each.record.rollout}
