"""What the fake kubelets do: KWOK's own stages, with delays that suit tests.

Upstream's ``pod/general`` stages take random seconds. Here every stage is immediate unless the pod asks:

======================================================  ====================================================
annotation of the pod (in the template)                 effect
======================================================  ====================================================
``pod-create.stage.kwok.x-k8s.io/delay: 2s``            2 s from scheduled to having an address
``pod-ready.stage.kwok.x-k8s.io/delay: 30s``            30 s from having an address to Ready (loading weights)
``pod-ready.stage.kwok.x-k8s.io/jitter-delay: 40s``     with the line above: between 30 and 40 s, at random
``pod-delete.stage.kwok.x-k8s.io/graceful: "true"``     deletion takes the pod's whole grace period (drain tests)
``pod-delete.stage.kwok.x-k8s.io/delay: 3s``            deletion takes 3 s
======================================================  ====================================================

A pod that should never become Ready asks for ``delay: 24h``.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import yaml

from tests.realcluster.process import Process

# KWOK 0.8.0 sometimes dies of this at its start: the first expressions of its stages, compiled at once, write one map
# of github.com/wzshiming/easycel without a lock. A kubelet would start its container again; so do we.
RACE: Final = "fatal error: concurrent map writes"
MOST_REVIVALS: Final = 3

GRACEFUL_KEY = '.metadata.annotations["pod-delete.stage.kwok.x-k8s.io/graceful"]'


def write_stages(manifests: Path, target: Path) -> None:
    """Read upstream's manifests, adapt them, write one file for `kwok --config`."""
    stages = [stage for path in sorted(manifests.glob("*.yaml")) for stage in yaml.safe_load_all(path.read_text())]
    adapted = [result for stage in stages for result in _adapted(stage)]
    target.write_text(yaml.safe_dump_all(adapted, sort_keys=False))


def _adapted(stage: dict[str, Any]) -> list[dict[str, Any]]:
    name = stage["metadata"]["name"]
    if name == "pod-delete":
        return [_quick_delete(stage), _graceful_delete(stage)]
    if name.startswith("pod-"):
        delay = stage["spec"]["delay"]
        delay["durationMilliseconds"] = 0
        del delay["jitterDurationMilliseconds"]
    return [stage]


def _quick_delete(upstream: dict[str, Any]) -> dict[str, Any]:
    """At once, or after the annotated delay: upstream's rule "until deletionTimestamp" taken out."""
    stage = copy.deepcopy(upstream)
    stage["spec"]["selector"]["matchExpressions"].append({"key": GRACEFUL_KEY, "operator": "NotIn", "values": ["true"]})
    stage["spec"]["delay"]["durationMilliseconds"] = 0
    del stage["spec"]["delay"]["jitterDurationFrom"]
    return stage


def _graceful_delete(upstream: dict[str, Any]) -> dict[str, Any]:
    """At the end of the grace period, which deletionTimestamp is. Upstream draws a moment between 1 s and that."""
    stage = copy.deepcopy(upstream)
    stage["metadata"]["name"] = "pod-delete-graceful"
    stage["spec"]["selector"]["matchExpressions"].append({"key": GRACEFUL_KEY, "operator": "In", "values": ["true"]})
    stage["spec"]["delay"] = {
        "durationMilliseconds": 0,
        "durationFrom": {"expressionFrom": ".metadata.deletionTimestamp"},
    }
    return stage


def revived(process: Process, before: int) -> bool:
    """Started again, if it is KWOK that ended and its known race was why: at most MOST_REVIVALS times.

    `before`: how often it was revived already. The log holds all starts, and one such line for each death by the race.
    """
    if process.name != "kwok" or before >= MOST_REVIVALS:
        return False
    if process.log_path.read_text(errors="replace").count(RACE) <= before:
        return False
    print(f"kwok ended with {RACE!r}, a fault of its own start: started again ({before + 1} of {MOST_REVIVALS})")
    process.start()
    return True
