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
from rollouts.ports import Records, Revisions, Traffic, UpdatePorts
from rollouts.record import Record


class Driver:
    """Runs the steps of one workload through its ports."""

    def __init__(
        self,
        records: Records,
        revisions: Revisions,
        traffic: Traffic,
        wanted: Callable[[Command], bool],
        updates: UpdatePorts | None = None,
    ) -> None:
        """`wanted` is asked before each command: on a slow API server a newer decision may want something else.

        `updates` is needed where `Limits.rollout` is set; steps of a target have no commands for it.
        """
        self._records = records
        self._revisions = revisions
        self._traffic = traffic
        self._wanted = wanted
        self._updates = updates
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
        match command:
            case SaveRevision(revision):
                await self._revisions.save(revision)
            case Stamp(revision, epoch):
                await self._revisions.stamp(revision, epoch)
            case HaveReplicas(revision, replicas, seen):
                await self._revisions.have_replicas(revision, replicas, seen)
            case Select(service, revision, exists):
                await self._traffic.select(service, revision, exists)
            case _:
                await self._update(command)

    async def _update(self, command: Hold | Release | WarmUp | Weigh | DeleteRevision) -> None:
        if self._updates is None:
            raise RuntimeError(f"no ports for {command}")
        route = self._updates.route
        match command:
            case Hold(revision, pool, vector):
                await self._updates.quota.hold(revision, pool, vector)
            case Release(revision):
                await self._updates.quota.release(revision)
            case WarmUp(revision):
                await self._updates.warm_ups.warm_up(revision)
            case Weigh(update_percent, seen):
                assert route is not None  # else there is no such command
                await route.weigh(update_percent, seen)
            case DeleteRevision(revision, immediate):
                await self._updates.removal.delete(revision, immediate)
            case _:
                assert_never(command)
