"""The measured results of a run beside two fixed counts in the same world, and the words for them.

Nothing here is known in advance: every number comes from the outcomes of this seed's runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from autoscaler.simulator.run import Outcome, fixed
from autoscaler.simulator.scenario import Model, Scenario
from autoscaler.simulator.story import Event, clock

PEAK_SHARE: Final = 0.999
NEXT: Final = (
    "Next",
    "  tidegate validate config/examples/llama-3-8b.yaml   check a workload offline",
    "  make test                         everything, against a real control plane",
    "  README.md, Quick start            install it with Helm",
)


@dataclass(frozen=True, slots=True)
class Line:
    """All models under one way of choosing counts."""

    label: str
    counts: tuple[int, ...] | None  # fixed ones; None: they changed
    outcomes: tuple[Outcome, ...]

    @property
    def gpu_hours(self) -> float:
        return sum(each.gpu_hours for each in self.outcomes)

    @property
    def share(self) -> float:
        """Of all requests, those that were started within the SLO's wait."""
        arrived = sum(each.arrived for each in self.outcomes)
        return sum(each.within_slo for each in self.outcomes) / arrived if arrived else 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tidegate beside two fixed counts."""

    tidegate: Line
    peak: Line
    mean: Line
    most_gpus: int  # that the autoscaled run ever held


def compare(scenario: Scenario, outcomes: tuple[Outcome, ...], most_gpus: int) -> Comparison:
    """Runs the fixed counts on the same arrivals."""
    return Comparison(Line("Tidegate", None, outcomes), _peak(scenario), _mean(scenario), most_gpus)


def _peak(scenario: Scenario) -> Line:
    """Per model the smallest count that keeps 99.9 % within the SLO, or what the quota leaves of it."""
    free, chosen, counts = scenario.gpus, [], []
    for place, model in enumerate(scenario.models):
        kept = sum(later.server.gpus for later in scenario.models[place + 1 :])  # one replica of each
        outcome, count = _smallest(model, scenario, (free - kept) // model.server.gpus)
        chosen.append(outcome)
        counts.append(count)
        free -= count * model.server.gpus
    return Line("fixed for the peak", tuple(counts), tuple(chosen))


def _smallest(model: Model, scenario: Scenario, most: int) -> tuple[Outcome, int]:
    for count in range(1, most):
        outcome = fixed(model, scenario, count)
        if outcome.share >= PEAK_SHARE:
            return outcome, count
    return fixed(model, scenario, most), most


def _mean(scenario: Scenario) -> Line:
    counts = tuple(math.ceil(model.need(0, scenario.duration_s)) for model in scenario.models)
    outcomes = tuple(fixed(model, scenario, count) for model, count in zip(scenario.models, counts, strict=True))
    return Line("fixed for the mean", counts, outcomes)


def percent(share: float) -> str:
    """Rounded down: 100.0 % means all of them."""
    return f"{math.floor(share * 1000) / 10:.1f} %"


def opening(scenario: Scenario) -> list[str]:
    """What runs, what of it is real and what is imitated."""
    kpa = scenario.models[0].spec.scaling.kpa
    panic_s = kpa.stable_window_s * kpa.panic_window_percent / 100
    return [
        f"tidegate demo: {len(scenario.models)} models, {scenario.gpus} GPUs, "
        f"{scenario.duration_s // 60} virtual minutes, seed {scenario.seed}",
        "",
        "real      the cycle, its driver and the quota's order are the daemon's own code,",
        f"          policy kpa, default parameters (windows {kpa.stable_window_s:g} s and {panic_s:g} s)",
        "          the arrivals: published production data",
        "imitated  time, ledger, servers (queue, slots, start-up, drain); no model runs",
        *(line for model in scenario.models for line in _settings(model)),
    ]


def _settings(model: Model) -> Iterable[str]:
    scaling, server = model.spec.scaling, model.server
    retention = f", to zero after {scaling.retention_s:g} s idle" if scaling.min_replicas == 0 else ""
    gpus = f"{server.gpus} GPU{'s' * (server.gpus > 1)}"
    yield ""
    yield (
        f"{model.name:9} {scaling.min_replicas}..{scaling.max_replicas} replicas of {gpus}, each "
        f"{server.slots} requests at once, target {model.target:.4g},"
    )
    yield f"          up in about {server.start_s:g} s; scale-down delay {scaling.scale_down_delay_s:g} s{retention}"
    yield from (f"          {line}" for line in model.trace)


def event_line(event: Event) -> str:
    return f"{clock(event.at_s)}  {event.model:9} {event.change:7} {event.text}"


def closing(scenario: Scenario, found: Comparison) -> list[str]:
    """The results and their definitions."""
    requests = sum(each.arrived for each in found.tidegate.outcomes)
    return [
        f"Measured in this run: {requests:,} requests. SLO: at most {scenario.slo_wait_s:g} s of waiting for a slot",
        "",
        *_table(scenario, found),
        "",
        *_facts(scenario, found),
        "",
        f"peak: per model the smallest count with {percent(PEAK_SHARE)} within the SLO, or what the",
        "      quota leaves of it; known only afterwards",
        "mean: per model the mean number of requests in service / target, rounded up",
        "All start with replicas that serve; Tidegate with what the first minute needs.",
        "GPU-hours count starting and draining replicas, too. Who still waits at the",
        "end has missed the SLO.",
    ]


def _table(scenario: Scenario, found: Comparison) -> list[str]:
    names = [model.name for model in scenario.models]
    lines = [f"{'':20} {'replicas':>9} {'GPU-hours':>10} {'within SLO':>11}" + "".join(f" {name:>9}" for name in names)]
    for line in (found.tidegate, found.peak, found.mean):
        counts = " + ".join(map(str, line.counts)) if line.counts else "varying"
        shares = "".join(f" {percent(each.share):>9}" for each in line.outcomes)
        lines.append(f"{line.label:20} {counts:>9} {line.gpu_hours:10.2f} {percent(line.share):>11}{shares}")
    return lines


def _facts(scenario: Scenario, found: Comparison) -> list[str]:
    outcomes = found.tidegate.outcomes
    events = ", ".join(f"{each.model.name} {each.scale_events}" for each in outcomes)
    more = found.tidegate.gpu_hours / found.peak.gpu_hours - 1
    late = sum(each.arrived - each.within_slo for each in outcomes)
    loading = sum(each.late_while_starting for each in outcomes)
    zero = ", ".join(f"{each.model.name} {clock(each.seconds_at_zero)}" for each in outcomes if each.seconds_at_zero)
    return [
        f"GPU-hours against fixed for the peak: {100 * more:+.1f} %",
        f"most GPUs held at once: {found.most_gpus} of {scenario.gpus}; time at zero: {zero or 'none'}",
        f"scale events: {events}; replicas started: {sum(each.starts for each in outcomes)}",
        f"late requests: {late:,}; of them {loading:,} waited while a replica was starting",
    ]
