"""Quantiles of histogram buckets, as Prometheus computes them. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping


def bucket_increase(before: Mapping[float, float], after: Mapping[float, float]) -> dict[float, float]:
    """What fell into each bucket between two pages, given cumulative counts by upper bound (le).

    A smaller total means that the process began anew, so all of `after` is new. Bounds that only one page has (another
    version of the engine) are read as a step function. The result is not cumulative; empty buckets stay in it, because
    a quantile needs to know where the bucket below ends.

    {0.1: 5, inf: 6} → {0.1: 7, inf: 9} gives {0.1: 2, inf: 1}.
    """
    began_anew = after.get(math.inf, 0.0) < before.get(math.inf, 0.0)
    increase: dict[float, float] = {}
    earlier = carried = 0.0
    for bound in sorted(after):
        if not began_anew:
            earlier = before.get(bound, earlier)
        grown = max(after[bound] - earlier, carried)
        increase[bound] = grown - carried
        carried = grown
    return increase


def quantile(share: float, counts: Mapping[float, float]) -> float | None:
    """The value below which `share` of the observations lie; None without observations. Units: those of the bounds.

    `counts` holds the observations of each bucket by its upper bound (not cumulative). As histogram_quantile does it:
    with rank = share × total, and the first bucket whose cumulative count reaches the rank reaching from lower to
    upper and holding `inside` observations on top of `below`,

        value = lower + (upper − lower) × (rank − below) / inside

    where lower is 0 for a first bucket with a positive bound, a first bucket with a bound ≤ 0 gives that bound, and
    the bucket without an upper bound gives the largest finite bound: a histogram cannot say more.

    {1.0: 50, 2.0: 40, 4.0: 10}: the 0.95 quantile has rank 95, which lies 5 of 10 into (2, 4]: 3.0.
    """
    total = sum(counts.values())
    if total <= 0:
        return None
    bounds = sorted(counts)
    rank = share * total
    below = 0.0
    for index, upper in enumerate(bounds):
        inside = counts[upper]
        if below + inside >= rank or index == len(bounds) - 1:
            return _within(bounds, index, (rank - below) / inside if inside > 0 else 1.0)
        below += inside
    return None


def _within(bounds: list[float], index: int, part: float) -> float | None:
    upper = bounds[index]
    if math.isinf(upper):
        return bounds[index - 1] if index > 0 else None
    if index == 0 and upper <= 0:
        return upper
    lower = bounds[index - 1] if index > 0 else 0.0
    return lower + (upper - lower) * min(max(part, 0.0), 1.0)
