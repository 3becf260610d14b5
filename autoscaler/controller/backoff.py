"""When a step that failed is tried again. What waits is that very step: another count or record is tried at once."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from autoscaler.cluster.errors import ApiError, Foreign, NotFound, Refused, TooManyRequests, Unreachable
from autoscaler.controller.reporting import Trouble
from autoscaler.model.workload import WorkloadKey
from rollouts.commands import Command, HaveReplicas, SaveRevision, Select, Weigh
from rollouts.machine import Step

FIRST_S: Final = 2.0
MOST_S: Final = 300.0
OVERTAKEN_MOST: Final = 10  # conflicts in a row before they are worth a word


@dataclass(frozen=True, slots=True)
class _Held:
    commands: tuple[Command, ...]
    trouble: Trouble
    until: float
    delay_s: float


class BackOff:
    """Per workload; forgets what succeeds."""

    def __init__(self) -> None:
        self._held: dict[WorkloadKey, _Held] = {}
        self._overtaken: dict[WorkloadKey, int] = {}

    def held(self, key: WorkloadKey, step: Step, now: float) -> Trouble | None:
        """The trouble of a step that is not to be tried yet."""
        held = self._held.get(key)
        return held.trouble if held is not None and held.commands == step.commands and now < held.until else None

    def failed(self, key: WorkloadKey, step: Step, trouble: Trouble, now: float, retry_after_s: float = 0.0) -> None:
        """Doubles the wait while the same commands fail; never below what the server asked for."""
        before = self._held.get(key)
        same = before is not None and before.commands == step.commands
        delay_s = min(MOST_S, before.delay_s * 2) if same and before is not None else FIRST_S
        self._held[key] = _Held(step.commands, trouble, now + max(delay_s, retry_after_s), delay_s)

    def overtaken(self, key: WorkloadKey, message: str) -> Trouble | None:
        """A conflict is no trouble, unless it happens every time."""
        self._overtaken[key] = self._overtaken.get(key, 0) + 1
        often = self._overtaken[key] >= OVERTAKEN_MOST
        return Trouble("AbleToScale", f"at least {OVERTAKEN_MOST} conflicts in a row: {message}") if often else None

    def succeeded(self, key: WorkloadKey) -> None:
        self._held.pop(key, None)
        self._overtaken.pop(key, None)

    def keep(self, keys: Set[WorkloadKey]) -> None:
        """Forgets workloads that are gone."""
        for memory in (self._held, self._overtaken):
            for key in memory.keys() - keys:
                del memory[key]


def trouble_of(error: ApiError, doing: Command | None, ours: bool = True) -> Trouble:
    """Which condition tells of this error: by what was being done, not by the status code alone.

    `ours`: the object is made from the workload's template; it is nobody else's.
    """
    if isinstance(error, Foreign):
        return Trouble("Conflict", str(error))
    if ours and isinstance(error, Refused) and isinstance(doing, SaveRevision | HaveReplicas):
        return Trouble("TemplateInvalid", str(error))
    if isinstance(error, Refused | NotFound) and isinstance(doing, Select):
        return Trouble("ServiceUnusable", str(error))
    if isinstance(error, Refused | NotFound) and isinstance(doing, Weigh):
        return Trouble("RouteUnusable", str(error))
    away = isinstance(error, Unreachable | TooManyRequests) or error.status == 503
    return Trouble("AbleToScale", str(error), away)
