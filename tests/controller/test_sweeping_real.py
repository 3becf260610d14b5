"""Stored revisions beyond a workload's history, on the real API server: which go, and which never do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from autoscaler.cluster.client import KubernetesClient, connect
from autoscaler.cluster.fencing import Tenure
from autoscaler.cluster.history import forget, superfluous
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import CONTROLLER_REVISIONS, ControllerRevision
from autoscaler.cluster.scalable import ScalableRevisions
from autoscaler.cluster.store import Store
from autoscaler.cluster.workloads import deployment
from autoscaler.controller.cycle import Cycle
from autoscaler.controller.specs import Operator
from autoscaler.controller.subject import Snapshot
from autoscaler.controller.sweeping import Sweep
from autoscaler.model.signal import Activation
from rollouts.revision import Revision
from tests.cluster.copying import until
from tests.realcluster.cluster import Cluster
from tests.realcluster.waiting import wait_for_async

CRDS = Path(__file__).parents[2] / "config" / "crd"
WORKLOADS = "/apis/tidegate.dev/v1alpha1/namespaces/{}/inferenceworkloads"
NAMES = [f"llama-0000000{at}" for at in range(8)]
MERGE = "application/merge-patch+json"


class Nothing:
    """Nobody was scraped yet."""

    effective_period_s = 1.0

    def set_targets(self, targets: Mapping[Any, Any]) -> None: ...

    def readings(self, now_s: float) -> Mapping[Any, Any]:
        return {}

    def state(self, spec: Any, now_s: float) -> Activation:
        return Activation.UNKNOWN


class Workload:
    """One with eight stored revisions, none of which is that of its template."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self._path = f"{WORKLOADS.format(namespace)}/llama"
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
        cluster.wait_for(lambda: cluster.request("GET", WORKLOADS.format(namespace))[0] == 200, "our kinds")
        template = {"spec": {"containers": [{"name": "engine", "image": "none"}]}}
        body = {
            "apiVersion": "tidegate.dev/v1alpha1",
            "kind": "InferenceWorkload",
            "metadata": {"name": "llama"},
            "spec": {"serving": {"port": 8000, "deployment": {"template": template}}},
        }
        made = cluster.create(WORKLOADS.format(namespace), body)
        self.stored = msgspec.convert(made, InferenceWorkload)

    async def save(self, client: KubernetesClient) -> None:
        revisions = ScalableRevisions(
            client,
            self.stored,
            False,
            {},
            lambda _: deployment.KIND,
            lambda _: None,
            lambda *_: None,
            1,
            lambda: asyncio.sleep(0),
            lambda _: "default",
            {},
        )
        for name in NAMES:
            await revisions.save(Revision(name, name.rpartition("-")[2] * 8, {"deployment": {}, "port": 8000}))

    def says(self, status: Mapping[str, Any]) -> None:
        code, answer = self.cluster.request("PATCH", f"{self._path}/status", {"status": status}, content_type=MERGE)
        assert code == 200, answer

    def left(self) -> list[str]:
        found = self.cluster.get(CONTROLLER_REVISIONS.path(self.namespace))["items"]
        return sorted(each["metadata"]["name"] for each in found)

    def use(self) -> None:
        """The second has an object, the third a pod."""
        labels = {"tidegate.dev/workload": "llama", "tidegate.dev/owner-revision": NAMES[1]}
        pod = {"containers": [{"name": "engine", "image": "none"}]}
        spec = {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        self.cluster.create(path, {"metadata": {"name": NAMES[1], "labels": labels}, "spec": spec})
        labels = {**labels, "tidegate.dev/owner-revision": NAMES[2]}
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        self.cluster.create(path, {"metadata": {"name": "left-behind", "labels": labels}, "spec": pod})


@asynccontextmanager
async def watched(client: KubernetesClient, namespace: str) -> AsyncIterator[Store]:
    store = Store(client, [namespace], lambda: None)
    task = asyncio.create_task(store.run())
    try:
        await until(lambda: store.synced, "the copies", 30)
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubernetesClient]:
    made = await connect(cluster.kubeconfig)
    yield made
    await made.close()


def look(store: Store) -> Snapshot:
    nothing = Nothing()
    return Cycle(lambda: None, store, nothing, nothing, cast(Any, None), Operator(), lambda: 0.0).observe()


async def test_what_is_used_stays_and_of_the_rest_the_youngest(
    client: KubernetesClient, cluster: Cluster, namespace: str
) -> None:
    workload = await asyncio.to_thread(Workload, cluster, namespace)
    await workload.save(client)
    workload.use()
    workload.says({"currentRevision": NAMES[3], "record": {"phase": "Complete", "initialized": True}})
    async with watched(client, namespace) as store:
        await until(lambda: any(each.follows for each in look(store).subjects), "the workload to be a subject", 20)
        await until(lambda: (namespace, NAMES[2]) in store.pods_by_revision(), "its pod", 20)
        [subject] = (seen := look(store)).subjects
        assert (subject.spec.rollout.revision_history_limit, subject.follows) == (3, True)
        for tenure, snapshot in ((None, seen), (Tenure(1, client), None)):
            await Sweep(lambda tenure=tenure: tenure, store, lambda snapshot=snapshot: snapshot).once()  # type: ignore[misc]
        assert workload.left() == NAMES, "nothing without a tenure, and nothing without a look"

        workload.says({"updateRevision": NAMES[4]})  # after the look
        await until(lambda: "llama" in str(store.workloads.find(namespace, "llama")), "the workload", 20)
        await until(
            lambda: getattr(store.workloads.find(namespace, "llama"), "status").update_revision == NAMES[4],  # noqa: B009
            "the status",
            20,
        )
        sweep = Sweep(lambda: Tenure(1, client), store, lambda: seen)
        await sweep.once()
        assert workload.left() == NAMES[1:], "of 0, 5, 6 and 7 the youngest three"
        await until(lambda: len(store.revisions_by_workload()[(namespace, "llama")]) == 7, "the copy", 20)
        workload.says({"updateRevision": None})

        def is_idle() -> bool:
            there = store.workloads.find(namespace, "llama")
            return there is not None and there.status is not None and there.status.update_revision is None

        await until(is_idle, "the status", 20)
        running = asyncio.create_task(sweep.run(every_s=0.1))
        await wait_for_async(lambda: workload.left() == [*NAMES[1:4], *NAMES[5:]], "the schedule to sweep", 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_exactly_the_one_that_was_looked_at_is_forgotten(
    client: KubernetesClient, cluster: Cluster, namespace: str
) -> None:
    workload = await asyncio.to_thread(Workload, cluster, namespace)
    await workload.save(client)
    path = CONTROLLER_REVISIONS.path(namespace)
    stored = [msgspec.convert(each, ControllerRevision) for each in cluster.get(path)["items"]]
    oldest = superfluous(workload.stored, stored, frozenset(), 6)
    assert [each.metadata.name for each in oldest] == NAMES[:2]
    assert superfluous(workload.stored, stored, frozenset(NAMES[:2]), 6) == []
    another = InferenceWorkload(metadata=msgspec.structs.replace(workload.stored.metadata, uid="another"))
    assert superfluous(another, stored, frozenset(), 0) == [], "those of a workload of that name before"

    assert cluster.request("DELETE", f"{path}/{NAMES[0]}")[0] == 200
    await workload.save(client)
    await forget(client, oldest[0])
    assert workload.left() == NAMES, "it is another one than was looked at"
    await forget(client, oldest[1])
    await forget(client, oldest[1])  # gone already
    assert workload.left() == [NAMES[0], *NAMES[2:]]
