"""Is a workload as it should be, on its way there, or in trouble? What `tidegate status` answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from autoscaler.cli.seen import Seen, is_in
from autoscaler.cli.verbs import unhandled
from autoscaler.cli.words import span
from autoscaler.doctor.findings import Exit
from rollouts.moves import ACTIVE
from rollouts.record import Phase

STUCK: Final = (
    "Conflict",
    "TemplateInvalid",
    "ProjectDenied",
    "Frozen",
    "RouteUnusable",
    "Stalled",
)  # conditions that only a person ends
_TROUBLED: Final = frozenset({"Failed", "Degraded"})
_SETTLED: Final = frozenset({"Running", "Stopped"})


class Standing(StrEnum):
    OK = "ok"
    UNDERWAY = "underway"  # nobody need do anything
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class Verdict:
    standing: Standing
    message: str

    @property
    def exit(self) -> Exit:
        """What is still under way when nobody waits any longer was not done in time."""
        return {Standing.OK: Exit.OK, Standing.DEGRADED: Exit.DEGRADED}.get(self.standing, Exit.TIMEOUT)


def verdict(seen: Seen) -> Verdict:
    """Of the object as stored; a status that speaks of an older spec proves nothing."""
    told = seen.told
    if told.phase is None or told.observed_generation is None:
        return Verdict(Standing.UNDERWAY, "the daemon has written no status yet")
    if told.observed_generation < seen.metadata.generation:
        message = f"the daemon has not seen generation {seen.metadata.generation} yet, only {told.observed_generation}"
        return Verdict(Standing.UNDERWAY, message)
    if waiting := unhandled(seen):
        return Verdict(Standing.UNDERWAY, f'"{waiting}" is not handled yet')
    if stuck := _stuck(seen):
        return Verdict(Standing.DEGRADED, stuck)
    return _of_update(seen) or _of_phase(seen, told.phase)


def _stuck(seen: Seen) -> str | None:
    """That an update has failed is a condition, too, and better told as what it is: what serves does not stall."""
    rollout = seen.told.rollout
    failed = rollout.reason if rollout is not None and is_in(rollout, Phase.FAILED) else None
    return next(
        (
            f"{each.type} ({each.reason}): {each.message}"
            for each in seen.told.conditions or ()
            if each.type in STUCK and each.status == "True" and (each.type, each.reason) != ("Stalled", failed)
        ),
        None,
    )


def _of_update(seen: Seen) -> Verdict | None:
    """None where no update has anything to say."""
    told, rollout = seen.told, seen.told.rollout
    if rollout is None or not rollout.phase:
        if told.update_revision:
            return Verdict(Standing.UNDERWAY, f"update {told.update_revision} has not begun")
        return None
    reason = f" ({rollout.reason})" if rollout.reason else ""
    message = told.rollout_message or f"Update {rollout.revision} is {rollout.phase}{reason}"
    if is_in(rollout, Phase.FAILED):
        return Verdict(Standing.DEGRADED, message)
    if is_in(rollout, *ACTIVE, Phase.ROLLING_BACK, Phase.SUPERSEDED):
        return Verdict(Standing.UNDERWAY, message)
    return None


def _of_phase(seen: Seen, phase: str) -> Verdict:
    message = f"{phase}: {seen.told.phase_message or 'no message'}"
    if phase in _TROUBLED:
        return Verdict(Standing.DEGRADED, message)
    return Verdict(Standing.OK if phase in _SETTLED else Standing.UNDERWAY, message)


def line(seen: Seen, found: Verdict, waited_s: float) -> str:
    """`llama ok: Running: 3 of 3 replicas ready`."""
    late = f" (after {span(waited_s)})" if found.standing is Standing.UNDERWAY and waited_s > 0 else ""
    return f"{seen.metadata.name} {found.standing.value}{late}: {found.message}"


def document(seen: Seen, found: Verdict) -> dict[str, Any]:
    """What `-o json` and `-o yaml` show."""
    rollout = seen.told.rollout
    return {
        "namespace": seen.metadata.namespace,
        "name": seen.metadata.name,
        "status": found.standing.value,
        "message": found.message,
        "phase": seen.told.phase,
        "revision": seen.told.current_revision,
        "update": {"revision": rollout.revision, "phase": rollout.phase, "reason": rollout.reason} if rollout else None,
    }
