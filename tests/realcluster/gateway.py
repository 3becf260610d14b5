"""A real Envoy Gateway with a real Envoy, beside a control plane that a test asked them for.

Costs about 170 MiB and 11 s, once per control plane. One Gateway named `tests`, with one Envoy behind it, takes
HTTPRoutes of all namespaces; tests are told apart by the host that their route is for. Envoy Gateway believes that its
Envoy runs in a pod, which is KWOK's; the process that we start is what that pod's container would run.

Not as in a cluster: killing Envoy changes no status; there is no kube-proxy, so clients ask the pod's own address. Both
programs listen on fixed ports of the private network (8080, 8081, 18000, 18002, 19000, 19001, 19003), so there can be
one only.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.realcluster import rootfs
from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import StartError
from tests.realcluster.process import Process

CONTROLLER: Final = "envoy-gateway"
PROXY: Final = "envoy"
NAMESPACE: Final = "envoy-gateway-system"
NAME: Final = "tests"  # of the GatewayClass, the EnvoyProxy and the Gateway
PROXY_NAME: Final = "envoy-gw"  # of Envoy's Deployment and Service
ROUTES: Final = "httproutes.gateway.networking.k8s.io"
CRDS: Final = ("gateway-api-crds", "envoy-gateway-crds")
READY_URL: Final = "http://127.0.0.1:8081/readyz"
PORT: Final = 10080  # where Envoy listens for the Gateway's port 80: it adds 10,000 to those below 1,024
READINESS_PORT: Final = 19003  # of Envoy
ADMIN_PORT: Final = 19100  # of Envoy Gateway; its default is Envoy's
START_DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """What routes need to attach, and where clients ask."""

    cluster: Cluster
    address: str  # of Envoy's pod

    @property
    def parent(self) -> dict[str, str]:
        """The parentRef of a route."""
        return {"name": NAME, "namespace": NAMESPACE}

    @property
    def url(self) -> str:
        """Where clients ask; the Host header chooses the route."""
        return f"http://{self.address}:{PORT}"


def start(cluster: Cluster) -> Gateway:
    """Returns when the Gateway takes routes and Envoy listens."""
    directory = cluster.directory / "gateway"
    directory.mkdir(exist_ok=True)
    controller = cluster.processes.setdefault(CONTROLLER, Process(CONTROLLER, _controller(cluster), cluster.directory))
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a run share one control plane
        if not (directory / "ready").exists():
            if controller.started():
                raise StartError("another worker could not start the Gateway; its first error says why")
            _bring_up(cluster, controller, directory)
            (directory / "ready").touch()
    pod = _pod(cluster)
    # Envoy's own command is made of its pod's; who only needs the process knows it by its pid file
    cluster.processes.setdefault(PROXY, Process(PROXY, (), cluster.directory))
    return Gateway(cluster, pod["status"]["podIP"])


def apply_api(cluster: Cluster) -> None:
    """The Gateway API's own CRDs alone, without anybody who acts on them; may be repeated, beside `start`, too."""
    definitions = cluster.programs[CRDS[0]]
    cluster.kubectl("apply", "--server-side", f"--filename={definitions}")
    cluster.wait_established(ROUTES)


def _controller(cluster: Cluster) -> tuple[str, ...]:
    directory = cluster.directory / "gateway"
    return rootfs.command(
        directory / "root-of-envoy-gateway",
        {"/certs": directory / "envoy-gateway"},
        str(cluster.programs[CONTROLLER]),
        "server",
        f"--config-path={directory / 'config.yaml'}",
        environment=_environment(cluster),
    )


def _environment(cluster: Cluster) -> dict[str, str]:
    return {
        "KUBECONFIG": str(cluster.kubeconfig),
        "ENVOY_GATEWAY_NAMESPACE": NAMESPACE,
        "KUBERNETES_CLUSTER_DOMAIN": "cluster.local",
    }


def _bring_up(cluster: Cluster, controller: Process, directory: Path) -> None:
    cluster.kubectl("apply", "--server-side", *(f"--filename={cluster.programs[part]}" for part in CRDS))
    cluster.wait_established()
    cluster.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    _write_keys(cluster, directory)
    configuration = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
        "provider": {
            "type": "Kubernetes",
            "kubernetes": {"leaderElection": {"disable": True}, "proxyTopologyInjector": {"disabled": True}},
        },
        "admin": {"address": {"host": "127.0.0.1", "port": ADMIN_PORT}},
        "telemetry": {"metrics": {"prometheus": {"disable": True}}},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(configuration))
    controller.start()
    cluster.wait_for(lambda: _answers(controller, READY_URL), CONTROLLER, START_DEADLINE_S)
    items = {"kind": "List", "apiVersion": "v1", "items": _objects()}
    cluster.kubectl("apply", "--filename=-", input=json.dumps(items))
    pod = cluster.wait_for(lambda: _pod(cluster), "a pod for Envoy", START_DEADLINE_S)
    _start_envoy(cluster, pod, directory)
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/gateways/{NAME}"
    cluster.wait_for(lambda: _is_programmed(cluster.get(path)), "the Gateway to be programmed", START_DEADLINE_S)


def _write_keys(cluster: Cluster, directory: Path) -> None:
    """The certificates by which the two know each other: upstream's own command makes them, as Secrets."""
    command = (str(cluster.programs[CONTROLLER]), "certgen", "--disable-topology-injector")
    environment = {**os.environ, **_environment(cluster)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    if done.returncode != 0:
        raise StartError(f"{CONTROLLER} certgen ended with {done.returncode}: {done.stderr[-2000:]}")
    for name in (CONTROLLER, PROXY):
        secret = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
        _write(directory / name, {key: base64.b64decode(value) for key, value in secret["data"].items()})


def _objects() -> list[dict[str, Any]]:
    """The proxy's description before the class that refers to it."""
    api, own = "gateway.networking.k8s.io/v1", "gateway.envoyproxy.io"
    kubernetes = {
        "envoyDeployment": {"replicas": 1, "name": PROXY_NAME},
        "envoyService": {"type": "ClusterIP", "name": PROXY_NAME},  # its address becomes the Gateway's
    }
    return [
        {
            "apiVersion": f"{own}/v1alpha1",
            "kind": "EnvoyProxy",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"mergeGateways": True, "provider": {"type": "Kubernetes", "kubernetes": kubernetes}},
        },
        {
            "apiVersion": api,
            "kind": "GatewayClass",
            "metadata": {"name": NAME},
            "spec": {
                "controllerName": f"{own}/gatewayclass-controller",
                "parametersRef": {"group": own, "kind": "EnvoyProxy", "name": NAME, "namespace": NAMESPACE},
            },
        },
        {
            "apiVersion": api,
            "kind": "Gateway",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "gatewayClassName": NAME,
                "listeners": [
                    {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
                ],
            },
        },
    ]


def _pod(cluster: Cluster) -> dict[str, Any]:
    """Envoy's pod; LookupError until it has an address."""
    pods = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    ours = [pod for pod in pods if pod["metadata"]["name"].startswith(f"{PROXY_NAME}-") and "podIP" in pod["status"]]
    if not ours:
        raise LookupError("Envoy's pod has no address yet")
    found: dict[str, Any] = ours[0]
    return found


def _start_envoy(cluster: Cluster, pod: dict[str, Any], directory: Path) -> None:
    container = next(each for each in pod["spec"]["containers"] if each["name"] == PROXY)
    values = {"$(ENVOY_POD_NAME)": pod["metadata"]["name"], "$(ENVOY_SERVICE_ZONE)": ""}
    arguments = [_expanded(argument, values) for argument in container["args"]]
    at = arguments.index("--config-yaml") + 1
    arguments[at] = _local(arguments[at])
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    name = volumes["sds"]["configMap"]["name"]
    _write(directory / "sds", cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}")["data"])
    command = rootfs.command(
        directory / "root-of-envoy",
        {"/certs": directory / PROXY, "/sds": directory / "sds"},
        str(cluster.programs[PROXY]),
        *arguments,
        orphaned=True,
    )
    (directory / "envoy.json").write_text(json.dumps(command))
    # its parent ends at once, so that process 1 inherits it: the worker that starts it may end before the others
    parent = [sys.executable, "-m", "tests.realcluster.gateway", str(cluster.directory)]
    subprocess.run(parent, cwd=Path(__file__).resolve().parents[2], check=True, timeout=60)
    process = Process(PROXY, command, cluster.directory)
    address = pod["status"]["podIP"]
    cluster.wait_for(lambda: _listens(process, address), "Envoy to listen", START_DEADLINE_S)


def _expanded(argument: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        argument = argument.replace(name, value)
    return argument


def _local(bootstrap: str) -> str:
    """Envoy's first configuration, with Envoy Gateway at its local address: there is no DNS."""
    document: dict[str, Any] = yaml.safe_load(bootstrap)
    for cluster in document["static_resources"]["clusters"]:
        if cluster["name"] == "xds_cluster":
            cluster["type"] = "STATIC"
            for group in cluster["load_assignment"]["endpoints"]:
                for each in group["lb_endpoints"]:
                    each["endpoint"]["address"]["socket_address"]["address"] = "127.0.0.1"
    return json.dumps(document)


def _write(directory: Path, files: dict[str, Any]) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _answers(process: Process, url: str) -> bool:
    if not process.alive():
        raise StartError(f"{process.name} ended:\n{process.last_lines()}")
    with urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)


def _listens(process: Process, address: str) -> bool:
    """Ready by its own probe, and the Gateway's port is open."""
    with socket.create_connection((address, PORT), timeout=2):
        return _answers(process, f"http://{address}:{READINESS_PORT}/ready")


def _is_programmed(gateway: dict[str, Any]) -> bool:
    conditions = {each["type"]: each for each in gateway["status"]["conditions"]}
    return bool(conditions["Programmed"]["status"] == "True")


if __name__ == "__main__":
    base = Path(sys.argv[1])
    Process(PROXY, tuple(json.loads((base / "gateway" / "envoy.json").read_text())), base).start()
