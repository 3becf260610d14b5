"""Somebody at a terminal: a kubeconfig of the real control plane, a namespace, and workloads whose status we write.

No daemon runs here. What it would write is written by the tests, in the shape that the CRD has for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from autoscaler.cli.main import app
from tests.e2e.workload import WORKLOADS
from tests.realcluster.cluster import Cluster
from tests.realcluster.controlplane import write_kubeconfig

MERGE = "application/merge-patch+json"
AT = "2026-05-01T10:00:00.123456Z"


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


def run(*arguments: str, stdin: str = "", **environ: str) -> Ended:
    """The command in this process, whose output is no terminal."""
    result = CliRunner().invoke(app, list(arguments), input=stdin, env={"COLUMNS": "100", **environ})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def masked(text: str) -> str:
    """Ages are those of the run."""
    return re.sub(r"(?<![\w.])\d+[smhd](\d+s)?(?![\w.])", "AGE", text)


class Desk:
    """`kubeconfig` is an administrator's, with `namespace` in its context."""

    def __init__(self, cluster: Cluster, namespace: str, directory: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._directory = directory
        self.kubeconfig = self.kubeconfig_of(cluster.admin_token, "admin")

    def kubeconfig_of(self, token: str, name: str) -> Path:
        path = self._directory / f"{name}.kubeconfig"
        write_kubeconfig(path, self.cluster.url, self.cluster.ca_path, token)
        document = yaml.safe_load(path.read_text())
        [context] = document["contexts"]
        context["context"]["namespace"] = self.namespace
        elsewhere = {"name": "elsewhere", "context": {**context["context"], "namespace": "default"}}
        document["contexts"].append(elsewhere)
        path.write_text(yaml.safe_dump(document))
        return path

    def run(self, *arguments: str, stdin: str = "", **environ: str) -> Ended:
        return run(*arguments, stdin=stdin, **{"KUBECONFIG": str(self.kubeconfig), **environ})

    def create(self, body: Mapping[str, Any], status: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The workload, with this status."""
        made = self.cluster.create(WORKLOADS.format(self.namespace), body)
        return self.tell(made["metadata"]["name"], status) if status is not None else made

    def tell(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """What the daemon would write; it has seen the present spec unless the status says otherwise."""
        seen = {"observedGeneration": self.object(name)["metadata"]["generation"], **status}
        return self._patch(f"{self._path(name)}/status", {"status": seen})

    def patch(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._patch(self._path(name), body)

    def object(self, name: str) -> dict[str, Any]:
        return self.cluster.get(self._path(name))

    def pod(self, workload: str, revision: str, name: str, **more: Any) -> None:
        """A pod of a revision, as its Deployment would have made it; KWOK makes it ready."""
        labels = {"tidegate.dev/workload": workload, "tidegate.dev/owner-revision": revision, **more.get("labels", {})}
        resources = {"limits": {"nvidia.com/gpu": str(more.get("gpus", 1))}}
        meta = {"name": name, "labels": labels, "annotations": more.get("annotations", {})}
        spec = {"containers": [{"name": "vllm", "image": "example/vllm:1", "resources": resources}]}
        self.cluster.create(f"/api/v1/namespaces/{self.namespace}/pods", {"metadata": meta, "spec": spec})

    def await_pods(self, **conditions: tuple[str, str]) -> None:
        """`await_pods(a=("Ready", "True"))`."""

        def there() -> bool:
            items = self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
            seen = {
                (pod["metadata"]["name"].replace("-", "_"), each["type"]): each["status"]
                for pod in items
                for each in pod["status"].get("conditions", ())
            }
            return all(seen.get((name, kind)) == status for name, (kind, status) in conditions.items())

        self.cluster.wait_for(there, f"pods to be {conditions}")

    def revision(self, workload: Mapping[str, Any], name: str, identity: Mapping[str, Any], digest: str = "") -> None:
        """A stored revision of this workload."""
        meta = workload["metadata"]
        owner = {"apiVersion": "tidegate.dev/v1alpha1", "kind": "InferenceWorkload", "controller": True}
        labels = {"tidegate.dev/workload": meta["name"], "tidegate.dev/owner-revision": name}
        body = {
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": {"tidegate.dev/digest": digest},
                "ownerReferences": [{**owner, "name": meta["name"], "uid": meta["uid"]}],
            },
            "data": identity,
            "revision": 1,
        }
        self.cluster.create(f"/apis/apps/v1/namespaces/{self.namespace}/controllerrevisions", body)

    def _path(self, name: str) -> str:
        return f"{WORKLOADS.format(self.namespace)}/{name}"

    def _patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        status, answer = self.cluster.request("PATCH", path, body, content_type=MERGE)
        assert status == 200, answer
        return answer


def rollout(revision: str, phase: str, **more: Any) -> dict[str, Any]:
    """status.rollout of an update, as `autoscaler.cluster.status` writes it."""
    whole = {"revision": revision, "phase": phase, "since": AT, "queuedAt": AT, "queueDeadlineAt": AT, "size": 8}
    return {**whole, **more}
