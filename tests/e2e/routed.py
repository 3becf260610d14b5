"""Workloads whose traffic a route of the real Gateway splits, and what the daemon wrote to that route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.e2e.behind import Behind
from tests.e2e.updating import KINDS, Body, rollout, update_of
from tests.e2e.workload import Workload
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy_rules import Exchange
from tests.realcluster.gateway import Gateway
from tests.realcluster.gateway_routes import RULE, Route, rule

TWO: Final = {"minReplicas": 2, "maxReplicas": 2}


def start(cluster: Cluster, namespace: str, body: Body) -> Workload:
    """Returns when it serves, and says so."""
    workload = KINDS["deployment"].start(cluster, namespace, body)
    cluster.wait_for(lambda: workload.status().get("phase") == "Running", f"{workload.name} to be Running")
    return workload


def refs(name: str, current: int = 100) -> dict[str, int]:
    """Weights of the two Services of a workload."""
    return {name: current, f"{name}-update": 100 - current}


def route_for(gateway: Gateway, namespace: str, name: str, timeout: str | None = "600s") -> Route:
    """As its owner keeps it in Git: everything to `<name>`."""
    return Route(gateway, namespace, name, [rule(refs(name), timeout=timeout)])


def routed(name: str, steps: list[dict[str, Any]], autoscaling: Mapping[str, Any] = TWO, **spec: Any) -> Body:
    """A workload for that route."""
    clocks = rollout(steps=steps, **spec.pop("rollout", {}))
    traffic = {"httpRoute": {"name": name, "ruleName": RULE}}
    return KINDS["deployment"].manifest(name, autoscaling, rollout=clocks, traffic=traffic, **spec)


def to_the_route(daemon: Behind, route: Route) -> list[Exchange]:
    """Every write to it that the API server took, oldest first."""
    return [
        each
        for each in daemon.proxy.exchanges()
        if each.is_write and each.path == route.path and each.server_status == 200
    ]


def weights_written(daemon: Behind, route: Route) -> list[int]:
    """The update's percentages, in their order."""
    return [percent for each in to_the_route(daemon, route) if (percent := percent_in(each)) is not None]


def percent_in(exchange: Exchange) -> int | None:
    """The update's percentage that a write of the daemon gives it; its backend is the rule's second."""
    body = exchange.json()
    edits = body if isinstance(body, list) else []
    found = [each["value"] for each in edits if each["op"] == "replace" and each["path"].endswith("/1/weight")]
    return found[0] if found else None


def wait_weight(workload: Workload, phase: str, percent: int, timeout_s: float = 60.0) -> dict[str, Any]:
    """The update's part of the record once it is in this phase with this weight proven."""

    def there() -> dict[str, Any] | None:
        found = update_of(workload)
        return found if (found.get("phase"), found.get("verified", 0)) == (phase, percent) else None

    what = f"the update of {workload.name} to be {phase} at {percent} %"
    found = workload.cluster.wait_for(there, what, timeout_s)
    assert found is not None
    return found
