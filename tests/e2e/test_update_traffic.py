"""Updates weight by weight through real HTTPRoutes, before the real Envoy Gateway and a real Envoy."""

from __future__ import annotations

import json
import time
from collections import Counter

from tests.e2e.behind import Behind
from tests.e2e.crowd import Crowd, RouteAsked
from tests.e2e.routed import percent_in, refs, route_for, routed, start, to_the_route, wait_weight, weights_written
from tests.e2e.sampling import watched
from tests.e2e.updating import (
    Body,
    apply,
    edited,
    left,
    objects,
    pods_of,
    rollout,
    templates,
    update_of,
    verb,
    wait_message,
    wait_phase,
    wait_served,
)
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy_rules import Exchange, Hold, Rule
from tests.realcluster.gateway import Gateway
from tests.realcluster.gateway_routes import Route, rule
from tests.realcluster.modelserver import ModelServers

PLAN = [{"weight": 10, "pause": "2s"}, {"weight": 50, "pause": "1h"}]
AT_HALF = [{"weight": 50, "pause": "1h"}]


def serves_quickly(servers: ModelServers, namespace: str, service_time_s: float = 0.05) -> None:
    """Nobody but a test's own clients asks."""
    servers.set_load(namespace, "llama", slots=1000, service_time_s=service_time_s, output_tokens=1)


def answers(crowd: Crowd, number: int, cluster: Cluster) -> Counter[str]:
    """By revision, of so many requests from now on."""
    begin = max((each.at_s for each in crowd.visits), default=0.0) + 0.001
    cluster.wait_for(lambda: len(crowd.since(begin)) >= number, f"{number} answers")
    return Counter(each.pod.rsplit("-", 2)[0] for each in crowd.since(begin))


def test_weights_follow_the_steps_and_a_promotion_and_come_home(
    cluster: Cluster, gateway: Gateway, namespace: str, servers: ModelServers, proxied: Behind
) -> None:
    serves_quickly(servers, namespace)
    route, body = route_for(gateway, namespace, "llama"), routed("llama", PLAN)
    workload = start(cluster, namespace, body)
    before = route.get()["spec"]
    with Crowd(RouteAsked(route)) as crowd, watched(cluster, namespace) as seen:
        crowd.short(40)
        first = answers(crowd, 20, cluster)
        assert first.keys() == {workload.status()["currentRevision"]}
        apply(workload, edited(body, "2"))
        update = wait_weight(workload, "Paused", 10)["revision"]
        assert route.weights() == refs("llama", 90)
        assert "paused at 10 % until the step's pause is over" in wait_message(workload, "paused at 10 %")
        wait_weight(workload, "Paused", 50)
        assert route.weights() == refs("llama", 50)
        split = answers(crowd, 100, cluster)
        print(f"at 50 %: {dict(split)}")
        assert 30 <= 100 * split[update] / split.total() <= 70
        verb(workload, "promote", update)
        assert wait_served(workload, "2", 2) == update
        assert answers(crowd, 20, cluster).keys() == {update}
    print(crowd.told())
    assert crowd.bad() == []
    assert weights_written(proxied, route) == [10, 50, 100, 0]
    assert route.get()["spec"] == before, "the weights are home, and nothing else was touched"
    ten, fifty, *_ = (each.at_s for each in to_the_route(proxied, route) if percent_in(each) is not None)
    assert fifty - ten >= 2, "the step's pause"
    assert (seen.phases(workload), seen.least_ready(workload)) == ({"Running"}, 2)
    assert [each for each in workload.events("RolloutStepCompleted") if update in each]


def test_no_weight_before_the_update_service_leads_to_exactly_the_pods_of_the_update(
    cluster: Cluster, gateway: Gateway, namespace: str, proxied: Behind
) -> None:
    """Somebody's address stands among its endpoints, where a share of the requests would be lost."""
    route, body = route_for(gateway, namespace, "llama"), routed("llama", AT_HALF)
    workload = start(cluster, namespace, body)
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    labels = {"kubernetes.io/service-name": "llama-update", "endpointslice.kubernetes.io/managed-by": "test"}
    endpoint = {"addresses": ["192.0.2.1"], "conditions": {"ready": True}}
    foreign = {"metadata": {"name": "foreign", "labels": labels}, "addressType": "IPv4", "endpoints": [endpoint]}
    cluster.create(slices, foreign)
    apply(workload, edited(body, "2"))
    update = wait_phase(workload, "Warming", timeout_s=30)["revision"]
    wait_message(workload, f"the endpoints of Service llama-update are not exactly the ready pods of {update}")
    time.sleep(2)
    assert (update_of(workload)["phase"], weights_written(proxied, route)) == ("Warming", [])
    assert cluster.request("DELETE", f"{slices}/foreign")[0] == 200
    wait_weight(workload, "Paused", 50)
    assert weights_written(proxied, route) == [50]


def test_an_abort_at_half_takes_everything_back(
    cluster: Cluster, gateway: Gateway, namespace: str, servers: ModelServers, proxied: Behind
) -> None:
    serves_quickly(servers, namespace)
    route, body = route_for(gateway, namespace, "llama"), routed("llama", PLAN)
    workload = start(cluster, namespace, body)
    untouched = left(workload)
    with Crowd(RouteAsked(route)) as crowd, watched(cluster, namespace) as seen:
        crowd.short(40)
        apply(workload, edited(body, "2"))
        update = wait_weight(workload, "Paused", 50)["revision"]
        assert answers(crowd, 50, cluster)[update] > 0
        verb(workload, "abort", update)
        wait_phase(workload, "Failed", "Aborted")
        assert objects(workload) == {untouched.revision}
        assert pods_of(workload, update) == []
        assert answers(crowd, 20, cluster).keys() == {untouched.revision}
    print(crowd.told())
    assert crowd.bad() == []
    assert weights_written(proxied, route) == [10, 50, 0]
    assert route.weights() == refs("llama")
    assert left(workload) == untouched
    assert seen.phases(workload) == {"Running"}


def test_who_applies_the_rules_owns_them_and_nothing_is_written(
    cluster: Cluster, gateway: Gateway, namespace: str, proxied: Behind
) -> None:
    route = route_for(gateway, namespace, "llama")
    body = routed("llama", AT_HALF, rollout={"progressDeadlineSeconds": 6})
    workload = start(cluster, namespace, body)
    untouched = left(workload)
    manifest = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "llama", "namespace": namespace},
        "spec": {**route.get()["spec"], "rules": [rule(refs("llama"), timeout="600s")]},
    }
    apply_it = ("apply", "--server-side", "--force-conflicts", "--field-manager=gitops", "--filename=-")
    cluster.kubectl(*apply_it, input=json.dumps(manifest))
    message = workload.wait_condition("Conflict", "True", "ForeignManager")
    assert message.startswith("gitops owns .spec.rules of HTTPRoute llama by server-side apply")
    before = route.get()
    proxied.mark()
    apply(workload, edited(body, "2"))
    update = update_of(workload).get("revision") or wait_phase(workload, "Starting")["revision"]
    wait_phase(workload, "Failed", "ProgressDeadlineExceeded")
    assert (objects(workload), pods_of(workload, update)) == ({untouched.revision}, [])
    assert [str(each) for each in proxied.proxy.exchanges() if each.is_write and each.path == route.path] == []
    after = route.get()
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert left(workload) == untouched
    assert workload.status()["phase"] == "Running"
    assert len(workload.told("ConflictDetected")) == 1


def test_a_route_that_is_deleted_in_mid_update_is_waited_for_and_taken_up_again(
    cluster: Cluster, gateway: Gateway, namespace: str, proxied: Behind
) -> None:
    route, body = route_for(gateway, namespace, "llama"), routed("llama", AT_HALF)
    workload = start(cluster, namespace, body)
    untouched = left(workload)
    apply(workload, edited(body, "2"))
    update = wait_weight(workload, "Paused", 50)["revision"]
    delete(route)
    assert "HTTPRoute llama does not exist" in workload.wait_condition("Stalled", "True", "RouteUnusable")
    verb(workload, "promote", update)
    wait_phase(workload, "Shifting")
    assert left(workload) == untouched, "what serves is kept, for the route may come back"
    again = route_for(gateway, namespace, "llama")  # as Git has it: everything to <service>
    assert wait_served(workload, "2", 2) == update
    assert again.weights() == refs("llama")
    workload.wait_condition("Stalled", "False")


def test_an_abort_ends_without_the_route_that_was_deleted(
    cluster: Cluster, gateway: Gateway, namespace: str, proxied: Behind
) -> None:
    route, body = route_for(gateway, namespace, "llama"), routed("llama", AT_HALF)
    workload = start(cluster, namespace, body)
    untouched = left(workload)
    apply(workload, edited(body, "2"))
    update = wait_weight(workload, "Paused", 50)["revision"]
    delete(route)
    workload.wait_condition("Stalled", "True", "RouteUnusable")
    verb(workload, "abort", update)
    wait_phase(workload, "Failed", "Aborted")
    assert (objects(workload), pods_of(workload, update)) == ({untouched.revision}, [])
    assert left(workload) == untouched


def delete(route: Route) -> None:
    status, answer = route.cluster.request("DELETE", route.path)
    assert status == 200, answer


def test_the_request_timeout_is_written_to_the_rule_and_a_rule_without_one_is_told_of(
    cluster: Cluster, gateway: Gateway, namespace: str, proxied: Behind
) -> None:
    wanted, foreign = (route_for(gateway, namespace, name, timeout=None) for name in ("wanted", "foreign"))
    one = routed("wanted", AT_HALF)
    one["spec"]["serving"]["requestTimeoutSeconds"] = 300
    first, second = (start(cluster, namespace, each) for each in (one, routed("foreign", AT_HALF)))
    cluster.wait_for(lambda: rule_of(wanted).get("timeouts") == {"request": "300s"}, "the time-out in the rule")
    assert wanted.weights() == refs("wanted")
    first.wait_condition("RequestTimeoutUnset", "False", "Set")
    message = second.wait_condition("RequestTimeoutUnset", "True", "GatewayDefault")
    assert "HTTPRoute foreign has no timeouts.request: Envoy Gateway then cuts every answer after 15 s" in message
    assert len(second.told("RequestTimeoutUnset")) == 1
    assert "timeouts" not in rule_of(foreign)
    one["spec"]["serving"]["requestTimeoutSeconds"] = 60
    revision = first.status()["currentRevision"]
    apply(first, one)
    cluster.wait_for(lambda: rule_of(wanted).get("timeouts") == {"request": "60s"}, "the other time-out")
    wanted.patch([{"op": "remove", "path": "/spec/rules/0/timeouts"}], "application/json-patch+json")
    cluster.wait_for(lambda: rule_of(wanted).get("timeouts") == {"request": "60s"}, "the repair")
    assert (first.status()["currentRevision"], first.status().get("updateRevision")) == (revision, None)
    foreign.patch(
        [{"op": "add", "path": "/spec/rules/0/timeouts", "value": {"request": "0s"}}], "application/json-patch+json"
    )
    second.wait_condition("RequestTimeoutUnset", "False", "Set")


def rule_of(route: Route) -> dict[str, object]:
    found: dict[str, object] = route.get()["spec"]["rules"][0]
    return found


def test_weights_that_drift_are_put_back(cluster: Cluster, gateway: Gateway, namespace: str, proxied: Behind) -> None:
    route, body = route_for(gateway, namespace, "llama"), routed("llama", AT_HALF)
    workload = start(cluster, namespace, body)
    route.set_weights(30, 70)
    cluster.wait_for(lambda: route.weights() == refs("llama"), "everything to go to the only revision")
    apply(workload, edited(body, "2"))
    update = wait_weight(workload, "Paused", 50)["revision"]
    for current in (100, 0):
        route.set_weights(current, 100 - current)
        cluster.wait_for(lambda: route.weights() == refs("llama", 50), "the step's weights to be back")
    route.set_weights(0, 0)
    cluster.wait_for(lambda: route.weights() == refs("llama", 50), "the step's weights to be back from nothing")
    assert wait_weight(workload, "Paused", 50)["revision"] == update
    verb(workload, "promote", update)
    wait_served(workload, "2", 2)
    assert route.weights() == refs("llama")


def test_a_revision_on_another_port_takes_over_behind_the_port_that_clients_know(
    cluster: Cluster, gateway: Gateway, namespace: str, servers: ModelServers, proxied: Behind
) -> None:
    serves_quickly(servers, namespace)
    route, body = route_for(gateway, namespace, "llama"), routed("llama", [])
    workload = start(cluster, namespace, body)
    other = edited(body, "2")
    other["spec"]["serving"]["port"] = 9000
    other["spec"]["serving"]["deployment"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 9000}]
    with Crowd(RouteAsked(route)) as crowd:
        crowd.short(40)
        assert answers(crowd, 20, cluster).total() >= 20
        apply(workload, other)
        update = wait_served(workload, "2", 2)
        assert answers(crowd, 20, cluster).keys() == {update}
    print(crowd.told())
    assert crowd.bad() == []
    service = cluster.get(f"/api/v1/namespaces/{namespace}/services/llama")["spec"]["ports"]
    assert [(each["port"], each["targetPort"]) for each in service] == [(8000, 9000)]
    cluster.wait_for(lambda: workload.status()["url"].endswith(".svc:8000"), "the address that clients know")


# --- demand that doubles meanwhile ---

DEMAND = {"minReplicas": 1, "maxReplicas": 6, "metric": "concurrency", "metricThreshold": 10}  # 7 a replica
FEW, MORE = 12, 14  # requests in flight: 2 replicas, and 4 with the others
LOADS_S = 10  # longer than a promotion takes: replicas that are only wanted are not ready by chance


def ready_of(workload: Workload, revision: str) -> int:
    """Ready pods of it that do not terminate, as the API server has them now."""
    return sum(
        "deletionTimestamp" not in each["metadata"]
        and any((at["type"], at["status"]) == ("Ready", "True") for at in each["status"].get("conditions", ()))
        for each in pods_of(workload, revision)
    )


def finishing(body: Body) -> Body:
    """Its pods, which the autoscaler takes away at any time, finish their requests first, as within a grace period."""
    for template in templates(body):
        template["metadata"]["annotations"]["pod-delete.stage.kwok.x-k8s.io/delay"] = "3s"
    return body


def wait_current(workload: Workload, revision: str) -> None:
    workload.cluster.wait_for(lambda: workload.status()["currentRevision"] == revision, "the update to be current", 90)


def test_argo_3372_the_last_switch_waits_for_the_replicas_that_a_doubled_demand_needs(
    cluster: Cluster, gateway: Gateway, namespace: str, servers: ModelServers, proxied: Behind
) -> None:
    serves_quickly(servers, namespace, 0.5)
    route, body = route_for(gateway, namespace, "llama"), finishing(routed("llama", AT_HALF, DEMAND))
    workload = start(cluster, namespace, body)
    with Crowd(RouteAsked(route)) as crowd:
        crowd.held(FEW, tokens=1)
        workload.wait_ready(2)
        apply(workload, edited(body, "2", ready_after_s=LOADS_S))
        update = wait_weight(workload, "Paused", 50)["revision"]
        crowd.held(MORE, tokens=1)
        cluster.wait_for(lambda: update_of(workload)["size"] >= 4, "the update to grow with the demand", 60)
        full = proxied.proxy.arm(
            Rule(Hold(), methods={"PATCH"}, path=f"{route.path}$", where=lambda each: percent_in(each) == 100)
        )
        verb(workload, "promote", update)
        early = ready_of(workload, update)
        full.wait_struck(60)
        ready = ready_of(workload, update)
        full.release()
        print(f"at the promotion {early} were ready: the others load for {LOADS_S} s")
        print(f"at the switch to 100 %: {ready} ready replicas for {FEW + MORE} requests in flight at 7 a replica")
        assert ready >= 4
        wait_current(workload, update)
    print(crowd.told())
    assert crowd.bad() == []
    assert weights_written(proxied, route) == [50, 100, 0]


def test_knative_16649_the_switch_waits_for_every_replica_that_the_demand_of_that_moment_needs(
    cluster: Cluster, gateway: Gateway, namespace: str, servers: ModelServers, proxied: Behind
) -> None:
    serves_quickly(servers, namespace, 0.5)
    route = Route(gateway, namespace, "llama", [rule({"llama": 1}, timeout="600s")])  # clients need an address only
    body = finishing(manifest("llama", DEMAND, rollout=rollout()))
    workload = start(cluster, namespace, body)
    with Crowd(RouteAsked(route)) as crowd:
        crowd.held(FEW, tokens=1)
        workload.wait_ready(2)
        other = edited(body, "2", ready_after_s=1)
        template = other["spec"]["serving"]["deployment"]["template"]
        template["metadata"]["annotations"]["pod-ready.stage.kwok.x-k8s.io/jitter-delay"] = "4s"  # one after the other
        switch = proxied.proxy.arm(Rule(Hold(), methods={"PATCH"}, path="/services/llama$", where=_selects))
        apply(workload, other)
        update = wait_phase(workload, "Starting")["revision"]
        verb(workload, "pause", update)
        wait_phase(workload, "Paused")
        crowd.held(MORE, tokens=1)
        workload.wait_ready(4)
        verb(workload, "resume", update)
        switch.wait_struck(60)
        ready = ready_of(workload, update)
        switch.release()
        print(f"at the switch: {ready} ready replicas for {FEW + MORE} requests in flight at 7 a replica")
        assert ready >= 4
        wait_served(workload, "2", 4)
    print(crowd.told())


def _selects(exchange: Exchange) -> bool:
    return "selector" in (exchange.json() or {}).get("spec", {})
