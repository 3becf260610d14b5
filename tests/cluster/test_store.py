"""The store's indexes say what grouping all objects anew would say, whatever happened to the copy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cluster.resources import OWNER_REVISION_LABEL, WORKLOAD_LABEL
from autoscaler.cluster.store import Index, Store
from tests import virtual_time
from tests.cluster.fakeapi import line

NAMESPACES = ("one", "two")
Change = tuple[str, str, str, str | None]  # what happens, to which object, where, under which label


class ScriptedApi:
    """An imitation of KubeApi: the objects of one plural, by (namespace, name); watches end after the changes."""

    def __init__(self, plural: str, label: str, changes: Sequence[Change]) -> None:
        self._suffix = f"/{plural}"
        self._label = label
        self._changes = iter(changes)
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._version = 1
        self.done = asyncio.Event()

    async def call(self, method: str, path: str, **others: object) -> bytes:
        items = list(self._objects.values()) if path.endswith(self._suffix) else []
        return msgspec.json.encode({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        yield b""
        if path.endswith(self._suffix):
            for change in self._changes:
                self._version += 1
                if change[0] == "relist":
                    # what changed since the version of this watch is only in the list
                    self._apply(change)
                    yield line("ERROR", {"code": 410})
                    return
                yield self._apply(change)
            self.done.set()
        await asyncio.Event().wait()

    def _apply(self, change: Change) -> bytes:
        what, name, namespace, value = change
        known = self._objects.pop((namespace, name), None)
        labels = {} if value is None else {self._label: value}
        metadata = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": str(self._version)}
        item = {"metadata": {**metadata, "labels": labels}}
        if what == "delete" or (what == "relist" and known):
            return line("DELETED", item)
        self._objects[(namespace, name)] = item
        return line("MODIFIED" if known else "ADDED", item)


changes = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "delete", "relist"]),
        st.sampled_from("abcd"),
        st.sampled_from(NAMESPACES),
        st.sampled_from(["x", "y", None]),
    ),
    max_size=12,
)


async def followed(plural: str, label: str, script: Sequence[Change]) -> Store:
    """A store after these changes."""
    api = ScriptedApi(plural, label, script)
    store = Store(api, (), lambda: None)
    running = asyncio.create_task(store.run())
    await api.done.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return store


@settings(deadline=None)  # a busy machine is no failure
@given(changes)
def test_pods_by_revision_is_what_regrouping_says(script: list[Change]) -> None:
    store = virtual_time.run(followed("pods", OWNER_REVISION_LABEL, script))
    regrouped: dict[tuple[str, str], dict[str, Any]] = {}
    for pod in store.pods.every():
        revision = (pod.metadata.labels or {}).get(OWNER_REVISION_LABEL, "")
        regrouped.setdefault((pod.metadata.namespace, revision), {})[pod.metadata.name] = pod
    indexed = {key: {pod.metadata.name: pod for pod in pods} for key, pods in store.pods_by_revision().items()}
    assert indexed == regrouped
    assert len(store.pods_by_revision()) == len(regrouped)


@settings(deadline=None)  # a busy machine is no failure
@given(changes)
def test_revisions_by_workload_is_what_regrouping_says(script: list[Change]) -> None:
    store = virtual_time.run(followed("controllerrevisions", WORKLOAD_LABEL, script))
    regrouped: dict[tuple[str, str], dict[str, Any]] = {}
    for revision in store.revisions.every():
        workload = (revision.metadata.labels or {}).get(WORKLOAD_LABEL, "")
        regrouped.setdefault((revision.metadata.namespace, workload), {})[revision.metadata.name] = revision
    assert dict(store.revisions_by_workload()) == regrouped


def test_a_group_belongs_to_who_asked_for_it() -> None:
    store = virtual_time.run(followed("pods", OWNER_REVISION_LABEL, [("put", "a", "one", "x")]))
    store.pods_by_revision()[("one", "x")].clear()
    assert [pod.metadata.name for pod in store.pods_by_revision()[("one", "x")]] == ["a"]


def test_an_index_has_no_empty_groups() -> None:
    script: list[Change] = [("put", "a", "one", "x"), ("put", "a", "one", "y"), ("delete", "a", "one", None)]
    store = virtual_time.run(followed("pods", OWNER_REVISION_LABEL, script))
    assert isinstance(store.pods_by_revision(), Index)
    assert store.pods_by_revision() == {}
