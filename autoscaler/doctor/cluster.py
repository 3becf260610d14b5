"""Is the API server there, does it know our kinds in this version, and may we do what we have to?"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError, NotFound
from autoscaler.cluster.inferenceworkload import API_VERSION
from autoscaler.cluster.resources import GROUP
from autoscaler.doctor.findings import Finding, Level

AT_ONCE: Final = 16
MOST_NAMESPACES: Final = 20  # of those watched, whose rights are asked for
NAMED_FIELDS: Final = 5
OPTIONAL: Final = frozenset({"leaderworkerset.x-k8s.io", "keda.sh", "gateway.networking.k8s.io"})
_READ: Final = ("list", "watch")
_OWN: Final = ("get", "list", "watch", "create", "patch")
# As the chart grants them: (API group, resource, verbs). A test holds the two together.
RIGHTS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    (GROUP, "inferenceworkloads", ("get", "list", "watch")),
    (GROUP, "inferenceworkloads/status", ("patch",)),
    ("apps", "deployments", (*_OWN, "delete")),
    ("apps", "deployments/scale", ("get", "patch")),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", (*_OWN, "delete")),
    ("leaderworkerset.x-k8s.io", "leaderworkersets/scale", ("get", "patch")),
    ("apps", "controllerrevisions", ("get", "list", "watch", "create", "delete")),
    ("", "pods", (*_READ, "delete")),
    ("", "services", _OWN),
    ("gateway.networking.k8s.io", "httproutes", ("get", *_READ, "patch")),
    ("discovery.k8s.io", "endpointslices", ("list", "watch")),
    ("autoscaling", "horizontalpodautoscalers", _READ),
    ("keda.sh", "scaledobjects", _READ),
    ("events.k8s.io", "events", ("create",)),
)
LEASE_RIGHTS: Final = ("create", "get", "patch")
LEDGER_RIGHTS: Final = ("get", "list", "create", "update")  # in the Lease's namespace


@dataclass(frozen=True, slots=True)
class Lease:
    """By which one daemon of several leads."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Right:
    group: str
    resource: str  # with its subresource: deployments/scale
    verb: str
    namespace: str = ""  # "" is all
    name: str = ""

    def attributes(self) -> dict[str, str]:
        resource, _, subresource = self.resource.partition("/")
        asked = {"group": self.group, "resource": resource, "subresource": subresource, "verb": self.verb}
        return {**asked, "namespace": self.namespace, "name": self.name}


async def check_server(api: KubeApi, host: str) -> list[Finding]:
    try:
        version = msgspec.json.decode(await api.call("GET", "/version"), type=dict[str, Any])
        who = await _who(api)
    except ApiError as error:
        fix = "is it the right kubeconfig (--kubeconfig), are its credentials still valid? try: kubectl version"
        return [Finding(Level.ERROR, "API server", host, str(error.message), fix)]
    return [Finding(Level.OK, "API server", host, f"Kubernetes {version.get('gitVersion', '?')}, we are {who}")]


async def _who(api: KubeApi) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await api.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=body)
    except NotFound:  # older than 1.28
        return "somebody whom this API server does not name"
    name: str = msgspec.json.decode(answer)["status"]["userInfo"]["username"]
    return name


async def check_definitions(api: KubeApi, shipped: Mapping[str, Any]) -> list[Finding]:
    """`shipped`: the schema of InferenceWorkload in this version. Compared field by field, by name."""
    kind, path = "InferenceWorkload", f"/openapi/v3/apis/{API_VERSION}"
    apply = "tidegate crd | kubectl apply --server-side -f -"
    try:
        served = msgspec.json.decode(await api.call("GET", path), type=dict[str, Any])
    except NotFound:
        return [Finding(Level.ERROR, "definitions", kind, f"the API server does not know {API_VERSION}", apply)]
    schemas = (served.get("components") or {}).get("schemas") or {}
    there: Mapping[str, Any] = next((each for name, each in schemas.items() if name.endswith(f".{kind}")), {})
    ours, theirs = set(fields_of(shipped)), set(fields_of(there))
    if missing := sorted(ours - theirs):
        message = f"is of another version: it lacks {_some(missing)}; what is written there is lost"
        return [Finding(Level.ERROR, "definitions", kind, message, apply)]
    if more := sorted(theirs - ours):
        message = f"is of a newer version: it has {_some(more)}, which this version ignores"
        return [Finding(Level.WARNING, "definitions", kind, message, "upgrade tidegate, or run its newer doctor")]
    return [Finding(Level.OK, "definitions", kind, f"{API_VERSION} is served, with every field of this version")]


def fields_of(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """`spec.autoscaling.metric` and so on, without metadata, which is Kubernetes's own."""
    for name, below in (schema.get("properties") or {}).items():
        if path or name not in ("metadata", "apiVersion", "kind"):
            yield f"{path}{name}"
            yield from fields_of(below, f"{path}{name}.")
    if isinstance(schema.get("items"), Mapping):
        yield from fields_of(schema["items"], path)


def _some(fields: Sequence[str]) -> str:
    return ", ".join(fields[:NAMED_FIELDS]) + (
        f" and {len(fields) - NAMED_FIELDS} more" if len(fields) > NAMED_FIELDS else ""
    )


def rights(
    namespaces: Sequence[str], lease: Lease, targets: Sequence[tuple[str, str]], nodes: bool = False
) -> list[Right]:
    """All that the daemon needs, in these namespaces (none: everywhere) and for its Lease.

    `targets`: (API group, resource) of the kinds that workloads may name by targetRef. `nodes`: it reads nodes.
    """
    places = list(namespaces)[:MOST_NAMESPACES] or [""]
    of_targets = [
        right
        for group, resource in targets
        for right in ((group, resource, _READ), (group, f"{resource}/scale", ("get", "patch")))
    ]
    needed = [
        Right(group, resource, verb, place)
        for place in places
        for group, resource, verbs in (*RIGHTS, *of_targets)
        for verb in verbs
    ]
    needed += [Right("", "nodes", verb) for verb in _READ if nodes]
    needed = list(dict.fromkeys(needed))  # what is ours may be a target, too
    leases = [
        Right("coordination.k8s.io", "leases", verb, lease.namespace, "" if verb == "create" else lease.name)
        for verb in LEASE_RIGHTS
    ]
    ledgers = [Right(GROUP, "quotaledgers", verb, lease.namespace) for verb in LEDGER_RIGHTS]
    return needed + leases + ledgers


async def check_rights(
    api: KubeApi,
    namespaces: Sequence[str],
    lease: Lease,
    targets: Sequence[tuple[str, str]],
    service_account: str | None,
    nodes: bool = False,
) -> list[Finding]:
    """Ours, or those of a ServiceAccount (`namespace/name`), each asked of the API server."""
    needed = rights(namespaces, lease, targets, nodes)
    whose = f"ServiceAccount {service_account}" if service_account else "ours"
    gate = asyncio.Semaphore(AT_ONCE)

    async def granted(right: Right) -> bool:
        async with gate:
            return await _may(api, right, service_account)

    try:
        answers = await asyncio.gather(*(granted(each) for each in needed))
    except ApiError as error:
        fix = "only who may create subjectaccessreviews can ask for another: leave --service-account out"
        return [Finding(Level.ERROR, "rights", whose, str(error.message), fix if service_account else "")]
    refused = [right for right, may in zip(needed, answers, strict=True) if not may]
    if not refused:
        return [Finding(Level.OK, "rights", whose, f"all {len(needed)} rights that the chart grants")]
    return [*_missing(refused, whose)]


def _missing(refused: Sequence[Right], whose: str) -> Iterator[Finding]:
    """One line for each resource and namespace."""
    verbs: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for right in refused:
        verbs[right.group, right.resource, right.namespace].append(right.verb)
    for (group, resource, namespace), missing in verbs.items():
        of = f"{resource}.{group}" if group else resource
        where = f"in namespace {namespace}" if namespace else "in all namespaces"
        level = Level.WARNING if group in OPTIONAL else Level.ERROR
        fix = (
            "helm upgrade with rbac.create=true and config.watch.namespaces as they are, or bind the chart's Role to it"
        )
        yield Finding(level, "rights", whose, f"may not {', '.join(missing)} {of} {where}", fix)


async def _may(api: KubeApi, right: Right, service_account: str | None) -> bool:
    kind, who = "SelfSubjectAccessReview", {}
    if service_account:
        namespace, _, name = service_account.partition("/")
        kind = "SubjectAccessReview"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        who = {"user": f"system:serviceaccount:{namespace}:{name}", "groups": groups}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": kind,
        "spec": {**who, "resourceAttributes": right.attributes()},
    }
    answer = await api.call("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", body=body)
    return msgspec.json.decode(answer)["status"].get("allowed") is True
