"""LeaderWorkerSet's own controller and webhooks, beside a control plane that a test asked them for.

Costs about 55 MiB and 2 s, once per control plane. The webhooks of pods are asked about the pods of LeaderWorkerSets
only, so that no other test waits for them or falls with them.
"""

from __future__ import annotations

import base64
import copy
import fcntl
import json
import urllib.request
from pathlib import Path
from typing import Any, Final

import yaml

from tests.realcluster import pki
from tests.realcluster.cluster import Cluster
from tests.realcluster.controlplane import free_ports
from tests.realcluster.errors import StartError
from tests.realcluster.process import Process

NAME: Final = "lws-controller-manager"
MANIFESTS: Final = "lws-manifests"
DEFINITION: Final = "leaderworkerset.x-k8s.io_leaderworkersets.yaml"
GROUPS: Final = "leaderworkersets.leaderworkerset.x-k8s.io"
UNUSED: Final = "disaggregatedsets"  # another kind of the same controller, which no test has; its definition is huge
OF_A_SET: Final = {"matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]}


def start(cluster: Cluster) -> None:
    """Returns when LeaderWorkerSets can be created; nothing where they can be already."""
    directory = cluster.directory / "lws"
    directory.mkdir(exist_ok=True)
    command = (
        str(cluster.programs[NAME]),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config={directory / 'config.yaml'}",
    )
    process = cluster.processes.setdefault(NAME, Process(NAME, command, cluster.directory))
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a run share one control plane
        if not process.started():
            _bring_up(cluster, process, directory)


def await_collector(cluster: Cluster) -> None:
    """Returns when the garbage collector knows the kind. It looks for new kinds every 30 s; until then nothing of a set
    that is deleted in the foreground goes."""
    path = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/default/leaderworkersets"
    template = {"spec": {"containers": [{"name": "none", "image": "none"}]}}
    spec = {"replicas": 0, "leaderWorkerTemplate": {"size": 1, "workerTemplate": template}}
    kind = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"}
    name = cluster.create(path, {**kind, "metadata": {"generateName": "collected-"}, "spec": spec})["metadata"]["name"]
    cluster.request("DELETE", f"{path}/{name}", {"propagationPolicy": "Foreground"})
    cluster.wait_for(lambda: cluster.request("GET", f"{path}/{name}")[0] == 404, "the garbage collector", 120)


def _bring_up(cluster: Cluster, process: Process, directory: Path) -> None:
    webhook_port, health_port = free_ports(2)
    ca = _write_keys(directory)
    manifests = cluster.programs[MANIFESTS]
    cluster.kubectl("apply", "--server-side", f"--filename={manifests / DEFINITION}")
    disaggregated = next(manifests.glob(f"*{UNUSED}.yaml"))
    cluster.kubectl("apply", "--server-side", f"--filename={disaggregated}")  # its controller does not start without
    configuration = {
        "apiVersion": "config.lws.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "internalCertManagement": {"enable": False},
        "leaderElection": {"leaderElect": False},
        "metrics": {"bindAddress": "0"},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health_port}"},
        "webhook": {"host": "127.0.0.1", "port": webhook_port, "certDir": str(directory)},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(configuration))
    process.start()
    cluster.wait_for(lambda: _answers(process, f"http://127.0.0.1:{health_port}/readyz"), NAME)
    hooks = [
        _local(each, f"https://127.0.0.1:{webhook_port}", ca)
        for each in yaml.safe_load_all((manifests / "manifests.yaml").read_text())
    ]
    cluster.kubectl("apply", "--filename=-", input=json.dumps({"kind": "List", "apiVersion": "v1", "items": hooks}))
    cluster.wait_established(GROUPS)
    cluster.wait_for(lambda: _takes_sets(cluster), "LeaderWorkerSets to be admitted by their webhooks")


def _write_keys(directory: Path) -> str:
    """The webhooks' certificate; returns the authority that the API server must trust, as base64."""
    authority = pki.new_authority("tidegate-test-lws-ca")
    pki.issue(authority, NAME, hosts=("127.0.0.1",)).write(directory, "tls")
    return base64.b64encode(authority.pem.encode()).decode()


def _local(configuration: dict[str, Any], url: str, ca: str) -> dict[str, Any]:
    """Upstream's configuration with the process's own address instead of a Service's."""
    local = copy.deepcopy(configuration)
    local["metadata"]["name"] = f"lws-{local['metadata']['name']}"
    local["webhooks"] = [each for each in local["webhooks"] if UNUSED not in each["rules"][0]["resources"]]
    for hook in local["webhooks"]:
        path = hook["clientConfig"].pop("service")["path"]
        hook["clientConfig"] = {"url": url + path, "caBundle": ca}
        if hook["rules"][0]["resources"] == ["pods"]:
            hook["objectSelector"] = OF_A_SET
    return local


def _answers(process: Process, url: str) -> bool:
    if not process.alive():
        raise StartError(f"{NAME} ended:\n{process.last_lines()}")
    with urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)


def _takes_sets(cluster: Cluster) -> bool:
    """A dry run comes back with a default that only the webhook sets."""
    container = {"name": "x", "image": "none"}
    body = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "probe"},
        "spec": {"leaderWorkerTemplate": {"size": 1, "workerTemplate": {"spec": {"containers": [container]}}}},
    }
    path = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/default/leaderworkersets?dryRun=All"
    status, answer = cluster.request("POST", path, body)
    if status != 201:
        raise ConnectionError(f"POST {path}: {status} {answer.get('message', answer)}")
    return bool(answer["spec"].get("networkConfig") == {"subdomainPolicy": "Shared"})
