"""HTTPRoutes of the matrix, and an imitation of the gateway that takes them: there is no proxy behind it.

What a real Envoy Gateway says of a route is in tests/cluster/test_gatewayapi_real.py.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from tests.crash.world import PATHS, Object, World
from tests.e2e.workload import PORT
from tests.realcluster.cluster import Cluster

PARENT: Final = {"name": "imitated"}  # no such Gateway exists; no controller but ours looks at the route
EVERY_S: Final = 0.05
MERGE_PATCH: Final = "application/merge-patch+json"


def body(workload: str) -> Object:
    """A route of the workload's name whose one rule splits between its two Services."""
    shares = {workload: 100, f"{workload}-update": 0}
    refs = [{"name": service, "port": PORT, "weight": weight} for service, weight in shares.items()]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": workload},
        "spec": {"parentRefs": [PARENT], "rules": [{"name": "serving", "backendRefs": refs}]},
    }


def weights(route: Object) -> list[int]:
    """Of `<service>` and `<service>-update`."""
    return [each["weight"] for each in route["spec"]["rules"][0]["backendRefs"]]


def accepted(route: Object) -> bool:
    """By the imitated gateway, at its present generation."""
    parents = route.get("status", {}).get("parents", ())
    told = [each["observedGeneration"] for parent in parents for each in parent["conditions"]]
    return bool(told) and set(told) == {route["metadata"]["generation"]}


class ImitatedGateway:
    """Accepts every route of one namespace at every generation, as a gateway's controller does in its status."""

    def __init__(self, cluster: Cluster, world: World) -> None:
        self._cluster = cluster
        self._world = world
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imitated-gateway", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join(40)

    def _run(self) -> None:
        while not self._ends.wait(EVERY_S):
            for route in self._world.objects("HTTPRoute"):
                if not accepted(route):
                    self._accept(route)

    def _accept(self, route: Object) -> None:
        """What is gone meanwhile, or changed again, is looked at again."""
        path = f"{PATHS['HTTPRoute'].format(self._world.namespace)}/{route['metadata']['name']}/status"
        version = {"resourceVersion": route["metadata"]["resourceVersion"]}
        status = {"parents": [_parent(route["metadata"]["generation"])]}
        self._cluster.request("PATCH", path, {"metadata": version, "status": status}, content_type=MERGE_PATCH)


def _parent(generation: int) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": kind,
            "message": "imitated",
            "observedGeneration": generation,
            "lastTransitionTime": now,
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]
    return {"parentRef": PARENT, "controllerName": "tidegate.dev/imitated-gateway", "conditions": conditions}
