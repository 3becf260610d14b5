"""Records of any content, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from rollouts.record import PHASES_OF_CURRENT as CURRENT
from rollouts.record import Bounds, Leaving, Pause, PausedBy, Phase, Record, Rollout, Why

Fields = dict[str, st.SearchStrategy[Any]]

INSTANTS = st.integers(0, 4 * 10**15).map(lambda microseconds: microseconds / 1e6)
COUNTS = st.integers(0, 2**31 - 1)
PERCENTS = st.integers(0, 100)
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=253)
OF_PAUSE: Fields = {
    "by": st.sampled_from(PausedBy),
    "since": INSTANTS,
    "until": st.none() | INSTANTS,
    "resumes": st.sampled_from(Phase),
}
PAUSES = st.builds(Pause, **OF_PAUSE)
OF_ROLLOUT: Fields = {
    "revision": NAMES,
    "queued_at": INSTANTS,
    "queue_deadline_at": INSTANTS,
    "since": INSTANTS,
    "phase": st.sampled_from(Phase),
    "reason": st.none() | st.sampled_from(Why),
    "size": COUNTS,
    "pool": st.none() | NAMES,
    "first_pool": COUNTS,
    "attempts": COUNTS,
    "not_before": st.none() | INSTANTS,
    "overtaken": COUNTS,
    "head_since": st.none() | INSTANTS,
    "held_at": st.none() | INSTANTS,
    "schedule_deadline_at": st.none() | INSTANTS,
    "progress_deadline_at": st.none() | INSTANTS,
    "step": COUNTS,
    "weight": PERCENTS,
    "accepted_at": st.none() | INSTANTS,
    "verified": PERCENTS,
    "served": st.booleans(),
    "floor": COUNTS,
    "ready_at_start": COUNTS,
    "full": st.booleans(),
    "drain_deadline_at": st.none() | INSTANTS,
    "drained": st.booleans(),
    "home": st.booleans(),
    "pause": st.none() | PAUSES,
}
ROLLOUTS = st.builds(Rollout, **OF_ROLLOUT)
OF_LEAVING: Fields = {
    "revision": NAMES,
    "since": INSTANTS,
    "served": st.booleans(),
    "drained": st.booleans(),
    "deadline_at": st.none() | INSTANTS,
}
LEAVING = st.builds(Leaving, **OF_LEAVING)
BOUNDS = st.none() | st.builds(Bounds, least=COUNTS, most=COUNTS)
OF_RECORD: Fields = {
    "phase": st.sampled_from(CURRENT),
    "current": st.none() | NAMES,
    "update": st.none() | NAMES,
    "collision_count": COUNTS,
    "replicas": st.none() | COUNTS,
    "initialized": st.booleans(),
    "started_at": st.none() | INSTANTS,
    "served_at": st.none() | INSTANTS,
    "serving": st.booleans(),
    "epoch": st.none() | COUNTS,
    "rollout": st.none() | ROLLOUTS,
    "leaving": st.lists(LEAVING, max_size=3).map(tuple),
    "previous": st.none() | NAMES,
    "pool": st.none() | NAMES,
    "handled": st.none() | TEXTS,
    "bounds": BOUNDS,
    "bounds_seen": BOUNDS,
}
RECORDS = st.builds(Record, **OF_RECORD)

EVERY_PART = {Record: OF_RECORD, Rollout: OF_ROLLOUT, Leaving: OF_LEAVING, Pause: OF_PAUSE}
