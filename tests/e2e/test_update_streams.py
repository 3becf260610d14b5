"""Streaming clients across updates: what of them breaks, through a route and through a Service.

Streams last 30 s as in the issue, 100 at any time, beside 200 short requests a second. The model servers are imitated,
Envoy and its Gateway are real; of a Service's clients what is imitated is said in crowd.ServiceAsked. Nobody but the
daemon tells the Gateway how long an answer may take: with its own default it would cut the streams after 15 s.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from typing import Any, Final

from tests.e2e.behind import Behind
from tests.e2e.crowd import Crowd, RouteAsked, ServiceAsked, revision_of
from tests.e2e.routed import route_for, routed, start, wait_weight, weights_written
from tests.e2e.updating import (
    NEVER_READY_S,
    deletions,
    edited,
    left,
    objects,
    rollout,
    verb,
    wait_phase,
    wait_served,
)
from tests.e2e.updating import apply as have
from tests.e2e.workload import manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.gateway import Gateway
from tests.realcluster.gateway_clients import LONGEST_S, Visit
from tests.realcluster.gateway_routes import Route
from tests.realcluster.modelserver import ModelServers

STREAMS: Final = 100  # at any time
PER_S: Final = 200  # short requests
STREAM_S: Final = 30
TOKENS_PER_S: Final = 5
SPREAD_S: Final = 10.0  # over which the first streams begin
DRAIN: Final = {"timeoutSeconds": STREAM_S + 10, "quietSeconds": 1}
TWO: Final = {"minReplicas": 2, "maxReplicas": 2}
ENVOYS_ROUTES: Final = "http://127.0.0.1:19000/config_dump?resource=dynamic_route_configs"


def offered(servers: ModelServers, namespace: str) -> None:
    """Nobody but the test's own clients asks; a token takes as long for each of them."""
    servers.set_load(namespace, "llama", slots=1000, service_time_s=1.0, output_tokens=TOKENS_PER_S)


def in_flight(servers: ModelServers, namespace: str, revision: str) -> int:
    """As the pages of its pods show it."""
    pods: dict[str, dict[str, Any]] = servers.state()[f"{namespace}/llama"]["pods"]
    return sum(pod["running"] + pod["waiting"] for name, pod in pods.items() if revision_of(name) == revision)


def streams_of(visits: list[Visit]) -> list[Visit]:
    """Short ones last a fraction of a second."""
    return [each for each in visits if each.took_s > STREAM_S / 2]


def by_revision(visits: list[Visit]) -> dict[str, int]:
    return dict(Counter(revision_of(each.pod) if each.pod else str(each.status) for each in visits))


def last_end(visits: list[Visit], revision: str) -> float:
    """When its last answer was whole."""
    return max(each.at_s + each.took_s for each in visits if revision_of(each.pod) == revision)


def timeouts_in_envoy(route: Route) -> set[str | None]:
    """What Envoy itself has for the route's host; None: its default."""
    with urllib.request.urlopen(ENVOYS_ROUTES, timeout=5) as answer:
        tables = [each["route_config"] for each in json.loads(answer.read()).get("configs", ())]
    hosts = [host for table in tables for host in table.get("virtual_hosts", ()) if route.host in host["domains"]]
    return {each["route"].get("timeout") for host in hosts for each in host["routes"] if "route" in each}


def test_streams_through_a_route_outlive_a_switch_and_an_abort(
    cluster: Cluster, gateway: Gateway, namespace: str, servers: ModelServers, proxied: Behind
) -> None:
    offered(servers, namespace)
    route = route_for(gateway, namespace, "llama", timeout=None)
    body = routed("llama", [], rollout={"drain": DRAIN})
    body["spec"]["serving"]["requestTimeoutSeconds"] = int(LONGEST_S)
    workload = start(cluster, namespace, body)
    old = workload.status()["currentRevision"]
    wanted = {f"{LONGEST_S:g}s"}
    cluster.wait_for(lambda: timeouts_in_envoy(route) == wanted, "Envoy to have the time-out")
    with Crowd(RouteAsked(route)) as crowd:
        crowd.streams(STREAMS, STREAM_S * TOKENS_PER_S, over_s=SPREAD_S)
        crowd.short(PER_S)
        cluster.wait_for(lambda: crowd.streaming(old) == STREAMS, "all streams", 60)
        assert in_flight(servers, namespace, old) >= STREAMS, "the model servers know of them"
        have(workload, edited(body, "2"))
        wait_phase(workload, "Draining")
        moving = crowd.streaming(old)
        new = wait_served(workload, "2", 2, timeout_s=150)
        switched = list(crowd.visits)

        halves = rollout(steps=[{"weight": 50, "pause": "1h"}], drain=DRAIN)
        have(workload, edited(body, "3", rollout=halves))
        aborted = wait_weight(workload, "Paused", 50)["revision"]
        cluster.wait_for(lambda: crowd.streaming(aborted) >= STREAMS // 4, "streams at the update", 90)
        back = crowd.streaming(aborted)
        crowd.no_more_streams()
        verb(workload, "abort", aborted)
        wait_phase(workload, "Failed", "Aborted", timeout_s=150)
        assert objects(workload) == {new}
    for name, visits in (("switch", switched), ("abort", crowd.visits[len(switched) :])):
        print(f"route, {name}: {crowd.told(visits)}; streams {by_revision(streams_of(visits))}")
    print(f"route: {moving} streams were under way at the old revision at the switch, {back} at the aborted one")
    assert weights_written(proxied, route) == [100, 0, 50, 0]
    assert crowd.bad() == []
    assert by_revision(streams_of(switched)).keys() >= {old}
    assert by_revision(streams_of(crowd.visits)).keys() == {old, new, aborted}
    assert moving >= STREAMS // 2
    for revision in (old, aborted):
        assert deletions(proxied.proxy, revision)[0].at_s >= last_end(crowd.visits, revision), "it had finished"


def test_streams_through_a_service_and_what_of_them_breaks(
    cluster: Cluster, namespace: str, servers: ModelServers, proxied: Behind
) -> None:
    """Nothing is promised here: kept connections stay with their pods, whatever the Service selects."""
    offered(servers, namespace)
    body = manifest("llama", TWO, rollout=rollout(drain=DRAIN))
    workload = start(cluster, namespace, body)
    old = workload.status()["currentRevision"]
    fresh = ServiceAsked(cluster, namespace, "llama", keep=False)
    kept = ServiceAsked(cluster, namespace, "llama", keep=True)
    with Crowd(fresh) as comers, Crowd(kept) as stayers:
        comers.streams(STREAMS, STREAM_S * TOKENS_PER_S, over_s=SPREAD_S)
        comers.short(PER_S / 2)
        stayers.short(PER_S / 2)
        cluster.wait_for(lambda: comers.streaming(old) == STREAMS, "all streams", 60)
        have(workload, edited(body, "2"))
        wait_phase(workload, "Draining")
        comers.no_more_streams()
        new = wait_served(workload, "2", 2, timeout_s=150)
        switched = len(comers.visits), len(stayers.visits)
        untouched = left(workload)
        have(workload, edited(body, "3", ready_after_s=NEVER_READY_S))
        aborted = wait_phase(workload, "Starting")["revision"]
        verb(workload, "abort", aborted)
        wait_phase(workload, "Failed", "Aborted")
        assert left(workload) == untouched
    for name, crowd, at in (("new connections", comers, switched[0]), ("kept ones", stayers, switched[1])):
        print(f"Service, switch, {name}: {crowd.told(crowd.visits[:at])}; {by_revision(crowd.visits[:at])}")
        print(f"Service, abort, {name}: {crowd.told(crowd.visits[at:])}; {by_revision(crowd.visits[at:])}")
    print(f"Service, streams: {by_revision(streams_of(comers.visits))}")
    for crowd in (comers, stayers):
        assert by_revision(crowd.visits).keys() >= {old, new}
        assert aborted not in by_revision(crowd.visits)
    gone_at = deletions(proxied.proxy, old)[0].at_s
    early = [each for each in comers.bad() + stayers.bad() if each.at_s + each.took_s < gone_at]
    assert early == [], "before the old revision goes, nobody is hurt"
