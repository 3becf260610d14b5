"""The reflector on the real API server: its pages, its restart, and a history that was compacted away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from structlog.testing import capture_logs

from autoscaler.cluster import resources
from autoscaler.cluster.client import connect
from autoscaler.cluster.resources import ControllerRevision
from autoscaler.cluster.watch import PAGE_SIZE, Selection, Timing, Watched
from tests.cluster.copying import until
from tests.realcluster.cluster import Cluster

RECOVERY_S = 10.0


class Revisions:
    """The ControllerRevisions of one namespace: no controller touches them, and no pod belongs to them."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._path = f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions"

    def create(self, name: str) -> None:
        self._cluster.create(self._path, {"metadata": {"name": name}, "revision": 1, "data": {}})

    def delete(self, name: str) -> None:
        assert self._cluster.request("DELETE", f"{self._path}/{name}")[0] == 200

    def versions(self) -> dict[str, str]:
        listed = self._cluster.get(self._path)
        return {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in listed["items"]}

    def version(self) -> str:
        """Of the whole store."""
        return str(self._cluster.get(self._path)["metadata"]["resourceVersion"])


@contextlib.asynccontextmanager
async def copied(
    kubeconfig: Path, namespace: str, timing: Timing | None = None
) -> AsyncIterator[Watched[ControllerRevision]]:
    """A copy that does not run yet."""
    client = await connect(kubeconfig)
    selection = Selection(resources.CONTROLLER_REVISIONS, namespace)
    try:
        yield Watched(client, selection, ControllerRevision, lambda: None, timing=timing)
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def running(copy: Watched[ControllerRevision]) -> AsyncIterator[None]:
    task = asyncio.create_task(copy.run())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=1)
    assert task.cancelled()


async def right(copy: Watched[ControllerRevision], revisions: Revisions, within_s: float = RECOVERY_S) -> None:
    expected = await asyncio.to_thread(revisions.versions)
    await until(
        lambda: {each.metadata.name: each.metadata.resource_version for each in copy} == expected,
        f"the copy to hold {len(expected)} objects as they are",
        within_s,
    )


async def test_more_objects_than_a_page_are_listed_and_followed(cluster: Cluster, namespace: str) -> None:
    revisions = Revisions(cluster, namespace)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(revisions.create, [f"r{number}" for number in range(PAGE_SIZE + 20)]))
    async with copied(cluster.kubeconfig, namespace) as copy, running(copy):
        await right(copy, revisions)
        assert copy.relists == 1
        await asyncio.to_thread(revisions.delete, "r7")
        await asyncio.to_thread(revisions.create, "new")
        await right(copy, revisions)
        assert copy.get(namespace, "r7") is None
        assert (copy.relists, copy.failures) == (1, 0)


async def test_a_killed_api_server_costs_one_line_and_its_return_another(fresh_cluster: Cluster) -> None:
    revisions = Revisions(fresh_cluster, "default")
    revisions.create("a")
    with capture_logs() as lines:
        async with copied(fresh_cluster.kubeconfig, "default") as copy, running(copy):
            await right(copy, revisions)
            await asyncio.to_thread(fresh_cluster.kill, "kube-apiserver")
            await until(lambda: copy.failures >= 3, "the outage to be noticed")
            assert copy.get("default", "a") is not None
            await asyncio.to_thread(fresh_cluster.restart, "kube-apiserver")
            await asyncio.to_thread(revisions.delete, "a")
            await asyncio.to_thread(revisions.create, "b")
            await right(copy, revisions)
            await until(lambda: len(lines) == 2, "the recovery to be told")
    assert [entry["event"] for entry in lines] == ["watch.failed", "watch.recovered"]


async def test_a_frozen_api_server_is_noticed_by_its_silence_and_silence_alone_is_no_failure(
    fresh_cluster: Cluster,
) -> None:
    revisions = Revisions(fresh_cluster, "default")
    revisions.create("a")
    impatient = Timing(silence_s=2)  # far less than a minute: the server's bookmarks do not come in time
    async with copied(fresh_cluster.kubeconfig, "default", impatient) as copy, running(copy):
        await right(copy, revisions)
        await until(lambda: (copy.last_event_age_s or 0) > 1.8, "nothing to happen")
        await until(lambda: (copy.last_event_age_s or 9) < 1, "a watch that is opened anew")
        assert copy.failures == 0
        fresh_cluster.pause("kube-apiserver")  # its connections stay open
        await until(lambda: copy.failures >= 1, "the silence to be noticed")
        fresh_cluster.resume("kube-apiserver")
        await asyncio.to_thread(revisions.delete, "a")
        await asyncio.to_thread(revisions.create, "b")
        await right(copy, revisions)
        assert copy.relists == 1


async def test_after_a_compaction_a_new_list_finds_what_was_deleted(fresh_cluster: Cluster) -> None:
    revisions = Revisions(fresh_cluster, "default")
    for name in ("a", "b"):
        revisions.create(name)
    async with copied(fresh_cluster.kubeconfig, "default") as copy:
        async with running(copy):
            await right(copy, revisions)
        kept = copy.get("default", "b")
        await asyncio.to_thread(revisions.delete, "a")
        await asyncio.to_thread(revisions.create, "c")
        await asyncio.to_thread(compact, fresh_cluster, revisions.version())
        await asyncio.to_thread(fresh_cluster.restart, "kube-apiserver")  # it holds a history of its own
        with capture_logs() as lines:
            async with running(copy):
                await right(copy, revisions)
        assert copy.relists == 2
        assert copy.get("default", "a") is None
        assert copy.get("default", "b") is kept
        assert lines == [], "an old version is no failure"


def compact(cluster: Cluster, version: str) -> None:
    """Drops etcd's history before that version."""
    [url] = [part.split("=", 1)[1] for part in cluster.processes["kube-apiserver"].command if "--etcd-servers=" in part]
    body = json.dumps({"revision": version, "physical": True}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v3/kv/compaction", body), timeout=30) as answer:
        assert answer.status == 200
