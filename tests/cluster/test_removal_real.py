"""Revisions taken away on the real control plane: with which deletions, in which order, and by whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.client import JSON, KubernetesClient, connect
from autoscaler.cluster.errors import Conflict, Foreign
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.removal import Removal
from autoscaler.cluster.resources import PODS, Pod, Scalable
from autoscaler.cluster.scalable import Kind, render
from autoscaler.cluster.workloads import deployment, leaderworkerset
from rollouts.observed import ObservedRevision
from tests.realcluster import lws as leaderworkersets
from tests.realcluster.cluster import Cluster
from tests.realcluster.waiting import wait_for_async

NAME = "llama-1"
OWN_GRACE_S = 300
# the pods' own time is taken in full, and they never become ready
FAKE = {"pod-delete.stage.kwok.x-k8s.io/graceful": "true", "pod-ready.stage.kwok.x-k8s.io/delay": "24h"}
KINDS = pytest.mark.parametrize("kind", [deployment.KIND, leaderworkerset.KIND], ids=lambda kind: kind.field)


def template(ready: bool) -> dict[str, Any]:
    fake = FAKE if not ready else {key: value for key, value in FAKE.items() if "delete" in key}
    spec = {"terminationGracePeriodSeconds": OWN_GRACE_S, "containers": [{"name": "engine", "image": "none"}]}
    return {"metadata": {"annotations": fake}, "spec": spec}


@dataclass
class Recorded:
    """A client that notes what the server deleted for it."""

    api: KubernetesClient
    deleted: list[tuple[str, Any]] = field(default_factory=list)  # path, options

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        answer = await self.api.call(method, path, params=params, body=body, content_type=content_type)
        if method == "DELETE":
            self.deleted.append((path, body))
        return answer

    def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        return self.api.stream(path, params, silence_s)


class Revision:
    """One revision's object, and one leader's way to take it away. What it knows is what it saw when it looked."""

    def __init__(self, client: KubernetesClient, cluster: Cluster, namespace: str, kind: Kind, ready: bool = False):
        self.client, self.cluster, self.namespace, self.kind = client, cluster, namespace, kind
        self._path = kind.resource.path(namespace, NAME)
        body = {"metadata": {"name": "llama", "namespace": namespace, "uid": "u"}}
        self.workload = msgspec.convert(body, InferenceWorkload)
        groups = {"size": 2, "workerTemplate": template(ready)}
        content = {"template": template(ready)} if kind is deployment.KIND else groups
        rendered = render(kind, self.workload, NAME, {kind.field: content}, 2, True, 1, ("default", {}))
        self._whole = 2 if kind is deployment.KIND else 4
        self.there: Scalable | None = None
        self.pods: list[Pod] = []
        cluster.create(kind.resource.path(namespace), rendered)

    def look(self) -> ObservedRevision:
        status, body = self.cluster.request("GET", self._path)
        self.there = msgspec.json.decode(msgspec.json.encode(body), type=Scalable) if status == 200 else None
        self.pods = self.real_pods()
        return self.kind.observe(NAME, self.there, self.pods)

    def real_pods(self) -> list[Pod]:
        listed = self.cluster.get(f"{PODS.path(self.namespace)}?labelSelector=tidegate.dev/owner-revision={NAME}")
        return msgspec.convert(listed["items"], list[Pod])

    def exists(self) -> bool:
        return self.cluster.request("GET", self._path)[0] == 200

    def placed(self) -> None:
        """Every pod is on a node and was begun: the kubelet, not the API server, ends it."""

        def all_begun() -> bool:
            pods = self.real_pods()
            return len(pods) == self._whole and all(each.status.pod_ip for each in pods)

        self.cluster.wait_for(all_begun, "all pods to be begun", 60)

    def removal(self, epoch: int = 1) -> tuple[Removal, Recorded]:
        api = Recorded(self.client)
        wrote = self._wrote
        removal = Removal(
            api, self.workload, lambda _: self.kind, lambda _: self.there, lambda _: self.pods, epoch, wrote
        )
        return removal, api

    def _wrote(self, kind: Kind, there: Scalable) -> None:
        assert kind is self.kind
        self.there = there

    def scale(self, count: int) -> None:
        merge = "application/merge-patch+json"
        body = {"spec": {"replicas": count}}
        assert self.cluster.request("PATCH", f"{self._path}/scale", body, content_type=merge)[0] == 200

    def stamp(self, epoch: int) -> None:
        body = {"metadata": {"annotations": {"tidegate.dev/epoch": str(epoch)}}}
        merge = "application/merge-patch+json"
        assert self.cluster.request("PATCH", self._path, body, content_type=merge)[0] == 200


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubernetesClient]:
    made = await connect(cluster.kubeconfig)
    yield made
    await made.close()


@pytest.fixture
def make(lws: Cluster, client: KubernetesClient, namespace: str) -> Callable[..., Revision]:
    def made(kind: Kind, ready: bool = False) -> Revision:
        return Revision(client, lws, namespace, kind, ready)

    return made


@KINDS
async def test_what_never_served_goes_at_once_and_its_object_last(make: Callable[..., Revision], kind: Kind) -> None:
    revision = make(kind)
    await asyncio.to_thread(revision.placed)
    await asyncio.to_thread(leaderworkersets.await_collector, revision.cluster)
    seen = revision.look()
    assert (seen.ready, seen.starting, seen.serving) == (0, 2, frozenset())
    first = {each.metadata.uid for each in revision.pods}
    removal, api = revision.removal()
    began = last_pod = time.monotonic()
    await removal.delete(NAME, immediate=True)
    assert [(path.rpartition("/")[2], options["propagationPolicy"]) for path, options in api.deleted] == [
        (NAME, "Foreground")
    ], "nobody was waited for, and no controller is given a reason to make another pod"

    met: set[str] = set()
    while await asyncio.to_thread(revision.exists):
        await asyncio.to_thread(revision.look)
        met |= {each.metadata.uid for each in revision.pods}
        last_pod = time.monotonic() if revision.pods else last_pod
        await removal.delete(NAME, immediate=True)
        assert time.monotonic() - began < OWN_GRACE_S / 5, [each.metadata for each in revision.pods]
        await asyncio.sleep(0.2)
    assert not revision.real_pods(), "the object went before its pods"
    assert met <= first, "no pod was replaced"
    (_, *of_pods) = [options for _, options in api.deleted]
    assert all(options["gracePeriodSeconds"] == 5 and options["preconditions"]["uid"] in first for options in of_pods)
    assert {path.rpartition("/")[0] for path, _ in api.deleted[1:]} == {PODS.path(revision.namespace)}
    print(f"\n{kind.field}: {len(of_pods)} pods shortened, the last one gone after {last_pod - began:.1f} s")
    revision.look()
    await removal.delete(NAME, immediate=True)
    await removal.delete(NAME, immediate=False)  # what is gone is no error
    assert revision.look().gone


@KINDS
async def test_what_served_ends_in_its_own_time(make: Callable[..., Revision], kind: Kind) -> None:
    revision = make(kind, ready=True)
    await asyncio.to_thread(revision.placed)
    await wait_for_async(lambda: revision.look().ready == 2, "two ready replicas", 60)
    assert len(revision.look().serving) == 2
    removal, api = revision.removal()
    await removal.delete(NAME, immediate=False)
    assert [path.rpartition("/")[2] for path, _ in api.deleted] == [NAME]
    assert revision.there is not None
    assert revision.there.metadata.deletion_timestamp
    await removal.delete(NAME, immediate=False)  # the answer was taken: nothing more is sent
    assert len(api.deleted) == 1

    def all_end() -> bool:
        return all(each.metadata.deletion_timestamp for each in revision.real_pods())

    await wait_for_async(all_end, "every pod to be asked to end", 60)
    seen = revision.look()
    graces = {each.metadata.deletion_grace_period_seconds for each in revision.pods}
    assert (graces, seen.replicas, seen.terminating, seen.gone) == ({OWN_GRACE_S}, 2, 2, False)
    await removal.delete(NAME, immediate=True)  # a later word may shorten it
    await wait_for_async(lambda: not revision.exists(), "the object to go", 60)


@KINDS
async def test_a_late_deletion_of_an_earlier_leader_meets_the_stamp(make: Callable[..., Revision], kind: Kind) -> None:
    revision = make(kind)
    await asyncio.to_thread(revision.placed)
    revision.look()
    late, api = revision.removal(epoch=1)
    assert revision.there is not None
    meta = revision.there.metadata
    revision.stamp(2)
    preconditions = {"uid": meta.uid, "resourceVersion": meta.resource_version}
    body = {"propagationPolicy": "Foreground", "preconditions": preconditions}
    path = kind.resource.path(revision.namespace, NAME)
    status, answer = await asyncio.to_thread(revision.cluster.request, "DELETE", path, body)  # as it was sent
    assert (status, answer["reason"]) == (409, "Conflict")
    with pytest.raises(Conflict, match="does not carry the stamp of this leader"):
        await late.delete(NAME, immediate=True)  # it looks again, and finds the stamp
    assert not api.deleted
    assert not any(each.metadata.deletion_timestamp for each in revision.real_pods())
    revision.look()
    assert revision.there.metadata.deletion_timestamp is None
    present, _ = revision.removal(epoch=2)
    await present.delete(NAME, immediate=True)
    assert revision.there.metadata.deletion_timestamp


async def test_an_object_that_was_made_anew_is_not_taken_for_the_one_before(make: Callable[..., Revision]) -> None:
    revision = make(deployment.KIND)
    await asyncio.to_thread(revision.placed)
    revision.look()
    removal, api = revision.removal()
    revision.there = None  # the copy does not know the object yet, and knows its pods
    with pytest.raises(Conflict, match="is there, and was not"):
        await removal.delete(NAME, immediate=True)
    assert not api.deleted


async def test_what_is_somebody_else_s_stays(make: Callable[..., Revision]) -> None:
    revision = make(deployment.KIND)
    await asyncio.to_thread(revision.placed)
    label = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm", "tidegate.dev/workload": "other"}}}
    merge = "application/merge-patch+json"
    path = deployment.KIND.resource.path(revision.namespace, NAME)
    assert revision.cluster.request("PATCH", path, label, content_type=merge)[0] == 200
    revision.look()
    removal, api = revision.removal()
    with pytest.raises(Foreign):
        await removal.delete(NAME, immediate=True)
    assert not api.deleted


async def test_pods_that_the_object_left_behind_are_shortened(make: Callable[..., Revision]) -> None:
    """Somebody deleted the object in the background: its pods end in their own time, unless they never served."""
    revision = make(deployment.KIND)
    await asyncio.to_thread(revision.placed)
    revision.cluster.kubectl("-n", revision.namespace, "delete", "deployment", NAME, "--cascade=background")

    def left_behind() -> bool:
        revision.look()
        ending = [each.metadata.deletion_grace_period_seconds for each in revision.pods]
        return revision.there is None and ending == [OWN_GRACE_S] * 2

    await wait_for_async(left_behind, "pods that end without their object", 60)
    seen = revision.look()
    assert (seen.replicas, seen.terminating, seen.settled, seen.gone) == (None, 2, False, False)
    removal, api = revision.removal()
    await removal.delete(NAME, immediate=True)
    assert {options["gracePeriodSeconds"] for _, options in api.deleted} == {5}
    revision.look()
    await removal.delete(NAME, immediate=True)
    assert len(api.deleted) == 2, "those that end soon are left alone"
    await wait_for_async(lambda: not revision.real_pods(), "the pods to go", 60)
    assert revision.look().gone


@KINDS
async def test_after_a_count_was_written_nothing_is_settled_until_pods_and_controller_agree(
    fresh_cluster: Cluster, kind: Kind
) -> None:
    leaderworkersets.start(fresh_cluster)
    namespace = fresh_cluster.create_namespace("settled")
    client = await connect(fresh_cluster.kubeconfig)
    try:
        revision = Revision(client, fresh_cluster, namespace, kind, ready=True)
        await wait_for_async(lambda: revision.look().ready == 2, "two ready replicas", 60)
        await wait_for_async(lambda: revision.look().settled, "the first pods to be told", 60)
        controller = "kube-controller-manager" if kind is deployment.KIND else leaderworkersets.NAME
        for count in (4, 1):
            fresh_cluster.pause(controller)
            revision.scale(count)
            seen = revision.look()
            assert (seen.replicas, seen.settled) == (count, False), "its controller has not seen the count"
            fresh_cluster.resume(controller)
            await wait_for_async(lambda: revision.look().settled, f"{count} replicas to be settled", 60)
            seen = revision.look()
            assert (seen.replicas, seen.ready + seen.starting) == (count, count)
        assert seen.terminating == 3, "they have 300 s, and hold their GPUs as long"
    finally:
        await client.close()


@KINDS
def test_a_pod_that_is_not_seen_yet_or_not_any_more_settles_nothing(kind: Kind) -> None:
    leader = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}
    pods = [
        msgspec.convert(
            {"metadata": {"name": str(at), "labels": leader | {"leaderworkerset.sigs.k8s.io/group-index": str(at)}}},
            Pod,
        )
        for at in range(3)
    ]

    def settled(spec: int, status: int, seen: int, observed: int | None = 5) -> bool:
        told = {"replicas": status, "observedGeneration": observed}
        body = {"metadata": {"generation": 5}, "spec": {"replicas": spec}, "status": told}
        return kind.observe(NAME, msgspec.convert(body, Scalable), pods[:seen]).settled

    assert settled(spec=3, status=3, seen=3)
    assert settled(spec=3, status=3, seen=3, observed=None), "an older LeaderWorkerSet does not tell it"
    assert not settled(spec=3, status=3, seen=2), "one more is there than is seen"
    assert not settled(spec=2, status=3, seen=3), "one is to go"
    assert not settled(spec=2, status=2, seen=3), "one is seen that goes already"
    assert not settled(spec=3, status=3, seen=3, observed=4)
    assert kind.observe(NAME, None, []).settled
    assert not kind.observe(NAME, None, pods).settled
