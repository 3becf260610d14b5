"""Averaging and maximum windows: tables of frozen cases, then properties."""

from __future__ import annotations

from itertools import accumulate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.scaling.windows import (
    Aggregation,
    AverageWindow,
    MaximumWindow,
    rounded,
    smoothing_coefficient,
)

Samples = list[tuple[float, float]]


def filled(window: AverageWindow, samples: Samples) -> AverageWindow:
    for at_s, value in samples:
        window = window.record(at_s, value)
    return window


@pytest.mark.parametrize(
    ("sentence", "window_s", "samples", "now_s", "average"),
    [
        ("a window that has seen nothing reads 0", 60, [], 5, 0.0),
        ("a young window averages over its short life", 60, [(0, 10), (1, 20)], 1, 15.0),
        ("values of one second are added", 60, [(0.2, 3), (0.9, 4)], 0.95, 7.0),
        ("silence inside a life counts as zero", 10, [(0, 10), (4, 10)], 4, 4.0),
        ("a full window averages over its length", 4, [(0, 100), (1, 1), (2, 2), (3, 3), (4, 6)], 4, 3.0),
        ("silence at the end makes the divisor smaller", 4, [(0, 1), (1, 1), (2, 5), (3, 7)], 5, 6.0),
        ("one window after the last record the average is 0", 6, [(0, 12)], 6, 0.0),
        ("a read before the last record is a read at it", 60, [(10, 10)], 3, 10.0),
        ("a record within the window continues the life", 6, [(0, 100), (5, 10)], 5, 18.333333),
        ("a record a window later starts a new life", 6, [(0, 100), (6, 10)], 6, 10.0),
        ("a late record counts and moves the beginning back", 60, [(10, 10), (8, 20)], 10, 10.0),
        ("a record just younger than the window is late", 6, [(10, 10), (5, 1000)], 10, 168.333333),
        ("a record as old as the window is ignored", 6, [(10, 10), (4, 1000)], 10, 10.0),
        ("a late record does not shorten the life", 60, [(7, 6), (10, 6), (8, 6)], 10, 4.5),
        ("a millisecond before the second still belongs to it", 60, [(0.999, 4), (1, 6)], 1, 5.0),
    ],
)
def test_linear_average(sentence: str, window_s: float, samples: Samples, now_s: float, average: float) -> None:
    assert filled(AverageWindow.empty(window_s), samples).average(now_s) == average, sentence


@pytest.mark.parametrize(
    ("sentence", "now_s", "empty"),
    [
        ("data of this second", 10, False),
        ("silence of exactly the window is not empty yet", 16, False),
        ("silence of more than the window is", 17, True),
        ("the age counts between bucket starts", 16.999, False),
    ],
)
def test_a_window_of_6_s_with_one_record_at_10_4_s_is_empty(sentence: str, now_s: float, empty: bool) -> None:
    assert AverageWindow.empty(6).record(10.4, 1.0).is_empty(now_s) is empty, sentence


def test_a_window_that_has_seen_nothing_is_empty() -> None:
    assert AverageWindow.empty(6).is_empty(0.0)


def test_the_window_is_rounded_up_to_whole_buckets() -> None:
    window = filled(AverageWindow.empty(5, 3), [(0, 100), (3, 6), (6, 8)])
    assert window.average(6) == 7.0


@pytest.mark.parametrize(
    ("sentence", "samples", "now_s", "average"),
    [
        ("the newest of 4 buckets weighs 0.9, each older one a tenth", [(0, 10), (1, 10), (2, 5), (3, 5)], 3, 5.049),
        ("two silent buckets fade the rest and drop the oldest two", [(0, 10), (1, 10), (2, 5), (3, 5)], 5, 0.0495),
        ("silence of a whole window is 0", [(0, 10)], 4, 0.0),
        ("a young window is not divided by its life", [(3, 10)], 3, 9.0),
    ],
)
def test_weighted_average_of_4_s(sentence: str, samples: Samples, now_s: float, average: float) -> None:
    window = filled(AverageWindow.empty(4, aggregation=Aggregation.WEIGHTED_EXPONENTIAL), samples)
    assert window.average(now_s) == pytest.approx(average, rel=1e-9), sentence


@pytest.mark.parametrize(
    ("sentence", "samples", "wall_s", "to_s", "now_s", "average", "empty"),
    [
        ("shrinking keeps the newest buckets", [(0, 1), (1, 2), (2, 3), (3, 4)], 3, 2, 3, 3.5, False),
        ("growing makes the life as long as the old window", [(10, 8)], 10, 10, 10, 2.0, False),
        ("one old window of silence keeps the data", [(10, 8)], 14, 10, 14, 2.0, False),
        ("more silence forgets the values, not the time of the last", [(10, 8)], 15, 10, 15, 0.0, False),
        ("an empty window stays empty", [], 15, 10, 15, 0.0, True),
        ("the same length changes nothing, however old the data", [(10, 8)], 100, 4, 10, 8.0, False),
    ],
)
def test_resizing_a_window_of_4_s(
    sentence: str, samples: Samples, wall_s: float, to_s: float, now_s: float, average: float, empty: bool
) -> None:
    window = filled(AverageWindow.empty(4), samples).resized(to_s, wall_s)
    assert (window.average(now_s), window.is_empty(now_s)) == (average, empty), sentence


def test_after_forgetting_a_late_record_in_the_last_bucket_counts_for_the_whole_window() -> None:
    window = AverageWindow.empty(4).record(10, 8).resized(10, 15)
    assert window.record(10, 5).average(10) == 0.5
    assert window.record(12, 5).average(12) == 5.0


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (2.5, 0, 3.0),
        (-2.5, 0, -3.0),
        (0.49999999999999994, 0, 0.0),
        (0.1968225, 6, 0.196823),
        (-6.898614804182155, 6, -6.898615),
        (1e300, 6, 1e300),
    ],
)
def test_rounding_takes_halves_away_from_zero(value: float, digits: int, expected: float) -> None:
    assert rounded(value, digits) == expected


@pytest.mark.parametrize(("buckets", "expected"), [(1, 0.9999), (6, 0.7845565309968116), (41, 0.2012), (42, 0.2)])
def test_the_smoothing_coefficient_has_a_floor(buckets: int, expected: float) -> None:
    assert smoothing_coefficient(buckets) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("window_s", "bucket_s"), [(0.0, 1.0), (-1.0, 1.0), (60.0, 0.0), (0.0001, 1.0)])
def test_a_window_without_length_is_refused(window_s: float, bucket_s: float) -> None:
    with pytest.raises(ValueError, match="must be at least 1 ms"):
        AverageWindow.empty(window_s, bucket_s)
    with pytest.raises(ValueError, match="must be at least 1 ms"):
        MaximumWindow.empty(window_s, bucket_s)


@pytest.mark.parametrize(
    ("sentence", "window_s", "records", "maximum"),
    [
        ("nothing recorded, no maximum", 4, [], None),
        ("the larger of one slot stays", 2, [(0, 5), (1.9, 3)], 5),
        ("a window no longer than a slot forgets with the slot", 1, [(1.9, 5), (2, 3)], 3),
        ("slots are absolute: 3.9 s and 4 s are two slots", 4, [(0, 9), (3.9, 5), (4, 3)], 5),
        ("a value counts up to its n-th slot", 6, [(1.9, 9), (5.9, 3)], 9),
        ("and no longer in the next one", 6, [(1.9, 9), (6, 3)], 3),
        ("a larger value replaces what it outlives", 60, [(0, 1), (2, 2), (4, 7)], 7),
        ("3 s in slots of 2 s are 2 slots", 3, [(0, 9), (3, 1)], 9),
    ],
)
def test_maximum_window(sentence: str, window_s: float, records: list[tuple[float, int]], maximum: int | None) -> None:
    window = MaximumWindow.empty(window_s)
    for at_s, value in records:
        window = window.record(at_s, value)
    assert window.maximum == maximum, sentence


# Properties. Whole values keep float sums exact, so that equality means equality.

steps = st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 1_000)), min_size=1, max_size=60)


@given(window_s=st.integers(1, 12), bucket_s=st.integers(1, 4), records=steps, late=st.booleans())
def test_the_running_total_is_the_sum_of_the_buckets(
    window_s: int, bucket_s: int, records: list[tuple[int, int]], late: bool
) -> None:
    window = AverageWindow.empty(window_s, bucket_s)
    size = len(window.values)
    now_ms = 0
    for step_ms, value in records:
        at_ms = now_ms - step_ms if late and step_ms % 3 == 0 else now_ms + step_ms
        now_ms = max(now_ms, at_ms)
        window = window.record(at_ms / 1000, value)
        assert window.total == sum(window.values)
        assert len(window.values) == size
        assert 0.0 <= window.average(now_ms / 1000) <= max(window.values)


@given(records=steps, aggregation=st.sampled_from(Aggregation))
def test_the_same_records_give_the_same_window_and_leave_the_old_one_alone(
    records: list[tuple[int, int]], aggregation: Aggregation
) -> None:
    samples = [
        (at_ms / 1000, float(value))
        for at_ms, (_, value) in zip(accumulate(step for step, _ in records), records, strict=True)
    ]
    empty = AverageWindow.empty(6, aggregation=aggregation)
    window = filled(empty, samples)
    before = msgspec.structs.astuple(window)
    assert window == filled(empty, samples)
    window.record(samples[-1][0] + 1, 5.0)
    window.resized(3, samples[-1][0])
    assert msgspec.structs.astuple(window) == before


@given(slots=st.integers(1, 6), records=steps)
def test_the_maximum_is_that_of_all_values_of_the_last_slots(slots: int, records: list[tuple[int, int]]) -> None:
    window = MaximumWindow.empty(2 * slots)
    seen: list[tuple[int, int]] = []
    now_ms = 0
    for step_ms, value in records:
        now_ms += step_ms
        seen.append((now_ms // 2000, value))
        window = window.record(now_ms / 1000, value)
        assert window.maximum == max(value for slot, value in seen if seen[-1][0] - slot < slots)
