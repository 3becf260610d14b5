"""What the ledger must hold, and what may be written on the strength of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model.quota import Hold, Ledger
from autoscaler.model.resources import add, times
from autoscaler.scaling.holds import Holder, after, covered, wish

GPU = "nvidia.com/gpu"
DOMAIN = ("ml", "default")
LIMIT = {GPU: 12_000}
LIMITS = {DOMAIN: LIMIT}
LLAMA = Holder(DOMAIN, "ns/llama", "llama-1a2b3c4d", {GPU: 2000, "cpu": 4000}, granted=3, applied=1, live=1)


def ledger_of(*holders: Holder, before: Ledger | None = None, now: float = 100.0) -> Ledger:
    stored = {DOMAIN: before} if before else {}
    return after(stored, LIMITS, map(wish, holders), {}, {LLAMA.owner}, now).ledgers[DOMAIN]


def test_a_hold_comes_before_the_pods_and_names_limited_resources_only() -> None:
    assert ledger_of(LLAMA) == Ledger(LIMIT, (Hold("ns/llama", "llama-1a2b3c4d", {GPU: 6000}, 100.0),))


def test_a_hold_goes_after_the_pods() -> None:
    leaving = replace(LLAMA, granted=0, applied=0, live=2)
    assert ledger_of(leaving).held == {GPU: 4000}
    assert ledger_of(replace(leaving, live=0)).holds == ()


def test_a_hold_keeps_its_age() -> None:
    before = ledger_of(LLAMA)
    assert ledger_of(replace(LLAMA, granted=4), before=before, now=200.0).holds[0].since_s == 100.0


def test_nothing_grows_beyond_its_hold() -> None:
    assert covered(LLAMA, LIMIT, None) == 1
    assert covered(LLAMA, LIMIT, ledger_of(replace(LLAMA, granted=2))) == 2
    assert covered(LLAMA, LIMIT, ledger_of(LLAMA)) == 3
    assert covered(LLAMA, LIMIT, ledger_of(replace(LLAMA, revision="llama-ffffffff"))) == 1, "another revision's hold"


def test_what_asks_for_nothing_limited_needs_no_hold() -> None:
    assert covered(replace(LLAMA, per_replica={"cpu": 4000}), LIMIT, None) == 3
    assert covered(LLAMA, {}, None) == 3


def test_less_is_written_at_once() -> None:
    assert covered(replace(LLAMA, granted=0, applied=5), LIMIT, None) == 0


counts = st.integers(0, 6)


@given(st.lists(st.tuples(counts, counts, counts, counts), min_size=1, max_size=5))
def test_whatever_happens_between_two_writes_the_ledger_covers_what_may_run(
    worlds: list[tuple[int, int, int, int]],
) -> None:
    """A ledger of an earlier instant, then other wishes: what is written now is held, or was applied before."""
    stored = None
    for granted, applied, live, now_granted in worlds:
        holder = replace(LLAMA, granted=granted, applied=applied, live=live)
        stored = ledger_of(holder, before=stored)
        held = stored.held.get(GPU, 0)
        assert held >= times(LLAMA.per_replica, max(applied, live)).get(GPU, 0)
        may = covered(replace(holder, granted=now_granted), LIMIT, stored)
        assert times(LLAMA.per_replica, may).get(GPU, 0) <= held
        assert may <= max(now_granted, applied)
    assert add(*(hold.vector for hold in stored.holds)) == stored.held if stored else True
