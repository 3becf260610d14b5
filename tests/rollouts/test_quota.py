"""The order of asks: who gets quota, who waits, who blocks whom, and what can never fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.model.resources import GPU
from autoscaler.model.workload import WorkloadKey
from rollouts.quota import OVERTAKES_MOST, WAIT_MOST_S, Ask, Ledger, covers, in_use, replicas_in, share

ONE_GPU = {GPU: 1000}
POOL = ("team", "h100")


def update(name: str, wanted: int, since: float = 0.0, priority: int = 0, **more: object) -> Ask:
    ask = Ask(WorkloadKey("ml", name), f"{name}-2", "team", ("h100",), priority, since, ONE_GPU, 0, wanted, whole=True)
    return replace(ask, **more)  # type: ignore[arg-type]


def growth(name: str, held: int, wanted: int, floor: int = 0, priority: int = 0, since: float = 0.0) -> Ask:
    key = WorkloadKey("ml", name)
    return Ask(key, f"{name}-1", "team", ("h100",), priority, since, ONE_GPU, held, wanted, floor)


def ledgers(limit: int, used: int, pool: str = "h100") -> dict[tuple[str, str], Ledger]:
    return {("team", pool): Ledger({GPU: limit * 1000}, {GPU: used * 1000})}


def granted(asks: list[Ask], limit: int, used: int, now: float = 10.0) -> dict[str, int]:
    verdicts = share(asks, ledgers(limit, used), now)
    return {ask.key.name: verdicts[ask.id].replicas for ask in asks}


def test_an_update_gets_all_of_it_or_nothing_and_is_told_what_is_missing() -> None:
    ask = update("a", 8)
    verdict = share([ask], ledgers(11, 4), 10.0)[ask.id]
    assert (verdict.pool, verdict.replicas, verdict.short, verdict.free, verdict.limit) == (
        None,
        0,
        {GPU: 1000},
        {GPU: 7000},
        {GPU: 11000},
    )
    assert share([ask], ledgers(12, 4), 10.0)[ask.id].pool == "h100"


def test_growth_gets_what_there_is() -> None:
    assert granted([growth("a", 3, 8)], 5, 3) == {"a": 5}


def test_a_replica_of_several_gpus_comes_whole_or_not_at_all() -> None:
    assert granted([replace(growth("a", 0, 4), per_replica={GPU: 5000})], 12, 0) == {"a": 2}


def test_a_lowered_limit_takes_nothing_away_and_gives_nothing() -> None:
    assert granted([growth("a", 10, 12)], 4, 10) == {"a": 10}


def test_priority_goes_before_kind_and_kind_before_age() -> None:
    assert granted([growth("a", 0, 12), growth("b", 0, 12, priority=1, since=9.0)], 12, 0) == {"a": 0, "b": 12}
    assert granted([growth("a", 0, 4), update("b", 4, priority=1)], 4, 0) == {"a": 0, "b": 4}
    assert granted([growth("a", 0, 4, since=9.0), update("b", 4, since=1.0)], 4, 0) == {"a": 4, "b": 0}
    assert granted([update("a", 4, since=9.0), update("b", 4, since=1.0)], 4, 0) == {"a": 0, "b": 4}
    assert granted([growth("a", 0, 4, since=1.0), growth("b", 0, 4, floor=3, since=9.0)], 4, 0) == {"a": 1, "b": 3}


def test_a_waiting_update_blocks_nobody_at_first() -> None:
    asks = [update("a", 8), update("b", 2, since=5.0), growth("c", 1, 3)]
    assert granted(asks, 12, 8) == {"a": 0, "b": 2, "c": 3}


def test_it_counts_who_overtook_it() -> None:
    head = update("a", 8, overtaken=3)
    verdict = share([head, update("b", 2, since=5.0), growth("c", 1, 2)], ledgers(12, 8), 10.0)[head.id]
    assert verdict.overtaken == 5


@pytest.mark.parametrize(("overtaken", "now"), [(OVERTAKES_MOST, 10.0), (0, WAIT_MOST_S)])
def test_overtaken_often_or_waiting_long_it_blocks_growth_above_min_replicas_and_later_updates(
    overtaken: int, now: float
) -> None:
    head = update("a", 8, overtaken=overtaken, head_since=0.0)
    asks = [head, update("b", 2, since=5.0), growth("c", 1, 4, floor=2)]
    verdicts = share(asks, ledgers(12, 8), now)
    assert [verdicts[ask.id].replicas for ask in asks] == [0, 0, 2], "up to minReplicas is served all the same"
    assert verdicts[asks[1].id].blocked_by == head.id


def test_the_next_head_begins_anew_and_what_runs_already_is_none() -> None:
    second = update("b", 8, since=5.0)
    verdict = share([second, update("r", 9, held=1, running=True)], ledgers(12, 11), WAIT_MOST_S * 2)[second.id]
    assert (verdict.head_since, verdict.blocked_by) == (WAIT_MOST_S * 2, None)
    behind = share([update("a", 8), second], ledgers(12, 11), WAIT_MOST_S * 2)[second.id]
    assert (behind.head_since, behind.overtaken) == (None, 0)


def test_a_blocking_head_is_served_before_growth_as_soon_as_it_fits_and_then_blocks_nobody() -> None:
    asks = [update("a", 8, overtaken=OVERTAKES_MOST), growth("c", 1, 4)]
    assert granted(asks, 12, 4) == {"a": 8, "c": 1}
    assert granted(asks, 20, 4) == {"a": 8, "c": 4}


def test_what_can_never_fit_says_so_and_blocks_nobody() -> None:
    ask = update("a", 8, beside={GPU: 3000}, beside_pool="h100", overtaken=99)
    verdicts = share([ask, growth("c", 1, 4)], ledgers(10, 3), 10.0)
    assert verdicts[ask.id].never
    assert verdicts[growth("c", 1, 4).id].replicas == 4
    assert not share([ask], ledgers(11, 11), 10.0)[ask.id].never


def test_pools_are_tried_in_order_and_a_revision_is_never_split() -> None:
    ask = update("a", 4, pools=("h100", "a100"), beside={GPU: 9000}, beside_pool="h100")
    both = ledgers(8, 5) | ledgers(4, 0, "a100")
    assert share([ask], both, 0.0)[ask.id].pool == "a100"
    assert share([ask], ledgers(8, 5) | ledgers(4, 1, "a100"), 0.0)[ask.id].pool is None
    spread = replace(growth("c", 0, 6, floor=1), pools=("h100", "a100"))
    verdict = share([spread], ledgers(4, 2) | ledgers(9, 0, "a100"), 0.0)[spread.id]
    assert (verdict.pool, verdict.replicas) == ("h100", 2)
    assert (verdict.short, verdict.free) == ({GPU: 4000}, {GPU: 0}), "what is left to want, and what is left of it"


def test_a_domain_without_a_ledger_and_a_resource_without_a_limit_are_free() -> None:
    ask = update("a", 800)
    assert share([ask], {}, 0.0)[ask.id].pool == "h100"
    assert share([ask], {POOL: Ledger({"cpu": 1}, {})}, 0.0)[ask.id].pool == "h100"


def test_what_needs_nothing_that_is_limited_waits_for_nobody_and_blocks_nobody() -> None:
    head, light = update("a", 8, overtaken=OVERTAKES_MOST), update("b", 50, since=5.0, per_replica={"cpu": 1})
    verdicts = share([head, light], ledgers(12, 8), 10.0)
    assert (verdicts[light.id].pool, verdicts[light.id].blocked_by) == ("h100", None)
    assert (verdicts[head.id].pool, verdicts[head.id].overtaken) == (None, OVERTAKES_MOST), "nothing was taken from it"
    old = replace(light, since=0.0, per_replica={})
    assert granted([old, growth("c", 1, 4)], 12, 8, now=WAIT_MOST_S) == {"b": 50, "c": 4}


def test_a_hold_and_its_pods_count_once() -> None:
    assert in_use({"r": {GPU: 8000}}, {"r": {GPU: 3000}}) == {GPU: 8000}
    assert in_use({"r": {GPU: 8000}}, {"r": {GPU: 9000}}) == {GPU: 9000}
    assert in_use({"r": {GPU: 2000}}, {"s": {GPU: 1000, "cpu": 5}}) == {GPU: 3000, "cpu": 5}


def test_how_many_replicas_a_hold_is_good_for() -> None:
    assert covers({GPU: 8000}, ONE_GPU, 8)
    assert not covers({GPU: 7999}, ONE_GPU, 8)
    assert covers({}, {}, 100), "a replica that needs nothing needs no hold"
    assert (replicas_in({GPU: 7999, "cpu": 9000}, {GPU: 2000, "cpu": 1000}), replicas_in({}, {})) == (3, 0)


def test_two_gpus_a_replica_do_not_fit_into_one() -> None:
    ask = update("a", 1, per_replica={GPU: 2000})
    assert share([ask], ledgers(4, 3), 0.0)[ask.id].pool is None


ASKS = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(1, 9),
        st.integers(0, 3),
        st.integers(0, 2),
        st.floats(0, 50),
        st.integers(0, 25),
        st.integers(1, 3),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(ASKS, st.integers(0, 20), st.integers(0, 20))
def test_nobody_gets_more_than_there_is_and_updates_get_all_or_nothing(
    drawn: list[tuple[bool, int, int, int, float, int, int]], limit: int, used: int
) -> None:
    asks = [
        replace(
            update(f"w{i}", held + wanted, since, priority, held=held, overtaken=overtaken)
            if whole
            else growth(f"w{i}", held, held + wanted, 2, priority, since),
            per_replica={GPU: gpus * 1000},
        )
        for i, (whole, wanted, held, priority, since, overtaken, gpus) in enumerate(drawn)
    ]
    verdicts = share(asks, ledgers(limit, used), 100.0)
    assert verdicts == share(asks[::-1], ledgers(limit, used), 100.0), "in whatever order they are listed"
    gained = sum((verdicts[ask.id].replicas - ask.held) * ask.per_replica[GPU] // 1000 for ask in asks)
    assert gained <= max(0, limit - used)
    for ask in asks:
        got = verdicts[ask.id].replicas
        assert ask.held <= got <= ask.wanted
        assert not ask.whole or got in (ask.held, ask.wanted)
