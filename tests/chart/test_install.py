"""The chart on a real control plane: admitted, available, upgraded, removed, and the CRDs outlive it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.settings.load import parse
from tests.chart.derived import CHART, ROOT
from tests.chart.install import DEFINITIONS, apply_crds, install, run_helm, uninstall
from tests.chart.render import helm, render
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError

NO_CRDS = {"crds": {"install": False}}
OURS = "app.kubernetes.io/part-of=tidegate"
NAMESPACED = ("deployments", "services", "configmaps", "serviceaccounts", "roles", "rolebindings", "pdb")
CLUSTER_WIDE = ("clusterroles", "clusterrolebindings", "flowschemas")
EXAMPLE = ROOT / "config" / "examples" / "llama-3-8b.yaml"


def restrict(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")


def deployment(cluster: Cluster, namespace: str) -> dict[str, Any]:
    return cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/tidegate")


def conditions(cluster: Cluster, namespace: str) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in deployment(cluster, namespace)["status"].get("conditions", ())}


def pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return found


def custom_resources(cluster: Cluster) -> set[str]:
    items = cluster.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
    return {each["metadata"]["name"] for each in items}


def test_a_restricted_namespace_admits_the_daemon(cluster: Cluster, namespace: str) -> None:
    restrict(cluster, namespace)
    release = install(cluster, namespace, {})
    cluster.wait_for(
        lambda: conditions(cluster, namespace)["Available"]["status"] == "True", "the Deployment to be available"
    )
    accounts = [pod["spec"]["serviceAccountName"] for pod in pods(cluster, namespace)]
    assert accounts == [release.service_account] * 2 == ["tidegate"] * 2
    assert parse(release.config.encode(), {}, name="installed").config == parse(b"", {}, name="empty").config
    uninstall(cluster, release)
    cluster.wait_for(lambda: not pods(cluster, namespace), "no pods")


def test_the_namespace_would_refuse_a_laxer_pod(cluster: Cluster, namespace: str) -> None:
    restrict(cluster, namespace)
    release = install(cluster, namespace, {"podSecurityContext": {"runAsNonRoot": None}})
    refused = cluster.wait_for(lambda: conditions(cluster, namespace)["ReplicaFailure"], "the refusal")
    assert 'violates PodSecurity "restricted:latest": runAsNonRoot != true' in refused["message"]
    uninstall(cluster, release)


@pytest.mark.parametrize("scope", [[], ["default"]], ids=["cluster", "namespace"])
def test_the_server_knows_every_field(cluster: Cluster, namespace: str, scope: list[str]) -> None:
    values = {**NO_CRDS, "config": {"watch": {"namespaces": scope}}}
    rendered = helm("template", "tidegate", str(CHART), f"--namespace={namespace}", values=values)
    cluster.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=rendered)


def test_an_upgrade_replaces_the_pods_for_what_they_cannot_take_up(cluster: Cluster, namespace: str) -> None:
    release = install(cluster, namespace, {"config": {"tick": "2s"}})
    cluster.wait_for(lambda: len(pods(cluster, namespace)) == 2, "the pods")

    def upgrade(config: dict[str, Any]) -> tuple[str, int]:
        run_helm(cluster, "upgrade", "tidegate", namespace, {**NO_CRDS, "config": config})
        after = deployment(cluster, namespace)
        checksum = after["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return checksum, after["metadata"]["generation"]

    taken_up, restarts = upgrade({"tick": "3s"}), upgrade({"tick": "3s", "log": {"format": "json"}})
    assert taken_up[0] != restarts[0]
    assert (taken_up[1], restarts[1]) == (1, 2)
    document = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/tidegate")["data"]["config.yaml"]
    assert document == "log:\n  format: json\ntick: 3s\n"

    def checksums() -> list[str]:
        return [each["metadata"]["annotations"]["checksum/config"] for each in pods(cluster, namespace)]

    cluster.wait_for(lambda: checksums() == [restarts[0]] * 2, "the new pods alone")
    uninstall(cluster, release)


def test_daemons_are_taken_away_and_added(cluster: Cluster, namespace: str) -> None:
    release = install(cluster, namespace, {})
    budget = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/tidegate"

    def two_of_which_one_may_go() -> bool:
        status = cluster.get(budget)["status"]
        return (status["expectedPods"], status["currentHealthy"], status["disruptionsAllowed"]) == (2, 2, 1)

    cluster.wait_for(two_of_which_one_may_go, "two daemons")
    run_helm(cluster, "upgrade", "tidegate", namespace, {**NO_CRDS, "replicas": 1})
    cluster.wait_for(lambda: len(pods(cluster, namespace)) == 1, "one daemon")
    assert cluster.request("GET", budget)[0] == 404
    run_helm(cluster, "upgrade", "tidegate", namespace, {**NO_CRDS, "replicas": 2})
    cluster.wait_for(two_of_which_one_may_go, "two daemons again")
    uninstall(cluster, release)


def test_uninstalling_leaves_the_lease_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    release = install(cluster, namespace, {})
    token = cluster.service_account_token(namespace, release.service_account)
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    lease = {"metadata": {"name": "tidegate"}, "spec": {"holderIdentity": "one", "leaseTransitions": 7}}
    assert cluster.request("POST", leases, lease, token=token)[0] == 201  # as the daemon does
    assert len(of_the_release(cluster, namespace)) == len(render(NO_CRDS))
    uninstall(cluster, release)
    cluster.wait_for(lambda: not of_the_release(cluster, namespace), "everything of the release to be gone")
    assert cluster.get(f"{leases}/tidegate")["spec"]["leaseTransitions"] == 7

    again = install(cluster, namespace, {})  # the next installation may use it
    token = cluster.service_account_token(namespace, again.service_account)
    patch, merge = {"spec": {"leaseTransitions": 8}}, "application/merge-patch+json"
    assert cluster.request("PATCH", f"{leases}/tidegate", patch, token=token, content_type=merge)[0] == 200
    uninstall(cluster, again)


def of_the_release(cluster: Cluster, namespace: str) -> set[str]:
    """Kind and name of what the chart creates beside CRDs, pods left out."""
    within = cluster.kubectl("-n", namespace, "get", ",".join(NAMESPACED), f"--selector={OURS}", "--output=name")
    wide = cluster.kubectl("get", ",".join(CLUSTER_WIDE), f"--selector={OURS}", "--output=name")
    return {*within.split(), *(each for each in wide.split() if namespace in each)}


def test_whoever_rules_one_namespace_only_can_install(cluster: Cluster, namespace: str) -> None:
    apply_crds(cluster)
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "ruler")
    ruler = ("ruler", "--clusterrole=cluster-admin", f"--serviceaccount={namespace}:ruler")
    cluster.kubectl("-n", namespace, "create", "rolebinding", *ruler)
    token = f"--kube-token={cluster.service_account_token(namespace, 'ruler')}"
    values = {**NO_CRDS, "rbac": {"aggregate": False}, "config": {"watch": {"namespaces": [namespace]}}}
    with pytest.raises(ClusterError, match=r'cannot (get|create|patch) resource "flowschemas"'):
        run_helm(cluster, "install", "tidegate", namespace, values, token)
    run_helm(cluster, "upgrade", "tidegate", namespace, {**values, "flowSchema": {"create": False}}, token, "--install")
    assert deployment(cluster, namespace)["spec"]["replicas"] == 2
    cluster.helm("uninstall", "tidegate", f"--namespace={namespace}", token)


def test_a_configuration_out_of_range_does_not_reach_the_cluster(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(ClusterError, match="at '/config/scrape/concurrency': maximum: got 5,000, want 1,024"):
        run_helm(cluster, "install", "tidegate", namespace, {"config": {"scrape": {"concurrency": 5000}}})
    assert cluster.helm("list", "--short", f"--namespace={namespace}") == ""


def test_crds_and_workloads_outlive_the_release(fresh_cluster: Cluster) -> None:
    cluster, namespace = fresh_cluster, fresh_cluster.create_namespace("tidegate")
    ours = set(DEFINITIONS)
    run_helm(cluster, "install", "tidegate", namespace, {}, "--wait", "--timeout=60s")
    assert custom_resources(cluster) == ours
    cluster.wait_established(*ours)
    workload = yaml.safe_load(EXAMPLE.read_text())
    workload["metadata"]["namespace"] = namespace
    cluster.kubectl("apply", "-f", "-", input=json.dumps(workload))

    assert "kept due to the resource policy" in cluster.helm("uninstall", "tidegate", f"--namespace={namespace}")
    assert custom_resources(cluster) == ours
    assert workload["metadata"]["name"] in cluster.kubectl("-n", namespace, "get", "iw", "-o", "name")

    run_helm(cluster, "install", "tidegate", namespace, {})  # the same release takes its CRDs up again
    other = cluster.create_namespace("other")
    with pytest.raises(ClusterError, match="invalid ownership metadata"):
        run_helm(cluster, "install", "tidegate", other, {})
    run_helm(cluster, "install", "tidegate", other, NO_CRDS)
    run_helm(cluster, "upgrade", "tidegate", other, {}, "--take-ownership")


def test_an_upgrade_updates_the_crds(fresh_cluster: Cluster, tmp_path: Path) -> None:
    cluster = fresh_cluster
    older = tmp_path / "tidegate"
    shutil.copytree(CHART, older)
    file = older / "files" / "crd" / "inferenceworkloads.yaml"
    crd = yaml.safe_load(file.read_text())
    columns = crd["spec"]["versions"][0].pop("additionalPrinterColumns")
    file.write_text(yaml.safe_dump(crd))

    def shown() -> list[str]:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/inferenceworkloads.tidegate.dev"
        return [each["name"] for each in cluster.get(path)["spec"]["versions"][0].get("additionalPrinterColumns", ())]

    run_helm(cluster, "install", "tidegate", "default", {}, chart=older)
    assert shown() == []
    run_helm(cluster, "upgrade", "tidegate", "default", {})
    assert shown() == [column["name"] for column in columns]
