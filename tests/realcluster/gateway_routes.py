"""HTTPRoutes for tests of the real Gateway: made with a named rule, changed by a hand, and what their status says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError
from tests.realcluster.gateway import Gateway

API: Final = "gateway.networking.k8s.io/v1"
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
RULE: Final = "serving"
PORT: Final = 8000


def rule(weights: Mapping[str, int], name: str | None = RULE, timeout: str | None = None, path: str = "/") -> Any:
    """A rule that splits by these weights of Services; everything else as the API server defaults it."""
    refs = [{"name": service, "port": PORT, "weight": weight} for service, weight in weights.items()]
    matches = [{"path": {"type": "PathPrefix", "value": path}}]
    named = {"name": name} if name else {}
    timeouts = {"timeouts": {"request": timeout}} if timeout else {}
    return {**named, **timeouts, "matches": matches, "backendRefs": refs}


class Route:
    """One HTTPRoute, for its own host."""

    def __init__(self, gateway: Gateway, namespace: str, name: str, rules: Sequence[Mapping[str, Any]]) -> None:
        """Creates it; returns before anybody has taken it."""
        self.cluster: Cluster = gateway.cluster
        self.gateway = gateway
        self.name = name
        self.host = f"{name}.{namespace}.test"
        self.path = f"/apis/{API}/namespaces/{namespace}/httproutes/{name}"
        spec = {"parentRefs": [gateway.parent], "hostnames": [self.host], "rules": list(rules)}
        body = {"apiVersion": API, "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec}
        self.cluster.create(self.path.rpartition("/")[0], body)

    def get(self) -> dict[str, Any]:
        return self.cluster.get(self.path)

    def weights(self, at: int = 0) -> dict[str, int]:
        """Of the rule at that place."""
        return {ref["name"]: ref["weight"] for ref in self.get()["spec"]["rules"][at]["backendRefs"]}

    def patch(self, body: object, content_type: str = MERGE_PATCH, manager: str = "kubectl-edit") -> dict[str, Any]:
        """As somebody else."""
        path = f"{self.path}?fieldManager={manager}"
        status, answer = self.cluster.request("PATCH", path, body, content_type=content_type)
        if status != 200:
            raise ClusterError(f"PATCH {path}: {status} {answer.get('message', answer)}")
        return answer

    def set_weights(self, *weights: int) -> dict[str, Any]:
        """Of the first rule, in the order of its backends, as somebody else."""
        path = "/spec/rules/0/backendRefs/{}/weight"
        edits = [{"op": "replace", "path": path.format(at), "value": weight} for at, weight in enumerate(weights)]
        return self.patch(edits, JSON_PATCH)

    def conditions(self) -> dict[str, tuple[str, str, int]]:
        """Status, reason and observed generation by type, as the Gateway says them; empty before it does."""
        parents = self.get().get("status", {}).get("parents", ())
        return {
            each["type"]: (each["status"], each["reason"], each["observedGeneration"])
            for parent in parents
            for each in parent["conditions"]
        }

    def accepted(self) -> bool:
        """At its present generation."""
        body = self.get()
        wanted = ("True", body["metadata"]["generation"])
        seen = {kind: (status, at) for kind, (status, _, at) in self.conditions().items()}
        return seen.get("Accepted") == wanted and seen.get("ResolvedRefs") == wanted

    def wait_accepted(self) -> None:
        self.cluster.wait_for(self.accepted, f"HTTPRoute {self.name} to be accepted")
