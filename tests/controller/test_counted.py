"""What pages say of requests reaches the gates whole."""

from __future__ import annotations

from dataclasses import asdict

from autoscaler.controller.revisions import _with
from autoscaler.model.signal import RequestCounts
from rollouts.observed import ObservedRevision


def test_every_number_of_a_revisions_requests_is_observed() -> None:
    counts = asdict(RequestCounts(in_flight=1, last_request_at=2.0, counted_at=3.0, counted_from=4.0, busy_at=5.0))
    del counts["supported"]  # why there are none, not what they are
    seen = asdict(_with(ObservedRevision("llama-2", 1), RequestCounts(**counts)))
    assert {name: seen[name] for name in counts} == counts
