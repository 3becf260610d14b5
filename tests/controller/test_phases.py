"""What the sentence beside a phase counts: replicas, which are pods or whole groups."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.controller.phases import Phase, phase_of
from autoscaler.model.decision import Grant, Rule, ScalingDecision
from autoscaler.model.report import Counts
from autoscaler.model.workload import DesiredPhase
from rollouts.record import Phase as RecordPhase
from rollouts.record import Record
from tests.controller.test_conflicts import NOW, subject

SPEC = subject().spec
FIRST = Record(RecordPhase.STARTING, "chat-1", replicas=3)
WANTED = ScalingDecision(NOW, current=3, desired=3, rule=Rule.INITIAL, recommended=None)
GRANTED = Grant(SPEC.key, granted=3, desired=3)


def test_what_waits_for_a_node_is_counted_in_replicas() -> None:
    counts = Counts(applied=3, starting=3, unscheduled=1)
    told = phase_of(SPEC, FIRST, counts, WANTED, GRANTED)
    assert told == (Phase.PENDING, "1 of 3 replicas not placed on a node")


def test_what_is_left_of_a_stopped_one_is_counted_in_replicas() -> None:
    stopped = replace(SPEC, desired_phase=DesiredPhase.STOPPED)
    counts = Counts(ready=1, starting=0, terminating=2)
    assert phase_of(stopped, FIRST, counts, WANTED, GRANTED) == (Phase.STOPPING, "3 replicas left")
    assert phase_of(stopped, FIRST, Counts(), WANTED, GRANTED)[0] is Phase.STOPPED
