"""What is told of an update: its sentence, its events, its numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from autoscaler.controller import updates
from autoscaler.controller.deciding import Decided
from autoscaler.controller.reporting import Before, Known, Outcome, compose
from autoscaler.controller.specs import Operator
from autoscaler.controller.subject import Subject
from autoscaler.model.decision import Grant
from autoscaler.model.resources import GPU
from autoscaler.scaling.decision import ScalingState, decide
from rollouts.machine import Step
from rollouts.observed import ObservedHold, ObservedRevision
from rollouts.quota import Verdict
from rollouts.record import Leaving, Pause, PausedBy, Phase, Record, Rollout, Why
from tests.controller.test_conflicts import NOW, cycle, snapshot, subject

NAME = "chat-7f3a91c2"
QUEUED = Rollout(NAME, 100.0, 3700.0, 100.0)


def seen(verdict: Verdict | None = None, *others: ObservedRevision, holds: tuple[ObservedHold, ...] = ()) -> Subject:
    base = subject()
    observed = replace(base.observed, verdict=verdict, others=others, holds=holds)
    return replace(base, spec=replace(base.spec, project="ml-team"), observed=observed)


def with_update(rollout: Rollout | None, **fields: object) -> Record:
    return replace(subject().record, rollout=rollout, **fields)  # type: ignore[arg-type]


def test_a_queued_update_says_what_is_short() -> None:
    verdict = Verdict(NAME, short={GPU: 1000}, free={GPU: 7000}, limit={GPU: 12000})
    told = updates.message(seen(verdict), with_update(QUEUED), "8 replicas are 1 nvidia.com/gpu short")
    assert told == f"Update {NAME} queued: 1 GPU short in project ml-team (7 of 8 free)"


def test_one_that_waits_behind_the_head_of_the_queue_says_so() -> None:
    head = (subject().key, "other-1")
    verdict = Verdict(NAME, short={GPU: 1000}, free={GPU: 7000}, blocked_by=head)
    told = updates.message(seen(verdict), with_update(QUEUED), None)
    assert told is not None
    assert told.endswith("(7 of 8 free); other-1 is at the head of the queue")


@pytest.mark.parametrize(
    ("rollout", "waiting", "told"),
    [
        (QUEUED, "waits until the pods of chat-1 are gone", "queued: waits until the pods of chat-1 are gone"),
        (replace(QUEUED, phase=Phase.STARTING), "2 of 8 are ready", "starting: 2 of 8 are ready"),
        (replace(QUEUED, phase=Phase.SHIFTING, weight=10), None, "taking traffic: 10 %"),
        (
            replace(QUEUED, phase=Phase.FAILED, reason=Why.PROGRESS_DEADLINE_EXCEEDED),
            None,
            "failed: it did not serve within the progress deadline; chat-1 goes on",
        ),
        (
            replace(QUEUED, phase=Phase.ROLLING_BACK, reason=Why.ABORTED),
            "waits until the pods are gone",
            "rolling back: it was aborted; waits until the pods are gone",
        ),
    ],
)
def test_each_phase_has_its_sentence(rollout: Rollout, waiting: str | None, told: str) -> None:
    assert updates.message(seen(), with_update(rollout), waiting) == f"Update {NAME} {told}"


def test_without_an_update_there_is_nothing_to_say() -> None:
    assert updates.message(seen(), with_update(None), None) is None
    assert updates.events(with_update(None), with_update(None), None) == ()


def reasons(before: Record, after: Record) -> list[str]:
    return [each.reason for each in updates.events(before, after, "told")]


def test_events_follow_the_way_of_an_update() -> None:
    starting = replace(QUEUED, phase=Phase.STARTING, since=110.0)
    shifting = replace(starting, phase=Phase.SHIFTING, since=120.0, weight=10)
    proven = replace(shifting, verified=10, step=1)
    draining = replace(proven, phase=Phase.DRAINING, since=130.0, weight=100, verified=100, step=1)
    way = [None, QUEUED, starting, shifting, proven, draining]
    told = [reasons(with_update(a), with_update(b)) for a, b in pairwise(way)]
    assert told == [
        ["RolloutQueued"],
        ["RolloutStarted"],
        [],
        ["TrafficWeightUpdated", "RolloutStepCompleted"],
        ["TrafficWeightUpdated"],
    ]
    gone = (Leaving("chat-1", 140.0, served=True, drained=True),)
    done = with_update(None, current=NAME, leaving=gone)
    assert reasons(with_update(draining), done) == ["RolloutCompleted"]
    assert reasons(done, replace(done, leaving=())) == ["RevisionScaledDown"]


@pytest.mark.parametrize(
    ("why", "event"),
    [
        (Why.PROGRESS_DEADLINE_EXCEEDED, "ProgressDeadlineExceeded"),
        (Why.ABORTED, "RolloutAborted"),
        (Why.NEVER_FITS, "RolloutBlocked"),
    ],
)
def test_a_roll_back_is_a_warning_that_says_why(why: Why, event: str) -> None:
    starting = replace(QUEUED, phase=Phase.STARTING)
    back = replace(starting, phase=Phase.ROLLING_BACK, since=200.0, reason=why)
    [first] = updates.events(with_update(starting), with_update(back), "told")
    assert (first.reason, first.warning) == (event, True)
    failed = replace(back, phase=Phase.FAILED, since=205.0)
    assert reasons(with_update(back), with_update(failed)) == ["RolledBack"]


def test_a_pause_and_its_end() -> None:
    shifting = replace(QUEUED, phase=Phase.SHIFTING, since=120.0)
    pause = Pause(PausedBy.VERB, 130.0, None, Phase.SHIFTING)
    paused = replace(shifting, phase=Phase.PAUSED, since=130.0, pause=pause)
    assert reasons(with_update(shifting), with_update(paused)) == ["RolloutPaused"]
    assert reasons(with_update(paused), with_update(replace(shifting, since=140.0))) == ["RolloutResumed"]


def test_a_newer_template_supersedes() -> None:
    newer = replace(QUEUED, revision="chat-00000000", queued_at=150.0, since=150.0)
    assert reasons(with_update(QUEUED), with_update(newer)) == ["RolloutSuperseded", "RolloutQueued"]


def test_the_running_clock_and_the_next_instants() -> None:
    leaving = (Leaving("chat-0", 90.0, served=True, deadline_at=400.0),)
    starting = replace(QUEUED, phase=Phase.STARTING, schedule_deadline_at=300.0, progress_deadline_at=700.0)
    record = with_update(starting, leaving=leaving)
    assert updates.deadline(record) == 300.0
    assert sorted(set(updates.next_instants(record))) == [300.0, 400.0, 700.0]
    assert updates.deadline(with_update(QUEUED)) == 3700.0
    assert updates.deadline(with_update(None)) is None


def test_the_status_tells_of_every_revision() -> None:
    coming = ObservedRevision(NAME, 8, ready=2, starting=6)
    holds = (ObservedHold("chat-1", "default", {GPU: 2000}), ObservedHold(NAME, "h100", {GPU: 8000}))
    starting = replace(QUEUED, phase=Phase.STARTING, pool="h100")
    limits = {("ml-team", "h100"): {GPU: 12000}}
    told = updates.status(seen(None, coming, holds=holds), with_update(starting), "said", limits)
    names = [(each["name"], each["role"], each["ready"], each["nodePool"]) for each in told["revisions"]]
    assert names == [("chat-1", "Current", 2, "default"), (NAME, "Update", 2, "h100")]
    assert told["rolloutMessage"] == "said"
    quota = {name: told["quota"][name] for name in ("nodePool", "gpusLimit", "gpusFree")}
    assert quota == {"nodePool": "h100", "gpusLimit": 12000, "gpusFree": None}


def test_what_is_free_is_told_while_an_update_asks_for_it() -> None:
    verdict = Verdict(NAME, short={GPU: 1000}, free={GPU: 7000}, limit={GPU: 12000})
    told = updates.status(seen(verdict), with_update(QUEUED), "said", {("ml-team", "default"): {GPU: 12000}})
    assert (told["quota"]["gpusFree"], told["quota"]["gpusShort"]) == (7000, 1000)


def test_the_summary_counts_what_is_held_beside_the_current_revision() -> None:
    holds = (ObservedHold("chat-1", "default", {GPU: 2000}), ObservedHold(NAME, "default", {GPU: 8000}))
    starting = replace(QUEUED, phase=Phase.STARTING)
    told = updates.summary(seen(None, holds=holds), None, with_update(starting), "said")
    assert (told.phase, told.surge_gpus, told.ended) == ("Starting", 8.0, "")


@pytest.mark.parametrize(
    ("before", "after", "ended"),
    [
        (replace(QUEUED, phase=Phase.DRAINING), with_update(None, current=NAME), "Promoted"),
        (replace(QUEUED, phase=Phase.DRAINING, full=True), with_update(None, current=NAME), "FastPromoted"),
        (
            replace(QUEUED, phase=Phase.ROLLING_BACK, reason=Why.ABORTED),
            with_update(replace(QUEUED, phase=Phase.FAILED, reason=Why.ABORTED)),
            "Aborted",
        ),
        (
            replace(QUEUED, phase=Phase.ROLLING_BACK, reason=Why.QUEUE_TIMEOUT),
            with_update(replace(QUEUED, phase=Phase.FAILED, reason=Why.QUEUE_TIMEOUT)),
            "RolledBack",
        ),
        (QUEUED, with_update(replace(QUEUED, revision="chat-00000000")), "Superseded"),
        (QUEUED, with_update(replace(QUEUED, phase=Phase.STARTING)), ""),
        (
            replace(QUEUED, phase=Phase.FAILED, reason=Why.ABORTED),
            with_update(replace(QUEUED, revision="chat-00000000")),
            "",
        ),
    ],
)
def test_every_update_ends_once(before: Rollout, after: Record, ended: str) -> None:
    assert updates.summary(seen(), with_update(before), after, None).ended == ended


def test_an_update_that_has_just_taken_over_is_told_with_its_own_replicas() -> None:
    """It was seen beside the revision of before, which has 2."""
    base = seen(None, ObservedRevision(NAME, 8, ready=7, starting=1))
    decision, _ = decide(base.spec, ScalingState(), base.observation, NOW)
    outcome = Outcome(base.workload, replace(base.record, current=NAME), before=base.record)
    report = compose(
        snapshot(base),
        {base.key: decision},
        {base.key: Grant(base.key, decision.desired, decision.desired)},
        {base.key: outcome},
        Known({}, frozenset(), {}, {}, {}, {}),
        Before({}, {}),
        Operator(),
    ).workloads[base.key]
    assert (report.revision, report.counts.applied, report.counts.ready, report.counts.starting) == (NAME, 8, 7, 1)
    assert report.phase_message.startswith("7 of 8 replicas ready")


def test_a_record_is_stored_with_what_is_told_of_it() -> None:
    """An update that takes over: with the very write that ends it the status speaks of it as what serves."""
    base = seen(None, ObservedRevision(NAME, 8, ready=8))
    draining = replace(QUEUED, phase=Phase.DRAINING, weight=100, verified=100)
    there = replace(base, record=with_update(draining, update=NAME))
    decision, _ = decide(base.spec, ScalingState(), base.observation, NOW)
    looked = (
        snapshot(there),
        Decided({base.key: decision}, {}, {}, ()),
        {base.key: Grant(base.key, decision.desired, decision.desired)},
    )
    stored = [
        cycle()._told_of(there, Step(replace(there.record, **fields)), looked, there.workload)  # type: ignore[arg-type]
        for fields in ({}, {"current": NAME, "rollout": None, "update": None})
    ]
    told = [
        (each["phaseMessage"].partition(";")[0], each["rolloutMessage"], pending["status"])
        for each in stored
        for pending in each["conditions"]
        if pending["type"] == "UpdatePending"
    ]
    sentence = f"Update {NAME} has all traffic"
    assert told == [(sentence, sentence, "True"), ("8 of 8 replicas ready", None, "False")]
