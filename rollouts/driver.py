"""Carries out a step: the record first, then its commands in order. The one place that writes replica counts.

The first failure ends the step and is raised; the next cycle looks at the world again and goes on from there.
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

    async def run(self, before: Record, step: Step) -> tuple[Command, ...]:
        """Does the step and returns the commands that it carried out (all of them, unless it raises)."""
        if step.record != before:
            await self._records.save(step.record)
        for command in step.commands:
            await self._do(command)
        return step.commands

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
