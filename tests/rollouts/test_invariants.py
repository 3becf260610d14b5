"""Each invariant breaks where it should: a check that cannot fail proves nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaler.model.resources import GPU
from autoscaler.model.rollout import RolloutSpec
from rollouts import invariants
from rollouts.commands import Command, DeleteRevision, HaveReplicas, Hold, Select, Weigh
from rollouts.machine import Step, step
from rollouts.observed import (
    Limits,
    Observed,
    ObservedHold,
    ObservedRevision,
    ObservedRoute,
    ObservedService,
    Situation,
)
from rollouts.record import Leaving, Phase, Record, Rollout
from rollouts.revision import Revision

OLD, NEW, STRAY = "llama-aaaaaaaa", "llama-bbbbbbbb", "llama-cccccccc"
UPDATE = Rollout(
    NEW, 0.0, 3600.0, 0.0, phase=Phase.SHIFTING, size=3, weight=100, served=True, floor=3, ready_at_start=3, held_at=5.0
)
RECORD = Record(Phase.COMPLETE, OLD, NEW, rollout=UPDATE)
OBSERVED = Observed(
    newest=Revision(NEW, "b" * 64, {}),
    collision_count=0,
    saved=frozenset(),
    current=ObservedRevision(OLD, 3, ready=3),
    service=ObservedService("llama", True, OLD),
    update_service=ObservedService("llama-update", True, NEW),
    others=(ObservedRevision(NEW, 3, ready=3),),
    route=ObservedRoute(100, True),
    holds=(ObservedHold(OLD, "p", {GPU: 3000}), ObservedHold(NEW, "p", {GPU: 3000})),
    per_replica={OLD: {GPU: 1000}, NEW: {GPU: 1000}},
    desired=3,
)
SEEN = Situation(Limits(1), RolloutSpec(1, 8), OBSERVED, 3, 100.0)
STARTING = replace(RECORD, rollout=replace(UPDATE, phase=Phase.STARTING, weight=0, served=False))


def test_a_good_state_breaks_nothing() -> None:
    assert invariants.broken(RECORD, OBSERVED) is None


@pytest.mark.parametrize(
    ("record", "observed", "which"),
    [
        (RECORD, replace(OBSERVED, others=(ObservedRevision(NEW, 2, ready=2),)), "I1"),
        (STARTING, OBSERVED, "I2"),
        (RECORD, replace(OBSERVED, holds=OBSERVED.holds[:1]), "I3"),
        (RECORD, replace(OBSERVED, others=(ObservedRevision(NEW, 3, ready=2, terminating=2),)), "I3"),
        (RECORD, replace(OBSERVED, others=(*OBSERVED.others, ObservedRevision(STRAY, 1, ready=1))), "I4"),
        (replace(RECORD, leaving=(Leaving(OLD, 0.0, True),)), OBSERVED, "I5"),
        (RECORD, replace(OBSERVED, others=(*OBSERVED.others, ObservedRevision(STRAY, 1))), "I6"),
    ],
)
def test_a_broken_state_is_named(record: Record, observed: Observed, which: str) -> None:
    found = invariants.broken(record, observed)
    assert found is not None
    assert found.invariant == which


@pytest.mark.parametrize(
    ("record", "command", "which"),
    [
        (replace(RECORD, rollout=replace(UPDATE, size=4)), Weigh(10, 0), "I2"),
        (replace(RECORD, rollout=replace(UPDATE, ready_at_start=9, verified=50)), Weigh(100, 50), None),
        (replace(RECORD, rollout=None), Weigh(10, 0), "I2"),
        (replace(RECORD, rollout=replace(UPDATE, size=4)), Select("llama", NEW, True), "I2"),
        (RECORD, HaveReplicas(NEW, 4, 3), "I3"),
        (RECORD, HaveReplicas(STRAY, 1, None), "I4"),
        (replace(STARTING, leaving=(Leaving(STRAY, 1.0, False),)), HaveReplicas(NEW, 3, None), "I4"),
        (RECORD, HaveReplicas(OLD, 1, 3), "I1"),
        (RECORD, DeleteRevision(OLD, False), "I5"),
        (replace(RECORD, leaving=(Leaving(STRAY, 0.0, True),)), DeleteRevision(STRAY, False), "I5"),
        (replace(RECORD, leaving=(Leaving(STRAY, 0.0, True, drained=True),)), DeleteRevision(STRAY, False), None),
        (RECORD, Weigh(0, 100), None),
    ],
)
def test_a_step_that_would_break_one_is_found_before_it_is_done(
    record: Record, command: Command, which: str | None
) -> None:
    found = invariants.proposed(SEEN, record, [command])
    assert (found.invariant if found is not None else None) == which


def test_capacity_for_100_percent_is_asked_for_once_more() -> None:
    short = replace(SEEN, observed=replace(OBSERVED, others=(ObservedRevision(NEW, 3, ready=2),)))
    verified = replace(RECORD, rollout=replace(UPDATE, verified=50))
    found = invariants.proposed(short, verified, [Weigh(100, 50)])
    assert found is not None
    assert found.invariant == "I1"


def test_a_hold_in_the_same_step_counts() -> None:
    commands: list[Command] = [Hold(NEW, "p", {GPU: 4000}), HaveReplicas(NEW, 4, 3)]
    assert invariants.proposed(SEEN, RECORD, commands) is None


def test_a_step_that_is_broken_does_and_remembers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "proposed", lambda *_: invariants.Broken("I1", "as if"))
    done = step(SEEN, RECORD)
    assert done == Step(RECORD, (), (), "as if", invariants.Broken("I1", "as if"))


def test_what_somebody_else_broke_is_told_and_put_right() -> None:
    """Somebody gives the current revision replicas that nothing holds: a step that froze would leave them there."""
    current = replace(OBSERVED.of(OLD), replicas=5, ready=5)
    done = step(replace(SEEN, observed=replace(OBSERVED, current=current)), RECORD)
    assert done.noticed is not None
    assert (done.noticed.invariant, done.broken) == ("I3", None)
    assert Hold(OLD, "p", {GPU: 5000}) in done.commands, "so many are there, so many are charged; then fewer"
