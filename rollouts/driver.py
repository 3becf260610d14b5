"""Carries out a step: the record first, then its commands in order. The one place that writes replica counts.

The first failure ends the step and is raised; the next cycle looks at the world again and goes on from there. What was
done before it, and what failed, can be asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from rollouts.commands import (
    Command,
    DeleteRevision,
    HaveReplicas,
    Hold,
    Release,
    SaveRevision,
    Select,
    Stamp,
    WarmUp,
    Weigh,
)
from rollouts.machine import Step
from rollouts.ports import OwnPorts, Records, Scale
from rollouts.record import Record


class Driver:
    """Runs the steps of one workload through its ports."""

    def __init__(
        self, records: Records, scale: Scale, wanted: Callable[[Command], bool], own: OwnPorts | None = None
    ) -> None:
        """`wanted` is asked before each command: on a slow API server a newer decision may want something else.

        `own` is None for a target, of which a step wants nothing but another count.
        """
        self._records = records
        self._scale = scale
        self._wanted = wanted
        self._own = own
        self.recorded = False  # the step's record is the stored one
        self.done: tuple[Command, ...] = ()
        self.doing: Command | None = None  # where it raised; None: while saving the record

    async def run(self, before: Record, step: Step) -> None:
        """Does the step as far as it is wanted, or raises what its first failing part raised."""
        if step.record != before:
            await self._records.save(step.record)
        self.recorded = True
        for command in step.commands:
            if not self._wanted(command):
                return
            self.doing = command
            await self._do(command)
            self.done = (*self.done, command)
            self.doing = None

    async def _do(self, command: Command) -> None:
        if isinstance(command, HaveReplicas) and command.seen is not None:
            await self._scale.scale(command.revision, command.replicas, command.seen)
        elif self._own is None:
            raise RuntimeError(f"no ports for {command}")
        else:
            await _do_own(self._own, command)


async def _do_own(ports: OwnPorts, command: Command) -> None:
    """Everything but another count of an object that is there."""
    match command:
        case SaveRevision(revision):
            await ports.revisions.save(revision)
        case Stamp(revision, epoch):
            await ports.revisions.stamp(revision, epoch)
        case HaveReplicas(revision, replicas):
            await ports.revisions.create(revision, replicas)
        case Select(service, revision, exists):
            await ports.traffic.select(service, revision, exists)
        case Hold(revision, pool, vector):
            await ports.quota.hold(revision, pool, vector)
        case Release(revision):
            await ports.quota.release(revision)
        case WarmUp(revision):
            assert ports.warm_ups is not None  # else there is no such command
            await ports.warm_ups.warm_up(revision)
        case Weigh(update_percent, seen):
            assert ports.route is not None  # else there is no such command
            await ports.route.weigh(update_percent, seen)
        case DeleteRevision(revision, immediate):
            await ports.removal.delete(revision, immediate)
        case _:
            assert_never(command)
