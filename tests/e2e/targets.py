"""Objects that somebody else owns, workloads that name them, and imitations of two operators.

The two operators are imitated by a few lines each: shapes, selectors and what they do about counts are those of
NVIDIA's k8s-nim-operator (v3.1.2) and of ai-dynamo/dynamo's operator; the schemas have only the fields used here.
NIMService has no scale in any version up to that, so it is the Deployment of its name that is scaled; of a
DynamoGraphDeployment it is the DynamoGraphDeploymentScalingAdapter that has one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.e2e.workload import PORT, Workload
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver_watch import OTHERS_LABEL

MERGE = "application/merge-patch+json"
NIM = "apps.nvidia.com"
DYNAMO = "nvidia.com"


def template(workload: str, labels: Mapping[str, str], gpus: int = 1) -> dict[str, Any]:
    """Pods that the model servers of the test answer for."""
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}}
    container = {"name": "m", "image": "example/m:1", "ports": [{"containerPort": PORT}], "resources": resources}
    return {
        "metadata": {"labels": {OTHERS_LABEL: workload, **labels}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }


def stateful_set(name: str, replicas: int = 1) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": template(name, labels),
        },
    }


def target_manifest(name: str, autoscaling: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """A workload that names the StatefulSet of its own name; `ref` for another object."""
    ref = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, **spec.pop("ref", {})}
    serving = {"targetRef": ref, "port": PORT}
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "InferenceWorkload",
        "metadata": {"name": name},
        "spec": {"serving": serving, "autoscaling": autoscaling, **spec},
    }


class Target(Workload):
    """A workload whose object somebody else made."""

    def __init__(self, cluster: Cluster, namespace: str, body: Mapping[str, Any], resource: str) -> None:
        """`resource`: where the object lives, e.g. "apps/v1/statefulsets"."""
        super().__init__(cluster, namespace, body)
        version, _, plural = resource.rpartition("/")
        name = body["spec"]["serving"]["targetRef"]["name"]
        self.object_path = f"/apis/{version}/namespaces/{namespace}/{plural}/{name}"

    def deployment(self) -> dict[str, Any]:
        """The object, whatever its kind."""
        return self.cluster.get(self.object_path)

    def replicas(self) -> int:
        count: int = self.cluster.get(f"{self.object_path}/scale")["spec"].get("replicas", 0)
        return count

    def ready(self) -> int:
        """As we tell it: not every kind tells its own."""
        count: int = self.status().get("counts", {}).get("ready", 0)
        return count

    def pods(self) -> list[dict[str, Any]]:
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={OTHERS_LABEL}={self.name}"
        found: list[dict[str, Any]] = self.cluster.get(path)["items"]
        return found


def apply(cluster: Cluster, namespace: str, body: Mapping[str, Any]) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(body))


# --- operators ---


def definition(group: str, kind: str, spec: Mapping[str, Any], scale: Mapping[str, str] | None) -> dict[str, Any]:
    """A CustomResourceDefinition with these fields of `spec`, any status, and the scale of the real one, if any."""
    plural = f"{kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}, "status": anything}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, **({"scale": scale} if scale else {})},
                }
            ],
        },
    }


COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string", "minLength": 1}
NIM_SERVICE = definition(NIM, "NIMService", {"replicas": COUNT}, None)
GRAPH = definition(
    DYNAMO,
    "DynamoGraphDeployment",
    {"services": {"type": "object", "additionalProperties": {"type": "object", "properties": {"replicas": COUNT}}}},
    None,
)
ADAPTER = definition(
    DYNAMO,
    "DynamoGraphDeploymentScalingAdapter",
    {"replicas": COUNT, "dgdRef": {"type": "object", "properties": {"name": TEXT, "serviceName": TEXT}}},
    {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)


def install(cluster: Cluster, *definitions: Mapping[str, Any]) -> None:
    """Definitions are the whole cluster's; they may be there already, and stay."""
    for each in definitions:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(each))
        cluster.wait_established(each["metadata"]["name"])


class Api:
    """Short ways to one namespace, for the operators below."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def path(self, resource: str, name: str = "") -> str:
        version, _, plural = resource.rpartition("/")
        return f"/apis/{version}/namespaces/{self._namespace}/{plural}{f'/{name}' if name else ''}"

    def every(self, resource: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._cluster.get(self.path(resource))["items"]
        return found

    def patch(self, path: str, body: Mapping[str, Any], manager: str) -> None:
        self._cluster.request("PATCH", f"{path}?fieldManager={manager}", body, content_type=MERGE)

    def have_deployment(self, name: str, replicas: int | None, pods: Mapping[str, Any], manager: str) -> None:
        """Makes it; sets its count only where `replicas` says one."""
        path = self.path("apps/v1/deployments", name)
        status, there = self._cluster.request("GET", path)
        if status == 404:
            spec: dict[str, Any] = {"selector": {"matchLabels": pods["metadata"]["labels"]}, "template": pods}
            spec |= {} if replicas is None else {"replicas": replicas}
            self._cluster.create(self.path("apps/v1/deployments"), {"metadata": {"name": name}, "spec": spec})
        elif status == 200 and replicas is not None and there["spec"]["replicas"] != replicas:
            self.patch(path, {"spec": {"replicas": replicas}}, manager)


def nim_operator(api: Api) -> None:
    """A Deployment of the service's name. Its count is set back to `spec.replicas`; where that is unset, left alone."""
    for each in api.every(f"{NIM}/v1alpha1/nimservices"):
        name = each["metadata"]["name"]
        pods = template(name, {"app": name})
        api.have_deployment(name, each.get("spec", {}).get("replicas"), pods, "nim-operator")


def dynamo_operator(api: Api) -> None:
    """An adapter's count goes to its service of the graph, from there to pods; the adapter tells their selector."""
    graphs = f"{DYNAMO}/v1alpha1/dynamographdeployments"
    for each in api.every(f"{DYNAMO}/v1alpha1/dynamographdeploymentscalingadapters"):
        name, ref, count = each["metadata"]["name"], each["spec"]["dgdRef"], each["spec"]["replicas"]
        services = {ref["serviceName"]: {"replicas": count}}
        api.patch(api.path(graphs, ref["name"]), {"spec": {"services": services}}, "dynamo-operator")
        selector = f"nvidia.com/dynamo-component={ref['serviceName']},"
        selector += f"nvidia.com/dynamo-graph-deployment-name={ref['name']}"
        path = api.path(f"{DYNAMO}/v1alpha1/dynamographdeploymentscalingadapters", name)
        api.patch(f"{path}/status", {"status": {"replicas": count, "selector": selector}}, "dynamo-operator")
    for each in api.every(graphs):
        graph = each["metadata"]["name"]
        for service, wanted in each["spec"]["services"].items():
            labels = {"nvidia.com/dynamo-graph-deployment-name": graph, "nvidia.com/dynamo-component": service}
            name = f"{graph}-{service.lower()}"
            api.have_deployment(name, wanted["replicas"], template(name, labels), "dynamo-operator")


@contextmanager
def running(cluster: Cluster, namespace: str, operator: Callable[[Api], None]) -> Iterator[None]:
    """The imitation of an operator, five times a second; its own errors are raised at the end."""
    stopped, errors = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            while not stopped.wait(0.2):
                operator(Api(cluster, namespace))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(30)
    assert not errors, errors
