"""HTTPRoutes as values, for tests of what is read from them and written to them."""

from __future__ import annotations

from typing import Any

import msgspec

from autoscaler.cluster.resources import HTTPRoute
from autoscaler.cluster.traffic.gatewayapi import RuleAddress

ADDRESS = RuleAddress("ml", "front", "serving", "llama", "llama-update")
GATEWAY = {"name": "gateway", "namespace": "infra"}


def ref(name: str, weight: int | None = None, **others: Any) -> dict[str, Any]:
    return {"name": name, "port": 8000, **({} if weight is None else {"weight": weight}), **others}


def serving(*weights: int, **others: Any) -> dict[str, Any]:
    """The rule that both Services stand in."""
    refs = [ref(name, weight) for name, weight in zip(("llama", "llama-update"), weights, strict=True)]
    return {"name": "serving", "backendRefs": refs, **others}


def told(generation: int, **statuses: str) -> list[dict[str, Any]]:
    """Conditions by type: Accepted="True"."""
    return [
        {"type": kind, "status": status, "reason": "R", "message": "M", "observedGeneration": generation}
        for kind, status in statuses.items()
    ]


GOOD = told(3, Accepted="True", ResolvedRefs="True")


def parent(conditions: list[dict[str, Any]], **reference: Any) -> dict[str, Any]:
    return {"parentRef": {**GATEWAY, **reference}, "controllerName": "x", "conditions": conditions}


def owner(manager: str, operation: str, fields: Any, at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "time": at, "fieldsV1": fields}


RULES: dict[str, Any] = {"f:spec": {"f:rules": {}}}


def route(*rules: dict[str, Any], **others: Any) -> HTTPRoute:
    """Of generation 3, accepted, unless others say otherwise: `parents`, `parent_refs`, `managed`, `annotations`."""
    body = {
        "metadata": {
            "name": "front",
            "namespace": "ml",
            "uid": "u1",
            "resourceVersion": "41",
            "generation": 3,
            "annotations": others.get("annotations"),
            "managedFields": others.get("managed", [owner("kubectl-create", "Update", RULES)]),
        },
        "spec": {"parentRefs": others.get("parent_refs", [GATEWAY]), "rules": list(rules)},
        "status": {"parents": others.get("parents", [parent(GOOD)])},
    }
    return msgspec.json.decode(msgspec.json.encode(body), type=HTTPRoute)
