"""A bad object is refused with a sentence that says what to change: offline and by the real API server alike."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.settings.manifest import check_workload
from tests.crd.refusals import ACCEPTED, REFUSALS, Refusal, changed
from tests.realcluster.cluster import Cluster

CREATE = "/apis/tidegate.dev/v1alpha1/namespaces/default/inferenceworkloads?dryRun=All&fieldValidation=Strict"


def _named(refusal: Refusal) -> str:
    return refusal.name


def _last_key(refusal: Refusal) -> str:
    """The field that a refusal must name."""
    return refusal.at or next(iter(refusal.change)).rpartition(".")[2]


@pytest.mark.parametrize("refusal", REFUSALS, ids=_named)
def test_offline_says_what_to_change(refusal: Refusal) -> None:
    problems = [str(problem) for problem in check_workload(changed(refusal.change))]
    assert [problem for problem in problems if refusal.says in problem and _last_key(refusal) in problem], problems


@pytest.mark.parametrize("refusal", REFUSALS, ids=_named)
def test_the_api_server_says_what_to_change(crds: Cluster, refusal: Refusal) -> None:
    status, answer = crds.request("POST", CREATE, changed(refusal.change))
    assert status in (400, 422), answer
    assert (refusal.server or refusal.says) in answer["message"]
    assert _last_key(refusal) in answer["message"]


@pytest.mark.parametrize("workload", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_offline_accepts(workload: dict[str, Any]) -> None:
    assert check_workload(workload) == []


@pytest.mark.parametrize("workload", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_the_api_server_accepts(crds: Cluster, workload: dict[str, Any]) -> None:
    status, answer = crds.request("POST", CREATE, workload)
    assert status == 201, answer["message"]


def test_every_mistake_is_named_at_once() -> None:
    bad = changed({"spec.mode": "off", "spec.serving.port": 0, "spec.priority": "top"})
    assert [str(problem).partition(":")[0] for problem in check_workload(bad)] == [
        "spec.mode",
        "spec.priority",
        "spec.serving.port",
    ]


def test_an_update_keeps_to_the_rules_too(crds: Cluster, namespace: str) -> None:
    path = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads"
    crds.create(path, changed({}))
    patch = {"spec": {"autoscaling": {"minReplicas": 9}}}
    status, answer = crds.request("PATCH", f"{path}/llama", patch, content_type="application/merge-patch+json")
    assert status == 422
    assert "maxReplicas 8 is below minReplicas 9; set maxReplicas to 9 or more" in answer["message"]
