"""What a pod is charged, case by case, and whether the API server's own ResourceQuota charges the same."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec
import pytest

from autoscaler.cluster.resources import TargetPod
from autoscaler.model.quantity import milli
from autoscaler.model.resources import pod_demand
from tests.realcluster.cluster import Cluster

GPU = "nvidia.com/gpu"
HUGE = "hugepages-2Mi"


def one(gpus: int = 0, cpu: str = "", limit: str = "", **more: Any) -> dict[str, Any]:
    """A container: GPUs as a limit, as they are written; CPU as a request and a limit."""
    requests = {"cpu": cpu} if cpu else {}
    limits = ({GPU: str(gpus)} if gpus else {}) | ({"cpu": limit} if limit else {})
    return {"resources": {"requests": requests, "limits": limits}, **more}


def sidecar(gpus: int = 0, cpu: str = "", limit: str = "") -> dict[str, Any]:
    return one(gpus, cpu, limit, restartPolicy="Always")


CASES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "nothing": ({"containers": [{}]}, {}),
    "sum": ({"containers": [one(1, "500m"), one(2, "1")]}, {GPU: 3000, "cpu": 1500}),
    "limit without request": ({"containers": [one(4, limit="2")]}, {GPU: 4000, "cpu": 2000}),
    "request below limit": ({"containers": [one(1, "500m", "2")]}, {GPU: 1000, "cpu": 500}),
    "init peak": ({"containers": [one(1, "1")], "initContainers": [one(4), one(2, "3")]}, {GPU: 4000, "cpu": 3000}),
    "init below": ({"containers": [one(2), one(2)], "initContainers": [one(3)]}, {GPU: 4000}),
    "sidecar": ({"containers": [one(1)], "initContainers": [sidecar(2, "1")]}, {GPU: 3000, "cpu": 1000}),
    "sidecar, then init": ({"containers": [one(1)], "initContainers": [sidecar(2), one(3)]}, {GPU: 5000}),
    "init, then sidecar": ({"containers": [one(1)], "initContainers": [one(3), sidecar(2)]}, {GPU: 3000}),
    "init between sidecars": (
        {"containers": [one(1)], "initContainers": [sidecar(1), one(4), sidecar(3)]},
        {GPU: 5000},
    ),
    "two sidecars": ({"containers": [one(1)], "initContainers": [sidecar(1), sidecar(2), one(1)]}, {GPU: 4000}),
    "of each resource its own peak": (
        {"containers": [one(4, "1")], "initContainers": [one(1, "8"), sidecar(1, "2")]},
        {GPU: 5000, "cpu": 8000},
    ),
    "of the pod": ({"containers": [one(1, "1")], "resources": {"requests": {"cpu": "3"}}}, {GPU: 1000, "cpu": 3000}),
    "limit of the pod, nobody requests": (
        {"containers": [one(1)], "resources": {"limits": {"cpu": "3"}}},
        {GPU: 1000, "cpu": 3000},
    ),
    "limit of the pod, a container requests": (
        {"containers": [one(1, "1")], "resources": {"limits": {"cpu": "3"}}},
        {GPU: 1000, "cpu": 1000},
    ),
    "init above the pod's own": (
        {
            "containers": [one(1)],
            "initContainers": [one(0, "2")],
            "resources": {"requests": {"cpu": "2500m"}, "limits": {"cpu": "4"}},
        },
        {GPU: 1000, "cpu": 2500},
    ),
}
NO_SERVER: dict[str, tuple[dict[str, Any], dict[str, int]]] = {  # the server fills overhead in, and has no huge pages
    "overhead": ({"containers": [one(1, "1")], "overhead": {"cpu": "250m", GPU: "1"}}, {GPU: 2000, "cpu": 1250}),
    "overhead beside an init peak": (
        {"containers": [one(1)], "initContainers": [one(0, "2")], "overhead": {"cpu": "1"}},
        {GPU: 1000, "cpu": 3000},
    ),
    "overhead beside the pod's own": (
        {"containers": [one(1)], "resources": {"requests": {"cpu": "2"}}, "overhead": {"cpu": "1"}},
        {GPU: 1000, "cpu": 3000},
    ),
    "huge pages of the pod": ({"containers": [{}], "resources": {"limits": {HUGE: "4Mi"}}}, {HUGE: 4 * 1024**2 * 1000}),
    "devices are no affair of the pod": ({"containers": [one(1)], "resources": {"requests": {GPU: "9"}}}, {GPU: 1000}),
    "fractions are rounded up": ({"containers": [one(0, "100u"), one(0, "100u")]}, {"cpu": 2}),
    "nulls": ({"containers": [{"resources": None}], "initContainers": None, "overhead": None, "resources": None}, {}),
}


@pytest.mark.parametrize(("spec", "demand"), [*CASES.values(), *NO_SERVER.values()], ids=[*CASES, *NO_SERVER])
def test_a_pod_is_charged(spec: dict[str, Any], demand: dict[str, int]) -> None:
    assert pod_demand(spec) == demand
    seen = msgspec.json.decode(msgspec.json.encode({"metadata": {}, "spec": spec}), type=TargetPod)
    assert seen.demand == demand, "as it is read from the pod"


def test_the_servers_own_quota_charges_the_same(cluster: Cluster, namespace: str) -> None:
    """One pod after the other: what ResourceQuota counts more each time."""
    quotas, pods = (f"/api/v1/namespaces/{namespace}/{plural}" for plural in ("resourcequotas", "pods"))
    hard = {f"requests.{GPU}": "1000", "requests.cpu": "1000"}
    cluster.create(quotas, {"metadata": {"name": "all"}, "spec": {"hard": hard}})

    def used() -> dict[str, int]:
        status = cluster.get(f"{quotas}/all").get("status") or {}
        return {name: milli(status.get("used", {}).get(f"requests.{name}", "0")) for name in (GPU, "cpu")}

    cluster.wait_for(lambda: "used" in (cluster.get(f"{quotas}/all").get("status") or {}), "the quota to count")
    for index, (name, (spec, demand)) in enumerate(CASES.items()):
        before = used()
        cluster.create(pods, {"metadata": {"name": f"p{index}"}, "spec": _whole(spec)})
        more = {each: amount - before[each] for each, amount in used().items() if amount != before[each]}
        assert more == demand, name


def _whole(spec: dict[str, Any]) -> dict[str, Any]:
    """With what the server insists on: names, images, and where the pod as a whole says nothing, a word on CPU."""
    whole = deepcopy(spec)
    for index, each in enumerate((*whole["containers"], *whole.get("initContainers", ()))):
        each |= {"name": f"c{index}", "image": "x"}
        resources = each.setdefault("resources", {})
        if "resources" not in spec and "cpu" not in resources.get("limits", {}):
            resources["requests"] = {"cpu": "0", **resources.get("requests", {})}
    return {**whole, "schedulingGates": [{"name": "tidegate.dev/never"}]}
