"""What promote, pause, resume, abort and retry mean for a workload as it stands now. Pure.

The daemon obeys a verb only for the revision that it names, and only in phases where it means something
(`rollouts.intent`). So that nobody asks for nothing, the same is checked here first and refused with a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from autoscaler.cli.seen import VERB_ANNOTATION, Seen, is_in, paused_by
from autoscaler.cluster.inferenceworkload import RolloutStatus
from rollouts.moves import PAUSABLE, REVOCABLE
from rollouts.record import PausedBy, Phase
from rollouts.verbs import Verb

_BY_SPEC: Final = "it is paused by spec.rollout.paused; set that to false"
_WORDS: Final = {Verb.PROMOTE_FULL: "promote --full"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What to write and what to say about it."""

    verb: Verb
    revision: str
    says: str


def asked(verb: Verb, seen: Seen) -> Asked | str:
    """The asking, or the sentence that says why there is nothing to act on."""
    rollout, name = seen.told.rollout, seen.metadata.name
    if verb is Verb.RETRY:
        found = _retry(seen)
    elif rollout is None or not rollout.revision:
        found = _nothing(seen, verb)
    else:
        found = _of_update(verb, rollout, rollout.revision)
    if isinstance(found, Asked):
        return found
    waiting = unhandled(seen)
    pending = f'; "{waiting}" was asked for before and is not handled yet' if waiting else ""
    return f"{name}: {found}{pending}"


def unhandled(seen: Seen) -> str | None:
    """The verb that stands on the object and that the daemon has not taken in yet."""
    text = (seen.metadata.annotations or {}).get(VERB_ANNOTATION)
    record = seen.told.record
    return text if text is not None and (record is None or record.handled != text) else None


def annotation(request: Asked, now: float) -> str:
    """`<verb> <revision> <time>`; the time makes each asking another one."""
    return f"{request.verb.value} {request.revision} {datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def patch(uid: str, text: str) -> dict[str, Any]:
    """The merge patch: this annotation and nothing else, of this very object and none of the same name."""
    return {"metadata": {"uid": uid, "annotations": {VERB_ANNOTATION: text}}}


def _nothing(seen: Seen, verb: Verb) -> str:
    told, what = seen.told, _WORDS.get(verb, verb.value)
    if seen.kind_of_serving == "targetRef":
        return f"nothing to {what}: a targetRef has no updates, whoever made its object rolls it out"
    if told.observed_generation is None or told.observed_generation < seen.metadata.generation:
        return f"nothing to {what}: no update is known, and the daemon has not seen the latest edit yet"
    return f"nothing to {what}: no update, {told.current_revision or 'no revision'} has all the traffic"


def _retry(seen: Seen) -> Asked | str:
    told, rollout = seen.told, seen.told.rollout
    if rollout is not None and rollout.revision and is_in(rollout, Phase.FAILED):
        why = f", which failed ({rollout.reason})" if rollout.reason else ", which failed"
        return Asked(Verb.RETRY, rollout.revision, f"asked to try the update {rollout.revision}{why}, once more")
    if told.record is not None and told.record.phase == Phase.FAILED.value and told.current_revision:
        return Asked(Verb.RETRY, told.current_revision, f"asked to start {told.current_revision} once more")
    if rollout is not None and rollout.revision:
        return (
            f"nothing to retry: the update {rollout.revision} is {rollout.phase}; only a failed one can be tried again"
        )
    return "nothing to retry: nothing has failed"


def _of_update(verb: Verb, rollout: RolloutStatus, revision: str) -> Asked | str:
    update = f"the update {revision}"
    match verb:
        case Verb.ABORT:
            return _abort(rollout, revision, update)
        case Verb.PAUSE:
            return _pause(rollout, revision, update)
        case Verb.PROMOTE_FULL:
            return _promote_full(rollout, revision, update)
        case _:
            return _go_on(verb, rollout, revision, update)


def _abort(rollout: RolloutStatus, revision: str, update: str) -> Asked | str:
    if is_in(rollout, *REVOCABLE):
        back = " and take its traffic back" if rollout.weight else ""
        return Asked(Verb.ABORT, revision, f"asked to abort {update}{back}; the current revision stays")
    if is_in(rollout, Phase.DRAINING):
        return f"{update} has all the traffic, proven: it is past aborting; apply the old template to go back"
    return f"nothing to abort: {update} is {rollout.phase}{_because(rollout)}"


def _pause(rollout: RolloutStatus, revision: str, update: str) -> Asked | str:
    by = paused_by(rollout)
    if is_in(rollout, *PAUSABLE):
        return Asked(Verb.PAUSE, revision, f"asked to pause {update} ({rollout.phase}); resume lets it go on")
    if by is PausedBy.STEP:
        return Asked(Verb.PAUSE, revision, f"asked to hold the pause of {update} until it is resumed")
    if by is PausedBy.VERB:
        return f"{update} is paused already; resume lets it go on"
    if by is PausedBy.SPEC:
        return f"{update} is paused already, by spec.rollout.paused"
    return f"nothing to pause: {update} is {rollout.phase}{_because(rollout)}"


def _go_on(verb: Verb, rollout: RolloutStatus, revision: str, update: str) -> Asked | str:
    by = paused_by(rollout)
    if by in (PausedBy.STEP, PausedBy.VERB):
        resumes = rollout.pause.resumes if rollout.pause is not None else None
        return Asked(verb, revision, f"asked to end the pause of {update}; it goes on {resumes or 'as before'}")
    if by is PausedBy.SPEC:
        return f"nothing to {verb.value}: {_BY_SPEC}"
    hint = "; --full leaves the remaining steps out" if verb is Verb.PROMOTE and is_in(rollout, *REVOCABLE) else ""
    return f"nothing to {verb.value}: {update} is {rollout.phase}{_because(rollout)}, not paused{hint}"


def _promote_full(rollout: RolloutStatus, revision: str, update: str) -> Asked | str:
    if not is_in(rollout, *REVOCABLE):
        return f"nothing to promote: {update} is {rollout.phase}{_because(rollout)}"
    if rollout.full:
        return f"{update} is promoted already: it goes to 100 % without further steps"
    but = f"; {_BY_SPEC}, or it waits all the same" if paused_by(rollout) is PausedBy.SPEC else ""
    return Asked(Verb.PROMOTE_FULL, revision, f"asked to take {update} to 100 % without further steps{but}")


def _because(rollout: RolloutStatus) -> str:
    return f" ({rollout.reason})" if rollout.reason else ""
