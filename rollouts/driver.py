"""Carries out a step: the record first, then its commands in order. The one place that writes replica counts.

The first failure ends the step and is raised; the next cycle looks at the world again and goes on from there. What was
done before it, and what failed, can be asked for.
"""

from __future__ import annotations

from typing import assert_never

from rollouts.machine import Command, HaveReplicas, SaveRevision, Select, Step
from rollouts.ports import Records, Revisions, Traffic
from rollouts.record import Record


class Driver:
    """Runs the steps of one workload through its ports."""

    def __init__(self, records: Records, revisions: Revisions, traffic: Traffic) -> None:
        self._records = records
        self._revisions = revisions
        self._traffic = traffic
        self.recorded = False  # the step's record is the stored one
        self.done: tuple[Command, ...] = ()
        self.doing: Command | None = None  # where it raised; None: while saving the record

    async def run(self, before: Record, step: Step) -> None:
        """Does the step, or raises what its first failing part raised."""
        if step.record != before:
            await self._records.save(step.record)
        self.recorded = True
        for command in step.commands:
            self.doing = command
            await self._do(command)
            self.done = (*self.done, command)
        self.doing = None

    async def _do(self, command: Command) -> None:
        match command:
            case SaveRevision(revision):
                await self._revisions.save(revision)
            case HaveReplicas(revision, replicas, seen):
                await self._revisions.have_replicas(revision, replicas, seen)
            case Select(service, revision, exists):
                await self._traffic.select(service, revision, exists)
            case _:
                assert_never(command)
