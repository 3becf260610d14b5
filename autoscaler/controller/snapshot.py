"""The first part of a cycle: all that is known at one instant, as frozen values. Stale things are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import Pod, TargetPod
from autoscaler.cluster.scalers import by_target
from autoscaler.cluster.status import record_of
from autoscaler.cluster.store import Store
from autoscaler.cluster.targets import SeenTarget, Unseen
from autoscaler.controller import revisions
from autoscaler.controller.foreign import foreign
from autoscaler.controller.kinds import kind_of, shape_of
from autoscaler.controller.leftovers import Holds, leftovers
from autoscaler.controller.ports import Activations, Signals
from autoscaler.controller.revisions import Revisions
from autoscaler.controller.rivals import claims_of, rival_of
from autoscaler.controller.specs import Resolver, Unresolved
from autoscaler.controller.subject import NO_SERVICE, Coming, Snapshot, Subject, key_of
from autoscaler.model.decision import Observation
from autoscaler.model.quota import Domain, Ledger
from autoscaler.model.resources import ResourceVector, add, largest
from autoscaler.model.signal import Activation, WorkloadSignals
from autoscaler.model.workload import Mode, RevisionKey, TargetKey, TargetSpec, WorkloadSpec
from autoscaler.signals.warmups import WarmUps
from rollouts import intent, planner, verbs
from rollouts.observed import Observed, ObservedHold, ObservedRevision
from rollouts.record import Phase, Record
from rollouts.revision import Revision

KNATIVE_LABEL: Final = "serving.knative.dev/revision"  # on the Deployment that Knative makes of a revision
Ledgers = Mapping[Domain, Ledger]
Readings = Mapping[TargetKey, WorkloadSignals]
log = structlog.get_logger()


def take(
    store: Store,
    signals: Signals,
    activations: Activations,
    resolver: Resolver,
    ledgers: Ledgers,
    now: float,
    warm_ups: WarmUps,
) -> Snapshot:
    """Reads the copies, the readings and the activation pages; waits for nothing. `ledgers`: as last confirmed."""
    readings = signals.readings(now)
    pods = store.pods_by_revision()
    scalers = by_target(store.horizontal_pod_autoscalers.every(), store.scaled_objects.every())
    claims = claims_of(store.workloads.every())
    holds = _holds(ledgers)
    named: list[tuple[str, TargetSpec]] = []
    subjects: list[Subject] = []
    unresolved: list[tuple[InferenceWorkload, Unresolved]] = []
    for workload in sorted(store.workloads.every(), key=key_of):
        if workload.metadata.deletion_timestamp:
            continue  # the garbage collector takes what we own
        try:
            spec = resolver.resolve(workload)
            if isinstance(spec, Unresolved):
                unresolved.append((workload, spec))
                continue
            activation = activations.state(spec.scaling.activation, now) if spec.scaling.activation else None
            kept = record_of(workload)
            if kept.current and ("/" in kept.current) != (spec.target is not None):
                unresolved.append((workload, Unresolved("ScalingActive", "InvalidConfiguration", _SWITCHED)))
                continue
            if spec.target is not None:
                named.append((spec.key.namespace, spec.target))
                found = _of_target(store, workload, spec, spec.target, kept, readings, activation, resolver)
                if isinstance(found, Unresolved):
                    unresolved.append((workload, found))
                if found is None or isinstance(found, Unresolved):
                    continue
                subject = found
            else:
                own = holds.get((spec.project, str(spec.key)), ())
                subject = _subject(store, workload, spec, kept, pods, own, readings, activation, resolver, now)
                subject = _warmed(subject, warm_ups)
            rival = rival_of(subject, claims, scalers)
            subjects.append(replace(subject, rival=rival) if rival else subject)
        except Exception as error:  # one odd object must not stop the others
            unresolved.append((workload, crashed(workload, error)))
    counted = ((each.key.namespace, each.spec.target) for each in subjects if each.spec.target is not None)
    others = foreign(store, resolver.operator, list(counted))
    store.targets.keep(named)
    resolver.forget_all_but({workload.metadata.uid for workload in store.workloads.every()})
    left = leftovers(store, subjects, pods, holds, resolver)
    patience_s = 3 * signals.effective_period_s + 2.0
    return Snapshot(now, tuple(subjects), tuple(unresolved), patience_s, left, others)


def crashed(workload: InferenceWorkload, error: Exception) -> Unresolved:
    """What is said of a workload that our own code could not work on; it stays as it is."""
    log.error("workload.not_understood", workload=str(key_of(workload)), exc_info=error)
    message = f"internal error ({type(error).__name__}): the workload stays as it is; the log has more"
    return Unresolved("ScalingActive", "InternalError", message)


def _holds(ledgers: Ledgers) -> Holds:
    found: dict[tuple[str, str], tuple[ObservedHold, ...]] = {}
    for (project, pool), ledger in ledgers.items():
        for hold in ledger.holds:
            key = (project, hold.owner)
            found[key] = (*found.get(key, ()), ObservedHold(hold.revision, pool, hold.vector))
    return found


def _subject(
    store: Store,
    workload: InferenceWorkload,
    spec: WorkloadSpec,
    stored: Record,
    pods: Mapping[tuple[str, str], list[Pod]],
    holds: tuple[ObservedHold, ...],
    readings: Readings,
    activation: Activation | None,
    resolver: Resolver,
    now: float,
) -> Subject:
    known = store.revisions_by_workload().get(spec.key, {})
    traffic = revisions.traffic(store, spec)
    there = revisions.look(store, workload, known, pods, stored)
    record = stored if stored.current else revisions.rebuilt(there, traffic, now)
    newest, collisions = resolver.newest(workload, record.collision_count, known)
    record = intent.heed_bounds(spec.rollout, newest.name, record)
    current = record.current or newest.name
    if newest.name not in there.contents:
        there = replace(there, contents={**there.contents, newest.name: newest.identity})
    there = revisions.counted(spec, there, current, readings)
    seen = there.of(current)
    observed = Observed(
        newest=newest,
        collision_count=collisions,
        saved=frozenset(known),
        current=seen.observed,
        service=traffic.service,
        update_service=traffic.update_service,
        others=there.others(current),
        route=traffic.route,
        holds=holds,
        per_replica=resolver.limited_demands(spec, there.contents, {current, newest.name, *there.seen}),
    )
    specs = {
        name: spec if name == newest.name else resolver.of_revision(spec, name, there.contents.get(name))
        for name in {current, *there.seen}
    }
    own = bounded_by(specs[current], record)
    return Subject(
        spec.key,
        workload,
        own,
        stored,
        record,
        observed,
        observation_of(own, record, seen.observed, readings.get(spec.key), activation),
        seen.pods,
        revisions=there,
        traffic=traffic,
        specs=specs,
        coming=coming_of(specs, record, there, readings),
        verb=_verb(workload),
        there=seen.there,
        kind=kind_of(store, spec.key.namespace, current, there.contents.get(current)),
        follows=store.follows(spec.key.namespace),
    )


def _warmed(subject: Subject, warm_ups: WarmUps) -> Subject:
    """With how many replicas of the update have had their warm-up requests."""
    rollout = subject.record.rollout
    if rollout is None or subject.spec.rollout.warmup is None:
        return subject
    pods = subject.revisions.of(rollout.revision).pods
    warm = warm_ups.warm(RevisionKey(subject.key, rollout.revision), pods)
    others = (replace(each, warm=warm) if each.name == rollout.revision else each for each in subject.observed.others)
    return replace(subject, observed=replace(subject.observed, others=tuple(others)))


def bounded_by(spec: WorkloadSpec, record: Record) -> WorkloadSpec:
    """While an update is pending, the bounds that came with it are not the current revision's."""
    bounds = record.bounds
    scaling = spec.scaling
    if bounds is None or (bounds.least, bounds.most) == (scaling.min_replicas, scaling.max_replicas):
        return spec
    bounded = replace(
        scaling,
        min_replicas=bounds.least,
        max_replicas=bounds.most,
        initial_replicas=min(scaling.initial_replicas, bounds.most),
        activation_replicas=min(scaling.activation_replicas, bounds.most),
    )
    return replace(spec, scaling=bounded)


def observation_of(
    spec: WorkloadSpec,
    record: Record,
    seen: ObservedRevision,
    signals: WorkloadSignals | None,
    activation: Activation | None,
) -> Observation:
    """What the policy may know of the current revision."""
    return Observation(
        applied=_applied(spec, record, seen.replicas),
        ready=seen.ready,
        starting=seen.starting,
        terminating=seen.terminating,
        initialized=record.initialized,
        signals=signals if seen.ready else None,
        activation=activation or Activation.NOT_CONFIGURED,
    )


def coming_of(specs: Mapping[str, WorkloadSpec], record: Record, there: Revisions, readings: Readings) -> Coming | None:
    """The update and what its own pods show, once it takes traffic."""
    rollout = record.rollout
    if rollout is None or not rollout.served or planner.runs(rollout) is None:
        return None
    seen = there.of(rollout.revision).observed
    if seen.replicas is None:
        return None
    spec = specs[rollout.revision]
    signals = readings.get(RevisionKey(spec.key, rollout.revision))
    observation = Observation(
        applied=seen.replicas,
        ready=seen.ready,
        starting=seen.starting,
        terminating=seen.terminating,
        signals=signals if seen.ready else None,
    )
    return Coming(spec, observation)


def _verb(workload: InferenceWorkload) -> verbs.VerbRequest | None:
    """What a person asks of the update; what cannot be understood is noted as handled, too, and told once."""
    text = (workload.metadata.annotations or {}).get(verbs.ANNOTATION)
    if not text:
        return None
    found = verbs.parse(text)
    return found if isinstance(found, verbs.VerbRequest) else verbs.VerbRequest(None, "", text[: verbs.LONGEST], found)


def _of_target(
    store: Store,
    workload: InferenceWorkload,
    spec: WorkloadSpec,
    target: TargetSpec,
    stored: Record,
    readings: Readings,
    activation: Activation | None,
    resolver: Resolver,
) -> Subject | Unresolved | None:
    """A workload whose object somebody else owns. None: it is being read, and will be known in a moment."""
    found = store.targets.find(spec.key.namespace, target)
    if not isinstance(found, SeenTarget):
        return Unresolved("AbleToScale", "FailedGetScale", found.message) if isinstance(found, Unseen) else None
    if KNATIVE_LABEL in (found.there.metadata.labels or {}):
        return Unresolved("AbleToScale", "FailedGetScale", _OF_KNATIVE.format(kind=target.kind, name=target.name))
    shape = shape_of(target)
    pods = store.targets.pods(spec.key.namespace, shape.selector(target.name, found.selector))
    current = shape.observe(str(target), found.there, pods)
    record = stored if stored.current == current.name else Record()
    price = resolver.price(spec.uid, _price(shape.replicas(pods)))
    newest = Revision(current.name, "", {})
    return Subject(
        spec.key,
        workload,
        replace(spec, per_replica=price or {}),
        stored,
        record,
        Observed(newest, 0, frozenset(), current, NO_SERVICE, NO_SERVICE),
        replace(observation_of(spec, record, current, readings.get(spec.key), activation), initialized=True),
        pods=revisions.addressed(pod for pod in pods if shape.serves(pod)),
        there=found.there,
        follows=found.follows,
        priced=price is not None,
        selector=found.selector,
    )


_SWITCHED: Final = (
    "spec.serving changed between targetRef and a kind of ours, and what ran goes on as it is; set it back, or make "
    "another workload"
)
_OF_KNATIVE: Final = (
    "{kind} {name} is of a Knative revision, which Knative scales itself; set autoscaling.knative.dev/min-scale, "
    "max-scale, metric and target on the Knative Service, or move its pod template to serving.deployment"
)


def _price(replicas: Sequence[Sequence[TargetPod]]) -> ResourceVector | None:
    """What a replica is charged, by the dearest that is there."""
    return largest(add(*(pod.demand for pod in pods)) for pods in replicas) if replicas else None


def _applied(spec: WorkloadSpec, record: Record, observed: int | None) -> int | None:
    """The count to start from: the one that we wrote. Where more is there, more: only data may lower it.

    A crash between record and object, or a hand on the object while the daemon was away, leaves them apart.
    """
    if spec.mode is Mode.OBSERVE:
        return observed
    if record.replicas is None or observed is None:
        return observed if record.replicas is None else record.replicas
    held = spec.mode is Mode.PAUSED or spec.scaling.manual_replicas is not None
    return record.replicas if held or record.phase is Phase.FAILED else max(record.replicas, observed)
