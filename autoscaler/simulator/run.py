"""Runs a scenario: the daemon's own cycle and driver against the imitated servers, second by second.

`Simulation` is the autoscaled run, `fixed` the same world with a count that nobody changes. Both are functions of the
scenario (and its seed) alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from autoscaler.controller.subject import Subject
from autoscaler.model.decision import Grant, ScalingDecision
from autoscaler.model.resources import times
from autoscaler.model.rollout import DEFAULT_POOL
from autoscaler.model.signal import WorkloadSignals
from autoscaler.simulator.objects import EPOCH, UPDATE_SUFFIX, ImitatedCycle, ImitatedObjects, Quota
from autoscaler.simulator.scenario import PROJECT, Model, Scenario
from autoscaler.simulator.world import ModelWorld
from rollouts.observed import ObservedRevision
from rollouts.record import Phase, Record
from rollouts.revision import NO_REVISION, identify


@dataclass(frozen=True, slots=True)
class Choice:
    """What one cycle decided for one model, and the count before and after."""

    decision: ScalingDecision
    grant: Grant
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class View:
    """One model at one virtual second."""

    model: Model
    arrived: int  # so far
    finished: int
    in_service: int
    waiting: int
    oldest_wait_s: float
    ready: int
    starting: int
    terminating: int
    gpus: int
    choice: Choice | None  # None: no cycle ran in this second


@dataclass(frozen=True, slots=True)
class Moment:
    """All models at one virtual second, after the cycle."""

    at_s: int
    views: tuple[View, ...]

    @property
    def gpus(self) -> int:
        return sum(view.gpus for view in self.views)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model's measured results. GPUs count from the start of a replica until it is gone."""

    model: Model
    arrived: int
    finished: int
    within_slo: int  # started within the SLO's wait; what still waited at the end is not
    gpu_hours: float
    scale_events: int
    starts: int
    seconds_at_zero: int
    late_while_starting: int

    @property
    def share(self) -> float:
        return self.within_slo / self.arrived if self.arrived else 1.0


class ServedModel(ImitatedObjects):
    """A model whose one revision serves from the start, on the imitated servers."""

    def __init__(self, model: Model, world: ModelWorld, quota: Quota, replicas: int) -> None:
        """`replicas` are there already. Raises NotHeld where the quota has no room for them."""
        super().__init__(model.spec.key, quota)
        self.model = model
        self.world = world
        self.replicas = replicas
        self.scale_events = 0
        self._revision, _ = identify(model.name, {"port": model.spec.serving.port}, {}, 0)
        name = self._revision.name
        self.record = Record(
            Phase.COMPLETE, name, replicas=replicas, initialized=True, served_at=0.0, serving=replicas > 0, epoch=EPOCH
        )
        self.contents[name] = self._revision.identity
        self.epochs[name] = EPOCH
        self.selects = {model.spec.service: name, model.spec.service + UPDATE_SUFFIX: NO_REVISION}
        if replicas:
            quota.write(str(self.key), name, times(model.spec.per_replica, replicas))

    def seen(self) -> Subject:
        return self.subject(
            self.model.spec, self._revision, activation=self.world.activation() if self.model.gateway else None
        )

    def have(self, revision: str, replicas: int | None) -> None:
        self.replicas = replicas or 0
        self.scale_events += 1
        self.world.have(self.replicas)

    def observed(self, revision: str) -> ObservedRevision:
        world = self.world
        return ObservedRevision(
            revision,
            self.replicas,
            ready=len(world.ready),
            starting=len(world.starting),
            terminating=world.terminating,
            epoch=self.epochs[revision],
            serving=self._names(),
        )

    def endpoints(self, service: str) -> frozenset[str] | None:
        return self._names() if service == self.model.spec.service else frozenset()

    def signals(self, revision: str) -> WorkloadSignals | None:
        return self.world.signals()

    @property
    def there(self) -> frozenset[str]:
        return frozenset({self._revision.name})

    def _names(self) -> frozenset[str]:
        return frozenset(f"{self._revision.name}-{each.number}" for each in self.world.ready)


class Simulation:
    """The autoscaled run. Starts with the replicas that the first minute needs, already serving."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.quota = Quota((PROJECT, DEFAULT_POOL), scenario.gpus)
        self._cycle = ImitatedCycle(self.quota)
        self.served: list[ServedModel] = []
        for model in scenario.models:
            warm = max(model.spec.scaling.min_replicas, math.ceil(model.need(0, 60)))
            chance = random.Random(f"{scenario.seed} start-up {model.name}")
            world = ModelWorld(model.server, model.arrivals, warm, chance)
            self.served.append(ServedModel(model, world, self.quota, warm))

    def play(self) -> Iterator[Moment]:
        """One moment for each virtual second, up to the end."""
        for at_s in range(self.scenario.duration_s):
            for served in self.served:
                served.world.advance(float(at_s))
                served.world.signals()  # a page a second
            due = at_s % self.scenario.tick_s == 0
            choices = self._drive(float(at_s)) if due else [None] * len(self.served)
            for served in self.served:
                served.world.hold(1)
            yield Moment(at_s, tuple(map(_view, self.served, choices)))
        for served in self.served:
            served.world.advance(float(self.scenario.duration_s))

    def outcomes(self) -> tuple[Outcome, ...]:
        slo_wait_s = self.scenario.slo_wait_s
        return tuple(_outcome(each.model, each.world, each.scale_events, slo_wait_s) for each in self.served)

    def _drive(self, now: float) -> list[Choice | None]:
        """The daemon's cycle, and its driver for each."""
        turns = self._cycle.run([each.seen() for each in self.served], now)
        choices: list[Choice | None] = []
        for served, turn in zip(self.served, turns, strict=True):
            before = served.replicas
            served.drive(turn.subject, turn.step)
            choices.append(Choice(turn.decision, turn.grant, before, served.replicas))
        return choices


def fixed(model: Model, scenario: Scenario, count: int) -> Outcome:
    """The same world and arrivals with `count` replicas from the first to the last second."""
    world = ModelWorld(model.server, model.arrivals, count, random.Random(scenario.seed))
    for at_s in range(scenario.duration_s):
        world.advance(float(at_s))
        world.hold(1)
    world.advance(float(scenario.duration_s))
    return _outcome(model, world, 0, scenario.slo_wait_s)


def _view(served: ServedModel, choice: Choice | None) -> View:
    world = served.world
    return View(
        model=served.model,
        arrived=world.arrived,
        finished=world.finished,
        in_service=world.in_service,
        waiting=len(world.waiting),
        oldest_wait_s=world.oldest_wait_s,
        ready=len(world.ready),
        starting=len(world.starting),
        terminating=world.terminating,
        gpus=world.gpus,
        choice=choice,
    )


def _outcome(model: Model, world: ModelWorld, scale_events: int, slo_wait_s: float) -> Outcome:
    return Outcome(
        model=model,
        arrived=world.arrived,
        finished=world.finished,
        within_slo=world.within(slo_wait_s),
        gpu_hours=world.gpu_seconds / 3600,
        scale_events=scale_events,
        starts=world.starts,
        seconds_at_zero=world.seconds_at_zero,
        late_while_starting=world.late_while_starting(slo_wait_s),
    )
