"""Which workloads somebody else scales, what is said of them, and that nothing is asked or done for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest

from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import Autoscaler, Scalable
from autoscaler.cluster.scalers import Scaler, Target, by_target
from autoscaler.cluster.workloads import leaderworkerset
from autoscaler.controller.conflicts import Conflicts
from autoscaler.controller.cycle import Cycle
from autoscaler.controller.deciding import Decided
from autoscaler.controller.rivals import rival_of
from autoscaler.controller.specs import Operator, resolve
from autoscaler.controller.subject import Rival, Snapshot, Subject
from autoscaler.model.decision import Grant, Observation, Rule, ScalingDecision
from autoscaler.model.resources import GPU
from autoscaler.model.workload import WorkloadKey, WorkloadSpec
from rollouts.commands import HaveReplicas, Stamp
from rollouts.machine import Step
from rollouts.observed import Observed, ObservedRevision, ObservedService
from rollouts.record import Phase, Record
from rollouts.revision import NO_REVISION, Revision

HPA: Rival = (Scaler("HorizontalPodAutoscaler", "hpa"), Target("ml", "apps", "Deployment", "chat-1"))
NOW = 1_000_000.0


def deployment(name: str, replicas: int, generation: int, manager: str = "flux") -> Scalable:
    fields: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    managed = [{"manager": manager, "subresource": "scale", "time": "2026-01-31T12:00:00Z", "fieldsV1": fields}]
    metadata = {"name": name, "namespace": "ml", "uid": "d", "generation": generation, "managedFields": managed}
    return msgspec.json.decode(
        msgspec.json.encode({"metadata": metadata, "spec": {"replicas": replicas}}), type=Scalable
    )


def subject(name: str = "chat", replicas: int = 2, rival: Rival | None = None, generation: int = 1) -> Subject:
    """A workload with two recorded replicas, whose object the leader of epoch 1 stamped."""
    container = {"name": "m", "resources": {"limits": {GPU: "1"}}}
    body = {
        "metadata": {"name": name, "namespace": "ml", "uid": name},
        "spec": {
            "serving": {"port": 8000, "deployment": {"template": {"spec": {"containers": [container]}}}},
            "autoscaling": {"minReplicas": 1, "maxReplicas": 8, "metric": "concurrency", "metricThreshold": 10},
        },
    }
    workload = msgspec.convert(body, InferenceWorkload)
    spec = resolve(workload, Operator())
    assert isinstance(spec, WorkloadSpec)
    revision = f"{name}-1"
    record = Record(Phase.COMPLETE, revision, replicas=2, initialized=True, served_at=1.0, epoch=1, serving=True)
    observed = Observed(
        newest=Revision(revision, "digest", {}),
        collision_count=0,
        saved=frozenset({revision}),
        current=ObservedRevision(revision, replicas, ready=replicas, epoch=1),
        service=ObservedService(name, True, revision),
        update_service=ObservedService(f"{name}-update", True, NO_REVISION),
    )
    there = deployment(revision, replicas, generation)
    seen = Observation(applied=replicas, ready=replicas)
    return Subject(spec.key, workload, spec, record, record, observed, seen, (), there=there, rival=rival)


def snapshot(*subjects: Subject, at_s: float = NOW) -> Snapshot:
    return Snapshot(at_s, subjects, (), 5.0, {})


KEY = WorkloadKey("ml", "chat")


# --- matching ---


@pytest.mark.parametrize(
    ("api_version", "kind", "name", "rival"),
    [
        ("apps/v1", "Deployment", "chat-1", True),
        ("tidegate.dev/v1alpha1", "InferenceWorkload", "chat", True),
        ("apps/v1", "Deployment", "chat-0", False),
        ("apps/v1", "Deployment", "chat", False),
        ("apps/v1", "StatefulSet", "chat-1", False),
        ("other.dev/v1", "Deployment", "chat-1", False),
        ("tidegate.dev/v1alpha1", "InferenceWorkload", "chat-1", False),
    ],
)
@pytest.mark.parametrize("namespace", ["ml", "other"])
def test_only_the_current_revision_and_the_workload_itself_count(
    api_version: str, kind: str, name: str, rival: bool, namespace: str
) -> None:
    target = {"apiVersion": api_version, "kind": kind, "name": name}
    body = {"metadata": {"name": "hpa", "namespace": namespace}, "spec": {"scaleTargetRef": target}}
    scalers = by_target([msgspec.convert(body, Autoscaler)], [])
    assert (rival_of(subject(), {}, scalers) is not None) is (rival and namespace == "ml")


def test_of_a_leader_worker_set_its_own_scale_counts() -> None:
    target = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "chat-1"}
    body = {"metadata": {"name": "hpa", "namespace": "ml"}, "spec": {"scaleTargetRef": target}}
    scalers = by_target([msgspec.convert(body, Autoscaler)], [])
    groups = replace(subject(), kind=leaderworkerset.KIND)
    rival = rival_of(groups, {}, scalers)
    assert rival == (Scaler("HorizontalPodAutoscaler", "hpa"), Target("ml", *target_of(target)))
    assert rival_of(subject(), {}, scalers) is None, "that of a Deployment has another object"
    told = Conflicts().find(snapshot(replace(groups, rival=rival)))[KEY].message
    assert told.startswith("HorizontalPodAutoscaler hpa scales LeaderWorkerSet chat-1: ")


def target_of(target: dict[str, str]) -> tuple[str, str, str]:
    return target["apiVersion"].partition("/")[0], target["kind"], target["name"]


# --- what is said ---


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "HorizontalPodAutoscaler",
            "HorizontalPodAutoscaler x scales Deployment chat-1: delete it or point it elsewhere. "
            "Nothing is written until then",
        ),
        (
            "ScaledObject",
            "ScaledObject x scales Deployment chat-1: delete it or point it elsewhere; pausing it is not enough. "
            "Nothing is written until then",
        ),
    ],
)
def test_the_other_scaler_is_named_with_what_to_do(kind: str, message: str) -> None:
    trouble = Conflicts().find(snapshot(subject(rival=(Scaler(kind, "x"), HPA[1]))))[KEY]
    assert (trouble.condition, trouble.reason, trouble.message) == ("Conflict", kind, message)


def fought(conflicts: Conflicts, changes: int, manager: str = "flux") -> dict[WorkloadKey, str]:
    """What is said after so many changes of the count by this manager, each of them corrected."""
    found: dict[WorkloadKey, str] = {}
    for number in range(changes + 1):
        there = replace(subject(), there=deployment("chat-1", 7 if number else 2, 2 * number, manager))
        told = conflicts.find(snapshot(there, at_s=NOW + 10 * number))
        found = {key: f"{trouble.reason}: {trouble.message}" for key, trouble in told.items()}
    return found


def test_a_manager_that_fights_for_the_count_is_named_from_the_managed_fields() -> None:
    assert fought(Conflicts(), 2) == {}
    assert fought(Conflicts(), 3) == {
        KEY: "ForeignManager: flux (scale, last at 2026-01-31T12:00:00Z) keeps changing spec.replicas of Deployment "
        "chat-1 (3 times within 10 min): have it leave the count alone. Nothing is written until 1970-01-12T13:52:10Z"
    }


def test_counts_that_we_wrote_ourselves_are_no_fight() -> None:
    assert fought(Conflicts(), 9, manager="tidegate") == {}


def test_a_new_tenure_begins_without_a_fight() -> None:
    conflicts = Conflicts()
    assert fought(conflicts, 3)
    conflicts.forget()
    assert conflicts.find(snapshot(subject())) == {}


# --- what a cycle makes of it ---


class Followed:
    """Of the store only what a step asks of it."""

    def follows(self, namespace: str) -> bool:
        return True


def cycle() -> Cycle:
    """Without ports: only its pure parts are used."""
    nothing = cast(Any, None)
    return Cycle(lambda: None, cast(Any, Followed()), nothing, nothing, nothing, Operator(), lambda: NOW)


def grants(seen: Snapshot, granted: int) -> dict[WorkloadKey, Grant]:
    return {each.key: Grant(each.key, granted, granted) for each in seen.subjects}


def contested(seen: Snapshot) -> Cycle:
    made = cycle()
    made._contested = made._barred = made._conflicts.find(seen)
    return made


def test_nothing_is_done_for_what_is_contested_and_its_record_stays() -> None:
    seen = snapshot(subject(replicas=7, rival=HPA))
    step = contested(seen).step(seen, grants(seen, 5), epoch=2)[KEY]
    assert (step.commands, step.record) == ((), seen.subjects[0].stored)


async def test_a_step_that_waited_for_its_turn_is_not_begun() -> None:
    """The cycle has no ports: an attempt to write would raise."""
    there = subject(rival=HPA)
    step = Step(replace(there.stored, replicas=5), (HaveReplicas("chat-1", 5, 2),))
    outcome = await contested(snapshot(there))._execute_one(there, step, NOW, cast(Any, None), cast(Any, None))
    assert (outcome.record, outcome.scaled) == (there.stored, None)


def test_nobody_waits_for_the_stamp_of_what_is_contested() -> None:
    """The other one is stamped by the new leader already, and may be lowered."""
    other = subject("other")
    stamped = ObservedRevision("other-1", 2, ready=2, epoch=2)
    other = replace(other, observed=replace(other.observed, current=stamped))
    seen = snapshot(subject(rival=HPA), other)
    made = contested(seen)
    steps = made.step(seen, grants(seen, 1), epoch=2)
    assert made.unstamped == 0
    assert steps[other.key].commands == (HaveReplicas("other-1", 1, 2),)


def test_when_it_is_over_the_stamp_comes_first() -> None:
    seen = snapshot(subject())
    made = contested(seen)
    step = made.step(seen, grants(seen, 5), epoch=2)[KEY]
    assert step.commands == (Stamp("chat-1", 2), HaveReplicas("chat-1", 5, 2))


def test_what_it_may_not_use_of_the_quota_goes_to_others() -> None:
    project = {"projects": {"ml": "team"}, "limits": {("team", "default"): {GPU: 8_000}}}
    operator = Operator(**project)  # type: ignore[arg-type]
    both = [replace(each, spec=replace(each.spec, project="team")) for each in (subject(rival=HPA), subject("other"))]
    seen = snapshot(*both)
    made = contested(seen)
    made.reconfigure(operator, 50)
    decisions = {each.key: ScalingDecision(NOW, 2, 6, Rule.POLICY, 6) for each in both}
    granted = {key.name: grant.granted for key, grant in made.allocate(seen, Decided(decisions, {}, {})).grants.items()}
    assert granted == {"chat": 2, "other": 6}
