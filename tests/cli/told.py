"""What the daemon tells of a workload at some moments of its life: statuses for the tests of the commands."""

from __future__ import annotations

from typing import Any

from tests.cli.desk import AT, rollout
from tests.e2e.workload import manifest

BOUNDS = {"minReplicas": 3, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10}
OLD, NEW = "llama-1a2b3c4d", "llama-7f3a91c2"
GPU = "nvidia.com/gpu"

RUNNING: dict[str, Any] = {
    "phase": "Running",
    "phaseMessage": "3 of 3 replicas ready",
    "scalingMode": "Auto",
    "counts": {"desired": 3, "granted": 3, "applied": 3, "ready": 3, "starting": 0, "terminating": 0},
    "currentRevision": OLD,
    "signals": [{"name": "concurrency", "value": "21", "target": "7", "recommended": 3, "quality": "fresh"}],
    "traffic": [{"revisionName": OLD, "percent": 100}],
    "revisions": [
        {"name": OLD, "role": "Current", "replicas": 3, "ready": 3, "trafficPercent": 100, "nodePool": "default"}
        | {"held": {GPU: 3000}}
    ],
    "quota": {"project": "ml-team", "nodePool": "default", "gpusLimit": 12000, "gpusFree": 9000},
    "record": {"phase": "Complete", "servedAt": AT, "startedAt": AT},
}
SHORT = "Update llama-7f3a91c2 queued: 1 GPU short in project ml-team (7 of 8 free)"
QUEUED: dict[str, Any] = {
    **RUNNING,
    "phaseMessage": SHORT,
    "updateRevision": NEW,
    "rollout": rollout(NEW, "Queued", reason="WaitingForQuota", queueDeadlineAt="2126-05-01T10:00:00.000000Z"),
    "rolloutMessage": SHORT,
    "quota": {"project": "ml-team", "nodePool": "default", "gpusLimit": 8000, "gpusFree": 7000, "gpusShort": 1000},
}
SHIFTING: dict[str, Any] = {
    **RUNNING,
    "updateRevision": NEW,
    "rollout": rollout(
        NEW,
        "Paused",
        step=1,
        weight=10,
        verified=10,
        heldAt=AT,
        progressDeadlineAt=AT,
        pause={"by": "step", "since": AT, "until": "2126-05-01T10:00:00.000000Z", "resumes": "Shifting"},
    ),
    "traffic": [{"revisionName": OLD, "percent": 90}, {"revisionName": NEW, "percent": 10}],
    "revisions": [
        {**RUNNING["revisions"][0], "trafficPercent": 90},
        {"name": NEW, "role": "Update", "replicas": 3, "ready": 2, "trafficPercent": 10, "nodePool": "h100"}
        | {"held": {GPU: 3000}},
    ],
}
LATE = f"Update {NEW} failed: it did not serve within the progress deadline; {OLD} goes on"
FAILED: dict[str, Any] = {
    **RUNNING,
    "updateRevision": NEW,
    "rollout": rollout(NEW, "Failed", reason="ProgressDeadlineExceeded"),
    "rolloutMessage": LATE,
    "conditions": [
        {"type": "Stalled", "status": "True", "reason": "ProgressDeadlineExceeded", "message": LATE}
        | {"lastTransitionTime": AT}
    ],
}


def whole(name: str = "llama", **spec: Any) -> dict[str, Any]:
    return manifest(name, BOUNDS, priority="high", project="ml-team", **spec)
