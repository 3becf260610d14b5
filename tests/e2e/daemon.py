"""The real daemon as a process: the chart installed by real Helm gives it its rights and its configuration.

Not real: the daemon runs beside the cluster instead of in a pod (pods have no containers here). It uses the
ServiceAccount's own token and the ConfigMap's own document, so a right or key that the chart lacks fails the tests.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.chart.install import Installed, install
from tests.realcluster.cluster import Cluster

START_S = 120.0  # a machine with much other work may take a minute; only a hang decides


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Daemon:
    """One daemon that watches one namespace."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        directory: Path,
        config: Mapping[str, Any],
        api_url: str | None = None,
        pod: str = "tidegate-0",
        command: Sequence[str] = (),
    ) -> None:
        """Installs the chart; `config` is merged over what every test wants (own namespace, own port, quick ticks).

        `pod` is its name: what starts again under one name is the same pod's next container.
        `command` instead of `tidegate`: e.g. a Python that runs it with another clock.
        `api_url`: where the daemon finds the API server, e.g. a fault proxy; the cluster's own address otherwise.
        """
        self.cluster = cluster
        self.api_url = api_url or cluster.url
        self.namespace = namespace
        self.port = free_port()
        self._directory = directory
        self._command = command or (str(Path(sys.executable).with_name("tidegate")),)
        self.pod = pod
        self._process: subprocess.Popen[bytes] | None = None
        document = {
            "tick": "500ms",
            "watch": {"namespaces": [namespace]},
            "api": {"port": self.port},
            "kpa": {"stable-window": "6s"},
            **config,
        }
        self._installed = install(cluster, namespace, {"config": document})
        self._write_files(self._installed)

    def another(self, pod: str, directory: Path, api_url: str | None = None) -> Daemon:
        """One more daemon of the same release, as another pod of its Deployment."""
        other = copy.copy(self)
        other.pod, other.port, other._directory, other._process = pod, free_port(), directory, None
        other.api_url = api_url or self.cluster.url
        other._write_files(self._installed)
        return other

    def _write_files(self, installed: Installed) -> None:
        """The ServiceAccount's token as a kubeconfig, the ConfigMap's document as a file."""
        self._directory.mkdir(exist_ok=True)
        (self._directory / "config.yaml").write_text(installed.config)
        token = self.cluster.service_account_token(self.namespace, installed.service_account)
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "c",
                    "cluster": {"server": self.api_url, "certificate-authority": str(self.cluster.ca_path)},
                }
            ],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (self._directory / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))

    def start(self) -> Daemon:
        """Starts it and waits until it is ready."""
        with (self._directory / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._command,
                    "run",
                    "--config",
                    str(self._directory / "config.yaml"),
                    "--kubeconfig",
                    str(self._directory / "kubeconfig"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "POD_NAME": self.pod,
                    "POD_NAMESPACE": self.namespace,
                    "POD_UID": f"{self.namespace}-{self.pod}",
                    "TIDEGATE__API__PORT": str(self.port),
                },
            )
        self.cluster.wait_for(self._ready, "the daemon to be ready", timeout_s=START_S)
        return self

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the daemon ended:\n{self.log()[-3000:]}")
        return self.get("/readyz")[0] == 200

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self._process.wait(30)

    def get(self, path: str) -> tuple[int, str]:
        """One of its own pages."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def explain(self, workload: str) -> dict[str, Any]:
        """The daemon's own report of a workload."""
        found: dict[str, Any] = json.loads(self.get(f"/api/v1/workloads/{self.namespace}/{workload}")[1])
        return found

    def log(self) -> str:
        return (self._directory / "daemon.log").read_text(errors="replace")

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """The JSON lines of one event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]
