"""Kind `deployment`: a replica is a pod, a revision's object is a Deployment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from autoscaler.cluster.fencing import epoch_of
from autoscaler.cluster.resources import DEPLOYMENTS, REVISION_LABEL, Pod, Scalable
from autoscaler.cluster.scalable import Content, Kind, is_live, is_ready, labelled
from rollouts.machine import ObservedRevision


def spec(content: Content, own: Mapping[str, str], revision: str) -> dict[str, Any]:
    """The Deployment's spec: every pod is one that serves."""
    return {
        "revisionHistoryLimit": 0,  # a revision's template never changes
        "selector": {"matchLabels": dict(own)},
        "template": labelled(content["template"], {**own, REVISION_LABEL: revision}),
    }


def observe(name: str, there: Scalable | None, pods: Iterable[Pod]) -> ObservedRevision:
    """How the pods of a revision are."""
    live = [pod for pod in pods if is_live(pod)]
    terminating = sum(1 for pod in live if pod.metadata.deletion_timestamp)
    ready = sum(1 for pod in live if is_ready(pod))
    return ObservedRevision(
        name=name,
        replicas=there.spec.replicas if there else None,
        ready=ready,
        starting=len(live) - terminating - ready,
        unscheduled=sum(1 for pod in live if not pod.metadata.deletion_timestamp and not pod.spec.node_name),
        terminating=terminating,
        epoch=epoch_of(there.metadata) if there else None,
    )


KIND: Final = Kind("deployment", DEPLOYMENTS, spec, observe)
