"""The fourth part of a cycle: what is to be done for each workload. Functions of frozen values; nothing acts here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from autoscaler.controller.subject import Snapshot, Subject
from autoscaler.model.workload import DesiredPhase, Mode, WorkloadKey
from rollouts import machine, target
from rollouts.invariants import Broken
from rollouts.machine import Step
from rollouts.observed import Limits, ObservedRevision, Situation

LATE_WRITE_MOST_S: Final = 60.0  # kube-apiserver ends a request by then (--request-timeout)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fences:
    """What keeps late writes of earlier leaders from doing harm, in the tenure of this epoch."""

    epoch: int
    unstamped: int = 0  # objects of ours that do not carry it yet
    late_until: Mapping[WorkloadKey, float] = field(default_factory=dict)  # Unix seconds; targets carry no stamp


def fences(seen: Snapshot, contested: frozenset[WorkloadKey], before: Fences | None, epoch: int) -> Fences:
    """For this cycle. A contested workload stays unstamped, and nobody waits for it.

    A target cannot be stamped. What an earlier leader sent for it arrives within a minute or never; until then its
    record is not lowered, so that the quota knows of the most that may arrive.
    """
    ours = [each for each in seen.subjects if each.key not in contested]
    unstamped = sum(
        _carries_another(revision, epoch) for each in ours if each.spec.target is None for revision in _objects(each)
    )
    known = before.late_until if before is not None and before.epoch == epoch else {}
    late = {
        each.key: known.get(each.key, seen.at_s + LATE_WRITE_MOST_S)
        for each in ours
        if each.spec.target is not None and (each.key in known or each.record.epoch not in (None, epoch))
    }
    return Fences(epoch, unstamped, late)


def step_of(subject: Subject, granted: int, fence: Fences, now: float, before: Step | None = None) -> Step:
    """The next step of one workload that nobody else scales. A bug that it runs into leaves it as it is: the others
    go on. `before`: its last step; the log tells a bug once, not in every cycle."""
    try:
        if subject.spec.target is not None:
            return _step_of_target(subject, granted, fence, now)
        return machine.step(situation_of(subject, granted, now, fence), subject.record)
    except Exception as error:
        broken = Broken("our own rules", f"{type(error).__name__} (the log has more)")
        if before is None or before.broken != broken:
            log.exception("step.undecided", workload=str(subject.key))
        return Step(subject.stored, waiting=broken.detail, broken=broken)


def has_work(subject: Subject, step: Step) -> bool:
    """Is there anything to store or to do?"""
    return bool(step.commands) or step.record != subject.stored


def situation_of(subject: Subject, granted: int, now: float, fence: Fences | None = None) -> Situation:
    """What a workload whose objects are ours is decided on. `fence` None: for what is only asked."""
    spec, rollout = subject.spec, subject.spec.rollout
    if spec.mode is Mode.PAUSED and not rollout.paused:
        rollout = replace(rollout, paused=True)
    # what became ready while the API server was away is not too late for its time-out, nor proof that less will do
    timeout_s = spec.initialization_timeout_s if subject.follows else None
    limits = Limits(
        initial_replicas=spec.scaling.initial_replicas,
        initialization_timeout_s=timeout_s,
        stopped=spec.desired_phase is DesiredPhase.STOPPED or spec.scaling.manual_replicas == 0,
        epoch=fence.epoch if fence is not None else None,
        may_lower=fence is None or (fence.unstamped == 0 and subject.follows),
        verb=subject.verb,
    )
    return Situation(limits, rollout, subject.observed, granted, now)


def _objects(subject: Subject) -> tuple[ObservedRevision, ...]:
    observed = subject.observed
    return (observed.current, *observed.others) if observed.current is not None else observed.others


def _step_of_target(subject: Subject, granted: int, fence: Fences, now: float) -> Step:
    current = subject.observed.current
    assert current is not None  # a target that was not seen is no subject
    assert current.replicas is not None
    seen = target.ObservedTarget(current.name, current.replicas, current.ready)
    limits = target.Limits(
        fence.epoch,
        may_lower=subject.follows and now >= fence.late_until.get(subject.key, now),
        observe=subject.spec.mode is Mode.OBSERVE,
    )
    return target.step(limits, subject.record, seen, granted, now)


def _carries_another(seen: ObservedRevision, epoch: int) -> bool:
    return seen.replicas is not None and seen.epoch != epoch
