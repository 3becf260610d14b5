"""What the whole demand needs while two revisions share it. Pure.

Each revision is decided on by itself; a gate wants to know what all requests together need. Of two revisions that each
carry half, two rounded-up counts are one too many, so loads are summed before they are divided.
"""

from __future__ import annotations

import math
from typing import Final

from autoscaler.model.decision import Rule, ScalingDecision, SignalInput
from autoscaler.model.signal import Direction, Quality

_BOUNDS: Final = frozenset({Rule.MIN, Rule.MAX})
_HAIR: Final = 1e-9  # three tenths and seven tenths are one


def unbounded(decision: ScalingDecision) -> int:
    """What was decided before minReplicas and maxReplicas, which another revision may have others of."""
    return next((each.before for each in decision.adjustments if each.rule in _BOUNDS), decision.desired)


def whole_demand(current: ScalingDecision, coming: ScalingDecision | None) -> int:
    """Replicas for the requests of both revisions, before bounds.

    Loads 15 and 15, target 10 -> 3, where each alone would be given 2. Where a load is not known well, the counts are
    summed: rather one too many.
    """
    if coming is None:
        return unbounded(current)
    apart = unbounded(current) + unbounded(coming)
    if not current.inputs or current.recommended is None:
        return max(unbounded(current), unbounded(coming))
    others = {each.name: each for each in coming.inputs}
    counts = [
        _count(each, others.get(each.name), current.panicking or coming.panicking)
        for each in current.inputs
        if each.direction is not Direction.DOWN
    ]
    known = [each for each in counts if each is not None]
    return min(apart, max(known)) if known and len(known) == len(counts) else apart


def _count(one: SignalInput, other: SignalInput | None, panicking: bool) -> int | None:
    if other is None or one.target <= 0:
        return None
    loads = [_load(each, panicking) for each in (one, other)]
    total = 0.0
    for load in loads:
        if load is None:
            return None
        total += load
    return math.ceil(total / one.target - _HAIR)


def _load(read: SignalInput, panicking: bool) -> float | None:
    if read.quality is not Quality.FRESH or read.stable is None:
        return None
    return max(read.stable, read.panic) if panicking and read.panic is not None else read.stable
