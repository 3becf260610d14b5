"""What an edit of a workload would do: a new revision or in place, how many GPUs, do they fit. Pure.

The decisions are the daemon's own (`rollouts.planner`), taken on what the status tells instead of on what the daemon
sees; so it is a forecast: demand and quota may be others when the edit is applied. Fields that nobody set have the
built-in defaults here; the daemon's configuration may have others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import msgspec

from autoscaler.cli.edits import Edit, differences
from autoscaler.cli.seen import Seen, Stored, gpus, is_in
from autoscaler.cluster.inferenceworkload import Autoscaling, Serving
from autoscaler.cluster.status import record_of
from autoscaler.controller.specs import demand_of_pods
from autoscaler.model.rollout import RolloutSpec
from rollouts import planner
from rollouts.moves import ACTIVE
from rollouts.observed import Limits, Observed, ObservedRevision, ObservedService, Situation
from rollouts.planner import Change
from rollouts.record import Phase, Record
from rollouts.revision import Revision, identify, identity_of

REFUSE: Final = "refuse"


class Kind(StrEnum):
    """What an edit makes. Those of `rollouts.planner.Change`, and what is none of them."""

    FIRST = "First"  # the workload does not exist yet, or has no revision
    TARGET = "Target"  # the object of a targetRef: no revisions
    IN_PLACE = Change.IN_PLACE.value
    HAND_OVER = Change.HAND_OVER.value
    AT_ZERO = Change.AT_ZERO.value
    UPDATE = Change.UPDATE.value


@dataclass(frozen=True, slots=True)
class Pool:
    """One node pool that the workload may use. In GPUs; None where it is not known from here."""

    name: str
    limit: float | None = None
    free: float | None = None  # with what a superseded update gives back
    short: float | None = None
    never: bool = False  # not even if nobody else held anything
    unlimited: bool = False
    not_counted: str = ""  # why pods of others are still in `free`

    @property
    def fits(self) -> bool | None:
        if self.unlimited:
            return True
        if self.never:
            return False
        if self.short is None or (self.short == 0 and self.not_counted):
            return None
        return self.short == 0


@dataclass(frozen=True, slots=True)
class Plan:
    namespace: str
    name: str
    kind: Kind
    edits: tuple[Edit, ...]
    revision: str | None  # that the template names
    current: str | None
    replicas: int  # of that revision, to begin with
    before: int  # of the current revision now
    gpus_each: float  # of one replica
    asks: float  # GPUs beyond what is held
    peak: float  # GPUs of all its revisions together, at the most
    project: str | None
    pools: tuple[Pool, ...]
    refuses: bool  # whenQuotaShort is refuse
    supersedes: str | None  # the update that runs now and gives way
    known: str | None  # phase of the update where it is of this very revision already
    drains: str | None  # the update that is past giving way: this one comes after it
    weights: tuple[str, ...]  # steps of the traffic
    stopped: bool

    @property
    def fits(self) -> bool | None:
        """None: not known from here."""
        if self.asks <= 0:
            return True
        answers = {pool.fits for pool in self.pools}
        return True if True in answers else None if None in answers or not answers else False

    @property
    def never(self) -> bool:
        return self.fits is False and all(pool.never for pool in self.pools)


@dataclass(frozen=True, slots=True)
class Room:
    """Of one project's quota in one node pool, in GPUs."""

    limit: float
    free: float | None  # None: not known
    namespace: str = ""  # of its ledger
    not_counted: str = ""  # why what pods of others have is not taken off


def plan(
    stored: Stored | None,
    edited: Stored,
    digests: Mapping[str, str],
    identities: Mapping[str, Any],
    ledgers: Mapping[tuple[str, str], Room],
) -> Plan:
    """`stored`: the workload now, None if there is none; `edited`: as the API server would store it.

    `digests` and `identities`: of the stored revisions, by name; `ledgers`: by project and node pool, as far as the
    caller may read them.
    """
    wanted, meta = edited.seen, edited.seen.metadata
    before = stored.seen if stored is not None else Seen()
    record, spec = record_of(before), rollout_spec(wanted)
    serving: Mapping[str, Any] = msgspec.to_builtins(wanted.spec.serving) if wanted.spec.serving is not None else {}
    newest, collisions = identify(meta.name, identity_of(serving, meta.annotations), digests, record.collision_count)
    there = _current(before, record)
    desired = _desired(wanted, before, spec)
    kind = _kind(wanted, newest, collisions, record, spec, there, _granted(before, desired))
    stopped = wanted.spec.desired_phase == "Stopped"
    replicas = 0 if stopped else planner.size(spec, desired) if kind is Kind.UPDATE else desired
    current_gpus = price(identities.get(record.current or "") or _stored_identity(before))
    cost = _cost(kind, before, record, there, newest, current_gpus, replicas)
    rollout = before.told.rollout
    other = rollout if rollout is not None and rollout.revision != newest.name else None
    return Plan(
        namespace=meta.namespace,
        name=meta.name,
        kind=kind,
        edits=tuple(differences(stored.raw.get("spec") if stored is not None else {}, edited.raw.get("spec"))),
        revision=None if kind is Kind.TARGET else newest.name,
        current=record.current,
        replicas=replicas,
        before=there.replicas or 0,
        gpus_each=cost.each,
        asks=cost.asks,
        peak=cost.peak,
        project=project_of(wanted, before) or None,
        pools=_pools(wanted, before, cost, (newest.name, _stays(kind, record)), ledgers),
        refuses=wanted.spec.rollout is not None and wanted.spec.rollout.when_quota_short == REFUSE,
        supersedes=other.revision if other is not None and other.phase in _REVOCABLE else None,
        known=rollout.phase if rollout is not None and other is None else None,
        drains=other.revision if other is not None and is_in(other, Phase.DRAINING) else None,
        weights=_weights(wanted) if kind is Kind.UPDATE else (),
        stopped=stopped,
    )


@dataclass(frozen=True, slots=True)
class _Cost:
    """GPUs."""

    each: float  # of one replica
    asks: float  # beyond what the revision holds
    peak: float  # of all its revisions at the same time
    together: float  # must fit at the same time, whatever others hold


def _cost(
    kind: Kind,
    before: Seen,
    record: Record,
    there: ObservedRevision,
    newest: Revision,
    current_gpus: float,
    replicas: int,
) -> _Cost:
    """An update is all there beside the current revision; every other edit takes its place."""
    each = price(newest.identity)
    whole = replicas * each
    held = gpus_held(before, record.current, (there.replicas or 0) * current_gpus)
    mine = held if kind in (Kind.IN_PLACE, Kind.TARGET) else gpus_held(before, newest.name, 0.0)
    least = max(
        1, planner.least(record, rollout_spec(before))
    )  # of the current revision, whose bounds are the old ones
    stays = least * current_gpus if kind is Kind.UPDATE and there.ready else 0.0
    peak = held + whole if kind is Kind.UPDATE else max(held, whole)
    return _Cost(each, max(0.0, whole - mine), peak, whole + stays)


_REVOCABLE: Final = frozenset(phase.value for phase in ACTIVE - {Phase.DRAINING})


def rollout_spec(wanted: Seen) -> RolloutSpec:
    """The bounds that the daemon would work with, as far as the object alone tells."""
    asked = wanted.spec.autoscaling or Autoscaling()
    least = 1 if asked.min_replicas is None else asked.min_replicas
    most = max(least, 1) if asked.max_replicas is None else asked.max_replicas
    if wanted.spec.replicas is not None:
        least = most = wanted.spec.replicas
    return RolloutSpec(min_replicas=least, max_replicas=max(least, most))


def price(identity: Any) -> float:
    """GPUs of one replica of this content; 0 where it cannot be read."""
    try:
        serving = msgspec.convert(identity, Serving)
    except msgspec.ValidationError:
        return 0.0
    groups = serving.leader_worker_set
    workers = (groups.size or 1) - 1 if groups is not None else 0
    return gpus(demand_of_pods(identity, 1, workers))


def project_of(wanted: Seen, before: Seen) -> str:
    """Whose quota it is, as the daemon told, else as written; "" where neither says."""
    quota = before.told.quota
    return (quota.project if quota is not None else None) or wanted.spec.project or ""


def gpus_held(before: Seen, revision: str | None, otherwise: float) -> float:
    """By this revision, of the quota."""
    found = before.revision(revision or "")
    return gpus(found.held) if found is not None and found.held is not None else otherwise


def _stored_identity(before: Seen) -> Any:
    return msgspec.to_builtins(before.spec.serving) if before.spec.serving is not None else {}


def _granted(before: Seen, desired: int) -> int:
    counts = before.told.counts
    return desired if counts is None or counts.granted is None else counts.granted


def _stays(kind: Kind, record: Record) -> str | None:
    """The current revision, unless it hands its GPUs over."""
    return None if kind is Kind.HAND_OVER else record.current


def _current(before: Seen, record: Record) -> ObservedRevision:
    told, found = before.told, before.revision(record.current or "")
    if found is not None:
        return ObservedRevision(
            record.current or "",
            found.replicas or 0,
            found.ready or 0,
            found.starting or 0,
            terminating=found.terminating or 0,
        )
    counts = told.counts
    if counts is None:
        return ObservedRevision(record.current or "", None)
    return ObservedRevision(record.current or "", counts.applied or 0, counts.ready or 0, counts.starting or 0)


def _desired(wanted: Seen, before: Seen, spec: RolloutSpec) -> int:
    """What the demand asks for now, or what a start begins with, within the new bounds."""
    asked, counts = wanted.spec.autoscaling or Autoscaling(), before.told.counts
    start = max(spec.min_replicas, 1) if asked.initial_replicas is None else asked.initial_replicas
    desired = start if counts is None or counts.desired is None else counts.desired
    return min(spec.max_replicas, max(spec.min_replicas, desired))


def _kind(
    wanted: Seen,
    newest: Revision,
    collisions: int,
    record: Record,
    spec: RolloutSpec,
    there: ObservedRevision,
    granted: int,
) -> Kind:
    if wanted.kind_of_serving == "targetRef":
        return Kind.TARGET
    if record.current is None:
        return Kind.FIRST
    nothing = ObservedService("", exists=False)
    observed = Observed(newest, collisions, frozenset(), there, nothing, nothing)
    seen = Situation(Limits(granted), spec, observed, granted, 0.0)
    return Kind(planner.change(seen, record).value)


def _pools(
    wanted: Seen,
    before: Seen,
    cost: _Cost,
    stay: tuple[str | None, ...],
    ledgers: Mapping[tuple[str, str], Room],
) -> tuple[Pool, ...]:
    """The status tells the numbers of one pool, the one that the workload uses or waits for, and while it waits; the
    ledgers tell those of all.

    `stay`: revisions that keep what they hold.
    """
    quota = before.told.quota
    known = quota.node_pool if quota is not None else None
    project = project_of(wanted, before)
    names: Sequence[str] = wanted.spec.node_pools or ([known] if known else [])
    found = []
    for name in names:
        room = _room(before, ledgers, project, name)
        if room is not None:
            free = None if room.free is None else max(0.0, room.free) + _given_back(before, name, stay)
            short = None if free is None else max(0.0, cost.asks - free)
            never = cost.together > room.limit
            found.append(Pool(name, room.limit, free, short, never, not_counted=room.not_counted))
        else:
            unlimited = quota is not None and name == known and quota.gpus_limit is None
            found.append(Pool(name, unlimited=unlimited))
    return tuple(found)


def _room(before: Seen, ledgers: Mapping[tuple[str, str], Room], project: str, pool: str) -> Room | None:
    """None: no limit, or not known. The ledger is of this moment; what the status says is free may be 30 s old."""
    quota, ledger = before.told.quota, ledgers.get((project, pool))
    if quota is None or quota.node_pool != pool:
        return ledger
    if quota.gpus_limit is None:
        return None
    limit = quota.gpus_limit / 1000
    exact = ledger is not None and ledger.free is not None and not ledger.not_counted
    if quota.gpus_free is not None and not exact:
        return Room(limit, quota.gpus_free / 1000)
    return replace(ledger, limit=limit) if ledger is not None else Room(limit, None)


def _given_back(before: Seen, pool: str, stay: tuple[str | None, ...]) -> float:
    """By revisions that are gone when this one starts."""
    going = (each for each in before.told.revisions or () if each.name not in stay)
    return sum(gpus(each.held) for each in going if each.node_pool in (None, pool))


def _weights(wanted: Seen) -> tuple[str, ...]:
    rollout = wanted.spec.rollout
    steps = (rollout.steps if rollout is not None else None) or []
    shown = [f"{step.weight} %{f' for {step.pause}' if step.pause else ''}" for step in steps]
    return (*shown, *(("100 %",) if not steps or steps[-1].weight != planner.FULL else ()))
