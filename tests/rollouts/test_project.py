"""Many workloads, one quota: updates take turns, in order, and what is held never exceeds the limit."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from autoscaler.model.rollout import RolloutSpec
from autoscaler.model.workload import WorkloadKey
from rollouts import quota
from rollouts.observed import Observed
from rollouts.planner import Asker
from rollouts.quota import OVERTAKES_MOST
from rollouts.record import Phase
from tests.rollouts.world import Cut, World


def project(count: int, gpus: int) -> list[World]:
    """So many workloads of 2 replicas with one GPU each, all serving; priorities alternate."""
    limit = {"default": gpus}
    worlds = [
        World(
            asker=Asker(WorkloadKey("ml", f"w{index}"), "team", index % 2, float(index)),
            gpus=limit,
            desired=2,
            spec=RolloutSpec(1, 4),
        )
        for index in range(count)
    ]
    for world in worlds:
        world.project.extend(worlds)
    for world in worlds:
        world.serving()
    latest = max(world.now for world in worlds)
    for world in worlds:
        world.pass_time(latest - world.now)
    return worlds


def cycle(worlds: list[World]) -> None:
    """One cycle of the controller: all look, all asks are put in order, all step."""
    seen: list[Observed] = [world.look() for world in worlds]
    asks = [world.asks(each) for world, each in zip(worlds, seen, strict=True)]
    verdicts = quota.share([ask for ask in asks if ask is not None], worlds[0].ledgers(), worlds[0].now)
    for world, each, ask in zip(worlds, seen, asks, strict=True):
        verdict = verdicts[ask.id] if ask is not None else None
        with contextlib.suppress(Cut):
            world.cycle(replace(each, verdict=verdict) if verdict is not None else each)
        assert world.used("default") <= worlds[0].gpus["default"] * 1000
    for world in worlds:
        world.pass_time()


@pytest.mark.parametrize("faults", [False, True], ids=["quiet", "cut off"])
def test_ten_updates_at_once_take_turns_by_priority_then_age(faults: bool) -> None:
    worlds = project(10, 24)
    started: list[list[int]] = []
    known: set[int] = set()
    for index, world in enumerate(worlds):
        world.now += index * 0.001  # age
        world.edit("b")
    for second in range(400):
        if faults and second % 7 == 3:
            world = worlds[second % 10]
            world.cut_at, world.after_effect = world.calls + 1 + second % 3, second % 2 == 0
        cycle(worlds)
        new = [i for i, each in enumerate(worlds) if each.phase() is Phase.STARTING and i not in known]
        started += [new] if new else []
        known.update(new)
        if all(world.settled() for world in worlds):
            break
    assert all(world.settled() for world in worlds), [world.story() for world in worlds if not world.settled()][:1]
    assert worlds[0].used("default") == 20_000, "nothing leaks"
    if not faults:
        assert started == [[1, 3], [5, 7], [0, 9], [2, 4], [6, 8]], "there is room for two at a time"


def test_a_big_update_is_not_starved_by_small_ones_that_keep_coming() -> None:
    worlds = project(5, 16)
    for world in worlds:
        world.asker = replace(world.asker, priority_rank=0)
    big = worlds[0]
    most = 0
    for second in range(900):
        for index, each in enumerate(worlds[1:]):
            if each.phase() is None and second >= index * 6:
                each.edit("bcdef"["abcdef".index(each.template.name[-1]) % 5])
        if second == 40:
            big.spec = RolloutSpec(6, 6)
            big.edit("b")
        cycle(worlds)
        most = max(most, big.record.rollout.overtaken if big.record.rollout else 0)
        if second > 40 and big.settled():
            break
    assert most <= OVERTAKES_MOST + 2, "a few may be served in the same cycle"
    assert big.settled(), big.story()


def test_an_update_of_which_nothing_is_limited_is_served_at_once() -> None:
    world = World(gpus={}).serving().edit("b")
    assert world.cycle().record.rollout is not None
    assert (world.phase(), world.record.rollout and world.record.rollout.pool) == (Phase.STARTING, "default")
    world.run(60, World.settled)
    assert (world.settled(), world.record.pool, world.holds) == (True, "default", {})


def test_an_update_goes_to_the_pool_that_nobody_limits_where_the_limited_one_is_full() -> None:
    world = World(gpus={"h100": 5}, spec=RolloutSpec(1, 8, node_pools=("h100", "spare"))).serving().edit("b")
    assert world.used("h100") == 3000
    world.run(60, World.settled)
    assert (world.settled(), world.record.pool, world.used("h100")) == (True, "spare", 0), world.story()
