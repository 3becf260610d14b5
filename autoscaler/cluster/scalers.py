"""Who else scales an object: HorizontalPodAutoscalers and KEDA's ScaledObjects by their targets, and the writer of a
count by the managed fields of its object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from autoscaler.cluster.resources import (
    DEPLOYMENTS,
    FIELD_MANAGER,
    HORIZONTAL_POD_AUTOSCALERS,
    SCALED_OBJECTS,
    Autoscaler,
    ManagedFields,
    Scalable,
)

KEDA_LABEL: Final = "scaledobject.keda.sh/name"  # on the HorizontalPodAutoscaler that KEDA makes of a ScaledObject


class Target(NamedTuple):
    """An object with a scale. Versions of one group are the same object."""

    namespace: str
    group: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Scaler:
    """The object that a person would have to delete."""

    kind: str
    name: str


def by_target(autoscalers: Iterable[Autoscaler], scaled_objects: Iterable[Autoscaler]) -> dict[Target, Scaler]:
    """The first one by kind and name for each target."""
    found = [(_target(each, "", ""), _maker(each)) for each in autoscalers]
    # KEDA's own defaults; while one is paused or inactive it has no HorizontalPodAutoscaler, and KEDA writes 0 and 1
    defaults = (DEPLOYMENTS.group_version, DEPLOYMENTS.kind)
    found += [(_target(each, *defaults), Scaler(SCALED_OBJECTS.kind, each.metadata.name)) for each in scaled_objects]
    return dict(sorted(found, reverse=True))


def _target(scaler: Autoscaler, api_version: str, kind: str) -> Target:
    target = scaler.spec.scale_target_ref
    group, slash, _ = (target.api_version or api_version).partition("/")
    return Target(scaler.metadata.namespace, group if slash else "", target.kind or kind, target.name)


def _maker(autoscaler: Autoscaler) -> Scaler:
    """KEDA would make a deleted HorizontalPodAutoscaler anew: what counts is the ScaledObject that it comes from."""
    owners = [each.name for each in autoscaler.metadata.owner_references or () if each.kind == SCALED_OBJECTS.kind]
    label = (autoscaler.metadata.labels or {}).get(KEDA_LABEL)
    made_of = next(iter(owners), label)
    if made_of:
        return Scaler(SCALED_OBJECTS.kind, made_of)
    return Scaler(HORIZONTAL_POD_AUTOSCALERS.kind, autoscaler.metadata.name)


class _Count(msgspec.Struct):
    replicas: dict[str, object] | None = msgspec.field(name="f:replicas", default=None)


class _Fields(msgspec.Struct):
    spec: _Count = msgspec.field(name="f:spec", default_factory=_Count)


_UNKNOWN: Final = ManagedFields(manager="an unknown manager")


def foreign_writer(there: Scalable) -> ManagedFields | None:
    """Who wrote the count last, and is not we. Whoever writes another count takes the field from all who had it."""
    writers = [each for each in there.metadata.managed_fields or () if _holds_count(each)]
    if any(each.manager == FIELD_MANAGER for each in writers):
        return None
    return max(writers, key=lambda each: each.time, default=_UNKNOWN)


def _holds_count(entry: ManagedFields) -> bool:
    try:
        return msgspec.json.decode(entry.fields_v1, type=_Fields).spec.replicas is not None
    except msgspec.DecodeError:  # of a kind that is not FieldsV1
        return False
