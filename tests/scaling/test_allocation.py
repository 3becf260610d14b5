"""`allocate`: who gets the GPUs of a project, in which order, and what is said about the rest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model.decision import Ask
from autoscaler.model.workload import WorkloadKey
from autoscaler.scaling.allocation import allocate

GPU = "nvidia.com/gpu"
TWELVE = {("ml", "default"): {GPU: 12_000}}


def ask(name: str, applied: int, desired: int, **more: object) -> Ask:
    values: dict[str, object] = {
        "key": WorkloadKey("ns", name),
        "project": "ml",
        "node_pool": "default",
        "priority_rank": 6,
        "created_at": 0.0,
        "per_replica": {GPU: 1000, "cpu": 4000},
        "applied": applied,
        "live_pods": applied,
        "desired": desired,
        "floor": 1,
    }
    return Ask(**{**values, **more})  # type: ignore[arg-type]


def granted(*asks: Ask, limits: dict[tuple[str, str], dict[str, int]] | None = None) -> dict[str, int]:
    grants = allocate(asks, TWELVE if limits is None else limits)
    return {key.name: grant.granted for key, grant in grants.items()}


def test_the_worked_example_of_the_docstring() -> None:
    assert granted(ask("a", 4, 10, created_at=2.0), ask("b", 2, 5, created_at=1.0)) == {"a": 7, "b": 5}


def test_a_project_without_a_limit_gets_what_it_asks_for() -> None:
    assert granted(ask("a", 0, 500), limits={}) == {"a": 500}


def test_a_resource_that_is_not_limited_does_not_count() -> None:
    assert granted(ask("a", 0, 12)) == {"a": 12}


def test_priority_goes_before_age() -> None:
    old, urgent = ask("old", 0, 12, priority_rank=0), ask("urgent", 0, 12, created_at=9.0)
    assert granted(old, urgent) == {"old": 0, "urgent": 12}


def test_within_a_priority_floors_are_filled_first() -> None:
    assert granted(ask("old", 0, 12), ask("young", 0, 12, created_at=9.0, floor=2)) == {"old": 10, "young": 2}


def test_terminating_pods_hold_their_share() -> None:
    assert granted(ask("a", 2, 12, live_pods=8)) == {"a": 6}


def test_a_lowered_limit_takes_nothing_away() -> None:
    assert granted(ask("a", 10, 12), limits={("ml", "default"): {GPU: 4_000}}) == {"a": 10}


def test_lowering_is_always_granted() -> None:
    assert granted(ask("a", 10, 2), ask("b", 2, 9)) == {"a": 2, "b": 2}


def test_a_replica_of_several_gpus_comes_whole_or_not_at_all() -> None:
    assert granted(ask("a", 0, 4, per_replica={GPU: 5000})) == {"a": 2}


def test_the_shortfall_is_named() -> None:
    grant = allocate([ask("a", 8, 14)], TWELVE)[WorkloadKey("ns", "a")]
    assert (grant.granted, grant.clipped, grant.short, grant.free) == (12, True, {GPU: 2000}, {GPU: 0})


def test_pods_that_no_ask_speaks_of_hold_their_share() -> None:
    grants = allocate([ask("a", 2, 12)], TWELVE, {("ml", "default"): {GPU: 7000}})
    assert grants[WorkloadKey("ns", "a")].granted == 5


ASKS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 20), st.integers(0, 6), st.integers(1, 3)),
    max_size=8,
)


@given(rows=ASKS, limit=st.integers(0, 40))
def test_growth_never_passes_the_limit_and_nothing_is_taken_away(
    rows: list[tuple[int, int, int, int, int]], limit: int
) -> None:
    asks = [
        ask(f"w{i}", applied, desired, live_pods=applied + extra, priority_rank=rank, per_replica={GPU: gpus * 1000})
        for i, (applied, extra, desired, rank, gpus) in enumerate(rows)
    ]
    grants = allocate(asks, {("ml", "default"): {GPU: limit * 1000}})
    used = sum(max(a.applied, a.live_pods) * a.per_replica[GPU] for a in asks)
    grown = sum(max(0, grants[a.key].granted - a.applied) * a.per_replica[GPU] for a in asks)
    assert grown == 0 or used + grown <= limit * 1000
    for a in asks:
        assert min(a.applied, a.desired) <= grants[a.key].granted <= a.desired
    assert grants == allocate(list(reversed(asks)), {("ml", "default"): {GPU: limit * 1000}})
