"""What a user does while the daemon is being killed. One row each; a new feature adds a row.

A scenario brings a workload to where it starts (not disturbed), then acts (disturbed). The end is known from an
undisturbed run, so a row says nothing about it but how to know that it is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.crash.subject import DEPLOYMENT, Shape, Subject
from tests.crash.verdict import Bounds


@dataclass(frozen=True, slots=True)
class Scenario:
    """`prepare` ends where the scenario starts; `act` is disturbed; `done` says that its end is reached."""

    name: str
    prepare: Callable[[Subject], None]
    act: Callable[[Subject], None]
    done: Callable[[Subject], bool]
    bounds: Bounds
    shape: Shape = DEPLOYMENT


def _two(subject: Subject) -> None:
    _created(subject, {"minReplicas": 2, "maxReplicas": 2}, 2)


def _four_by_hand(subject: Subject) -> None:
    _two(subject)
    subject.scale(4)
    subject.wait(lambda: subject.serves(4), "to serve with 4")


def _stopped(subject: Subject) -> None:
    _two(subject)
    subject.patch({"desiredPhase": "Stopped"})
    subject.wait(lambda: subject.serves(0), "to stop")


def _created(subject: Subject, autoscaling: Mapping[str, Any], count: int) -> None:
    subject.create(autoscaling)
    subject.wait(lambda: subject.serves(count), f"to serve with {count}")


def _manual_and_back(subject: Subject) -> None:
    subject.scale(5)
    subject.wait(lambda: subject.serves(5), "to serve with 5")
    subject.patch({"replicas": None})


def _serves(count: int) -> Callable[[Subject], bool]:
    return lambda subject: subject.serves(count)


SCENARIOS: Final = (
    Scenario(
        "create",
        prepare=lambda subject: None,
        act=lambda subject: subject.create({"minReplicas": 2, "maxReplicas": 2}),
        done=_serves(2),
        bounds=Bounds(2, 2),
    ),
    Scenario("scale up", _two, lambda subject: subject.scale(4), _serves(4), Bounds(2, 4)),
    Scenario(
        "raise bounds",
        _two,
        lambda subject: subject.patch({"autoscaling": {"minReplicas": 3, "maxReplicas": 3}}),
        _serves(3),
        Bounds(2, 3),
    ),
    Scenario("scale down", _four_by_hand, lambda subject: subject.scale(1), _serves(1), Bounds(1, 4, pods_ended=3)),
    Scenario(
        "to zero",
        _two,
        lambda subject: subject.patch({"desiredPhase": "Stopped"}),
        _serves(0),
        Bounds(0, 2, pods_ended=2),
    ),
    Scenario(
        "wake",
        _stopped,
        lambda subject: subject.patch({"desiredPhase": "Running"}),
        _serves(2),
        Bounds(0, 2),
    ),
    Scenario("manual", _two, _manual_and_back, _serves(2), Bounds(2, 5, pods_ended=3)),
    Scenario(
        "delete",
        _two,
        lambda subject: subject.delete(),
        lambda subject: not subject.left(),
        Bounds(0, 2, pods_ended=2),
    ),
)
