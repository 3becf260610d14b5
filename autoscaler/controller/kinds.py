"""Which kinds of serving there are, and of which one a revision is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from autoscaler.cluster.scalable import Kind
from autoscaler.cluster.store import Store
from autoscaler.cluster.workloads import deployment, leaderworkerset

KINDS: Final = (deployment.KIND, leaderworkerset.KIND)


def kind_of(store: Store, namespace: str, revision: str, identity: Mapping[str, Any] | None) -> Kind:
    """By the revision's content; where that was lost, by the object that is there."""
    for kind in KINDS:
        if identity is not None and identity.get(kind.field) is not None:
            return kind
    there = (kind for kind in KINDS if store.scalables[kind.resource].find(namespace, revision) is not None)
    return next(there, deployment.KIND)
