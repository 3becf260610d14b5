"""Fences of a tenure: objects of ours wait for their stamp, targets for the last write of the leader before."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.controller.steps import LATE_WRITE_MOST_S, fences, step_of
from autoscaler.controller.subject import Subject
from autoscaler.model.workload import Mode, TargetSpec
from rollouts.commands import HaveReplicas, Stamp
from rollouts.observed import ObservedRevision
from tests.controller.test_conflicts import KEY, NOW, snapshot, subject

NAME = "statefulsets.apps/chat"


def target(epoch: int | None, mode: Mode = Mode.ACTIVE) -> Subject:
    """Two replicas that run, recorded by the leader of this epoch."""
    ours = subject()
    spec = replace(ours.spec, mode=mode, target=TargetSpec("apps/v1", "statefulsets", "StatefulSet", "chat"))
    record = replace(ours.record, current=NAME, epoch=epoch)
    observed = replace(ours.observed, current=ObservedRevision(NAME, 2, ready=2))
    return replace(ours, spec=spec, record=record, stored=record, observed=observed)


def test_a_target_is_never_stamped_and_nobody_waits_for_its_stamp() -> None:
    fence = fences(snapshot(target(1)), frozenset(), None, 2)
    assert fence.unstamped == 0
    done = step_of(target(1), 2, fence, NOW)
    assert done.commands == ()
    assert done.record.epoch == 2
    assert any(isinstance(each, Stamp) for each in step_of(subject(), 2, fence, NOW).commands)
    assert fences(snapshot(subject()), frozenset(), None, 2).unstamped == 1


def test_what_another_leader_recorded_is_not_lowered_for_as_long_as_its_write_may_take() -> None:
    fence = fences(snapshot(target(1)), frozenset(), None, 2)
    assert step_of(target(1), 0, fence, NOW).commands == ()
    assert step_of(target(1), 5, fence, NOW).commands == (HaveReplicas(NAME, 5, 2),)
    later = NOW + LATE_WRITE_MOST_S
    fence = fences(snapshot(target(2), at_s=later - 1), frozenset(), fence, 2)  # recorded by us meanwhile
    assert step_of(target(2), 0, fence, later - 1).commands == ()
    fence = fences(snapshot(target(2), at_s=later), frozenset(), fence, 2)
    assert step_of(target(2), 0, fence, later).commands == (HaveReplicas(NAME, 0, 2),)


def test_without_an_earlier_leader_there_is_nothing_to_wait_for() -> None:
    for epoch in (None, 2):
        fence = fences(snapshot(target(epoch)), frozenset(), None, 2)
        assert step_of(target(epoch), 0, fence, NOW).commands == (HaveReplicas(NAME, 0, 2),)


def test_a_tenure_that_is_over_begins_the_wait_anew() -> None:
    fence = fences(snapshot(target(1)), frozenset(), None, 2)
    again = fences(snapshot(target(2), at_s=NOW + 100), frozenset(), fence, 3)
    assert again.late_until == {KEY: NOW + 100 + LATE_WRITE_MOST_S}


def test_what_is_not_seen_as_it_is_now_is_not_lowered() -> None:
    stale = replace(target(2), follows=False)
    fence = fences(snapshot(stale), frozenset(), None, 2)
    assert step_of(stale, 0, fence, NOW).commands == ()


def test_observing_has_no_command_whatever_was_granted() -> None:
    observed = target(2, Mode.OBSERVE)
    fence = fences(snapshot(observed), frozenset(), None, 2)
    for granted in (0, 2, 8):
        assert step_of(observed, granted, fence, NOW).commands == ()
