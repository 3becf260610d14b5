"""1,000 workloads of 3 pods on a real control plane: what the daemon costs and how soon it acts, beside Kubernetes'
own HorizontalPodAutoscaler in the same run.

Every pod's page is read each 3 s (1,000 pages a second). Ten times a second one workload's load changes: every other
change is a rise, to three times (x3) or ten times (x10) what its replicas should carry; the others end the rise of a
workload that has reacted. One sample of x10 is enough for the policy's windows (60 s and 6 s, the defaults), x3 needs
three of its samples, one a second: what x3 takes longer is the policy's. A rise can be answered by one more replica
(maxReplicas is one above the pods), so that the number of pods stays near what was asked for. Nobody rises twice. Only
scale-ups count.

What is measured, and from where:

  page_to_scale  from the first page served that shows the new load (any pod of the workload, the model servers'
                 clock) to the raised spec.replicas of its Deployment arriving in a watch of this benchmark
  load_to_scale  the same from the change of the load itself: with the wait for the page, as the user feels it
  tick           the daemon's own word for how long a cycle took, waiting for the API server included, asked ten times
                 a second; deciding alone takes less
  loop_lag       how long the daemon took to answer those questions: it has one thread, which decides, too
  budget_wait    seconds that writes waited for the daemon's own budget (50 a second), summed over writes
  cpu, rss       /proc of that process alone; no other process of the run is in it
  no_reaction    rises with no raise of the count within 60 s
  raised_again   workloads whose count went up a second time, though their load went up only once

Imitated: the pods are KWOK's, without containers; one process serves all their pages (its own CPU is printed). For the
peer, an imitated prometheus-adapter behind the real aggregation layer answers with every pod's true value of the
instant, without any scrape or query delay, and the controller manager may send 500 requests a second instead of 20.
Both flatter the peer. Everything shares this machine's cores, so times are upper bounds; cpu_of_others is what the
machine did besides: above a tenth of a core, something else was running and the figures are worth less.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks import scale_adapter
from benchmarks.scale_counts import Counts, Probe, Usage, memory_mib
from benchmarks.scale_pods import Imitation
from tests.e2e.daemon import Daemon
from tests.e2e.workload import WORKLOADS, manifest
from tests.realcluster import assets, sandbox
from tests.realcluster.cluster import Cluster, fresh_directory
from tests.realcluster.modelserver_watch import WORKLOAD_LABEL, ApiAccess

POD_CIDR: Final = "10.244.0.0/17"
TARGET: Final = 7  # requests in flight a replica: 70 % of metricThreshold
STRENGTHS: Final = (3, 10)  # a rise goes to so many times the target
CHANGE_EVERY_S: Final = 0.1
REACT_WITHIN_S: Final = 60.0
QUIET_S: Final = 30.0
SCRAPE_PERIOD_S: Final = 3
CREATION_BUDGET: Final = 400  # writes a second while all is created; measured with the default
PODS_PER_NODE: Final = 900
READY_WITHIN_S: Final = 900.0
SETTLE_WITHIN_S: Final = 90.0
PAGE_TO_SCALE_BAR_S: Final = 3.0
DAEMON_CPU_BAR_CORES: Final = 0.5
DAEMON_RSS_BAR_MIB: Final = 200 * 1e6 / 2**20  # 200 MB
DECIDING_BAR_MS: Final = 100
CONTROLLERS: Final = "kube-controller-manager"
EPILOG: Final = """\
Lines are `figure value unit`; where there is a bar, it follows with "met" or "MISSED". Progress goes to stderr.

  .venv/bin/python benchmarks/scale.py                                 all of it, about 12 min
  .venv/bin/python benchmarks/scale.py --workloads 20 --seconds 20     does it work here? about 3 min
  .venv/bin/python benchmarks/scale.py --no-peer                       the daemon alone
  .venv/bin/python benchmarks/scale.py --no-peer --profile daemon.prof
      the daemon under cProfile, about twice as slow; read it with: python -m pstats daemon.prof
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it."""

    workloads: int
    pods: int
    seconds: int
    profile: Path | None = None

    @property
    def names(self) -> list[str]:
        return [f"w{index:04}" for index in range(self.workloads)]

    @property
    def base(self) -> int:
        """In flight before a rise: what `pods` replicas just carry."""
        return TARGET * self.pods - 2


@dataclass(frozen=True, slots=True)
class Rise:
    """One workload's load went up."""

    strength: int
    changed_at: float  # Unix seconds


@dataclass(slots=True)
class Changes:
    """What was done to the loads."""

    rises: dict[str, Rise] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    took_s: float = 0.0

    @property
    def number(self) -> int:
        return len(self.rises) + len(self.ended)

    def reacted(self, name: str, counts: Counts) -> bool:
        return self.load_to_scale_s(name, counts) < math.inf

    def load_to_scale_s(self, name: str, counts: Counts) -> float:
        """From the change of the load to the first raise of the count; infinite while there is none."""
        changed_at = self.rises[name].changed_at
        return next(iter(counts.raised_after(name, changed_at)), math.inf) - changed_at


class ProfiledDaemon(Daemon):
    """The same command under cProfile."""

    profile: Path

    def start(self) -> Daemon:
        profiled = [sys.executable, "-m", "cProfile", "-o", str(self.profile)]
        command = [str(Path(sys.executable).with_name("tidegate")), "run"]
        files = [f"--config={self._directory / 'config.yaml'}", f"--kubeconfig={self._directory / 'kubeconfig'}"]
        with (self._directory / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen([*profiled, *command, *files], stdout=log, stderr=subprocess.STDOUT)
        self.cluster.wait_for(self._ready, "the daemon to be ready")
        return self


def main() -> None:
    size, peer = arguments()
    if not sandbox.inside():
        assets.Resolver(os.environ).resolve_all(build=True)  # the namespace has no way out to fetch them
        command = sandbox.command_to_enter(
            Path(tempfile.mkdtemp(prefix="tidegate-bench-")), [sys.executable, *sys.argv]
        )
        os.execv(command[0], command)
    began = time.monotonic()
    programs = {name: part.path for name, part in assets.Resolver(os.environ).resolve_all(build=False).items()}
    run_dir, _ = fresh_directory()
    with Cluster.start(run_dir, programs, POD_CIDR) as cluster:
        prepare(cluster, size)
        measure_daemon(cluster, size, run_dir)
        if peer:
            measure_peer(cluster, size, run_dir)
    figure("run", (time.monotonic() - began) / 60, "min")


def arguments() -> tuple[Size, bool]:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument("--pods", type=int, default=3, metavar="N", help="ready pods of each before a rise (3)")
    parser.add_argument("--seconds", type=int, default=120, metavar="S", help="how long loads change (120)")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="run the daemon under cProfile, write this")
    parser.add_argument(
        "--peer", action=argparse.BooleanOptionalAction, default=True, help="measure the HorizontalPodAutoscaler, too"
    )
    given = parser.parse_args()
    if min(given.workloads, given.pods, given.seconds) < 1:
        parser.error("--workloads, --pods and --seconds must be at least 1")
    return Size(given.workloads, given.pods, given.seconds, given.profile and given.profile.resolve()), given.peer


def prepare(cluster: Cluster, size: Size) -> None:
    """Nodes for everything, and a controller manager with the HorizontalPodAutoscaler's defaults.

    The tests' own flag makes it look every 2 s. More workers for Deployments and ReplicaSets only shorten the creation.
    """
    controllers = cluster.processes[CONTROLLERS]
    kept = [each for each in controllers.command if "horizontal-pod-autoscaler-sync-period" not in each]
    more = ["--concurrent-deployment-syncs=20", "--concurrent-replicaset-syncs=20"]
    controllers.kill()
    cluster.processes[CONTROLLERS] = replace(controllers, command=(*kept, *more))
    cluster.processes[CONTROLLERS].start()
    for number in range(math.ceil(2 * size.workloads * (size.pods + 1) / PODS_PER_NODE)):
        cluster.add_gpu_node(f"extra-{number}", gpus=1000)
    figure("workloads", size.workloads, "count")
    figure("pods", size.workloads * size.pods, "count")
    figure("cores_of_this_machine", os.cpu_count() or 0, "count")


# --- the daemon ---


def measure_daemon(cluster: Cluster, size: Size, directory: Path) -> None:
    namespace = cluster.create_namespace("bench")
    access = ApiAccess(cluster.url, cluster.admin_token, str(cluster.ca_path), namespace)
    with Imitation("benchmarks.scale_pages", access, directory / "pages.log") as servers:
        servers.set_loads(dict.fromkeys(size.names, size.base))
        daemon = started(cluster, namespace, size, directory)
        counts = Counts(cluster, namespace)
        for done, name in enumerate(size.names, 1):
            bounds = {"minReplicas": size.pods, "maxReplicas": size.pods + 1}
            scaling = {**bounds, "metric": "concurrency", "metricThreshold": TARGET * 10 // 7}
            cluster.create(WORKLOADS.format(namespace), manifest(name, scaling))
            progress(done, size.workloads, "workloads created")
        await_ready(cluster, counts, size)
        apply_default_budget(cluster, daemon, directory / "config.yaml")
        settle(daemon)
        pids = {"daemon": daemon.pid, "pages": servers.pid, **control_plane(cluster)}
        quiet(daemon, pids)
        changing(daemon, servers, counts, size, pids)
        daemon.stop()
    say("daemon stopped")


def started(cluster: Cluster, namespace: str, size: Size, directory: Path) -> Daemon:
    config = {
        "tick": "2s",
        "scrape": {"period": f"{SCRAPE_PERIOD_S}s"},
        "kpa": {"stable-window": "60s"},
        "writes": {"budgetPerSecond": CREATION_BUDGET},
    }
    if size.profile is None:
        return Daemon(cluster, namespace, directory, config).start()
    daemon = ProfiledDaemon(cluster, namespace, directory, config)
    daemon.profile = size.profile
    return daemon.start()


def apply_default_budget(cluster: Cluster, daemon: Daemon, file: Path) -> None:
    """Edits the configuration while the daemon runs, as a changed ConfigMap would."""
    document = yaml.safe_load(file.read_text())
    del document["writes"]
    edited = file.with_suffix(".new")
    edited.write_text(yaml.safe_dump(document))
    edited.rename(file)

    def applies() -> bool:
        return series(daemon, "tidegate_write_budget_per_second") < CREATION_BUDGET

    cluster.wait_for(applies, "the edited configuration to apply", 120, poll_s=2)


def settle(daemon: Daemon) -> None:
    """Lets the daemon tell what it did while all was created, within bounds: what is left is a figure, too."""
    say(f"the daemon writes statuses, at most {SETTLE_WITHIN_S:g} s")
    end = time.monotonic() + SETTLE_WITHIN_S
    while (page := daemon.get("/metrics")[1]) and time.monotonic() < end:
        if total(page, "tidegate_status_writes_deferred") == total(page, "tidegate_events_queue_length") == 0:
            break
        time.sleep(5)
    figure("statuses_left_from_creation", total(page, "tidegate_status_writes_deferred"), "count")
    figure("events_left_from_creation", total(page, "tidegate_events_queue_length"), "count")
    figure("events_dropped_in_creation", total(page, "tidegate_events_dropped_total"), "count")


def quiet(daemon: Daemon, pids: Mapping[str, int]) -> None:
    say(f"daemon: {QUIET_S:g} s without a change")
    before = Usage.now(pids)
    with Probe(daemon) as probe:
        time.sleep(QUIET_S)
    cores = Usage.now(pids).cores_since(before)
    figure("daemon_cpu_quiet", cores["daemon"], "cores")
    spread("tick_quiet", [1000 * each for each in probe.cycles_s], "ms")
    spread("loop_lag_quiet", [1000 * each for each in probe.answers_s], "ms")
    print(
        f"# bar: deciding for all workloads <= {DECIDING_BAR_MS} ms of CPU a tick; not seen from outside: a tick above"
    )
    print("# also looks, tells and waits, and shares the cores", flush=True)


def changing(daemon: Daemon, servers: Imitation, counts: Counts, size: Size, pids: Mapping[str, int]) -> None:
    page, before, began = daemon.get("/metrics")[1], Usage.now(pids), time.monotonic()
    with Probe(daemon) as probe:
        changes = drive(servers, counts, size)
        usage, load = Usage.now(pids), os.getloadavg()[0]
        await_reactions(counts, changes)
    after, read_s = read_metrics(daemon)
    earlier = verbs(page)
    requests = {verb: number - earlier.get(verb, 0.0) for verb, number in verbs(after).items()}
    took = time.monotonic() - began
    spread("tick", [1000 * each for each in probe.cycles_s], "ms")
    figure("ticks_seen", len(probe.cycles_s), "count")
    figure("ticks", total(after, "tidegate_reconcile_total") - total(page, "tidegate_reconcile_total"), "count")
    spread("loop_lag", [1000 * each for each in probe.answers_s], "ms")
    cores = usage.cores_since(before)
    figure("daemon_cpu", cores.pop("daemon"), "cores", bar=DAEMON_CPU_BAR_CORES)
    figure("daemon_rss_peak", memory_mib(daemon.pid, "VmHWM"), "MiB", bar=DAEMON_RSS_BAR_MIB)
    figure("daemon_rss_now", memory_mib(daemon.pid, "VmRSS"), "MiB")
    pages = total(after, "tidegate_scrape_pages_total") - total(page, "tidegate_scrape_pages_total")
    good = total(after, "tidegate_scrape_pages_total", "ok") - total(page, "tidegate_scrape_pages_total", "ok")
    figure("pages", pages / took, "1/s")
    figure("pages_failed", pages - good, "count")
    figure("scrape_period", total(after, "tidegate_scrape_period_seconds"), "s")
    for verb, number in sorted(requests.items()):
        figure(f"api_requests_{verb}", number / took, "1/s")
    waited = "tidegate_write_budget_wait_seconds_total"
    figure("budget_wait", total(after, waited) - total(page, waited), "s")
    figure("events_dropped", total(after, "tidegate_events_dropped_total"), "count")
    figure("own_metrics_page", len(after) / 2**20, "MiB")
    figure("own_metrics_page_cpu", read_s * 1000, "ms")
    show_usage("", cores, load)
    show_reactions("daemon", changes, counts, servers.first_shown())


def read_metrics(daemon: Daemon) -> tuple[str, float]:
    """The page /metrics, and the seconds of the daemon's CPU while it was made."""
    before = Usage.now({"daemon": daemon.pid})
    page = daemon.get("/metrics")[1]
    after = Usage.now({"daemon": daemon.pid})
    return page, after.cpu_s["daemon"] - before.cpu_s["daemon"]


def series(daemon: Daemon, name: str) -> float:
    return total(daemon.get("/metrics")[1], name)


def total(page: str, name: str, containing: str = "") -> float:
    """The sum over a family's series whose labels contain a word."""
    lines = (line for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return math.fsum(float(line.rsplit(" ", 1)[1]) for line in lines if containing in line)


def verbs(page: str) -> Mapping[str, float]:
    """Requests to the API server by verb; those that failed also as "failed"."""
    found: dict[str, float] = defaultdict(float)
    for code, method, value in re.findall(
        r'^rest_client_requests_total\{code="(\w+)"(?:,host="[^"]*")?,method="(\w+)".*\} (\S+)$', page, re.MULTILINE
    ):
        found[method] += float(value)
        if not code.startswith("2"):
            found["failed"] += float(value)
    return found


# --- the peer ---


def measure_peer(cluster: Cluster, size: Size, directory: Path) -> None:
    """kube-controller-manager's HorizontalPodAutoscaler on as many plain Deployments."""
    namespace = cluster.create_namespace("peer")
    access = ApiAccess(cluster.url, cluster.admin_token, str(cluster.ca_path), namespace)
    with scale_adapter.adapter(access, directory) as adapter:
        scale_adapter.register(cluster, namespace, adapter.ports["api"], directory)
        adapter.set_loads(dict.fromkeys(size.names, size.base))
        counts = Counts(cluster, namespace)
        for done, name in enumerate(size.names, 1):
            cluster.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment(name, size.pods))
            progress(done, size.workloads, "Deployments created")
        await_ready(cluster, counts, size)
        hpas = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
        for done, name in enumerate(size.names, 1):
            cluster.create(hpas, autoscaler(name, size.pods))
            progress(done, size.workloads, "HorizontalPodAutoscalers created")
        cluster.wait_for(lambda: all_active(cluster, hpas), "every HPA to have its metric", 300, poll_s=5)
        print("# peer: HPA defaults of kube-controller-manager: sync period 15 s, 5 concurrent syncs; not its default:")
        print("# 500 requests a second instead of 20, and metrics without delay, which flatter it")
        pids = {"adapter": adapter.pid, **control_plane(cluster)}
        before = Usage.now(pids)
        changes = drive(adapter, counts, size)
        cores, load = Usage.now(pids).cores_since(before), os.getloadavg()[0]
        await_reactions(counts, changes)
        figure("peer_controller_manager_cpu", cores.pop(CONTROLLERS), "cores")
        figure("peer_controller_manager_rss_peak", memory_mib(cluster.processes[CONTROLLERS].pid, "VmHWM"), "MiB")
        show_usage("peer_", cores, load)
        show_reactions("peer", changes, counts, None)


def deployment(name: str, pods: int) -> dict[str, Any]:
    """The pods that a workload of the daemon has."""
    template = manifest(name, {})["spec"]["serving"]["deployment"]["template"]
    labels = {WORKLOAD_LABEL: name}
    template["metadata"]["labels"] = labels
    spec = {"replicas": pods, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def autoscaler(name: str, pods: int) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": str(TARGET)}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": pods,
        "maxReplicas": pods + 1,
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": scale_adapter.METRIC}, "target": target}}],
    }
    return {"metadata": {"name": name}, "spec": spec}


def all_active(cluster: Cluster, path: str) -> bool:
    """Has each computed a count from its metric?"""
    found = [
        {each["type"]: each["status"] for each in item.get("status", {}).get("conditions", ())}
        for item in cluster.get(path)["items"]
    ]
    active = sum(each.get("ScalingActive") == "True" for each in found)
    say(f"{active} of {len(found)} HorizontalPodAutoscalers have their metric")
    return bool(active == len(found))


# --- both ---


def await_ready(cluster: Cluster, counts: Counts, size: Size) -> None:
    def ready() -> bool:
        number = sum(counts.ready.get(name) == size.pods for name in size.names)
        say(f"{number} of {size.workloads} have {size.pods} ready pods")
        return counts.all_ready(size.names, size.pods)

    cluster.wait_for(ready, "all pods to be ready", READY_WITHIN_S, poll_s=5)


def drive(loads: Imitation, counts: Counts, size: Size) -> Changes:
    """Changes one load every tenth of a second."""
    say(f"loads change for {size.seconds} s")
    changes = Changes()
    coming = iter(zip(size.names, itertools.cycle(STRENGTHS), strict=False))
    jitter = random.Random(7)  # the daemon samples at whole seconds: changes must not
    began = time.monotonic()
    for step in range(round(size.seconds / CHANGE_EVERY_S)):
        time.sleep(max(0.0, began + (step + jitter.random()) * CHANGE_EVERY_S - time.monotonic()))
        over = next(
            (name for name in changes.rises if name not in changes.ended and changes.reacted(name, counts)), None
        )
        if step % 2 == 0 and (rising := next(coming, None)) is not None:
            name, strength = rising
            changes.rises[name] = Rise(strength, loads.set_loads({name: strength * TARGET * size.pods}))
        elif over is not None:
            loads.set_loads({over: size.base})
            changes.ended.add(over)
    changes.took_s = time.monotonic() - began
    return changes


def await_reactions(counts: Counts, changes: Changes) -> None:
    """Until every rise was answered, or is too old to be."""
    end = max(rise.changed_at for rise in changes.rises.values()) + REACT_WITHIN_S
    while time.time() < end and not all(changes.reacted(name, counts) for name in changes.rises):
        counts.check()
        time.sleep(0.1)


def show_reactions(who: str, changes: Changes, counts: Counts, shown: Mapping[str, float] | None) -> None:
    """`shown`: when a page first showed each rise; None where nobody reads pages."""
    in_time = [name for name in changes.rises if changes.load_to_scale_s(name, counts) <= REACT_WITHIN_S]
    figure(f"{who}_changes", changes.number / changes.took_s, "1/s")
    figure(f"{who}_rises", len(changes.rises), "count")
    figure(f"{who}_no_reaction", len(changes.rises) - len(in_time), "count", bar=0)
    again = [name for name, rise in changes.rises.items() if len(counts.raised_after(name, rise.changed_at)) > 1]
    figure(f"{who}_raised_again", len(again), "count", bar=0)
    for strength in (None, *STRENGTHS):
        chosen = [name for name in in_time if strength in (None, changes.rises[name].strength)]
        suffix = f"_x{strength}" if strength else ""
        if shown is not None:
            after_page = [
                changes.load_to_scale_s(name, counts) + changes.rises[name].changed_at - shown[name] for name in chosen
            ]
            spread(f"{who}_page_to_scale{suffix}", after_page, "s", bar=PAGE_TO_SCALE_BAR_S)
        spread(f"{who}_load_to_scale{suffix}", [changes.load_to_scale_s(name, counts) for name in chosen], "s")


def show_usage(prefix: str, cores: Mapping[str, float], load: float) -> None:
    """Who else was at work on these cores."""
    for name, value in cores.items():
        figure(f"{prefix}cpu_of_{name.replace(' ', '_')}", value, "cores")
    figure(f"{prefix}load_average", load, "count")


def control_plane(cluster: Cluster) -> dict[str, int]:
    return {"benchmark": os.getpid(), **{name: process.pid for name, process in cluster.processes.items()}}


def spread(name: str, values: Sequence[float], unit: str, bar: float | None = None) -> None:
    """p50, p99 and the largest; the bar is for the p99."""
    if not values:
        print(f"{name} nothing was measured", flush=True)
        return
    ordered = sorted(values)
    for label, ratio in (("p50", 0.5), ("p99", 0.99)):
        value = ordered[math.ceil(ratio * len(ordered)) - 1]
        figure(f"{name}_{label}", value, unit, bar if label == "p99" else None)
    figure(f"{name}_max", ordered[-1], unit)


def figure(name: str, value: float, unit: str, bar: float | None = None) -> None:
    verdict = "" if bar is None else f"   bar {bar:.4g} {unit}: {'met' if value <= bar else 'MISSED'}"
    print(f"{name} {value:.4g} {unit}{verdict}", flush=True)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def progress(done: int, of: int, what: str) -> None:
    if done % 100 == 0 or done == of:
        say(f"{done} of {of} {what}")


if __name__ == "__main__":
    main()
