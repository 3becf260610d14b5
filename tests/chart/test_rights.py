"""What the daemon may do, asked of the API server with the daemon's own token: that, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.chart.derived import CHART
from tests.chart.install import Installed, install, run_helm, uninstall
from tests.realcluster.cluster import Cluster

Right = tuple[str, str, str]

USED: set[Right] = {
    ("tidegate.dev", "inferenceworkloads", "get"),
    ("tidegate.dev", "inferenceworkloads", "list"),
    ("tidegate.dev", "inferenceworkloads", "watch"),
    ("tidegate.dev", "inferenceworkloads/status", "patch"),
    ("apps", "deployments", "get"),
    ("apps", "deployments", "list"),
    ("apps", "deployments", "watch"),
    ("apps", "deployments", "create"),
    ("apps", "deployments", "patch"),
    ("apps", "deployments", "delete"),
    ("apps", "deployments/scale", "get"),
    ("apps", "deployments/scale", "patch"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", "get"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", "list"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", "watch"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", "create"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", "patch"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", "delete"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets/scale", "get"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets/scale", "patch"),
    ("apps", "statefulsets", "list"),
    ("apps", "statefulsets", "watch"),
    ("apps", "statefulsets/scale", "get"),
    ("apps", "statefulsets/scale", "patch"),
    ("apps", "controllerrevisions", "get"),
    ("apps", "controllerrevisions", "list"),
    ("apps", "controllerrevisions", "watch"),
    ("apps", "controllerrevisions", "create"),
    ("apps", "controllerrevisions", "delete"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "pods", "delete"),
    ("", "services", "get"),
    ("", "services", "list"),
    ("", "services", "watch"),
    ("", "services", "create"),
    ("", "services", "patch"),
    ("gateway.networking.k8s.io", "httproutes", "get"),
    ("gateway.networking.k8s.io", "httproutes", "list"),
    ("gateway.networking.k8s.io", "httproutes", "watch"),
    ("gateway.networking.k8s.io", "httproutes", "patch"),
    ("discovery.k8s.io", "endpointslices", "list"),
    ("discovery.k8s.io", "endpointslices", "watch"),
    ("autoscaling", "horizontalpodautoscalers", "list"),
    ("autoscaling", "horizontalpodautoscalers", "watch"),
    ("keda.sh", "scaledobjects", "list"),
    ("keda.sh", "scaledobjects", "watch"),
    ("events.k8s.io", "events", "create"),
}
OF_THE_LEASE: set[Right] = {  # and of what stands beside it
    *(("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "patch")),
    *(("tidegate.dev", "quotaledgers", verb) for verb in ("get", "list", "create", "update")),
}
FORBIDDEN: tuple[Right, ...] = (
    ("", "secrets", "get"),
    ("", "secrets", "list"),
    ("", "configmaps", "get"),
    ("", "pods", "get"),
    ("", "pods", "create"),
    ("", "pods", "patch"),
    ("", "pods", "deletecollection"),
    ("", "pods/exec", "create"),
    ("", "nodes", "list"),
    ("", "namespaces", "list"),
    ("", "services", "delete"),
    ("", "events", "create"),
    ("", "serviceaccounts/token", "create"),
    ("apps", "deployments", "update"),
    ("apps", "deployments", "deletecollection"),
    ("apps", "deployments/scale", "update"),
    ("apps", "deployments/status", "patch"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", "update"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets", "deletecollection"),
    ("leaderworkerset.x-k8s.io", "leaderworkersets/scale", "update"),
    ("apps", "controllerrevisions", "patch"),
    ("apps", "replicasets", "list"),
    ("apps", "statefulsets", "get"),
    ("apps", "statefulsets", "patch"),
    ("apps", "statefulsets", "create"),
    ("apps", "statefulsets/scale", "update"),
    ("gateway.networking.k8s.io", "httproutes", "create"),
    ("gateway.networking.k8s.io", "httproutes", "update"),
    ("gateway.networking.k8s.io", "httproutes", "delete"),
    ("gateway.networking.k8s.io", "httproutes/status", "patch"),
    ("gateway.networking.k8s.io", "gateways", "list"),
    ("discovery.k8s.io", "endpointslices", "patch"),
    ("autoscaling", "horizontalpodautoscalers", "delete"),
    ("keda.sh", "scaledobjects", "patch"),
    ("tidegate.dev", "quotaledgers", "patch"),
    ("tidegate.dev", "quotaledgers", "delete"),
    ("tidegate.dev", "inferenceworkloads", "create"),
    ("tidegate.dev", "inferenceworkloads", "patch"),
    ("tidegate.dev", "inferenceworkloads", "delete"),
    ("tidegate.dev", "inferenceworkloads/scale", "patch"),
    ("tidegate.dev", "inferenceworkloads/finalizers", "update"),
    ("tidegate.dev", "inferenceworkloads/status", "update"),
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "get"),
    ("*", "*", "*"),
)


def may(cluster: Cluster, token: str, right: Right, namespace: str) -> bool:
    """SelfSubjectAccessReview; "" is every namespace."""
    group, resource, verb = right
    resource, _, subresource = resource.partition("/")
    wanted = {
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "verb": verb,
        "namespace": namespace,
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    status, answer = cluster.request("POST", path, {"spec": {"resourceAttributes": wanted}}, token=token)
    assert status == 201, answer
    return answer["status"]["allowed"] is True


def rights(cluster: Cluster, token: str, namespace: str) -> set[Right]:
    """All of them in a namespace (SelfSubjectRulesReview), without those that every account has."""
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    status, answer = cluster.request("POST", path, {"spec": {"namespace": namespace}}, token=token)
    assert status == 201, answer
    assert answer["status"]["incomplete"] is False
    return {
        (group, resource, verb)
        for rule in answer["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if not resource.startswith("selfsubject")
    }


def test_the_readme_lists_the_rights() -> None:
    section = (CHART / "README.md").read_text().split("## Rights of the daemon\n")[1].split("\n## ")[0]
    listed: set[Right] = set()
    for row in section.splitlines():
        if found := re.fullmatch(r"\| (?:`(.+)` )?([a-z/]+) \| ([a-z, ]+) \|", row):
            listed |= {(found[1] or "", found[2], verb) for verb in found[3].split(", ")}
    assert listed == USED


@pytest.fixture
def installed(cluster: Cluster, namespace: str) -> Iterator[Installed]:
    release = install(cluster, namespace, {})
    yield release
    uninstall(cluster, release)


def test_the_daemon_has_exactly_the_rights_that_it_uses(cluster: Cluster, installed: Installed) -> None:
    token = cluster.service_account_token(installed.namespace, installed.service_account)
    assert rights(cluster, token, installed.namespace) == USED | OF_THE_LEASE
    for namespace in ("default", "kube-system"):
        assert rights(cluster, token, namespace) == USED
    assert {right for right in USED if not may(cluster, token, right, "")} == set()
    assert {right for right in FORBIDDEN if may(cluster, token, right, installed.namespace)} == set()


def test_named_namespaces_are_all_that_the_daemon_reaches(cluster: Cluster, namespace: str) -> None:
    watched = cluster.create_namespace("watched")
    release = install(cluster, namespace, {"config": {"watch": {"namespaces": [watched]}}})
    token = cluster.service_account_token(namespace, release.service_account)
    assert rights(cluster, token, watched) == USED
    assert rights(cluster, token, namespace) == OF_THE_LEASE
    assert rights(cluster, token, "default") == set()
    assert {right for right in USED | set(FORBIDDEN) if may(cluster, token, right, "")} == set()
    uninstall(cluster, release)
    cluster.delete_namespace(watched)


def test_nodes_are_read_only_where_a_node_pool_is_told_by_their_labels(cluster: Cluster, namespace: str) -> None:
    nodes = {("", "nodes", verb) for verb in ("list", "watch")}
    pools = {"h100": {"nodeSelector": {"gpu": "h100"}}}
    watched = {"watch": {"namespaces": [namespace]}}
    release = install(cluster, namespace, {"config": {**watched, "nodePools": pools}})
    token = cluster.service_account_token(namespace, release.service_account)
    assert {right for right in {*nodes, ("", "nodes", "get")} if may(cluster, token, right, "")} == nodes
    values = {"config": watched, "crds": {"install": False}}
    run_helm(cluster, "upgrade", release.release, namespace, values)
    cluster.wait_for(lambda: not any(may(cluster, token, right, "") for right in nodes), "no rights on nodes")
    uninstall(cluster, release)


def test_without_rbac_the_account_has_no_rights(cluster: Cluster, namespace: str) -> None:
    release = install(cluster, namespace, {"rbac": {"create": False}})
    token = cluster.service_account_token(namespace, release.service_account)
    assert rights(cluster, token, namespace) == set()
    uninstall(cluster, release)


def test_a_changed_list_of_namespaces_moves_the_rights(cluster: Cluster, namespace: str) -> None:
    first, second = cluster.create_namespace("first"), cluster.create_namespace("second")
    release = install(cluster, namespace, {"config": {"watch": {"namespaces": [first]}}})
    token = cluster.service_account_token(namespace, release.service_account)
    values = {"config": {"watch": {"namespaces": [second]}}, "crds": {"install": False}}
    run_helm(cluster, "upgrade", release.release, namespace, values)
    cluster.wait_for(lambda: rights(cluster, token, second) == USED, "rights in the second namespace")
    cluster.wait_for(lambda: not rights(cluster, token, first), "no rights in the first namespace")
    uninstall(cluster, release)
    cluster.delete_namespace(first)
    cluster.delete_namespace(second)


def test_no_lease_but_its_own_is_within_the_daemon_s_reach(cluster: Cluster, namespace: str) -> None:
    locks = cluster.create_namespace("locks")
    election = {"resourceName": "mine", "resourceNamespace": locks}
    release = install(cluster, namespace, {"config": {"leaderElection": election}})
    token = cluster.service_account_token(namespace, release.service_account)

    def status(method: str, lease: str, where: str) -> int:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{where}/leases"
        if method == "POST":
            return cluster.request("POST", path, {"metadata": {"name": lease}}, token=token)[0]
        merge = "application/merge-patch+json"
        return cluster.request(method, f"{path}/{lease}", {"spec": {}}, token=token, content_type=merge)[0]

    assert rights(cluster, token, locks) == USED | OF_THE_LEASE
    assert rights(cluster, token, namespace) == USED
    assert [status(method, "mine", locks) for method in ("GET", "POST", "PATCH", "DELETE")] == [404, 201, 200, 403]
    assert [status(method, "other", locks) for method in ("GET", "PATCH")] == [403, 403]
    uninstall(cluster, release)
    cluster.delete_namespace(locks)


def test_uninstalling_takes_every_right_away(cluster: Cluster, installed: Installed) -> None:
    namespace = installed.namespace

    def ours() -> set[str]:
        kinds = "clusterroles,clusterrolebindings,roles,rolebindings"
        names = cluster.kubectl("-n", namespace, "get", kinds, "--output=name").split()
        return {name for name in names if name.endswith("/tidegate-leases") or f"/tidegate:{namespace}" in name}

    api = "rbac.authorization.k8s.io"
    assert ours() == {
        f"clusterrole.{api}/tidegate:{namespace}",
        f"clusterrole.{api}/tidegate:{namespace}:edit",
        f"clusterrole.{api}/tidegate:{namespace}:view",
        f"clusterrolebinding.{api}/tidegate:{namespace}",
        f"role.{api}/tidegate-leases",
        f"rolebinding.{api}/tidegate-leases",
    }
    uninstall(cluster, installed)
    assert ours() == set()


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("view", {"get", "list", "watch"}),
        ("edit", {"get", "list", "watch", "create", "update", "patch", "delete"}),
        ("admin", {"get", "list", "watch", "create", "update", "patch", "delete"}),
    ],
)
def test_roles_of_kubernetes_reach_workloads(
    cluster: Cluster, installed: Installed, role: str, allowed: set[str]
) -> None:
    namespace = installed.namespace
    cluster.kubectl("-n", namespace, "create", "serviceaccount", role)
    binding = ("create", "rolebinding", role, f"--clusterrole={role}", f"--serviceaccount={namespace}:{role}")
    cluster.kubectl("-n", namespace, *binding)
    token = cluster.service_account_token(namespace, role)

    def ours() -> set[tuple[str, str]]:
        found = rights(cluster, token, namespace)
        return {(resource, verb) for group, resource, verb in found if group == "tidegate.dev"}

    scale = {("inferenceworkloads/scale", verb) for verb in ("update", "patch")} if role != "view" else set()
    expected = {("inferenceworkloads", verb) for verb in allowed} | scale
    cluster.wait_for(lambda: ours() == expected, f"{expected} for {role}")  # Kubernetes aggregates in the background
