"""The run of benchmarks/soak.py: what users and machines do, what must hold, and what is written down."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import yaml

from benchmarks.soak_pages import PodPages, Wave
from benchmarks.soak_process import Log, cpu_s, state, values
from benchmarks.soak_troubles import Troubles
from tests.chart.install import release_name
from tests.daemon.mount import Mount
from tests.e2e.daemon import Daemon
from tests.e2e.workload import PORT, WORKLOADS, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError
from tests.realcluster.faultproxy import FaultProxy

SAMPLE_S: Final = 10.0
STEP_S: Final = 0.5
GRACE_S: Final = 45.0  # for the daemon to follow an edit, or to recover from a fault
IDLE_MOST_S: Final = 60.0  # without a scale write, while nothing is wrong; there are hundreds a minute
TOLD_MOST: Final = 20  # lines of one kind of problem
CRASHES: Final = frozenset({"cycle.crashed", "step.crashed", "config.crashed", "daemon.failed"})
MIB: Final = 1024 * 1024
NOT_NOW: Final = (OSError, http.client.HTTPException, LookupError, ClusterError)  # a control plane under load
MERGE: Final = "application/merge-patch+json"


@dataclass(slots=True)
class Subject:
    """One workload. `bounds`: (since, min, max), the newest last."""

    name: str
    to_zero: bool
    ends_at: float
    bounds: list[tuple[float, int, int]]
    excused_at: float

    def widest(self, now: float) -> tuple[int, int]:
        """The least min and the most max that the daemon may still know."""
        newest = self.bounds[-1]
        late = [self.bounds[i] for i in range(len(self.bounds) - 1) if now - self.bounds[i + 1][0] < GRACE_S]
        known = [*late, newest]
        return min(low for _, low, _ in known), max(high for _, _, high in known)


def bounds_of(to_zero: bool) -> tuple[int, int]:
    return 0 if to_zero else random.randint(1, 2), random.randint(2, 6)


@dataclass(slots=True)
class Every:
    """Something that happens again and again, not in step with anything else."""

    period_s: float
    do: Callable[[float], None]
    next_at: float = 0.0
    regular: bool = False

    def step(self, now: float) -> bool:
        if now < self.next_at:
            return False
        self.next_at = now + self.period_s * (1 if self.regular else random.uniform(0.5, 1.5))
        self.do(now)
        return True


class Soak:
    """Drives everything from one thread; whatever fails here is told and tried again."""

    def __init__(
        self, cluster: Cluster, namespace: str, proxy: FaultProxy, pages: PodPages, out: TextIO, workloads: int
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._pages = pages
        self._proxy = proxy
        self._troubles = Troubles(proxy, pages)
        self._out = out
        self._workloads = workloads
        self._subjects: dict[str, Subject] = {}
        self._counts: Counter[str] = Counter()
        self._problems: Counter[str] = Counter()
        self._excused_at = self._wrote_at = time.monotonic()
        self._started_at = time.monotonic()

    # --- life ---

    def start_daemon(self, directory: Path, lasts_s: float) -> None:
        """Installs the chart; the token holds for the whole run, as the kubelet would see to."""
        config = {
            "tick": "1s",
            "log": {"format": "json"},
            "activationPages": {"gateway": {"url": f"http://127.0.0.1:{PORT}/gateway"}},
            **self._project(90),
        }
        directory.mkdir()
        self._daemon = Daemon(self._cluster, self._namespace, directory, config, self._proxy.url)
        kubeconfig = yaml.safe_load((directory / "kubeconfig").read_text())
        token = self._cluster.service_account_token(self._namespace, release_name("tidegate"), int(lasts_s) + 7200)
        kubeconfig["users"][0]["user"]["token"] = token
        (directory / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        document = (directory / "config.yaml").read_text()
        self._mount, self._installed = Mount(directory, document), yaml.safe_load(document)
        self._log = Log(directory / "daemon.log")
        for attempt in range(5):
            try:
                self._daemon.start()
                return
            except (RuntimeError, *NOT_NOW) as error:
                self._tell("note", text=f"the daemon did not start (try {attempt + 1}): {str(error)[-1500:]}")
                self._daemon.stop()
                time.sleep(10)
        raise SystemExit("the daemon does not start")

    def run(self, minutes: float, trouble_every_s: float, stopped: Callable[[], bool]) -> None:
        """Until the time is up, or `stopped`."""
        all_of_it = (
            Every(STEP_S, self._renew, regular=True),
            Every(6, self._edit),
            Every(8, self._kill_pod),
            Every(20, self._read_pages),
            Every(60, self._reconfigure),
            Every(trouble_every_s, self._trouble, next_at=time.monotonic() + 60),
            Every(2, self._look, regular=True),
            Every(SAMPLE_S, self._sample, regular=True),
        )
        self._started_at = self._excused_at = self._wrote_at = time.monotonic()
        end = self._started_at + minutes * 60
        while (now := time.monotonic()) < end and not stopped():
            for each in all_of_it:
                try:
                    each.step(now)
                    if self._troubles.go_on(now):
                        self._excused_at = now
                except NOT_NOW as error:
                    self._counts["own failures"] += 1
                    self._tell("note", text=f"{each.do.__name__}: {error!r}"[:300])
            if now - self._started_at > 5 * 60 and not self._counts["scale writes"]:
                break  # hours of nothing would say nothing
            time.sleep(STEP_S)
        self._tell("end", problems=dict(self._problems), events=dict(self._log.events), **self._totals())
        self._daemon.stop()

    # --- what users and machines do ---

    def _renew(self, now: float) -> None:
        """Those whose time is up go, and others come: two a step at most."""
        over = [subject.name for subject in self._subjects.values() if subject.ends_at < now]
        for name in over[:2]:
            self._cluster.request("DELETE", f"{WORKLOADS.format(self._namespace)}/{name}", timeout_s=10)
            del self._subjects[name], self._pages.waves[name]
        for _ in range(min(2, self._workloads - len(self._subjects))):
            self._make(now)

    def _make(self, now: float) -> None:
        name = f"soak-{self._counts['made']:05}"
        to_zero = random.random() < 0.6
        low, high = bounds_of(to_zero)
        autoscaling = {
            "minReplicas": low,
            "maxReplicas": high,
            "metric": "concurrency",
            "metricThreshold": 10,
            "scaleDownDelaySeconds": random.choice((0, 0, 2)),
            "scaleToZeroRetentionSeconds": random.choice((0, 3)) if to_zero else 0,
            "activation": {"page": "gateway", "metric": "gateway_requests_waiting", "labels": {"service": name}},
        }
        loads_s = random.choice((0, 0, 1, 3))
        body = manifest(name, autoscaling, ready_after_s=loads_s)
        self._cluster.create(WORKLOADS.format(self._namespace), body)
        self._pages.waves[name] = Wave(name, random.uniform(40, 90), random.uniform(0, math.tau))
        self._subjects[name] = Subject(name, to_zero, now + random.uniform(60, 300), [(now, low, high)], now)
        self._counts["made"] += 1

    def _edit(self, now: float) -> None:
        """Other bounds for one workload."""
        if not self._subjects:
            return
        subject = random.choice(list(self._subjects.values()))
        low, high = bounds_of(subject.to_zero)
        path = f"{WORKLOADS.format(self._namespace)}/{subject.name}"
        bounds = {"spec": {"autoscaling": {"minReplicas": low, "maxReplicas": high}}}
        status, answer = self._cluster.request("PATCH", path, bounds, content_type=MERGE, timeout_s=10)
        if status == 200:
            subject.bounds = [*subject.bounds[-4:], (now, low, high)]
            subject.excused_at = now
            self._counts["edits"] += 1
        else:
            self._tell("note", text=f"an edit was refused: {status} {answer.get('message')}")

    def _kill_pod(self, now: float) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        with contextlib.suppress(IndexError):
            pod = random.choice(self._cluster.get(f"{path}?labelSelector=tidegate.dev/workload&limit=40")["items"])
            at_once = {"gracePeriodSeconds": 0}
            self._cluster.request("DELETE", f"{path}/{pod['metadata']['name']}", at_once, timeout_s=10)
            self._counts["pods killed"] += 1

    def _reconfigure(self, now: float) -> None:
        """The ConfigMap and its mount change; one version in four is broken."""
        self._counts["configurations"] += 1
        document = {**self._installed, **self._project(random.choice((70, 90, 120)))}
        document["tick"] = random.choice(("800ms", "1s", "1200ms"))
        document["kpa"] = {"stable-window": random.choice(("6s", "7s"))}
        if self._counts["configurations"] % 4 == 0:
            document |= {"tick": "0s", "nope": 1}
        text = yaml.safe_dump(document)
        path = f"/api/v1/namespaces/{self._namespace}/configmaps"
        (found,) = [each for each in self._cluster.get(path)["items"] if "config.yaml" in each.get("data", {})]
        patch = {"data": {"config.yaml": text}}
        self._cluster.request("PATCH", f"{path}/{found['metadata']['name']}", patch, content_type=MERGE, timeout_s=10)
        self._mount.write(text)

    def _project(self, gpus: int) -> dict[str, Any]:
        """A quota that sometimes binds."""
        limits = {"default": {"nvidia.com/gpu": gpus}}
        return {"projects": {"soak": {"namespaces": [self._namespace], "quota": {"limits": limits}}}}

    def _trouble(self, now: float) -> None:
        if self._troubles.now is None:
            self._tell("fault", text=self._troubles.begin(now).value)

    def _read_pages(self, now: float) -> None:
        one = random.choice([*self._subjects, "nobody"])
        of_one = f"/api/v1/workloads/{self._namespace}/{one}"
        for path in ("/healthz", "/readyz", "/api/v1/workloads", of_one, "/nowhere"):
            self._daemon.get(path)
            self._counts["pages read"] += 1

    # --- what must hold ---

    def _look(self, now: float) -> None:
        """At the process and its log."""
        for line, said in self._log.news():
            event = str(said.get("event", ""))
            if event in CRASHES or "Traceback" in line or not said:
                self._problem(event or "not JSON", line[:3000])
            if event == "scale.decided":
                self._wrote_at = now
                self._judge_write(now, said)
        self._proxy.forget()
        if now - max(self._wrote_at, self._excused_at) > IDLE_MOST_S:
            self._problem("no scale write", f"for {IDLE_MOST_S:g} s; the log so far: {dict(self._log.events)}")
            self._wrote_at = now
        if state(self._daemon.pid) not in "ZX":
            return
        self._problem("the process ended", self._daemon.log()[-2000:])
        self._counts["restarts"] += 1
        try:
            self._daemon.start()
        except RuntimeError as error:
            self._tell("note", text=f"it ended again: {str(error)[-500:]}")
        self._excused_at = time.monotonic()

    def _judge_write(self, now: float, said: Mapping[str, Any]) -> None:
        before, after = said["before"], said["after"]
        self._counts["scale writes"] += 1
        self._counts["to zero"] += after == 0
        self._counts["from zero"] += before == 0
        subject = self._subjects.get(str(said["workload"]).partition("/")[2])
        if subject is None:
            return
        low, high = subject.widest(now)
        if after > high or after < min(low, before):
            self._problem("write out of bounds", f"{said['workload']}: {before} -> {after}, bounds {low}..{high}")

    def _judge_counts(self, now: float) -> int:
        """Every Deployment's count against its workload's bounds, once the daemon had the time; how many replicas."""
        workloads = {each["metadata"]["name"]: each for each in self._list(WORKLOADS.format(self._namespace))}
        deployments = self._list(
            f"/apis/apps/v1/namespaces/{self._namespace}/deployments?labelSelector=tidegate.dev/workload"
        )
        for each in deployments:
            name = each["metadata"]["labels"]["tidegate.dev/workload"]
            subject, workload = self._subjects.get(name), workloads.get(name)
            if subject is None or workload is None or self._troubles.now is not None:
                continue
            if now - max(subject.excused_at, self._excused_at) < GRACE_S:
                continue
            _, low, high = subject.bounds[-1]
            count, text = each["spec"]["replicas"], json.dumps(workload.get("status", {}).get("conditions"))
            by_quota = any(reason in text for reason in ("QuotaLimited", "QuotaUnknown"))
            if count > high or (count < low and not by_quota):
                self._problem("count out of bounds", f"{name}: {count}, bounds {low}..{high}, {text}"[:3000])
            self._counts["counts judged"] += 1
        return sum(each["spec"]["replicas"] for each in deployments)

    def _list(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._cluster.get(path)["items"]
        return found

    def _problem(self, kind: str, text: str) -> None:
        self._problems[kind] += 1
        if self._problems[kind] <= TOLD_MOST:
            self._tell("problem", what=kind, text=text)

    # --- what is written down ---

    def _sample(self, now: float) -> None:
        pid = self._daemon.pid
        page = values(self._daemon.get("/metrics")[1])
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        self._tell(
            "sample",
            pid=pid,
            rss_mib=round(int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MIB, 3),
            fds=(fds := len(list(Path(f"/proc/{pid}/fd").iterdir()))),
            spare_fds=fds - self._pages.ready,
            cpu_s=cpu_s(pid),
            tasks=page.get("tidegate_tasks"),
            blocks=page.get("tidegate_memory_blocks"),
            cycles=page.get("tidegate_reconcile_total"),
            series=page.get("series"),
            plane_cpu_s=sum(cpu_s(process.pid) for process in self._cluster.processes.values() if process.alive()),
            own_cpu_s=sum(os.times()[:4]),
            own_rss_mib=round(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB, 1),
            replicas=self._judge_counts(now),
            ready=self._pages.ready,
            workloads=len(self._subjects),
            **self._totals(),
        )

    def _totals(self) -> dict[str, Any]:
        return {
            "counts": dict(self._counts),
            "faults": self._troubles.counts.total(),
            "problem_count": self._problems.total(),
            "pages_served": self._pages.served,
        }

    def _tell(self, kind: str, **values: Any) -> None:
        at_s = round(time.monotonic() - self._started_at, 1)
        print(json.dumps({"kind": kind, "at_s": at_s, **values}), file=self._out, flush=True)
