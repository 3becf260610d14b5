"""What is seen of a workload's revisions beside their objects."""

from __future__ import annotations

from dataclasses import fields

from autoscaler.controller.revisions import Revisions, SeenRevision, counted
from autoscaler.model.signal import Quality, Reading, RequestCounts, WorkloadSignals
from rollouts.observed import ObservedRevision
from tests.controller.test_conflicts import subject

NAME = "chat-11111111"


def test_all_that_the_counters_say_reaches_the_gates() -> None:
    counts = RequestCounts(in_flight=3, last_request_at=10.0, counted_at=20.0, counted_from=5.0, busy_at=15.0)
    signals = WorkloadSignals({}, Reading("activity", None, Quality.ABSENT), requests=counts)
    ours, there = subject(), Revisions({}, {NAME: SeenRevision(ObservedRevision(NAME, 1, ready=1))})
    seen = counted(ours.spec, there, NAME, {ours.key: signals}).of(NAME).observed
    told = {each.name for each in fields(RequestCounts)} - {"supported"}
    assert {name: getattr(seen, name) for name in told} == {name: getattr(counts, name) for name in told}
