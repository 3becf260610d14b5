"""What was measured before we looked: the values of seconds gone by, as somebody else kept them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """One second of one workload. What is not in `values` was not known then."""

    at_s: float  # Unix seconds, a whole number
    ready: int  # replicas that served
    values: Mapping[str, float]  # by signal, as in a Sample
    whole: frozenset[str]  # signals for which every one of the replicas had a fresh value
