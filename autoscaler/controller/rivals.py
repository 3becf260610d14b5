"""Who else scales what a workload scales: an autoscaler, or another workload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import GROUP, WORKLOADS
from autoscaler.cluster.scalers import Scaler, Target
from autoscaler.controller.subject import Rival, Subject
from autoscaler.model.workload import Mode


def rival_of(subject: Subject, claims: Mapping[Target, str], scalers: Mapping[Target, Scaler]) -> Rival | None:
    """The one to give way to."""
    return _claimed(subject, claims) or (_rival(subject, scalers) if scalers else None)


def claims_of(workloads: Iterable[InferenceWorkload]) -> dict[Target, str]:
    """The workload that may scale each target: the oldest that names it and does more than observe."""
    oldest: dict[Target, tuple[str, str]] = {}
    for each in workloads:
        ref = each.spec.serving.target_ref if each.spec.serving else None
        if ref is None or each.metadata.deletion_timestamp or each.spec.mode == Mode.OBSERVE:
            continue
        group = _group(ref.api_version or "")
        target = Target(each.metadata.namespace, group, ref.kind or "", ref.name or "")
        mine = (each.metadata.creation_timestamp or "", each.metadata.name)
        oldest[target] = min(mine, oldest.get(target, mine))
    return {target: name for target, (_, name) in oldest.items()}


def _claimed(subject: Subject, claims: Mapping[Target, str]) -> Rival | None:
    """Another workload that scales the target: an older one that names it too, or the one that made it."""
    target = subject.spec.target
    if target is None or subject.there is None:
        return None
    scaled = Target(subject.key.namespace, _group(target.api_version), target.kind, target.name)
    owners = subject.there.metadata.owner_references or ()
    made = next((each.name for each in owners if each.controller and each.kind == WORKLOADS.kind), None)
    other = made or claims.get(scaled, subject.key.name)
    return (Scaler(WORKLOADS.kind, other), scaled) if made or other != subject.key.name else None


def _group(api_version: str) -> str:
    group, slash, _ = api_version.partition("/")
    return group if slash else ""


def _rival(subject: Subject, scalers: Mapping[Target, Scaler]) -> Rival | None:
    """Who scales the revision's object, or the workload itself: that would write spec.replicas and make it manual."""
    namespace, name = subject.key
    targets = [Target(namespace, GROUP, WORKLOADS.kind, name)]
    if subject.object_name is not None:
        resource = subject.resource
        targets.append(Target(namespace, _group(resource.group_version), resource.kind, subject.object_name))
    return next(((scalers[target], target) for target in targets if target in scalers), None)
