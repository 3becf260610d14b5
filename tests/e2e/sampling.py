"""What was so all the time: GPUs of pods, ledgers, phases and endpoints of a namespace, looked at 20 times a second."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

from tests.crash.verdict import untrue
from tests.e2e.auditing import Audit, in_ledgers, in_pods
from tests.e2e.updating import GPU, OWNER_REVISION
from tests.e2e.workload import Workload
from tests.realcluster.cluster import Cluster

SAMPLED_EVERY_S: Final = 0.05
TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """GPUs at one instant."""

    at_s: float
    gpus: Mapping[str, int]  # of pods that exist, terminating ones too, by revision
    held: Mapping[str, int]  # in the ledgers, by revision
    limit: int  # of the ledgers
    terminating: frozenset[str]  # names of pods


@dataclass(frozen=True, slots=True)
class Told:
    """What the workloads and their Services said at one instant."""

    at_s: float
    phases: Mapping[str, str]  # by workload
    updates: Mapping[str, str]  # phase of the update by workload; "" where there is none
    ready: Mapping[str, int]  # ready endpoints by Service
    untrue: tuple[str, ...] = ()  # invariants that the daemon found broken


@dataclass
class Watched:
    """What was seen."""

    audit: Audit
    samples: list[Sample] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)

    def check(self, quota: int, least: int = 10) -> None:
        """No pod without a hold, revision by revision; never more held than the quota; no invariant was told broken."""
        assert not self.broken, self.broken
        assert len(self.samples) >= least
        untrue = {told for each in self.told for told in each.untrue}
        assert not untrue, untrue
        took = self.samples[-1].at_s - self.samples[0].at_s
        print(f"{len(self.samples)} looks at pods and ledgers in {took:.1f} s")
        for name in sorted({name for each in self.told for name in each.updates}):
            print(f"  {name}: {self.story(name)}")
        seen: list[tuple[Mapping[str, int], Mapping[str, int]]] = [(each.gpus, each.held) for each in self.samples]
        every = self.audit.states()
        print(f"  {len(every)} states in all")
        for gpus, held in [*seen, *every]:
            short = [revision for revision, count in gpus.items() if count > held.get(revision, 0)]
            assert not short, f"{short} have pods that nothing holds: {gpus} of {held}"
            assert sum(held.values()) <= quota, f"more is held than the quota: {held}"

    def phases(self, workload: Workload) -> set[str]:
        """Those it had."""
        return {each.phases[workload.name] for each in self.told if workload.name in each.phases}

    def story(self, workload: str) -> str:
        """How long its update was in each phase: "Queued 0.3 s, Starting 5.2 s, none 1.1 s"."""
        found: list[tuple[str, float]] = []
        for each in self.told:
            phase = each.updates.get(workload, "") or "none"
            if not found or found[-1][0] != phase:
                found.append((phase, each.at_s))
        ends = [*(at_s for _, at_s in found[1:]), self.told[-1].at_s]
        return ", ".join(f"{phase} {end - at_s:.1f} s" for (phase, at_s), end in zip(found, ends, strict=True))

    def least_ready(self, workload: Workload) -> int:
        """The fewest pods that its Service ever led to."""
        return min(each.ready.get(workload.name, 0) for each in self.told)

    def revisions_with_pods(self) -> list[set[str]]:
        """At each look, and after each change of any pod."""
        looks, changes = (each.gpus for each in self.samples), (pods for pods, _ in self.audit.states())
        return [set(each) for each in (*looks, *changes)]

    def terminating_at(self, pod: str) -> float:
        """When it was first seen to, at most a look after it began."""
        return next(each.at_s for each in self.samples if pod in each.terminating)

    def slowness_s(self, since: float) -> float:
        """How much longer than planned a look took after this instant, at worst: what a busy machine adds to one or two
        requests of anybody."""
        times = [each.at_s for each in self.samples if each.at_s >= since]
        return max((after - before - SAMPLED_EVERY_S for before, after in pairwise(times)), default=0.0)

    def first_pods(self, revision: str) -> Sample | None:
        """The first sample with a pod of it."""
        return next((each for each in self.samples if revision in each.gpus), None)


class Overloaded(Exception):
    """The API server has no time for us, or does not know a new kind yet: that look is left out."""


@contextmanager
def watched(cluster: Cluster, namespace: str) -> Iterator[Watched]:
    """Looks at 20 Hz, or as often as the API server answers, until the block ends; what changes in between is known,
    too."""
    found, ended = Watched(Audit(cluster, namespace)), threading.Event()

    def look(once: Callable[[], object]) -> None:
        due = time.monotonic()
        try:
            while not ended.wait(max(0.0, due - time.monotonic())):
                due = max(due + SAMPLED_EVERY_S, time.monotonic())
                with suppress(Overloaded):
                    once()
        except BaseException as error:  # told by check
            found.broken.append(error)

    quota, serving = _Quota(cluster, namespace), _Serving(cluster, namespace)
    threads = [
        threading.Thread(target=look, args=(lambda: found.samples.append(quota.look()),), name="quota"),
        threading.Thread(target=look, args=(lambda: found.told.append(serving.look()),), name="serving"),
    ]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        quota.close()
        serving.close()
        try:
            found.audit.catch_up()
        finally:
            found.audit.close()


class _Reader:
    """One connection that stays open: 20 looks a second cost little."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        address = urlsplit(cluster.url)
        tls = ssl.create_default_context(cafile=str(cluster.ca_path))
        self._connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=tls, timeout=30)
        self._token = cluster.admin_token
        self.core = f"/api/v1/namespaces/{namespace}"
        self.own = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}"
        self.slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"

    def read(self, path: str) -> list[dict[str, Any]]:
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status == 429:
            raise Overloaded(path)
        if response.status != 200:
            raise ConnectionError(f"{path}: {response.status} {answer}")
        found: list[dict[str, Any]] = answer["items"]
        return found

    def close(self) -> None:
        self._connection.close()


class _Quota(_Reader):
    """A hold may only have shrunk once a pod was gone, so pods are read before and after the ledgers: those that were
    there both times were there in between."""

    _before: list[dict[str, Any]] | None = None

    def look(self) -> Sample:
        pods = f"{self.core}/pods?labelSelector={OWNER_REVISION}"
        before = self._before if self._before is not None else self.read(pods)
        ledgers = self.read(f"{self.own}/quotaledgers")
        self._before = self.read(pods)
        after = {each["metadata"]["uid"] for each in self._before}
        there = [each for each in before if each["metadata"]["uid"] in after]
        limit = sum(each["spec"]["limit"].get(GPU, 0) // 1000 for each in ledgers)
        ending = frozenset(each["metadata"]["name"] for each in there if "deletionTimestamp" in each["metadata"])
        return Sample(time.time(), in_pods(there), in_ledgers(ledgers), limit, ending)


class _Serving(_Reader):
    def look(self) -> Told:
        workloads = self.read(f"{self.own}/inferenceworkloads")
        statuses = {each["metadata"]["name"]: each.get("status", {}) for each in workloads}
        ready = Counter[str]()
        for each in self.read(self.slices):
            service = each["metadata"]["labels"].get("kubernetes.io/service-name", "")
            ready[service] += sum(bool(end["conditions"].get("ready")) for end in each.get("endpoints") or ())
        phases = {name: each.get("phase", "") for name, each in statuses.items()}
        updates = {name: each.get("rollout", {}).get("phase", "") for name, each in statuses.items()}
        told = tuple(f"{each['metadata']['name']}: {message}" for each in workloads for message in untrue(each))
        return Told(time.time(), phases, updates, ready, told)
