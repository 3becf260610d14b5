"""One cycle in six parts: observe, decide, allocate, step, execute, report.

A workload that somebody else scales is decided on and told of like any other; nothing is asked or done for it.

Decide, allocate and step are functions of frozen values. Execute alone changes the cluster; what one workload's step
runs into stays with that workload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import structlog

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError, Conflict, NotLeading
from autoscaler.cluster.events import EventWriter
from autoscaler.cluster.fencing import Tenure
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.scalable import Kind, ScalableRevisions
from autoscaler.cluster.status import StatusWriter, record_of
from autoscaler.cluster.store import Store
from autoscaler.cluster.traffic.service import ServiceTraffic
from autoscaler.cluster.workloads.scaletarget import TargetScale
from autoscaler.cluster.workqueue import WorkQueue
from autoscaler.controller import reporting, snapshot
from autoscaler.controller.backoff import BackOff, trouble_of
from autoscaler.controller.conflicts import Conflicts
from autoscaler.controller.events import Conditions
from autoscaler.controller.kinds import kind_of
from autoscaler.controller.ports import Activations, Signals
from autoscaler.controller.publishing import Publisher, write_status
from autoscaler.controller.recall import Recall
from autoscaler.controller.reporting import Outcome, Trouble
from autoscaler.controller.reserving import Reservations
from autoscaler.controller.snapshot import Snapshot, Subject
from autoscaler.controller.specs import Operator, Resolver
from autoscaler.controller.steps import Fences, fences, step_of
from autoscaler.model.decision import Ask, Grant, ScalingDecision
from autoscaler.model.quota import Domain
from autoscaler.model.report import CycleReport
from autoscaler.model.resources import ResourceVector
from autoscaler.model.signal import Quality
from autoscaler.model.workload import Mode, WorkloadKey
from autoscaler.scaling.allocation import allocate, ask_of
from autoscaler.scaling.decision import ScalingState, decide
from autoscaler.scaling.holds import Holder, covered, ledgers
from rollouts.driver import Driver
from rollouts.machine import Command, HaveReplicas, Step
from rollouts.ports import Revisions
from rollouts.record import Phase

PARALLEL_WORKLOADS: Final = 16
QUEUE_MOST: Final = 2_000  # workloads whose steps run or wait; what does not fit is asked for again by a later cycle
RANK_RAISE, RANK_STEP, RANK_STATUS = range(3)
SETTLE_WITHIN_S: Final = 1.0  # per cycle; what takes longer goes on beside the next ones
REBUILT_SHOWN_S: Final = 600.0  # how long the condition RecordRebuilt stays True

log = structlog.get_logger()
Decisions = Mapping[WorkloadKey, ScalingDecision]
Grants = Mapping[WorkloadKey, Grant]


@dataclass(frozen=True, slots=True)
class Memory:
    """What a cycle leaves for the next, per workload. Losing it is safe: nothing is lowered until it is warm again."""

    scaling: ScalingState = field(default_factory=ScalingState)
    untrusted_since: float | None = None  # some ready pod has had no fresh page since then
    rebuilt_at: float | None = None  # the record was lost and rebuilt


class Cycle:
    """Holds the ports and the memory; `run` is one cycle."""

    def __init__(
        self,
        tenure: Callable[[], Tenure | None],
        store: Store,
        signals: Signals,
        activations: Activations,
        events: EventWriter,
        operator: Operator,
        clock: Callable[[], float],
        status_writes_per_cycle: int = 50,
        recall: Recall | None = None,
        ledger_namespace: str = "default",
    ) -> None:
        """`tenure`: what may be written with; None while this process does not lead."""
        self._recall = recall or Recall(clock, None)
        self._reservations = Reservations(ledger_namespace)
        self._tenure = tenure
        self._epoch: int | None = None  # of the tenure that the last cycle acted in
        self._store = store
        self._signals = signals
        self._activations = activations
        self._events = events
        self._resolver = Resolver(operator)
        self._clock = clock
        self._memory: dict[WorkloadKey, Memory] = {}
        self._told: Mapping[WorkloadKey, Conditions] = {}  # what the last events were told against
        self._publisher = Publisher(events, status_writes_per_cycle)
        self._back_off = BackOff()
        self._conflicts = Conflicts()
        self._contested: Mapping[WorkloadKey, Trouble] = {}  # that somebody else scales, in this cycle
        self._steps: Mapping[WorkloadKey, Step] = {}  # of the last cycle
        self._last: tuple[Snapshot, Decisions, Grants] | None = None
        self._acting: set[WorkloadKey] = set()  # whose step runs
        self._cut: list[tuple[WorkloadKey, Outcome]] = []  # what steps had done when they were cancelled
        self.queue: WorkQueue[WorkloadKey, Outcome | None] = WorkQueue(PARALLEL_WORKLOADS, QUEUE_MOST)
        self.unstamped = 0  # objects that do not carry the present epoch yet
        self._fences: Fences | None = None
        self._desired: Mapping[WorkloadKey, int] = {}  # as last told

    def reconfigure(self, operator: Operator, status_writes_per_cycle: int) -> None:
        """Another word of the operator for all further cycles; not within one. What was learned stays."""
        self._resolver = Resolver(operator)
        self._publisher.writes_per_cycle = status_writes_per_cycle

    @property
    def statuses_deferred(self) -> int:
        """Left for later by the last cycle."""
        return self._publisher.deferred

    async def run(self) -> CycleReport:
        """Looks, decides, acts, tells. Without a tenure it looks and decides, so that the next one begins warm."""
        seen, decisions = self.decide(self.observe())
        tenure = self._tenure()
        if tenure is None or tenure.epoch != self._epoch:
            self._conflicts.forget()
        self._contested = self._conflicts.find(seen)
        grants = self.allocate(seen, decisions)
        if tenure is None or tenure.epoch != self._epoch:
            await self.queue.abandon()  # it was begun in another tenure
            await self._reservations.abandon()
            self._epoch = tenure.epoch if tenure is not None else None
        if tenure is None:
            return self._compose(seen, decisions, grants, _silent(seen))
        grants = await self._hold(seen, grants, tenure)
        self._last = (seen, decisions, grants)
        steps = self.step(seen, grants, tenure.epoch)
        outcomes = await self.execute(seen, steps, tenure)
        return await self.report(seen, decisions, grants, outcomes, tenure.api)

    def rest(self) -> None:
        """Somebody else leads: nothing is scraped, and what was learned of the workloads grows old, so it goes."""
        self._signals.set_targets({})
        self._recall.rest()
        self._memory, self._told, self._last = {}, {}, None
        self._publisher.forget()
        self._back_off.keep(frozenset())
        self._conflicts.forget()
        self._fences, self.unstamped, self._desired = None, 0, {}

    async def finish(self, within_s: float) -> None:
        """No cycle follows: what is under way may end and is told; what is not done by then is cancelled."""
        await self._reservations.abandon()
        await self.queue.settle(self.queue.keys(), within_s)
        if len(self.queue):
            log.warning("steps.cancelled", number=len(self.queue))
        await self.queue.abandon()
        if self._last is not None:
            seen, decisions, grants = self._last
            outcomes = {each.key: Outcome(each.workload, each.stored) for each in seen.subjects}
            self._publisher.tell(self._compose(seen, decisions, grants, outcomes | self._done(seen)), outcomes)

    def _done(self, seen: Snapshot) -> dict[WorkloadKey, Outcome]:
        """What became of steps since it was last asked."""
        keys = {each.key for each in seen.subjects}
        found: dict[WorkloadKey, Outcome] = {}
        for key, each in (*self._cut, *self.queue.take()):
            if each is not None and key in keys:
                before = found.get(key)
                found[key] = each if before is None else each.after(before)
        self._cut.clear()
        return found

    def observe(self) -> Snapshot:
        seen = snapshot.take(self._store, self._signals, self._activations, self._resolver, self._clock())
        self._signals.set_targets(snapshot.scrape_targets(seen, self._resolver.operator.republish))
        self._recall.look(seen)
        return seen

    def decide(self, seen: Snapshot) -> tuple[Snapshot, Decisions]:
        """Decisions, and the snapshot without the workloads that our own code could not decide on."""
        memory, decisions, broken = {}, {}, []
        recalled = self._recall.take()
        for subject in seen.subjects:
            before = self._memory.get(subject.key, Memory())
            if states := recalled.get(subject.key):
                before = replace(before, scaling=before.scaling.recalling(states))
            try:
                decision, scaling = decide(subject.spec, before.scaling, subject.observation, seen.at_s)
            except Exception as error:  # a bug: this workload stays as it is, the others go on
                broken.append((subject.workload, snapshot.crashed(subject.workload, error)))
                continue
            decisions[subject.key] = decision
            rebuilt_at = seen.at_s if subject.record.current and not subject.stored.current else before.rebuilt_at
            memory[subject.key] = Memory(scaling, _untrusted_since(before, decision, seen.at_s), rebuilt_at)
        self._memory = memory
        return seen.without(broken), decisions

    def allocate(self, seen: Snapshot, decisions: Decisions) -> Grants:
        limits = self._resolver.operator.limits
        asks = [_ask(each, decisions[each.key], each.key in self._contested, limits) for each in seen.subjects]
        return allocate(asks, limits, seen.others)

    async def _hold(self, seen: Snapshot, grants: Grants, tenure: Tenure) -> Grants:
        """The ledgers as allocated; what is not confirmed by them yet is not granted yet."""
        limits = self._resolver.operator.limits
        holders = {each.key: _holder(each, grants[each.key]) for each in seen.subjects}
        wanted = ledgers(holders.values(), limits, self._reservations.confirmed, seen.leftovers, seen.at_s)
        confirmed = await self._reservations.have(tenure, wanted, SETTLE_WITHIN_S)
        troubles = self._reservations.troubles

        def held(key: WorkloadKey, grant: Grant) -> Grant:
            holder = holders[key]
            limit = limits.get(holder.domain)
            if limit is None:
                return grant
            may = covered(holder, limit, confirmed.get(holder.domain))
            if may >= grant.granted:
                return grant
            return replace(grant, granted=may, unheld=troubles.get(holder.domain, "its QuotaLedger is being written"))

        return {key: held(key, grant) for key, grant in grants.items()}

    def step(self, seen: Snapshot, grants: Grants, epoch: int) -> Mapping[WorkloadKey, Step]:
        """A contested workload has an empty step."""
        fence = self._fences = fences(seen, frozenset(self._contested), self._fences, epoch)
        self.unstamped = fence.unstamped
        return {
            each.key: Step(each.stored)
            if each.key in self._contested
            else step_of(each, grants[each.key].granted, fence, seen.at_s)
            for each in seen.subjects
        }

    async def execute(
        self, seen: Snapshot, steps: Mapping[WorkloadKey, Step], tenure: Tenure
    ) -> Mapping[WorkloadKey, Outcome]:
        """Begins what is to be done, waits a little, and returns what became of it and of what earlier ones began."""
        self._steps = steps
        busy = [subject for subject in seen.subjects if _has_work(subject, steps[subject.key])]
        quiet = {
            each.key: Outcome(each.workload, each.record, reasons=steps[each.key].reasons) for each in seen.subjects
        }
        self._back_off.keep(quiet.keys())
        held = {each.key: self._back_off.held(each.key, steps[each.key], seen.at_s) for each in busy}
        waiting = {
            each.key: Outcome(each.workload, each.stored, trouble=trouble)
            for each in busy
            if (trouble := held[each.key]) is not None
        }
        free = [each for each in busy if held[each.key] is None and each.key not in self._acting]
        for subject in free:
            step = steps[subject.key]
            work = partial(self._execute_one, subject, step, seen.at_s, tenure)
            self.queue.put(subject.key, _rank(step), work)
        await self.queue.settle([each.key for each in free], SETTLE_WITHIN_S)
        under_way = {each.key: Outcome(each.workload, each.stored) for each in busy}
        outcomes = quiet | under_way | waiting | self._done(seen)
        contested = {key: replace(outcomes[key], trouble=trouble) for key, trouble in self._contested.items()}
        return outcomes | contested

    async def report(
        self,
        seen: Snapshot,
        decisions: Decisions,
        grants: Grants,
        outcomes: Mapping[WorkloadKey, Outcome],
        api: KubeApi,
    ) -> CycleReport:
        report = self._compose(seen, decisions, grants, outcomes)
        self._told = {key: {each.type: each for each in told.conditions} for key, told in report.workloads.items()}
        self._desired = {key: told.decision.desired for key, told in report.workloads.items() if told.decision}

        def write(outcome: Outcome, status: Mapping[str, Any], wrote: Callable[[], None]) -> None:
            writer = StatusWriter(api, outcome.workload, self._store.workloads.assume)
            key = _key_of(outcome)
            if not self.queue.running(key):
                self.queue.put(key, RANK_STATUS, partial(write_status, key, writer, status, wrote))

        self._publisher.publish(report, seen, outcomes, write)
        return replace(report, duration_s=self._clock() - seen.at_s)

    def _compose(
        self, seen: Snapshot, decisions: Decisions, grants: Grants, outcomes: Mapping[WorkloadKey, Outcome]
    ) -> CycleReport:
        waited = {
            key: seen.at_s - memory.untrusted_since
            for key, memory in self._memory.items()
            if memory.untrusted_since is not None
        }
        rebuilt = {
            key
            for key, memory in self._memory.items()
            if memory.rebuilt_at is not None and seen.at_s - memory.rebuilt_at < REBUILT_SHOWN_S
        }
        before = reporting.Before(self._told, self._desired)
        return reporting.compose(seen, decisions, grants, outcomes, waited, rebuilt, before, self._resolver.operator)

    async def _execute_one(self, subject: Subject, step: Step, now: float, tenure: Tenure) -> Outcome:
        """Runs one workload's step; the one place that turns its errors into a value."""
        if subject.key in self._contested:  # since it began to wait for its turn
            return Outcome(subject.workload, subject.stored)
        driver = self._driver(subject, tenure)
        trouble: Trouble | None = None
        self._acting.add(subject.key)
        try:
            await driver.run(subject.stored, step)
            self._back_off.succeeded(subject.key)
        except Conflict as error:  # somebody was quicker: the next cycle looks again
            trouble = self._back_off.overtaken(subject.key, str(error))
            log.debug("step.overtaken", workload=str(subject.key), error=str(error))
        except NotLeading as error:
            trouble = Trouble("AbleToScale", str(error), outage=True)
        except ApiError as error:
            trouble = trouble_of(error, driver.doing, subject.spec.target is None)
            self._back_off.failed(subject.key, step, trouble, now, getattr(error, "retry_after_s", 0.0))
        except Exception as error:  # a bug: this workload stays as it is, the others go on
            log.exception("step.crashed", workload=str(subject.key))
            trouble = Trouble("AbleToScale", f"internal error: {type(error).__name__}")
            self._back_off.failed(subject.key, step, trouble, now)
        except asyncio.CancelledError:
            self._cut.append((subject.key, self._outcome(subject, step, driver, None)))
            raise
        finally:
            self._acting.discard(subject.key)
        return self._outcome(subject, step, driver, trouble)

    def _outcome(self, subject: Subject, step: Step, driver: Driver, trouble: Trouble | None) -> Outcome:
        latest = self._store.workloads.find(*subject.key) or subject.workload
        scaled = next((each for each in driver.done if isinstance(each, HaveReplicas)), None)
        record, reasons = (step.record, step.reasons) if driver.recorded else (subject.stored, ())
        return Outcome(latest, record, scaled, reasons, trouble)

    def _still_wanted(self, key: WorkloadKey, command: Command) -> bool:
        newest = self._steps.get(key)
        return newest is not None and command in newest.commands

    def _driver(self, subject: Subject, tenure: Tenure) -> Driver:
        store, namespace = self._store, subject.key.namespace

        def kind(revision: str) -> Kind:
            return kind_of(store, namespace, revision, subject.contents.get(revision))

        workload = _as_decided_on(subject, store.workloads.find(*subject.key))
        traffic = ServiceTraffic(
            tenure.api,
            workload,
            subject.spec,
            lambda name: store.services.find(namespace, name),
            store.services.assume,
            tenure.epoch,
        )
        revisions: Revisions
        if subject.spec.target is not None and subject.there is not None:
            revisions = TargetScale(tenure.api, subject.resource, subject.there)
        else:
            revisions = ScalableRevisions(
                tenure.api,
                workload,
                subject.spec.orphan,
                subject.contents,
                kind,
                lambda revision: store.scalables[kind(revision).resource].find(namespace, revision),
                lambda kind, there: store.scalables[kind.resource].assume(there),
                tenure.epoch,
                traffic.stamp,
                lambda revision: subject.spec.node_pool,
                self._resolver.operator.node_pools,
            )
        return Driver(
            StatusWriter(tenure.api, workload, store.workloads.assume),
            revisions,
            traffic,
            partial(self._still_wanted, subject.key),
        )


def _as_decided_on(subject: Subject, latest: InferenceWorkload | None) -> InferenceWorkload:
    """The newest version of the workload, where nothing changed in it that the decision was made from."""
    seen = subject.workload.metadata
    if latest is None or (latest.metadata.uid, latest.metadata.generation) != (seen.uid, seen.generation):
        return subject.workload
    return latest if record_of(latest) == subject.stored else subject.workload


def _key_of(outcome: Outcome) -> WorkloadKey:
    return WorkloadKey(outcome.workload.metadata.namespace, outcome.workload.metadata.name)


def _silent(seen: Snapshot) -> dict[WorkloadKey, Outcome]:
    """What becomes of steps that may not be done."""
    trouble = Trouble("AbleToScale", "this process does not lead at present: nothing is written")
    return {each.key: Outcome(each.workload, each.stored, trouble=trouble) for each in seen.subjects}


def _rank(step: Step) -> int:
    """More capacity comes first: somebody waits for it."""
    raises = any(isinstance(each, HaveReplicas) and each.replicas > (each.seen or 0) for each in step.commands)
    return RANK_RAISE if raises else RANK_STEP


def _untrusted_since(before: Memory, decision: ScalingDecision, now: float) -> float | None:
    if decision.quality is None or decision.quality is Quality.FRESH:
        return None
    return before.untrusted_since if before.untrusted_since is not None else now


def _ask(subject: Subject, decision: ScalingDecision, contested: bool, limits: Mapping[Domain, ResourceVector]) -> Ask:
    """What failed gives its quota back, whatever the policy wants; what may not grow takes none from others."""
    seen, spec = subject.observed.current, subject.spec
    ask = ask_of(spec, decision, seen.live if seen else 0)
    if contested:
        ask = replace(ask, desired=min(ask.desired, ask.applied))
    if spec.mode is Mode.OBSERVE:
        ask = replace(ask, desired=ask.applied)
    if not subject.priced and limits.get((spec.project, spec.node_pool)):
        ask = replace(ask, desired=min(ask.desired, max(1, ask.applied)))  # the first replica shows what one costs
    return replace(ask, desired=0) if subject.record.phase is Phase.FAILED else ask


def _holder(subject: Subject, grant: Grant) -> Holder:
    """The subject's revision with what it has and shall have."""
    seen, spec = subject.observed.current, subject.spec
    revision = subject.record.current or subject.observed.newest.name
    applied, live = (seen.replicas or 0, seen.live) if seen else (0, 0)
    domain = (spec.project, spec.node_pool)
    return Holder(domain, str(subject.key), revision, spec.per_replica, grant.granted, applied, live)


def _has_work(subject: Subject, step: Step) -> bool:
    return bool(step.commands) or step.record != subject.stored
