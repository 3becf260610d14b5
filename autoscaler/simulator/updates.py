"""A small imitation of what an update acts on: pods of several revisions and their requests, in virtual seconds.

It stands in for the cluster alone and decides nothing. No clock: time is whatever it is advanced to.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Final

from autoscaler.model.resources import GPU, ResourceVector
from autoscaler.model.signal import Quality, Reading, Sample, WorkloadSignals
from autoscaler.model.workload import WorkloadKey
from autoscaler.simulator.objects import ImitatedObjects, Quota
from rollouts.observed import ObservedRevision

PLACED_S: Final = 2.0  # from created to placed on a node
GONE_S: Final = 3.0  # from its last request until the pod is gone
START_SPREAD: Final = 0.2  # sigma of the lognormal start-up time
REQUEST_S: Final = (4.0, 10.0)  # how long one takes, uniform
PER_REPLICA: Final[ResourceVector] = {GPU: 1000}  # one GPU
KEPT_SAMPLES: Final = 16


@dataclass(slots=True)
class Pod:
    """Instants are virtual seconds."""

    name: str
    created_at: float
    ready_at: float  # infinite: never
    gone_at: float | None = None  # terminating until then
    ends: list[float] = field(default_factory=list)  # of its requests in flight

    def is_ready(self, now: float) -> bool:
        return self.gone_at is None and self.ready_at <= now


@dataclass(slots=True)
class Thing:
    """One revision's object, its pods, and what their pages show."""

    replicas: int | None = None  # None: there is no object
    pods: list[Pod] = field(default_factory=list)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))
    last_request_at: float | None = None
    busy_at: float | None = None

    @property
    def in_flight(self) -> int:
        return sum(len(pod.ends) for pod in self.pods)


class ImitatedWorkload(ImitatedObjects):
    """One workload with its pods and requests."""

    def __init__(
        self, key: WorkloadKey, quota: Quota, start_s: float, chance: random.Random, wrote: Callable[[], None]
    ) -> None:
        """`start_s`: median from created to ready. `wrote` is called after every write."""
        super().__init__(key, quota, wrote)
        self.start_s = start_s
        self.now = 0.0
        self.requests_per_s = 0.0
        self.requests = 0  # so far
        self.unanswered = 0  # requests that found no ready pod behind the Service
        self.things: dict[str, Thing] = {}
        self.broken: set[str] = set()  # revisions whose pods never become ready
        self._endpoints: dict[str, frozenset[str]] = {}  # they follow a selector one second later
        self._chance = chance
        self._created = 0
        self._due = 0.0  # requests

    # --- time ---

    def advance(self, now: float) -> None:
        """By one second: pods come and go, Services follow, requests end and begin."""
        self.now = now
        for name, thing in list(self.things.items()):
            for pod in thing.pods:
                pod.ends = [end for end in pod.ends if end > now]
            thing.pods = [pod for pod in thing.pods if pod.gone_at is None or now < pod.gone_at]
            self._settle(name, thing)
        for service, revision in self.selects.items():
            self._endpoints[service] = self.serving(revision)
        self._arrive()
        for thing in self.things.values():
            thing.busy_at = now if thing.in_flight else thing.busy_at
            thing.samples.append(Sample(now, float(thing.in_flight)))

    def _settle(self, name: str, thing: Thing) -> None:
        """What the object's controller does at once: create what is missing, end what is too many."""
        wanted = thing.replicas or 0
        staying = [pod for pod in thing.pods if pod.gone_at is None]
        for _ in range(wanted - len(staying)):
            self._created += 1
            took = math.ceil(self.start_s * math.exp(self._chance.gauss(0.0, START_SPREAD)))
            ready_at = math.inf if name in self.broken else self.now + PLACED_S + took
            thing.pods.append(Pod(f"{name}-{self._created}", self.now, ready_at))
        staying.sort(key=lambda pod: (pod.is_ready(self.now), len(pod.ends)))
        for pod in staying[: max(0, len(staying) - wanted)]:
            pod.gone_at = max([self.now, *pod.ends]) + GONE_S
        if thing.replicas is None and not thing.pods:
            del self.things[name]

    def _arrive(self) -> None:
        """Every request goes to the least busy pod behind the Service."""
        self._due += self.requests_per_s
        behind = self._endpoints.get(self.key.name, frozenset())
        ready = [(thing, pod) for thing in self.things.values() for pod in thing.pods if pod.name in behind]
        while self._due >= 1.0:
            self._due -= 1.0
            self.requests += 1
            if not ready:
                self.unanswered += 1
                continue
            thing, pod = min(ready, key=lambda each: len(each[1].ends))
            pod.ends.append(self.now + self._chance.uniform(*REQUEST_S))
            thing.last_request_at = self.now

    # --- what is seen of it ---

    @property
    def pods(self) -> int:
        """All that hold a GPU: those that start and terminate, too."""
        return sum(len(thing.pods) for thing in self.things.values())

    def names(self) -> tuple[str, ...]:
        """Of revisions that have an object, a pod or a hold; the oldest first."""
        held = {each.revision for each in self.holds()}
        return (*self.things, *sorted(held - self.things.keys()))

    def serving(self, revision: str) -> frozenset[str]:
        """Names of its ready pods."""
        thing = self.things.get(revision, Thing())
        return frozenset(pod.name for pod in thing.pods if pod.is_ready(self.now))

    def answers(self) -> frozenset[str]:
        """Names of the pods that the Service leads to now."""
        return self._endpoints.get(self.key.name, frozenset())

    def observed(self, revision: str) -> ObservedRevision:
        thing = self.things.get(revision, Thing())
        ready = self.serving(revision)
        staying = [pod for pod in thing.pods if pod.gone_at is None]
        return ObservedRevision(
            revision,
            thing.replicas,
            ready=len(ready),
            starting=len(staying) - len(ready),
            unscheduled=sum(self.now < pod.created_at + PLACED_S for pod in staying),
            terminating=len(thing.pods) - len(staying),
            epoch=self.epochs.get(revision),
            serving=ready,
            in_flight=thing.in_flight,
            last_request_at=thing.last_request_at,
            counted_at=self.now,
            busy_at=thing.busy_at,
        )

    def endpoints(self, service: str) -> frozenset[str] | None:
        return self._endpoints.get(service)

    @property
    def there(self) -> Set[str]:
        return self.things.keys()

    def have(self, revision: str, replicas: int | None) -> None:
        thing = self.things.setdefault(revision, Thing())
        thing.replicas = replicas
        self._settle(revision, thing)

    def signals(self, revision: str) -> WorkloadSignals | None:
        thing, pods = self.things.get(revision, Thing()), len(self.serving(revision))
        if not pods or not thing.samples:
            return None
        samples, value = tuple(thing.samples), thing.samples[-1].value
        concurrency = Reading("concurrency", value, Quality.FRESH, samples, 0.0, pods, pods)
        activity = Reading("activity", value, Quality.FRESH, (), 0.0, pods, pods)
        return WorkloadSignals({concurrency.name: concurrency}, activity, "vllm")
