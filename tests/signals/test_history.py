"""What a pod's pages leave behind: bounded however long it is busy, and yet all that is asked for."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.signals.histograms import bucket_increase, quantile
from autoscaler.signals.history import Track
from autoscaler.signals.readings import FRESH_PERIODS

BOUNDS = (0.1, 0.5, 2.0, math.inf)
WINDOW_S = 15.0
pages = st.lists(st.tuples(*[st.integers(0, 3)] * len(BOUNDS)), min_size=2, max_size=40)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=100), st.sampled_from([0.5, 1.0, 7.5]))
def test_what_finished_within_three_periods_is_known_to_the_last_request(grown: list[int], period_s: float) -> None:
    """Pages are half a period apart or more."""
    track, total, finished = Track(), 0, []
    for number, more in enumerate(grown):
        total, at_s = total + more, number * max(period_s / 2, 0.25)
        track.counter({b"": float(total)}, at_s)
        finished.append((at_s, more))
    since_s = finished[-1][0] - FRESH_PERIODS * period_s
    assert track.increase_since(since_s) == sum(more for at_s, more in finished[1:] if at_s > since_s)
    assert len(track.increases) <= 8


@given(pages, st.integers(1, 5))
def test_a_window_of_buckets_holds_what_its_pages_added(added: list[tuple[int, ...]], every_s: int) -> None:
    track, counts = Track(), dict.fromkeys(BOUNDS, 0.0)
    shown = []
    for number, more in enumerate(added):
        for bound, count in zip(BOUNDS, more, strict=True):
            for above in BOUNDS[BOUNDS.index(bound) :]:
                counts[above] += count
        shown.append((float(number * every_s), dict(counts)))
        track.histogram(dict(counts), shown[-1][0], WINDOW_S)
    newest_s = shown[-1][0]
    inside: dict[float, float] = dict.fromkeys(BOUNDS, 0.0)
    for (_, before), (at_s, after) in pairwise(shown):
        if at_s > newest_s - WINDOW_S:
            for bound, grown in bucket_increase(before, after).items():
                inside[bound] += grown
    assert {bound: count for bound, count in track.window.items() if count} == {
        bound: count for bound, count in inside.items() if count
    }
    for share in (0.5, 0.95, 0.99):
        assert quantile(share, track.window) == quantile(share, inside)
