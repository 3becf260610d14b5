"""Keeps the ledgers as allocated, before anything is done on the strength of it.

One write per ledger and cycle. A slow API server holds up growth and nothing else: writes go on beside the cycles, and
what is not confirmed yet is not granted yet.
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

NOTHING: Final[Mapping[Domain, Ledger]] = {}

log = structlog.get_logger()


class Reservations:
    """The ledgers of the present tenure, and what stands in their way."""

    def __init__(self, namespace: str) -> None:
        """`namespace`: where the ledgers live, the daemon's own."""
        self._namespace = namespace
        self._epoch: int | None = None
        self._ledgers: Ledgers | None = None
        self._task: asyncio.Task[None] | None = None
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

    async def have(self, tenure: Tenure, wanted: Mapping[Domain, Ledger], within_s: float) -> Mapping[Domain, Ledger]:
        """Begins to make the ledgers so, waits a little, and returns what is confirmed by then."""
        if tenure.epoch != self._epoch:
            await self.abandon()
            self._epoch = tenure.epoch
        if self._task is None or self._task.done():
            if not wanted or (self._ledgers is not None and _covers(self.confirmed, wanted)):
                return self.confirmed
            self._task = asyncio.create_task(self._bring(tenure, wanted), name="ledgers")
        await asyncio.wait({self._task}, timeout=within_s)
        return self.confirmed

    async def _bring(self, tenure: Tenure, wanted: Mapping[Domain, Ledger]) -> None:
        ledgers = self._ledgers
        if ledgers is None:
            ledgers = Ledgers(tenure.api, self._namespace, tenure.epoch)
            try:
                await ledgers.take_over()
            except ApiError as error:
                self._tell(dict.fromkeys(wanted, f"the QuotaLedgers could not be read: {error}"))
                return
            self._ledgers = ledgers
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


def _covers(confirmed: Mapping[Domain, Ledger], wanted: Mapping[Domain, Ledger]) -> bool:
    return all(confirmed.get(domain) == ledger for domain, ledger in wanted.items())
