"""One workload, and all of them, as seen at one instant: frozen values that the rest of a cycle decides on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import Resource, Scalable
from autoscaler.cluster.scalable import Kind
from autoscaler.cluster.scalers import Scaler, Target
from autoscaler.cluster.workloads import deployment
from autoscaler.controller.revisions import Revisions, Traffic
from autoscaler.controller.specs import Unresolved
from autoscaler.model.decision import Observation
from autoscaler.model.quota import Domain, Hold
from autoscaler.model.resources import ResourceVector
from autoscaler.model.workload import WorkloadKey, WorkloadSpec
from autoscaler.signals.targets import PodAddress
from rollouts.observed import Observed, ObservedService
from rollouts.record import Record
from rollouts.verbs import VerbRequest

Rival = tuple[Scaler, Target]  # who scales the workload too, and by which object
NO_SERVICE = ObservedService("", False)


@dataclass(frozen=True, slots=True)
class Coming:
    """The update, where it has an object: it is scaled on its own demand beside the current revision."""

    spec: WorkloadSpec  # of its content, with the bounds that came with it
    observation: Observation


@dataclass(frozen=True, slots=True)
class Subject:
    """One workload as seen at this instant."""

    key: WorkloadKey
    workload: InferenceWorkload
    spec: WorkloadSpec  # of the current revision's content, with that one's bounds
    stored: Record  # as the status has it
    record: Record  # the same, or rebuilt where the status was lost; with the bounds that hold now
    observed: Observed
    observation: Observation
    pods: tuple[PodAddress, ...]  # of the current revision, those that serve
    revisions: Revisions = field(default_factory=lambda: Revisions({}))
    traffic: Traffic = field(default_factory=lambda: Traffic(NO_SERVICE, NO_SERVICE))
    specs: Mapping[str, WorkloadSpec] = field(default_factory=dict)  # by revision, with the bounds of now
    coming: Coming | None = None
    verb: VerbRequest | None = None  # what a person asks of the update
    there: Scalable | None = None  # the current revision's object
    rival: Rival | None = None
    kind: Kind = deployment.KIND  # of the current revision
    follows: bool = True  # is what is seen how it is now?
    priced: bool = True  # is it known what a replica is charged?
    selector: str = ""  # of a target's pods

    @property
    def resource(self) -> Resource:
        """Where the object that is scaled lives."""
        target = self.spec.target
        return Resource(target.api_version, target.resource, target.kind) if target else self.kind.resource

    @property
    def object_name(self) -> str | None:
        if self.spec.target is not None:
            return self.spec.target.name
        return self.observed.current.name if self.observed.current is not None else None

    @property
    def updating(self) -> bool:
        """Is there more than the current revision at rest?"""
        return self.record.rollout is not None or bool(self.record.leaving)

    @property
    def changing(self) -> bool:
        """Is there an update, or is one about to begin?"""
        return self.updating or (self.spec.target is None and self.observed.newest.name != self.record.current)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All workloads at `at_s` (Unix seconds)."""

    at_s: float
    subjects: tuple[Subject, ...]  # sorted by key
    unresolved: tuple[tuple[InferenceWorkload, Unresolved], ...]
    patience_s: float  # a page may be missing this long before it is worth a word
    leftovers: Mapping[Domain, tuple[Hold, ...]]  # of pods of ours that belong to no subject
    foreign: Mapping[Domain, ResourceVector | None] = field(default_factory=dict)  # of other pods; None: not known yet

    def without(self, broken: Sequence[tuple[InferenceWorkload, Unresolved]]) -> Snapshot:
        """The same, with these workloads left alone."""
        gone = {key_of(workload) for workload, _ in broken}
        kept = tuple(subject for subject in self.subjects if subject.key not in gone)
        return replace(self, subjects=kept, unresolved=(*self.unresolved, *broken))


def key_of(workload: InferenceWorkload) -> WorkloadKey:
    return WorkloadKey(workload.metadata.namespace, workload.metadata.name)
