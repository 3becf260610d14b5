"""The API server itself keeps a ledger within its limit, and never stands in the way of a release."""

from __future__ import annotations

from typing import Any

import pytest

from tests.realcluster.cluster import Cluster

GPU = "nvidia.com/gpu"


def _hold(owner: str, gpus: int) -> dict[str, Any]:
    return {"owner": f"ml/{owner}", "revision": f"{owner}-1a2b3c4d", "vector": {GPU: gpus * 1000}}


def _spec(limit: int, *holds: dict[str, Any]) -> dict[str, Any]:
    return {"limit": {GPU: limit * 1000}, "holds": list(holds)}


class Ledger:
    """One ledger on the real API server."""

    def __init__(self, cluster: Cluster, namespace: str, spec: dict[str, Any]) -> None:
        self.cluster = cluster
        self.path = f"/apis/tidegate.dev/v1alpha1/namespaces/{namespace}/quotaledgers"
        self.created = cluster.request("POST", self.path, self._body(spec))

    def write(self, spec: dict[str, Any]) -> tuple[int, str]:
        """The status of a compare-and-set, and the message if it is refused."""
        stored = self.cluster.get(f"{self.path}/ml-default")
        body = self._body(spec, stored["metadata"]["resourceVersion"])
        status, answer = self.cluster.request("PUT", f"{self.path}/ml-default", body)
        return status, str(answer.get("message", ""))

    def _body(self, spec: dict[str, Any], version: str | None = None) -> dict[str, Any]:
        metadata = {"name": "ml-default"} | ({"resourceVersion": version} if version else {})
        return {"apiVersion": "tidegate.dev/v1alpha1", "kind": "QuotaLedger", "metadata": metadata, "spec": spec}


@pytest.fixture
def full(crds: Cluster, namespace: str) -> Ledger:
    """8 of 8 GPUs are held."""
    ledger = Ledger(crds, namespace, _spec(8, _hold("a", 5), _hold("b", 3)))
    assert ledger.created[0] == 201, ledger.created
    return ledger


def test_a_new_ledger_above_its_limit_is_refused(crds: Cluster, namespace: str) -> None:
    status, answer = Ledger(crds, namespace, _spec(8, _hold("a", 9))).created
    assert status == 422
    assert "the holds exceed the limit of a resource, and this write would raise them" in answer["message"]


def test_one_gpu_more_than_the_limit_is_refused(full: Ledger) -> None:
    status, message = full.write(_spec(8, _hold("a", 5), _hold("b", 4)))
    assert status == 422
    assert "release a hold first, or raise the limit in the configuration" in message


def test_one_hold_more_than_the_limit_is_refused(full: Ledger) -> None:
    assert full.write(_spec(8, _hold("a", 5), _hold("b", 3), _hold("c", 1)))[0] == 422


def test_moving_a_hold_within_the_limit_is_allowed(full: Ledger) -> None:
    assert full.write(_spec(8, _hold("a", 1), _hold("b", 7)))[0] == 200


def test_a_higher_limit_makes_room_in_the_same_write(full: Ledger) -> None:
    assert full.write(_spec(9, _hold("a", 5), _hold("b", 4)))[0] == 200


def test_the_limit_may_sink_below_what_is_held(full: Ledger) -> None:
    assert full.write(_spec(4, _hold("a", 5), _hold("b", 3)))[0] == 200


def test_an_over_held_ledger_may_shrink_and_stay_over(full: Ledger) -> None:
    assert full.write(_spec(4, _hold("a", 5), _hold("b", 3)))[0] == 200
    assert full.write(_spec(4, _hold("a", 5), _hold("b", 1)))[0] == 200


def test_an_over_held_ledger_may_not_grow(full: Ledger) -> None:
    assert full.write(_spec(4, _hold("a", 5), _hold("b", 3)))[0] == 200
    assert full.write(_spec(4, _hold("a", 6), _hold("b", 3)))[0] == 422


def test_a_second_resource_is_counted_apart(full: Ledger) -> None:
    memory = {"owner": "ml/c", "revision": "c-1", "vector": {"memory": 10**15}}
    assert full.write(_spec(8, _hold("a", 5), _hold("b", 3), memory))[0] == 200
    limited = _spec(8, _hold("a", 5), memory)
    limited["limit"]["memory"] = 10**14
    assert full.write(limited)[0] == 200, "held before, so only a raise is refused"
    grown = _spec(8, _hold("a", 5), {**memory, "vector": {"memory": 2 * 10**15}})
    grown["limit"]["memory"] = 10**14
    assert full.write(grown)[0] == 422


def test_an_old_version_is_a_conflict(full: Ledger) -> None:
    stale = full._body(_spec(8), full.cluster.get(f"{full.path}/ml-default")["metadata"]["resourceVersion"])
    assert full.write(_spec(8, _hold("a", 1)))[0] == 200
    assert full.cluster.request("PUT", f"{full.path}/ml-default", stale)[0] == 409


def test_a_thousand_holds_are_within_the_servers_cost_budget(crds: Cluster, namespace: str) -> None:
    many = Ledger(crds, namespace, _spec(2000, *(_hold(f"w{i}", 1) for i in range(1000))))
    assert many.created[0] == 201, many.created
    assert many.write(_spec(2000, *(_hold(f"w{i}", 2) for i in range(1000))))[0] == 200
    assert many.write(_spec(2000, *(_hold(f"w{i}", 2) for i in range(999)), _hold("x", 3)))[0] == 422


def test_the_table_names_limit_and_holders(full: Ledger) -> None:
    namespace = full.path.split("/")[5]
    header, row = full.cluster.kubectl("get", "ql", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "LIMIT", "HOLDERS", "AGE"]
    assert "8000" in row
    assert "a-1a2b3c4d" in row
