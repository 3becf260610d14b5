"""Takes a revision's object away with its pods.

The object goes last (foreground deletion): as long as it is there, so may its pods be, and each pod holds its GPUs. Its
deletion names the version that was looked at, so one that an earlier leader sent meets the stamp of a later one.

The garbage collector then deletes all pods at once, from the object down, with the grace that their template gives. For
what never served that is too long: as soon as pods end, theirs is shortened to 5 s from when they began to. None is
deleted before that, or its controller would make another; a group would even lose its leader before its workers, and
the object would not wait for those. So this is asked for again until all is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import Conflict, NotFound
from autoscaler.cluster.fencing import epoch_of
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.owner import check_owned
from autoscaler.cluster.resources import PODS, WORKLOAD_LABEL, Pod, Scalable
from autoscaler.cluster.scalable import Kind

DELETE_TRIES: Final = 3  # its controller writes the status under us
GRACE_MOST_S: Final = 5
GRACE_LEAST_S: Final = 1  # with 0 the API server forgets a pod whose containers may still run


class Removal:
    """The driver's port `Removal` for one workload."""

    def __init__(
        self,
        api: KubeApi,
        workload: InferenceWorkload,
        kind_of: Callable[[str], Kind],
        observed: Callable[[str], Scalable | None],
        pods: Callable[[str], Sequence[Pod]],
        epoch: int,
        wrote: Callable[[Kind, Scalable], None],
    ) -> None:
        """By the name of a revision: `kind_of`, and the object and the pods as they are known now. `epoch` is the
        present leader's; `wrote` is given the object as it goes."""
        self._api = api
        self._workload = workload
        self._kind_of = kind_of
        self._observed = observed
        self._pods = pods
        self._epoch = epoch
        self._wrote = wrote

    async def delete(self, revision: str, immediate: bool) -> None:
        known = self._pods(revision) if immediate else ()  # before the object is looked at: none of a later one
        pods = [each for each in known if self._ours(each) and not goes_soon(each)]
        kind, there = self._kind_of(revision), self._observed(revision)
        if there is None:
            if pods:
                await self._check_gone(kind, revision)
        else:
            if not there.metadata.deletion_timestamp:
                await self._delete_object(kind, there)
            pods = [each for each in pods if each.metadata.deletion_timestamp]
        for outcome in await asyncio.gather(*map(self._delete_pod, pods), return_exceptions=True):
            if outcome is not None:  # all have been tried
                raise outcome

    async def _check_gone(self, kind: Kind, revision: str) -> None:
        there = await self._read(kind, revision)
        if there is not None and not there.metadata.deletion_timestamp:
            raise Conflict(f"{kind.resource.kind} {revision} is there, and was not when it was looked at")

    async def _delete_object(self, kind: Kind, there: Scalable) -> None:
        """For the version that was looked at; where it changed since, only if it is still this leader's to delete."""
        name, uid = there.metadata.name, there.metadata.uid
        path = kind.resource.path(self._workload.metadata.namespace, name)
        latest: Scalable | None = there
        for _ in range(DELETE_TRIES):
            if latest is None or (latest.metadata.uid == uid and latest.metadata.deletion_timestamp):
                return
            check_owned(self._workload, latest.metadata, kind.resource.kind)
            if latest.metadata.uid != uid or epoch_of(latest.metadata) != self._epoch:
                raise Conflict(f"{kind.resource.kind} {name} does not carry the stamp of this leader")
            preconditions = {"uid": uid, "resourceVersion": latest.metadata.resource_version}
            body = {"propagationPolicy": "Foreground", "preconditions": preconditions}
            try:
                answer = await self._api.call("DELETE", path, body=body)
            except NotFound:
                return
            except Conflict:
                latest = await self._read(kind, name)
                continue
            left = msgspec.json.decode(answer, type=Scalable)
            if left.metadata.uid == uid:  # else it went at once, and the answer is no object
                self._wrote(kind, left)
            return
        raise Conflict(f"{kind.resource.kind} {name} changed {DELETE_TRIES} times under its deletion")

    async def _read(self, kind: Kind, name: str) -> Scalable | None:
        path = kind.resource.path(self._workload.metadata.namespace, name)
        try:
            return msgspec.json.decode(await self._api.call("GET", path), type=Scalable)
        except NotFound:
            return None

    def _ours(self, pod: Pod) -> bool:
        return (pod.metadata.labels or {}).get(WORKLOAD_LABEL) == self._workload.metadata.name

    async def _delete_pod(self, pod: Pod) -> None:
        """A pod of that name with another uid is another one: a StatefulSet uses names again."""
        body = {"gracePeriodSeconds": grace_s(pod), "preconditions": {"uid": pod.metadata.uid}}
        with contextlib.suppress(NotFound, Conflict):
            await self._api.call("DELETE", PODS.path(pod.metadata.namespace, pod.metadata.name), body=body)


def grace_s(pod: Pod) -> int:
    """What a pod that never served gets to end in: its own time, within bounds."""
    own = pod.spec.termination_grace_period_seconds
    return GRACE_MOST_S if own is None else min(GRACE_MOST_S, max(GRACE_LEAST_S, own))


def goes_soon(pod: Pod) -> bool:
    """Is it being deleted, with no more grace than we would give it?"""
    left = pod.metadata.deletion_grace_period_seconds
    return pod.metadata.deletion_timestamp is not None and left is not None and left <= GRACE_MOST_S
