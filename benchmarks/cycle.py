"""What one cycle costs in CPU at 1,000 workloads of 3 pods: the cycle alone, in memory, without network.

Prints lines `figure value unit`; takes about 20 s. The API server is imitated (it keeps objects, merges patches and
answers at once), the readings are made up; snapshot, decisions, allocation, steps and reports are the daemon's own. CPU
is this process's, so that other work on the machine adds little. "changing": ten workloads a second are scaled. All is
measured twice: with one signal a workload, and with three.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import os
import pstats
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from autoscaler.cluster.client import JSON
from autoscaler.cluster.events import EventWriter
from autoscaler.cluster.fencing import Tenure
from autoscaler.cluster.store import Store
from autoscaler.controller.cycle import Cycle
from autoscaler.controller.deciding import Decided
from autoscaler.controller.specs import Operator
from autoscaler.controller.subject import Snapshot
from autoscaler.daemon import SEARCH_EVERY
from autoscaler.model.signal import Activation, Quality, Reading, Sample, WorkloadSignals
from autoscaler.model.workload import ActivationQuery, ActivationSpec, TargetKey
from autoscaler.signals.pages import ACTIVITY
from autoscaler.signals.readings import KEPT_SAMPLES
from autoscaler.signals.targets import ScrapeTarget
from tests.e2e.workload import manifest

PODS: Final = 3
TICK_S: Final = 2.0
NAMESPACE: Final = "bench"
LOAD: Final = 19.0  # requests in flight of a workload at rest: three replicas at a target of 7
LEVELS: Final = {"latency": 0.4, "kv-cache": 0.3}  # of the further signals, which ask for fewer replicas than the first
TURNS: Final = 20
DECIDING_BAR_MS: Final = 100.0


class Server:
    """Objects by path. Every write is a new version; a Deployment's pods are there and ready at once."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 1
        self.writes = 0

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
    ) -> bytes:
        if method == "GET" and path not in self.objects and not path.endswith("/scale"):
            items = [each for at, each in self.objects.items() if at.rpartition("/")[0].endswith(_kind(path))]
            return json.dumps({"metadata": {"resourceVersion": str(self.version)}, "items": items}).encode()
        at = path.removesuffix("/status").removesuffix("/scale")
        if method != "GET":
            self.writes += 1
            at = self.put(f"{path}/{body['metadata']['name']}", body) if method == "POST" else self.put(at, body)
        found = self.objects[at]
        if path.endswith("/scale"):
            found = {"metadata": found["metadata"], "spec": {"replicas": found["spec"]["replicas"]}}
        return json.dumps(found).encode()

    def put(self, at: str, change: Mapping[str, Any]) -> str:
        self.version += 1
        before = self.objects.get(at, {"metadata": {"uid": at, "namespace": NAMESPACE, "generation": 1}})
        metadata = {**before["metadata"], **change.get("metadata", {}), "resourceVersion": str(self.version)}
        spec = {**before.get("spec", {}), **change.get("spec", {})}
        status = {**before.get("status", {}), **{k: v for k, v in change.get("status", {}).items() if v is not None}}
        self.objects[at] = {**before, **change, "metadata": metadata, "spec": spec, "status": status}
        if "/deployments/" in at:
            self._pods(self.objects[at])
        return at

    def _pods(self, deployment: dict[str, Any]) -> None:
        name, labels = deployment["metadata"]["name"], deployment["spec"]["template"]["metadata"]["labels"]
        for number in range(deployment["spec"]["replicas"]):
            self.version += 1
            at = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}-{number}"
            self.objects.setdefault(
                at,
                {
                    "metadata": {
                        "name": f"{name}-{number}",
                        "namespace": NAMESPACE,
                        "uid": at,
                        "resourceVersion": str(self.version),
                        "labels": labels,
                    },
                    "spec": {"nodeName": "n"},
                    "status": {
                        "phase": "Running",
                        "podIP": "10.0.0.1",
                        "conditions": [{"type": "Ready", "status": "True"}],
                    },
                },
            )

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        yield b""


def _kind(path: str) -> str:
    return "/" + path.rpartition("/")[2]


class Readings:
    """The port Signals: every pod's page is fresh; `load` by workload."""

    effective_period_s = 1.0

    def __init__(self) -> None:
        self.load: dict[str, float] = {}
        self._targets: Mapping[TargetKey, ScrapeTarget] = {}

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None:
        self._targets = targets

    def readings(self, now_s: float) -> Mapping[TargetKey, WorkloadSignals]:
        return {key: self._of(key, target, now_s) for key, target in self._targets.items()}

    def _of(self, key: TargetKey, target: ScrapeTarget, now_s: float) -> WorkloadSignals:
        load = self.load.get(key.name, LOAD)
        readings = {
            spec.name: self._reading(spec.name, LEVELS.get(spec.name, load), len(target.pods), now_s)
            for spec in target.signals
        }
        return WorkloadSignals(readings, self._reading(ACTIVITY, load, len(target.pods), now_s), "vllm")

    def _reading(self, name: str, value: float, pods: int, now_s: float) -> Reading:
        ages = range(KEPT_SAMPLES - 1, -1, -1) if name != ACTIVITY else ()
        samples = tuple(Sample(float(int(now_s) - age), value) for age in ages)
        return Reading(name, value, Quality.FRESH, samples, 0.5, pods, pods)


class NoPages:
    def state(self, spec: ActivationSpec | ActivationQuery, now_s: float) -> Activation:
        return Activation.NOT_CONFIGURED


class Bench:
    """A cycle over so many workloads, and the clock that it is told."""

    def __init__(self, workloads: int, further: Sequence[Mapping[str, Any]] = ()) -> None:
        """`further`: signals beside the first."""
        self.server = Server()
        self.signals = Readings()
        self.now = 1_700_000_000.0
        for number in range(workloads):
            body = manifest(f"model-{number:04}", {**AUTOSCALING, "signals": list(further)})
            body["spec"]["serving"]["deployment"]["template"] |= long_template(body)
            self.server.put(f"{WORKLOADS}/{body['metadata']['name']}", body)
        self.store = Store(self.server, [NAMESPACE], lambda: None)
        events = EventWriter(self.server, "bench")
        tenure = Tenure(1, self.server)
        pages = NoPages()
        self.cycle = Cycle(
            lambda: tenure, self.store, self.signals, pages, events, Operator(), lambda: self.now, 1_000_000
        )
        self.deciding_s: list[float] = []  # CPU, by cycle
        self._decide = self.cycle.decide
        self.cycle.decide = self._timed  # type: ignore[method-assign]

    def _timed(self, seen: Snapshot) -> tuple[Snapshot, Decided]:
        began = time.process_time()
        decided = self._decide(seen)
        self.deciding_s.append(time.process_time() - began)
        return decided

    async def look(self) -> None:
        """What the watches would have brought."""
        for copy in self.store.copies:
            await copy._list()

    async def turn(self) -> float:
        """One cycle; its CPU seconds."""
        began = time.process_time()
        await self.cycle.run()
        await self.cycle.queue.settle(self.cycle.queue.keys(), 60)
        took_s = time.process_time() - began
        self.now += TICK_S
        return took_s

    async def settle(self) -> None:
        for _ in range(50):
            before = self.server.writes
            await self.look()
            await self.turn()
            if self.server.writes == before:
                return
        raise SystemExit("it does not settle")


AUTOSCALING: Final = {
    "minReplicas": PODS,
    "maxReplicas": 4 * PODS,
    "initialReplicas": PODS,
    "metric": "concurrency",
    "metricThreshold": 10,
}
FURTHER: Final = (
    {"metric": "latency", "threshold": 5_000},
    {"metric": "kv-cache", "threshold": "800m", "direction": "up"},
)
WORKLOADS: Final = f"/apis/tidegate.dev/v1alpha1/namespaces/{NAMESPACE}/inferenceworkloads"


def long_template(body: Mapping[str, Any]) -> dict[str, Any]:
    """A template as long as real ones: environment, probes, volumes."""
    template: dict[str, Any] = json.loads(json.dumps(body["spec"]["serving"]["deployment"]["template"]))
    template["spec"]["containers"][0]["env"] = [{"name": f"V{number}", "value": "x" * 20} for number in range(30)]
    template["spec"]["containers"][0]["args"] = [f"--option-{number}=value" for number in range(20)]
    template["spec"]["volumes"] = [{"name": f"v{number}", "emptyDir": {}} for number in range(5)]
    return template


async def measure(workloads: int, further: Sequence[Mapping[str, Any]], profile: bool) -> None:
    bench = Bench(workloads, further)
    await bench.settle()
    show("workloads", workloads, "count")
    show("signals a workload", 1 + len(further), "count")
    gc.collect()
    gc.freeze()
    await report("quiet", bench, lambda turn: None, profile)

    def change(turn: int) -> None:
        for number in range(round(10 * TICK_S)):
            name = f"model-{(turn * 20 + number) % workloads:04}"
            bench.signals.load[name] = 60.0 if bench.signals.load.get(name, LOAD) == LOAD else LOAD

    await report("changing", bench, change, profile)
    show("load average", os.getloadavg()[0], "count")


async def report(what: str, bench: Bench, change: Callable[[int], None], profile: bool) -> None:
    profiler = cProfile.Profile()
    took: list[float] = []
    bench.deciding_s.clear()
    for turn in range(TURNS):
        change(turn)
        if profile:
            profiler.enable()
        took.append(await bench.turn())
        profiler.disable()
        await bench.look()
    for of, values, bar in (("a cycle", took, None), ("deciding", bench.deciding_s, DECIDING_BAR_MS)):
        show(f"{of}, {what}, median", 1e3 * statistics.median(values), "ms CPU", bar)
        show(f"{of}, {what}, longest", 1e3 * max(values), "ms CPU")
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


def show(figure: str, value: float, unit: str, bar: float | None = None) -> None:
    judged = "" if bar is None else f"  (bar {bar:g}: {'met' if value <= bar else 'MISSED'})"
    print(f"{figure:45} {value:10.4g} {unit}{judged}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=int, default=1000)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    gc.set_threshold(*SEARCH_EVERY)
    for further in ((), FURTHER):
        asyncio.run(measure(options.workloads, further, options.profile))


if __name__ == "__main__":
    main()
