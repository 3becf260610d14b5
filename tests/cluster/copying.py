"""A copy under test: run against a server, compared with what the server holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from kubernetes_asyncio import client as kubernetes_client

from autoscaler.cluster import resources
from autoscaler.cluster.client import KubernetesClient
from autoscaler.cluster.resources import Pod
from autoscaler.cluster.watch import Selection, Timing, Watched
from tests.cluster.fakeapi import NAMESPACE, FakeApi


class Copy:
    """A copy of the pods, and how often it said that something changed."""

    def __init__(self, client: KubernetesClient, timing: Timing) -> None:
        self.pokes = 0
        self.watched = Watched(client, Selection(resources.PODS, NAMESPACE), Pod, self._poked, timing=timing)

    def _poked(self) -> None:
        self.pokes += 1

    @property
    def versions(self) -> dict[str, str]:
        """By name."""
        return {each.metadata.name: each.metadata.resource_version for each in self.watched}

    async def right(self, api: FakeApi, within_s: float = 10.0) -> None:
        """Waits until the copy is what the server holds."""
        await until(lambda: self.versions == versions(api), f"the copy to be {versions(api)}", within_s)


def versions(api: FakeApi) -> dict[str, str]:
    return {name: each["metadata"]["resourceVersion"] for name, each in api.pods.items()}


@contextlib.asynccontextmanager
async def following(
    api: FakeApi, timing: Timing | None = None, configuration: Any = None, synced: bool = True
) -> AsyncIterator[Copy]:
    """A copy that follows the server until the end of the block, where it must stop at once and not have failed."""
    configuration = configuration or kubernetes_client.Configuration()
    configuration.host = api.url
    client = KubernetesClient(kubernetes_client.ApiClient(configuration))
    copy = Copy(client, timing or Timing())
    running = asyncio.create_task(copy.watched.run())
    try:
        if synced:
            await copy.right(api)
            await until(lambda: bool(api.count("watch")), "the first watch")
        yield copy
        assert not running.done(), running
    finally:
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=1)
        await client.close()
    assert done, "cancelled, but it goes on"
    assert running.cancelled()


async def until(predicate: Callable[[], bool], what: str, within_s: float = 10.0) -> None:
    """Polls in the loop's own thread."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not predicate():
        assert loop.time() < deadline, f"waited {within_s:g} s for {what}"
        await asyncio.sleep(0.005)
