"""The chart on the test control plane, safely beside other tests: they share its CRDs, each has its own namespace.

Helm gives an object to one release, and CRDs are the cluster's. So releases of tests leave them out, and `apply_crds`
brings them in a way that may be repeated by every test and worker.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chart.derived import CHART, CRDS
from tests.realcluster.cluster import Cluster

DEFINITIONS: Final = ("inferenceworkloads.tidegate.dev", "quotaledgers.tidegate.dev")


@dataclass(frozen=True, slots=True)
class Installed:
    """A release, as the cluster has it."""

    release: str
    namespace: str
    service_account: str
    config: str  # the document that the daemon would read as /etc/tidegate/config.yaml


def install(cluster: Cluster, namespace: str, values: Mapping[str, Any], release: str = "tidegate") -> Installed:
    """`helm install` into a namespace of one's own; returns when the ServiceAccount has its rights.

    Values as in values.yaml, except `crds.install`, which is false. The daemon's pod is KWOK's: it runs nothing. To run
    the daemon as that pod would: `cluster.service_account_token(namespace, installed.service_account)` and
    `installed.config`. Call `uninstall`, or leave ClusterRoles and FlowSchemas of nobody behind until the run ends.
    """
    apply_crds(cluster)
    run_helm(cluster, "install", release, namespace, {**values, "crds": {"install": False}})
    pod = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{release_name(release)}")["spec"]["template"]
    (volume,) = pod["spec"]["volumes"]
    document = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/{volume['configMap']['name']}")["data"]
    installed = Installed(release, namespace, pod["spec"]["serviceAccountName"], document["config.yaml"])
    if values.get("rbac", {}).get("create", True):
        needed = _needed(values.get("config", {}), namespace, release_name(release))
        cluster.wait_for(
            lambda: all(_may(cluster, installed, each) for each in needed), f"the rights of {installed.service_account}"
        )
    return installed


def uninstall(cluster: Cluster, installed: Installed) -> None:
    """`helm uninstall`; a release that is gone already is fine."""
    cluster.helm("uninstall", installed.release, f"--namespace={installed.namespace}", "--ignore-not-found")


def apply_crds(cluster: Cluster) -> None:
    """Bring the CRDs, or leave them as they are; returns when they are served."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")
    cluster.wait_established(*DEFINITIONS)


def run_helm(
    cluster: Cluster,
    verb: str,
    release: str,
    namespace: str,
    values: Mapping[str, Any],
    *flags: str,
    chart: Path = CHART,
) -> str:
    """`helm install` or `helm upgrade` with exactly these values; returns what it printed."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values, file)
        file.flush()
        return cluster.helm(verb, release, str(chart), f"--namespace={namespace}", f"--values={file.name}", *flags)


def release_name(release: str) -> str:
    """What the chart calls its objects, without name overrides."""
    return release if "tidegate" in release else f"{release}-tidegate"


def _needed(config: Mapping[str, Any], namespace: str, lease: str) -> list[dict[str, str]]:
    """One right out of each Role that the chart makes."""
    election = config.get("leaderElection", {})
    held = {
        "group": "coordination.k8s.io",
        "resource": "leases",
        "verb": "patch",
        "name": election.get("resourceName") or lease,
        "namespace": election.get("resourceNamespace") or namespace,
    }
    watched = config.get("watch", {}).get("namespaces") or [namespace]
    listed = {"group": "tidegate.dev", "resource": "inferenceworkloads", "verb": "list"}
    return [held, *({**listed, "namespace": each} for each in watched)]


def _may(cluster: Cluster, installed: Installed, wanted: Mapping[str, str]) -> bool:
    """Roles reach the authorizer some milliseconds after they are stored."""
    user = f"system:serviceaccount:{installed.namespace}:{installed.service_account}"
    body = {"spec": {"user": user, "resourceAttributes": wanted}}
    answer = cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    return answer["status"]["allowed"] is True
