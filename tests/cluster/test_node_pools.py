"""A revision's pods go to the nodes of its pool, all of a group together, and nothing else of the template changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.client import connect
from autoscaler.cluster.errors import Refused
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.scalable import NODE_POOL_ANNOTATION, Kind, ScalableRevisions, render
from autoscaler.cluster.workloads import deployment, leaderworkerset
from rollouts.revision import digest_of, identity_of
from tests.realcluster.cluster import Cluster

H100 = {"gpu": "h100", "zone": "a"}
SELECTOR = {"gpu": "h100", "disk": "nvme"}
POOLS: dict[str, Mapping[str, str]] = {"default": {}, "h100": H100}


def pod(selector: dict[str, str] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "c", "image": "x"}], "tolerations": [{"operator": "Exists"}]}
    return {"metadata": {"annotations": {"a": "b"}}, "spec": spec | ({"nodeSelector": selector} if selector else {})}


def content(kind: Kind, *selectors: dict[str, str] | None) -> dict[str, Any]:
    """A Deployment's one template; a group's workers, and its leader where there is a second one."""
    if kind is deployment.KIND:
        return {"template": pod(selectors[0])}
    leader = {"leaderTemplate": pod(selectors[1])} if len(selectors) > 1 else {}
    return {"size": 2, "workerTemplate": pod(selectors[0]), **leader}


def workload(kind: Kind, groups: dict[str, Any], namespace: str = "ml") -> InferenceWorkload:
    body = {
        "metadata": {"name": "llama", "namespace": namespace, "uid": "u"},
        "spec": {"serving": {"port": 8000, kind.field: groups}},
    }
    return msgspec.convert(body, InferenceWorkload)


def rendered(kind: Kind, groups: dict[str, Any], pool: str) -> dict[str, Any]:
    made = workload(kind, groups)
    identity = identity_of(msgspec.to_builtins(made.spec.serving), None)
    before = deepcopy(identity)
    body = render(kind, made, "llama-1", identity, 3, False, 7, (pool, POOLS[pool]))
    assert (identity, digest_of(identity)) == (before, digest_of(before)), (
        "what a revision is does not depend on its pool"
    )
    return body


def selectors(kind: Kind, body: dict[str, Any]) -> list[dict[str, str] | None]:
    spec = body["spec"]
    inside = spec["leaderWorkerTemplate"] if kind is leaderworkerset.KIND else spec
    names = ("leaderTemplate", "workerTemplate") if kind is leaderworkerset.KIND else ("template",)
    return [inside[name]["spec"].get("nodeSelector") for name in names]


KINDS = pytest.mark.parametrize("kind", [deployment.KIND, leaderworkerset.KIND], ids=lambda kind: kind.field)


@KINDS
def test_every_pod_of_a_revision_selects_the_nodes_of_its_pool(kind: Kind) -> None:
    body = rendered(kind, content(kind, None), "h100")
    assert all(each == H100 for each in selectors(kind, body))
    assert body["metadata"]["annotations"][NODE_POOL_ANNOTATION] == "h100"


@KINDS
def test_the_users_own_selector_stays_beside_it(kind: Kind) -> None:
    body = rendered(kind, content(kind, SELECTOR, SELECTOR), "h100")
    assert all(each == H100 | SELECTOR for each in selectors(kind, body))


@KINDS
def test_a_pool_of_all_nodes_changes_nothing_in_the_template(kind: Kind) -> None:
    body = rendered(kind, content(kind, None), "default")
    assert all(each is None for each in selectors(kind, body))
    assert body["metadata"]["annotations"][NODE_POOL_ANNOTATION] == "default"
    inside = body["spec"]["leaderWorkerTemplate" if kind is leaderworkerset.KIND else "template"]
    template = inside["workerTemplate"] if kind is leaderworkerset.KIND else inside
    assert template["spec"] == pod()["spec"]


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        (deployment.KIND, content(deployment.KIND, {"gpu": "a100"})),
        (leaderworkerset.KIND, content(leaderworkerset.KIND, {"gpu": "a100"})),
        (leaderworkerset.KIND, content(leaderworkerset.KIND, {"gpu": "a100"}, None)),
        (leaderworkerset.KIND, content(leaderworkerset.KIND, None, {"gpu": "a100"})),
    ],
    ids=["template", "all", "worker", "leader"],
)
def test_a_template_that_selects_other_nodes_is_refused_with_the_key_and_both_values(
    kind: Kind, groups: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as caught:
        rendered(kind, groups, "h100")
    assert str(caught.value) == (
        f"spec.serving.{kind.field}: its nodeSelector asks for gpu: a100, not for h100 as node pool h100 does"
    )


async def test_a_pool_that_the_configuration_lost_is_refused_with_those_that_it_has() -> None:
    made = workload(deployment.KIND, content(deployment.KIND, None))
    with pytest.raises(Refused, match="node pool gone is not in the configuration; allowed: default, h100"):
        await revisions(None, made, "gone").create("llama-1", 1)


def revisions(api: Any, made: InferenceWorkload, pool: str, kind: Kind = deployment.KIND) -> ScalableRevisions:
    contents = {"llama-1": identity_of(msgspec.to_builtins(made.spec.serving), None)}
    return ScalableRevisions(
        api,
        made,
        True,
        contents,
        lambda _: kind,
        lambda _: None,
        lambda *_: None,
        7,
        lambda: asyncio.sleep(0),
        lambda _: pool,
        POOLS,
    )


def tolerating(taint: str, content: Any) -> Any:
    """The same, with every pod of it let onto nodes with that taint."""
    if not isinstance(content, dict):
        return content
    found = {key: tolerating(taint, value) for key, value in content.items()}
    return {**found, "tolerations": [{"key": taint, "operator": "Exists"}]} if "containers" in content else found


@KINDS
async def test_the_scheduler_places_a_revision_in_its_pool_alone(lws: Cluster, namespace: str, kind: Kind) -> None:
    """No node has both labels until one is made."""
    made = workload(kind, tolerating(namespace, content(kind, None)), namespace)
    count, node = 2 if kind is deployment.KIND else 4, f"{namespace}-n"
    client = await connect(lws.kubeconfig)
    try:
        await revisions(client, made, "h100", kind).create("llama-1", 2)
    finally:
        await client.close()

    def pods() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = lws.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return found

    def unplaced() -> bool:
        conditions = [each["status"].get("conditions") or [] for each in pods()]
        return [[one.get("reason") for one in each] for each in conditions] == [["Unschedulable"]] * len(conditions)

    await asyncio.to_thread(lws.wait_for, lambda: len(pods()) >= 2 and unplaced(), "pods for which no node is there")
    try:
        await asyncio.to_thread(lws.add_gpu_node, node, labels=H100, taint=namespace)
        places = [node] * count
        await asyncio.to_thread(
            lws.wait_for,
            lambda: [each["spec"].get("nodeName") for each in pods()] == places,
            "all on the node of the pool",
            60.0,
        )
    finally:
        lws.request("DELETE", f"/api/v1/nodes/{node}")
    written = lws.get(kind.resource.path(namespace, "llama-1"))
    assert written["metadata"]["annotations"]["tidegate.dev/node-pool"] == "h100"
