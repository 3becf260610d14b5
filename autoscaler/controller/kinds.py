"""Which kinds of serving there are, of which one a revision is, and what a replica of a target is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from autoscaler.cluster.resources import LEADER_WORKER_SETS
from autoscaler.cluster.scalable import Kind, Shape
from autoscaler.cluster.store import Store
from autoscaler.cluster.workloads import deployment, leaderworkerset, scaletarget
from autoscaler.model.workload import TargetSpec

KINDS: Final = (deployment.KIND, leaderworkerset.KIND)


def kind_of(store: Store, namespace: str, revision: str, identity: Mapping[str, Any] | None) -> Kind:
    """By the revision's content; where that was lost, by the object that is there."""
    for kind in KINDS:
        if identity is not None and identity.get(kind.field) is not None:
            return kind
    there = (kind for kind in KINDS if store.scalables[kind.resource].find(namespace, revision) is not None)
    return next(there, deployment.KIND)


def shape_of(target: TargetSpec) -> Shape:
    """By group and kind: a group's versions show the same object."""
    group = target.api_version.partition("/")[0]
    groups = group == LEADER_WORKER_SETS.group_version.partition("/")[0] and target.kind == LEADER_WORKER_SETS.kind
    return leaderworkerset.SHAPE if groups else scaletarget.PODS_SHAPE
