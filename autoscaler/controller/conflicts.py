"""Which workloads somebody else scales. Nothing is written to the objects of those; all the rest goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from autoscaler.cluster.resources import ManagedFields
from autoscaler.cluster.scalers import foreign_writer
from autoscaler.cluster.status import timestamp
from autoscaler.controller import fights
from autoscaler.controller.fights import Fight, Sight
from autoscaler.controller.reporting import Trouble
from autoscaler.controller.subject import Rival, Snapshot, Subject
from autoscaler.model.workload import Mode, WorkloadKey

REMEDY: Final = {
    "HorizontalPodAutoscaler": "delete it or point it elsewhere",
    "ScaledObject": "delete it or point it elsewhere; pausing it is not enough",
    "InferenceWorkload": "one alone may; name another object in targetRef, or delete one workload",
}
_UNTIL: Final = "Nothing is written until"


class Conflicts:
    """Looks at every workload once a cycle, and remembers fights about counts."""

    def __init__(self) -> None:
        self._fights: dict[WorkloadKey, Fight] = {}

    def forget(self) -> None:
        """Whoever led meanwhile has written counts too."""
        self._fights = {}

    def find(self, seen: Snapshot) -> Mapping[WorkloadKey, Trouble]:
        """The workloads that are in conflict, and with whom."""
        self._fights = {each.key: self._look(each, seen.at_s) for each in seen.subjects}
        found = {}
        for subject in seen.subjects:
            if subject.spec.mode is Mode.OBSERVE:
                continue  # nothing is written, whoever scales it
            fight = self._fights[subject.key]
            if subject.rival is not None:
                found[subject.key] = _with(subject.rival)
            elif fight.held(seen.at_s):
                found[subject.key] = _about(subject, fight)
        return found

    def _look(self, subject: Subject, now: float) -> Fight:
        before = self._fights.get(subject.key, Fight())
        there = subject.there
        if there is None:
            return before
        if subject.spec.mode is Mode.OBSERVE:
            return Fight()
        sight = Sight(there.metadata.uid, there.metadata.generation, there.spec.replicas)
        news = subject.rival is None and fights.is_news(before, sight, subject.stored.replicas)
        writer = foreign_writer(there) if news else None
        return fights.look(before, sight, _named(writer) if writer else None, now)


def _with(rival: Rival) -> Trouble:
    scaler, target = rival
    message = f"{scaler.kind} {scaler.name} scales {target.kind} {target.name}: {REMEDY[scaler.kind]}. {_UNTIL} then"
    return Trouble("Conflict", message, reason=scaler.kind)


def _about(subject: Subject, fight: Fight) -> Trouble:
    name = subject.there.metadata.name if subject.there else subject.record.current
    message = (
        f"{fight.by} keeps changing spec.replicas of {subject.resource.kind} {name} "
        f"({fights.CHANGES} times within {fights.WINDOW_S / 60:.0f} min): have it leave the count alone. "
        f"{_UNTIL} {timestamp(fight.held_until)}"
    )
    return Trouble("Conflict", message, reason="ForeignManager")


def _named(writer: ManagedFields) -> str:
    """ "kubectl (scale, last at 2026-01-31T12:00:00Z)"."""
    details = [writer.subresource] if writer.subresource else []
    details += [f"last at {writer.time}"] if writer.time else []
    return f"{writer.manager} ({', '.join(details)})" if details else writer.manager
