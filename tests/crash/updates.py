"""The scenarios of updates, each on a Deployment and on a LeaderWorkerSet: from two replicas of a first revision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from tests.crash.scenarios import Scenario
from tests.crash.subject import FIRST, SIZE, Shape, Subject
from tests.crash.verdict import Bounds

GOOD, BAD = "example/vllm:2", "example/vllm:bad"
COUNT: Final = 2
DRAIN: Final = {"quietSeconds": 0, "timeoutSeconds": 30}
DEADLINE_S: Final = 6  # of a revision that is never ready; a daemon may take longer to come back
STEPS: Final = [{"weight": 50, "pause": "1s"}]


def _served(**rollout: Any) -> Callable[[Subject], None]:
    """Two replicas of the first revision serve."""

    def prepare(subject: Subject) -> None:
        autoscaling = {"minReplicas": COUNT, "maxReplicas": COUNT}
        subject.create(autoscaling, rollout={"drain": DRAIN, **rollout})
        subject.wait(lambda: subject.updated(FIRST, COUNT), "to serve at first")

    return prepare


def _begun(subject: Subject) -> None:
    """An update that never becomes ready has pods."""
    subject.update(BAD, ready=False)
    subject.wait(subject.starts, "to have pods of its update")


def _superseded(subject: Subject) -> None:
    _begun(subject)
    subject.update(GOOD)


def _aborted(subject: Subject) -> None:
    _begun(subject)
    subject.ask("abort")


def _aborted_at_half(subject: Subject) -> None:
    subject.update(GOOD)
    subject.wait(lambda: subject.rollout.get("verified") == STEPS[0]["weight"], "to give half of it to its update")
    subject.ask("abort")


def _deleted(subject: Subject) -> None:
    _begun(subject)
    subject.delete()


def _gone(subject: Subject) -> bool:
    return not subject.left()


def _updated(subject: Subject) -> bool:
    return subject.updated(GOOD, COUNT)


def _failed(reason: str) -> Callable[[Subject], bool]:
    return lambda subject: subject.failed(reason, COUNT)


def _bounds(ended: int, revisions: int = 2, least: int = COUNT) -> Bounds:
    """`ended`: replicas."""
    return Bounds(least, COUNT, pods_ended=ended, revisions=revisions)


ROUTED: Final = Shape(routed=True)
LONG: Final = [{"weight": 50, "pause": "1h"}]
OF_A_DEPLOYMENT: Final = (
    Scenario("full update", _served(), lambda subject: subject.update(GOOD), _updated, _bounds(COUNT)),
    Scenario("steps", _served(steps=STEPS), lambda subject: subject.update(GOOD), _updated, _bounds(COUNT), ROUTED),
    Scenario(
        "deadline",
        _served(progressDeadlineSeconds=DEADLINE_S),
        lambda subject: subject.update(BAD, ready=False),
        _failed("ProgressDeadlineExceeded"),
        _bounds(COUNT),
    ),
    Scenario("superseded", _served(), _superseded, _updated, _bounds(2 * COUNT, revisions=3)),
    Scenario("abort", _served(), _aborted, _failed("Aborted"), _bounds(COUNT)),
    Scenario("abort at half", _served(steps=LONG), _aborted_at_half, _failed("Aborted"), _bounds(COUNT), ROUTED),
    Scenario("delete", _served(), _deleted, _gone, _bounds(2 * COUNT, least=0)),
)


def _both() -> Iterator[Scenario]:
    for each in OF_A_DEPLOYMENT:
        yield replace(each, name=f"{each.name}, D")
    for each in OF_A_DEPLOYMENT:
        bounds = replace(each.bounds, pods_ended=each.bounds.pods_ended * SIZE)
        yield replace(each, name=f"{each.name}, LWS", shape=replace(each.shape, groups=True), bounds=bounds)


UPDATES: Final = tuple(_both())
