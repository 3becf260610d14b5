"""What an operator sees and types: the table, describe, explain, scale."""

from __future__ import annotations

import json

import pytest

from tests.crd.refusals import changed, good
from tests.realcluster.cluster import Cluster

STATUS = {
    "phase": "Running",
    "phaseMessage": "5 of 5 replicas serve",
    "observedGeneration": 1,
    "replicas": 5,
    "selector": "tidegate.dev/workload=meta-llama-3-70b-instruct",
    "scalingMode": "Auto",
    "rollout": {
        "revision": "meta-llama-3-70b-instruct-9f8e7d6c",
        "phase": "RollingBack",
        "reason": "Aborted",
        "since": "2026-01-01T00:00:00Z",
        "queuedAt": "2026-01-01T00:00:00Z",
        "queueDeadlineAt": "2026-01-01T01:00:00Z",
    },
    "counts": {"desired": 6, "granted": 6, "applied": 6, "ready": 5, "starting": 1, "terminating": 0},
    "currentRevision": "meta-llama-3-70b-instruct-1a2b3c4d",
    "signals": [{"name": "concurrency", "value": "38.5", "target": "7", "quality": "fresh", "ageSeconds": 1}],
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "5 of 5 replicas serve",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
    "lastScale": {"at": "2026-01-01T00:00:00Z", "from": 4, "to": 6, "reason": "Policy"},
}


@pytest.fixture
def workload(crds: Cluster, namespace: str) -> str:
    """A workload with a status, as the daemon would write it."""
    name = "meta-llama-3-70b-instruct"
    path = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads"
    crds.create(path, good(name))
    status, answer = crds.request(
        "PATCH", f"{path}/{name}/status", {"status": STATUS}, content_type="application/merge-patch+json"
    )
    assert status == 200, answer
    return name


def test_the_table_answers_who_serves_how_many_and_why(crds: Cluster, namespace: str, workload: str) -> None:
    header, row = crds.kubectl("get", "iw", "-n", namespace).splitlines()
    assert " ".join(header.split()) == "NAME PHASE UPDATE MODE READY DESIRED SIGNAL VALUE TARGET AGE"
    assert " ".join(row.split()[:-1]) == f"{workload} Running RollingBack Auto 5 6 concurrency 38.5 7"
    assert max(len(header), len(row)) <= 120


def test_the_wide_table_adds_the_bounds_the_revision_and_the_message(
    crds: Cluster, namespace: str, workload: str
) -> None:
    header, row = crds.kubectl("get", "iw", "-n", namespace, "-o", "wide").splitlines()
    assert header.split()[-5:] == ["MIN", "MAX", "PROJECT", "REVISION", "MESSAGE"]
    assert row.split()[10:12] == ["1", "8"]
    assert row.endswith("meta-llama-3-70b-instruct-1a2b3c4d   5 of 5 replicas serve")


def test_a_workload_that_nobody_has_looked_at_has_a_readable_row(crds: Cluster, namespace: str) -> None:
    crds.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(good("new")))
    row = crds.kubectl("get", "iw", "new", "-n", namespace, "--no-headers")
    assert row.split()[0] == "new"
    assert len(row) <= 120


def test_describe_tells_the_signal_and_the_last_scale(crds: Cluster, namespace: str, workload: str) -> None:
    text = crds.kubectl("describe", "iw", workload, "-n", namespace)
    for line in (
        "Metric Threshold:  10",
        "Phase Message:   5 of 5 replicas serve",
        "Last Scale:",
        "Value:         38.5",
    ):
        assert " ".join(line.split()) in " ".join(text.split())


def test_scale_pins_the_replica_count(crds: Cluster, namespace: str, workload: str) -> None:
    crds.kubectl("scale", "iw", workload, "--replicas=3", "-n", namespace)
    assert crds.kubectl("get", "iw", workload, "-n", namespace, "-o", "jsonpath={.spec.replicas}") == "3"


def test_scale_back_to_automatic_is_a_patch_with_null(crds: Cluster, namespace: str, workload: str) -> None:
    crds.kubectl("scale", "iw", workload, "--replicas=3", "-n", namespace)
    crds.kubectl("patch", "iw", workload, "-n", namespace, "--type=merge", "-p", '{"spec":{"replicas":null}}')
    assert crds.kubectl("get", "iw", workload, "-n", namespace, "-o", "jsonpath={.spec.replicas}") == ""


def test_kubectl_apply_takes_null_for_unset(crds: Cluster, namespace: str) -> None:
    body = json.dumps(changed({"spec.replicas": None, "spec.mode": None, "spec.autoscaling.policy": None}))
    crds.kubectl("apply", "-n", namespace, "-f", "-", input=body)
    assert "mode" not in crds.kubectl("get", "iw", "llama", "-n", namespace, "-o", "jsonpath={.spec}")


def test_the_template_is_kept_as_written(crds: Cluster, namespace: str) -> None:
    template = {
        "metadata": {"labels": {"app": "x"}, "annotations": {"a": "b"}, "creationTimestamp": None},
        "spec": {
            "containers": [{"name": "vllm", "env": [{"name": "A", "value": ""}], "fieldOfTheFuture": {"x": [1, 2.5]}}],
            "tolerations": [{"operator": "Exists"}],
            "restartPolicy": "Always",
        },
        "unheardOf": True,
    }
    path = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads"
    crds.create(path, changed({"spec.serving.deployment.template": template}))
    assert crds.get(f"{path}/llama")["spec"]["serving"]["deployment"]["template"] == template


def test_explain_names_ranges_and_defaults(crds: Cluster) -> None:
    text = crds.kubectl("explain", "iw.spec.autoscaling")
    assert "Never fewer (default 1). 0 allows scale to zero." in " ".join(text.split())
    assert "observe (with targetRef)" in " ".join(crds.kubectl("explain", "iw.spec.mode").split())
