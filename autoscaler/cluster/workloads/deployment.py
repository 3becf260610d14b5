"""Kind `deployment`: a replica is a pod, a revision's object is a Deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from autoscaler.cluster.resources import DEPLOYMENTS, REVISION_LABEL
from autoscaler.cluster.scalable import Content, Kind, labelled, observe_pods


def spec(content: Content, own: Mapping[str, str], revision: str) -> dict[str, Any]:
    """The Deployment's spec: every pod is one that serves."""
    return {
        "revisionHistoryLimit": 0,  # a revision's template never changes
        "selector": {"matchLabels": dict(own)},
        "template": labelled(content["template"], {**own, REVISION_LABEL: revision}),
    }


KIND: Final = Kind("deployment", DEPLOYMENTS, spec, observe_pods)
