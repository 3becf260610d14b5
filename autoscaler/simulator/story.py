"""What is worth telling of a run, from its decisions and grants alone: no line is written in advance.

The reasons are those of the daemon's own events and conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from autoscaler.controller.phases import shortfall
from autoscaler.controller.reporting import reason_text
from autoscaler.model.decision import Rule, ScalingDecision
from autoscaler.simulator.run import Choice, Moment, View


class Kind(StrEnum):
    UP = "up"
    DOWN = "down"
    QUOTA = "quota"  # quota left less than was wanted
    ROOM = "room"  # it does so no longer


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the story. `short` is `text` for narrow terminals."""

    at_s: int
    model: str
    kind: Kind
    change: str  # "2 -> 5"
    text: str
    short: str


class Story:
    """Follows a run and tells what changed. Remembers only who is short of quota."""

    def __init__(self) -> None:
        self._short: set[str] = set()

    def tell(self, moment: Moment) -> list[Event]:
        return [event for view in moment.views for event in self._tell_one(moment.at_s, view)]

    def _tell_one(self, at_s: int, view: View) -> Iterator[Event]:
        choice, name = view.choice, view.model.name
        if choice is None:
            return
        if choice.after != choice.before:
            kind = Kind.UP if choice.after > choice.before else Kind.DOWN
            text = reason_text(choice.decision)
            if choice.decision.rule is Rule.ACTIVATED:
                text += f": {view.waiting} waiting at the gateway"
            change = f"{choice.before} -> {choice.after}"
            yield Event(at_s, name, kind, change, text, _brief(choice.decision, text))
        yield from self._tell_quota(at_s, view, choice)

    def _tell_quota(self, at_s: int, view: View, choice: Choice) -> Iterator[Event]:
        name, held = view.model.name, f"{choice.after}"
        if choice.grant.clipped and name not in self._short:
            self._short.add(name)
            text = f"QuotaLimited: {shortfall(choice.grant, view.model.spec)}"
            yield Event(at_s, name, Kind.QUOTA, held, text, text)
        elif not choice.grant.clipped and name in self._short:
            self._short.remove(name)
            text = f"quota suffices again: wants {choice.grant.desired}"
            yield Event(at_s, name, Kind.ROOM, held, text, text)


def _brief(decision: ScalingDecision, text: str) -> str:
    """The window and the rule that had the last word: "panic ceil(45 / 11.2) = 5 (panic demand)"."""
    if decision.rule is not Rule.POLICY or not decision.arithmetic:
        return text
    *windows, rules = decision.arithmetic.split("; ")
    chosen = next((each for each in windows if each.split(" ")[0] == rules.split(" ")[0]), windows[0])
    return f"{chosen} ({rules.split(', ')[-1]})"


def clock(at_s: int) -> str:
    """Minutes and seconds: 125 is "02:05"."""
    return f"{at_s // 60:02d}:{at_s % 60:02d}"
