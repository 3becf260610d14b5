"""An imitation of KubeApi: objects that a test puts are listed, watched and scaled as the real server would.

For what needs no real server: a store that follows many objects through many steps, without a process beside it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from autoscaler.cluster.errors import NotFound
from tests.cluster.fakeapi import line

Object = dict[str, Any]


class Objects:
    """By the path of their kind in their namespace, e.g. "/apis/apps/v1/namespaces/ml/deployments"."""

    def __init__(self) -> None:
        self.version = 1
        self.written: list[tuple[str, str, Any]] = []  # method, path, body
        self._kinds: dict[str, dict[str, Object]] = {}
        self._scales: dict[str, Object] = {}
        self._watches: list[tuple[str, asyncio.Queue[bytes]]] = []

    def put(self, kind: str, name: str, body: Mapping[str, Any], scale: Mapping[str, Any] | None = None) -> None:
        """Makes or changes it; `scale`: spec and status of its scale. The generation grows with the spec."""
        self.version += 1
        there = self._kinds.setdefault(kind, {})
        known = there.get(name)
        generation = known["metadata"]["generation"] if known else 0
        if known is None or known.get("spec") != body.get("spec") or scale is not None:
            generation += 1
        meta = {"name": name, "namespace": "ml", "uid": f"uid-{name}", "resourceVersion": str(self.version)}
        item = {**body, "metadata": {**body.get("metadata", {}), **meta, "generation": generation}}
        there[name] = item
        if scale is not None:
            self._scales[f"{kind}/{name}/scale"] = {"metadata": item["metadata"], **scale}
        self._tell(kind, "MODIFIED" if known else "ADDED", item)

    def delete(self, kind: str, name: str) -> None:
        self.version += 1
        gone = self._kinds[kind].pop(name)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._scales.pop(f"{kind}/{name}/scale", None)
        self._tell(kind, "DELETED", gone)

    def names(self, kind: str) -> set[str]:
        return set(self._kinds.get(kind, {}))

    def _tell(self, kind: str, what: str, item: Object) -> None:
        for path, queue in self._watches:
            if path == kind:
                queue.put_nowait(line(what, item))

    async def call(self, method: str, path: str, *, body: object = None, **others: object) -> bytes:
        if method != "GET":
            self.written.append((method, path, body))
        if path.endswith("/scale"):
            if path not in self._scales:
                raise NotFound("no such thing", 404, "")
            scale = self._scales[path]
            if method == "PATCH":
                assert isinstance(body, Mapping)
                kind, name, _ = path.rsplit("/", 2)
                self.put(kind, name, self._kinds[kind][name], {**scale, "spec": body["spec"]})
            return json.dumps(self._scales[path]).encode()
        items = list(self._kinds.get(path, {}).values())
        return json.dumps({"metadata": {"resourceVersion": str(self.version)}, "items": items}).encode()

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._watches.append((path, queue))
        yield b""
        while True:
            yield await queue.get()
