"""LeaderWorkerSets on the test control plane: groups of KWOK's pods, scaled through /scale, checked by the webhooks."""

from __future__ import annotations

from typing import Any

from tests.realcluster.cluster import Cluster

SETS = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/{}/leaderworkersets"
GROUP, WORKER = "leaderworkerset.sigs.k8s.io/group-index", "leaderworkerset.sigs.k8s.io/worker-index"


def groups(name: str, size: int, replicas: int) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "server", "image": "none"}]}}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "leaderWorkerTemplate": {"size": size, "workerTemplate": template}},
    }


def ready_places(cluster: Cluster, namespace: str) -> list[tuple[str, str]]:
    """(group, index in it) of each ready pod."""
    pods = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    ready = [each for each in pods if {"type": "Ready", "status": "True"}.items() <= _condition(each).items()]
    return sorted((each["metadata"]["labels"][GROUP], each["metadata"]["labels"][WORKER]) for each in ready)


def _condition(pod: dict[str, Any]) -> dict[str, str]:
    return next((each for each in pod["status"].get("conditions", ()) if each["type"] == "Ready"), {})


def test_groups_get_their_pods_and_are_scaled_as_groups(lws: Cluster, namespace: str) -> None:
    lws.create(SETS.format(namespace), groups("llama", size=2, replicas=2))
    places = [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    lws.wait_for(lambda: ready_places(lws, namespace) == places, "two groups of two ready pods")
    lws.wait_for(
        lambda: lws.get(f"{SETS.format(namespace)}/llama")["status"]["readyReplicas"] == 2, "two ready replicas"
    )
    lws.kubectl("scale", "leaderworkerset/llama", "-n", namespace, "--replicas=1")
    lws.wait_for(lambda: ready_places(lws, namespace) == places[:2], "one group to be left")


def test_the_webhook_refuses_what_upstream_refuses(lws: Cluster, namespace: str) -> None:
    body = groups("llama", size=4, replicas=1)
    body["spec"]["leaderWorkerTemplate"]["subGroupPolicy"] = {"subGroupSize": 3, "subGroupPolicyType": "LeaderExcluded"}
    assert lws.request("POST", f"{SETS.format(namespace)}?dryRun=All", body)[0] == 201
    body["spec"]["leaderWorkerTemplate"]["size"] = 5
    status, answer = lws.request("POST", f"{SETS.format(namespace)}?dryRun=All", body)
    assert status == 403
    assert "divisible by subGroupSize" in answer["message"]
