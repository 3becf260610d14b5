"""What the daemon costs and how soon it acts: 100 workloads of 5 pods on a real control plane.

Prints lines `figure value unit`. Takes about 4 min. The pods are KWOK's and their pages imitated: one process serves
all 500 and shares the machine's cores with the control plane and the daemon, so reaction times are upper bounds. A
burst goes from the target to three times the target; kpa with its default windows needs three samples of it to panic.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster import sandbox, session
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

WORKLOADS: Final = 100
PODS: Final = 5
MEASURE_S: Final = 60.0
REACTIONS: Final = 30
TICK_S: Final = 2.0
TARGET: Final = 7  # requests in flight a replica: 70 % of metricThreshold
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


def main() -> None:
    with session.fresh_cluster() as cluster, tempfile.TemporaryDirectory() as directory:
        cluster.add_gpu_node("extra", gpus=1000)
        namespace = cluster.create_namespace("bench")
        with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace) as servers:
            measure(cluster, namespace, servers, Path(directory))


def measure(cluster: Cluster, namespace: str, servers: ModelServers, directory: Path) -> None:
    daemon = Daemon(cluster, namespace, directory, {"tick": f"{TICK_S:g}s", "kpa": {"stable-window": "60s"}}).start()
    autoscaling = {"minReplicas": PODS, "maxReplicas": 4 * PODS, "metric": "concurrency", "metricThreshold": 10}
    workloads = []
    for index in range(WORKLOADS):
        name = f"w{index:03}"
        servers.set_load(namespace, name, concurrency=TARGET * PODS - 2, slots=100)
        workloads.append(Workload(cluster, namespace, manifest(name, autoscaling)))
    for workload in workloads:
        workload.wait_ready(PODS, timeout_s=180)
    time.sleep(10)
    steady(daemon)
    reactions(cluster, namespace, servers, workloads)
    daemon.stop()


def steady(daemon: Daemon) -> None:
    """RSS, CPU and requests while nothing changes."""
    cpu, requests, started = cpu_s(daemon.pid), api_requests(daemon), time.monotonic()
    time.sleep(MEASURE_S)
    took = time.monotonic() - started
    figure("workloads", WORKLOADS, "count")
    figure("pods", WORKLOADS * PODS, "count")
    figure("daemon_rss_peak", peak_rss_mib(daemon.pid), "MiB")
    figure("daemon_cpu", (cpu_s(daemon.pid) - cpu) / took, "cores")
    figure("api_requests", (api_requests(daemon) - requests) / took, "1/s")
    figure("cycle_duration", metric(daemon, "tidegate_reconcile_duration_seconds") * 1000, "ms")
    figure("scrape_period", metric(daemon, "tidegate_scrape_period_seconds"), "s")


def reactions(cluster: Cluster, namespace: str, servers: ModelServers, workloads: list[Workload]) -> None:
    """From the first page that shows a burst to the written count, one workload after the other."""
    took = []
    for workload in workloads[:REACTIONS]:
        offered_at = servers.set_load(namespace, workload.name, concurrency=3 * TARGET * PODS, slots=100)
        written_at = rise(cluster, workload)
        shown_at = servers.first_page_with(
            namespace, workload.name, lambda in_flight: in_flight > TARGET * PODS, since=offered_at
        )
        took.append(written_at - (shown_at or offered_at))
    figure("page_to_write_p50", statistics.median(took), "s")
    figure("page_to_write_max", max(took), "s")


def rise(cluster: Cluster, workload: Workload) -> float:
    """When the count was seen above PODS, Unix seconds."""
    cluster.wait_for(lambda: workload.replicas() > PODS, "the count to rise", timeout_s=30, poll_s=0.02)
    return time.time()


def figure(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.4g} {unit}", flush=True)


def cpu_s(pid: int) -> float:
    """User and system seconds of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def peak_rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def metric(daemon: Daemon, name: str) -> float:
    """The sum over a family's series on the daemon's own page."""
    lines = daemon.get("/metrics")[1].splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def api_requests(daemon: Daemon) -> float:
    return metric(daemon, "rest_client_requests_total")


if __name__ == "__main__":
    if not sandbox.inside():
        run_dir = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
        command = sandbox.command_to_enter(run_dir, [sys.executable, *sys.argv])
        os.execv(command[0], command)
    main()
