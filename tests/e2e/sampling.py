"""What was so all the time: GPUs of pods, ledgers, phases and endpoints of a namespace, looked at 20 times a second."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from tests.e2e.updating import GPU, OWNER_REVISION
from tests.e2e.workload import Workload
from tests.realcluster.cluster import Cluster

SAMPLED_EVERY_S: Final = 0.05
TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """At one instant."""

    at_s: float
    gpus: Mapping[str, int]  # of pods that exist, terminating ones too, by revision
    held: Mapping[str, int]  # in the ledgers, by revision
    limit: int  # of the ledgers
    phases: Mapping[str, str]  # by workload
    ready: Mapping[str, int]  # ready endpoints by Service
    terminating: frozenset[str]  # names of pods


@dataclass
class Watched:
    """What was seen."""

    samples: list[Sample] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)

    def check(self, quota: int, least: int = 10) -> None:
        """No pod without a hold, revision by revision; never more held than the quota."""
        assert not self.broken, self.broken
        assert len(self.samples) >= least
        for each in self.samples:
            for revision, gpus in each.gpus.items():
                assert gpus <= each.held.get(revision, 0), f"{revision} has pods that nothing holds: {each}"
            assert sum(each.held.values()) <= quota, f"more is held than the quota: {each}"

    def phases(self, workload: Workload) -> set[str]:
        """Those it had."""
        return {each.phases[workload.name] for each in self.samples if workload.name in each.phases}

    def least_ready(self, workload: Workload) -> int:
        """The fewest pods that its Service ever led to."""
        return min(each.ready.get(workload.name, 0) for each in self.samples)

    def revisions_with_pods(self) -> list[set[str]]:
        """In each sample."""
        return [set(each.gpus) for each in self.samples]

    def terminating_at(self, pod: str) -> float:
        """When it was first seen to, at most a look after it began."""
        return next(each.at_s for each in self.samples if pod in each.terminating)

    def first_pods(self, revision: str) -> Sample | None:
        """The first sample with a pod of it."""
        return next((each for each in self.samples if revision in each.gpus), None)


class Overloaded(Exception):
    """The API server has no time for us, or does not know a new kind yet: that look is left out."""


@contextmanager
def watched(cluster: Cluster, namespace: str) -> Iterator[Watched]:
    """Looks at 20 Hz until the block ends."""
    found, ended = Watched(), threading.Event()
    reader = _Reader(cluster, namespace)

    def look() -> None:
        try:
            while not ended.wait(SAMPLED_EVERY_S):
                with suppress(Overloaded):
                    found.samples.append(reader.sample())
        except BaseException as error:  # told by check
            found.broken.append(error)

    thread = threading.Thread(target=look, name="watched")
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        reader.close()


class _Reader:
    """One connection that stays open: 20 looks a second cost little."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        address = urlsplit(cluster.url)
        tls = ssl.create_default_context(cafile=str(cluster.ca_path))
        self._connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=tls, timeout=30)
        self._token = cluster.admin_token
        core, own = f"/api/v1/namespaces/{namespace}", f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}"
        self._pods = f"{core}/pods?labelSelector={OWNER_REVISION}"
        self._ledgers, self._workloads = f"{own}/quotaledgers", f"{own}/inferenceworkloads"
        self._slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"

    def sample(self) -> Sample:
        """A hold may only have shrunk once a pod was gone, so pods are read before and after the ledgers: those that
        were there both times were there in between."""
        before = self._read(self._pods)
        ledgers = self._read(self._ledgers)
        after = {each["metadata"]["uid"] for each in self._read(self._pods)}
        gpus, held = Counter[str](), Counter[str]()
        for each in before:
            if each["metadata"]["uid"] in after and each.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                gpus[each["metadata"]["labels"][OWNER_REVISION]] += _gpus(each)
        for hold in (hold for each in ledgers for hold in each["spec"].get("holds") or ()):
            held[hold["revision"]] += hold["vector"].get(GPU, 0) // 1000
        limit = sum(each["spec"]["limit"].get(GPU, 0) // 1000 for each in ledgers)
        phases = {
            each["metadata"]["name"]: each.get("status", {}).get("phase", "") for each in self._read(self._workloads)
        }
        ready = Counter[str]()
        for each in self._read(self._slices):
            service = each["metadata"]["labels"].get("kubernetes.io/service-name", "")
            ready[service] += sum(bool(end["conditions"].get("ready")) for end in each.get("endpoints") or ())
        ending = frozenset(each["metadata"]["name"] for each in before if "deletionTimestamp" in each["metadata"])
        return Sample(time.time(), gpus, held, limit, phases, ready, ending)

    def _read(self, path: str) -> list[dict[str, Any]]:
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


def _gpus(pod: dict[str, Any]) -> int:
    return sum(int(each.get("resources", {}).get("limits", {}).get(GPU, 0)) for each in pod["spec"]["containers"])
