"""Whose object scales which target, and who wrote a count last."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.resources import Autoscaler, Scalable
from autoscaler.cluster.scalers import Scaler, Target, by_target, foreign_writer

CHAT = Target("ml", "apps", "Deployment", "chat-1")


def autoscaler(name: str, target: dict[str, str] | None = None, **metadata: Any) -> Autoscaler:
    if target is None:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat-1"}
    body = {"metadata": {"name": name, "namespace": "ml", **metadata}, "spec": {"scaleTargetRef": target}}
    return msgspec.convert(body, Autoscaler)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat-1"}, CHAT),
        ({"apiVersion": "apps/v1beta2", "kind": "Deployment", "name": "chat-1"}, CHAT),
        ({"apiVersion": "v1", "kind": "Deployment", "name": "chat-1"}, Target("ml", "", "Deployment", "chat-1")),
        ({"kind": "Deployment", "name": "chat-1"}, Target("ml", "", "Deployment", "chat-1")),
        (
            {"apiVersion": "tidegate.dev/v1alpha1", "kind": "InferenceWorkload", "name": "chat"},
            Target("ml", "tidegate.dev", "InferenceWorkload", "chat"),
        ),
    ],
    ids=["deployment", "another version", "core group", "no version", "workload"],
)
def test_an_autoscaler_scales_what_it_refers_to(target: dict[str, str], expected: Target) -> None:
    found = by_target([autoscaler("a", target)], [])
    assert found == {expected: Scaler("HorizontalPodAutoscaler", "a")}


@pytest.mark.parametrize("target", [{"name": "chat-1"}, {"name": "chat-1", "kind": "Deployment"}])
def test_a_scaled_object_means_a_deployment_unless_it_says_otherwise(target: dict[str, str]) -> None:
    assert by_target([], [autoscaler("a", target)]) == {CHAT: Scaler("ScaledObject", "a")}
    other = autoscaler("a", {"name": "db", "kind": "StatefulSet"})
    assert by_target([], [other]) == {Target("ml", "apps", "StatefulSet", "db"): Scaler("ScaledObject", "a")}


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": [{"kind": "ScaledObject", "name": "so", "uid": "u"}]},
        {"labels": {"scaledobject.keda.sh/name": "so"}},
    ],
    ids=["owner", "label"],
)
def test_what_keda_made_is_named_by_what_it_was_made_of(metadata: dict[str, Any]) -> None:
    assert by_target([autoscaler("keda-hpa-so", **metadata)], []) == {CHAT: Scaler("ScaledObject", "so")}


def test_of_several_the_first_by_name_is_told_whatever_their_order() -> None:
    several = [autoscaler(name) for name in ("b", "a", "c")]
    assert by_target(several, []) == by_target(several[::-1], []) == {CHAT: Scaler("HorizontalPodAutoscaler", "a")}


# --- who wrote the count ---

COUNT: dict[str, Any] = {"f:spec": {"f:replicas": {}}}


def written_by(*entries: dict[str, Any]) -> str | None:
    body = {"metadata": {"name": "chat-1", "managedFields": list(entries)}}
    found = foreign_writer(msgspec.json.decode(msgspec.json.encode(body), type=Scalable))
    return found.manager if found else None


def entry(manager: str, fields: object, time: str = "2026-01-01T00:00:00Z", subresource: str = "") -> dict[str, Any]:
    return {
        "manager": manager,
        "operation": "Update",
        "subresource": subresource,
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }


OF_STATUS = entry("kube-controller-manager", {"f:status": {"f:replicas": {}}}, subresource="status")
OF_TEMPLATE = entry("kubectl-edit", {"f:spec": {"f:template": {"f:spec": {".": {}, "k:{}": {"f:replicas": {}}}}}})


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([entry("tidegate", COUNT)], None),
        ([entry("tidegate", {"f:spec": {"f:template": {}}}), entry("kubectl", COUNT, subresource="scale")], "kubectl"),
        ([OF_STATUS, OF_TEMPLATE, entry("tidegate", COUNT, subresource="scale")], None),
        ([OF_STATUS, OF_TEMPLATE, entry("flux", COUNT)], "flux"),
        ([entry("argocd", COUNT), entry("tidegate", COUNT)], None),
        ([entry("old", COUNT, "2026-01-01T00:00:00Z"), entry("new", COUNT, "2026-01-02T00:00:00Z")], "new"),
        ([OF_STATUS, OF_TEMPLATE], "an unknown manager"),
        ([entry("odd", ["no", "fields"])], "an unknown manager"),
        ([], "an unknown manager"),
    ],
    ids=[
        "we created it",
        "kubectl scale",
        "our write beside others' fields",
        "a patch beside others' fields",
        "both wrote the same count",
        "the later of two",
        "nobody holds the count",
        "not understood",
        "removed",
    ],
)
def test_the_last_writer_of_the_count(entries: list[dict[str, Any]], expected: str | None) -> None:
    assert written_by(*entries) == expected


def test_what_is_kept_of_managed_fields_does_not_hold_the_answer_of_the_server() -> None:
    answer = msgspec.json.encode({"metadata": {"managedFields": [entry("flux", COUNT)]}})
    holders = sys.getrefcount(answer)
    decoded = msgspec.json.decode(answer, type=Scalable)
    assert decoded.metadata.managed_fields is not None
    assert sys.getrefcount(answer) == holders
