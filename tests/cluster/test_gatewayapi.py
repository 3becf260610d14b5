"""What an HTTPRoute says of a workload's traffic, and which patch changes it: values in, values out."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.resources import EndpointSlice, HTTPRoute, Service
from autoscaler.cluster.traffic import service as service_traffic
from autoscaler.cluster.traffic.gatewayapi import (
    ObservedRoute,
    RuleAddress,
    UnusableRoute,
    Weights,
    duration,
    edits,
    observe,
    route_of,
    seconds_of,
    timeout_warning,
)
from autoscaler.cluster.traffic.service import ready_pods
from rollouts import observed
from tests.cluster.routes import ADDRESS, GATEWAY, GOOD, RULES, owner, parent, ref, route, serving, told

OTHER = {"name": "docs", "backendRefs": [ref("docs"), ref("llama", 5)]}
UNNAMED = RuleAddress("ml", "front", None, "llama", "llama-update")


def seen(there: HTTPRoute, address: RuleAddress = ADDRESS) -> ObservedRoute:
    found = observe(address, there, installed=True)
    assert isinstance(found, ObservedRoute), found
    return found


def test_the_weights_are_those_of_the_named_rule() -> None:
    found = seen(route(OTHER, serving(90, 10), annotations={"tidegate.dev/epoch": "4"}))
    assert found == ObservedRoute(Weights(90, 10), True, "", None, "kubectl-create", 3, 4)


def test_without_a_rules_name_it_is_the_only_one() -> None:
    assert seen(route(serving(7, 3)), UNNAMED).weights == Weights(7, 3)


def test_a_backend_without_a_weight_has_the_default() -> None:
    rule = {"name": "serving", "backendRefs": [ref("llama"), ref("llama-update", 0)]}
    assert seen(route(rule)).weights == Weights(1, 0)


@pytest.mark.parametrize(
    ("there", "address", "reason", "says"),
    [
        (None, ADDRESS, "RouteNotFound", "HTTPRoute front does not exist"),
        (route(OTHER), ADDRESS, "RuleNotFound", "no rule named serving"),
        (route(), UNNAMED, "RuleNotFound", "HTTPRoute front has no rule"),
        (route(OTHER, serving(1, 0)), UNNAMED, "RuleAmbiguous", "2 rules: name one"),
        (route(serving(1, 0), serving(1, 0)), ADDRESS, "RuleAmbiguous", "2 rules named serving"),
        (
            route({"name": "serving", "backendRefs": [ref("llama")]}),
            ADDRESS,
            "BackendMissing",
            "no backendRef to Service llama-update: add one with weight 0",
        ),
        (
            route({"name": "serving", "backendRefs": [ref("llama"), ref("llama"), ref("llama-update")]}),
            ADDRESS,
            "RuleAmbiguous",
            "2 backendRefs to Service llama: keep one",
        ),
        (
            route({"name": "serving", "backendRefs": [ref("llama", namespace="other"), ref("llama-update")]}),
            ADDRESS,
            "BackendMissing",
            "no backendRef to Service llama:",
        ),
        (
            route({"name": "serving", "backendRefs": [ref("llama", kind="InferencePool", group="x"), ref("y")]}),
            ADDRESS,
            "BackendMissing",
            "no backendRef to Service llama:",
        ),
    ],
)
def test_a_route_that_cannot_be_used_says_why(
    there: HTTPRoute | None, address: RuleAddress, reason: str, says: str
) -> None:
    found = observe(address, there, installed=True)
    assert isinstance(found, UnusableRoute)
    assert (found.reason.value, says in found.message) == (reason, True), found


def test_a_cluster_without_the_gateway_api_is_a_value() -> None:
    found = observe(ADDRESS, None, installed=False)
    assert isinstance(found, UnusableRoute)
    assert (found.reason.value, found.message) == (
        "GatewayAPINotInstalled",
        "the Gateway API is not installed in this cluster",
    )


@pytest.mark.parametrize(
    ("others", "waits_for"),
    [
        ({"parents": [parent(GOOD, group="gateway.networking.k8s.io", kind="Gateway")]}, ""),
        ({"parents": []}, "Gateway gateway: no controller has taken the route"),
        ({"parents": [parent(GOOD, name="other")]}, "Gateway gateway: no controller has taken the route"),
        ({"parents": [parent(GOOD, sectionName="https")]}, "Gateway gateway: no controller has taken the route"),
        ({"parents": [parent(told(2, Accepted="True", ResolvedRefs="True"))]}, "Accepted is not told for generation 3"),
        ({"parents": [parent(told(3, Accepted="True"))]}, "ResolvedRefs is not told for generation 3"),
        ({"parents": [parent(told(3, Accepted="False", ResolvedRefs="True"))]}, "Accepted is False: R: M"),
        ({"parents": [parent(told(3, Accepted="True", ResolvedRefs="Unknown"))]}, "ResolvedRefs is Unknown: R: M"),
        ({"parents": [parent(told(1, Accepted="False")), parent(GOOD)]}, ""),  # a leftover of another controller
        ({"parent_refs": [GATEWAY, {"name": "second"}]}, "Gateway second: no controller has taken the route"),
        ({"parent_refs": []}, "the route has no parentRefs"),
    ],
)
def test_accepted_is_by_every_parent_at_this_generation(others: dict[str, Any], waits_for: str) -> None:
    found = seen(route(serving(100, 0), **others))
    assert found.accepted is (waits_for == "")
    assert found.waits_for.endswith(waits_for)


@pytest.mark.parametrize(
    ("managed", "changed_by"),
    [
        ([owner("kubectl-edit", "Update", RULES)], "kubectl-edit"),
        ([owner("tidegate", "Update", RULES), owner("kubectl-create", "Update", {"f:metadata": {}})], ""),
        (
            [owner("a", "Update", RULES, "2026-01-01T00:00:00Z"), owner("b", "Update", RULES, "2026-01-02T00:00:00Z")],
            "b",
        ),
        ([owner("tidegate", "Apply", RULES)], ""),
        ([owner("gitops", "Apply", {"f:spec": {"f:hostnames": {}}})], "an unknown manager"),
        ([], "an unknown manager"),
    ],
)
def test_who_wrote_the_rules_last(managed: list[dict[str, Any]], changed_by: str) -> None:
    assert seen(route(serving(100, 0), managed=managed)).changed_by == changed_by


def test_another_one_that_applies_the_rules_is_named() -> None:
    managed = [owner("tidegate", "Update", RULES), owner("gitops", "Apply", RULES)]
    found = observe(ADDRESS, route(serving(100, 0), managed=managed), installed=True)
    assert isinstance(found, UnusableRoute)
    assert found.reason.value == "ForeignManager"
    assert found.message.startswith("gitops owns .spec.rules of HTTPRoute front by server-side apply")


# --- the patch ---


def applied(body: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """As the API server does it: all or nothing (RFC 6902 for what we use of it)."""
    after = copy.deepcopy(body)
    for operation in patch:
        *way, last = operation["path"].lstrip("/").split("/")
        at: Any = after
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        key = int(last) if isinstance(at, list) else last
        if operation["op"] == "test":
            if at[key] != operation["value"]:
                raise ValueError(operation)
        else:
            at[key] = operation["value"]
    return after


def body_of(there: HTTPRoute) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(there))
    return body


def patch_of(there: HTTPRoute, wanted: Weights, timeout_s: int | None = None) -> list[dict[str, Any]]:
    found = edits(ADDRESS, there, wanted, timeout_s)
    assert isinstance(found, list)
    return found


def test_a_patch_tests_all_that_it_relies_on() -> None:
    rule = "/spec/rules/1"
    assert patch_of(route(OTHER, serving(100, 0)), Weights(90, 10)) == [
        {"op": "test", "path": "/metadata/uid", "value": "u1"},
        {"op": "test", "path": "/metadata/resourceVersion", "value": "41"},
        {"op": "test", "path": "/metadata/generation", "value": 3},
        {"op": "test", "path": f"{rule}/name", "value": "serving"},
        {"op": "test", "path": f"{rule}/backendRefs/0/name", "value": "llama"},
        {"op": "test", "path": f"{rule}/backendRefs/0/weight", "value": 100},
        {"op": "replace", "path": f"{rule}/backendRefs/0/weight", "value": 90},
        {"op": "test", "path": f"{rule}/backendRefs/1/name", "value": "llama-update"},
        {"op": "test", "path": f"{rule}/backendRefs/1/weight", "value": 0},
        {"op": "replace", "path": f"{rule}/backendRefs/1/weight", "value": 10},
    ]


def test_what_is_as_wanted_is_not_written() -> None:
    assert patch_of(route(serving(90, 10)), Weights(90, 10)) == []
    assert patch_of(route(serving(90, 10, timeouts={"request": "1m30s"})), Weights(90, 10), 90) == []


@pytest.mark.parametrize(
    ("there", "path", "value"),
    [
        (route(serving(1, 0)), "/spec/rules/0/timeouts", {"request": "600s"}),
        (route(serving(1, 0, timeouts={"backendRequest": "9s"})), "/spec/rules/0/timeouts/request", "600s"),
        (route(serving(1, 0, timeouts={"request": "0s"})), "/spec/rules/0/timeouts/request", "600s"),
    ],
)
def test_the_request_timeout_is_written_to_the_rule(there: HTTPRoute, path: str, value: object) -> None:
    assert patch_of(there, Weights(1, 0), 600)[-1] == {"op": "add", "path": path, "value": value}


def test_a_rule_without_any_timeout_is_worth_a_warning() -> None:
    silent, said = seen(route(serving(1, 0))), seen(route(serving(1, 0, timeouts={"request": "0s"})))
    warning = timeout_warning(ADDRESS, silent, None)
    assert warning is not None
    assert "cuts every answer after 15 s" in warning
    assert timeout_warning(ADDRESS, silent, 600) is None
    assert timeout_warning(ADDRESS, said, None) is None


refs_of_others = st.lists(st.sampled_from(["docs", "mirror", "llama-8b", "llama-updates"]), max_size=3, unique=True)


@given(
    before=st.tuples(st.integers(0, 1_000_000), st.integers(0, 1_000_000)),
    after=st.integers(0, 100),
    others=refs_of_others,
    rules=st.integers(0, 3),
    at=st.integers(0, 3),
    swapped=st.booleans(),
)
def test_only_our_two_weights_change_wherever_they_stand(
    before: tuple[int, int], after: int, others: list[str], rules: int, at: int, swapped: bool
) -> None:
    ours = [ref("llama", before[0]), ref("llama-update", before[1])]
    refs = [*(ref(name, 3) for name in others), *(reversed(ours) if swapped else ours)]
    every: list[dict[str, Any]] = [OTHER for _ in range(rules)]
    every.insert(min(at, rules), {"name": "serving", "backendRefs": refs})
    there, wanted = route(*every), Weights(100 - after, after)
    body = body_of(there)
    changed = applied(body, patch_of(there, wanted))
    expected = copy.deepcopy(body)
    for each in expected["spec"]["rules"][min(at, rules)]["backendRefs"]:
        if each["name"] in ("llama", "llama-update"):
            each["weight"] = wanted.current if each["name"] == "llama" else wanted.update
    assert changed == expected


@pytest.mark.parametrize(
    "moved",
    [
        lambda body: body["metadata"].update(resourceVersion="42"),
        lambda body: body["metadata"].update(uid="u2"),
        lambda body: body["spec"]["rules"].insert(0, OTHER),
        lambda body: body["spec"]["rules"][0]["backendRefs"].reverse(),
        lambda body: body["spec"]["rules"][0]["backendRefs"][0].update(weight=99),
    ],
)
def test_a_patch_for_another_state_changes_nothing(moved: Any) -> None:
    there = route(serving(100, 0), OTHER)
    body = body_of(there)
    moved(body)
    with pytest.raises((ValueError, KeyError)):
        applied(body, patch_of(there, Weights(0, 100)))


# --- durations ---


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (600, "600s"), (99_999, "99999s"), (100_000, "27h46m40s"), (108_000, "30h0m0s")]
)
def test_durations_are_written_as_the_gateway_api_reads_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(("text", "seconds"), [("1h30m", 5400.0), ("250ms", 0.25), ("15", None), ("-1s", None)])
def test_durations_of_others_are_read(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


# --- EndpointSlices ---


def slice_of(*endpoints: dict[str, Any]) -> EndpointSlice:
    return msgspec.convert({"metadata": {"name": "x"}, "endpoints": list(endpoints)}, EndpointSlice)


def pod(name: str, ready: bool | None = True) -> dict[str, Any]:
    return {"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": name}}


def test_slices_name_the_pods_that_they_call_ready() -> None:
    assert ready_pods([slice_of(pod("a"), pod("b", None)), slice_of(pod("c", False), pod("a"))]) == {"a", "b"}


def test_an_address_that_is_no_pods_is_somebody_else() -> None:
    assert ready_pods([slice_of(pod("a"), {"addresses": ["10.9.9.9"]})]) == {"a", "address 10.9.9.9"}


def test_a_service_without_slices_leads_nobody_knows_where() -> None:
    service = msgspec.convert({"metadata": {"name": "llama"}}, Service)
    assert service_traffic.observe("llama", service).endpoints is None
    empty = msgspec.convert({"metadata": {}, "endpoints": None}, EndpointSlice)
    assert service_traffic.observe("llama", service, [empty]).endpoints == frozenset()
    assert service_traffic.observe("llama", service, [slice_of(pod("a"))]).endpoints == frozenset({"a"})


@pytest.mark.parametrize(
    ("weights", "percent"),
    [
        ((90, 10), 10),
        ((100, 0), 0),
        ((0, 100), 100),
        ((0, 1), 100),
        ((1, 1), 50),
        ((2, 1), 33),
        ((999_999, 1), 1),
        ((1, 999_999), 99),
        ((0, 0), None),
    ],
)
def test_the_update_s_share_is_none_or_all_only_where_it_is(weights: tuple[int, int], percent: int | None) -> None:
    assert route_of(seen(route(serving(*weights)))) == observed.ObservedRoute(percent, accepted=True)


def test_what_cannot_be_used_has_no_weight() -> None:
    found = observe(ADDRESS, route(OTHER), installed=True)
    assert route_of(found) == observed.ObservedRoute(0, accepted=True, usable=False), "nobody is sent to the update"
    renamed = observe(ADDRESS, route({**serving(70, 30), "name": "other"}), installed=True)
    assert route_of(renamed) == observed.ObservedRoute(None, accepted=False, usable=False), "somebody may be"


def test_a_route_that_does_not_exist_sends_nobody() -> None:
    for installed in (True, False):
        found = route_of(observe(ADDRESS, None, installed))
        assert found == observed.ObservedRoute(0, accepted=True, usable=False)


def test_weights_that_are_somebody_else_s_are_known_all_the_same() -> None:
    managed = [owner("gitops", "Apply", RULES)]
    found = observe(ADDRESS, route(serving(70, 30), managed=managed), installed=True)
    assert isinstance(found, UnusableRoute)
    assert route_of(found) == observed.ObservedRoute(30, accepted=True, usable=False)
