"""What benchmarks/scale.py sees from outside: replica counts through a watch, processes through /proc, ticks by asking.

Nothing here asks the daemon for more than a probe would: its one long page is read before and after, never while.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from autoscaler.cluster.resources import DEPLOYMENTS, WORKLOAD_LABEL, Scalable
from tests.e2e.daemon import Daemon
from tests.realcluster.cluster import Cluster

WATCH_S: Final = 7200
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
PROBE_EVERY_S: Final = 0.1  # a cycle follows the one before by 0.25 s at least
LAST_CYCLE: Final = re.compile(r"the last cycle took ([0-9.]+) s")


class _Event(msgspec.Struct):
    type: str
    object: Scalable


class Counts:
    """spec.replicas and ready replicas of a namespace's Deployments, by workload; instants are those of arrival."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.written: dict[str, int] = {}
        self.ready: dict[str, int] = {}
        self.raises: dict[str, list[float]] = {}  # Unix seconds of every raise, oldest first
        self._lost: Exception | None = None
        self._thread = threading.Thread(target=self._follow, args=(cluster, namespace), daemon=True)
        self._thread.start()

    def all_ready(self, names: list[str], pods: int) -> bool:
        """Has each of them so many ready? Raises when the watch has ended."""
        self.check()
        return all(self.ready.get(name) == pods for name in names)

    def raised_after(self, name: str, since: float) -> list[float]:
        """Its raises from this instant on."""
        return [at for at in self.raises.get(name, ()) if at > since]

    def check(self) -> None:
        if self._lost is not None:
            raise RuntimeError("the benchmark's own watch ended") from self._lost

    def _follow(self, cluster: Cluster, namespace: str) -> None:
        address = urlsplit(cluster.url)
        tls = ssl.create_default_context(cafile=str(cluster.ca_path))
        connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=tls, timeout=WATCH_S)
        headers = {"Authorization": f"Bearer {cluster.admin_token}", "Accept": "application/json"}
        path = f"{DEPLOYMENTS.path(namespace)}?watch=true&timeoutSeconds={WATCH_S}&labelSelector={WORKLOAD_LABEL}"
        decode = msgspec.json.Decoder(_Event).decode
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            while line := response.readline():
                self._take(decode(line), time.time())
            raise ConnectionError("the API server ended it")
        except Exception as error:
            self._lost = error

    def _take(self, event: _Event, now: float) -> None:
        there = event.object
        name = (there.metadata.labels or {})[WORKLOAD_LABEL]
        if there.spec.replicas > self.written.get(name, there.spec.replicas):
            self.raises.setdefault(name, []).append(now)
        self.written[name] = there.spec.replicas
        self.ready[name] = there.status.ready_replicas


@dataclass(slots=True)
class Probe:
    """Asks /readyz ten times a second: how long did the last cycle take, and how long does the answer take?"""

    daemon: Daemon
    cycles_s: list[float] = field(default_factory=list)
    answers_s: list[float] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Probe:
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        assert self._thread is not None
        self._thread.join()

    def _ask(self) -> None:
        """The same duration twice in a row is taken for the same cycle; it is given in whole milliseconds."""
        newest: str | None = None
        while not self._end.wait(PROBE_EVERY_S):
            began = time.perf_counter()
            found = LAST_CYCLE.search(self.daemon.get("/readyz")[1])
            self.answers_s.append(time.perf_counter() - began)
            if found and newest not in (None, found[1]):  # the first one is of before
                self.cycles_s.append(float(found[1]))
            newest = found[1] if found else newest


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far of some processes and of the whole machine, at an instant."""

    at: float
    cpu_s: Mapping[str, float]
    machine_s: float

    @classmethod
    def now(cls, pids: Mapping[str, int]) -> Usage:
        return cls(time.monotonic(), {name: _cpu_s(pid) for name, pid in pids.items()}, _machine_s())

    def cores_since(self, before: Usage) -> dict[str, float]:
        """Mean cores of each process, and of all the "others" on this machine, the kernel's own work included."""
        took = self.at - before.at
        cores = {name: (value - before.cpu_s[name]) / took for name, value in self.cpu_s.items()}
        return {**cores, "others": (self.machine_s - before.machine_s) / took - sum(cores.values())}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def _machine_s() -> float:
    """Time not idle, over all cores."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / CLOCK_TICKS


def memory_mib(pid: int, which: str) -> float:
    """VmHWM: the most it ever had resident; VmRSS: now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024
