"""Which pods a Service sends to, by its EndpointSlices: what has been selected, not only what the selector says."""

from __future__ import annotations

from collections.abc import Iterable

from autoscaler.cluster.resources import Endpoint, EndpointSlice


def ready_pods(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    """Names of the pods that one Service's slices call ready; an endpoint that is no pod stands there by its address,
    in words that are no pod's name.
    """
    endpoints = (each for slice_ in slices for each in slice_.endpoints or ())
    return frozenset(_identity(each) for each in endpoints if each.conditions.ready is not False)


def _identity(endpoint: Endpoint) -> str:
    target = endpoint.target_ref
    if target is not None and target.kind == "Pod" and target.name:
        return target.name
    return f"address {', '.join(endpoint.addresses)}"
