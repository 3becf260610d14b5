"""One run of the fault matrix: a namespace with its daemon and its Prometheus, and a workload for each cell.

All cells of a lane pass through the same acts side by side: healthy; the fault, and what must be told of it; silence
behind it, under which nothing may go down; more load on what is still seen, which must raise; the end of the fault; and
true silence, which must lower, so that it was the fault that held the count.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.crash.world import WORKLOAD_LABEL, World
from tests.e2e.daemon import Daemon
from tests.e2e.workload import manifest
from tests.faults.cells import Cell, Fault, Source
from tests.faults.page import HOUR_S, autoscaling
from tests.faults.servers import PodServers
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import WaitError
from tests.realcluster.prometheus import Prometheus
from tests.realcluster.prometheus_proxy import PrometheusProxy

FIRST, MOST = 3, 4  # replicas at first, and after a rise
# Shares of the load that a pod carries: three pods need three, one pod alone needs more, four pods need all four. The
# middle of what a count stands for, because a rate is only as exact as the instants of two pages.
SHARE, MORE, LATER, NOTHING = 0.83, 3.0, 1.2, 0.0
STABLE_S: Final = 6.0
HELD_S: Final = 24.0  # the 15 s that percentiles look back, and a stable window and a half
SETTLED_S: Final = 8.0
WITHIN_S: Final = 90.0  # every wait for what must come; only a hang decides
PAGE_MOST: Final = "4MB"  # Prometheus has no limit of its own; an operator with tenants sets one


@dataclass(frozen=True, slots=True)
class Result:
    """`problems` is empty where the cell passed."""

    cell: Cell
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'FAIL' if self.problems else 'ok'} {self.cell}: {'; '.join(self.problems)}"


class Lane:
    """`run` is all of it. The faults of one lane are those of pages, or a single one of Prometheus itself."""

    def __init__(self, cluster: Cluster, cells: Sequence[Cell], directory: Path, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._cells = {cell.workload: cell for cell in cells}
        assert len(self._cells) == len(cells), "two cells of one name"
        self.source = cells[0].source
        self.name = f"{self.source} {cells[0].fault}" if len({cell.fault for cell in cells}) == 1 else self.source
        self._directory = directory
        self._say = say
        self._began = time.monotonic()
        self._fault_at = 0.0  # Unix seconds
        self._deployments: dict[str, dict[str, Any]] = {}  # by workload, as last looked at
        self._workloads: dict[str, dict[str, Any]] = {}
        self._problems: dict[str, list[str]] = defaultdict(list)
        self._prometheus: Prometheus | None = None
        self._proxy: PrometheusProxy | None = None

    def run(self) -> list[Result]:
        """What became of every cell."""
        namespace = self._cluster.create_namespace("faults")
        try:
            with ExitStack() as stack:
                self._open(stack, namespace)
                self._acts()
        except Exception as error:
            for name in self._cells:
                self._problems[name].append(f"the lane broke: {type(error).__name__}: {str(error)[:500]}")
        finally:
            self._cluster.delete_namespace(namespace)
        results = [Result(cell, tuple(self._problems[name])) for name, cell in self._cells.items()]
        for each in results:
            if each.problems:  # now: a run may be ended before its last lane
                self._say(str(each))
        return results

    # --- what runs ---

    def _open(self, stack: ExitStack, namespace: str) -> None:
        self._directory.mkdir(parents=True)
        signals = {name: cell.signal for name, cell in self._cells.items()}
        config: dict[str, Any] = {
            "kpa": {"stable-window": f"{STABLE_S:g}s"},
            "activationPages": {"gateway": {"url": stack.enter_context(_idle_gateway())}},
        }
        if self.source is Source.PROMETHEUS:
            limits = {"body_size_limit": PAGE_MOST}
            prometheus = Prometheus(self._cluster, namespace, self._directory / "prometheus", limits=limits)
            self._prometheus = stack.enter_context(prometheus)
            self._proxy = stack.enter_context(PrometheusProxy(prometheus.url))
            asked = self._proxy if self._has(Fault.PARTIAL) or self._has(Fault.CLOCK) else prometheus
            config |= {"signals": {"source": "prometheus"}, "prometheus": {"url": asked.url, "scrapeInterval": "1s"}}
        self._daemon = Daemon(self._cluster, namespace, self._directory, config)
        self._world = stack.enter_context(World(self._cluster, namespace))
        self._servers = stack.enter_context(PodServers(self._cluster, namespace, signals, SHARE))
        stack.callback(self._daemon.stop)
        self._daemon.start()
        bodies = [manifest(name, autoscaling(cell.signal)) for name, cell in self._cells.items()]
        for body in bodies:
            del body["spec"]["serving"]["deployment"]["template"]["spec"]["containers"][0]["resources"]
        listed = {"apiVersion": "v1", "kind": "List", "items": bodies}
        self._cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(listed))

    def _acts(self) -> None:
        everybody = list(self._cells)
        telling = [name for name, cell in self._cells.items() if not cell.harmless]
        self._until(everybody, self._healthy, "three healthy replicas")
        time.sleep(SETTLED_S)
        self._until(everybody, self._healthy, "three healthy replicas for a stable window")
        mark, self._fault_at = self._world.mark(), time.time()
        self._step("healthy")

        self._begin()
        self._until(telling, self._told, "the condition Fallback with the reason")
        self._check_record(telling)
        self._step("told")
        self._servers.load(telling, NOTHING)
        if self._has(Fault.HOLES):
            time.sleep(SETTLED_S)
            self._servers.load(telling, SHARE)  # as before the hole, which nobody saw
            self._the_prometheus.start()
        time.sleep(HELD_S)
        self._check_floor(telling, mark, "under the fault")
        self._check_floor([name for name in everybody if name not in telling], mark, "under the fault", needs=FIRST)
        self._step("held")

        self._leave_some()
        self._until(everybody, lambda name: self._count(name) == MOST, "a fourth replica on what is seen")
        self._step("raised")
        mark = self._world.mark()
        self._end()
        self._until(everybody, self._trusted, "the end of the fault in the conditions")
        time.sleep(SETTLED_S)
        self._check_floor(everybody, mark, "by the end of the fault")
        self._check_events(telling)
        self._step("recovered")
        self._servers.load(everybody, NOTHING)
        self._until(everybody, lambda name: self._count(name) < MOST, "fewer replicas in true silence")
        self._step("lowered")

    # --- the fault ---

    def _has(self, fault: Fault) -> bool:
        return any(cell.fault is fault for cell in self._cells.values())

    def _of(self, *faults: Fault) -> list[str]:
        return [name for name, cell in self._cells.items() if cell.fault in faults]

    def _begin(self) -> None:
        if self._has(Fault.PARTIAL):
            seen = {pod for _, pod, number in self._servers.pods() if number == 0}
            self._the_proxy.hidden = lambda labels: labels.get("pod") not in seen
            self._the_proxy.warns = True
        elif self._has(Fault.CLOCK):
            self._the_proxy.ahead_s = HOUR_S
        elif self._has(Fault.GONE) or self._has(Fault.HOLES):
            self._the_prometheus.kill()
        else:
            for fault in Fault:
                only = (lambda number: number == 0) if fault is Fault.ONE_DEAD else (lambda number: True)
                self._servers.fault(self._of(fault), fault, only)

    def _leave_some(self) -> None:
        """More load, and a pod or two whose pages are seen. What Prometheus does not answer leaves none."""
        if self._has(Fault.GONE) or self._has(Fault.HOLES):
            self._servers.load(self._cells, MORE)
            if self._has(Fault.GONE):
                self._the_prometheus.start()
            return
        if self._has(Fault.CLOCK):
            self._the_proxy.ahead_s = -HOUR_S
        dead = self._of(Fault.ONE_DEAD)
        rest = [name for name in self._cells if name not in dead]
        self._servers.load(dead, MORE, lambda number: number > 0)
        if not self._has(Fault.PARTIAL):
            self._servers.fault(rest, None, lambda number: number == 0)
        self._servers.load(rest, MORE, lambda number: number == 0)

    def _end(self) -> None:
        if self._proxy is not None:
            self._proxy.warns, self._proxy.ahead_s = False, 0.0
            self._proxy.hidden = lambda labels: False
        self._servers.fault(self._cells, None)
        self._servers.load(self._cells, LATER)

    @property
    def _the_prometheus(self) -> Prometheus:
        assert self._prometheus is not None
        return self._prometheus

    @property
    def _the_proxy(self) -> PrometheusProxy:
        assert self._proxy is not None
        return self._proxy

    # --- what is seen ---

    def _look(self) -> None:
        """All objects at once: there are hundreds."""
        found = self._world.objects("Deployment")
        self._deployments = {each["metadata"]["labels"][WORKLOAD_LABEL]: each for each in found}
        self._workloads = {each["metadata"]["name"]: each for each in self._world.objects("InferenceWorkload")}

    def _count(self, name: str) -> int:
        """As written; LookupError before there is a revision."""
        count: int = self._deployments[name]["spec"]["replicas"]
        return count

    def _condition(self, name: str, kind: str) -> dict[str, str]:
        conditions = self._workloads[name].get("status", {}).get("conditions", ())
        return next((each for each in conditions if each["type"] == kind), {})

    def _trusted(self, name: str) -> bool:
        return self._condition(name, "Fallback").get("reason") == "MetricsFresh"

    def _healthy(self, name: str) -> bool:
        ready = self._deployments[name].get("status", {}).get("readyReplicas", 0)
        return self._count(name) == ready == FIRST and self._trusted(name)

    def _told(self, name: str) -> bool:
        found = self._condition(name, "Fallback")
        return found.get("reason") == "ScaleDownHeld" and self._names_reason(name, found.get("message", ""))

    def _names_reason(self, name: str, text: str) -> bool:
        return any(reason in text for reason in self._cells[name].reasons)

    # --- verdicts ---

    def _until(self, names: Iterable[str], holds: Callable[[str], bool], what: str) -> None:
        """Waits for all of them; those that do not come have a problem, and the others go on."""
        waiting, end = set(names), time.monotonic() + WITHIN_S
        while waiting and time.monotonic() < end:
            self._look()
            for name in sorted(waiting):
                with contextlib.suppress(LookupError):
                    waiting -= {name} if holds(name) else set()
            time.sleep(0.5)
        for name in sorted(waiting):
            if name not in self._deployments:
                self._problems[name].append(f"no revision within {WITHIN_S:g} s")
                continue
            seen = {kind: self._condition(name, kind).get("message", "") for kind in ("Fallback", "ScalingActive")}
            self._problems[name].append(f"not within {WITHIN_S:g} s: {what}; {self._count(name)} replicas, {seen}")

    def _check_floor(self, names: Iterable[str], mark: int, when: str, needs: int = MOST) -> None:
        """No version of an object, since the mark, has fewer replicas than the one before it, or than the load needs
        where what is seen is true: a rate that reads high for a moment may come down again."""
        for name in names:
            highest = FIRST
            for change in self._world.changes(name, mark):
                if change.kind != "Deployment":
                    continue
                count = 0 if change.type == "DELETED" else change.object["spec"]["replicas"]
                if count < min(highest, needs):
                    what = "a wrongful zero" if count == 0 else "a wrongful scale-down"
                    self._problems[name].append(f"{what} {when}: {highest} -> {count}")
                    break
                highest = max(highest, count)

    def _check_record(self, names: Iterable[str]) -> None:
        """The record and the metric say what the condition says."""
        items = json.loads(self._daemon.get("/api/v1/workloads")[1])["items"]
        records = {each["name"]: each for each in items}
        metrics = self._daemon.get("/metrics")[1].splitlines()
        fresh = [line for line in metrics if line.startswith("tidegate_signal_quality{") and 'quality="fresh"' in line]
        for name in names:
            decision = records[name]["decision"]
            if decision["quality"] in (None, "fresh"):
                self._problems[name].append(f"the record says quality {decision['quality']}")
            if not any(self._names_reason(name, fault) for fault in decision["faults"]):
                self._problems[name].append(f"the record names no reason: {decision['faults']}")
            if any(f'workload="{name}"' in line for line in fresh):
                self._problems[name].append("the metric says fresh")

    def _check_events(self, names: Iterable[str]) -> None:
        """The fault and its end, once each. They are written beside the decisions.

        The fourth replica may be a trouble of its own for a moment: a Prometheus finds a new pod seconds later, and a
        rate takes two samples.
        """
        path = f"/apis/events.k8s.io/v1/namespaces/{self._world.namespace}/events"
        found: Counter[tuple[str, str]] = Counter()
        notes: defaultdict[str, list[str]] = defaultdict(list)

        def all_there() -> bool:
            found.clear()
            notes.clear()
            for each in self._cluster.get(path)["items"]:
                if not each["reason"].startswith("Metrics") or _written_at(each) < self._fault_at:
                    continue  # of the start: a Prometheus takes a while to find new pods
                found[each["regarding"]["name"], each["reason"]] += 1
                if each["reason"] == "MetricsUnavailable":
                    notes[each["regarding"]["name"]].append(each.get("note", ""))
            return all(found[name, "MetricsRecovered"] >= max(1, len(notes[name])) for name in names)

        with contextlib.suppress(WaitError):
            self._cluster.wait_for(all_there, "the events of recovery", WITHIN_S)
        for name in names:
            for reason in ("MetricsUnavailable", "MetricsRecovered"):
                if found[name, reason] != max(1, len(notes[name])):
                    self._problems[name].append(f"{found[name, reason]} events {reason}: {notes[name]}")
            of_the_fault = [note for note in notes[name] if not note.startswith(f"1 of {MOST} pods")]
            if len(of_the_fault) != 1 or not self._names_reason(name, of_the_fault[0]):
                self._problems[name].append(f"not one event with the reason: {notes[name]}")

    def _step(self, what: str) -> None:
        bad = sum(1 for each in self._problems.values() if each)
        self._say(f"{time.monotonic() - self._began:5.0f} s  {self.name}: {what}; {bad} of {len(self._cells)} red")


def _written_at(event: dict[str, Any]) -> float:
    """Unix seconds."""
    return datetime.fromisoformat(event["eventTime"]).timestamp()


@contextlib.contextmanager
def _idle_gateway() -> Iterator[str]:
    """An activation page on which nothing waits."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'gateway_pending_requests{workload="none"} 0\n')

        def log_message(self, format: str, *args: object) -> None:
            pass

        def finish(self) -> None:
            with contextlib.suppress(BrokenPipeError):  # whoever asked did not wait
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
