"""Traffic by Gateway API: the weights of two Services in one rule of an HTTPRoute.

The route is somebody else's; its rule names `<service>` and `<service>-update` as backends. Ours are their two
weights, the rule's `timeouts.request` where the workload asks for one, and the annotation with our epoch. Whoever
applies `rules` by server-side apply owns the whole list, and would undo every weight: there nothing is written.

`observe` and `edits` are functions of what was read; RouteTraffic sends the edits. Accepted means that the gateway's
controller has taken this generation of the route. It says nothing of the proxies: with Envoy Gateway 1.9 the status was
new while Envoy stood still. Who waits for traffic to be gone looks at the pods, too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from autoscaler.cluster.client import JSON_PATCH, KubeApi
from autoscaler.cluster.errors import Conflict, Foreign, NotFound, Refused
from autoscaler.cluster.fencing import epoch_of, stamp
from autoscaler.cluster.resources import (
    AS_OURSELVES,
    FIELD_MANAGER,
    HTTP_ROUTES,
    HTTPRoute,
    ManagedFields,
    ParentReference,
    RouteParent,
    RouteRule,
)
from rollouts import observed

WRITE_TRIES: Final = 3  # the gateway's controller writes the status under us
GATES: Final = ("Accepted", "ResolvedRefs")
FULL: Final = 100
MOST_OF_A_UNIT: Final = 99_999  # a duration of the Gateway API has at most five digits per unit
_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class RuleAddress:
    """Which rule of which route splits a workload's traffic. Without a rule's name, it must be the only one."""

    namespace: str
    route: str
    rule: str | None
    service: str
    update_service: str


class Weights(NamedTuple):
    """Of `<service>` and `<service>-update`; shares of their sum. Ours add up to 100."""

    current: int
    update: int


class Unusable(StrEnum):
    """Why a route cannot be used as it is."""

    NOT_INSTALLED = "GatewayAPINotInstalled"
    NO_ROUTE = "RouteNotFound"
    NO_RULE = "RuleNotFound"
    AMBIGUOUS = "RuleAmbiguous"
    NO_BACKEND = "BackendMissing"
    FOREIGN_MANAGER = "ForeignManager"


@dataclass(frozen=True, slots=True)
class UnusableRoute:
    """What a person would have to change."""

    reason: Unusable
    message: str
    percent: int | None = None  # that the update Service gets of it all the same; None: unknown
    accepted: bool = False  # by the Gateway, as it is


@dataclass(frozen=True, slots=True)
class ObservedRoute:
    """The workload's rule as last seen."""

    weights: Weights
    accepted: bool  # by every parent, at this generation, with every backend resolved
    waits_for: str  # what keeps it from being accepted; "" if nothing
    request_timeout: str | None  # of the rule, as it stands there; "0s" is none
    changed_by: str  # who wrote the rules last; "" if we did
    generation: int
    epoch: int | None  # of the leader that last stamped it


def observe(address: RuleAddress, route: HTTPRoute | None, installed: bool) -> ObservedRoute | UnusableRoute:
    """What the route says; `installed`: the API server knows HTTPRoutes."""
    if not installed:
        return UnusableRoute(Unusable.NOT_INSTALLED, "the Gateway API is not installed in this cluster", 0, True)
    if route is None:
        return UnusableRoute(Unusable.NO_ROUTE, f"HTTPRoute {address.route} does not exist", 0, True)
    place, waits_for = _find(address, route), _waits_for(route)
    if isinstance(place, UnusableRoute):
        return place if _leads_to(address, route) else replace(place, percent=0, accepted=not waits_for)
    if (owner := _applier(route)) is not None:
        return UnusableRoute(
            Unusable.FOREIGN_MANAGER,
            f"{owner} owns .spec.rules of HTTPRoute {address.route} by server-side apply and would undo weights: "
            "let it apply without server-side apply, and ignore the weights",
            update_percent(place.weights),
            not waits_for,
        )
    return ObservedRoute(
        weights=place.weights,
        accepted=not waits_for,
        waits_for=waits_for,
        request_timeout=place.rule.timeouts.request if place.rule.timeouts else None,
        changed_by=_changed_by(route),
        generation=route.metadata.generation,
        epoch=epoch_of(route.metadata),
    )


def update_percent(weights: Weights) -> int | None:
    """The update's share of what both get. None: neither gets anything.

    Only nothing is 0 and only everything is 100: what is between them is rounded to something between them.
    """
    both = weights.current + weights.update
    if both == 0:
        return None
    if 0 in weights:
        return FULL if weights.update else 0
    return min(FULL - 1, max(1, round(FULL * weights.update / both)))


def route_of(found: ObservedRoute | UnusableRoute) -> observed.ObservedRoute:
    """The same, as updates look at it."""
    if isinstance(found, UnusableRoute):
        return observed.ObservedRoute(found.percent, found.accepted, usable=False)
    return observed.ObservedRoute(update_percent(found.weights), found.accepted)


def timeout_warning(address: RuleAddress, seen: ObservedRoute, request_timeout_s: int | None) -> str | None:
    """What to tell where nobody has said how long an answer may take, and the gateway's own default cuts streams."""
    if request_timeout_s is not None or seen.request_timeout is not None:
        return None
    return (
        f"the rule of HTTPRoute {address.route} has no timeouts.request: Envoy Gateway then cuts every answer after "
        "15 s, streams too; set serving.requestTimeoutSeconds, or timeouts.request in the rule"
    )


def edits(
    address: RuleAddress, route: HTTPRoute, wanted: Weights, request_timeout_s: int | None
) -> list[dict[str, Any]] | UnusableRoute:
    """The JSON Patch that makes the rule so, [] where it is; it fails as a whole where anything of it has changed.

    The place in a list is all that a patch can say, and names need not be unique: so what stands there is tested.
    """
    place = _find(address, route)
    if isinstance(place, UnusableRoute):
        return place
    changes = [*_weight_changes(address, place, wanted), *_timeout_changes(place, request_timeout_s)]
    if not changes:
        return []
    metadata = route.metadata
    versions = (("uid", metadata.uid), ("resourceVersion", metadata.resource_version))
    tests = [_test(f"/metadata/{name}", value) for name, value in (*versions, ("generation", metadata.generation))]
    if place.rule.name is not None:
        tests.append(_test(f"{place.path}/name", place.rule.name))
    return [*tests, *changes]


class RouteTraffic:
    """Writes the weights of one workload: the driver's port `Route`."""

    def __init__(
        self,
        api: KubeApi,
        address: RuleAddress,
        observed: Callable[[], HTTPRoute | None],
        wrote: Callable[[HTTPRoute], None],
        epoch: int,
        request_timeout_s: int | None = None,
    ) -> None:
        """`observed`: the route as it was looked at; `wrote` is given what the server answered; `epoch` is the present
        leader's; `request_timeout_s`: written with the weights (None: stays as it is)."""
        self._api = api
        self._address = address
        self._path = HTTP_ROUTES.path(address.namespace, address.route)
        self._observed = observed
        self._wrote = wrote
        self._epoch = epoch
        self._request_timeout_s = request_timeout_s

    async def weigh(self, update_percent: int, seen: int | None) -> None:
        """Where the weights are still what was seen. Raises Conflict where they are not, Foreign where another applies
        the rules, and NotFound where the route, the rule or a backend is missing."""
        found = observe(self._address, self._observed(), installed=True)
        if isinstance(found, UnusableRoute):
            foreign = found.reason is Unusable.FOREIGN_MANAGER
            raise Foreign(found.message) if foreign else NotFound(found.message)
        if route_of(found).weight != seen:
            raise Conflict(f"the weights of HTTPRoute {self._address.route} have changed since they were looked at")
        await self.split(Weights(FULL - update_percent, update_percent))

    async def stamp(self) -> None:
        """Makes the route carry the epoch: no weights that an earlier leader sent take effect any more."""
        there = self._observed()
        if there is None or isinstance(observe(self._address, there, installed=True), UnusableRoute):
            return
        if epoch_of(there.metadata) != self._epoch:
            with contextlib.suppress(NotFound):  # gone meanwhile: nothing that was sent for it takes effect
                answer = await stamp(self._api, self._path, there.metadata, self._epoch)
                self._wrote(msgspec.json.decode(answer, type=HTTPRoute))

    async def split(self, wanted: Weights) -> None:
        """Makes the rule have these weights, and our time-out.

        Tried again where only the status or annotations have changed. Raises Conflict where the route is not what was
        looked at, and Refused where the API server says that the values are wrong.
        """
        there = self._observed()
        if there is None:
            raise Conflict(f"HTTPRoute {self._address.route} is gone since it was looked at")
        generation = there.metadata.generation
        for _ in range(WRITE_TRIES):
            seen = observe(self._address, there, installed=True)
            if isinstance(seen, UnusableRoute):
                raise Conflict(seen.message)
            if (seen.epoch or 0) > self._epoch or seen.generation != generation:
                raise Conflict(f"HTTPRoute {self._address.route} has changed since it was looked at")
            latest = await self._send(there, wanted)
            if latest is None:
                return
            there = latest
        raise Conflict(f"HTTPRoute {self._address.route} changed {WRITE_TRIES} times under the write of its weights")

    async def _send(self, there: HTTPRoute, wanted: Weights) -> HTTPRoute | None:
        """None: done. Else the route as it is now, which is not what the edits were made for.

        A test that failed and a value that is wrong are both 422, without a word that tells them apart; but only the
        first comes with another version.
        """
        patch = edits(self._address, there, wanted, self._request_timeout_s)
        if not patch:
            return None
        try:
            answer = await self._api.call("PATCH", self._path, params=AS_OURSELVES, body=patch, content_type=JSON_PATCH)
        except (Conflict, Refused) as error:
            latest = msgspec.json.decode(await self._api.call("GET", self._path), type=HTTPRoute)
            if isinstance(error, Refused) and latest.metadata.resource_version == there.metadata.resource_version:
                raise
            if latest.metadata.uid != there.metadata.uid:
                raise Conflict(f"HTTPRoute {self._address.route} is another one than was looked at") from error
            return latest
        self._wrote(msgspec.json.decode(answer, type=HTTPRoute))
        return None


# --- the rule ---


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the rule and our two backends are."""

    rule: RouteRule
    path: str  # of the rule, as JSON Pointer
    current: int
    update: int
    weights: Weights


def _find(address: RuleAddress, route: HTTPRoute) -> _Place | UnusableRoute:
    rules = route.spec.rules or []
    found = [at for at, rule in enumerate(rules) if address.rule is None or rule.name == address.rule]
    if not found:
        what = f"rule named {address.rule}" if address.rule else "rule"
        return UnusableRoute(Unusable.NO_RULE, f"HTTPRoute {address.route} has no {what}")
    if len(found) > 1:
        what = f"{len(found)} rules named {address.rule}" if address.rule else f"{len(found)} rules: name one"
        return UnusableRoute(Unusable.AMBIGUOUS, f"HTTPRoute {address.route} has {what}")
    (at,) = found
    current, update = (_backend(address, rules[at], each) for each in (address.service, address.update_service))
    if isinstance(current, UnusableRoute):
        return current
    if isinstance(update, UnusableRoute):
        return update
    refs = rules[at].backend_refs or []
    weights = Weights(refs[current].weight, refs[update].weight)
    return _Place(rules[at], f"/spec/rules/{at}", current, update, weights)


def _backend(address: RuleAddress, rule: RouteRule, service: str) -> int | UnusableRoute:
    """The place of the one backend that is this Service."""
    wanted = ("", "Service", service)
    found = [
        at
        for at, ref in enumerate(rule.backend_refs or [])
        if (ref.group, ref.kind, ref.name) == wanted and (ref.namespace or address.namespace) == address.namespace
    ]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"the rule of HTTPRoute {address.route} has {len(found)} backendRefs to Service {service}: keep one"
        return UnusableRoute(Unusable.AMBIGUOUS, message)
    message = f"the rule of HTTPRoute {address.route} has no backendRef to Service {service}: add one with weight 0"
    return UnusableRoute(Unusable.NO_BACKEND, message)


def _leads_to(address: RuleAddress, route: HTTPRoute) -> bool:
    """Does any rule give the update Service a share?"""
    refs = (ref for rule in route.spec.rules or [] for ref in rule.backend_refs or [])
    return any(ref.name == address.update_service and ref.weight > 0 for ref in refs)


def _weight_changes(address: RuleAddress, place: _Place, wanted: Weights) -> Iterator[dict[str, Any]]:
    """Both backends are tested even where one changes."""
    if place.weights == wanted:
        return
    names = (address.service, address.update_service)
    for at, name, before, after in zip((place.current, place.update), names, place.weights, wanted, strict=True):
        path = f"{place.path}/backendRefs/{at}"
        yield _test(f"{path}/name", name)
        yield _test(f"{path}/weight", before)
        if before != after:
            yield {"op": "replace", "path": f"{path}/weight", "value": after}


def _timeout_changes(place: _Place, request_timeout_s: int | None) -> Iterator[dict[str, Any]]:
    there = place.rule.timeouts
    if request_timeout_s is None or (there and there.request and seconds_of(there.request) == request_timeout_s):
        return
    value = duration(request_timeout_s)
    if there is None:
        yield {"op": "add", "path": f"{place.path}/timeouts", "value": {"request": value}}
    else:
        yield {"op": "add", "path": f"{place.path}/timeouts/request", "value": value}  # replaces one that is there


def _test(path: str, value: object) -> dict[str, Any]:
    return {"op": "test", "path": path, "value": value}


def duration(seconds: int) -> str:
    """As the Gateway API writes it: `duration(600) == "600s"`; `duration(100_000) == "27h46m40s"`."""
    if seconds <= MOST_OF_A_UNIT:
        return f"{seconds}s"
    hours, rest = divmod(seconds, 3600)
    return f"{hours}h{rest // 60}m{rest % 60}s"


def seconds_of(text: str) -> float | None:
    """`seconds_of("1m30s") == 90.0`; None for what is no duration."""
    if not re.fullmatch(r"(?:[0-9]{1,5}(?:h|ms|m|s)){1,4}", text):
        return None
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"([0-9]+)(h|ms|m|s)", text))


# --- who has taken it, who has written it ---


def _waits_for(route: HTTPRoute) -> str:
    """What is missing until every parent has accepted this generation; "" where nothing is.

    A parent has one controller; what another one has said of it is a leftover.
    """
    parents = route.spec.parent_refs or []
    if not parents:
        return "the route has no parentRefs"
    for wanted in parents:
        entries = [each for each in route.status.parents or [] if _same(route, each.parent_ref, wanted)]
        missing = [_missing(route, entry) for entry in entries]
        if "" not in missing:
            return f"{wanted.kind} {wanted.name}: {missing[0] if missing else 'no controller has taken the route'}"
    return ""


def _same(route: HTTPRoute, one: ParentReference, other: ParentReference) -> bool:
    own = route.metadata.namespace

    def key(ref: ParentReference) -> tuple[object, ...]:
        return (ref.group, ref.kind, ref.namespace or own, ref.name, ref.section_name, ref.port)

    return key(one) == key(other)


def _missing(route: HTTPRoute, parent: RouteParent) -> str:
    conditions = {each.type: each for each in parent.conditions or []}
    for gate in GATES:
        condition = conditions.get(gate)
        if condition is None or condition.observed_generation < route.metadata.generation:
            return f"{gate} is not told for generation {route.metadata.generation}"
        if condition.status != "True":
            return f"{gate} is {condition.status}: {condition.reason}: {condition.message}"
    return ""


class _Rules(msgspec.Struct):
    rules: dict[str, object] | None = msgspec.field(name="f:rules", default=None)


class _Fields(msgspec.Struct):
    spec: _Rules = msgspec.field(name="f:spec", default_factory=_Rules)


def _writers(route: HTTPRoute) -> list[ManagedFields]:
    """Who owns `.spec.rules`: the list is atomic, so whoever changes a part of it takes it from all others."""
    return [each for each in route.metadata.managed_fields or () if _holds_rules(each)]


def _holds_rules(entry: ManagedFields) -> bool:
    try:
        return msgspec.json.decode(entry.fields_v1, type=_Fields).spec.rules is not None
    except msgspec.DecodeError:  # of a kind that is not FieldsV1
        return False


def _applier(route: HTTPRoute) -> str | None:
    """Another manager that applies the rules."""
    names = [each.manager for each in _writers(route) if each.operation == "Apply" and each.manager != FIELD_MANAGER]
    return min(names, default=None)


def _changed_by(route: HTTPRoute) -> str:
    writers = _writers(route)
    if any(each.manager == FIELD_MANAGER for each in writers):
        return ""
    return max(writers, key=lambda each: each.time).manager if writers else "an unknown manager"
