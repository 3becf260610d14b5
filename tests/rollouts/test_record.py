"""The record is plain data: it can be stored as JSON and comes back as it was."""

from __future__ import annotations

import msgspec

from autoscaler.model.rollout import RolloutSpec, WeightStep
from rollouts.record import Bounds, Leaving, Phase, Record
from tests.rollouts.world import World, revision


def test_a_record_in_the_middle_of_an_update_survives_json() -> None:
    world = World(spec=RolloutSpec(1, 8, steps=(WeightStep(10, 60.0),)), routed=True).serving()
    world.edit("b").until(Phase.PAUSED)
    record = world.record
    assert record.rollout is not None
    assert record.rollout.pause is not None
    assert record.bounds == Bounds(1, 8)
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record


def test_a_record_names_every_revision_that_it_speaks_of() -> None:
    world = World(gpus={"default": 30}).serving().edit("b").until(Phase.STARTING).edit("c")
    world.cycle()
    assert world.record.names == {revision(letter).name for letter in "abc"}
    assert isinstance(world.record.leaves(revision("b").name), Leaving)
    assert world.record.leaves(revision("a").name) is None
