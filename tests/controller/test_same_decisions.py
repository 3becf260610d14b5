"""One recorded series of observations gives the identical decisions on every kind.

The series is what a daemon saw of a Deployment on the real control plane (`tests/e2e/record_observations.py`): load
that comes, doubles, goes, zero, and a wake. It is played to the real store, snapshot and cycle as the objects of three
workloads: pods of a Deployment, groups of a LeaderWorkerSet, and pods of a StatefulSet of somebody else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoscaler.controller.cycle import Cycle
from autoscaler.controller.specs import Operator
from autoscaler.model.decision import ScalingDecision
from autoscaler.model.signal import Activation, Quality, Reading, Sample, WorkloadSignals
from autoscaler.model.workload import ActivationSpec, KpaParameters, TargetKey, WorkloadKey
from autoscaler.signals.targets import ScrapeTarget
from tests.cluster.objects import Objects
from tests.controller.following import APPS, LWS, PODS, WORKLOADS, following, until

SERIES = Path(__file__).parents[1] / "data" / "observations" / "deployment.jsonl"
KINDS = ("deployment", "groups", "target")
Row = Mapping[str, Any]
GROUP = "leaderworkerset.sigs.k8s.io"
TEMPLATE = {"spec": {"containers": [{"name": "m", "image": "m:1"}]}}
SERVING: Mapping[str, Mapping[str, Any]] = {
    "deployment": {"deployment": {"template": TEMPLATE}},
    "groups": {"leaderWorkerSet": {"size": 2, "workerTemplate": TEMPLATE}},
    "target": {"targetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "target"}},
}
AUTOSCALING = {
    "minReplicas": 0,
    "maxReplicas": 6,
    "scaleToZeroRetentionSeconds": 3,
    "metric": "concurrency",
    "metricThreshold": 10,
    "activation": {"page": "gateway", "metric": "gateway_pending_requests"},
}


class Recorded:
    """Signals and activations of the present row, the same for every workload."""

    effective_period_s = 1.0

    def __init__(self) -> None:
        self.row: Row = {}
        self._samples: dict[int, float] = {}

    def show(self, row: Row) -> None:
        self.row = row
        if row["value"] is not None:
            self._samples[int(row["at"])] = row["value"]

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None:
        self.targets = targets

    def readings(self, now_s: float) -> Mapping[TargetKey, WorkloadSignals]:
        row = self.row
        samples = tuple(Sample(float(at), value) for at, value in sorted(self._samples.items()) if at > now_s - 60)
        reading = Reading(
            "concurrency",
            row["value"],
            Quality(row["quality"] or "absent"),
            samples,
            row["ageSeconds"],
            row["podsExpected"] or 0,
            row["podsFresh"] or 0,
        )
        signals = WorkloadSignals({"concurrency": reading}, replace(reading, name="activity"), "vllm")
        return {WorkloadKey("ml", kind): signals for kind in KINDS}

    def state(self, spec: ActivationSpec, now_s: float) -> Activation:
        return Activation.WAITING if self.row["rule"] == "Activated" else Activation.IDLE


def pod(labels: Mapping[str, str], state: str) -> dict[str, Any]:
    ready = [{"type": "Ready", "status": "True" if state != "starting" else "False"}]
    meta: dict[str, Any] = {"labels": dict(labels), "annotations": {f"{GROUP}/size": "2"}}
    if state == "terminating":
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": ready}
    return {"metadata": meta, "spec": {"nodeName": "n"}, "status": status}


def pods_of(kind: str, row: Row) -> dict[str, dict[str, Any]]:
    """By name. A group is a leader that is always ready and a worker in the state of the group."""
    revision = {"tidegate.dev/workload": kind, "tidegate.dev/owner-revision": f"{kind}-1"}
    found = {}
    for state in ("ready", "starting", "terminating"):
        for number in range(row[state]):
            name = f"{kind}-{state}-{number}"
            if kind == "groups":
                own = {**revision, f"{GROUP}/group-index": name}
                leads = {**own, f"{GROUP}/worker-index": "0", "tidegate.dev/revision": "groups-1"}
                found[f"{name}-leader"] = pod(leads, "terminating" if state == "terminating" else "ready")
                found[f"{name}-worker"] = pod({**own, f"{GROUP}/worker-index": "1"}, state)
            else:
                labels = (
                    {**revision, "tidegate.dev/revision": "deployment-1"} if kind == "deployment" else {"app": kind}
                )
                found[name] = pod(labels, state)
    return found


def play(objects: Objects, row: Row) -> None:
    """The row as the objects of all three."""
    owned = {"tidegate.dev/workload": "x"}
    count = {"replicas": row["applied"]}
    objects.put(f"{APPS}/deployments", "deployment-1", {"metadata": {"labels": owned}, "spec": count})
    objects.put(f"{LWS}/leaderworkersets", "groups-1", {"metadata": {"labels": owned}, "spec": count})
    scale = {"spec": count, "status": {"selector": "app=target"}}
    objects.put(f"{APPS}/statefulsets", "target", {"spec": count}, scale)
    wanted = {name: body for kind in KINDS for name, body in pods_of(kind, row).items()}
    for name in objects.names(PODS) - wanted.keys():
        objects.delete(PODS, name)
    for name, body in wanted.items():
        objects.put(PODS, name, body)
    for kind in KINDS:
        current = "statefulsets.apps/target" if kind == "target" else f"{kind}-1"
        record = {**count, "phase": "Complete", "initialized": True, "servedAt": "2026-01-01T00:00:00Z"}
        spec = {"serving": {**SERVING[kind], "port": 8000}, "autoscaling": AUTOSCALING}
        objects.put(WORKLOADS, kind, {"spec": spec, "status": {"currentRevision": current, "record": record}})


async def replay(rows: Sequence[Row]) -> list[dict[str, ScalingDecision]]:
    objects, recorded = Objects(), Recorded()
    operator = Operator(
        kpa=KpaParameters(stable_window_s=6.0),
        pages=frozenset({"gateway"}),
        target_kinds={("apps/v1", "StatefulSet"): "statefulsets"},
    )
    now = 0.0
    found = []
    async with following(objects, recorded, operator, lambda: now) as cycle:
        for row in rows:
            now = row["at"]
            recorded.show(row)
            play(objects, row)
            await until(lambda row=row: shows(cycle, row))  # type: ignore[misc]
            _, decided = cycle.decide(cycle.observe())
            found.append({key.name: decision for key, decision in decided.of_current.items()})
    return found


def shows(cycle: Cycle, row: Row) -> bool:
    """Has everything that was put arrived?"""
    seen = {each.key.name: each.observed.current for each in cycle.observe().subjects}
    wanted = tuple(row[name] for name in ("applied", "ready", "starting", "terminating"))
    return all(
        (each := seen.get(kind)) is not None and (each.replicas, each.ready, each.starting, each.terminating) == wanted
        for kind in KINDS
    )


def test_the_recorded_observations_give_the_same_decisions_on_all_kinds() -> None:
    rows = [json.loads(line) for line in SERIES.read_text().splitlines()]
    decisions = asyncio.run(replay(rows))
    assert len(decisions) == len(rows) > 50
    for row, found in zip(rows, decisions, strict=True):
        assert found.keys() == set(KINDS)
        assert found["deployment"] == found["groups"] == found["target"], row
    counts = [found["target"].desired for found in decisions]
    assert {0, 1, 4, 6} <= set(counts), "the series goes up, to its bound, down, and to zero"
    assert counts == [row["desired"] for row in rows], "and they are those of the day"
