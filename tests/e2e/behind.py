"""A daemon behind a fault proxy, and what it wrote through it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Exchange


@dataclass(frozen=True, slots=True)
class Written:
    """A replica count that the API server took."""

    workload: str
    replicas: int
    asked_at: float  # Unix seconds, as the next one
    answered_at: float


class Behind:
    """One daemon, one proxy."""

    def __init__(self, cluster: Cluster, proxy: FaultProxy, daemon: Daemon) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.daemon = daemon
        self._lines = 0

    def mark(self) -> None:
        """What was written and logged so far does not count below."""
        self.proxy.forget()
        self._lines = len(self.daemon.log().splitlines())

    def counts(self) -> list[Written]:
        """In the order of asking."""
        found = []
        for each in self._taken("/deployments"):
            replicas = each.json().get("spec", {}).get("replicas")
            if replicas is not None:
                name = each.path.removesuffix("/scale").rpartition("/")[2]
                workload = name.rpartition("-")[0] if each.method == "PATCH" else each.json()["metadata"]["name"]
                found.append(Written(workload, replicas, each.at_s, each.ended_at or time.time()))
        return found

    def asked(self, workload: str) -> list[int]:
        """Its counts; the proxy writes a call down once it is answered, which is after the API server shows it."""
        return [each.replicas for each in self.counts() if each.workload == workload]

    def wait_settled(self, workloads: Mapping[Workload, int], seconds: float = 8.0) -> None:
        """Each has this count, has it ready, and none was written for so long: pods that come and go show up twice."""

        def settled() -> bool:
            last = max([each.answered_at for each in self.counts()], default=0.0)
            return time.time() - last >= seconds and all(
                workload.replicas() == workload.ready() == count for workload, count in workloads.items()
            )

        self.cluster.wait_for(settled, "the counts to settle", timeout_s=90)

    def stamped_at(self) -> list[float]:
        """When the API server had taken each stamp."""
        stamps = [each for each in self._taken("/deployments/") if "annotations" in each.json()["metadata"]]
        return [each.ended_at or time.time() for each in stamps]

    def _taken(self, path: str) -> list[Exchange]:
        """Writes that the API server took, whatever the daemon heard of it."""
        return [
            each
            for each in self.proxy.exchanges()
            if each.is_write and path in each.path and each.server_status is not None and each.server_status < 300
        ]

    def lines(self) -> list[dict[str, Any]]:
        """The log since the mark; what is not JSON is a line of level "raw"."""
        new = self.daemon.log().splitlines()[self._lines :]
        return [json.loads(line) if line.startswith("{") else {"level": "raw", "event": line} for line in new]

    def loud(self) -> list[tuple[str, str]]:
        """Level and event of the lines at warning and above."""
        return [(each["level"], each["event"]) for each in self.lines() if each["level"] not in ("debug", "info")]

    def told(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.lines() if each["event"] == event]

    def healthy_for(self, seconds: float) -> str:
        """It lives all the time; the last answer of /readyz."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            alive, why = self.daemon.get("/healthz")
            assert alive == 200, why
            time.sleep(0.2)
        return self.daemon.get("/readyz")[1]


@contextlib.contextmanager
def behind(
    cluster: Cluster,
    proxy: FaultProxy,
    namespace: str,
    directory: Path,
    config: Mapping[str, Any],
    command: Sequence[str] = (),
) -> Iterator[Behind]:
    """Starts it; shows its log in the end."""
    daemon = Daemon(cluster, namespace, directory, config, proxy.url, command=command)
    try:
        yield Behind(cluster, proxy, daemon.start())
    finally:
        daemon.stop()
        print(f"--- daemon of {namespace}\n{daemon.log()[-8000:]}")
