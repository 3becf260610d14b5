"""One cycle in six parts: observe, decide, allocate, step, execute, report.

Decide, allocate and step are functions of frozen values. Execute alone changes the cluster; what one workload's step
runs into stays with that workload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError, Conflict
from autoscaler.cluster.events import EventWriter
from autoscaler.cluster.status import StatusWriter
from autoscaler.cluster.store import Store
from autoscaler.cluster.traffic.service import ServiceTraffic
from autoscaler.cluster.workloads.deployment import DeploymentRevisions
from autoscaler.controller import reporting, snapshot
from autoscaler.controller.backoff import BackOff, trouble_of
from autoscaler.controller.events import Conditions
from autoscaler.controller.ports import Activations, Signals
from autoscaler.controller.publishing import Publisher
from autoscaler.controller.reporting import Outcome, Trouble
from autoscaler.controller.snapshot import Snapshot, Subject
from autoscaler.controller.specs import Operator, Resolver
from autoscaler.model.decision import Ask, Grant, ScalingDecision
from autoscaler.model.report import CycleReport
from autoscaler.model.signal import Quality
from autoscaler.model.workload import DesiredPhase, WorkloadKey
from autoscaler.scaling.allocation import allocate, ask_of
from autoscaler.scaling.decision import ScalingState, decide
from rollouts import machine
from rollouts.driver import Driver
from rollouts.machine import HaveReplicas, Step
from rollouts.record import Phase

PARALLEL_WORKLOADS: Final = 16
EXECUTE_WITHIN_S: Final = 6.0  # per cycle; a silent API server must not stop the others' decisions for longer
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
        api: KubeApi,
        store: Store,
        signals: Signals,
        activations: Activations,
        events: EventWriter,
        operator: Operator,
        clock: Callable[[], float],
        status_writes_per_cycle: int = 50,
    ) -> None:
        self._api = api
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

    def reconfigure(self, operator: Operator, status_writes_per_cycle: int) -> None:
        """Another word of the operator for all further cycles; not within one. What was learned stays."""
        self._resolver = Resolver(operator)
        self._publisher.writes_per_cycle = status_writes_per_cycle

    @property
    def statuses_deferred(self) -> int:
        """Left for later by the last cycle."""
        return self._publisher.deferred

    async def run(self) -> CycleReport:
        """Looks, decides, acts, tells."""
        seen, decisions = self.decide(self.observe())
        grants = self.allocate(seen, decisions)
        steps = self.step(seen, decisions, grants)
        outcomes = await self.execute(seen, steps)
        return await self.report(seen, decisions, grants, outcomes)

    def observe(self) -> Snapshot:
        seen = snapshot.take(self._store, self._signals, self._activations, self._resolver, self._clock())
        self._signals.set_targets(snapshot.scrape_targets(seen))
        return seen

    def decide(self, seen: Snapshot) -> tuple[Snapshot, Decisions]:
        """Decisions, and the snapshot without the workloads that our own code could not decide on."""
        memory, decisions, broken = {}, {}, []
        for subject in seen.subjects:
            before = self._memory.get(subject.key, Memory())
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
        asks = [_ask(subject, decisions[subject.key]) for subject in seen.subjects]
        return allocate(asks, self._resolver.operator.limits, seen.others)

    def step(self, seen: Snapshot, decisions: Decisions, grants: Grants) -> Mapping[WorkloadKey, Step]:
        return {
            subject.key: machine.step(
                _limits(subject), subject.record, subject.observed, grants[subject.key].granted, seen.at_s
            )
            for subject in seen.subjects
        }

    async def execute(self, seen: Snapshot, steps: Mapping[WorkloadKey, Step]) -> Mapping[WorkloadKey, Outcome]:
        busy = [subject for subject in seen.subjects if _has_work(subject, steps[subject.key])]
        quiet = {subject.key: Outcome(subject.workload, subject.record) for subject in seen.subjects}
        self._back_off.keep(quiet.keys())
        held = {each.key: self._back_off.held(each.key, steps[each.key], seen.at_s) for each in busy}
        waiting = {
            each.key: Outcome(each.workload, each.stored, trouble=trouble)
            for each in busy
            if (trouble := held[each.key]) is not None
        }
        free = [each for each in busy if held[each.key] is None]
        done = await _in_parallel(free, lambda subject: self._execute_one(subject, steps[subject.key], seen.at_s))
        silent = Trouble("AbleToScale", f"the API server did not answer within {EXECUTE_WITHIN_S:g} s")
        late = {each.key: Outcome(each.workload, each.stored, trouble=silent) for each in free if each.key not in done}
        return quiet | waiting | late | done

    async def report(
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
        report = reporting.compose(
            seen, decisions, grants, outcomes, waited, rebuilt, self._told, self._resolver.operator.limits
        )
        self._told = {key: {each.type: each for each in told.conditions} for key, told in report.workloads.items()}
        await self._publisher.publish(report, seen, outcomes, self._writer)
        return replace(report, duration_s=self._clock() - seen.at_s)

    def _writer(self, outcome: Outcome) -> StatusWriter:
        return StatusWriter(self._api, outcome.workload, self._store.workloads.assume)

    async def _execute_one(self, subject: Subject, step: Step, now: float) -> Outcome:
        """Runs one workload's step; the one place that turns its errors into a value."""
        records = StatusWriter(self._api, subject.workload, self._store.workloads.assume)
        revisions = DeploymentRevisions(
            self._api, subject.workload, subject.spec.orphan, subject.contents, self._uid_of(subject)
        )
        traffic = ServiceTraffic(self._api, subject.workload, subject.spec)
        driver = Driver(records, revisions, traffic)
        trouble: Trouble | None = None
        try:
            await driver.run(subject.stored, step)
            self._back_off.succeeded(subject.key)
        except Conflict as error:  # somebody was quicker: the next cycle looks again
            trouble = self._back_off.overtaken(subject.key, str(error))
            log.debug("step.overtaken", workload=str(subject.key), error=str(error))
        except ApiError as error:
            trouble = trouble_of(error, driver.doing)
            self._back_off.failed(subject.key, step, trouble, now, getattr(error, "retry_after_s", 0.0))
        except Exception as error:  # a bug: this workload stays as it is, the others go on
            log.exception("step.crashed", workload=str(subject.key))
            trouble = Trouble("AbleToScale", f"internal error: {type(error).__name__}")
            self._back_off.failed(subject.key, step, trouble, now)
        latest = self._store.workloads.find(*subject.key) or subject.workload
        scaled = next((each for each in driver.done if isinstance(each, HaveReplicas)), None)
        recorded = driver.recorded
        return Outcome(
            latest, step.record if recorded else subject.stored, scaled, step.reasons if recorded else (), trouble
        )

    def _uid_of(self, subject: Subject) -> Callable[[str], str | None]:
        def uid_of(revision: str) -> str | None:
            there = self._store.deployments.find(subject.key.namespace, revision)
            return there.metadata.uid if there else None

        return uid_of


def _untrusted_since(before: Memory, decision: ScalingDecision, now: float) -> float | None:
    if decision.quality is None or decision.quality is Quality.FRESH:
        return None
    return before.untrusted_since if before.untrusted_since is not None else now


def _ask(subject: Subject, decision: ScalingDecision) -> Ask:
    """A revision that failed gives its quota back, whatever the policy wants."""
    seen = subject.observed.current
    ask = ask_of(subject.spec, decision, seen.live if seen else 0)
    return replace(ask, desired=0) if subject.record.phase is Phase.FAILED else ask


def _has_work(subject: Subject, step: Step) -> bool:
    return bool(step.commands) or step.record != subject.stored


def _limits(subject: Subject) -> machine.Limits:
    spec = subject.spec
    stopped = spec.desired_phase is DesiredPhase.STOPPED or spec.scaling.manual_replicas == 0
    return machine.Limits(spec.scaling.initial_replicas, spec.initialization_timeout_s, stopped)


async def _in_parallel(
    subjects: Sequence[Subject], work: Callable[[Subject], Awaitable[Outcome]]
) -> dict[WorkloadKey, Outcome]:
    """Sequential per workload, parallel across, within bounds; what is not done in time is cancelled and left out.

    Any await may be the last: the next cycle looks at the world again.
    """
    places = asyncio.Semaphore(PARALLEL_WORKLOADS)

    async def one(subject: Subject) -> Outcome:
        async with places:
            return await work(subject)

    tasks = {subject.key: asyncio.create_task(one(subject)) for subject in subjects}
    if not tasks:
        return {}
    try:
        await asyncio.wait(tasks.values(), timeout=EXECUTE_WITHIN_S)
    finally:
        late = [task for task in tasks.values() if task.cancel()]
        await asyncio.gather(*late, return_exceptions=True)
    return {key: task.result() for key, task in tasks.items() if not task.cancelled()}
