"""What is unknown keeps a gate shut; the arithmetic of sizes and weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaler.model.rollout import RolloutSpec, WeightStep
from rollouts import gates, planner
from rollouts.observed import Limits, Observed, ObservedRevision, ObservedRoute, ObservedService, Situation
from rollouts.record import Leaving, Record, Rollout
from rollouts.revision import Revision

OLD, NEW = "llama-aaaaaaaa", "llama-bbbbbbbb"
SPEC = RolloutSpec(1, 8)
READY = ObservedRevision(NEW, 3, ready=3, serving=frozenset("xyz"), in_flight=0, counted_at=200.0)
CURRENT = ObservedRevision(OLD, 3, ready=3, serving=frozenset("abc"), in_flight=0, counted_at=200.0)
ROLLOUT = Rollout(NEW, 0.0, 3600.0, 0.0, weight=10, accepted_at=100.0)
OBSERVED = Observed(
    newest=Revision(NEW, "b" * 64, {}),
    collision_count=0,
    saved=frozenset(),
    current=CURRENT,
    service=ObservedService("llama", True, OLD),
    update_service=ObservedService("llama-update", True, NEW, frozenset("xyz")),
    others=(READY,),
    route=ObservedRoute(0, True),
)


def situation(observed: Observed = OBSERVED, now: float = 200.0, granted: int = 3) -> Situation:
    return Situation(Limits(1), SPEC, observed, granted, now)


@pytest.mark.parametrize(
    ("desired", "least", "most", "size"), [(3, 8, 8, 8), (3, 1, 8, 3), (0, 0, 4, 1), (9, 1, 4, 4), (2, 3, 8, 3)]
)
def test_the_size_is_desired_within_the_new_bounds_and_at_least_one(
    desired: int, least: int, most: int, size: int
) -> None:
    assert planner.size(RolloutSpec(least, most), desired) == size


@pytest.mark.parametrize(
    ("weight", "most", "desired", "ready_current", "needed"),
    [(100, 8, 3, 3, 3), (10, 8, 3, 3, 1), (50, 8, 5, 3, 3), (100, 4, 9, 6, 4), (100, 8, 3, 7, 7), (50, 8, 0, 0, 1)],
)
def test_what_a_weight_needs(weight: int, most: int, desired: int, ready_current: int, needed: int) -> None:
    assert planner.needed(RolloutSpec(1, most), weight, desired, ready_current) == needed


def test_weights_follow_the_steps_then_everything() -> None:
    spec = RolloutSpec(steps=(WeightStep(10), WeightStep(50)))
    assert planner.next_weight(spec, ROLLOUT, True) == 10
    assert planner.next_weight(spec, replace(ROLLOUT, step=1, verified=10), True) == 50
    assert planner.next_weight(spec, replace(ROLLOUT, step=2, verified=50), True) == 100
    assert planner.next_weight(spec, replace(ROLLOUT, full=True), True) == 100
    assert planner.next_weight(spec, ROLLOUT, False) == 100, "a selector knows no steps"


@pytest.mark.parametrize(
    ("seen", "is_open"),
    [
        (READY, True),
        (replace(READY, ready=2), False),
        (replace(READY, replicas=4), False),
        (replace(READY, replicas=None, ready=0), False),
    ],
)
def test_all_replicas_are_ready_together(seen: ObservedRevision, is_open: bool) -> None:
    assert (gates.all_ready(seen, 3) is None) is is_open


@pytest.mark.parametrize(
    ("endpoints", "is_open"),
    [(frozenset("xyz"), True), (frozenset("xy"), False), (frozenset("xyza"), False), (None, False)],
)
def test_endpoints_hold_exactly_the_ready_pods(endpoints: frozenset[str] | None, is_open: bool) -> None:
    service = replace(OBSERVED.update_service, endpoints=endpoints)
    assert (gates.full(service, READY) is None) is is_open
    assert gates.full(replace(service, selects=OLD), READY) is not None


def test_a_weight_counts_only_when_it_is_accepted_at_this_generation() -> None:
    for route in (ObservedRoute(10, False), ObservedRoute(0, True), ObservedRoute(None, True), None):
        assert gates.accepted(replace(OBSERVED, route=route), 10) is not None
    assert gates.accepted(replace(OBSERVED, route=ObservedRoute(10, True)), 10) is None


@pytest.mark.parametrize(
    ("rollout", "update", "current", "agree"),
    [
        (ROLLOUT, replace(READY, last_request_at=101.0), CURRENT, True),
        (ROLLOUT, replace(READY, last_request_at=99.0), CURRENT, True),
        (replace(ROLLOUT, accepted_at=None), replace(READY, last_request_at=101.0), CURRENT, False),
        (ROLLOUT, READY, replace(CURRENT, last_request_at=150.0), True),
        (replace(ROLLOUT, weight=100), READY, replace(CURRENT, last_request_at=195.0), False),
        (replace(ROLLOUT, weight=100), READY, replace(CURRENT, last_request_at=190.0), True),
        (replace(ROLLOUT, accepted_at=195.0), READY, replace(CURRENT, last_request_at=198.0), False),
        (ROLLOUT, replace(READY, counted_at=None), CURRENT, False),
        (ROLLOUT, READY, replace(CURRENT, counted_at=None), False),
        (ROLLOUT, replace(READY, counted_at=100.5), CURRENT, False),
        (ROLLOUT, READY, replace(CURRENT, counted_from=199.5), False),
        (ROLLOUT, READY, replace(CURRENT, counted_from=199.0), True),
    ],
    ids=[
        "the update had a request",
        "nobody had one",
        "not accepted yet",
        "a small share missed it",
        "100 % and the old one still gets them",
        "100 % and one straggler, then nobody",
        "a small share may still come",
        "the update's counters are unknown",
        "the current's counters are unknown",
        "too early to say",
        "what came before the counters were read is unknown",
        "read for long enough",
    ],
)
def test_the_pods_counters_agree_with_the_route(
    rollout: Rollout, update: ObservedRevision, current: ObservedRevision, agree: bool
) -> None:
    assert (gates.counters_agree(rollout, update, current, 110.0) is None) is agree


def uncounted(revision: ObservedRevision, last_request_at: float | None = None) -> ObservedRevision:
    return replace(revision, counted_at=None, in_flight=None, last_request_at=last_request_at)


@pytest.mark.parametrize(
    ("rollout", "update", "current", "opens_at"),
    [
        (ROLLOUT, uncounted(READY), CURRENT, 130.0),
        (ROLLOUT, READY, uncounted(CURRENT), 130.0),
        (ROLLOUT, uncounted(READY), uncounted(CURRENT), 130.0),
        (replace(ROLLOUT, accepted_at=None), uncounted(READY), CURRENT, None),
        (ROLLOUT, uncounted(READY), replace(CURRENT, last_request_at=125.0), 130.0),
        (replace(ROLLOUT, weight=100), uncounted(READY), replace(CURRENT, last_request_at=125.0), 155.0),
        (replace(ROLLOUT, weight=100), uncounted(READY), replace(CURRENT, last_request_at=99.0), 130.0),
        (replace(ROLLOUT, weight=100), READY, uncounted(CURRENT, 125.0), 155.0),
        (ROLLOUT, replace(READY, counted_at=99.0), CURRENT, None),
        (ROLLOUT, uncounted(READY, 101.0), CURRENT, 101.0),
        (ROLLOUT, replace(uncounted(READY), serving=frozenset()), CURRENT, 101.0),
    ],
    ids=[
        "of the update",
        "of the current one",
        "of both",
        "not accepted yet",
        "a small share, and requests elsewhere",
        "100 %, and a request elsewhere since",
        "100 %, and a request elsewhere before",
        "100 %, and the current one's are lost for a moment",
        "late is not unknown",
        "finished requests alone are shown",
        "nobody serves there",
    ],
)
def test_the_routes_word_counts_where_counters_stay_unknown(
    rollout: Rollout, update: ObservedRevision, current: ObservedRevision, opens_at: float | None
) -> None:
    opened = [now for now in range(101, 1000) if gates.counters_agree(rollout, update, current, now) is None]
    assert (opened[0] if opened else None) == opens_at


def test_it_is_said_whose_counters_are_not_known() -> None:
    shut = gates.counters_agree(ROLLOUT, uncounted(READY), CURRENT, 110.0)
    assert shut == f"the request counters of {NEW} are not known yet"


@pytest.mark.parametrize(
    ("seen", "is_open"),
    [
        (CURRENT, True),
        (replace(CURRENT, in_flight=1), False),
        (replace(CURRENT, in_flight=None), False),
        (replace(CURRENT, counted_at=None), False),
        (replace(CURRENT, last_request_at=197.0), False),
        (replace(CURRENT, last_request_at=195.0), True),
        (replace(CURRENT, counted_at=104.0), False),
        (replace(CURRENT, busy_at=197.0), False),
        (replace(CURRENT, busy_at=195.0, last_request_at=120.0), True),
        (replace(CURRENT, counted_from=197.0), False),
        (replace(CURRENT, counted_from=195.0), True),
        (replace(CURRENT, ready=0, in_flight=None), True),
    ],
)
def test_quiet_is_proven_and_never_assumed(seen: ObservedRevision, is_open: bool) -> None:
    assert (gates.quiet(seen, 100.0, 5.0) is None) is is_open


def test_a_revision_that_leaves_is_idle_only_without_traffic() -> None:
    leaving = Leaving(NEW, 100.0, served=True, deadline_at=1000.0)
    assert gates.idle(situation(), leaving) is None
    assert gates.idle(situation(replace(OBSERVED, route=ObservedRoute(0, False))), leaving) is not None
    assert gates.idle(situation(replace(OBSERVED, route=ObservedRoute(10, True)), 2000.0), leaving) is not None
    selected = replace(OBSERVED, service=ObservedService("llama", True, NEW))
    assert gates.idle(situation(selected, 2000.0), leaving) is not None


def test_a_drain_ends_at_its_deadline_but_never_without_one() -> None:
    busy = replace(OBSERVED, others=(replace(READY, in_flight=2),))
    leaving = Leaving(NEW, 100.0, served=True, deadline_at=300.0)
    assert gates.idle(situation(busy, 299.0), leaving) is not None
    assert gates.idle(situation(busy, 300.0), leaving) is None
    assert gates.idle(situation(busy, 1e9), replace(leaving, deadline_at=None)) is not None


def test_capacity_is_checked_against_the_demand_of_this_moment() -> None:
    record = Record(current=OLD, rollout=ROLLOUT)
    assert gates.capacity(situation(), record, 100) is None
    assert gates.capacity(situation(replace(OBSERVED, desired=4)), record, 100) is not None
    more = replace(OBSERVED, current=replace(CURRENT, ready=5))
    assert gates.capacity(situation(more), record, 100) is not None
