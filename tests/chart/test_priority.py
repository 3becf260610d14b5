"""How the API server classifies the daemon's requests (API priority and fairness): it says so in every answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.chart.install import Installed, install, run_helm, uninstall
from tests.realcluster.cluster import Cluster

FLOW_CONTROL = "/apis/flowcontrol.apiserver.k8s.io/v1"
COORDINATION = "/apis/coordination.k8s.io/v1"
DEFAULT, OF_THE_LEASE = "workload-high", "leader-election"


def classified(cluster: Cluster, token: str, method: str, path: str, body: object = None) -> tuple[int, str, str]:
    """The answer's status and the uids of the FlowSchema and of the priority level that the request was given."""
    address, tls = urlsplit(cluster.url), ssl.create_default_context(cafile=str(cluster.ca_path))
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=tls, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
    schema, level = (answer.headers[f"X-Kubernetes-PF-{each}-UID"] for each in ("FlowSchema", "PriorityLevel"))
    return answer.status, schema, level


def uids(cluster: Cluster, schema: str, level: str) -> tuple[str, str]:
    """What `classified` answers for this FlowSchema and this level."""
    paths = (f"{FLOW_CONTROL}/flowschemas/{schema}", f"{FLOW_CONTROL}/prioritylevelconfigurations/{level}")
    schema_uid, level_uid = (cluster.get(path)["metadata"]["uid"] for path in paths)
    return schema_uid, level_uid


def effective(cluster: Cluster, token: str, path: str, expected: tuple[str, str]) -> None:
    """Returns when reads of `path` are classified so: the API server takes new FlowSchemas up in the background."""
    cluster.wait_for(lambda: classified(cluster, token, "GET", path)[1:] == expected, f"GET {path} to be {expected}")


def token_of(cluster: Cluster, installed: Installed) -> str:
    return cluster.service_account_token(installed.namespace, installed.service_account)


@pytest.mark.parametrize(
    ("flow_schema", "level"),
    [({}, DEFAULT), ({"priorityLevel": "workload-low", "matchingPrecedence": 950}, "workload-low")],
    ids=["default", "configured"],
)
def test_requests_of_the_daemon_have_the_configured_level(
    cluster: Cluster, namespace: str, flow_schema: dict[str, Any], level: str
) -> None:
    release = install(cluster, namespace, {"flowSchema": flow_schema})
    token, ours = token_of(cluster, release), uids(cluster, f"tidegate.{namespace}", level)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    effective(cluster, token, pods, ours)
    workloads = "/apis/tidegate.dev/v1alpha1/inferenceworkloads"
    effective(cluster, token, workloads, ours)
    deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/tidegate"
    assert classified(cluster, token, "PATCH", deployment, {}) == (200, *ours)
    service = f"/api/v1/namespaces/{namespace}/services/tidegate"
    assert classified(cluster, token, "DELETE", service) == (403, *ours)
    uninstall(cluster, release)


def test_the_lease_goes_before_everything_else_of_the_daemon(cluster: Cluster, namespace: str) -> None:
    release = install(cluster, namespace, {})
    token, leases = token_of(cluster, release), f"{COORDINATION}/namespaces/{namespace}/leases"
    first = uids(cluster, f"tidegate-leases.{namespace}", OF_THE_LEASE)
    effective(cluster, token, f"{leases}/tidegate", first)
    lease = {"metadata": {"name": "tidegate"}, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15}}
    assert classified(cluster, token, "POST", leases, lease) == (201, *first)
    assert classified(cluster, token, "PATCH", f"{leases}/tidegate", {"spec": {"holderIdentity": ""}}) == (200, *first)
    assert classified(cluster, token, "GET", f"{leases}/tidegate") == (200, *first)
    elsewhere = f"{COORDINATION}/namespaces/default/leases/tidegate"
    assert classified(cluster, token, "GET", elsewhere) == (403, *uids(cluster, f"tidegate.{namespace}", DEFAULT))
    uninstall(cluster, release)


def test_other_accounts_gain_nothing(cluster: Cluster, namespace: str) -> None:
    release = install(cluster, namespace, {})
    elsewhere = cluster.create_namespace("elsewhere")
    cluster.kubectl("-n", elsewhere, "create", "serviceaccount", release.service_account)
    leases = f"{COORDINATION}/namespaces/{namespace}/leases/tidegate"
    effective(cluster, token_of(cluster, release), leases, uids(cluster, f"tidegate-leases.{namespace}", OF_THE_LEASE))
    of_all = uids(cluster, "service-accounts", "workload-low")
    for where, name in ((namespace, "default"), (elsewhere, release.service_account)):
        token = cluster.service_account_token(where, name)
        for path in (leases, f"/api/v1/namespaces/{namespace}/pods"):
            assert classified(cluster, token, "GET", path) == (403, *of_all)
    uninstall(cluster, release)
    cluster.delete_namespace(elsewhere)


def test_switched_off_the_daemon_is_one_of_all_accounts(cluster: Cluster, namespace: str) -> None:
    release = install(cluster, namespace, {})
    token, pods = token_of(cluster, release), f"/api/v1/namespaces/{namespace}/pods"
    effective(cluster, token, pods, uids(cluster, f"tidegate.{namespace}", DEFAULT))
    run_helm(cluster, "upgrade", "tidegate", namespace, {"crds": {"install": False}, "flowSchema": {"create": False}})
    effective(cluster, token, pods, uids(cluster, "service-accounts", "workload-low"))
    uninstall(cluster, release)
