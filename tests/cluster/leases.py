"""The API server's Leases in memory: versions, conflicts, and faults per client. For tests in virtual time only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoscaler.cluster.client import JSON
from autoscaler.cluster.errors import Conflict, NotFound, Unreachable


@dataclass
class LeaseServer:
    """One Lease, or none."""

    spec: dict[str, Any] | None = None
    version: int = 0
    uid: int = 0
    writes: int = 0

    def delete(self) -> None:
        self.spec = None

    def answer(self, method: str, body: Any) -> bytes:
        if method == "POST":
            if self.spec is not None:
                raise Conflict("exists", 409)
            self.spec, self.uid = {}, self.uid + 1
        elif self.spec is None:
            raise NotFound("none", 404)
        if method != "GET":
            self._write(method, body)
        metadata = {"name": "l", "uid": str(self.uid), "resourceVersion": str(self.version)}
        return json.dumps({"metadata": metadata, "spec": self.spec}).encode()

    def _write(self, method: str, body: Any) -> None:
        named = (body["metadata"].get("uid"), body["metadata"].get("resourceVersion"))
        if method == "PATCH" and named != (str(self.uid), str(self.version)):
            raise Conflict("changed", 409)
        assert self.spec is not None
        self.spec = {**self.spec, **body["spec"]}
        self.version += 1
        self.writes += 1


@dataclass
class Line:
    """One client's connection: `fault` is "", "refuse", "hang", "commit then hang" or "commit then refuse"."""

    server: LeaseServer
    fault: str = ""
    takes_s: float = 0.01
    calls: list[str] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        self.calls.append(method)
        await asyncio.sleep(self.takes_s)
        if self.fault.startswith("commit") or not self.fault:
            answer = self.server.answer(method, body)
        if self.fault.endswith("hang"):
            await asyncio.sleep(1e6)
        if self.fault:
            raise Unreachable("cut")
        return answer

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        yield b""
