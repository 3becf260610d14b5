"""`tidegate doctor` on the real control plane and a real Prometheus: quiet where all is well, and a line for each ill.

It looks with the daemon's own token at the daemon's own configuration. Of the pods, pages are imitations.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import StartDaemon
from tests.e2e.daemon import Daemon
from tests.e2e.test_prometheus import AUTOSCALING, by_prometheus
from tests.e2e.workload import Workload, manifest
from tests.realcluster import pki
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers
from tests.realcluster.modelserver_page import PageFault
from tests.realcluster.prometheus import Prometheus

GOLDEN = Path(__file__).parent / "data"
PASSWORD = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"  # bcrypt of "test", of Prometheus's guide


@dataclass(frozen=True)
class Told:
    status: int
    text: str

    @property
    def findings(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(self.text)["findings"]
        return found

    def ill(self, check: str = "") -> list[dict[str, str]]:
        """Errors and warnings."""
        return [each for each in self.findings if each["level"] in ("error", "warning") and check in each["check"]]


def doctor(daemon: Daemon, tmp_path: Path, *arguments: str) -> Told:
    """In a process of its own, as the daemon's ServiceAccount."""
    files = ("--config", str(tmp_path / "config.yaml"), "--kubeconfig", str(tmp_path / "kubeconfig"))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("tidegate")), "doctor", *files, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "1000", "POD_NAMESPACE": daemon.namespace, "NO_COLOR": "1"},
    )
    assert done.returncode in (0, 1, 3, 4), done.stderr
    assert "Traceback" not in done.stderr
    return Told(done.returncode, done.stdout)


def settled(text: str, namespace: str) -> str:
    """Without what differs from run to run."""
    text = text.replace(namespace, "NAMESPACE")
    text = re.sub(r"all \d+ rights", "all N rights", text)
    text = re.sub(r"/tmp\S*/config.yaml", "config.yaml", text)
    text = re.sub(r"(https?)://127\.0\.0\.1:\d+", r"\1://ADDRESS", text)
    text = re.sub(r"Kubernetes v[\d.]+", "Kubernetes VERSION", re.sub(r"version \d[\d.]+", "version VERSION", text))
    return re.sub(r"llama-[0-9a-f]{8}-[0-9a-z]+-[0-9a-z]{5}", "POD", text)


def golden(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def served(cluster: Cluster, namespace: str, servers: ModelServers, replicas: int = 2, **spec: Any) -> Workload:
    servers.set_load(namespace, "llama", concurrency=7 * replicas - 1, slots=100)
    body = manifest("llama", {**AUTOSCALING, "minReplicas": replicas})
    body["spec"]["serving"] |= spec
    workload = Workload(cluster, namespace, body)
    workload.wait_ready(replicas)
    return workload


def scraped(cluster: Cluster, prometheus: Prometheus, replicas: int = 2) -> None:
    def three_times_each() -> bool:
        counts = prometheus.query("count_over_time(up[1m])")
        return len(counts) >= replicas and all(float(each["value"][1]) > 4 for each in counts)

    cluster.wait_for(three_times_each, "some scrapes of every pod")


def test_where_all_is_well_every_line_says_so(
    cluster: Cluster,
    namespace: str,
    servers: ModelServers,
    prometheus: Prometheus,
    start_daemon: StartDaemon,
    tmp_path: Path,
) -> None:
    daemon = start_daemon(**by_prometheus(prometheus))
    served(cluster, namespace, servers)
    scraped(cluster, prometheus)
    told = doctor(daemon, tmp_path)
    print(told.text)
    assert told.status == 0
    golden("doctor-healthy.txt", settled(told.text, namespace))
    as_json, as_yaml = doctor(daemon, tmp_path, "-o", "json"), doctor(daemon, tmp_path, "-o", "yaml")
    assert json.loads(as_json.text) == yaml.safe_load(as_yaml.text)
    assert json.loads(as_json.text)["status"] == "ok"
    assert {each["level"] for each in as_json.findings} == {"ok"}
    assert doctor(daemon, tmp_path, "llama", "-n", namespace).status == 0
    assert doctor(daemon, tmp_path, "nobody", "-n", namespace).status == 1


def test_a_prometheus_that_does_not_scrape_the_pods(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    with Prometheus(cluster, "default", tmp_path / "elsewhere") as elsewhere:
        daemon = start_daemon(prometheus={"url": elsewhere.url, "scrapeInterval": "1s"})
        served(cluster, namespace, servers)
        told = doctor(daemon, tmp_path, "-o", "json")
        print(told.text)
        assert told.status == 3  # the pods' pages are what is scaled by
        (missing,) = told.ill()
        assert missing["check"] == "series"
        assert missing["subject"] == f"{namespace}/llama"
        assert "Prometheus has no series of 2 of 2 pods" in missing["message"]
        assert "does not scrape port 8000" in missing["message"]
        assert missing["fix"].startswith(f"add a PodMonitor in {namespace}: ")
        assert "portNumber: 8000" in missing["fix"]
        document = yaml.safe_load((tmp_path / "config.yaml").read_text())
        document["signals"] = {"source": "prometheus"}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
        assert doctor(daemon, tmp_path).status == 1  # now it is


def test_a_prometheus_that_does_not_take_the_password_or_has_another_authority(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    authority = pki.new_authority("prometheus-ca")
    authority.write(tmp_path, "ca")
    pki.issue(authority, "prometheus", hosts=("127.0.0.1",)).write(tmp_path, "server")
    (tmp_path / "password").write_text("planted-secret\n")
    web = {
        "tls_server_config": {"cert_file": str(tmp_path / "server.crt"), "key_file": str(tmp_path / "server.key")},
        "basic_auth_users": {"tidegate": PASSWORD},
    }
    with Prometheus(cluster, namespace, tmp_path / "guarded", web=web) as guarded:
        user = {"username": "tidegate", "passwordFile": str(tmp_path / "password")}
        known = {"url": guarded.url, "basicAuth": user, "tls": {"caFile": str(tmp_path / "ca.crt")}}
        daemon = Daemon(cluster, namespace, tmp_path, {"prometheus": {**known, "timeout": "10s"}})
        told = doctor(daemon, tmp_path, "-o", "json")
        print(told.text)
        assert told.status == 1
        (refused,) = told.ill()
        assert refused["message"] == "http 401"
        assert "user tidegate with the password in" in refused["fix"]
        assert "planted-secret" not in told.text
        (tmp_path / "password").write_text("test\n")
        right = doctor(daemon, tmp_path, "-o", "json")
        assert right.status == 0, right.text
        assert any("takes our password" in each["message"] for each in right.findings)

        document = yaml.safe_load((tmp_path / "config.yaml").read_text())
        del document["prometheus"]["tls"]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
        told = doctor(daemon, tmp_path, "-o", "json")
        (untrusted,) = told.ill()
        assert "prometheus.tls.caFile" in untrusted["fix"], untrusted


def test_what_is_wrong_with_a_workload(
    cluster: Cluster,
    namespace: str,
    servers: ModelServers,
    prometheus: Prometheus,
    start_daemon: StartDaemon,
    tmp_path: Path,
) -> None:
    daemon = start_daemon(**by_prometheus(prometheus))
    served(cluster, namespace, servers)
    servers.set_fault(namespace, "llama", PageFault.RENAMED)
    cluster.wait_for(lambda: not prometheus.query("vllm:num_requests_running"), "the renamed pages")
    scraped(cluster, prometheus)
    told = doctor(daemon, tmp_path)
    print(told.text)
    assert told.status == 1
    golden("doctor-sick.txt", settled(told.text, namespace))

    whale = manifest("whale", AUTOSCALING)
    whale["spec"]["serving"]["engine"] = "triton"
    Workload(cluster, namespace, whale).wait_ready(1)
    told = doctor(daemon, tmp_path, "whale", "-o", "json")
    lacks = [each for each in told.ill() if "triton has no series for running requests" in each["message"]]
    assert {each["check"] for each in lacks} == {"series"}, told.text
    assert all("set autoscaling.metric to one that it has: queue, throughput, ttft" in each["fix"] for each in lacks)


def test_pods_that_are_scraped_twice_and_at_another_pace(
    cluster: Cluster, namespace: str, servers: ModelServers, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    prometheus = Prometheus(cluster, namespace, tmp_path / "prometheus")
    file = tmp_path / "prometheus" / "prometheus.yaml"
    document = yaml.safe_load(file.read_text())
    document["scrape_configs"].append({**document["scrape_configs"][0], "job_name": "pods-again"})
    file.write_text(yaml.safe_dump(document))
    with prometheus:
        paced = {"url": prometheus.url, "scrapeInterval": "10s"}
        daemon = start_daemon(signals={"source": "prometheus"}, prometheus=paced)
        served(cluster, namespace, servers).wait_ready(4)  # of two that are needed: the sum reads double
        scraped(cluster, prometheus, 8)
        told = doctor(daemon, tmp_path, "-o", "json")
        print(told.text)
        assert told.status == 1
        twice, paced_ill = told.ill()
        assert twice["level"] == "error"
        assert "has the same series twice for 4 of 4 pods " in twice["message"]
        assert re.search(r"jobs pods at [\d.]+:8000, pods-again at [\d.]+:8000$", twice["message"])
        assert "the configuration says 10 s" in paced_ill["message"]
        assert paced_ill["fix"].startswith("set prometheus.scrapeInterval to 1s")


def test_a_right_that_is_missing_is_named(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    daemon = Daemon(cluster, namespace, tmp_path, {})
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/tidegate"
    role = cluster.get(path)
    rules = [rule for rule in role["rules"] if rule["resources"] not in (["deployments/scale"], ["scaledobjects"])]
    status, answer = cluster.request("PATCH", path, {"rules": rules}, content_type="application/merge-patch+json")
    assert status == 200, answer

    def seen() -> bool:
        return bool(doctor(daemon, tmp_path, "-o", "json").ill("rights"))

    cluster.wait_for(seen, "the authorizer to see it")
    told = doctor(daemon, tmp_path, "-o", "json")
    print(told.text)
    assert told.status == 1
    assert [(each["level"], each["message"]) for each in told.ill("rights")] == [
        ("error", f"may not get, patch deployments/scale.apps in namespace {namespace}"),
        ("warning", f"may not list, watch scaledobjects.keda.sh in namespace {namespace}"),
    ]
    assert "rbac.create=true" in told.ill("rights")[0]["fix"]

    admin = tmp_path / "admin"
    admin.write_text((tmp_path / "kubeconfig").read_text())
    document = yaml.safe_load(admin.read_text())
    document["users"][0]["user"]["token"] = cluster.admin_token
    admin.write_text(yaml.safe_dump(document))
    whose = ("--kubeconfig", str(admin), "-o", "json")
    assert not doctor(daemon, tmp_path, *whose).ill("rights")
    of_daemon = doctor(daemon, tmp_path, *whose, "--service-account", f"{namespace}/tidegate")
    assert [each["message"] for each in of_daemon.ill("rights")] == [each["message"] for each in told.ill("rights")]


def test_an_api_server_that_is_not_there(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    daemon = Daemon(cluster, namespace, tmp_path, {}, api_url="https://127.0.0.1:1")
    told = doctor(daemon, tmp_path, "-o", "json")
    assert told.status == 1
    (away,) = told.ill()
    assert away["check"] == "API server"
    assert "kubeconfig" in away["fix"]


@pytest.mark.parametrize("mistake", ["tick: 30", "signals: {source: prometheus}"])
def test_a_configuration_that_is_wrong_ends_it(mistake: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(mistake)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("tidegate")), "doctor", "-c", str(tmp_path / "config.yaml"), "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (wrong,) = json.loads(done.stdout)["findings"]
    assert wrong["check"] == "configuration"
    assert "tidegate validate" in wrong["fix"]
