"""QuotaLedgers on the real API server: what one tenure writes, another cannot write over without having seen it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.cluster.client import KubernetesClient, connect
from autoscaler.cluster.errors import ApiError, Conflict, Refused
from autoscaler.cluster.quota.ledgers import Ledgers, name_of
from autoscaler.model.quota import Hold, Ledger
from autoscaler.scaling.holds import Change, after
from tests.realcluster.cluster import Cluster
from tests.realcluster.controlplane import write_kubeconfig
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Answer, Rule

GPU = "nvidia.com/gpu"
DOMAIN = ("ml", "h100")
PATH = "/apis/tidegate.dev/v1alpha1/namespaces/{}/quotaledgers"


def ledger(limit: int, **gpus: int) -> Ledger:
    holds = (Hold(f"ns/{name}", f"{name}-1a2b3c4d", {GPU: count * 1000}, 60.0) for name, count in gpus.items())
    return Ledger({GPU: limit * 1000}, tuple(holds))


@pytest.fixture
async def api(crds: Cluster) -> AsyncIterator[KubernetesClient]:
    client = await connect(Path(crds.kubeconfig))
    yield client
    await client.close()


def stored(cluster: Cluster, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get(f"{PATH.format(namespace)}/{name_of(DOMAIN)}")
    return found


async def tenure(api: KubernetesClient, namespace: str, epoch: int) -> Ledgers:
    ledgers = Ledgers(api, namespace, epoch)
    await ledgers.take_over()
    return ledgers


async def test_what_is_written_is_there_for_the_next_tenure(
    crds: Cluster, api: KubernetesClient, namespace: str
) -> None:
    first = await tenure(api, namespace, 1)
    assert first.confirmed == {}
    await first.write(DOMAIN, ledger(12, llama=8))
    await first.write(DOMAIN, ledger(12, llama=8, qwen=3))
    assert stored(crds, namespace)["spec"]["holds"][1]["since"] == "1970-01-01T00:01:00Z"
    second = await tenure(api, namespace, 2)
    assert second.confirmed == first.confirmed == {DOMAIN: ledger(12, llama=8, qwen=3)}
    assert stored(crds, namespace)["metadata"]["annotations"]["tidegate.dev/epoch"] == "2"


async def test_an_unchanged_ledger_is_not_written(crds: Cluster, api: KubernetesClient, namespace: str) -> None:
    ledgers = await tenure(api, namespace, 1)
    await ledgers.write(DOMAIN, ledger(12, llama=8))
    version = stored(crds, namespace)["metadata"]["resourceVersion"]
    await ledgers.write(DOMAIN, ledger(12, llama=8))
    assert stored(crds, namespace)["metadata"]["resourceVersion"] == version


async def test_a_late_write_of_the_tenure_before_changes_nothing(
    crds: Cluster, api: KubernetesClient, namespace: str
) -> None:
    """Also where the new one had nothing to change."""
    old = await tenure(api, namespace, 1)
    await old.write(DOMAIN, ledger(12, llama=8))
    new = await tenure(api, namespace, 2)
    with pytest.raises(Conflict, match="changed by somebody else"):
        await old.write(DOMAIN, ledger(12, llama=8, qwen=4))
    assert new.confirmed == {DOMAIN: ledger(12, llama=8)}
    await new.write(DOMAIN, ledger(12, llama=12))
    assert stored(crds, namespace)["spec"]["holds"][0]["vector"] == {GPU: 12_000}


async def test_the_api_server_refuses_what_exceeds_the_limit(api: KubernetesClient, namespace: str) -> None:
    ledgers = await tenure(api, namespace, 1)
    await ledgers.write(DOMAIN, ledger(12, llama=8))
    with pytest.raises(Refused, match="exceed the limit"):
        await ledgers.write(DOMAIN, ledger(12, llama=8, qwen=5))
    assert ledgers.confirmed == {DOMAIN: ledger(12, llama=8)}


async def test_a_ledger_that_somebody_deleted_is_made_again_though_more_is_held_than_allowed(
    crds: Cluster, api: KubernetesClient, namespace: str
) -> None:
    ledgers = await tenure(api, namespace, 1)
    await ledgers.write(DOMAIN, ledger(12, llama=10))
    crds.request("DELETE", f"{PATH.format(namespace)}/{name_of(DOMAIN)}")
    with pytest.raises(Conflict):
        await ledgers.write(DOMAIN, ledger(8, llama=10))
    assert ledgers.confirmed == {}
    await ledgers.write(DOMAIN, ledger(8, llama=10))
    assert stored(crds, namespace)["spec"]["limit"] == {GPU: 8000}
    assert ledgers.confirmed == {DOMAIN: ledger(8, llama=10)}


async def test_the_server_accepts_every_ledger_that_a_cycle_makes(api: KubernetesClient, namespace: str) -> None:
    """200 cycles with wishes, limits, leftovers and owners at random; every one is written as it came out."""
    chance = random.Random(6)
    ledgers = await tenure(api, namespace, 1)
    names = (GPU, "cpu")
    refused = lowered = 0

    def vector(most: int) -> dict[str, int]:
        return {name: chance.randrange(most) for name in names if chance.random() < 0.8}

    for second in range(200):
        before = ledgers.confirmed
        limits = {DOMAIN: vector(12_000)} if chance.random() < 0.9 else {}
        changes = [
            Change(f"ns/{chance.randrange(4)}", "r", chance.choice((DOMAIN, DOMAIN, None)), vector(6000))
            for _ in range(chance.randrange(5))
        ]
        left = [Hold(f"ns/{chance.randrange(6)}", "r", vector(3000)) for _ in range(chance.randrange(2))]
        owners = frozenset(f"ns/{each}" for each in range(5) if chance.random() < 0.9)
        found = after(before, limits, changes, {DOMAIN: left}, owners, float(second))
        refused += len(found.refused)
        for domain, wanted in found.ledgers.items():
            lowered += any(wanted.held.get(name, 0) > limit for name, limit in wanted.limit.items())
            await ledgers.write(domain, wanted)
        assert ledgers.confirmed == {**before, **found.ledgers}
    assert refused > 20
    assert lowered > 10, "more held than a sunken limit allows: this was tried, too"


async def test_an_object_of_another_name_stands_for_nothing(
    crds: Cluster, api: KubernetesClient, namespace: str
) -> None:
    body = {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "QuotaLedger",
        "metadata": {"name": "mine", "labels": {"tidegate.dev/project": "ml", "tidegate.dev/node-pool": "h100"}},
        "spec": {"limit": {}, "holds": []},
    }
    assert crds.request("POST", PATH.format(namespace), body)[0] == 201
    assert (await tenure(api, namespace, 1)).confirmed == {}


async def test_while_it_is_read_anew_it_stands_as_it_was_last_answered(
    crds: Cluster, namespace: str, tmp_path: Path
) -> None:
    """A write met another version, and what that is cannot be read: nothing that is held looks free meanwhile."""
    with FaultProxy(crds.url, crds.ca_path) as proxy:
        write_kubeconfig(tmp_path / "kubeconfig", proxy.url, crds.ca_path, crds.admin_token)
        client = await connect(tmp_path / "kubeconfig")
        try:
            ledgers = await tenure(client, namespace, 1)
            await ledgers.write(DOMAIN, ledger(12, llama=8))
            there = stored(crds, namespace)
            there["spec"]["holds"][0]["vector"] = {GPU: 7000}
            status, _ = crds.request("PUT", f"{PATH.format(namespace)}/{name_of(DOMAIN)}", there)
            assert status == 200
            unread = proxy.arm(Rule(Answer(403, "Forbidden"), methods=("GET",), path="/quotaledgers/"))
            with pytest.raises(ApiError):
                await ledgers.write(DOMAIN, ledger(12, llama=9))
            assert unread.hits
            assert ledgers.confirmed == {DOMAIN: ledger(12, llama=8)}
            with pytest.raises(Conflict):
                await ledgers.write(DOMAIN, ledger(12, llama=9))
            assert ledgers.confirmed == {DOMAIN: ledger(12, llama=7)}
        finally:
            await client.close()
