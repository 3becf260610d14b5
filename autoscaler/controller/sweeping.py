"""What nobody waits for, done from time to time: stored revisions beyond a workload's history are deleted.

A revision goes only while its workload is seen as it is, and nothing knows of it: no record, no template, no object, no
pod. Should one be wanted again in that moment, the next cycle stores it again from the template.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC
from typing import Final

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from autoscaler.cluster.errors import ApiError
from autoscaler.cluster.fencing import Tenure
from autoscaler.cluster.history import forget, superfluous
from autoscaler.cluster.resources import ControllerRevision
from autoscaler.cluster.status import record_of
from autoscaler.cluster.store import Store
from autoscaler.controller.subject import Snapshot, Subject

EVERY_S: Final = 60.0
MOST: Final = 100  # deletions of one sweep: they share the write budget with what somebody waits for

log = structlog.get_logger()


class Sweep:
    """Holds what a sweep needs; `once` is one."""

    def __init__(self, tenure: Callable[[], Tenure | None], store: Store, seen: Callable[[], Snapshot | None]) -> None:
        """`tenure`: what may be written with; None while this process does not lead. `seen`: of the last cycle that
        acted."""
        self._tenure = tenure
        self._store = store
        self._seen = seen

    async def run(self, every_s: float = EVERY_S) -> None:
        """Sweeps until it is cancelled."""
        scheduler = AsyncIOScheduler(timezone=UTC)
        scheduler.add_job(self.once, "interval", seconds=every_s, coalesce=True, max_instances=1)
        scheduler.start()
        try:
            await asyncio.Event().wait()
        finally:
            scheduler.shutdown(wait=False)

    async def once(self) -> None:
        """Leaves to the next sweep what it cannot do."""
        tenure, seen = self._tenure(), self._seen()
        if tenure is None or seen is None:
            return
        try:
            for subject, revision in self.superfluous(seen)[:MOST]:
                if revision.metadata.name in self._used(subject):  # meanwhile
                    continue
                await forget(tenure.api, revision)
                log.info("revision.forgotten", workload=str(subject.key), revision=revision.metadata.name)
        except ApiError as error:
            log.info("sweep.ended_early", error=str(error))
        except Exception:  # a bug: nothing depends on it
            log.exception("sweep.crashed")

    def superfluous(self, seen: Snapshot) -> list[tuple[Subject, ControllerRevision]]:
        stored = self._store.revisions_by_workload()
        return [
            (subject, revision)
            for subject in seen.subjects
            if subject.spec.target is None and subject.follows
            for revision in superfluous(
                subject.workload,
                stored.get((subject.key.namespace, subject.key.name), {}).values(),
                self._used(subject),
                subject.spec.rollout.revision_history_limit,
            )
        ]

    def _used(self, subject: Subject) -> frozenset[str]:
        """By name. What was stored since the cycle looked counts, too; a workload that is gone uses what it used."""
        namespace, name = subject.key
        latest = self._store.workloads.find(namespace, name) or subject.workload
        records = (subject.stored, subject.record, record_of(latest))
        named = {each for record in records for each in (*record.names, record.update) if each is not None}
        known = self._store.revisions_by_workload().get((namespace, name), {})
        pods = self._store.pods_by_revision()
        there = {
            each
            for each in known
            if (namespace, each) in pods
            or any(kind.find(namespace, each) is not None for kind in self._store.scalables.values())
        }
        return frozenset(named | there | {subject.observed.newest.name})
