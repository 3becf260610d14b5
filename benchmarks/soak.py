"""Does the daemon stay as it is? Hours of accelerated load on a real control plane behind the fault proxy.

    python benchmarks/soak.py --minutes 120 --workloads 30 --out soak.jsonl
    python benchmarks/soak.py --report soak.jsonl

Short windows and delays let a day of scaling pass in minutes: every workload follows a noisy wave between idle and four
times its target, goes to zero and is woken; workloads come, are edited and go, under a new name each time, so that what
is kept of a deleted one shows; pods die, the configuration changes, and every few minutes something fails for some
seconds. Every 10 s one line says what the process takes. The end (also SIGTERM) prints medians, slopes and a verdict.

It runs a copy of the source tree, taken at its start. The pods are KWOK's, and one socket of this process answers for
all of them with pages as large as vLLM's. It decides nothing about what a good count is, only that bounds hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import io
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TextIO

import yaml

from tests.chart.install import release_name
from tests.daemon.mount import Mount
from tests.e2e.daemon import Daemon
from tests.e2e.workload import PORT, WORKLOADS, manifest
from tests.realcluster import sandbox, session
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_loop import LoopThread
from tests.realcluster.faultproxy_rules import Answer, Armed, Drop, HangUp, Rule
from tests.realcluster.load import Offer, Replica
from tests.realcluster.modelserver_page import vllm_page
from tests.realcluster.modelserver_watch import ApiAccess, Pod, PodWatch

ROOT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("autoscaler", "rollouts", "config", "charts", "tests", "benchmarks", "tools", "pyproject.toml")
SAMPLE_S: Final = 10.0
STEP_S: Final = 0.5
TARGET: Final = 7  # requests in flight a replica: 70 % of metricThreshold
WAVES: Final = 4.0  # times the target, at the crest
GRACE_S: Final = 45.0  # for the daemon to follow an edit, or to recover from a fault
IDLE_MOST_S: Final = 60.0  # without a scale write, while nothing is wrong; there are hundreds a minute
TOLD_MOST: Final = 20  # lines of one kind of problem
CRASHES: Final = frozenset({"cycle.crashed", "step.crashed", "config.crashed", "daemon.failed"})
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
MIB: Final = 1024 * 1024
NOT_NOW: Final = (OSError, http.client.HTTPException, LookupError, ClusterError)  # a control plane under load
MERGE: Final = "application/merge-patch+json"


# --- the load, and the pages that show it ---


@dataclass(frozen=True, slots=True)
class Wave:
    """The requests in flight of one workload over time."""

    name: str
    period_s: float
    phase: float

    def in_flight(self, now_s: float) -> int:
        """One value a second, so that the pages of all its pods agree. Idle for about a fifth of each period."""
        second = int(now_s)
        noise = random.Random(f"{self.name} {second // 3}").gauss(0, 0.4)
        height = 2 + 2.7 * math.sin(math.tau * second / self.period_s + self.phase) + noise
        return round(TARGET * min(WAVES, max(0.0, height)))


class PageFault(StrEnum):
    """How the pages of a workload fail."""

    ERROR = "http 500"
    SILENT = "silent"
    CUT = "cut"
    NAN = "nan"


class PodPages:
    """One socket on every pod's address. Pods that nobody knows reset the connection, as do those that are gone."""

    def __init__(self, access: ApiAccess) -> None:
        self.waves: dict[str, Wave] = {}
        self.faults: dict[str, PageFault] = {}
        self.gateway_fails = False
        self.served = 0
        self._loop = LoopThread("pod pages")
        self._watch = PodWatch(access)
        self._pods: dict[str, Pod] = {}  # by address
        self._ready: dict[str, list[str]] = {}  # workload -> addresses, sorted
        self._finished: Counter[str] = Counter()  # by uid
        self._connections: set[_Connection] = set()
        whole = vllm_page(Replica(Offer()), 0.0, "soak").decode().splitlines()
        ours = ("vllm:num_requests_", "vllm:request_success_total")
        self._rest = "\n".join(line for line in whole if not line.startswith(ours)) + "\n"

    def __enter__(self) -> PodPages:
        self._loop.start()
        self._loop.do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.stop()

    @property
    def ready(self) -> int:
        return sum(map(len, self._ready.values()))

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "0.0.0.0", PORT)
        self._tasks = [loop.create_task(self._watch.run()), loop.create_task(self._follow())]

    async def _follow(self) -> None:
        while True:
            await self._watch.changed.wait()
            self._watch.changed.clear()
            alive = [pod for pod in self._watch.pods.values() if pod.ip and not pod.failed]
            self._pods = {pod.ip: pod for pod in alive}
            ready: dict[str, list[str]] = {}
            for pod in sorted(alive, key=lambda each: each.name):
                if pod.ready and not pod.terminating:
                    ready.setdefault(pod.workload, []).append(pod.ip)
            self._ready = ready
            uids = {pod.uid for pod in alive}
            self._finished = Counter({uid: n for uid, n in self._finished.items() if uid in uids})
            for connection in [each for each in self._connections if each.uid is not None and each.uid not in uids]:
                connection.hang_up()
            await asyncio.sleep(0.05)

    def joined(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def left(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def answer(self, connection: _Connection) -> bytes | None:
        """The whole answer; None: none."""
        if connection.address == "127.0.0.1":
            return _reply(b"503 Unavailable" if self.gateway_fails else b"200 OK", self._gateway())
        pod = self._pods.get(connection.address)
        if pod is None or (connection.uid or pod.uid) != pod.uid:
            connection.hang_up()
            return None
        connection.uid = pod.uid
        self.served += 1
        match self.faults.get(pod.workload):
            case PageFault.ERROR:
                return _reply(b"500 Internal Server Error", b"no\n")
            case PageFault.SILENT:
                return None
            case PageFault.CUT:
                connection.ends = True
                return _reply(b"200 OK", self._page(pod))[:2000]
            case PageFault.NAN:
                return _reply(b"200 OK", b"vllm:num_requests_running NaN\nvllm:num_requests_waiting NaN\n")
            case None:
                return _reply(b"200 OK", self._page(pod))

    def _page(self, pod: Pod) -> bytes:
        wave, serving = self.waves.get(pod.workload), self._ready.get(pod.workload, [])
        mine = 0
        if wave is not None and pod.ip in serving:
            share, rest = divmod(wave.in_flight(time.time()), len(serving))
            mine = share + (serving.index(pod.ip) < rest)
        self._finished[pod.uid] += mine
        labels = 'engine="0",model_name="soak"'
        return (
            f"vllm:num_requests_running{{{labels}}} {float(mine)}\n"
            f"vllm:num_requests_waiting{{{labels}}} 0.0\n"
            f'vllm:request_success_total{{{labels},finished_reason="stop"}} {float(self._finished[pod.uid])}\n'
            f"{self._rest}"
        ).encode()

    def _gateway(self) -> bytes:
        """Requests wait here while no pod is ready."""
        now_s, waves = time.time(), sorted(self.waves.items())  # a copy: the other thread changes it
        waiting = ((name, 0 if self._ready.get(name) else wave.in_flight(now_s)) for name, wave in waves)
        return "".join(f'gateway_requests_waiting{{service="{name}"}} {n}\n' for name, n in waiting).encode()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with kept connections and no bodies; as little as the daemon's client needs."""

    def __init__(self, pages: PodPages) -> None:
        self._pages = pages
        self._asked = b""
        self._transport: asyncio.Transport | None = None
        self.address = ""
        self.uid: str | None = None  # of the pod that it belongs to, once that was asked
        self.ends = False  # after the answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.address = transport.get_extra_info("sockname")[0]
        self._pages.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pages.left(self)

    def data_received(self, data: bytes) -> None:
        self._asked += data
        while b"\r\n\r\n" in self._asked:
            self._asked = self._asked.partition(b"\r\n\r\n")[2]
            answer = self._pages.answer(self)
            if answer is not None and self._transport is not None:
                self._transport.write(answer)
                if self.ends:
                    self._transport.close()

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _reply(status: bytes, body: bytes) -> bytes:
    kind = b"Content-Type: text/plain; version=0.0.4"
    return b"HTTP/1.1 %b\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body)


# --- what goes wrong ---


class Trouble(StrEnum):
    """In the order in which they come round."""

    CUT = "watches cut"
    TOO_MANY = "429 storm"
    PAGES = "metrics pages fail"
    UNREACHABLE = "API server unreachable"
    GONE = "watches end with 410"
    UNAVAILABLE = "503 storm"
    GATEWAY = "gateway page fails"
    SILENT = "API server silent"
    LISTS = "lists fail after 410"


LASTS_S: Final[Mapping[Trouble, float]] = {
    Trouble.CUT: 5,
    Trouble.TOO_MANY: 8,
    Trouble.PAGES: 12,
    Trouble.UNREACHABLE: 15,
    Trouble.GONE: 3,
    Trouble.UNAVAILABLE: 8,
    Trouble.GATEWAY: 10,
    Trouble.SILENT: 9,
    Trouble.LISTS: 6,
}


class Troubles:
    """One at a time."""

    def __init__(self, proxy: FaultProxy, pages: PodPages) -> None:
        self._proxy = proxy
        self._pages = pages
        self._armed: list[Armed] = []
        self.now: Trouble | None = None
        self.until = 0.0
        self.counts: Counter[str] = Counter()

    def begin(self, now: float) -> Trouble:
        trouble = list(Trouble)[self.counts.total() % len(Trouble)]
        self.now, self.until = trouble, now + LASTS_S[trouble]
        self.counts[trouble.value] += 1
        arm = self._arm
        match trouble:
            case Trouble.CUT | Trouble.GONE:
                pass  # in `go_on`
            case Trouble.TOO_MANY:
                arm(Rule(Answer(429, "TooManyRequests", 1), times=None))
            case Trouble.UNAVAILABLE:
                arm(Rule(Answer(503, "ServiceUnavailable"), times=None))
            case Trouble.UNREACHABLE:
                arm(Rule(HangUp(), times=None))
            case Trouble.SILENT:
                arm(Rule(Drop(), times=None))
            case Trouble.LISTS:
                arm(
                    Rule(
                        Answer(500, "InternalError"), methods={"GET"}, where=lambda each: not each.is_watch, times=None
                    )
                )
                self._proxy.cut_watches(gone=True)
            case Trouble.GATEWAY:
                self._pages.gateway_fails = True
            case Trouble.PAGES:
                names = sorted(self._pages.waves)
                self._pages.faults = {name: random.choice(list(PageFault)) for name in names[::2]}
        self.go_on(now)
        return trouble

    def go_on(self, now: float) -> bool:
        """Once a step; True when it has just ended."""
        if self.now is None:
            return False
        if now < self.until:
            if self.now in (Trouble.CUT, Trouble.UNREACHABLE, Trouble.GONE):
                self._proxy.cut_watches(gone=self.now is Trouble.GONE)
            return False
        self._proxy.disarm()
        self._armed.clear()
        self._pages.gateway_fails, self._pages.faults = False, {}
        self.now = None
        return True

    def _arm(self, rule: Rule) -> None:
        self._armed.append(self._proxy.arm(rule))


# --- the run ---


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


@dataclass(slots=True)
class Log:
    """The daemon's log, read on from where it was read to."""

    path: Path
    events: Counter[str] = field(default_factory=Counter)
    _at: int = 0
    _rest: bytes = b""

    def news(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """(line, its keys); no keys where it is not JSON."""
        with self.path.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        self._at += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in filter(None, lines):
            said: Mapping[str, Any] = {}
            with contextlib.suppress(ValueError):
                said = json.loads(line)
            self.events[str(said.get("event", "not JSON"))] += 1
            yield line.decode(errors="replace"), said


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
            if count > high or (count < low and "QuotaLimited" not in text):
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


def values(page: str) -> dict[str, float]:
    """Each family's sum over its series, and how many series there are."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            found[name] = found.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
            found["series"] = found.get("series", 0.0) + 1
    return found


def state(pid: int) -> str:
    """As the kernel names it; Z: ended, X: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def cpu_s(pid: int) -> float:
    """User and system seconds of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


# --- the report ---

WARM_UP_S: Final = 600.0
FIRST_S: Final = 3600.0
LIMIT_RATIO: Final = 0.02  # of the first median
# At least. `spare_fds` are those beyond one connection a ready pod: without the pods' coming and going.
LIMITS: Final[Mapping[str, float]] = {"rss_mib": 2.0, "tasks": 3.0, "fds": 5.0, "spare_fds": 3.0, "blocks": 10_000.0}
RULE: Final = (
    "flat: for each of them, neither the slope per hour nor last median - first median is above the larger of "
    f"{LIMIT_RATIO:.0%} of the first median and {', '.join(f'{limit:g} {name}' for name, limit in LIMITS.items())}"
)


@dataclass(frozen=True, slots=True)
class Trend:
    """One quantity over the run."""

    name: str
    first: float  # median
    last: float  # median
    slope: float  # per hour, least squares

    @property
    def limit(self) -> float:
        return max(LIMITS[self.name], LIMIT_RATIO * self.first)

    @property
    def is_flat(self) -> bool:
        return max(self.slope, self.last - self.first) <= self.limit


def trend_of(name: str, points: Sequence[tuple[float, float]]) -> Trend:
    """`points`: (seconds, value), after the warm-up. The first hour, or half if that is less, against the last half."""
    start, end = points[0][0], points[-1][0]
    middle = (start + end) / 2
    first = [value for at, value in points if at <= min(start + FIRST_S, middle)]
    last = [value for at, value in points if at >= middle]
    slope = statistics.linear_regression([at / 3600 for at, _ in points], [value for _, value in points]).slope
    return Trend(name, statistics.median(first), statistics.median(last), slope)


def report(path: Path) -> bool:
    """Prints it; is everything well?"""
    lines = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # the last one may be cut
            lines.append(json.loads(line))
    everything = [line for line in lines if line["kind"] == "sample"]
    if len(everything) < 6:
        print(f"{path}: too few samples ({len(everything)})")
        return False
    pid = Counter(line["pid"] for line in everything).most_common(1)[0][0]
    samples = [line for line in everything if line["pid"] == pid]
    lasted_s = samples[-1]["at_s"] - samples[0]["at_s"]
    warm_up_s = min(WARM_UP_S, lasted_s / 4)
    warm = [line for line in samples if line["at_s"] - samples[0]["at_s"] >= warm_up_s]
    _print_counts([line for line in lines if line["kind"] == "start"], everything)
    print(f"judged: {lasted_s / 60:.0f} min of one process, but for its first {warm_up_s / 60:.1f}")
    trends = [
        trend_of(name, [(line["at_s"], line[name]) for line in warm if line.get(name) is not None]) for name in LIMITS
    ]
    for each in trends:
        print(
            f"{each.name:9} first {each.first:.6g}  last {each.last:.6g}  slope {each.slope:+.4g} per hour  "
            f"limit {each.limit:.4g}  {'flat' if each.is_flat else 'NOT FLAT'}"
        )
    problems = [line for line in lines if line["kind"] == "problem"]
    flat = all(each.is_flat for each in trends)
    print(RULE)
    if lasted_s < 2 * WARM_UP_S:
        print("shorter than 20 min: the slopes say little")
    print(f"verdict: {'flat' if flat else 'NOT FLAT'}; invariants {'BROKEN' if problems else 'held'}")
    for kind, number in Counter(line["what"] for line in problems).items():
        print(
            f"  {kind}: {number} times (or more), e.g. {next(p['text'] for p in problems if p['what'] == kind)[:600]}"
        )
    return flat and not problems


def _print_counts(start: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]) -> None:
    """What happened, over all processes."""
    first, last = samples[0], samples[-1]
    took_s = last["at_s"] - first["at_s"]
    counts = last["counts"]
    for line in start:
        print(f"source {line['commit']}{' and changes of its working tree' if line['changed'] else ''}")
    print(f"{took_s / 60:.1f} min, {counts.get('scale writes', 0)} scale writes", end=" ")
    print(f"({counts.get('scale writes', 0) / last['at_s'] * 60:.0f} a minute), {last['faults']} faults")
    print(", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    same = [line for line in samples if line["pid"] == first["pid"]]
    cores = {
        "daemon": (same[-1]["cpu_s"] - same[0]["cpu_s"]) / max(1.0, same[-1]["at_s"] - same[0]["at_s"]),
        "control plane": (last["plane_cpu_s"] - first["plane_cpu_s"]) / took_s,
        "load, proxy, looking on": (last["own_cpu_s"] - first["own_cpu_s"]) / took_s,
    }
    print("cores: " + ", ".join(f"{name} {value:.2f}" for name, value in cores.items()))
    print(f"at the end: {last['workloads']} workloads, {last['replicas']} replicas, {last['cycles']} cycles")


# --- the command ---


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--workloads", type=int, default=30)
    parser.add_argument("--trouble-every", type=float, default=150, metavar="SECONDS", help="on average")
    parser.add_argument("--commit", help="what to run; the working tree otherwise")
    parser.add_argument("--out", type=Path, help="where the lines go; required, but for --report")
    parser.add_argument("--report", type=Path, help="print what a saved file says")
    options = parser.parse_args()
    if options.report:
        raise SystemExit(0 if report(options.report) else 1)
    if options.out is None:  # as `make bench` calls it
        print("# takes hours: start it with --minutes and --out")
        return
    out = options.out.resolve()
    if sandbox.inside():
        raise SystemExit(soak(options, out))
    run_dir = Path(tempfile.mkdtemp(prefix="tidegate-soak-"))
    tree = run_dir / "tree"
    copy_the_source(tree, options.commit)
    asked = [
        f"--{name}={getattr(options, name.replace('-', '_'))}" for name in ("minutes", "workloads", "trouble-every")
    ]
    here = [sys.executable, str(tree / "benchmarks" / "soak.py"), *asked, f"--out={out}"]
    command = sandbox.command_to_enter(run_dir, here)
    out.write_text(json.dumps({"kind": "start", **source(options.commit)}) + "\n")
    os.chdir(tree)
    os.execve(command[0], command, {**os.environ, "PYTHONPATH": str(tree)})


def copy_the_source(tree: Path, commit: str | None) -> None:
    """Others may be writing: a copy that cannot be imported is made anew."""
    while True:
        if commit:
            packed = subprocess.run(["git", "archive", commit, *COPIED], cwd=ROOT, stdout=subprocess.PIPE, check=True)
            with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
                archive.extractall(tree, filter="data")
        else:
            shutil.copytree(ROOT, tree, ignore=_not_copied)
        trial = [sys.executable, "-c", "import autoscaler.cli.run; import tests.e2e.daemon"]
        done = subprocess.run(trial, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, stderr=subprocess.PIPE)
        if done.returncode == 0:
            return
        print(f"the source cannot be imported; again in 20 s:\n{done.stderr.decode()[-500:]}", flush=True)
        shutil.rmtree(tree)
        time.sleep(20)


def _not_copied(folder: str, names: list[str]) -> set[str]:
    return set(names) - set(COPIED) if Path(folder) == ROOT else {"__pycache__"} & set(names)


def source(commit: str | None) -> dict[str, Any]:
    """Which one it is, where git knows."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        except OSError:
            return ""

    changed = git("status", "--porcelain", "--", "autoscaler", "rollouts", "config", "charts")
    named = git("rev-parse", "--short", commit or "HEAD") or "unknown"
    return {"commit": named, "changed": bool(changed) and commit is None}


def soak(options: argparse.Namespace, out: Path) -> int:
    """Inside the private namespace, from the copy."""
    stop: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stop.append(number))
    os.nice(5)
    os.environ["GOGC"] = "300"  # the control plane collects less often: this is about the daemon's memory, not its
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(out.open("a"))
            cluster = stack.enter_context(session.fresh_cluster())
            cluster.add_gpu_node("extra", gpus=256)
            namespace = cluster.create_namespace("soak")
            proxy = stack.enter_context(FaultProxy(cluster.url, cluster.ca_path))
            access = ApiAccess(cluster.url, cluster.admin_token, str(cluster.ca_path), namespace)
            pages = stack.enter_context(PodPages(access))
            work = Soak(cluster, namespace, proxy, pages, file, options.workloads)
            work.start_daemon(cluster.directory / "daemon", options.minutes * 60)
            work.run(options.minutes, options.trouble_every, lambda: bool(stop))
    finally:
        good = report(out)
    return 0 if good else 1


if __name__ == "__main__":
    main()
