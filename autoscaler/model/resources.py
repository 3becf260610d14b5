"""Resource vectors and what one pod asks for.

A vector maps a resource name to whole thousandths (one GPU is 1000, one CPU is 1000, one byte is 1000), so that
sums are exact. Missing names are zero. Rules for a pod: quota-aware sums as in Kubernetes' component-helpers
(`resource/helpers.go`): init containers run one after another, sidecars stay, overhead is added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from autoscaler.model.quantity import milli

ResourceVector = Mapping[str, int]

GPU: Final = "nvidia.com/gpu"
EMPTY: Final[ResourceVector] = {}
_POD_LEVEL: Final = ("cpu", "memory")
MOST: Final = 10**21  # thousandths: the largest quantity that means anything, and far from any overflow


def add(*vectors: ResourceVector) -> dict[str, int]:
    """The sum, name by name."""
    total: dict[str, int] = {}
    for vector in vectors:
        for name, amount in vector.items():
            total[name] = total.get(name, 0) + amount
    return total


def largest(vectors: Iterable[ResourceVector]) -> dict[str, int]:
    """Of each name the largest amount."""
    found: dict[str, int] = {}
    for vector in vectors:
        for name, amount in vector.items():
            found[name] = max(found.get(name, 0), amount)
    return found


def times(vector: ResourceVector, count: int) -> dict[str, int]:
    """The vector of `count` replicas."""
    return {name: amount * count for name, amount in vector.items()}


def replicas_that_fit(free: ResourceVector, per_replica: ResourceVector) -> int | None:
    """How many replicas fit into `free`; None when no limited resource is asked for (unlimited).

    `free` names limited resources only. With 3 free GPUs and 2 a replica, one fits.
    """
    fits = [free[name] // amount for name, amount in per_replica.items() if amount > 0 and name in free]
    return max(0, min(fits)) if fits else None


def pod_demand(pod_spec: Mapping[str, Any]) -> dict[str, int]:
    """What one pod of this spec is charged, in thousandths.

    max(containers + sidecars, the largest init container beside the sidecars started before it) + overhead;
    a limit stands in for a missing request. What the pod as a whole requests of CPU, memory and huge pages stands in
    for what its containers do. Malformed quantities raise ValueError.
    """
    running = add(*(_requests(container) for container in pod_spec.get("containers") or ()))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod_spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            sidecars = add(sidecars, _requests(container))
            peak = largest([peak, sidecars])
        else:
            peak = largest([peak, add(sidecars, _requests(container))])
    containers = largest([add(running, sidecars), peak])
    overhead = {name: milli(amount) for name, amount in (pod_spec.get("overhead") or {}).items()}
    total = add({**containers, **_of_the_pod(pod_spec, containers)}, overhead)
    for name, amount in total.items():
        if not 0 <= amount <= MOST:
            raise ValueError(f"{name} of a pod is out of range; allowed: 0 to 1E")
    return {name: amount for name, amount in total.items() if amount}


def _of_the_pod(pod_spec: Mapping[str, Any], containers: ResourceVector) -> dict[str, int]:
    """Its own requests; its limit stands in only where neither it nor a container requests anything."""
    resources = pod_spec.get("resources") or {}
    limits = {name: amount for name, amount in (resources.get("limits") or {}).items() if name not in containers}
    asked = {**limits, **(resources.get("requests") or {})}
    return {
        name: milli(amount) for name, amount in asked.items() if name in _POD_LEVEL or name.startswith("hugepages-")
    }


def _requests(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: milli(amount) for name, amount in asked.items()}
