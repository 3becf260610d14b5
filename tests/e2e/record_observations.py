"""Records what a daemon observed and decided on the real control plane, for `tests/controller/test_same_decisions.py`.

Not collected by itself: `pytest tests/e2e/record_observations.py` writes `tests/data/observations` anew.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.e2e.conftest import StartDaemon
from tests.e2e.test_scaling import CONCURRENCY, gateway
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

OUT = Path(__file__).parents[1] / "data" / "observations" / "deployment.jsonl"
AUTOSCALING = {"minReplicas": 0, "maxReplicas": 6, "scaleToZeroRetentionSeconds": 3, **CONCURRENCY}
LOAD = ((3, 8), (25, 12), (60, 8), (10, 20), (0, 22), (3, 8))  # requests in flight, for so many seconds


def row(report: dict[str, Any]) -> dict[str, Any]:
    """One decision and what it was made from, as the daemon's page tells it."""
    decision, counts = report["decision"], report["counts"]
    read = decision["inputs"][0] if decision["inputs"] else {}
    return {
        "at": decision["atSeconds"],
        "applied": decision["current"],
        **{name: counts[name] for name in ("ready", "starting", "terminating")},
        **{name: read.get(name) for name in ("value", "quality", "ageSeconds", "podsFresh", "podsExpected")},
        "desired": decision["desired"],
        "rule": decision["rule"],
    }


def test_record(cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(tick="1s")
    servers.set_load(namespace, "llama", concurrency=3, slots=100)
    body = manifest("llama", {**AUTOSCALING, "activation": gateway(namespace, "llama")}, ready_after_s=2)
    workload = Workload(cluster, namespace, body)
    workload.wait_ready(1)
    rows: dict[float, dict[str, Any]] = {}
    for concurrency, seconds in LOAD:
        servers.set_load(namespace, "llama", concurrency=concurrency, slots=100)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = row(daemon.explain("llama"))
            rows[found["at"]] = found
            time.sleep(0.1)
    OUT.write_text("".join(f"{json.dumps(rows[at])}\n" for at in sorted(rows)))
