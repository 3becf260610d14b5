"""Does somebody else keep changing a workload's count? A function of what was seen, cycle by cycle.

What a person changes once is corrected and forgotten. Who changes it again and again is a controller that corrects us
as we correct it, and neither would ever give up: so we leave the count alone for a while, longer each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

WINDOW_S: Final = 600.0  # changes that are further apart are no fight
CHANGES: Final = 3  # the first may be a person's mistake, the second the same mistake again
HOLD_FIRST_S: Final = 300.0  # long enough to be noticed, short enough to go on by itself after a passing disturbance
HOLD_MOST_S: Final = 3_600.0
CALM_S: Final = 3_600.0  # after so long without a fight, the next hold is as short as the first


@dataclass(frozen=True, slots=True)
class Sight:
    """The object of a workload's revision as seen in one cycle."""

    uid: str
    generation: int  # grows with every change of its spec
    replicas: int


@dataclass(frozen=True, slots=True)
class Fight:
    """What is remembered of one workload. Losing it is safe: a fight is noticed again."""

    seen: Sight | None = None  # None: nothing since we lead
    changes: tuple[float, ...] = ()  # when others changed the count, within the window
    by: str = ""  # who did it last
    hold_s: float = 0.0  # length of the last hold; 0: there was none
    held_until: float = 0.0

    def held(self, now: float) -> bool:
        """Is nothing to be written now?"""
        return now < self.held_until


def is_news(before: Fight, seen: Sight, recorded: int | None) -> bool:
    """Was the spec changed since the last look, and is the count not the recorded one?

    The record is saved before the count is written, so our own writes are no news, nor is an old copy of the object.
    """
    known = before.seen
    if known is None or known.uid != seen.uid or recorded is None:
        return False
    return seen.generation > known.generation and seen.replicas != recorded


def look(before: Fight, seen: Sight, by: str | None, now: float) -> Fight:
    """What is remembered after this look. `by`: who wrote the count, where it is news and was not written by us.

    Changes at 0, 10 and 20 s: held from 20 to 320 s. Again at 330, 340 and 350 s: held to 950 s.
    """
    if by is None and not before.changes and before.seen == seen:
        return before  # as nearly always, for a thousand workloads in each cycle
    if before.held(now):
        return replace(before, seen=seen)
    changes = tuple(at for at in before.changes if now - at <= WINDOW_S)
    if by is not None:
        changes = (*changes, now)
    if len(changes) < CHANGES:
        return replace(before, seen=seen, changes=changes, by=by or before.by)
    calm = now - before.held_until > CALM_S
    hold_s = HOLD_FIRST_S if calm or not before.hold_s else min(HOLD_MOST_S, before.hold_s * 2)
    return Fight(seen, (), by or before.by, hold_s, now + hold_s)
