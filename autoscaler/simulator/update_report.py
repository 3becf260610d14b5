"""The words around the two updates: what runs, one line for each event, and what was measured.

Nothing here is known in advance: numbers are of this run, sentences of updates are the daemon's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoscaler.model.rollout import RolloutSpec
from autoscaler.simulator.story import clock
from autoscaler.simulator.update_run import Told, UpdateOutcome, UpdateScenario, UpdateSimulation


def opening(chosen: UpdateScenario) -> list[str]:
    """What of it is real and what is imitated."""
    names = " and ".join(model.name for model in chosen.models)
    return [
        f"updates: {names}, 1 GPU a replica, {chosen.gpus} GPUs, {chosen.duration_s} virtual seconds",
        "",
        "real      the cycle, the state machine, its driver, the quota's order, the words",
        "imitated  time, requests, pods, the ledger (it refuses what does not fit), and",
        "          Services (no connection outlives a switch)",
        "",
        f"A pod is up in about {chosen.start_s:g} s; progressDeadlineSeconds is {chosen.progress_deadline_s:g} "
        f"(default {RolloutSpec().progress_deadline_s:g}).",
    ]


def event_line(told: Told) -> str:
    return f"{clock(told.at_s)}  {told.model:9} {told.what:24} {told.text}"


def closing(run: UpdateSimulation) -> list[str]:
    totals, gpus = run.totals, run.scenario.gpus
    asked = sum(each.requests for each in run.workloads)
    nobody = sum(each.unanswered for each in run.workloads)
    return [
        "Measured of the updates",
        "",
        *(line for each in run.outcomes for line in _of(each, run.scenario)),
        "At every write and in every second:",
        f"  most GPUs of live and terminating pods: {totals.most_used} of {gpus}",
        f"  most GPUs held in the ledger: {totals.most_held} of {gpus}",
        f"  revisions whose pods had more than the ledger held for them: {totals.uncovered}",
        f"  requests that found no ready replica: {nobody} of {asked:,}",
    ]


def _of(outcome: UpdateOutcome, chosen: UpdateScenario) -> Iterator[str]:
    before = len(outcome.before)
    yield f"{outcome.revision}: {before} -> {outcome.size} replicas"
    if outcome.held_at is None:
        yield "  its quota was never free"
        return
    yield f"  queued {outcome.held_at - outcome.edited_at:.0f} s, until {outcome.size} GPUs were free"
    if outcome.full_at is not None:
        took = outcome.full_at - outcome.held_at
        yield f"  from its hold to verified 100 %: {took:.0f} s, of which its pods' start-up {outcome.start_s:.0f} s"
    if outcome.rolled_back_at is not None:
        took = outcome.rolled_back_at - outcome.held_at
        yield f"  rolled back {took:.0f} s after its hold (deadline {chosen.progress_deadline_s:g} s)"
        if outcome.ended_at is not None:
            after = outcome.ended_at - outcome.rolled_back_at
            yield f"  its {outcome.pods} pods gone, and its hold released, {after:.0f} s later"
    yield f"  replicas of the current revision that stopped serving meanwhile: {len(outcome.lost)} of {before}"
