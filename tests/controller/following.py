"""The real store and cycle over objects that a test puts into an imitated API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from autoscaler.cluster.store import Store
from autoscaler.controller.cycle import Cycle
from autoscaler.controller.specs import Operator
from tests.cluster.objects import Objects

APPS, CORE = "/apis/apps/v1/namespaces/ml", "/api/v1/namespaces/ml"
LWS = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/ml"
PODS, WORKLOADS = f"{CORE}/pods", "/apis/tidegate.dev/v1alpha1/namespaces/ml/inferenceworkloads"


@asynccontextmanager
async def following(
    objects: Objects, readings: Any, operator: Operator, clock: Callable[[], float]
) -> AsyncIterator[Cycle]:
    """A cycle that leads nobody: it observes and decides. `readings`: its signals and activations."""
    store = Store(objects, ["ml"], lambda: None)
    cycle = Cycle(lambda: None, store, readings, readings, cast(Any, None), operator, clock)
    task = asyncio.create_task(store.run())
    try:
        yield cycle
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    """The copies need some turns of the loop; 20 s is a hang."""
    for _ in range(20_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come to that within 20 s")
