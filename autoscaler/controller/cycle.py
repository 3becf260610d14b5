"""One cycle in six parts: observe, decide, allocate, step, execute, report.

A workload that somebody else scales is decided on and told of like any other; nothing is asked or done for it.

Decide, allocate and step are functions of frozen values. Execute alone changes the cluster; what one workload's step
runs into stays with that workload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import structlog

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError, Conflict, NotLeading
from autoscaler.cluster.events import EventWriter
from autoscaler.cluster.fencing import Tenure
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.status import StatusWriter
from autoscaler.cluster.store import Store
from autoscaler.cluster.workqueue import WorkQueue
from autoscaler.controller import attention, quotas, reporting, snapshot
from autoscaler.controller.backoff import BackOff, trouble_of
from autoscaler.controller.conflicts import Conflicts
from autoscaler.controller.deciding import Decided, Memory, decide_all
from autoscaler.controller.driving import Ports
from autoscaler.controller.events import Conditions
from autoscaler.controller.ports import Activations, Signals
from autoscaler.controller.publishing import Publisher, render, write_status
from autoscaler.controller.quotas import Shares
from autoscaler.controller.recall import Recall
from autoscaler.controller.reporting import Outcome, Trouble, again_in_s
from autoscaler.controller.reserving import NotHeld, Reservations
from autoscaler.controller.specs import Operator, Resolver
from autoscaler.controller.steps import Fences, fences, has_work, step_of
from autoscaler.controller.subject import Snapshot, Subject, key_of
from autoscaler.model.decision import Grant
from autoscaler.model.quota import Domain
from autoscaler.model.report import CycleReport
from autoscaler.model.resources import ResourceVector
from autoscaler.model.workload import WorkloadKey
from autoscaler.scaling.holds import after
from autoscaler.signals.warmups import WarmUps
from rollouts.commands import Command, HaveReplicas
from rollouts.driver import Driver
from rollouts.machine import Step

PARALLEL_WORKLOADS: Final = 16
QUEUE_MOST: Final = 2_000  # workloads whose steps run or wait; what does not fit is asked for again by a later cycle
RANK_RAISE, RANK_STEP, RANK_STATUS = range(3)
SETTLE_WITHIN_S: Final = 1.0  # per cycle; what takes longer goes on beside the next ones
REBUILT_SHOWN_S: Final = 600.0  # how long the condition RecordRebuilt stays True

log = structlog.get_logger()
Grants = Mapping[WorkloadKey, Grant]
Looked = tuple[Snapshot, Decided, Grants]
Told = Callable[[InferenceWorkload], Mapping[str, Any]]  # fields of the status


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
        warm_ups: WarmUps | None = None,
    ) -> None:
        """`tenure`: what may be written with; None while this process does not lead."""
        self._recall = recall or Recall(clock, None)
        self._reservations = Reservations(ledger_namespace)
        self._warm_ups = warm_ups or WarmUps(clock)
        self._ports = Ports(store, self._reservations, self._warm_ups, lambda: self._resolver.operator)
        self._tenure = tenure
        self._epoch: int | None = None  # of the tenure that the last cycle acted in
        self._store = store
        self._signals = signals
        self._activations = activations
        self._events = events
        self._resolver = Resolver(operator)
        self._clock = clock
        self._memory: Mapping[WorkloadKey, Memory] = {}
        self._told: Mapping[WorkloadKey, Conditions] = {}  # what the last events were told against
        self._publisher = Publisher(events, status_writes_per_cycle)
        self._back_off = BackOff()
        self._conflicts = Conflicts()
        self._contested: Mapping[WorkloadKey, Trouble] = {}  # that somebody else scales, in this cycle
        self._barred: Mapping[WorkloadKey, Trouble] = {}  # those, and whose ledgers are not known yet: nothing is done
        self._steps: Mapping[WorkloadKey, Step] = {}  # of the last cycle
        self._last: Looked | None = None
        self._acting: set[WorkloadKey] = set()  # whose step runs
        self._cut: list[tuple[WorkloadKey, Outcome]] = []  # what steps had done when they were cancelled
        self.queue: WorkQueue[WorkloadKey, Outcome | None] = WorkQueue(PARALLEL_WORKLOADS, QUEUE_MOST)
        self.unstamped = 0  # objects that do not carry the present epoch yet
        self._fences: Fences | None = None
        self._used: Mapping[Domain, ResourceVector] = {}  # of the quotas
        self._foreign: Mapping[Domain, ResourceVector | None] = {}  # that pods of others have of them
        self._desired: Mapping[WorkloadKey, int] = {}  # as last told

    def reconfigure(self, operator: Operator, status_writes_per_cycle: int) -> None:
        """Another word of the operator for all further cycles; not within one. What was learned stays."""
        self._resolver = Resolver(operator)
        self._publisher.writes_per_cycle = status_writes_per_cycle

    @property
    def statuses_deferred(self) -> int:
        """Left for later by the last cycle."""
        return self._publisher.deferred

    @property
    def seen(self) -> Snapshot | None:
        """By the last cycle that acted."""
        return self._last[0] if self._last is not None else None

    async def run(self) -> CycleReport:
        """Looks, decides, acts, tells. Without a tenure it looks and decides, so that the next one begins warm."""
        tenure = self._tenure()
        if tenure is None or tenure.epoch != self._epoch:
            self._conflicts.forget()
            await self.queue.abandon()  # it was begun in another tenure
            await self._reservations.abandon()
            self._epoch = tenure.epoch if tenure is not None else None
        unread = await self._read_ledgers(tenure)
        seen, decided = self.decide(self.observe())
        self._contested = self._conflicts.find(seen)
        shares = self.allocate(seen, decided)
        self._used = shares.used
        if tenure is None:
            return self._compose(seen, decided, shares.grants, _silent(seen))
        self._barred = {**self._without_ledger(seen, unread), **self._contested}
        self._foreign = seen.foreign
        seen = quotas.with_verdicts(seen, shares.verdicts)
        steps = self.step(seen, shares.grants, tenure.epoch)
        grants = await self._reserve(seen, steps, shares.grants)
        steps |= self.step_targets(seen, grants)
        self._last = (seen, decided, grants)
        outcomes = await self.execute(self._last, steps, tenure)
        return await self.report(seen, decided, grants, outcomes, tenure.api)

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
            seen, decided, grants = self._last
            outcomes = {each.key: Outcome(each.workload, each.stored) for each in seen.subjects}
            self._publisher.tell(self._compose(seen, decided, grants, outcomes | self._done(seen)), outcomes)

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
        seen = snapshot.take(
            self._store,
            self._signals,
            self._activations,
            self._resolver,
            self._reservations.confirmed,
            self._clock(),
            self._warm_ups,
        )
        self._signals.set_targets(attention.scrape_targets(seen, self._resolver.operator.republish))
        self._warm_ups.forget_all_but(attention.updates(seen))
        self._store.watch_closely(attention.busy(seen))
        self._recall.look(seen)
        return seen

    def decide(self, seen: Snapshot) -> tuple[Snapshot, Decided]:
        """Decisions, and the snapshot with what the whole demand needs, without the workloads that our own code could
        not decide on."""
        decided = decide_all(seen, self._memory, self._recall.take())
        self._memory = decided.memory
        return quotas.with_demand(seen.without(decided.broken), decided), decided

    def allocate(self, seen: Snapshot, decided: Decided) -> Shares:
        limits, contested = self._resolver.operator.limits, self._contested.keys()
        return quotas.share(seen, decided.of_current, contested, limits, self._reservations.confirmed)

    async def _read_ledgers(self, tenure: Tenure | None) -> str | None:
        """Why they are not known, where they are needed."""
        if tenure is None or not self._resolver.operator.limits:
            return None
        return await self._reservations.read(tenure, SETTLE_WITHIN_S)

    def _without_ledger(self, seen: Snapshot, unread: str | None) -> Mapping[WorkloadKey, Trouble]:
        """What one tenure holds, the next must know before it holds anything else."""
        if unread is None:
            return {}
        limited = {project for project, _ in self._resolver.operator.limits}
        trouble = Trouble("AbleToScale", unread)
        return {each.key: trouble for each in seen.subjects if each.spec.project in limited}

    async def _reserve(self, seen: Snapshot, steps: Mapping[WorkloadKey, Step], grants: Grants) -> Grants:
        """Has the ledgers written as the steps want them. Of a target, whose steps follow, what is not confirmed yet
        is not granted yet."""
        limits, confirmed = self._resolver.operator.limits, self._reservations.confirmed
        changes = quotas.changes(seen, steps, grants, self._barred.keys())
        stored = self._store.workloads.every()
        owners = {str(key_of(each)) for each in stored if not each.metadata.deletion_timestamp}
        reserved = after(confirmed, limits, changes, seen.leftovers, owners, seen.at_s)
        self._reservations.have(reserved.ledgers)
        if any(each.spec.target is not None for each in seen.subjects):
            await self._reservations.settle(SETTLE_WITHIN_S)
        return quotas.held(seen, grants, self._reservations, limits)

    def step(self, seen: Snapshot, grants: Grants, epoch: int) -> dict[WorkloadKey, Step]:
        """Of all workloads whose objects are ours. A barred one has an empty step."""
        fence = self._fences = fences(seen, frozenset(self._contested), self._fences, epoch)
        self.unstamped = fence.unstamped
        return self._steps_of((each for each in seen.subjects if each.spec.target is None), grants, fence, seen.at_s)

    def step_targets(self, seen: Snapshot, grants: Grants) -> dict[WorkloadKey, Step]:
        """Of the others, after `step`, by what their ledgers confirm."""
        assert self._fences is not None
        targets = (each for each in seen.subjects if each.spec.target is not None)
        return self._steps_of(targets, grants, self._fences, seen.at_s)

    def _steps_of(
        self, subjects: Iterable[Subject], grants: Grants, fence: Fences, now: float
    ) -> dict[WorkloadKey, Step]:
        barred = self._barred
        return {
            each.key: Step(each.stored)
            if each.key in barred or quotas.waits(each, self._foreign)
            else step_of(each, grants[each.key].granted, fence, now, self._steps.get(each.key))
            for each in subjects
        }

    async def execute(
        self, looked: Looked, steps: Mapping[WorkloadKey, Step], tenure: Tenure
    ) -> Mapping[WorkloadKey, Outcome]:
        """Begins what is to be done, waits a little, and returns what became of it and of what earlier ones began."""
        (seen, _, _), self._steps = looked, steps
        busy = [subject for subject in seen.subjects if has_work(subject, steps[subject.key])]
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
            told = partial(self._told_of, subject, step, looked)
            work = partial(self._execute_one, subject, step, seen.at_s, tenure, told)
            self.queue.put(subject.key, _rank(step), work)
        await self.queue.settle([each.key for each in free], SETTLE_WITHIN_S)
        under_way = {each.key: Outcome(each.workload, each.stored) for each in busy}
        outcomes = quiet | under_way | waiting | self._done(seen)
        barred = {key: replace(outcomes[key], trouble=trouble) for key, trouble in self._barred.items()}
        return outcomes | barred

    async def report(
        self,
        seen: Snapshot,
        decided: Decided,
        grants: Grants,
        outcomes: Mapping[WorkloadKey, Outcome],
        api: KubeApi,
    ) -> CycleReport:
        report = self._compose(seen, decided, grants, outcomes)
        self._told = {key: {each.type: each for each in told.conditions} for key, told in report.workloads.items()}
        self._desired = {key: told.decision.desired for key, told in report.workloads.items() if told.decision}

        def write(outcome: Outcome, status: Mapping[str, Any], wrote: Callable[[], None]) -> None:
            writer = StatusWriter(api, outcome.workload, self._store.workloads.assume)
            key = key_of(outcome.workload)
            if not self.queue.running(key):
                self.queue.put(key, RANK_STATUS, partial(write_status, key, writer, status, wrote))

        self._publisher.publish(report, seen, outcomes, write)
        now = self._clock()
        return replace(report, duration_s=now - seen.at_s, again_in_s=again_in_s(seen, outcomes, now))

    def _told_of(self, subject: Subject, step: Step, looked: Looked, workload: InferenceWorkload) -> Mapping[str, Any]:
        """What the status says of one workload from this step's record on, whatever becomes of its commands."""
        seen, decided, grants = looked
        outcome = Outcome(workload, step.record, reasons=step.reasons)
        alone = replace(seen, subjects=(subject,), unresolved=())
        report = self._compose(alone, decided, grants, {subject.key: outcome})
        return render(report.workloads[subject.key], workload, self._clock())

    def _compose(
        self, seen: Snapshot, decided: Decided, grants: Grants, outcomes: Mapping[WorkloadKey, Outcome]
    ) -> CycleReport:
        keys = [each.key for each in seen.subjects]
        memories = {key: self._memory[key] for key in keys if key in self._memory}
        steps = {key: self._steps[key] for key in keys if key in self._steps}
        waited = {
            key: seen.at_s - memory.untrusted_since
            for key, memory in memories.items()
            if memory.untrusted_since is not None
        }
        rebuilt = {
            key
            for key, memory in memories.items()
            if memory.rebuilt_at is not None and seen.at_s - memory.rebuilt_at < REBUILT_SHOWN_S
        }
        before = reporting.Before(self._told, self._desired)
        waiting = {key: step.waiting for key, step in steps.items() if step.waiting is not None}
        frozen = {key: step.broken for key, step in steps.items() if step.broken is not None}
        untrue = {key: step.noticed for key, step in steps.items() if step.noticed is not None}
        known = reporting.Known(waited, rebuilt, waiting, self._used, frozen, untrue)
        return reporting.compose(seen, decided.of_current, grants, outcomes, known, before, self._resolver.operator)

    async def _execute_one(self, subject: Subject, step: Step, now: float, tenure: Tenure, told: Told) -> Outcome:
        """Runs one workload's step; the one place that turns its errors into a value."""
        if subject.key in self._barred:  # since it began to wait for its turn
            return Outcome(subject.workload, subject.stored)
        driver = self._ports.driver(subject, tenure, partial(self._still_wanted, subject.key), told)
        trouble: Trouble | None = None
        self._acting.add(subject.key)
        try:
            await driver.run(subject.stored, step)
            self._back_off.succeeded(subject.key)
        except NotHeld as error:
            log.debug("step.not_held", workload=str(subject.key), error=str(error))
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
        counts = [each for each in driver.done if isinstance(each, HaveReplicas)]
        scaled = next((each for each in counts if each.revision == step.record.current), None)
        record, reasons = (step.record, step.reasons) if driver.recorded else (subject.stored, ())
        return Outcome(latest, record, scaled, reasons, trouble, subject.stored if driver.recorded else None)

    def _still_wanted(self, key: WorkloadKey, command: Command) -> bool:
        newest = self._steps.get(key)
        return newest is not None and command in newest.commands


def _silent(seen: Snapshot) -> dict[WorkloadKey, Outcome]:
    """What becomes of steps that may not be done."""
    trouble = Trouble("AbleToScale", "this process does not lead at present: nothing is written")
    return {each.key: Outcome(each.workload, each.stored, trouble=trouble) for each in seen.subjects}


def _rank(step: Step) -> int:
    """More capacity comes first: somebody waits for it."""
    raises = any(isinstance(each, HaveReplicas) and each.replicas > (each.seen or 0) for each in step.commands)
    return RANK_RAISE if raises else RANK_STEP
