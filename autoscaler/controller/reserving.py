"""Keeps the ledgers as all steps of a cycle want them, before anything is done on the strength of it.

One write per ledger and cycle. A slow API server holds up growth and nothing else: writes go on beside the cycles, and
what is not confirmed yet is not done yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import structlog

from autoscaler.cluster.errors import ApiError
from autoscaler.cluster.fencing import Tenure
from autoscaler.cluster.quota.ledgers import Ledgers, name_of
from autoscaler.model.quota import Domain, Ledger
from autoscaler.model.resources import EMPTY, ResourceVector

NOTHING: Final[Mapping[Domain, Ledger]] = {}

log = structlog.get_logger()


class NotHeld(Exception):
    """The ledger does not confirm a hold. Nothing that depends on it is done; the next cycle asks again."""


class Reservations:
    """The ledgers of the present tenure, and what stands in their way."""

    def __init__(self, namespace: str) -> None:
        """`namespace`: where the ledgers live, the daemon's own."""
        self._namespace = namespace
        self._epoch: int | None = None
        self._ledgers: Ledgers | None = None
        self._task: asyncio.Task[None] | None = None
        self._unread = "the QuotaLedgers are being read"
        self.troubles: dict[Domain, str] = {}  # why a ledger could not be written

    @property
    def confirmed(self) -> Mapping[Domain, Ledger]:
        """As the API server last answered in this tenure."""
        return self._ledgers.confirmed if self._ledgers is not None else NOTHING

    async def abandon(self) -> None:
        """The tenure is over."""
        task, self._task = self._task, None
        self._epoch, self._ledgers = None, None
        self.troubles.clear()
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def read(self, tenure: Tenure, within_s: float) -> str | None:
        """Takes the ledgers over, once per tenure. Why they are not known yet, if so: then nothing may be held."""
        if tenure.epoch != self._epoch:
            await self.abandon()
            self._epoch = tenure.epoch
        if self._ledgers is not None:
            return None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._take_over(tenure), name="ledgers")
        await asyncio.wait({self._task}, timeout=within_s)
        return None if self._ledgers is not None else self._unread

    async def _take_over(self, tenure: Tenure) -> None:
        ledgers = Ledgers(tenure.api, self._namespace, tenure.epoch)
        try:
            await ledgers.take_over()
        except ApiError as error:
            self._unread = f"the QuotaLedgers could not be read: {error}"
            return
        self._ledgers = ledgers

    def have(self, wanted: Mapping[Domain, Ledger]) -> None:
        """Begins to make the ledgers so. What an earlier cycle began is finished first."""
        if self._ledgers is None or _covers(self.confirmed, wanted):
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._bring(self._ledgers, wanted), name="ledgers")

    async def settle(self, within_s: float | None = None) -> None:
        """Waits for what was begun."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=within_s)

    async def _bring(self, ledgers: Ledgers, wanted: Mapping[Domain, Ledger]) -> None:
        troubles = {}
        for domain, ledger in wanted.items():
            try:
                await ledgers.write(domain, ledger)
            except (ApiError, ValueError) as error:
                troubles[domain] = f"QuotaLedger {name_of(domain)} could not be written: {error}"
        self._tell(troubles)

    def _tell(self, troubles: dict[Domain, str]) -> None:
        """A trouble and its end, once each; its words may change meanwhile."""
        for domain in troubles.keys() - self.troubles.keys():
            log.warning("ledger.not_written", ledger=name_of(domain), why=troubles[domain])
        for domain in self.troubles.keys() - troubles.keys():
            log.info("ledger.written_again", ledger=name_of(domain))
        self.troubles = troubles

    def held(self, domain: Domain, owner: str, revision: str) -> ResourceVector:
        """As confirmed, in thousandths."""
        ledger = self.confirmed.get(domain)
        hold = ledger.of(owner, revision) if ledger is not None else None
        return hold.vector if hold is not None else EMPTY


class LedgerQuota:
    """The driver's port `Quota` for one workload. The cycle writes the ledgers; a driver waits for what it needs."""

    def __init__(self, reservations: Reservations, owner: str, project: str) -> None:
        self._reservations = reservations
        self._owner = owner
        self._project = project

    async def hold(self, revision: str, pool: str, vector: ResourceVector) -> None:
        """Raises NotHeld where the ledger, once written, says less."""
        await self._reservations.settle()
        domain = (self._project, pool)
        held = self._reservations.held(domain, self._owner, revision)
        if any(amount > held.get(name, 0) for name, amount in vector.items()):
            why = self._reservations.troubles.get(domain, f"QuotaLedger {name_of(domain)} has no room for it now")
            raise NotHeld(f"{revision} is not held: {why}")

    async def release(self, revision: str) -> None:
        """Done with the cycle's write; nothing waits for it."""


def _covers(confirmed: Mapping[Domain, Ledger], wanted: Mapping[Domain, Ledger]) -> bool:
    return all(confirmed.get(domain) == ledger for domain, ledger in wanted.items())
