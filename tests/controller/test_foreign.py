"""GPU pods that are not ours: which quota they take from, on the real control plane and as a table."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.client import connect
from autoscaler.cluster.resources import OWNER_REVISION_LABEL, TargetPod
from autoscaler.cluster.store import Store
from autoscaler.cluster.targets import SeenTarget
from autoscaler.controller.foreign import foreign, pools_of_pod
from autoscaler.controller.specs import Operator
from autoscaler.model.workload import TargetSpec
from tests.cluster import copying
from tests.realcluster.cluster import Cluster

GPU = "nvidia.com/gpu"
POOLS = {"h100": {"gpu": "h100"}, "default": {}}


def pod(node: str | None = "n", phase: str = "Running", **metadata: Any) -> TargetPod:
    body = {"metadata": {"name": "p", **metadata}, "spec": {"nodeName": node}, "status": {"phase": phase}}
    return msgspec.json.decode(msgspec.json.encode(body), type=TargetPod)


@pytest.mark.parametrize(
    ("which", "node", "pools"),
    [
        (pod(), {"gpu": "h100", "zone": "a"}, ("h100",)),
        (pod(), {"gpu": "a100"}, ("default",)),
        (pod(), {}, ("default",)),
        (pod(), None, ("h100",)),
        (pod(node=None), None, ()),
        (pod(phase="Succeeded"), {"gpu": "h100"}, ()),
        (pod(phase="Failed"), {"gpu": "h100"}, ()),
        (pod(phase="Pending"), {"gpu": "h100"}, ("h100",)),
        (pod(deletionTimestamp="2026-01-01T00:00:00Z"), {"gpu": "h100"}, ("h100",)),
    ],
    ids=["labelled", "the rest", "bare", "unknown", "unbound", "succeeded", "failed", "starting", "terminating"],
)
def test_a_pod_takes_from_the_pool_of_its_node(
    which: TargetPod, node: dict[str, str] | None, pools: tuple[str, ...]
) -> None:
    assert pools_of_pod(which, POOLS, node) == pools


def test_where_no_pool_has_labels_the_node_does_not_matter() -> None:
    assert pools_of_pod(pod(), {"default": {}}, None) == ("default",)


@contextlib.asynccontextmanager
async def following(kubeconfig: Path, *namespaces: str) -> AsyncIterator[Store]:
    client = await connect(kubeconfig)
    store = Store(client, namespaces, lambda: None)
    task = asyncio.create_task(store.run())
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.wait({task})
        await client.close()


async def until(found: Callable[[], object], expected: object) -> None:
    await copying.until(lambda: found() == expected, f"{expected}; it is {found()}", within_s=30.0)


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> Iterator[Callable[..., str]]:
    """Makes a node with these labels; gone after the test, so that nobody else's pods come to it."""
    made: list[str] = []

    def make(name: str, **labels: str) -> str:
        made.append(f"{namespace}-{name}")
        cluster.add_gpu_node(made[-1], labels=labels, taint=namespace)
        return made[-1]

    yield make
    for each in made:
        cluster.request("DELETE", f"/api/v1/nodes/{each}")


def make_pod(cluster: Cluster, namespace: str, name: str, gpus: int, node: str | None = None, **labels: str) -> None:
    container = {"name": "c", "image": "x", "resources": {"limits": {GPU: str(gpus)} if gpus else {}}}
    spec = {"containers": [container], **({"nodeName": node} if node else {"schedulerName": "nobody"})}
    cluster.create(f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": name, "labels": labels}, "spec": spec})


def operator(project: str, namespaces: tuple[str, ...], **gpus: int) -> Operator:
    return Operator(
        projects=dict.fromkeys(namespaces, project),
        limits={(project, pool): {GPU: count * 1000} for pool, count in gpus.items()},
        node_pools=POOLS,
    )


async def test_pods_of_others_take_from_their_projects_pool_until_they_are_gone(
    cluster: Cluster, namespace: str, node: Callable[..., str]
) -> None:
    labelled, bare = node("h", gpu="h100"), node("b")
    make_pod(cluster, namespace, "notebook", 2, labelled)
    make_pod(cluster, namespace, "batch", 1, bare)
    make_pod(cluster, namespace, "waiting", 4)
    make_pod(cluster, namespace, "web", 0, labelled)
    make_pod(cluster, namespace, "ours", 1, labelled, **{OWNER_REVISION_LABEL: "llama-1"})
    both = operator("ml", (namespace,), h100=8, default=4)
    async with following(cluster.kubeconfig, namespace) as store:
        assert foreign(store, both, ()) == {("ml", "h100"): None, ("ml", "default"): None}, "not known yet"
        first = {("ml", "h100"): {GPU: 2000}, ("ml", "default"): {GPU: 1000}}
        await until(lambda: foreign(store, both, ()), first)
        assert foreign(store, Operator(), ()) == {}, "without a quota nobody is asked about"
        await until(lambda: store.foreign_pods.known(namespace), False)
        await until(lambda: foreign(store, both, ()), first)
        cluster.kubectl("delete", "pod", "notebook", "-n", namespace, "--wait=false")
        await until(lambda: foreign(store, both, ()), {("ml", "h100"): {}, ("ml", "default"): {GPU: 1000}})


async def test_pods_elsewhere_do_not_count_and_without_labelled_pools_nodes_are_not_asked_for(
    cluster: Cluster, namespace: str, node: Callable[..., str]
) -> None:
    other, there = cluster.create_namespace(), node("n")
    make_pod(cluster, namespace, "a", 2, there)
    make_pod(cluster, other, "b", 4, there)
    async with following(cluster.kubeconfig, namespace) as store:
        one = operator("ml", (namespace, other), default=4)
        await until(lambda: foreign(store, one, ()), {("ml", "default"): {GPU: 2000}})
        assert not store.foreign_pods.nodes_known
    async with following(cluster.kubeconfig) as store:
        await until(lambda: foreign(store, one, ()), {("ml", "default"): {GPU: 6000}})
    cluster.delete_namespace(other)


async def test_pods_of_a_target_that_a_workload_counts_are_not_counted_twice(
    cluster: Cluster, namespace: str, node: Callable[..., str]
) -> None:
    there, target = node("n"), TargetSpec("apps/v1", "deployments", "Deployment", "theirs")
    container = {"name": "c", "image": "x", "resources": {"limits": {GPU: "3"}}}
    template = {"metadata": {"labels": {"app": "t"}}, "spec": {"containers": [container], "nodeName": there}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "t"}}, "template": template}
    cluster.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", {"metadata": {"name": "theirs"}, "spec": spec})
    make_pod(cluster, namespace, "a", 2, there)
    one = operator("ml", (namespace,), default=8)
    async with following(cluster.kubeconfig, namespace) as store:
        await until(lambda: foreign(store, one, ()), {("ml", "default"): {GPU: 5000}})
        await until(lambda: isinstance(store.targets.find(namespace, target), SeenTarget), True)
        await until(lambda: foreign(store, one, [(namespace, target)]), {("ml", "default"): {GPU: 2000}})
