"""Kind `deployment`: a replica is a pod, a revision's object is a Deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from autoscaler.cluster.resources import DEPLOYMENTS, REVISION_LABEL
from autoscaler.cluster.scalable import Content, Kind, NodeLabels, observe_pods, pod_template


def spec(content: Content, own: Mapping[str, str], revision: str, nodes: NodeLabels) -> dict[str, Any]:
    """The Deployment's spec: every pod is one that serves."""
    return {
        "revisionHistoryLimit": 0,  # a revision's template never changes
        "selector": {"matchLabels": dict(own)},
        "template": pod_template(content["template"], {**own, REVISION_LABEL: revision}, nodes),
    }


KIND: Final = Kind("deployment", DEPLOYMENTS, spec, observe_pods)
