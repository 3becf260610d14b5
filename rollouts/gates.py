"""What must be true before an update goes on. Each gate returns None when it is open, else a sentence why it is not.

What is unknown keeps a gate shut.
"""

from __future__ import annotations

from typing import Final

from autoscaler.model.rollout import RolloutSpec
from rollouts import planner
from rollouts.observed import Observed, ObservedRevision, ObservedService, Situation
from rollouts.record import Leaving, Record, Rollout

COUNTERS_SETTLE_S: Final = 1.0  # without any request for this long, nothing speaks against a weight: one page's period

COUNTERS_PATIENCE_S: Final = 30.0  # an engine may show no counters, or none before its first request: as below, then

PARTIAL_PATIENCE_S: Final = 10.0  # a small share of little traffic may miss the update; then the route's word counts

Shut = str | None


def all_ready(update: ObservedRevision, size: int) -> Shut:
    """All N replicas ready together, in an object of that size."""
    if update.replicas == size and update.ready >= size:
        return None
    return f"{min(update.ready, size)} of {size} replicas of {update.name} are ready"


def warmed(update: ObservedRevision, spec: RolloutSpec) -> Shut:
    if spec.warmup is None or update.warm >= update.ready:
        return None
    return f"{update.warm} of {update.ready} replicas of {update.name} are warm"


def capacity(seen: Situation, record: Record, weight: int) -> Shut:
    """Enough ready replicas for this weight, against the demand and the current revision of this moment."""
    assert record.rollout is not None
    update = seen.observed.of(record.rollout.revision)
    ready_current = seen.observed.of(record.current or "").ready
    need = planner.needed(seen.spec, weight, seen.desired, ready_current)
    if update.ready >= need:
        return None
    return f"{weight} % needs {need} ready replicas of {update.name}, {update.ready} are"


def full(service: ObservedService, revision: ObservedRevision) -> Shut:
    """The Service leads to exactly the revision's ready pods: none is missing, none is of another revision."""
    if service.selects == revision.name and service.endpoints is not None and service.endpoints == revision.serving:
        return None
    return f"the endpoints of Service {service.name} are not exactly the ready pods of {revision.name}"


def usable(observed: Observed) -> Shut:
    """The route, where there is one, can be given weights."""
    if observed.route is None or observed.route.usable:
        return None
    return "the HTTPRoute cannot be used as it is"


def accepted(observed: Observed, weight: int) -> Shut:
    """The route carries this weight and every parent has accepted it at this generation."""
    route = observed.route
    if route is not None and route.weight == weight and route.accepted:
        return None
    return f"the route has not accepted {weight} % for the update yet"


def counters_agree(rollout: Rollout, update: ObservedRevision, current: ObservedRevision, now: float) -> Shut:
    """The pods saw what the route says: the update had a request since the weight was accepted, or nobody had one.

    A route's status does not wait for the proxy. Where the counters of some pods stay unknown it counts all the same,
    after `COUNTERS_PATIENCE_S` in which none was seen elsewhere that contradicts it.
    """
    since = rollout.accepted_at
    if since is None:
        return "the route has not accepted the weight yet"
    if update.last_request_at is not None and update.last_request_at >= since:
        return None
    serving = [each for each in (update, current) if each.serving]
    elsewhere = current.last_request_at is not None and current.last_request_at >= since
    denied = elsewhere and rollout.weight == planner.FULL
    unknown = [each.name for each in serving if each.counted_at is None]
    if unknown:
        contradicted_at = current.last_request_at if denied else None
        if now >= max(since, contradicted_at or 0.0) + COUNTERS_PATIENCE_S:
            return None
        return f"the request counters of {' and '.join(unknown)} are not known yet"
    wait_s = PARTIAL_PATIENCE_S if elsewhere else COUNTERS_SETTLE_S
    if (not denied or _left_alone(current)) and all(_counted_s(each, since) >= wait_s for each in serving):
        return None
    return f"the request counters of {update.name} do not show the new weight yet"


def _left_alone(current: ObservedRevision) -> bool:
    """A straggler reached it just after the route had changed, and for a while nobody any more."""
    return _counted_s(current, current.last_request_at or 0.0) >= PARTIAL_PATIENCE_S


def _counted_s(revision: ObservedRevision, since: float) -> float:
    """For how long after this instant its counters are known without a gap."""
    until = revision.counted_at
    return until - max(since, revision.counted_from) if until is not None else 0.0


def verified(seen: Situation, record: Record) -> Shut:
    """The weight that is wanted is the one that requests see."""
    rollout, observed = record.rollout, seen.observed
    assert rollout is not None
    update = observed.of(rollout.revision)
    if observed.route is None:
        return full(observed.service, update)
    if (shut := accepted(observed, rollout.weight)) is not None:
        return shut
    return counters_agree(rollout, update, observed.of(record.current or ""), seen.now)


def quiet(revision: ObservedRevision, since: float, quiet_s: float) -> Shut:
    """No request in flight, and no sign of one for `quiet_s` after traffic went elsewhere at `since`.

    A revision without a ready pod has nobody to send a request to. What stays unknown is for the drain timeout to end.
    """
    if revision.ready == 0:
        return None
    if revision.in_flight is None or revision.counted_at is None:
        return f"it is unknown what {revision.name} has in flight"
    if revision.in_flight > 0:
        return f"{revision.in_flight} requests of {revision.name} are in flight"
    if _counted_s(revision, max(since, revision.last_request_at or 0.0, revision.busy_at or 0.0)) < quiet_s:
        return f"{revision.name} may have had a request within the last {quiet_s:g} s"
    return None


def idle(seen: Situation, leaving: Leaving) -> Shut:
    """May a revision that served be deleted? It gets no traffic, and has finished or run out of time."""
    observed = seen.observed
    if observed.service.selects == leaving.revision:
        return f"Service {observed.service.name} still leads to {leaving.revision}"
    weighted = observed.update_service.selects == leaving.revision and observed.route is not None
    if weighted and (shut := accepted(observed, 0)) is not None:
        return shut
    if leaving.deadline_at is not None and seen.now >= leaving.deadline_at:
        return None
    return quiet(observed.of(leaving.revision), leaving.since, seen.spec.drain_quiet_s)
