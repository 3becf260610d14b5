"""Updates from the first template edit to the end, in the imitated cluster of `world`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaler.model.rollout import RolloutSpec, WarmUpSpec, WeightStep, WhenQuotaShort
from rollouts.commands import DeleteRevision
from rollouts.gates import COUNTERS_PATIENCE_S
from rollouts.record import PausedBy, Phase, Why
from rollouts.revision import NO_REVISION
from rollouts.verbs import Verb, parse
from tests.rollouts.world import READY_S, Cut, World, revision

A, B, C = (revision(letter).name for letter in "abc")
ROUTED = pytest.mark.parametrize("routed", [False, True], ids=["service", "route"])
CANARY = RolloutSpec(1, 8, steps=(WeightStep(10, 120.0), WeightStep(50, 60.0)))


@ROUTED
def test_a_good_update_takes_over_and_the_old_one_goes(routed: bool) -> None:
    world = World(routed=routed).serving().edit("b").run(60, World.settled)
    assert world.settled(), world.story()
    assert (world.record.current, world.record.phase, world.record.rollout) == (B, Phase.COMPLETE, None)
    assert (world.weight, world.selects) == (0, {"llama": B, "llama-update": NO_REVISION})
    assert set(world.things) == {B}
    assert {name: held for name, (_, held) in world.holds.items()} == {B: {"nvidia.com/gpu": 3000}}


@ROUTED
def test_the_whole_update_exists_at_once_and_serves_only_when_all_of_it_is_ready(routed: bool) -> None:
    world = World(routed=routed).serving().edit("b").until(Phase.STARTING)
    assert (world.replicas("b"), world.held("b")) == (3, 3)
    world.run(READY_S - 1)
    assert (world.traffic(), world.replicas("a")) == ({A: 100}, 3)


def test_three_to_eight_needs_eight_more_gpus_and_no_pod_exists_before() -> None:
    """Template and min 3 -> 8: with 7 free GPUs it waits, at the 8th it starts."""
    world = World(spec=RolloutSpec(3, 8), gpus={"default": 11}, foreign=1).serving()
    world.spec = replace(world.spec, min_replicas=8)
    world.edit("b").run(30)
    assert (world.phase(), world.replicas("b"), world.held("b")) == (Phase.QUEUED, None, 0)
    assert world.steps[-1].waiting == "8 replicas are 1 nvidia.com/gpu short"
    world.foreign = 0
    world.run(2)
    assert (world.phase(), world.replicas("b"), world.held("b")) == (Phase.STARTING, 8, 8)


def test_bounds_alone_apply_in_place() -> None:
    world = World(spec=RolloutSpec(3, 8)).serving()
    world.spec = replace(world.spec, min_replicas=8)
    world.run(20)
    assert (world.record.rollout, world.replicas("a"), world.held("a")) == (None, 8, 8)


def test_template_and_bounds_together_are_one_update_with_the_new_bounds() -> None:
    world = World(spec=RolloutSpec(1, 3), gpus={"default": 20}).serving()
    world.spec = RolloutSpec(5, 8)
    world.edit("b").until(Phase.STARTING)
    assert (world.replicas("b"), world.replicas("a")) == (5, 3), "the new bounds are the update's"
    world.spec = RolloutSpec(4, 8)
    world.run(3)
    assert world.replicas("a") == 4, "bounds alone apply in place"


def test_latest_wins_in_a_burst_of_a_hundred() -> None:
    world = World(gpus={"default": 30}).serving()
    for count in range(100):
        world.edit("bcde"[count % 4] if count < 99 else "f")
        world.cycle()
        world.pass_time(0.5)
    world.run(120, World.settled)
    assert world.settled(), world.story()
    assert (world.record.current, world.most_live) == (revision("f").name, 2)
    assert set(world.things) == set(world.holds) == {revision("f").name}


def test_the_next_update_stays_queued_until_the_superseded_ones_pods_are_gone() -> None:
    world = World(gpus={"default": 30}).serving().edit("b").until(Phase.STARTING).run(2).edit("c")
    world.cycle()
    assert (world.phase(), world.record.leaving[0].revision) == (Phase.QUEUED, B)
    while world.live("b"):
        assert world.replicas("c") is None
        world.run(1)
    world.until(Phase.STARTING)


@ROUTED
def test_supersession_is_possible_until_verified_100_and_not_after(routed: bool) -> None:
    world = World(routed=routed, gpus={"default": 30}).serving().edit("b").until(Phase.DRAINING).edit("c")
    world.run(60, lambda world: world.record.current == B)
    assert world.record.current == B, "what had all traffic is not thrown away"
    world.run(90, World.settled)
    assert world.record.current == C


def test_a_superseded_update_that_served_is_drained_before_it_goes() -> None:
    world = World(spec=CANARY, routed=True, gpus={"default": 30}).serving().edit("b").until(Phase.PAUSED)
    world.in_flight[B] = 4
    world.edit("c").run(20)
    assert (world.weight, world.replicas("b"), world.selects["llama-update"]) == (0, 3, B)
    world.in_flight[B] = 0
    world.run(10)
    assert world.live("b") == 0


def test_a_deadline_removes_every_new_pod_at_once_and_the_current_one_never_notices() -> None:
    world = World()
    world.broken.add(B)
    world.serving().edit("b").until(Phase.STARTING)
    deadline = world.record.rollout.progress_deadline_at if world.record.rollout else None
    assert deadline == world.now + 600
    world.run(deadline - world.now)
    assert (world.phase(), world.replicas("b")) == (Phase.STARTING, 3)
    world.cycle()
    assert (world.phase(), world.replicas("b"), world.things[B].deleted_immediately) == (Phase.ROLLING_BACK, None, True)
    world.run(6)
    rollout = world.record.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason) == (Phase.FAILED, Why.PROGRESS_DEADLINE_EXCEEDED)
    assert (world.held("b"), world.traffic(), world.replicas("a")) == (0, {A: 100}, 3)


def test_pods_that_are_to_go_at_once_are_asked_for_until_they_are_gone() -> None:
    world = World()
    world.broken.add(B)
    world.serving().edit("b").until(Phase.ROLLING_BACK, 700)
    assert (world.replicas("b"), world.live("b")) == (None, 3)
    assert DeleteRevision(B, immediate=True) in world.cycle().commands, "a controller may have made one more"
    world.pass_time(5)
    assert world.live("b") == 0
    assert DeleteRevision(B, immediate=True) not in world.cycle().commands


def test_pods_that_served_end_in_their_own_time() -> None:
    world = World(gpus={"default": 30}).serving().edit("b").run(60)
    assert world.record.current == B
    deletions = [each for step in world.steps for each in step.commands if isinstance(each, DeleteRevision)]
    assert deletions == [DeleteRevision(A, immediate=False)]


def test_half_ready_ends_at_the_deadline_too() -> None:
    world = World().serving().edit("b").until(Phase.STARTING)
    for _ in range(620):
        world.run(1)
        if world.phase() is Phase.FAILED:
            break
        world.kill(B, 2)
    assert world.phase() is Phase.FAILED
    assert world.traffic() == {A: 100}


def test_pods_that_a_webhook_denies_end_at_the_deadline() -> None:
    world = World()
    world.denied.add(B)
    world.serving().edit("b").until(Phase.STARTING).run(599)
    assert world.phase() is Phase.STARTING
    world.run(10)
    assert (world.phase(), world.held("b")) == (Phase.FAILED, 0)


def test_a_failed_revision_is_not_tried_again_and_a_fixed_template_starts_afresh() -> None:
    world = World()
    world.broken.add(B)
    world.serving().edit("b").until(Phase.FAILED, 700).run(700)
    assert (world.phase(), world.replicas("b")) == (Phase.FAILED, None)
    world.edit("c").run(60, World.settled)
    assert world.record.current == C


def test_a_failed_revision_is_tried_again_on_retry_with_fresh_clocks() -> None:
    world = World()
    world.broken.add(B)
    world.serving().edit("b").until(Phase.FAILED, 700)
    world.broken.clear()
    world.ask(Verb.RETRY, "b").run(60, World.settled)
    assert world.record.current == B
    assert world.record.handled == world.limits.verb.text if world.limits.verb else False


@ROUTED
def test_an_abort_gives_everything_back(routed: bool) -> None:
    world = World(spec=CANARY, routed=routed)
    world.broken.add(B)
    world.serving().edit("b").until(Phase.STARTING).ask(Verb.ABORT, "b").run(8)
    rollout = world.record.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason, world.held("b")) == (Phase.FAILED, Why.ABORTED, 0)
    assert (world.traffic(), set(world.things)) == ({A: 100}, {A})


def test_weights_follow_the_plan_with_its_pauses_and_are_back_at_0_after_an_abort_at_50() -> None:
    world = World(spec=CANARY, routed=True).serving().edit("b")
    seen: list[tuple[int, float]] = []
    for _ in range(200):
        world.run(1)
        if not seen or seen[-1][0] != world.weight:
            seen.append((world.weight, world.now))
        if world.weight == 50:
            break
    assert [weight for weight, _ in seen] == [0, 10, 50]
    assert seen[2][1] - seen[1][1] >= 120
    world.ask(Verb.ABORT, "b").run(2)
    assert world.weight == 0
    assert world.live("b") == 3, "its requests finish first"
    world.until(Phase.FAILED)
    assert set(world.things) == {A}


def test_a_pause_of_a_step_is_taken_out_of_the_deadline() -> None:
    world = World(spec=replace(CANARY, progress_deadline_s=60.0), routed=True).serving().edit("b").until(Phase.PAUSED)
    before = world.record.rollout
    world.until(Phase.SHIFTING)
    after = world.record.rollout
    assert before is not None
    assert after is not None
    assert before.progress_deadline_at is not None
    assert after.progress_deadline_at == before.progress_deadline_at + 120
    world.run(200, World.settled)
    assert world.record.current == B


def test_promote_ends_one_pause_and_promote_full_all_of_them() -> None:
    world = World(spec=CANARY, routed=True).serving().edit("b").until(Phase.PAUSED)
    assert world.weight == 10
    world.ask(Verb.PROMOTE, "b").run(3).until(Phase.PAUSED)
    assert world.weight == 50
    world.ask(Verb.PROMOTE_FULL, "b").run(3)
    assert world.weight == 100


def test_promote_full_skips_no_gate() -> None:
    world = World(spec=CANARY, routed=True).serving().edit("b").until(Phase.STARTING).ask(Verb.PROMOTE_FULL, "b")
    world.run(3)
    assert world.weight == 0
    world.run(60, World.settled)
    assert world.record.current == B


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING, Phase.SHIFTING])
def test_a_pause_stops_all_clocks_and_a_resume_goes_on(phase: Phase) -> None:
    world = World(gpus={"default": 5 if phase is Phase.QUEUED else 12}, routed=True)
    world.serving().edit("b").until(phase).ask(Verb.PAUSE, "b").run(4000)
    rollout = world.record.rollout
    assert rollout is not None
    assert rollout.pause is not None
    assert (rollout.phase, rollout.pause.by) == (Phase.PAUSED, PausedBy.VERB)
    world.gpus["default"] = 12
    world.ask(Verb.RESUME, "b").run(60, World.settled)
    assert world.record.current == B


def test_a_paused_update_in_the_queue_holds_no_quota() -> None:
    world = World().serving()
    world.spec = replace(world.spec, paused=True)
    world.edit("b").run(10)
    assert (world.phase(), world.held("b")) == (Phase.PAUSED, 0)
    world.spec = replace(world.spec, paused=False)
    world.run(60, World.settled)
    assert world.record.current == B


@pytest.mark.parametrize("text", ["", "go llama-1 now", "abort llama-1"])
def test_a_verb_that_nobody_knows_is_refused_with_the_allowed_ones(text: str) -> None:
    found = parse(text)
    assert isinstance(found, str)
    assert "promote-full" in found


def test_a_verb_is_no_longer_than_the_status_can_remember() -> None:
    assert not isinstance(parse(f"abort llama-1 {'x' * 239}"), str)
    assert parse(f"abort llama-1 {'x' * 240}") == "the verb has 254 characters; allowed: at most 253"


def test_a_verb_is_obeyed_once_and_only_for_the_revision_that_it_names() -> None:
    world = World().serving().edit("b").until(Phase.STARTING).ask(Verb.ABORT, "c")
    world.cycle()
    assert (world.phase(), world.steps[-1].reasons) == (Phase.STARTING, ("VerbIgnored",))
    world.ask(Verb.ABORT, "b").until(Phase.FAILED).edit("c").run(60, World.settled).edit("b").run(60, World.settled)
    assert world.record.current == B, "the old abort does not come back"


def test_refuse_fails_at_once_where_wait_waits() -> None:
    world = World(spec=RolloutSpec(1, 8, when_quota_short=WhenQuotaShort.REFUSE), gpus={"default": 5}).serving()
    world.edit("b").run(3)
    rollout = world.record.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason) == (Phase.FAILED, Why.QUOTA_REFUSED)


def test_what_can_never_fit_beside_a_serving_current_revision_fails_at_once() -> None:
    world = World(spec=RolloutSpec(3, 8), gpus={"default": 10}).serving()
    world.spec = replace(world.spec, min_replicas=8)
    rollout = world.edit("b").run(1).record.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason) == (Phase.FAILED, Why.NEVER_FITS)


def test_the_queue_timeout_fails_and_being_queued_again_does_not_restart_it() -> None:
    world = World(spec=RolloutSpec(1, 8, queue_timeout_s=900.0))
    world.serving()
    world.unplaceable.add("default")
    world.edit("b").run(3)
    start = world.record.rollout
    assert start is not None
    world.run(1000)
    rollout = world.record.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason, rollout.attempts > 0) == (Phase.FAILED, Why.QUEUE_TIMEOUT, True)
    assert rollout.queue_deadline_at == start.queue_deadline_at


def test_unplaced_pods_are_all_removed_and_the_update_waits_30_s_then_60() -> None:
    world = World().serving()
    world.unplaceable.add("default")
    starts: list[float] = []
    gone: list[float] = []
    world.edit("b")
    for _ in range(1200):
        before = world.phase()
        world.run(1)
        if before is not Phase.STARTING and world.phase() is Phase.STARTING:
            starts.append(world.now)
        if before is Phase.STARTING and world.phase() is Phase.QUEUED:
            gone.append(world.now)
    assert [round(out - start) for start, out in zip(starts, gone, strict=False)][:2] == [300, 300]
    assert [round(again - out) >= wait for out, again, wait in zip(gone, starts[1:], (30, 60), strict=False)] == [
        True
    ] * 2
    assert world.traffic() == {A: 100}


def test_pods_that_come_later_and_find_no_node_have_a_schedule_timeout_of_their_own() -> None:
    """Of a group the workers come after the leader, and a lost pod comes anew: all that was there had been placed."""
    world = World(spec=RolloutSpec(1, 8, schedule_timeout_s=50.0, progress_deadline_s=600.0))
    world.broken.add(B)
    world.serving().edit("b").until(Phase.STARTING)
    world.run(20)
    assert world.record.rollout is not None
    assert world.record.rollout.schedule_deadline_at is None, "all of its pods have a node"
    world.unplaceable.add("default")
    since = world.now
    world.until(Phase.QUEUED, 100)
    rollout = world.record.rollout
    assert rollout is not None
    assert rollout.reason is Why.UNPLACED
    assert world.now - since == pytest.approx(50, abs=2)
    world.run(20)
    assert (world.live("b"), world.held("b")) == (0, 0)
    assert world.traffic() == {A: 100}


def test_node_pools_are_tried_in_order_and_never_split() -> None:
    spec = RolloutSpec(1, 8, node_pools=("h100", "a100"))
    world = World(spec=spec, gpus={"h100": 7, "a100": 4}).serving()
    world.desired = 4
    world.run(10)
    world.edit("b").until(Phase.STARTING)
    assert (world.holds[B][0], world.held("b")) == ("a100", 4), "3 would fit here and 1 there: all of it goes there"


def test_after_a_schedule_timeout_comes_the_next_node_pool_at_once() -> None:
    world = World(spec=RolloutSpec(1, 8, node_pools=("h100", "a100")), gpus={"h100": 8, "a100": 8}).serving()
    world.unplaceable.add("h100")
    world.edit("b").until(Phase.STARTING)
    assert world.holds[B][0] == "h100"
    world.run(310)
    assert (world.holds[B][0], world.replicas("b")) == ("a100", 3)
    world.unplaceable.clear()
    world.run(60, World.settled)
    assert (world.record.current, world.record.pool) == (B, "a100")


def test_terminating_pods_keep_the_hold() -> None:
    world = World(gpus={"default": 6}).serving().edit("b").until(Phase.DRAINING)
    world.run(60, lambda world: world.record.current == B)
    while world.live("a"):
        assert world.held("a") == 3
        world.run(1)
    world.run(2)
    assert world.held("a") == 0


def test_a_hold_that_was_lost_before_any_pod_queues_the_update_again() -> None:
    world = World()
    world.denied.add(B)
    world.serving().edit("b").until(Phase.STARTING)
    world.things.pop(B)
    world.holds.pop(B)
    world.cycle()
    rollout = world.record.rollout
    assert rollout is not None
    assert rollout.reason in (Why.RESERVATION_LOST, Why.WAITING_FOR_QUOTA)
    assert rollout.phase is Phase.QUEUED


def test_quota_taken_away_while_queued_means_no_pod_ever() -> None:
    world = World(spec=RolloutSpec(1, 8, queue_timeout_s=100.0), gpus={"default": 5}).serving()
    world.edit("b").until(Phase.QUEUED)
    world.gpus["default"] = 4
    world.run(120)
    assert (world.phase(), B in world.saved) == (Phase.FAILED, False)


def test_argo_3372_the_last_switch_waits_for_replicas_when_demand_doubled_meanwhile() -> None:
    world = World(spec=RolloutSpec(1, 8, steps=(WeightStep(50, 30.0),)), routed=True, gpus={"default": 16})
    world.serving().edit("b").until(Phase.PAUSED)
    world.desired = 6
    while world.weight < 100:
        world.run(1)
        assert world.now < 2000, world.story()
    ready = world.steps[-1].record.rollout
    assert ready is not None
    assert world.observed_revision(B).ready >= 6


def test_knative_16649_a_revision_below_its_initial_size_gets_nothing() -> None:
    world = World(gpus={"default": 16}, desired=5).serving().edit("b").until(Phase.STARTING)
    world.run(READY_S - 1)
    for _ in range(20):
        world.kill(B, 1)
        world.run(1)
        assert world.traffic() == {A: 100}
    world.run(60, World.settled)
    assert world.record.current == B


def test_the_update_grows_with_its_hold_before_it_gets_more_than_it_can_carry() -> None:
    world = World(gpus={"default": 9}).serving().edit("b").until(Phase.STARTING)
    world.desired = 5
    world.run(30)
    assert (world.phase(), world.traffic()) == (Phase.SHIFTING, {A: 100}), world.story()
    world.gpus["default"] = 16
    world.run(60, World.settled)
    assert (world.record.current, world.replicas("b")) == (B, 5)


def test_the_current_revision_goes_on_growing_while_an_update_waits() -> None:
    world = World(gpus={"default": 7}).serving().edit("b")
    world.desired = 4
    world.run(10)
    assert (world.phase(), world.replicas("a")) == (Phase.QUEUED, 4)


def test_an_update_that_loses_all_replicas_gives_the_traffic_back() -> None:
    world = World(spec=CANARY, routed=True).serving().edit("b").until(Phase.PAUSED)
    world.kill(B, 3)
    world.run(2)
    assert world.weight == 0
    world.run(400, World.settled)
    assert world.record.current == B


def test_replicas_that_are_lost_while_a_weight_is_being_proven_give_the_traffic_back_too() -> None:
    world = World(spec=CANARY, routed=True).serving().edit("b").until(Phase.SHIFTING)
    assert world.weight == 10
    world.kill(B, 3)
    world.cycle()
    rollout = world.record.rollout
    assert rollout is not None
    assert (rollout.phase, rollout.reason, world.weight) == (Phase.STARTING, Why.REPLICAS_LOST, 0)


def test_a_weight_that_a_crash_left_undone_is_checked_again_before_it_is_written() -> None:
    world = World(spec=CANARY, routed=True).serving().edit("b").until(Phase.WARMING)
    world.pass_time()
    world.cut_at = world.calls + 2  # the record is saved, the route is not written
    with pytest.raises(Cut):
        world.cycle()
    assert (world.record.rollout.weight if world.record.rollout else None, world.weight) == (10, 0)
    world.kill(B, 1)
    world.run(2)
    assert world.weight == 0
    world.run(400, World.settled)
    assert world.record.current == B


def test_a_verified_weight_that_drifted_is_put_back() -> None:
    world = World(spec=CANARY, routed=True).serving().edit("b").until(Phase.PAUSED)
    world.weight = 70
    world.cycle()
    assert world.weight == 10
    world.weight = 0
    world.kill(B, 1)
    world.cycle()
    assert world.weight == 10


def test_drain_ends_at_its_timeout_where_requests_never_end() -> None:
    world = World(spec=RolloutSpec(1, 8, drain_timeout_s=40.0)).serving().edit("b").until(Phase.DRAINING)
    world.in_flight[A] = 1
    world.run(39)
    assert (world.phase(), world.live("a")) == (Phase.DRAINING, 3)
    world.run(10, World.settled)
    assert world.live("a") == 0


def test_without_quota_nothing_is_lost_by_waiting_and_a_reverted_template_leaves_nothing() -> None:
    world = World(gpus={"default": 5}).serving().edit("b").until(Phase.QUEUED).edit("a").run(3)
    assert (world.record.rollout, world.record.leaving, set(world.holds)) == (None, (), {A})


@ROUTED
@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.PAUSED, Phase.SHIFTING])
def test_a_template_that_returns_to_the_current_one_is_an_abort_with_nothing_left_to_do(
    routed: bool, phase: Phase
) -> None:
    if phase is Phase.PAUSED and not routed:
        return
    world = World(spec=CANARY if routed else RolloutSpec(1, 8), routed=routed).serving().edit("b").until(phase)
    world.edit("a").run(60)
    assert (world.record.rollout, world.record.leaving, set(world.things)) == (None, (), {A})
    assert world.traffic() == {A: 100}
    world.edit("b").run(400, World.settled)
    assert world.record.current == B, "wanted once more, it is a fresh update"


@pytest.mark.parametrize("uncounted", [{A}, {B}, {A, B}], ids=["old", "new", "both"])
def test_an_update_of_an_engine_without_counters_goes_on_by_the_routes_word(uncounted: set[str]) -> None:
    world = World(spec=replace(CANARY, drain_timeout_s=40.0), routed=True, uncounted=uncounted).serving().edit("b")
    began = world.until(Phase.SHIFTING).now
    world.run(600, World.settled)
    assert world.settled(), world.story()
    assert (world.record.current, world.record.phase) == (B, Phase.COMPLETE)
    assert world.now - began < 120 + 60 + 3 * (COUNTERS_PATIENCE_S + 5) + 40 + 20, "pauses, weights, drain, deletion"


def test_warm_up_requests_come_before_any_weight() -> None:
    world = (
        World(spec=RolloutSpec(1, 8, warmup=WarmUpSpec("/v1/models")), routed=True)
        .serving()
        .edit("b")
        .until(Phase.WARMING)
    )
    assert world.weight == 0
    world.run(60, World.settled)
    assert len([name for name in world.warmed if name.startswith(B)]) == 3
