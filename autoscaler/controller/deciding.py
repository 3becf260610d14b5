"""The second part of a cycle: how many replicas each revision should have by its own demand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import field
from msgspec.structs import replace

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.controller import snapshot
from autoscaler.controller.specs import Unresolved
from autoscaler.controller.subject import Snapshot, Subject
from autoscaler.model.decision import ScalingDecision
from autoscaler.model.signal import Quality
from autoscaler.model.workload import WorkloadKey
from autoscaler.scaling.decision import ScalingState, decide
from autoscaler.scaling.policy import PolicyState

Recalled = Mapping[WorkloadKey, tuple[PolicyState, ...]]


class Memory(msgspec.Struct, frozen=True):
    """What a cycle leaves for the next, per workload. Losing it is safe: nothing is lowered until it is warm again."""

    scaling: ScalingState = field(default_factory=ScalingState)
    untrusted_since: float | None = None  # some ready pod has had no fresh page since then
    rebuilt_at: float | None = None  # the record was lost and rebuilt
    revision: str = ""  # whose scaling that is
    coming: tuple[str, ScalingState] | None = None  # of the update, by its name


@dataclass(frozen=True, slots=True)
class Decided:
    """Decisions on all workloads, and what to remember."""

    of_current: Mapping[WorkloadKey, ScalingDecision]
    of_coming: Mapping[WorkloadKey, ScalingDecision]  # of updates that take traffic
    memory: Mapping[WorkloadKey, Memory]
    broken: tuple[tuple[InferenceWorkload, Unresolved], ...] = ()  # our own code could not decide on these


_NOTHING: Final = Memory()


def decide_all(seen: Snapshot, before: Mapping[WorkloadKey, Memory], recalled: Recalled) -> Decided:
    """A bug that one workload runs into leaves that workload as it is; the others go on."""
    of_current: dict[WorkloadKey, ScalingDecision] = {}
    of_coming: dict[WorkloadKey, ScalingDecision] = {}
    memory: dict[WorkloadKey, Memory] = {}
    broken = []
    for subject in seen.subjects:
        known = _of_revision(before.get(subject.key, _NOTHING), subject)
        if states := recalled.get(subject.key):
            known = replace(known, scaling=known.scaling.recalling(states))
        try:
            decision, scaling = decide(subject.spec, known.scaling, subject.observation, seen.at_s)
            coming = _decide_coming(subject, known, seen.at_s)
        except Exception as error:
            broken.append((subject.workload, snapshot.crashed(subject.workload, error)))
            continue
        of_current[subject.key] = decision
        if coming is not None:
            of_coming[subject.key] = coming[0]
        rebuilt_at = seen.at_s if subject.record.current and not subject.stored.current else known.rebuilt_at
        untrusted = _untrusted_since(known, decision, seen.at_s)
        update = (_name(subject), coming[1]) if coming is not None else known.coming
        memory[subject.key] = Memory(scaling, untrusted, rebuilt_at, known.revision, update)
    return Decided(of_current, of_coming, memory, tuple(broken))


def _of_revision(known: Memory, subject: Subject) -> Memory:
    """The windows of an update that is current now are the current ones."""
    current = subject.record.current or ""
    if known.revision == current:
        return known
    if not known.revision:
        return replace(known, revision=current)
    inherited = known.coming[1] if known.coming is not None and known.coming[0] == current else ScalingState()
    return replace(known, scaling=inherited, revision=current, coming=None)


def _name(subject: Subject) -> str:
    return subject.record.rollout.revision if subject.record.rollout is not None else ""


def _decide_coming(subject: Subject, known: Memory, now: float) -> tuple[ScalingDecision, ScalingState] | None:
    coming = subject.coming
    if coming is None:
        return None
    mine = known.coming is not None and known.coming[0] == _name(subject)
    state = known.coming[1] if known.coming is not None and mine else ScalingState()
    return decide(coming.spec, state, coming.observation, now)


def _untrusted_since(before: Memory, decision: ScalingDecision, now: float) -> float | None:
    if decision.quality is None or decision.quality is Quality.FRESH:
        return None
    return before.untrusted_since if before.untrusted_since is not None else now
