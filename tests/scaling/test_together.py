"""What the whole demand needs while two revisions share it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from autoscaler.model.decision import Adjustment, Rule, ScalingDecision, SignalInput
from autoscaler.model.signal import Direction, Quality
from autoscaler.scaling.together import unbounded, whole_demand

READ = SignalInput("concurrency", 15.0, 10.0, Quality.FRESH, 0.5, stable=15.0, panic=15.0, desired=2)


def decided(load: float, desired: int, **fields: object) -> ScalingDecision:
    read = replace(READ, stable=load, panic=load, desired=desired)
    decision = ScalingDecision(0.0, desired, desired, Rule.POLICY, desired, "concurrency", inputs=(read,))
    return replace(decision, **fields)


def test_loads_are_summed_before_they_are_divided() -> None:
    assert whole_demand(decided(15, 2), decided(15, 2)) == 3


def test_before_the_update_takes_traffic_the_current_revision_tells_it_all() -> None:
    assert whole_demand(decided(15, 2), None) == 2


def test_bounds_of_one_revision_are_not_those_of_the_other() -> None:
    """Three are wanted, and the current maximum is 2."""
    bounded = decided(25, 2, adjustments=(Adjustment(Rule.MAX, 3, 2),))
    assert unbounded(bounded) == 3
    lifted = decided(5, 4, adjustments=(Adjustment(Rule.LOADING, 1, 1), Adjustment(Rule.MIN, 1, 4)))
    assert unbounded(lifted) == 1


@pytest.mark.parametrize(
    "coming",
    [
        decided(15, 2, inputs=(replace(READ, quality=Quality.PARTIAL),)),
        decided(15, 2, inputs=(replace(READ, stable=None),)),
        decided(15, 2, inputs=()),
        decided(15, 2, inputs=(replace(READ, name="latency"),)),
    ],
    ids=["partial", "no average yet", "nothing read", "another signal"],
)
def test_where_a_load_is_not_known_well_it_is_rather_one_too_many(coming: ScalingDecision) -> None:
    assert whole_demand(decided(15, 2), coming) == 4


def test_in_a_panic_the_short_window_counts() -> None:
    panics = decided(15, 5, panicking=True)
    panics = replace(panics, inputs=(replace(READ, stable=15.0, panic=45.0),))
    assert whole_demand(panics, decided(5, 1)) == 5


def test_a_fixed_size_is_not_counted_twice() -> None:
    fixed = ScalingDecision(0.0, 3, 3, Rule.POLICY, 3)
    assert whole_demand(fixed, fixed) == 3


def test_what_may_only_lower_asks_for_nothing() -> None:
    lowers = replace(READ, name="queue", stable=500.0, direction=Direction.DOWN)
    both = (READ, lowers)
    assert whole_demand(decided(15, 2, inputs=both), decided(15, 2, inputs=both)) == 3


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_together_never_need_more_than_apart_nor_less_than_the_larger(one: float, other: float) -> None:
    counts = [max(0, -int(-load // 10)) for load in (one, other)]
    need = whole_demand(decided(one, counts[0]), decided(other, counts[1]))
    assert max(counts) - 1 <= need <= sum(counts)
