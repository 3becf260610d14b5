"""The configuration's blocks `projects` and `nodePools`: who owns how many GPUs, and where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from autoscaler.model.rollout import DEFAULT_POOL
from autoscaler.settings.rules import Refusal
from autoscaler.settings.scalars import Amount, DnsName, refused
from autoscaler.settings.section import Section
from autoscaler.settings.workload import NODE_POOLS_MAX

QUALIFIED_NAME: Final = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE: Final = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
POOLS_MAX: Final = 32

ResourceName = Annotated[str, Field(pattern=QUALIFIED_NAME, max_length=253)]
LabelName = Annotated[str, Field(pattern=QUALIFIED_NAME, max_length=317)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE, max_length=63)]
Limit = Annotated[Mapping[ResourceName, Amount], Field(max_length=16)]


def _not_empty(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise refused("the list is empty; allowed: one or more namespaces")
    return names


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise refused(f"value {twice[0]!r} stands there twice; allowed: each node pool once")
    return names


class NodePool(Section):
    """The nodes with these labels."""

    node_selector: Annotated[Mapping[LabelName, LabelValue], Field(min_length=1, max_length=16)]
    """Label to value. Pools must not share nodes, or their GPUs count twice."""


class Quota(Section):
    limits: Annotated[Mapping[DnsName, Limit], Field(max_length=POOLS_MAX)] = {}
    """Node pool to resource to quantity, e.g. default: {nvidia.com/gpu: 12}. Resources that are not named are not
    limited."""


class Project(Section):
    """An owner of GPUs. A namespace of no project is a project of its own, without limit."""

    namespaces: Annotated[tuple[DnsName, ...], AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1})]
    node_pools: (
        Annotated[
            tuple[DnsName, ...],
            Field(min_length=1, max_length=NODE_POOLS_MAX),
            AfterValidator(_each_once),
        ]
        | None
    ) = None
    """Where its workloads may run, in order of preference. null is the node pools under quota.limits, in their order;
    without any, workloads run in default, or in those that they name."""
    quota: Quota = Quota()

    @property
    def own_pools(self) -> tuple[str, ...]:
        """In order of preference; empty where nothing is said of node pools."""
        return self.node_pools or tuple(self.quota.limits)


def misnamed_pools(projects: Mapping[str, Project], pools: Mapping[str, NodePool]) -> Iterator[Refusal]:
    """What is said of node pools that do not exist, or twice of the same nodes."""
    if DEFAULT_POOL in pools:
        yield Refusal(f"nodePools.{DEFAULT_POOL}", f"{DEFAULT_POOL} is every node; allowed: another name")
    known = (DEFAULT_POOL, *(pool for pool in pools if pool != DEFAULT_POOL))
    allowed = f"allowed: {', '.join(known)}"
    for name, project in projects.items():
        for pool in project.node_pools or ():
            if pool not in known:
                yield Refusal(f"projects.{name}.nodePools", f"value {pool!r} is no node pool; {allowed}")
        for pool in project.quota.limits:
            if pool not in known:
                yield Refusal(f"projects.{name}.quota.limits.{pool}", f"{pool} is no node pool; {allowed}")
    seen: dict[frozenset[tuple[str, str]], str] = {}
    for name, node_pool in pools.items():
        other = seen.setdefault(frozenset(node_pool.node_selector.items()), name)
        if other != name:
            says = f"has the nodes of {other}; allowed: labels of other nodes"
            yield Refusal(f"nodePools.{name}.nodeSelector", says)


def uneven_limits(projects: Mapping[str, Project]) -> Iterator[Refusal]:
    """A resource is limited in all of a project's node pools or in none: what a revision holds does not depend on the
    pool that it finds."""
    for name, project in projects.items():
        limits = {pool: project.quota.limits.get(pool, {}) for pool in project.own_pools}
        named = sorted({resource for limit in limits.values() for resource in limit})
        for pool, limit in limits.items():
            for resource in named:
                if resource not in limit:
                    where = next(other for other, its in limits.items() if resource in its)
                    says = (
                        f"has no {resource}, which is limited in {where}; allowed: a number in each of its node pools"
                    )
                    yield Refusal(f"projects.{name}.quota.limits.{pool}", says)
