"""What to do next for an object that somebody else owns: `step`, which knows one command, another count.

There is no revision: no content is stored, no object created or stamped, no Service turned. What protects from a late
write of an earlier leader is the version that every write names, and patience: nothing is lowered while one may be
under way (`Limits.may_lower`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rollouts.commands import Command, HaveReplicas
from rollouts.machine import Reason, Step
from rollouts.record import Phase, Record


@dataclass(frozen=True, slots=True)
class ObservedTarget:
    """The object as last seen."""

    name: str  # what the record knows it by
    replicas: int
    ready: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What binds the step."""

    epoch: int | None = None  # of the present leader
    may_lower: bool = True  # False while a write of an earlier leader may still arrive
    observe: bool = False  # the count is whatever its owner makes it


def step(limits: Limits, record: Record, seen: ObservedTarget, granted: int, now: float) -> Step:
    """The next step. `granted` is the replica count after policy, bounds and quota.

    Another target begins another record, and what was the target stays as it is. A count that was recorded and is not
    seen may still be on its way, so that is not lowered either before its time.
    """
    before = record
    if record.current != seen.name:
        record = Record(Phase.COMPLETE, seen.name, initialized=True, started_at=now)
    most = max(seen.replicas, record.replicas or 0)
    held = not limits.observe and not limits.may_lower and granted < most
    count = seen.replicas if limits.observe else most if held else granted
    serving = seen.ready > 0 or (record.serving and count > 0)
    served_at = now if seen.ready > 0 and record.served_at is None else record.served_at
    after = replace(record, replicas=count, serving=serving, served_at=served_at, epoch=limits.epoch)
    commands: tuple[Command, ...] = ()
    if count != seen.replicas:
        commands = (HaveReplicas(seen.name, count, seen.replicas),)
    reasons = (Reason.TAKING_OVER,) if held else ()
    return Step(before if after == before else after, commands, reasons)
