"""A running control plane, as tests see it.

Decides how a control plane starts (in which order, what "ready" means) and gives tests one small client for it.
Its pods are KWOK's: real objects, really scheduled, with addresses that are local in the private namespace, and
no containers. kwok.py lists the annotations that set start-up and termination times.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from tests.realcluster import kwok, sandbox, waiting
from tests.realcluster.controlplane import Layout, next_number, prepare
from tests.realcluster.errors import ClusterError, StartError
from tests.realcluster.process import Process

T = TypeVar("T")

READY_DEADLINE_S = 90.0
GPU_NODES = ("gpu-0", "gpu-1")
GPUS_PER_NODE = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program printed and how it ended."""

    code: int
    out: str
    err: str


class Cluster:
    """One control plane. Construct it with `start` or `attach`."""

    def __init__(self, layout: Layout, programs: Mapping[str, Path]) -> None:
        self.directory = layout.directory
        self.url = layout.url
        self.ca_path = layout.ca_path
        self.admin_token = layout.admin_token
        self.kubeconfig = layout.kubeconfig
        self.processes = {process.name: process for process in layout.processes}
        self.programs = dict(programs)
        self._revivals = 0  # of KWOK
        self._tls = ssl.create_default_context(cafile=str(layout.ca_path))
        self._tls.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on

    # --- life ---

    @classmethod
    def start(cls, directory: Path, programs: Mapping[str, Path], pod_cidr: str = "10.244.0.0/17") -> Cluster:
        """Start a control plane with two GPU nodes in `directory` (which must not exist) and wait until it is ready."""
        cluster = cls(prepare(directory, programs, pod_cidr), programs)
        try:
            cluster._bring_up()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def attach(cls, directory: Path) -> Cluster:
        """The control plane that another process started in `directory`."""
        note = json.loads((directory / "cluster.json").read_text())
        processes = tuple(Process(name, tuple(command), directory) for name, command in note["processes"].items())
        layout = Layout(
            directory, note["url"], directory / "ca.crt", note["admin_token"], directory / "kubeconfig", processes
        )
        return cls(layout, {name: Path(path) for name, path in note["programs"].items()})

    def fresh(self) -> Cluster:
        """Another control plane, for tests that break things; stop it, or use it in a `with` statement."""
        directory, pod_cidr = fresh_directory()
        return Cluster.start(directory, self.programs, pod_cidr)

    def stop(self) -> None:
        """End every process at once and drop the data; logs stay until the run ends."""
        for process in reversed(self.processes.values()):
            process.kill()
        shutil.rmtree(self.directory / "etcd", ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- processes ---

    def pause(self, process: str) -> None:
        """SIGSTOP: open connections stay open and silent."""
        self.processes[process].pause()

    def resume(self, process: str) -> None:
        """SIGCONT."""
        self.processes[process].resume()

    def kill(self, process: str) -> None:
        """SIGKILL; returns when it has ended."""
        self.processes[process].kill()

    def restart(self, process: str) -> None:
        """Kill it if it still runs, start it again with the same data and port, wait for the API to be ready."""
        self.processes[process].kill()
        self.processes[process].start()
        self._wait_until_api_ready()

    def logs(self, process: str) -> str:
        """Everything that the process printed, over all its starts."""
        return self.processes[process].log_path.read_text(errors="replace")

    # --- the API ---

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = None,
        content_type: str = "application/json",
        timeout_s: float = 30.0,
    ) -> tuple[int, dict[str, Any]]:
        """One HTTPS request; OSError where nothing answers. `path` may carry a query. An answer that is not a JSON
        object comes as {"text": …}."""
        address = urlsplit(self.url)
        connection = http.client.HTTPSConnection(
            str(address.hostname), address.port, context=self._tls, timeout=timeout_s
        )
        headers = {"Authorization": f"Bearer {token or self.admin_token}", "Accept": "application/json"}
        payload: bytes | None = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        with contextlib.closing(connection):
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        return response.status, answer if isinstance(answer, dict) else {"text": text}

    def get(self, path: str) -> dict[str, Any]:
        """The object at `path`. LookupError where there is none, ConnectionError from a server that is overloaded or
        starting: `wait_for` takes both as "not yet"."""
        status, answer = self.request("GET", path)
        if status == 404:
            raise LookupError(f"{path}: not found")
        if status == 429 or status >= 500:
            raise ConnectionError(f"{path}: {status} {answer.get('message', answer)}")
        if status != 200:
            raise ClusterError(f"GET {path}: {status} {answer.get('message', answer)}")
        return answer

    def create(self, path: str, body: object) -> dict[str, Any]:
        """POST `body` to the collection at `path`; returns the stored object."""
        status, answer = self.request("POST", path, body)
        if status != 201:
            raise ClusterError(f"POST {path}: {status} {answer.get('message', answer)}")
        return answer

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True, token: str | None = None) -> str:
        """Run the real kubectl as admin, or as the bearer of `token`.

        check=True: returns its output, raises ClusterError with its error text if it fails.
        check=False: returns output and error text together, whether it failed or not.
        """
        persona = ("--token", token) if token else ()
        answer = self._run(str(self.programs["kubectl"]), *persona, *arguments, input=input)
        if not check:
            return answer.out + answer.err
        if answer.code != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: exit status {answer.code}: {answer.err.strip()}")
        return answer.out

    def helm(self, *arguments: str) -> str:
        """Run the real helm as admin; returns its output, raises ClusterError with its error text if it fails."""
        answer = self._run(str(self.programs["helm"]), *arguments)
        if answer.code != 0:
            raise ClusterError(f"helm {' '.join(arguments)}: exit status {answer.code}: {answer.err.strip()}")
        return answer.out

    def wait_for(self, predicate: Callable[[], T], what: str, timeout_s: float = 30.0, poll_s: float = 0.05) -> T:
        """See waiting.py; `waiting.wait_for_async` is the one for asynchronous tests."""
        return waiting.wait_for(predicate, what, timeout_s, poll_s)

    def wait_established(self, *names: str, timeout_s: float = 60.0) -> None:
        """Until these CustomResourceDefinitions are served; without names: all that there are.

        `kubectl wait` fails at once on one that has no conditions yet.
        """
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

        def established() -> bool:
            found = {each["metadata"]["name"]: each for each in self.get(path)["items"]}
            return all(name in found and _is_established(found[name]) for name in names or found)

        self.wait_for(established, f"{', '.join(names) or 'all definitions'} to be established", timeout_s, poll_s=0.2)

    # --- objects every test needs ---

    def add_gpu_node(
        self, name: str, gpus: int = 8, labels: Mapping[str, str] | None = None, taint: str | None = None
    ) -> None:
        """A node that KWOK keeps; returns when pods can be scheduled to it.

        `taint`: only pods that tolerate this key are scheduled to it; else pods of other tests come as well.
        """
        self._create_node(name, gpus, labels or {}, taint)
        self.wait_for(lambda: self._schedulable(name, taint), f"node {name} to be schedulable", READY_DEADLINE_S)

    def create_namespace(self, prefix: str = "test") -> str:
        """A namespace `<prefix>-<random>` in which pods can be created at once."""
        body = {"metadata": {"generateName": f"{prefix}-"}}
        name: str = self.create("/api/v1/namespaces", body)["metadata"]["name"]
        self._wait_for_default_account(name)
        return name

    def delete_namespace(self, name: str) -> None:
        """Ask for its deletion; does not wait."""
        self.request("DELETE", f"/api/v1/namespaces/{name}")

    def service_account_token(self, namespace: str, name: str, duration_s: int = 3600) -> str:
        """A bearer token of an existing service account (TokenRequest); at least 600 s."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {"spec": {"expirationSeconds": duration_s}}
        token: str = self.create(path, request)["status"]["token"]
        return token

    # --- starting up ---

    def _bring_up(self) -> None:
        self.processes["etcd"].start()
        self.processes["kube-apiserver"].start()
        self._wait_until_api_ready()
        for name in ("kube-controller-manager", "kwok", "kube-scheduler"):
            self.processes[name].start()
        for name in GPU_NODES:
            self._create_node(name, GPUS_PER_NODE, {})
        self._await_start(lambda: all(map(self._schedulable, GPU_NODES)), "nodes to be schedulable")
        self._wait_for_default_account("default")
        self._write_note()

    def _wait_until_api_ready(self) -> None:
        self._await_start(lambda: self.request("GET", "/readyz", timeout_s=5)[0] == 200, "/readyz")

    def _await_start(self, predicate: Callable[[], bool], what: str) -> None:
        """Like wait_for, but a process that ended is reported at once, with its last lines. See kwok.revived."""

        def ready() -> bool:
            for process in self.processes.values():
                if process.started() and not process.alive():
                    if kwok.revived(process, self._revivals):
                        self._revivals += 1
                        continue
                    raise StartError(f"{process.name} ended:\n{process.last_lines()}")
            return predicate()

        self.wait_for(ready, what, READY_DEADLINE_S)

    def _write_note(self) -> None:
        note = {
            "url": self.url,
            "admin_token": self.admin_token,
            "processes": {name: process.command for name, process in self.processes.items()},
            "programs": {name: str(path) for name, path in self.programs.items()},
        }
        (self.directory / "cluster.json").write_text(json.dumps(note, indent=1))

    def _create_node(self, name: str, gpus: int, labels: Mapping[str, str], taint: str | None = None) -> None:
        resources = {"cpu": "1000", "memory": "4Ti", "pods": "1000", "ephemeral-storage": "4Ti"}
        if gpus:
            resources["nvidia.com/gpu"] = str(gpus)
        standard = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        body = {
            "metadata": {"name": name, "labels": {**standard, **labels}},
            "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}] if taint else []},
            "status": {"allocatable": resources, "capacity": resources},
        }
        self.create("/api/v1/nodes", body)

    def _schedulable(self, name: str, taint: str | None = None) -> bool:
        node = self.get(f"/api/v1/nodes/{name}")
        conditions = {entry["type"]: entry["status"] for entry in node["status"].get("conditions", ())}
        taints = {entry["key"] for entry in node["spec"].get("taints") or ()}
        return conditions.get("Ready") == "True" and taints <= {taint}

    def _wait_for_default_account(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        self.wait_for(lambda: self.get(path), f"service account default in {namespace}")

    # --- programs ---

    def _run(self, *command: str, input: str | None = None) -> Answer:
        """Run a client program; its caches go into our directory, never into the user's home."""
        home = self.directory / "clients"
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(home / "kubectl"),
            "HELM_CACHE_HOME": str(home / "helm-cache"),
            "HELM_CONFIG_HOME": str(home / "helm-config"),
            "HELM_DATA_HOME": str(home / "helm-data"),
        }
        done = subprocess.run(
            command, input=input or "", capture_output=True, text=True, env=environment, check=False, timeout=120
        )
        return Answer(done.returncode, done.stdout, done.stderr)


def _is_established(definition: Mapping[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any((each["type"], each["status"]) == ("Established", "True") for each in conditions)


def fresh_directory() -> tuple[Path, str]:
    """A directory and a pod range for one more control plane: ranges of sixteen that live at once do not overlap."""
    number = next_number("clusters")
    directory = Path(os.environ[sandbox.RUN_DIR_VARIABLE]) / f"fresh-{number}"
    return directory, f"10.244.{128 + 8 * (number % 16)}.0/21"
