"""Runs two updates in the imitated cluster: one that waits for quota and succeeds, one that never becomes ready.

All that is decided, the daemon's own code decides: counts, quota, the state machine, the driver, the words. What is
written here is what a person does (edits), what the world does (load), and what is measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from autoscaler.controller import updates
from autoscaler.controller.reporting import reason_text
from autoscaler.controller.subject import Subject
from autoscaler.model.rollout import DEFAULT_POOL
from autoscaler.model.workload import WorkloadKey
from autoscaler.simulator import scenario
from autoscaler.simulator.objects import ImitatedCycle, Quota
from autoscaler.simulator.updates import PER_REPLICA, ImitatedWorkload
from rollouts.commands import HaveReplicas
from rollouts.machine import Step
from rollouts.record import Phase
from rollouts.revision import digest_of, identify, identity_of

ORIGIN: Final = 1000.0  # the first second that is shown, as the daemon's clock has it
BEFORE_S: Final = 300  # both models come up and serve, and their windows fill, before that


@dataclass(frozen=True, slots=True)
class Edit:
    """What a person applies: another image and other bounds."""

    at_s: int
    image: str
    least: int
    most: int
    works: bool = True  # False: its pods never become ready

    @property
    def bounds(self) -> str:
        """ "3..8"."""
        return f"{self.least}..{self.most}"


@dataclass(frozen=True, slots=True)
class Load:
    """From then on so many requests a second."""

    at_s: int
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class UpdateModel:
    """One model, of one GPU a replica. What is there from the start comes first."""

    name: str
    edits: tuple[Edit, ...]
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True)
class UpdateScenario:
    models: tuple[UpdateModel, ...]
    gpus: int = 12
    duration_s: int = 340
    start_s: float = 60.0  # of a pod, the median
    progress_deadline_s: float = 120.0
    seed: int = 0


def demo(seed: int) -> UpdateScenario:
    """A model of 3 replicas shall have 8 while its neighbour needs 2, and then only 1; then comes a broken image."""
    edits = Edit(0, "chat:1", 3, 8), Edit(10, "chat:2", 8, 8), Edit(210, "chat:3-broken", 3, 3, works=False)
    chat = UpdateModel("chat-8b", edits, (Load(0, 4.0),))
    embed = UpdateModel("embed", (Edit(0, "embed:1", 1, 4),), (Load(0, 2.4), Load(30, 0.8)))
    return UpdateScenario((chat, embed), seed=seed)


@dataclass(frozen=True, slots=True)
class Told:
    """Something happened. `what` is the reason of the daemon's event, a change of a count, or what was done to it."""

    at_s: int
    model: str
    what: str
    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class RevisionView:
    """One revision at one virtual second."""

    name: str
    ready: int
    starting: int
    terminating: int
    gpus: int  # that the ledger holds for it
    percent: int  # of the model's traffic


@dataclass(frozen=True, slots=True)
class UpdateView:
    """One model at one virtual second, after the cycle."""

    name: str
    revisions: tuple[RevisionView, ...]  # the oldest first
    sentence: str | None  # of its update


@dataclass(frozen=True, slots=True)
class UpdateMoment:
    """All models at one virtual second, and what happened since the one before."""

    at_s: int
    views: tuple[UpdateView, ...]
    held: int  # GPUs in the ledger
    used: int  # GPUs of live and terminating pods
    told: tuple[Told, ...]


@dataclass(slots=True)
class UpdateOutcome:
    """What was measured of one update. Instants are virtual seconds; None: it never came to that."""

    model: str
    revision: str
    edited_at: float
    before: frozenset[str]  # pods that served when the template was edited
    size: int = 0
    held_at: float | None = None
    full_at: float | None = None  # verified 100 %
    ended_at: float | None = None  # its old revision's pods are gone, or its own
    rolled_back_at: float | None = None
    start_s: float = 0.0  # from the creation of its pods to the readiness of the last one
    pods: int = 0  # the most that it ever had
    lost: set[str] = field(default_factory=set)  # of `before`, those that stopped serving while it was not at 100 %


@dataclass(slots=True)
class Totals:
    """Measured at every write of the driver and in every second."""

    most_used: int = 0  # GPUs of live and terminating pods
    most_held: int = 0  # GPUs in the ledger
    uncovered: int = 0  # writes and seconds at which pods of a revision had more GPUs than the ledger held for it


class UpdateSimulation:
    """The run. `play` may be iterated once; then `outcomes` and `totals` have what was measured."""

    def __init__(self, chosen: UpdateScenario) -> None:
        self.scenario = chosen
        self.quota = Quota((scenario.PROJECT, DEFAULT_POOL), chosen.gpus)
        self.totals = Totals()
        self.outcomes: list[UpdateOutcome] = []
        self._cycle = ImitatedCycle(self.quota)
        self._told: list[Told] = []
        self._models = [_Model(plan, chosen, self.quota, self._meter) for plan in chosen.models]

    @property
    def workloads(self) -> tuple[ImitatedWorkload, ...]:
        return tuple(model.workload for model in self._models)

    def play(self) -> Iterator[UpdateMoment]:
        """One moment for each virtual second that is shown, up to the end."""
        for at_s in range(-BEFORE_S, self.scenario.duration_s):
            for model in self._models:
                model.workload.advance(ORIGIN + at_s)
                self._happen(model, at_s)
            self._drive(at_s)
            self._follow()
            self._meter()
            if at_s >= 0:
                yield self._moment(at_s)
            self._told.clear()

    def _happen(self, model: _Model, at_s: int) -> None:
        """What people do, and what the load does."""
        plan, workload = model.plan, model.workload
        if at_s == 0:
            workload.requests = workload.unanswered = 0
        for before, edit in pairwise(plan.edits):
            if edit.at_s == at_s:
                served = workload.answers()
                model.apply(edit)
                self.outcomes.append(UpdateOutcome(plan.name, model.newest.name, ORIGIN + at_s, served))
                text = f"image {before.image} -> {edit.image}, replicas {before.bounds} -> {edit.bounds}"
                self._told.append(Told(at_s, plan.name, "edit", text))
        for load, other in pairwise(plan.loads):
            if other.at_s == at_s:
                workload.requests_per_s = other.requests_per_s
                text = f"{load.requests_per_s:g} -> {other.requests_per_s:g} requests/s"
                self._told.append(Told(at_s, plan.name, "load", text))

    def _drive(self, at_s: int) -> None:
        """The daemon's cycle, and its driver for each."""
        turns = self._cycle.run([model.subject() for model in self._models], ORIGIN + at_s)
        for model, turn in zip(self._models, turns, strict=True):
            subject, step = turn.subject, turn.step
            scaled = model.drive(subject, step)
            model.sentence = updates.message(subject, model.workload.record, step.waiting)
            for event in updates.events(subject.stored, model.workload.record, model.sentence):
                self._told.append(Told(at_s, model.plan.name, event.reason, event.note, event.warning))
            if scaled is not None:
                self._told.append(Told(at_s, model.plan.name, scaled, reason_text(turn.decision)))

    def _follow(self) -> None:
        """What became of the updates in this second."""
        by_name = {model.plan.name: model for model in self._models}
        for outcome in self.outcomes:
            _measure(outcome, by_name[outcome.model].workload)

    def _meter(self) -> None:
        """Asked at every write, too."""
        totals = self.totals
        totals.most_used = max(totals.most_used, sum(each.pods for each in self.workloads))
        totals.most_held = max(totals.most_held, self.quota.gpus)
        for workload in self.workloads:
            for name, thing in workload.things.items():
                totals.uncovered += len(thing.pods) > self.quota.held(str(workload.key), name)

    def _moment(self, at_s: int) -> UpdateMoment:
        used = sum(each.pods for each in self.workloads)
        views = tuple(model.view() for model in self._models)
        return UpdateMoment(at_s, views, self.quota.gpus, used, tuple(self._told))


class _Model:
    """One model in the run: what is wanted of it, and what there is."""

    def __init__(self, plan: UpdateModel, chosen: UpdateScenario, quota: Quota, wrote: Callable[[], None]) -> None:
        self.plan = plan
        self.sentence: str | None = None
        chance = random.Random(f"{chosen.seed} updates {plan.name}")
        self.workload = ImitatedWorkload(WorkloadKey("demo", plan.name), quota, chosen.start_s, chance, wrote)
        self.workload.requests_per_s = plan.loads[0].requests_per_s
        self._deadline_s = chosen.progress_deadline_s
        self.apply(plan.edits[0])

    def apply(self, edit: Edit) -> None:
        """The template and the bounds as stored now."""
        template = {"spec": {"containers": [{"name": "vllm", "image": edit.image}]}}
        identity = identity_of({"deployment": {"template": template}, "port": 8000, "engine": "vllm"})
        stored = {name: digest_of(content) for name, content in self.workload.contents.items()}
        self.newest, self._collisions = identify(self.plan.name, identity, stored, 0)
        if not edit.works:
            self.workload.broken.add(self.newest.name)
        spec = scenario.workload_spec(self.plan.name, 1, 16, edit.least, edit.most, created_at=ORIGIN - BEFORE_S)
        rollout = replace(spec.rollout, progress_deadline_s=self._deadline_s)
        scaling = replace(spec.scaling, scale_down_delay_s=0.0)
        self._spec = replace(spec, scaling=scaling, rollout=rollout, per_replica=PER_REPLICA)

    def subject(self) -> Subject:
        return self.workload.subject(self._spec, self.newest, self._collisions)

    def drive(self, subject: Subject, step: Step) -> str | None:
        """How the current revision's count changed, "2 -> 1", if it did."""
        done = self.workload.drive(subject, step)
        counts = (each for each in done if isinstance(each, HaveReplicas) and each.seen is not None)
        changed = next((each for each in counts if each.revision == subject.record.current), None)
        return f"{changed.seen} -> {changed.replicas}" if changed is not None else None

    def view(self) -> UpdateView:
        workload = self.workload
        selects = workload.service(workload.key.name).selects
        revisions = tuple(
            RevisionView(
                name,
                seen.ready,
                seen.starting,
                seen.terminating,
                workload.quota.held(str(workload.key), name),
                100 if name == selects else 0,
            )
            for name, seen in ((name, workload.observed(name)) for name in workload.names())
        )
        return UpdateView(self.plan.name, revisions, self.sentence)


def _measure(outcome: UpdateOutcome, workload: ImitatedWorkload) -> None:
    """Takes in one second."""
    record, now = workload.record, workload.now
    rollout = record.rollout if record.rollout and record.rollout.revision == outcome.revision else None
    thing = workload.things.get(outcome.revision)
    if outcome.ended_at is not None:
        return
    if rollout is not None:
        outcome.size, outcome.held_at = rollout.size, rollout.held_at or outcome.held_at
        if rollout.phase is Phase.DRAINING and outcome.full_at is None:
            outcome.full_at = rollout.since
        if rollout.phase is Phase.ROLLING_BACK and outcome.rolled_back_at is None:
            outcome.rolled_back_at = rollout.since
    if thing is not None and thing.pods:
        outcome.pods = max(outcome.pods, len(thing.pods))
        if outcome.full_at is None:
            outcome.start_s = max(each.ready_at for each in thing.pods) - min(each.created_at for each in thing.pods)
    if outcome.full_at is None:
        outcome.lost |= outcome.before - workload.answers()
    done = record.current == outcome.revision and rollout is None and not record.leaving
    if done or (rollout is not None and rollout.phase is Phase.FAILED):
        outcome.ended_at = now
