"""Of sub-groups our rule says what LeaderWorkerSet's own webhook says: else a workload that we take gets no object."""

from __future__ import annotations

from itertools import product
from typing import Any

from autoscaler.settings.manifest import check_workload
from tests.crd.refusals import good
from tests.realcluster.cluster import Cluster

OURS = "/apis/tidegate.dev/v1alpha1/namespaces/default/inferenceworkloads?dryRun=All&fieldValidation=Strict"
THEIRS = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/default/leaderworkersets?dryRun=All"
CASES = list(product(range(1, 6), range(1, 6), (None, "LeaderWorker", "LeaderExcluded")))


def policy(sub_size: int, kind: str | None) -> dict[str, Any]:
    return {"subGroupSize": sub_size, **({"subGroupPolicyType": kind} if kind else {})}


def workload(size: int, sub_groups: dict[str, Any]) -> dict[str, Any]:
    body = good()
    template = body["spec"]["serving"].pop("deployment")["template"]
    groups = {"size": size, "workerTemplate": template, "subGroupPolicy": sub_groups}
    body["spec"]["serving"]["leaderWorkerSet"] = groups
    return body


def leader_worker_set(size: int, sub_groups: dict[str, Any]) -> dict[str, Any]:
    template = good()["spec"]["serving"]["deployment"]["template"]
    groups = {"size": size, "workerTemplate": template, "subGroupPolicy": sub_groups}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "llama"},
        "spec": {"leaderWorkerTemplate": groups},
    }


def test_sub_groups_that_we_take_are_those_that_leader_worker_set_takes(crds: Cluster, lws: Cluster) -> None:
    for size, sub_size, kind in CASES:
        sub_groups = policy(sub_size, kind)
        offline = check_workload(workload(size, sub_groups)) == []
        online = crds.request("POST", OURS, workload(size, sub_groups))[0] == 201
        theirs = lws.request("POST", THEIRS, leader_worker_set(size, sub_groups))[0] == 201
        assert (offline, online) == (theirs, theirs), (size, sub_groups)
