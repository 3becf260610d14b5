"""Kind `targetRef`: an object that somebody else owns, of any kind that has a scale. Only its count is ours to write.

It is neither created nor annotated: operators copy annotations of their objects to pods, and a changed pod template
restarts what serves.
"""

from __future__ import annotations

from typing import Final

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.resources import Resource, Scalable
from autoscaler.cluster.scalable import Shape, is_ready, observe_pods, write_count


class TargetScale:
    """The driver's port `Scale` for a target."""

    def __init__(self, api: KubeApi, resource: Resource, there: Scalable) -> None:
        """`there`: the object as it was looked at."""
        self._api = api
        self._resource = resource
        self._meta = there.metadata

    async def scale(self, name: str, replicas: int, seen: int) -> None:
        """`name` is what the record knows the target by."""
        meta = self._meta
        await write_count(self._api, self._resource, meta.namespace, meta.name, meta.uid, replicas, seen)


PODS_SHAPE: Final = Shape(
    selector=lambda name, told: told,
    observe=observe_pods,
    serves=is_ready,
    replicas=lambda pods: [[pod] for pod in pods],
)
