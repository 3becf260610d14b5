"""How the current revision's own record changes: created, first served, timed out, at zero. The same with and
without updates.
"""

from __future__ import annotations

from dataclasses import replace

from rollouts.observed import Limits, Observed, ObservedRevision
from rollouts.record import Phase, Record


def remember(limits: Limits, record: Record, observed: Observed, granted: int, now: float) -> Record:
    """The record with what is seen of the current revision. A newer template is noted in `update`."""
    if record.current is None or (limits.rollout is None and _never_came_to_be(record, observed)):
        fresh = Record(current=observed.newest.name, collision_count=observed.collision_count)
        record = replace(fresh, handled=record.handled, bounds=record.bounds, bounds_seen=record.bounds_seen)
    if limits.stopped and record.served_at is None:
        phase = record.phase if record.phase is Phase.UNVERIFIED else Phase.STARTING
        record = replace(record, phase=phase, started_at=None)
    update = observed.newest.name if observed.newest.name != record.current else None
    if update != record.update:
        record = replace(record, update=update)
    if record.started_at is None and granted > 0:
        record = replace(record, started_at=now)
    seen = of_current(record, observed)
    if seen is not None and seen.ready > 0 and record.served_at is None:
        record = replace(record, served_at=now, phase=Phase.COMPLETE, previous=None)
    serving = (seen is not None and seen.ready > 0) or (record.serving and granted > 0)
    if serving != record.serving:
        record = replace(record, serving=serving)
    if not record.initialized and _reached(limits, seen, granted):
        record = replace(record, initialized=True)
    if _timed_out(limits, record, now):
        record = replace(record, phase=Phase.FAILED)
    return record


def of_current(record: Record, observed: Observed) -> ObservedRevision | None:
    """The objects of the record's current revision; None right after another one became current."""
    seen = observed.current
    return seen if seen is not None and seen.name == record.current else None


def _reached(limits: Limits, seen: ObservedRevision | None, granted: int) -> bool:
    """The initial count was reached, or what quota grants of it."""
    enough = min(limits.initial_replicas, granted)  # quota may never grant more
    return (seen.ready if seen else 0) >= enough and (granted > 0 or not limits.initial_replicas)


def _never_came_to_be(record: Record, observed: Observed) -> bool:
    """A revision that never served, has been corrected, and has nothing to protect: refused, failed, or not created."""
    if record.served_at is not None or observed.newest.name == record.current:
        return False
    replicas = observed.current.replicas if observed.current else None
    return replicas is None or (record.phase is Phase.FAILED and replicas == 0)


def _timed_out(limits: Limits, record: Record, now: float) -> bool:
    if limits.initialization_timeout_s is None or record.started_at is None or record.served_at is not None:
        return False
    return record.phase is Phase.STARTING and now >= record.started_at + limits.initialization_timeout_s
