"""A real Prometheus for one test: it finds the pods of one namespace through the API server and scrapes them.

Labels are those of the Prometheus Operator's PodMonitors: `namespace` and `pod`. A pod is scraped at its annotation
modelserver.test/port, else at its declared port, like the imitated model servers serve it.

    with Prometheus(cluster, namespace, tmp_path / "prometheus") as prometheus:
        prometheus.query("sum by (namespace, pod) (vllm:num_requests_running)")
"""

from __future__ import annotations

import json
import shutil
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import yaml

from tests.realcluster import waiting
from tests.realcluster.cluster import Cluster
from tests.realcluster.controlplane import free_ports
from tests.realcluster.errors import StartError
from tests.realcluster.process import Process

READY_DEADLINE_S = 60.0
WORKLOAD_LABEL = "__meta_kubernetes_pod_labelpresent_tidegate_dev_workload"


class Prometheus:
    """One process. `web`: its own web configuration (TLS, users), if any. `more_jobs`: what to scrape besides pods.
    `limits`: of every scrape, e.g. body_size_limit, of which Prometheus has none by default."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        directory: Path,
        interval_s: float = 1.0,
        web: Mapping[str, Any] | None = None,
        more_jobs: Sequence[Mapping[str, Any]] = (),
        limits: Mapping[str, Any] | None = None,
    ) -> None:
        directory.mkdir(parents=True)
        (self._port,) = free_ports(1)
        self.url = f"{'https' if web and 'tls_server_config' in web else 'http'}://127.0.0.1:{self._port}"
        self._guarded = bool(web)
        self._data = directory / "data"
        (directory / "token").write_text(cluster.admin_token)
        document = _document(cluster, namespace, directory / "token", interval_s)
        document["scrape_configs"] += more_jobs
        document["global"] |= limits or {}
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        (directory / "web.yaml").write_text(yaml.safe_dump(dict(web or {})))
        self.process = Process("prometheus", self._command(cluster.programs["prometheus"], directory), directory)

    def start(self) -> Self:
        """Returns when it listens; targets come within seconds. Whatever is stored is kept."""
        self.process.start()
        waiting.wait_for(self._ready, "Prometheus to be ready", READY_DEADLINE_S)
        return self

    def kill(self) -> None:
        """SIGKILL; returns when it has ended."""
        self.process.kill()

    def empty(self) -> None:
        """Forget every sample. Only while it is killed."""
        shutil.rmtree(self._data, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        print(f"--- Prometheus\n{self.process.last_lines()}")

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The series of an instant vector, each with `metric` and `value`; ConnectionError where nothing answers."""
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{urlencode({'query': promql})}", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def _ready(self) -> bool:
        """Its port opens before its storage is read, and one that asks for a password is known by its port alone."""
        if not self.process.alive():
            raise StartError(f"prometheus ended:\n{self.process.last_lines()}")
        if self._guarded:
            with socket.create_connection(("127.0.0.1", self._port), timeout=2):
                return True
        with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)

    def _command(self, program: Path, directory: Path) -> tuple[str, ...]:
        return (
            str(program),
            f"--config.file={directory / 'prometheus.yaml'}",
            f"--web.config.file={directory / 'web.yaml'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            f"--storage.tsdb.path={self._data}",
            "--storage.tsdb.retention.time=1h",
            "--scrape.discovery-reload-interval=1s",  # 5 s is a long time for tests
            "--log.level=warn",
        )


def _document(cluster: Cluster, namespace: str, token: Path, interval_s: float) -> dict[str, Any]:
    pod = "__meta_kubernetes_pod"
    interval = f"{round(interval_s * 1000)}ms"
    discovery = {
        "role": "pod",
        "api_server": cluster.url,
        "namespaces": {"names": [namespace]},
        "authorization": {"credentials_file": str(token)},
        "tls_config": {"ca_file": str(cluster.ca_path)},
    }
    relabeling = [
        {"action": "keep", "source_labels": [WORKLOAD_LABEL, f"{pod}_phase"], "regex": "true;Running"},
        {"source_labels": [f"{pod}_ip"], "regex": "(.+)", "target_label": "__address__", "replacement": "$1:8000"},
        _address(f"{pod}_container_port_number"),
        _address(f"{pod}_annotation_modelserver_test_port"),
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{pod}_name"], "target_label": "pod"},
    ]
    job = {"job_name": "pods", "kubernetes_sd_configs": [discovery], "relabel_configs": relabeling}
    return {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": [job]}


def _address(port_label: str) -> dict[str, Any]:
    return {
        "source_labels": ["__meta_kubernetes_pod_ip", port_label],
        "regex": "(.+);([0-9]+)",
        "target_label": "__address__",
        "replacement": "$1:$2",
    }
