"""Cut off after every prefix of every plan, the machine comes to the same end, and no invariant breaks on the way.

The invariants are checked by the imitated cluster after every single write, and by `invariants.broken` at every look.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, note, seed, settings
from hypothesis import strategies as st

from autoscaler.model.rollout import RolloutSpec, WeightStep
from rollouts import invariants
from rollouts.observed import Limits, Observed
from rollouts.record import Phase
from rollouts.verbs import Verb
from tests.rollouts.world import Cut, World, revision

CANARY = RolloutSpec(1, 8, steps=(WeightStep(10, 4.0), WeightStep(50, 4.0)), progress_deadline_s=60.0)
PLAIN = replace(CANARY, steps=())
EXAMPLES = int(os.environ.get("TIDEGATE_TEST_EXAMPLES", "250"))
LIVED: list[int] = []  # steps of each history of a run
Plan = Callable[[World, float], None]  # what people do, by the time since the update began


def full(world: World, at: float) -> None:
    if at == 0:
        world.edit("b")


def bad(world: World, at: float) -> None:
    world.broken.add(revision("b").name)
    full(world, at)


def superseded(world: World, at: float) -> None:
    full(world, at)
    if at == 9:
        world.edit("c")


def aborted(world: World, at: float) -> None:
    full(world, at)
    if at == 12:
        world.ask(Verb.ABORT, "b")


def reverted(world: World, at: float) -> None:
    full(world, at)
    if at == 10:
        world.edit("a")


PLANS: dict[str, tuple[Plan, bool, RolloutSpec]] = {
    "full": (full, False, PLAIN),
    "full, route": (full, True, PLAIN),
    "steps": (full, True, CANARY),
    "deadline": (bad, True, PLAIN),
    "superseded": (superseded, False, PLAIN),
    "superseded, route": (superseded, True, CANARY),
    "aborted": (aborted, True, CANARY),
    "reverted": (reverted, True, CANARY),
}


def play(name: str, cut_at: int | None = None, after_effect: bool = False) -> World:
    plan, routed, spec = PLANS[name]
    world = World(spec=spec, routed=routed, desired=2).serving()
    world.calls, world.cut_at, world.after_effect = 0, cut_at, after_effect
    for at in range(110):
        plan(world, at)
        world.run(1)
        broken = invariants.broken(world.record, world.look())
        assert broken is None, f"{broken} at {at} s: {world.story()}"
    return world


def end_of(world: World) -> object:
    rollout = world.record.rollout
    return (
        world.record.current,
        (rollout.revision, rollout.phase, rollout.reason) if rollout is not None else None,
        world.record.leaving,
        {name: (thing.replicas, len(thing.pods)) for name, thing in world.things.items()},
        world.holds,
        world.selects,
        world.weight,
    )


@pytest.mark.parametrize("name", PLANS)
def test_from_every_interrupted_prefix_it_comes_to_the_same_end(name: str) -> None:
    clean = play(name)
    writes = clean.calls
    for call in range(1, writes + 1):
        for after_effect in (False, True):
            world = play(name, call, after_effect)
            assert end_of(world) == end_of(clean), f"cut at {call} of {writes}, after_effect={after_effect}"
    print(f"{name}: {writes} writes x 2")


@pytest.mark.parametrize("routed", [False, True], ids=["service", "route"])
def test_a_first_start_comes_to_the_same_end_from_every_interrupted_prefix(routed: bool) -> None:
    clean = World(routed=routed).serving()
    assert clean.calls > 5
    for call in range(1, clean.calls + 1):
        for after_effect in (False, True):
            world = World(routed=routed, cut_at=call, after_effect=after_effect).serving()
            assert end_of(world) == end_of(clean), f"cut at {call} of {clean.calls}, after_effect={after_effect}"


def test_the_record_is_saved_before_anything_is_done() -> None:
    world = World(cut_at=2)
    with pytest.raises(Cut):
        world.cycle()
    assert (world.record.current, world.saved, world.things) == (revision("a").name, set(), {})


class History:
    """One random life: what happens, in which order, is drawn; the oracle looks after every write."""

    def __init__(self, data: st.DataObject, world: World) -> None:
        self.data, self.world = data, world
        self.epoch = 1
        self.last: list[Observed] = []

    def happen(self) -> None:
        world = self.world
        what = self.data.draw(
            st.sampled_from(
                ["edit", "demand", "gpus", "kill", "verb", "leader", "cut", "break", "flight", "quiet", "late"]
            )
        )
        note(f"{world.now}: {what}")
        event(what)
        getattr(self, f"_{what}")()

    def _edit(self) -> None:
        self.world.edit(self.data.draw(st.sampled_from("abcd")))

    def _demand(self) -> None:
        self.world.desired = self.data.draw(st.integers(0, 5))

    def _gpus(self) -> None:
        self.world.gpus["default"] = self.data.draw(st.integers(3, 14))

    def _kill(self) -> None:
        names, self.world.peaceful = sorted(self.world.things), False
        if names:
            self.world.kill(self.data.draw(st.sampled_from(names)), self.data.draw(st.integers(1, 3)))

    def _verb(self) -> None:
        verb = self.data.draw(st.sampled_from(list(Verb)))
        self.world.ask(verb, self.data.draw(st.sampled_from("abcd")))

    def _leader(self) -> None:
        self.epoch += 1
        self.world.limits = replace(self.world.limits, epoch=self.epoch, may_lower=False)

    def _cut(self) -> None:
        self.world.cut_at = self.world.calls + self.data.draw(st.integers(1, 4))
        self.world.after_effect = self.data.draw(st.booleans())

    def _break(self) -> None:
        name = revision(self.data.draw(st.sampled_from("bcd"))).name
        self.world.broken ^= {name}
        self.world.peaceful = False

    def _flight(self) -> None:
        for name in sorted(self.world.things):
            self.world.in_flight[name] = self.data.draw(st.integers(0, 2))

    def _quiet(self) -> None:
        self.world.requests = not self.world.requests

    def _late(self) -> None:
        self.world.peaceful = False
        self.world.late_s = self.data.draw(st.sampled_from([0.0, 1.0, 4.0]))

    def pass_time(self) -> None:
        """A few cycles; a new leader may lower after the first of them."""
        for _ in range(self.data.draw(st.integers(1, 12))):
            self.world.run(1)
            stamped = all(each.epoch == self.epoch for each in self.world.things.values() if each.replicas is not None)
            self.world.limits = replace(self.world.limits, may_lower=stamped)

    def calm_down(self) -> None:
        """Nothing more happens: quota is there, pods are good, requests end."""
        world = self.world
        world.gpus["default"], world.desired, world.requests = 30, 2, True
        world.broken.clear()
        world.in_flight.clear()
        world.cut_at = None
        rollout = world.record.rollout
        if rollout is not None and rollout.phase is Phase.FAILED and rollout.revision == world.template.name:
            world.ask(Verb.RETRY, rollout.revision[-1])
        elif rollout is not None and rollout.pause is not None:
            world.ask(Verb.RESUME, rollout.revision[-1])
        self.pass_time()
        for _ in range(8):
            world.run(50, World.settled)
            if world.settled():
                return
            self.revive()

    def revive(self) -> None:
        rollout = self.world.record.rollout
        if rollout is not None and rollout.phase is Phase.FAILED:
            self.world.ask(Verb.RETRY, rollout.revision[-1])


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.data(), st.booleans(), st.booleans())
def histories(data: st.DataObject, routed: bool, steps: bool) -> None:
    spec = replace(CANARY if steps and routed else PLAIN, min_replicas=0, drain_timeout_s=20.0)
    world = World(spec=spec, routed=routed, desired=2)
    world.limits = Limits(1, epoch=1)
    world.serving()
    history = History(data, world)
    for _ in range(data.draw(st.integers(1, 12))):
        history.happen()
        history.pass_time()
    history.calm_down()
    assert world.settled(), world.story()
    assert (set(world.things), set(world.holds)) == ({world.template.name}, {world.template.name}), world.story()
    assert (world.weight, world.traffic()) == (0, {world.template.name: 100})
    LIVED.append(len(world.steps))


def test_whatever_happens_no_invariant_breaks_and_the_newest_template_serves_in_the_end() -> None:
    """TIDEGATE_TEST_SEED and TIDEGATE_TEST_EXAMPLES repeat a run, or look longer."""
    chosen = int(os.environ.get("TIDEGATE_TEST_SEED") or random.randrange(2**32))
    print(f"seed {chosen}")
    LIVED.clear()
    seed(chosen)(histories)()
    print(f"{len(LIVED)} histories, {sum(LIVED)} steps")
    assert len(LIVED) >= EXAMPLES
