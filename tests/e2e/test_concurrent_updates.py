"""Ten updates at once in one project, while the way to the API server is bad: one order, one quota, all end."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crash.world import ALWAYS, OF_NOBODY, World
from tests.e2e.behind import Behind, behind
from tests.e2e.sampling import watched
from tests.e2e.updating import (
    GPU,
    apply,
    bounds,
    controller_revisions,
    edited,
    held,
    objects,
    of_the_team,
    rollout,
    templates,
    update_of,
    wait_message,
    wait_phase,
    wait_served,
    wait_started,
)
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.faultproxy_rules import Answer, Delay, Exchange, Fault, HangUp, Rule
from tests.realcluster.modelserver import ModelServers

UPDATES: Final = 10
SPARE: Final = 3  # GPUs beside those that serve, and all of one pod at first: they come free at once
QUOTA: Final = UPDATES + SPARE
PRIORITIES: Final = ("low", "very-high", "medium")  # one after the other: neither order is the order of creation
ORDER: Final = ("very-high", "medium", "low")
LARGE: Final = 1  # the first of all needs two GPUs, each other one: what needs less would find room as well
SEED: Final = 20_2611
SHARE: Final = 0.04  # of the requests that each fault strikes
FAULTS: Final[Mapping[str, Fault]] = {
    "refused": Answer(500, "InternalError"),
    "too many": Answer(429, "TooManyRequests", retry_after_s=1),
    "conflict": Answer(409, "Conflict"),
    "broken": HangUp(),
    "done and broken": HangUp(commit=True),
    "late": Delay(0.4),
}


class Dice:
    """Which requests a fault strikes: the nth on its path, by the seed alone, however the others fall between."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> bool:
        if exchange.is_watch or "/leases" in exchange.path:
            return False
        asked = (
            f"{exchange.method} {exchange.path.partition('/namespaces/')[2].partition('/')[2]}"  # its name is random
        )
        with self._lock:
            self._asked[asked] += 1
            throw = f"{SEED} {self._name} {asked} {self._asked[asked]}"
        return random.Random(throw).random() < SHARE


@pytest.fixture
def daemon(cluster: Cluster, namespace: str, servers: ModelServers, tmp_path: Path) -> Iterator[Behind]:
    config = of_the_team(namespace, QUOTA)
    with (
        FaultProxy(cluster.url, cluster.ca_path) as proxy,
        behind(cluster, proxy, namespace, tmp_path, config) as running,
    ):
        yield running


def _body(number: int) -> dict[str, Any]:
    """The younger, the earlier in the alphabet: who goes by names goes wrong."""
    name = f"model-{UPDATES - 1 - number}"
    body = manifest(name, bounds(1), rollout=rollout(drain={"timeoutSeconds": 20, "quietSeconds": 0}))
    body["spec"]["priority"] = PRIORITIES[number % len(PRIORITIES)]
    return body


def _filler() -> dict[str, Any]:
    body = manifest("filler", bounds(1))
    templates(body)[0]["spec"]["containers"][0]["resources"]["limits"][GPU] = str(SPARE)
    return body


def _ranks(workloads: list[Workload], bodies: list[dict[str, Any]]) -> dict[str, tuple[int, str]]:
    """By the revision of its update: what is to be served first is least."""
    found = {}
    for workload, body in zip(workloads, bodies, strict=True):
        update = update_of(workload)
        found[update["revision"]] = (ORDER.index(body["spec"]["priority"]), update["queuedAt"])
    return found


def _served_in_order(world: World, ranks: Mapping[str, tuple[int, str]]) -> list[str]:
    """Revisions in the order in which the ledger took them in, by every version of it; none before one that ranks
    higher and waits."""
    taken: list[str] = []
    for change in world.changes(OF_NOBODY):
        holds = {each["revision"] for each in change.object["spec"]["holds"]}
        new = sorted((each for each in holds & ranks.keys() if each not in taken), key=lambda each: ranks[each])
        waiting = ranks.keys() - set(taken) - set(new)
        for each in new:
            passed = [other for other in waiting if ranks[other] < ranks[each]]
            assert not passed, f"{each} {ranks[each]} was served before {[(name, ranks[name]) for name in passed]}"
        taken += new
    return taken


def test_ten_updates_under_random_faults_stay_within_quota_and_end_in_order_of_priority_then_age(
    cluster: Cluster, namespace: str, daemon: Behind
) -> None:
    first = [_body(number) for number in range(UPDATES)]
    workloads = [Workload(cluster, namespace, each) for each in first]
    filler = Workload(cluster, namespace, _filler())
    for workload in workloads:
        wait_started(workload, 1)
    wait_started(filler, 1)

    struck = [daemon.proxy.arm(Rule(fault, where=Dice(name), times=None)) for name, fault in FAULTS.items()]
    sizes = [2 if number == LARGE else 1 for number in range(UPDATES)]
    second = [edited(each, "2", autoscaling=bounds(size)) for each, size in zip(first, sizes, strict=True)]
    with World(cluster, namespace, (*ALWAYS, "QuotaLedger")) as world, watched(cluster, namespace) as seen:
        for workload, body in zip(workloads, second, strict=True):
            apply(workload, body)
            wait_phase(workload, "Queued")
        wait_message(workloads[0], "1 GPU short in project team (0 of 1 free)")
        wait_message(workloads[LARGE], "2 GPU short in project team (0 of 2 free)")
        ranks = _ranks(workloads, first)
        filler.patch({"desiredPhase": "Stopped"})
        for workload, size in zip(workloads, sizes, strict=True):
            wait_served(workload, "2", size, timeout_s=120)
        daemon.proxy.disarm()
        cluster.wait_for(lambda: len(held(cluster, namespace)) == UPDATES, "holds of what is gone to be released")

        served = _served_in_order(world, ranks)
        assert len(served) == UPDATES
        limits = {change.object["spec"]["limit"]["nvidia.com/gpu"] for change in world.changes(OF_NOBODY)}
        assert limits == {QUOTA * 1000}
        totals = [_held(change.object) for change in world.changes(OF_NOBODY)]
        assert max(totals) == QUOTA * 1000, "the quota was never used up: nothing was shown"
    seen.check(QUOTA)
    for workload in workloads:
        assert objects(workload) == {workload.status()["currentRevision"]}
        assert len(controller_revisions(workload)) == 2
        assert seen.least_ready(workload) >= 1
        assert seen.phases(workload) == {"Running"}
    print("served:", ", ".join(f"{name} ({ORDER[ranks[name][0]]})" for name in served))
    print({name: len(each.hits) for name, each in zip(FAULTS, struck, strict=True)}, "requests struck")
    assert all(each.hits for each in struck), "a fault that struck nothing shows nothing"


def _held(ledger: Mapping[str, Any]) -> int:
    return sum(each["vector"].get("nvidia.com/gpu", 0) for each in ledger["spec"]["holds"])
