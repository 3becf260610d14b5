"""The law of an update's life: every legal move, as data. `move` refuses all others; a test draws it into the docs."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

from rollouts.record import Phase, Rollout


class Event(StrEnum):
    """Why a phase ends."""

    HELD = "quota held"
    READY = "all ready"
    WARM = "warm"
    FULL = "100 % verified"
    DRAINED = "drained"
    UNPLACED = "schedule timeout"
    HOLD_LOST = "hold lost"
    REPLICAS_LOST = "replicas lost"
    PAUSED = "paused"
    RESUMED = "resumed"
    FAILED = "failed"  # a deadline, a refusal, an abort, the template taken back
    GONE = "its pods gone"
    RETRIED = "retry"
    SUPERSEDED = "newer template"


Move = tuple[Phase, Event, Phase]

_PAUSABLE: Final = (Phase.QUEUED, Phase.STARTING, Phase.WARMING, Phase.SHIFTING)

MOVES: Final[tuple[Move, ...]] = (
    (Phase.QUEUED, Event.HELD, Phase.STARTING),
    (Phase.STARTING, Event.READY, Phase.WARMING),
    (Phase.STARTING, Event.UNPLACED, Phase.QUEUED),
    (Phase.STARTING, Event.HOLD_LOST, Phase.QUEUED),
    (Phase.WARMING, Event.WARM, Phase.SHIFTING),
    (Phase.WARMING, Event.REPLICAS_LOST, Phase.STARTING),
    (Phase.SHIFTING, Event.FULL, Phase.DRAINING),
    (Phase.SHIFTING, Event.REPLICAS_LOST, Phase.STARTING),
    (Phase.DRAINING, Event.DRAINED, Phase.COMPLETE),
    *((phase, Event.PAUSED, Phase.PAUSED) for phase in _PAUSABLE),
    *((Phase.PAUSED, Event.RESUMED, phase) for phase in _PAUSABLE),
    *((phase, Event.FAILED, Phase.ROLLING_BACK) for phase in (*_PAUSABLE, Phase.PAUSED)),
    (Phase.ROLLING_BACK, Event.GONE, Phase.FAILED),
    (Phase.FAILED, Event.RETRIED, Phase.QUEUED),
    *(
        (phase, Event.SUPERSEDED, Phase.SUPERSEDED)
        for phase in (*_PAUSABLE, Phase.PAUSED, Phase.ROLLING_BACK, Phase.FAILED)
    ),
)

ACTIVE: Final = frozenset({*_PAUSABLE, Phase.PAUSED, Phase.DRAINING})  # it may still become current
REVOCABLE: Final = ACTIVE - {Phase.DRAINING}  # before verified 100 %
PAUSABLE: Final = frozenset(_PAUSABLE)

# Of the current revision. It moves on what happens to it; `machine.step` checks that it moved along these.
CURRENT_MOVES: Final[tuple[tuple[Phase, str, Phase], ...]] = (
    (Phase.STARTING, "served", Phase.COMPLETE),
    (Phase.STARTING, "initialization timeout", Phase.FAILED),
    (Phase.FAILED, "corrected, stopped, or retry", Phase.STARTING),
    (Phase.FAILED, "served after all", Phase.COMPLETE),
    (Phase.COMPLETE, "new template at zero", Phase.UNVERIFIED),
    (Phase.UNVERIFIED, "served", Phase.COMPLETE),
    (Phase.UNVERIFIED, "failed: the previous one comes back", Phase.COMPLETE),
)


class IllegalMove(Exception):
    """A bug of ours: nothing was changed."""


def move(rollout: Rollout, event: Event, phase: Phase, now: float, **changes: Any) -> Rollout:
    """The rollout in its next phase, with these fields changed. Raises IllegalMove."""
    if (rollout.phase, event, phase) not in MOVES:
        raise IllegalMove(f"{rollout.revision}: {rollout.phase} -> {phase} on {event.value}")
    return replace(rollout, phase=phase, since=now, **changes)


def check_current(before: Phase, after: Phase) -> None:
    """Raises IllegalMove where the current revision's phase went another way."""
    if before is not after and (before, after) not in {(start, end) for start, _, end in CURRENT_MOVES}:
        raise IllegalMove(f"current revision: {before} -> {after}")
