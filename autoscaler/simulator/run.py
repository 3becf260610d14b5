"""Runs a scenario: the daemon's own `decide` and `allocate` against the imitated servers, second by second.

`Simulation` is the autoscaled run, `fixed` the same world with a count that nobody changes. Both are functions of the
scenario (and its seed) alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from autoscaler.model.decision import Grant, Observation, ScalingDecision
from autoscaler.model.resources import GPU
from autoscaler.scaling.allocation import allocate, ask_of
from autoscaler.scaling.decision import ScalingState, decide
from autoscaler.simulator.scenario import Model, Scenario
from autoscaler.simulator.world import ModelWorld


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


class Simulation:
    """The autoscaled run. Starts with the replicas that the first minute needs, already serving."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.worlds: dict[str, ModelWorld] = {}
        self._applied: dict[str, int] = {}
        self._states: dict[str, ScalingState] = {}
        self._scale_events: dict[str, int] = {}
        self._limits = {
            (model.spec.project, model.spec.node_pool): {GPU: scenario.gpus * 1000} for model in scenario.models
        }
        for model in scenario.models:
            warm = max(model.spec.scaling.min_replicas, math.ceil(model.need(0, 60)))
            chance = random.Random(f"{scenario.seed} start-up {model.name}")
            self.worlds[model.name] = ModelWorld(model.server, model.arrivals, warm, chance)
            self._applied[model.name] = warm
            self._states[model.name] = ScalingState()
            self._scale_events[model.name] = 0

    def play(self) -> Iterator[Moment]:
        """One moment for each virtual second, up to the end."""
        for at_s in range(self.scenario.duration_s):
            seen = {model.name: self._look(model, at_s) for model in self.scenario.models}
            choices = self._cycle(seen, float(at_s)) if at_s % self.scenario.tick_s == 0 else {}
            for world in self.worlds.values():
                world.hold(1)
            yield Moment(at_s, tuple(self._view(model, choices.get(model.name)) for model in self.scenario.models))
        for world in self.worlds.values():
            world.advance(float(self.scenario.duration_s))

    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(
            _outcome(model, self.worlds[model.name], self._scale_events[model.name], self.scenario.slo_wait_s)
            for model in self.scenario.models
        )

    def _look(self, model: Model, at_s: int) -> Observation:
        world = self.worlds[model.name]
        world.advance(float(at_s))
        return world.observe(self._applied[model.name], model.gateway)

    def _cycle(self, seen: dict[str, Observation], now: float) -> dict[str, Choice]:
        """The daemon's cycle with its own parts: decide for each, allocate among all, apply what was granted."""
        decisions: dict[str, ScalingDecision] = {}
        for model in self.scenario.models:
            name = model.name
            decisions[name], self._states[name] = decide(model.spec, self._states[name], seen[name], now)
        asks = [ask_of(model.spec, decisions[model.name], _live(seen[model.name])) for model in self.scenario.models]
        grants = allocate(asks, self._limits)
        return {
            model.name: self._apply(model.name, decisions[model.name], grants[model.spec.key])
            for model in self.scenario.models
        }

    def _apply(self, name: str, decision: ScalingDecision, grant: Grant) -> Choice:
        before = self._applied[name]
        if grant.granted != before:
            self._applied[name] = grant.granted
            self._scale_events[name] += 1
            self.worlds[name].have(grant.granted)
        return Choice(decision, grant, before, grant.granted)

    def _view(self, model: Model, choice: Choice | None) -> View:
        world = self.worlds[model.name]
        return View(
            model=model,
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


def fixed(model: Model, scenario: Scenario, count: int) -> Outcome:
    """The same world and arrivals with `count` replicas from the first to the last second."""
    world = ModelWorld(model.server, model.arrivals, count, random.Random(scenario.seed))
    for at_s in range(scenario.duration_s):
        world.advance(float(at_s))
        world.hold(1)
    world.advance(float(scenario.duration_s))
    return _outcome(model, world, 0, scenario.slo_wait_s)


def _live(seen: Observation) -> int:
    """Replicas that hold GPUs."""
    return (seen.ready or 0) + seen.starting + seen.terminating


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
