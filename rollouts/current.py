"""How the current revision's own record changes: created, first served, timed out, at zero."""

from __future__ import annotations

from dataclasses import replace

from rollouts.observed import Limits, Situation
from rollouts.record import Phase, Record


def remember(seen: Situation, record: Record) -> Record:
    """The record with what is seen of the current revision."""
    limits, observed, granted, now = seen.limits, seen.observed, seen.granted, seen.now
    if record.current is None:
        record = replace(record, current=observed.newest.name, collision_count=observed.collision_count)
    if limits.stopped and record.served_at is None:
        phase = record.phase if record.phase is Phase.UNVERIFIED else Phase.STARTING
        record = replace(record, phase=phase, started_at=None)
    if record.started_at is None and granted > 0:
        record = replace(record, started_at=now)
    ready = observed.of(record.current or "").ready
    if ready > 0 and record.served_at is None:
        record = replace(record, served_at=now, phase=Phase.COMPLETE, previous=None)
    serving = ready > 0 or (record.serving and granted > 0)
    if serving != record.serving:
        record = replace(record, serving=serving)
    if not record.initialized and _reached(limits, ready, granted):
        record = replace(record, initialized=True)
    if _timed_out(limits, record, now):
        record = replace(record, phase=Phase.FAILED)
    return record


def _reached(limits: Limits, ready: int, granted: int) -> bool:
    """The initial count was reached, or what quota grants of it."""
    enough = min(limits.initial_replicas, granted)  # quota may never grant more
    return ready >= enough and (granted > 0 or not limits.initial_replicas)


def _timed_out(limits: Limits, record: Record, now: float) -> bool:
    if limits.initialization_timeout_s is None or record.started_at is None or record.served_at is not None:
        return False
    return record.phase is Phase.STARTING and now >= record.started_at + limits.initialization_timeout_s
