"""Revisions on their way out: found, drained, forgotten when nothing of them is left.

Nothing is deleted because a record does not speak of it: an object that no record explains is recorded here, and goes
only when it is proven to have no traffic.
"""

from __future__ import annotations

from dataclasses import replace

from rollouts import gates
from rollouts.observed import Situation
from rollouts.record import Leaving, Record


def follow(seen: Situation, record: Record) -> Record:
    """The record with those that are gone forgotten, those that are idle marked, and strays taken in."""
    kept = tuple(_drained(seen, each) for each in record.leaving if not _gone(seen, each))
    if kept != record.leaving:
        record = replace(record, leaving=kept)
    return _with_strays(seen, record)


def _gone(seen: Situation, leaving: Leaving) -> bool:
    """Object, pods and hold: while a pod terminates it holds its GPUs."""
    return seen.observed.of(leaving.revision).gone and seen.observed.hold(leaving.revision) is None


def _drained(seen: Situation, leaving: Leaving) -> Leaving:
    if leaving.deletable or gates.idle(seen, leaving) is not None:
        return leaving
    return replace(leaving, drained=True)


def _with_strays(seen: Situation, record: Record) -> Record:
    known = record.names | {seen.observed.newest.name}
    strays = tuple(
        Leaving(each.name, seen.now, served=True)
        for each in sorted(seen.observed.others, key=lambda each: each.name)
        if each.name not in known and not each.gone
    )
    return replace(record, leaving=(*record.leaving, *strays)) if strays else record
