"""A verb is asked for exactly where the daemon would obey it, and refused with a sentence everywhere else."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from autoscaler.cli import verbs
from autoscaler.cli.seen import VERB_ANNOTATION, Seen
from autoscaler.cluster.inferenceworkload import PauseRecord, RolloutRecord, RolloutStatus, Status
from autoscaler.cluster.resources import Metadata
from autoscaler.model.rollout import RolloutSpec
from rollouts.intent import heed
from rollouts.observed import Limits, Observed, ObservedRevision, ObservedService, Situation
from rollouts.record import Pause, PausedBy, Phase, Record, Rollout, Why
from rollouts.revision import Revision
from rollouts.verbs import Verb, VerbRequest, parse

NOW = 1000.0
PHASES_OF_UPDATES = (
    *(Phase.QUEUED, Phase.STARTING, Phase.WARMING, Phase.SHIFTING),
    *(Phase.DRAINING, Phase.ROLLING_BACK, Phase.FAILED),
)


def standings() -> list[Rollout]:
    """An update in every phase, and paused in every way."""
    begun = Rollout("llama-new", queued_at=0.0, queue_deadline_at=5000.0, since=0.0, pool="default")
    found = [replace(begun, phase=phase) for phase in PHASES_OF_UPDATES]
    found = [
        replace(each, reason=Why.ABORTED) if each.phase in (Phase.ROLLING_BACK, Phase.FAILED) else each
        for each in found
    ]
    resumable = (Phase.QUEUED, Phase.STARTING, Phase.WARMING, Phase.SHIFTING)
    for by, phase in itertools.product(PausedBy, resumable):
        until = 2000.0 if by is PausedBy.STEP else None
        found.append(replace(begun, phase=Phase.PAUSED, pause=Pause(by, 900.0, until, phase)))
    return [*found, replace(begun, phase=Phase.SHIFTING, full=True)]


def told(rollout: Rollout | None, phase: Phase = Phase.COMPLETE) -> Seen:
    """The workload as the API server has it after the daemon wrote that."""
    stored = None if rollout is None else _stored(rollout)
    status = Status(
        observed_generation=1, current_revision="llama-old", rollout=stored, record=RolloutRecord(phase=phase.value)
    )
    return Seen(metadata=Metadata(name="llama", namespace="team", uid="u", generation=1), status=status)


def _stored(rollout: Rollout) -> RolloutStatus:
    pause = rollout.pause
    return RolloutStatus(
        revision=rollout.revision,
        phase=rollout.phase.value,
        reason=rollout.reason.value if rollout.reason else None,
        weight=rollout.weight,
        full=rollout.full,
        pause=PauseRecord(by=pause.by.value, resumes=pause.resumes.value) if pause is not None else None,
    )


def obeyed(rollout: Rollout, verb: Verb) -> bool:
    """Does the state machine of the daemon do anything at that verb?"""
    spec = RolloutSpec(paused=rollout.pause is not None and rollout.pause.by is PausedBy.SPEC)
    there = ObservedRevision("llama-old", 3, ready=3)
    service = ObservedService("llama", exists=True, selects="llama-old")
    newest = Revision("llama-new", "d", {})
    observed = Observed(newest, 0, frozenset({"llama-old", "llama-new"}), there, service, service)
    request = VerbRequest(verb, rollout.revision, f"{verb.value} {rollout.revision} now")
    seen = Situation(Limits(3, verb=request), spec, observed, 3, NOW)
    record = Record(Phase.COMPLETE, "llama-old", "llama-new", served_at=1.0, rollout=rollout)
    silent = replace(seen, limits=Limits(3))
    return heed(seen, record).rollout != heed(silent, record).rollout


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize(
    "rollout", standings(), ids=lambda each: f"{each.phase}-{each.pause.by if each.pause else each.full}"
)
def test_what_the_command_asks_for_is_what_the_daemon_obeys(rollout: Rollout, verb: Verb) -> None:
    asked = verbs.asked(verb, told(rollout))
    again = verb is Verb.PAUSE and rollout.pause is not None and rollout.pause.by is PausedBy.VERB
    assert isinstance(asked, verbs.Asked) == (obeyed(rollout, verb) and not again), asked
    if isinstance(asked, verbs.Asked):
        assert (asked.verb, asked.revision) == (verb, "llama-new")
    else:
        assert asked.startswith("llama: ")


def test_the_annotation_is_one_that_the_daemon_reads_and_each_asking_is_another() -> None:
    request = verbs.Asked(Verb.PROMOTE_FULL, "llama-new", "")
    texts = [verbs.annotation(request, at) for at in (1_777_629_600.25, 1_777_629_600.5)]
    assert texts[0] == "promote-full llama-new 2026-05-01T10:00:00.250000Z"
    assert texts[0] != texts[1]
    assert parse(texts[0]) == VerbRequest(Verb.PROMOTE_FULL, "llama-new", texts[0])


def test_the_patch_touches_the_annotation_of_this_very_object_and_nothing_else() -> None:
    assert verbs.patch("u-1", "pause r t") == {
        "metadata": {"uid": "u-1", "annotations": {VERB_ANNOTATION: "pause r t"}}
    }


@pytest.mark.parametrize("verb", [each for each in Verb if each is not Verb.RETRY])
def test_without_an_update_there_is_nothing_to_steer(verb: Verb) -> None:
    what = "promote --full" if verb is Verb.PROMOTE_FULL else verb.value
    assert verbs.asked(verb, told(None)) == f"llama: nothing to {what}: no update, llama-old has all the traffic"


def test_an_edit_that_nobody_has_seen_yet_is_named() -> None:
    old = told(None)
    edited = Seen(metadata=Metadata(name="llama", uid="u", generation=2), status=old.status)
    assert verbs.asked(Verb.ABORT, edited) == (
        "llama: nothing to abort: no update is known, and the daemon has not seen the latest edit yet"
    )


def test_a_first_revision_that_failed_is_retried_by_name() -> None:
    asked = verbs.asked(Verb.RETRY, told(None, Phase.FAILED))
    assert isinstance(asked, verbs.Asked)
    assert asked.revision == "llama-old"
    assert verbs.asked(Verb.RETRY, told(None)) == "llama: nothing to retry: nothing has failed"


def test_a_verb_that_is_still_on_its_way_is_named_in_the_refusal() -> None:
    seen = told(standings()[0])
    text = "pause llama-new 2026-05-01T10:00:00Z"
    waiting = Seen(metadata=Metadata(name="llama", uid="u", annotations={VERB_ANNOTATION: text}), status=seen.status)
    assert verbs.asked(Verb.RESUME, waiting) == (
        f'llama: nothing to resume: the update llama-new is Queued, not paused; "{text}" was asked for before and is '
        "not handled yet"
    )
