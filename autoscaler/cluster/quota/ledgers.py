"""The QuotaLedgers of one tenure: read once when it begins, then changed by compare-and-set only.

A ledger is what two processes that both believe to lead can not write behind each other's back: each write names the
version that it was made for, and a tenure begins with a write of its own to each. What is confirmed here was answered
by the API server; nothing is taken from a watch, which may lag. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import Conflict, NotFound
from autoscaler.cluster.fencing import EPOCH_ANNOTATION, epoch_of
from autoscaler.cluster.inferenceworkload import unix_seconds
from autoscaler.cluster.resources import GROUP, MANAGED_BY, QUOTA_LEDGERS, Metadata, Struct
from autoscaler.cluster.status import timestamp
from autoscaler.model.quota import MAX_HOLDS, Domain, Hold, Ledger

PROJECT_LABEL: Final = f"{GROUP}/project"
NODE_POOL_LABEL: Final = f"{GROUP}/node-pool"


class _Hold(Struct, frozen=True):
    owner: str
    revision: str
    vector: dict[str, int]
    since: str | None = None


class _Spec(Struct, frozen=True):
    limit: dict[str, int]
    holds: list[_Hold]


class _Object(Struct, frozen=True):
    metadata: Metadata
    spec: _Spec


class _List(Struct, frozen=True):
    items: list[_Object]


class Ledgers:
    """One per tenure; `take_over` before anything else."""

    def __init__(self, api: KubeApi, namespace: str, epoch: int) -> None:
        """`namespace` is the daemon's own, where the ledgers live; `epoch` is of this tenure."""
        self._api = api
        self._namespace = namespace
        self._epoch = epoch
        self._there: dict[Domain, _Object] = {}

    async def take_over(self) -> None:
        """Reads every ledger and writes this tenure's epoch on it, so that a late write of an earlier one fails."""
        answer = await self._api.call("GET", self._path())
        for item in msgspec.json.decode(answer, type=_List).items:
            self._keep(item)
        for domain, item in list(self._there.items()):
            if epoch_of(item.metadata) != self._epoch:
                await self._replace(domain, item.spec)

    @property
    def confirmed(self) -> Mapping[Domain, Ledger]:
        """What the API server has, as it last answered."""
        return {domain: _ledger(item.spec) for domain, item in self._there.items()}

    async def write(self, domain: Domain, ledger: Ledger) -> None:
        """Makes the ledger be this one, or raises: Conflict where it changed (it is read anew), Refused by its rule.

        One that is gone is made again. The API server accepts no new ledger that is over-held, so it is made with
        room for what is held, and its limit is lowered in a second write.
        """
        if len(ledger.holds) > MAX_HOLDS:
            raise ValueError(f"{len(ledger.holds)} revisions in one quota domain; at most {MAX_HOLDS} have room")
        spec = _spec(ledger)
        if domain not in self._there:
            held = ledger.held
            roomy = {name: max(amount, held.get(name, 0)) for name, amount in spec.limit.items()}
            await self._create(domain, msgspec.structs.replace(spec, limit=roomy))
        if self._there[domain].spec != spec:
            await self._replace(domain, spec)

    async def _create(self, domain: Domain, spec: _Spec) -> None:
        try:
            answer = await self._api.call("POST", self._path(), body=self._body(domain, spec, Metadata()))
        except Conflict:
            await self._read(domain)
            raise
        self._keep(msgspec.json.decode(answer, type=_Object))

    async def _replace(self, domain: Domain, spec: _Spec) -> None:
        body = self._body(domain, spec, self._there[domain].metadata)
        try:
            answer = await self._api.call("PUT", self._path(name_of(domain)), body=body)
        except (Conflict, NotFound) as error:
            await self._read(domain)
            raise Conflict(f"QuotaLedger {name_of(domain)} was changed by somebody else") from error
        self._keep(msgspec.json.decode(answer, type=_Object))

    async def _read(self, domain: Domain) -> None:
        """Until it is answered, the old version stands: without one everything that is held would look free. Nothing
        can be written on it, as the API server refuses its version."""
        try:
            answer = await self._api.call("GET", self._path(name_of(domain)))
        except NotFound:
            self._there.pop(domain, None)
            return
        self._keep(msgspec.json.decode(answer, type=_Object))

    def _keep(self, item: _Object) -> None:
        labels = item.metadata.labels or {}
        domain = (labels.get(PROJECT_LABEL, ""), labels.get(NODE_POOL_LABEL, ""))
        if item.metadata.name == name_of(domain):  # else somebody's own: it stands for nothing of ours
            self._there[domain] = item

    def _path(self, name: str | None = None) -> str:
        return QUOTA_LEDGERS.path(self._namespace, name)

    def _body(self, domain: Domain, spec: _Spec, there: Metadata) -> dict[str, Any]:
        project, pool = domain
        metadata: dict[str, Any] = {
            "name": name_of(domain),
            "labels": {**(there.labels or {}), **MANAGED_BY, PROJECT_LABEL: project, NODE_POOL_LABEL: pool},
            "annotations": {**(there.annotations or {}), EPOCH_ANNOTATION: str(self._epoch)},
        }
        if there.uid:
            metadata |= {"uid": there.uid, "resourceVersion": there.resource_version}
        return {
            "apiVersion": QUOTA_LEDGERS.group_version,
            "kind": QUOTA_LEDGERS.kind,
            "metadata": metadata,
            "spec": msgspec.to_builtins(spec),
        }


def name_of(domain: Domain) -> str:
    """The ledger's name. Neither part holds a dot, so that no two domains share one."""
    return ".".join(domain)


def _ledger(spec: _Spec) -> Ledger:
    holds = (
        Hold(each.owner, each.revision, each.vector, unix_seconds(each.since) if each.since else None)
        for each in spec.holds
    )
    return Ledger(spec.limit, tuple(holds))


def _spec(ledger: Ledger) -> _Spec:
    holds = [
        _Hold(
            owner=each.owner,
            revision=each.revision,
            vector=dict(each.vector),
            since=timestamp(each.since_s) if each.since_s is not None else None,
        )
        for each in ledger.holds
    ]
    return _Spec(limit=dict(ledger.limit), holds=holds)
