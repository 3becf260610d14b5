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
from tests.chart.install import install, run_helm, uninstall
from tests.chart.render import helm
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import ClusterError

NO_CRDS = {"crds": {"install": False}}
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
    (pod,) = pods(cluster, namespace)
    assert pod["spec"]["serviceAccountName"] == release.service_account == "tidegate"
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


def test_an_upgrade_with_another_configuration_replaces_the_pod(cluster: Cluster, namespace: str) -> None:
    release = install(cluster, namespace, {"config": {"tick": "2s"}})
    cluster.wait_for(lambda: pods(cluster, namespace), "the pod")

    def upgrade(tick: str) -> tuple[str, int]:
        run_helm(cluster, "upgrade", "tidegate", namespace, {**NO_CRDS, "config": {"tick": tick}})
        after = deployment(cluster, namespace)
        checksum = after["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return checksum, after["metadata"]["generation"]

    unchanged, changed = upgrade("2s"), upgrade("3s")
    assert unchanged[0] != changed[0]
    assert (unchanged[1], changed[1]) == (1, 2)
    document = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/tidegate")["data"]["config.yaml"]
    assert document == "tick: 3s\n"

    def checksums() -> list[str]:
        return [each["metadata"]["annotations"]["checksum/config"] for each in pods(cluster, namespace)]

    cluster.wait_for(lambda: checksums() == [changed[0]], "the new pod alone")
    uninstall(cluster, release)


def test_a_configuration_out_of_range_does_not_reach_the_cluster(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(ClusterError, match="at '/config/scrape/concurrency': maximum: got 5,000, want 1,024"):
        run_helm(cluster, "install", "tidegate", namespace, {"config": {"scrape": {"concurrency": 5000}}})
    assert cluster.helm("list", "--short", f"--namespace={namespace}") == ""


def test_crds_and_workloads_outlive_the_release(fresh_cluster: Cluster) -> None:
    cluster, namespace = fresh_cluster, fresh_cluster.create_namespace("tidegate")
    ours = {"inferenceworkloads.tidegate.dev", "quotaledgers.tidegate.dev"}
    run_helm(cluster, "install", "tidegate", namespace, {}, "--wait", "--timeout=60s")
    assert custom_resources(cluster) == ours
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{name}" for name in sorted(ours)))
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
