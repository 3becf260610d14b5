"""Which pods a Service sends to, by its EndpointSlices: what has been selected, not only what the selector says."""

from __future__ import annotations

from collections.abc import Iterable, Set

from autoscaler.cluster.resources import Endpoint, EndpointSlice


def ready_pods(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    """UIDs of the pods that one Service's slices call ready; an endpoint that is no pod stands there by its address."""
    endpoints = (each for slice_ in slices for each in slice_.endpoints or ())
    return frozenset(_identity(each) for each in endpoints if each.conditions.ready is not False)


def hold_exactly(slices: Iterable[EndpointSlice], pods: Set[str]) -> bool:
    """Does the Service send to these pods, given by UID, to all of them and to nobody else?"""
    return ready_pods(slices) == pods


def _identity(endpoint: Endpoint) -> str:
    target = endpoint.target_ref
    if target is not None and target.kind == "Pod" and target.uid:
        return target.uid
    return f"address {', '.join(endpoint.addresses)}"
