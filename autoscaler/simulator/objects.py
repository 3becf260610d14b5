"""What the daemon writes and reads of one workload in an imitated cluster, and how the daemon's cycle goes over it.

Contents, counts, Services, the ledger and the record are imitated here; what pods and requests do is its subclasses'.
All that is decided, the daemon's own code decides: counts, shares of the quota, steps, and the driver's order.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.controller import quotas, snapshot
from autoscaler.controller.deciding import Memory, decide_all
from autoscaler.controller.reserving import NotHeld
from autoscaler.controller.revisions import Revisions, SeenRevision, Traffic
from autoscaler.controller.steps import Fences, fences, step_of
from autoscaler.controller.subject import Snapshot, Subject
from autoscaler.model.decision import Grant, ScalingDecision
from autoscaler.model.quota import Domain, Hold, Ledger
from autoscaler.model.resources import GPU, ResourceVector
from autoscaler.model.signal import Activation, WorkloadSignals
from autoscaler.model.workload import RevisionKey, TargetKey, WorkloadKey, WorkloadSpec
from rollouts import intent
from rollouts.commands import Command
from rollouts.driver import Driver
from rollouts.machine import Step
from rollouts.observed import Observed, ObservedHold, ObservedRevision, ObservedService
from rollouts.ports import OwnPorts
from rollouts.record import Record
from rollouts.revision import Revision

EPOCH: Final = 1  # of the one leader that there is
UPDATE_SUFFIX: Final = "-update"  # of the second Service's name
PATIENCE_S: Final = 5.0  # no page is ever missing


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


class ImitatedObjects(ABC):
    """One workload's objects, Services, holds and record. It is all that its driver needs."""

    def __init__(self, key: WorkloadKey, quota: Quota, wrote: Callable[[], None] = lambda: None) -> None:
        """`wrote` is called after every write."""
        self.key = key
        self.quota = quota
        self.record = Record()
        self.contents: dict[str, Mapping[str, Any]] = {}  # of stored revisions
        self.epochs: dict[str, int] = {}  # of objects
        self.selects: dict[str, str] = {}  # revisions by Service
        self._wrote = wrote

    # --- what its pods do ---

    @abstractmethod
    def have(self, revision: str, replicas: int | None) -> None:
        """From now on the revision's object has so many replicas; None: there is no object."""

    @abstractmethod
    def observed(self, revision: str) -> ObservedRevision: ...

    @abstractmethod
    def endpoints(self, service: str) -> frozenset[str] | None:
        """Names of the pods that it leads to."""

    @abstractmethod
    def signals(self, revision: str) -> WorkloadSignals | None:
        """The fresh pages of its ready pods; None where nobody is ready."""

    @property
    @abstractmethod
    def there(self) -> Set[str]:
        """Revisions with an object or a pod."""

    # --- what the daemon sees ---

    def service(self, name: str) -> ObservedService:
        selects = self.selects.get(name)
        return ObservedService(name, selects is not None, selects, self.endpoints(name))

    def holds(self) -> Iterator[ObservedHold]:
        for each in self.quota.ledger.holds:
            if each.owner == str(self.key):
                yield ObservedHold(each.revision, self.quota.domain[1], each.vector)

    def subject(
        self, spec: WorkloadSpec, newest: Revision, collisions: int = 0, activation: Activation | None = None
    ) -> Subject:
        """As the daemon would see it now."""
        record = intent.heed_bounds(spec.rollout, newest.name, self.record)
        current = record.current or newest.name
        names = {current, newest.name, *self.there}
        revisions = Revisions(
            {**self.contents, newest.name: newest.identity},
            {name: SeenRevision(self.observed(name)) for name in self.there},
        )
        traffic = Traffic(self.service(spec.service), self.service(spec.service + UPDATE_SUFFIX))
        observed = Observed(
            newest=newest,
            collision_count=collisions,
            saved=frozenset(self.contents),
            current=self.observed(current),
            service=traffic.service,
            update_service=traffic.update_service,
            others=revisions.others(current),
            holds=tuple(self.holds()),
            per_replica=dict.fromkeys(names, spec.per_replica),
        )
        own = snapshot.bounded_by(spec, record)
        pages = self._pages(names)
        specs = dict.fromkeys(names, spec)
        seen, page = revisions.of(current).observed, pages.get(RevisionKey(self.key, current))
        return Subject(
            self.key,
            InferenceWorkload(),
            own,
            self.record,
            record,
            observed,
            snapshot.observation_of(own, record, seen, page, activation),
            (),
            revisions=revisions,
            traffic=traffic,
            specs=specs,
            coming=snapshot.coming_of(specs, record, revisions, pages),
        )

    def _pages(self, revisions: Set[str]) -> dict[TargetKey, WorkloadSignals]:
        """Those that there are."""
        found = ((name, self.signals(name)) for name in revisions)
        return {RevisionKey(self.key, name): signals for name, signals in found if signals is not None}

    def drive(self, subject: Subject, step: Step) -> tuple[Command, ...]:
        """Through the daemon's driver. What was done of it; what the ledger refuses, the next cycle asks again.

        A step that its own checks refuse, or an invariant that is untrue here, is a bug, and ends the demo.
        """
        if (broken := step.broken or step.noticed) is not None:
            raise RuntimeError(f"{subject.key}: {broken}")
        if step.record == subject.stored and not step.commands:
            return ()
        own = OwnPorts(revisions=self, traffic=self, removal=self, quota=self)
        driver = Driver(_Stored(self), self, lambda _: True, own)
        with contextlib.suppress(NotHeld):
            asyncio.run(driver.run(subject.stored, step))
        return driver.done

    # --- the driver's ports ---

    async def save(self, revision: Revision) -> None:
        self.contents[revision.name] = revision.identity
        self._wrote()

    async def stamp(self, revision: str, epoch: int) -> None:
        self.epochs[revision] = epoch
        self._wrote()

    async def create(self, revision: str, replicas: int) -> None:
        self.epochs[revision] = EPOCH  # an object is made with it
        self.have(revision, replicas)
        self._wrote()

    async def scale(self, name: str, replicas: int, seen: int) -> None:
        self.have(name, replicas)
        self._wrote()

    async def select(self, service: str, revision: str, exists: bool) -> None:
        self.selects[service] = revision
        self._wrote()

    async def delete(self, revision: str, immediate: bool) -> None:
        if revision in self.there:
            self.have(revision, None)
        self._wrote()

    async def hold(self, revision: str, pool: str, vector: ResourceVector) -> None:
        self.quota.write(str(self.key), revision, vector)
        self._wrote()

    async def release(self, revision: str) -> None:
        self.quota.write(str(self.key), revision, None)
        self._wrote()


class _Stored:
    """The port `Records`: where the workload's record is kept."""

    def __init__(self, workload: ImitatedObjects) -> None:
        self._workload = workload

    async def save(self, record: Record) -> None:
        self._workload.record = record


@dataclass(frozen=True, slots=True)
class Turn:
    """What a cycle comes to for one workload."""

    subject: Subject
    decision: ScalingDecision
    grant: Grant
    step: Step


class ImitatedCycle:
    """The daemon's cycle with its own parts: decide for each, share the quota among all, step."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._memory: Mapping[WorkloadKey, Memory] = {}
        self._fences: Fences | None = None

    def run(self, subjects: Sequence[Subject], now: float) -> list[Turn]:
        """In the order of `subjects`."""
        domain, ledger = self._quota.domain, self._quota.ledger
        seen = Snapshot(now, tuple(subjects), (), PATIENCE_S, leftovers={})
        decided = decide_all(seen, self._memory, {})
        self._memory = decided.memory
        seen = quotas.with_demand(seen.without(decided.broken), decided)
        shares = quotas.share(seen, decided.of_current, frozenset(), {domain: ledger.limit}, {domain: ledger})
        seen = quotas.with_verdicts(seen, shares.verdicts)
        fence = self._fences = fences(seen, frozenset(), self._fences, EPOCH)
        return [
            Turn(
                each,
                decided.of_current[each.key],
                shares.grants[each.key],
                step_of(each, shares.grants[each.key].granted, fence, now),
            )
            for each in seen.subjects
        ]
