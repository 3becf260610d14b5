"""What pods that are not ours take of each quota: a GPU that a notebook holds is not there for a model.

They count from their own namespaces' projects, in the node pool of the node that they are bound to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from autoscaler.cluster.foreignpods import is_device
from autoscaler.cluster.resources import TargetPod
from autoscaler.cluster.scalable import is_live
from autoscaler.cluster.store import Store
from autoscaler.cluster.targets import SeenTarget
from autoscaler.controller.kinds import shape_of
from autoscaler.controller.specs import Operator
from autoscaler.model.quota import Domain
from autoscaler.model.resources import EMPTY, ResourceVector, add
from autoscaler.model.workload import TargetSpec

Pools = Mapping[str, Mapping[str, str]]  # labels of its nodes by node pool
Named = tuple[str, TargetSpec]  # namespace first


def foreign(store: Store, operator: Operator, targets: Iterable[Named]) -> dict[Domain, ResourceVector | None]:
    """In thousandths, by domain with a limit; None: not known yet, so nobody may take what is free there.

    `targets`: of the workloads whose pods are counted already. Ask before `store.targets.keep`. It follows what it
    needs to know from its first call on.
    """
    pools = limited_pools(operator)
    namespaces = {name: project for name, project in operator.projects.items() if project in pools}
    seen = store.foreign_pods
    seen.keep(namespaces.keys(), any(labels for each in pools.values() for labels in each.values()))
    ours = {pod.metadata.uid for each in targets for pod in _pods_of(store, *each)} if namespaces else set()
    others = ((name, pod) for name in namespaces for pod in seen.of(name) if pod.metadata.uid not in ours)
    found: dict[Domain, ResourceVector | None] = {**taken(operator, others, seen.labels_of)}
    for project, its_pools in pools.items():
        known = all(seen.known(name) for name, its_project in namespaces.items() if its_project == project)
        for pool, labels in its_pools.items():
            if not known or (labels and not seen.nodes_known):
                found[(project, pool)] = None
    return found


def taken(
    operator: Operator,
    pods: Iterable[tuple[str, TargetPod]],
    labels_of: Callable[[str], Mapping[str, str] | None],
) -> dict[Domain, ResourceVector]:
    """By these pods, in thousandths, by domain with a limit; each with its namespace. `labels_of` a node, if known."""
    pools = limited_pools(operator)
    found: dict[Domain, ResourceVector] = {(project, pool): EMPTY for project in pools for pool in pools[project]}
    for namespace, pod in pods:
        project = operator.projects.get(namespace, "")
        for pool in pools_of_pod(pod, pools.get(project, {}), labels_of(pod.spec.node_name or "")):
            domain = (project, pool)
            found[domain] = add(found[domain], _limited(pod, operator.limits[domain]))
    return found


def limited_pools(operator: Operator) -> dict[str, dict[str, Mapping[str, str]]]:
    """The limited node pools of each project, with the labels of their nodes."""
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for (project, pool), limit in operator.limits.items():
        if any(is_device(name) for name in limit):
            found.setdefault(project, {})[pool] = operator.node_pools.get(pool, EMPTY_LABELS)
    return found


EMPTY_LABELS: Mapping[str, str] = {}


def _pods_of(store: Store, namespace: str, target: TargetSpec) -> tuple[TargetPod, ...]:
    found = store.targets.find(namespace, target)
    if not isinstance(found, SeenTarget):
        return ()
    return store.targets.pods(namespace, shape_of(target).selector(target.name, found.selector))


def pools_of_pod(pod: TargetPod, pools: Pools, node: Mapping[str, str] | None) -> tuple[str, ...]:
    """Of a project's limited pools, those that the pod takes from. `node`: the labels of its node, if they are known.

    One that is bound to no node or has ended takes from none. A pool without labels is all nodes that are in no other
    one of these pools. Where the labels are not known the pod may be in any pool, and so counts in each.
    """
    if not is_live(pod) or not pod.spec.node_name:
        return ()
    labelled = {pool: labels for pool, labels in pools.items() if labels}
    if node is None:
        return tuple(labelled) or tuple(pools)
    inside = tuple(pool for pool, labels in labelled.items() if labels.items() <= node.items())
    return inside or tuple(pool for pool, labels in pools.items() if not labels)


def _limited(pod: TargetPod, limit: ResourceVector) -> ResourceVector:
    """Of a pod without a limited device nothing: only those that hold GPUs count."""
    vector = {name: amount for name, amount in pod.demand.items() if name in limit}
    return vector if any(is_device(name) for name in vector) else EMPTY
