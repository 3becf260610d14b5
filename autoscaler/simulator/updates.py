"""A small imitation of what an update acts on: pods, two Services a workload, and a ledger, in virtual seconds.

It stands in for the cluster alone and decides nothing: the driver's ports change it, and it shows what the daemon would
see of it. No clock: time is whatever it is advanced to.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from autoscaler.controller.reserving import NotHeld
from autoscaler.model.quota import Domain, Hold, Ledger
from autoscaler.model.resources import GPU, ResourceVector
from autoscaler.model.signal import Quality, Reading, Sample, WorkloadSignals
from autoscaler.model.workload import WorkloadKey
from rollouts.observed import ObservedHold, ObservedRevision, ObservedService
from rollouts.record import Record
from rollouts.revision import Revision

PLACED_S: Final = 2.0  # from created to placed on a node
GONE_S: Final = 3.0  # from its last request until the pod is gone
START_SPREAD: Final = 0.2  # sigma of the lognormal start-up time
REQUEST_S: Final = (4.0, 10.0)  # how long one takes, uniform
PER_REPLICA: Final[ResourceVector] = {GPU: 1000}  # one GPU
UPDATE_SUFFIX: Final = "-update"  # of the second Service's name
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
    epoch: int | None = None
    pods: list[Pod] = field(default_factory=list)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))
    last_request_at: float | None = None
    busy_at: float | None = None

    @property
    def in_flight(self) -> int:
        return sum(len(pod.ends) for pod in self.pods)


class Quota:
    """One project's ledger in one node pool. It refuses, as the API server does, what raises it above its limit."""

    def __init__(self, domain: Domain, gpus: int) -> None:
        self.domain = domain
        self.ledger = Ledger({GPU: gpus * 1000})
        self.refused = 0

    @property
    def gpus(self) -> int:
        """Held by everybody."""
        return self.ledger.held.get(GPU, 0) // 1000

    def held(self, owner: str, revision: str) -> int:
        """GPUs."""
        hold = self.ledger.of(owner, revision)
        return hold.vector.get(GPU, 0) // 1000 if hold is not None else 0

    def write(self, owner: str, revision: str, vector: ResourceVector | None) -> None:
        """`vector` None: nothing is held for it any more. Raises NotHeld."""
        others = tuple(each for each in self.ledger.holds if (each.owner, each.revision) != (owner, revision))
        after = replace(self.ledger, holds=(*others, Hold(owner, revision, vector)) if vector else others)
        limit, before = self.ledger.limit, self.ledger.held
        if any(amount > max(limit.get(name, amount), before.get(name, 0)) for name, amount in after.held.items()):
            self.refused += 1
            raise NotHeld(f"{revision} is not held: the ledger has no room for it")
        self.ledger = after


class ImitatedWorkload:
    """One workload's objects, pods, Services and record. It is all that its driver needs but `Records`."""

    def __init__(
        self, key: WorkloadKey, quota: Quota, start_s: float, chance: random.Random, wrote: Callable[[], None]
    ) -> None:
        """`start_s`: median from created to ready. `wrote` is called after every write."""
        self.key = key
        self.quota = quota
        self.start_s = start_s
        self.now = 0.0
        self.requests_per_s = 0.0
        self.requests = 0  # so far
        self.unanswered = 0  # requests that found no ready pod behind the Service
        self.record = Record()
        self.contents: dict[str, Mapping[str, Any]] = {}  # of stored revisions
        self.things: dict[str, Thing] = {}
        self.broken: set[str] = set()  # revisions whose pods never become ready
        self._selects: dict[str, str] = {}
        self._endpoints: dict[str, frozenset[str]] = {}  # they follow a selector one second later
        self._chance = chance
        self._wrote = wrote
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
        for service, revision in self._selects.items():
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
            epoch=thing.epoch,
            serving=ready,
            in_flight=thing.in_flight,
            last_request_at=thing.last_request_at,
            counted_at=self.now,
            busy_at=thing.busy_at,
        )

    def service(self, name: str) -> ObservedService:
        selects = self._selects.get(name)
        return ObservedService(name, selects is not None, selects, self._endpoints.get(name))

    def holds(self) -> Iterator[ObservedHold]:
        for each in self.quota.ledger.holds:
            if each.owner == str(self.key):
                yield ObservedHold(each.revision, self.quota.domain[1], each.vector)

    def signals(self, revision: str) -> WorkloadSignals | None:
        """The fresh pages of its ready pods; None where nobody is ready."""
        thing, pods = self.things.get(revision, Thing()), len(self.serving(revision))
        if not pods or not thing.samples:
            return None
        samples, value = tuple(thing.samples), thing.samples[-1].value
        concurrency = Reading("concurrency", value, Quality.FRESH, samples, 0.0, pods, pods)
        activity = Reading("activity", value, Quality.FRESH, (), 0.0, pods, pods)
        return WorkloadSignals({concurrency.name: concurrency}, activity, "vllm")

    # --- the driver's ports ---

    async def save(self, revision: Revision) -> None:
        self.contents[revision.name] = revision.identity
        self._wrote()

    async def stamp(self, revision: str, epoch: int) -> None:
        self.things[revision].epoch = epoch
        self._wrote()

    async def create(self, revision: str, replicas: int) -> None:
        self._have(revision, replicas)

    async def scale(self, name: str, replicas: int, seen: int) -> None:
        self._have(name, replicas)

    def _have(self, name: str, replicas: int) -> None:
        thing = self.things.setdefault(name, Thing())
        thing.replicas = replicas
        self._settle(name, thing)
        self._wrote()

    async def select(self, service: str, revision: str, exists: bool) -> None:
        self._selects[service] = revision
        self._wrote()

    async def delete(self, revision: str, immediate: bool) -> None:
        if (thing := self.things.get(revision)) is not None:
            thing.replicas = None
            self._settle(revision, thing)
        self._wrote()

    async def hold(self, revision: str, pool: str, vector: ResourceVector) -> None:
        self.quota.write(str(self.key), revision, vector)
        self._wrote()

    async def release(self, revision: str) -> None:
        self.quota.write(str(self.key), revision, None)
        self._wrote()


class Stored:
    """The port `Records`: where the workload's record is kept."""

    def __init__(self, workload: ImitatedWorkload) -> None:
        self._workload = workload

    async def save(self, record: Record) -> None:
        self._workload.record = record
