"""Objects of others: followed while they are named, and every way in which one cannot be scaled has its sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from autoscaler.cluster import targets as module
from autoscaler.cluster.errors import Conflict
from autoscaler.cluster.resources import Resource
from autoscaler.cluster.targets import SeenTarget, Targets, Unseen
from autoscaler.cluster.watch import Outages
from autoscaler.cluster.workloads.scaletarget import TargetScale
from autoscaler.model.workload import TargetSpec
from tests.cluster.objects import Objects

SETS = "/apis/apps/v1/namespaces/ml/statefulsets"
PODS = "/api/v1/namespaces/ml/pods"
LLAMA = TargetSpec("apps/v1", "statefulsets", "StatefulSet", "llama")
Scale = dict[str, Any]


def scale(replicas: int, selector: str = "app=llama") -> Scale:
    return {"spec": {"replicas": replicas} if replicas else {}, "status": {"selector": selector}}


def pod(app: str = "llama", gpus: str = "1") -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": gpus}}}]},
    }


def following(test: Callable[[Objects, Targets], Awaitable[None]]) -> None:
    async def run() -> None:
        objects = Objects()
        targets = Targets(objects, Outages())
        task = asyncio.create_task(targets.run())
        try:
            await test(objects, targets)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


async def until(found: Callable[[], object]) -> Any:
    """The copies need some turns of the loop; 20 s is a hang."""
    for _ in range(2_000):
        if value := found():
            return value
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that within 20 s")


async def seen(targets: Targets, target: TargetSpec = LLAMA) -> SeenTarget:
    found = await until(lambda: targets.find("ml", target))
    assert isinstance(found, SeenTarget), found
    return found


async def unseen(targets: Targets, target: TargetSpec = LLAMA) -> str:
    found = await until(lambda: targets.find("ml", target))
    assert isinstance(found, Unseen), found
    return found.message


def names(targets: Targets, selector: str = "app=llama") -> list[str]:
    return [each.metadata.name for each in targets.pods("ml", selector)]


def test_the_count_is_the_scales_and_the_pods_are_those_that_its_selector_finds() -> None:
    async def test(objects: Objects, targets: Targets) -> None:
        objects.put(SETS, "llama", {"spec": {"howMany": 3}}, scale(3))
        objects.put(PODS, "llama-0", pod(gpus="2"))
        objects.put(PODS, "stranger", pod("other"))
        found = await seen(targets)
        assert (found.there.spec.replicas, found.selector) == (3, "app=llama")
        assert names(targets) == ["llama-0"]
        assert targets.pods("ml", "app=llama")[0].demand == {"nvidia.com/gpu": 2000}

        objects.put(PODS, "llama-1", pod())
        objects.put(PODS, "stranger", pod())  # relabelled
        await until(lambda: names(targets) == ["llama-0", "llama-1", "stranger"])
        objects.delete(PODS, "llama-0")
        objects.put(PODS, "stranger", pod("other"))
        await until(lambda: names(targets) == ["llama-1"])
        objects.put(SETS, "llama", {"spec": {"howMany": 0}}, scale(0))
        await until(lambda: targets.find("ml", LLAMA).there.spec.replicas == 0)  # type: ignore[union-attr]

    following(test)


def test_each_reason_why_nothing_can_be_scaled_is_a_sentence_and_passes() -> None:
    async def test(objects: Objects, targets: Targets) -> None:
        assert await unseen(targets) == (
            "StatefulSet llama does not exist in namespace ml: create it, or name another one in spec.serving.targetRef"
        )
        objects.put(SETS, "llama", {"spec": {}})
        await until(lambda: "has no scale subresource" in str(targets.find("ml", LLAMA)))
        objects.put(SETS, "llama", {"spec": {}}, scale(1, selector=""))
        await until(lambda: "tells no selector in the status" in str(targets.find("ml", LLAMA)))
        objects.put(SETS, "llama", {"spec": {}}, scale(1))
        await until(lambda: isinstance(targets.find("ml", LLAMA), SeenTarget))
        objects.delete(SETS, "llama")
        await until(lambda: "does not exist" in str(targets.find("ml", LLAMA)))

    following(test)


def test_what_nobody_names_any_more_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(objects: Objects, targets: Targets) -> None:
        objects.put(SETS, "llama", {"spec": {}}, scale(1))
        await seen(targets)
        targets.keep([("ml", LLAMA)])
        await seen(targets)
        targets.keep([])
        await until(lambda: not targets._tasks)
        assert targets.find("ml", LLAMA) is None, "asked again, it is read again"
        monkeypatch.setattr(module, "COPIES_MOST", 2)
        other = TargetSpec("apps/v1", "deployments", "Deployment", "llama")
        assert "more than 2 namespaces and kinds" in await unseen(targets, other)
        await seen(targets)

    following(test)


def test_a_count_is_written_with_uid_and_version_and_only_where_it_is_what_was_seen() -> None:
    async def test(objects: Objects, targets: Targets) -> None:
        objects.put(SETS, "llama", {"spec": {}}, scale(2))
        found = await seen(targets)
        version = str(objects.version)
        port = TargetScale(objects, Resource("apps/v1", "statefulsets", "StatefulSet"), found.there)
        await port.scale("statefulsets.apps/llama", 5, 2)
        meta = {"uid": "uid-llama", "resourceVersion": version}
        body = {"metadata": meta, "spec": {"replicas": 5}}
        assert objects.written == [("PATCH", f"{SETS}/llama/scale", body)]
        with pytest.raises(Conflict, match="StatefulSet llama has changed since it was looked at"):
            await port.scale("statefulsets.apps/llama", 4, 2)
        assert len(objects.written) == 1

    following(test)
