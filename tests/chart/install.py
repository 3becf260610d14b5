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
from typing import Any

from tests.chart.derived import CHART, CRDS
from tests.realcluster.cluster import Cluster


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
    `installed.config`. Call `uninstall`, or leave ClusterRoles without subjects behind until the run ends.
    """
    apply_crds(cluster)
    run_helm(cluster, "install", release, namespace, {**values, "crds": {"install": False}})
    pod = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{release_name(release)}")["spec"]["template"]
    (volume,) = pod["spec"]["volumes"]
    document = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/{volume['configMap']['name']}")["data"]
    installed = Installed(release, namespace, pod["spec"]["serviceAccountName"], document["config.yaml"])
    if values.get("rbac", {}).get("create", True):
        watched = values.get("config", {}).get("watch", {}).get("namespaces") or [namespace]
        cluster.wait_for(
            lambda: all(_may_list_workloads(cluster, installed, each) for each in watched),
            f"the rights of {installed.service_account}",
        )
    return installed


def uninstall(cluster: Cluster, installed: Installed) -> None:
    """`helm uninstall`; a release that is gone already is fine."""
    cluster.helm("uninstall", installed.release, f"--namespace={installed.namespace}", "--ignore-not-found")


def apply_crds(cluster: Cluster) -> None:
    """Bring the CRDs, or leave them as they are; returns when they are served."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"--filename={CRDS}")


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


def _may_list_workloads(cluster: Cluster, installed: Installed, namespace: str) -> bool:
    """Roles reach the authorizer some milliseconds after they are stored."""
    wanted = {"group": "tidegate.dev", "resource": "inferenceworkloads", "verb": "list", "namespace": namespace}
    user = f"system:serviceaccount:{installed.namespace}:{installed.service_account}"
    body = {"spec": {"user": user, "resourceAttributes": wanted}}
    answer = cluster.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    return answer["status"]["allowed"] is True
