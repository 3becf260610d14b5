"""Who leads: an election by a Lease (coordination.k8s.io/v1), with client-go's rules and names.

A tenure is one unbroken leadership; its epoch is the Lease's count of transitions. It ends at the renew deadline,
counted on this machine's own steady clock from the moment before the last renewal was sent, and so before anybody else
may take over. A tenure that lapsed is never taken up again: the next one has a higher epoch, even without a rival,
because writes of the old one may still be on their way. What fences those off is `autoscaler.cluster.fencing`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from autoscaler.cluster.client import JSON, MERGE_PATCH, KubeApi
from autoscaler.cluster.errors import ApiError, Conflict, NotFound, Unreachable
from autoscaler.cluster.resources import LEASES, Metadata, Struct
from autoscaler.cluster.watch import Outages, Selection

CALL_WITHIN_S: Final = 5.0  # a silent server must leave time for another try before the deadline
JITTER: Final = 0.2  # of the retry period, so that candidates do not come as one

log = structlog.get_logger()


def steady() -> float:
    """Seconds that never step and, where the system can tell, count the time for which the machine was suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class Terms:
    """Whose Lease it is and how long it holds. `duration_s` > `renew_deadline_s` > `retry_s`."""

    namespace: str
    name: str
    identity: str  # of this process; two that may live at the same time must differ
    duration_s: float = 15.0  # a candidate waits this long after the last renewal that it saw
    renew_deadline_s: float = 10.0  # the leader stops after this long without a renewal
    retry_s: float = 2.0


class _LeaseSpec(Struct, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(Struct, frozen=True):
    metadata: Metadata
    spec: _LeaseSpec = _LeaseSpec()


class Election:
    """Stands for leader and keeps it. `run` must be running."""

    def __init__(
        self,
        api: KubeApi,
        terms: Terms,
        may_stand: Callable[[], bool],
        highest_epoch: Callable[[], int],
        changed: Callable[[], None],
        clock: Callable[[], float] = steady,
        outages: Outages | None = None,
    ) -> None:
        """`may_stand`: is this process able to lead? `highest_epoch`: of all stamps seen on objects, so that a Lease
        that was deleted does not start its count anew. `changed` is called when leadership begins or ends. `outages` is
        told of the server's, and wakes the copies after one: nobody else asks all the time."""
        self.terms = terms
        self._api = api
        self._may_stand = may_stand
        self._highest_epoch = highest_epoch
        self._changed = changed
        self._clock = clock
        self._outages = outages or Outages()
        self._selection = Selection(LEASES, terms.namespace)
        self._epoch: int | None = None
        self._until = 0.0  # steady seconds; the tenure's end unless it is renewed
        self._at: Metadata | None = None  # of the Lease as last seen; None: there is none, or it must be read first
        self._spec = _LeaseSpec()  # as last seen; kept while the Lease cannot be read, and if it is deleted
        self._seen_at = 0.0  # steady seconds since which it has been what it is
        self._gone_at: float | None = None  # steady seconds since which there is none, at every look
        self._one = asyncio.Lock()
        self._resigned = False

    @property
    def epoch(self) -> int | None:
        """The epoch of the present tenure; None while somebody else leads, or may lead."""
        return self._epoch if self._clock() < self._until else None

    def left_s(self, epoch: int) -> float:
        """For how long writes of that tenure may still be sent."""
        return self._until - self._clock() if epoch == self._epoch else 0.0

    @property
    def standing_by(self) -> bool:
        """Somebody else leads, or nobody yet. False also while our tenure has lapsed and no other is known."""
        return self._epoch is None

    @property
    def holder(self) -> str:
        """Whom the Lease named when it was last seen; "" is nobody."""
        return self._spec.holder_identity or ""

    async def run(self) -> None:
        """Stands, renews, stands again, until cancelled."""
        failing = False
        while True:
            try:
                async with self._one:
                    await self._turn()
            except (ApiError, msgspec.DecodeError) as error:
                failing, self._at, self._gone_at = True, None, None
                self._outages.began(self._selection, error)
            else:
                self._outages.ended(self._selection)
                if failing:
                    self._outages.wake()
                failing = False
            await asyncio.sleep(self.terms.retry_s * random.uniform(1 - JITTER, 1 + JITTER))

    async def resign(self) -> None:
        """Gives the Lease back, so that a successor need not wait. No write of ours follows it."""
        self._resigned = True
        async with self._one:
            epoch, self._epoch = self.epoch, None
            if epoch is not None and self._at is not None:
                await self._write(self._at, {"holderIdentity": "", "leaseDurationSeconds": 1})
                log.info("leader.resigned", epoch=epoch)

    def _call_within_s(self) -> float:
        """What one call may take: while leading, no longer than the tenure lasts."""
        left_s = self._until - self._clock() if self._epoch is not None else 0.0
        return min(CALL_WITHIN_S, left_s) if left_s > 0 else CALL_WITHIN_S

    async def _turn(self) -> None:
        if self._resigned:
            return
        if self.epoch is not None:
            await self._renew()
            return
        await self._read()
        if self._may_stand() and self._free():
            await self._acquire()

    async def _renew(self) -> None:
        if self._at is None:
            await self._read()
        try:
            await self._hold_on()
        except Conflict:  # an earlier renewal of ours arrived after all, or the Lease is another's now
            await self._read()
            await self._hold_on()

    async def _hold_on(self) -> None:
        asked_at = self._clock()
        if self._epoch is not None and self._at is not None and asked_at < self._until:
            await self._write(self._at, self._held(self._epoch))
            self._until = asked_at + self.terms.renew_deadline_s

    async def _read(self) -> None:
        """Looks at the Lease. A tenure ends where it names another holder, another tenure, or is gone."""
        try:
            answer = await self._call("GET", LEASES.path(self.terms.namespace, self.terms.name))
        except NotFound:
            self._at = None
            self._gone_at = self._clock() if self._gone_at is None else self._gone_at
        else:
            self._saw(answer)
        ours = self.holder == self.terms.identity and self._spec.lease_transitions == self._epoch
        if self._epoch is not None and not (ours and self._at is not None):
            log.warning("leader.deposed", epoch=self._epoch, holder=self.holder)
            self._epoch = None
            self._until = self._until if self._at is None else 0.0
            self._changed()

    def _saw(self, answer: bytes) -> None:
        lease = msgspec.json.decode(answer, type=_Lease)
        if lease.spec != self._spec:
            self._seen_at = self._clock()
        self._at, self._spec, self._gone_at = lease.metadata, lease.spec, None

    def _free(self) -> bool:
        """May it be taken? Its times are its holder's; ours count from when it was last seen to change."""
        now = self._clock()
        if self._gone_at is not None:  # somebody deleted it; its holder may not have noticed yet, unless it was us
            return now < self._until or self._highest_epoch() == 0 or now >= self._gone_at + self.terms.duration_s
        lasts_s = self._spec.lease_duration_seconds or self.terms.duration_s
        return self.holder in ("", self.terms.identity) or now >= self._seen_at + lasts_s

    async def _acquire(self) -> None:
        epoch = 1 + max(self._spec.lease_transitions or 0, self._highest_epoch())
        asked_at = self._clock()
        spec = {**self._held(epoch), "acquireTime": _micro_time()}
        try:
            await (self._create(spec) if self._at is None else self._write(self._at, spec))
        except Conflict:  # another candidate was quicker
            self._at = None
            return
        self._epoch, self._until = epoch, asked_at + self.terms.renew_deadline_s
        log.info("leader.elected", epoch=epoch, identity=self.terms.identity)
        self._changed()

    def _held(self, epoch: int) -> dict[str, Any]:
        return {
            "holderIdentity": self.terms.identity,
            "leaseDurationSeconds": round(self.terms.duration_s),
            "renewTime": _micro_time(),
            "leaseTransitions": epoch,
        }

    async def _create(self, spec: dict[str, Any]) -> None:
        body = {
            "apiVersion": LEASES.group_version,
            "kind": LEASES.kind,
            "metadata": {"name": self.terms.name, "namespace": self.terms.namespace},
            "spec": spec,
        }
        self._saw(await self._call("POST", LEASES.path(self.terms.namespace), body=body))

    async def _call(self, method: str, path: str, *, body: object = None, content_type: str = JSON) -> bytes:
        """Each has its own time: on a slow server, what takes several calls must come to an end too."""
        try:
            async with asyncio.timeout(self._call_within_s()):
                return await self._api.call(method, path, body=body, content_type=content_type)
        except TimeoutError as cause:
            raise Unreachable(f"{method} {path}: no answer in time") from cause

    async def _write(self, at: Metadata, spec: dict[str, Any]) -> None:
        body = {"metadata": {"uid": at.uid, "resourceVersion": at.resource_version}, "spec": spec}
        path = LEASES.path(self.terms.namespace, self.terms.name)
        self._saw(await self._call("PATCH", path, body=body, content_type=MERGE_PATCH))


def _micro_time() -> str:
    """For people; nothing is decided by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
