"""The files and command lines of one control plane: etcd, API server, controllers, scheduler, KWOK.

Everything listens on 127.0.0.1. Certificates, keys, tokens and data live in one directory and end with it.
RBAC is on, admission plugins are the defaults, the aggregation layer is configured (an APIService may be added).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.realcluster import kwok, pki, sandbox
from tests.realcluster.process import Process

ISSUER = "https://kubernetes.default.svc"
SERVICE_CIDR = "10.96.0.0/16"
FIRST_PORT, LAST_PORT = 20_000, 32_000  # below the range that outgoing connections take theirs from


@dataclass(frozen=True, slots=True)
class Layout:
    """What `prepare` wrote and what it would start, in order."""

    directory: Path
    url: str
    ca_path: Path
    admin_token: str
    kubeconfig: Path
    processes: tuple[Process, ...]


def prepare(directory: Path, programs: Mapping[str, Path], pod_cidr: str) -> Layout:
    """Write keys, kubeconfig and stages into `directory`; start nothing."""
    directory.mkdir(parents=True)
    etcd_port, peer_port, api_port, kcm_port, scheduler_port, kwok_port = free_ports(6)
    token, url = secrets.token_hex(16), f"https://127.0.0.1:{api_port}"
    _write_keys(directory)
    (directory / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    kubeconfig = directory / "kubeconfig"
    write_kubeconfig(kubeconfig, url, directory / "ca.crt", token)
    kwok.write_stages(programs["kwok-stages"], directory / "stages.yaml")
    etcd_url = f"http://127.0.0.1:{etcd_port}"
    commands = {
        "etcd": _etcd(directory, etcd_url, f"http://127.0.0.1:{peer_port}"),
        "kube-apiserver": _apiserver(directory, etcd_url, api_port),
        "kube-controller-manager": _controller_manager(directory, kcm_port),
        "kube-scheduler": _client_of_api(directory, scheduler_port),
        "kwok": [
            f"--kubeconfig={kubeconfig}",
            f"--config={directory / 'stages.yaml'}",
            "--manage-all-nodes=true",
            f"--cidr={pod_cidr}",
            "--node-ip=10.244.255.254",
            f"--server-address=127.0.0.1:{kwok_port}",
        ],
    }
    processes = tuple(
        Process(name, (str(programs[name]), *arguments), directory) for name, arguments in commands.items()
    )
    return Layout(directory, url, directory / "ca.crt", token, kubeconfig, processes)


def write_kubeconfig(path: Path, url: str, ca_path: Path, token: str) -> None:
    """A kubeconfig for the bearer of `token`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tidegate",
        "clusters": [{"name": "tidegate", "cluster": {"server": url, "certificate-authority": str(ca_path)}}],
        "contexts": [{"name": "tidegate", "context": {"cluster": "tidegate", "user": "tidegate"}}],
        "users": [{"name": "tidegate", "user": {"token": token}}],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, and that no other worker of this run is given."""
    ports: list[int] = []
    while len(ports) < count:
        candidate = FIRST_PORT + next_number("ports") % (LAST_PORT - FIRST_PORT)
        if _is_free(candidate):
            ports.append(candidate)
    return ports


def next_number(series: str) -> int:
    """0, 1, 2, … over all workers of this run."""
    with (Path(os.environ[sandbox.RUN_DIR_VARIABLE]) / f"next-{series}").open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        number = int(counter.read() or 0)
        counter.truncate(0)
        counter.write(str(number + 1))
    return number


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_keys(directory: Path) -> None:
    authority = pki.new_authority("tidegate-test-ca")
    authority.write(directory, "ca")
    hosts = ("127.0.0.1", "localhost", "10.96.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    pki.issue(authority, "kube-apiserver", hosts=hosts).write(directory, "apiserver")
    front_authority = pki.new_authority("tidegate-test-front-proxy-ca")  # must not be the clients' CA
    front_authority.write(directory, "front-proxy-ca")
    pki.issue(front_authority, "front-proxy-client").write(directory, "front-proxy-client")
    (directory / "service-accounts.key").write_text(pki.new_key().pem())


def _etcd(directory: Path, client_url: str, peer_url: str) -> list[str]:
    return [
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver(directory: Path, etcd_url: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",  # the namespace has no default route to derive one from
        f"--secure-port={port}",
        f"--tls-cert-file={directory / 'apiserver.crt'}",
        f"--tls-private-key-file={directory / 'apiserver.key'}",
        f"--client-ca-file={directory / 'ca.crt'}",
        f"--requestheader-client-ca-file={directory / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={directory / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={directory / 'front-proxy-client.key'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={directory / 'service-accounts.key'}",
        f"--service-account-signing-key-file={directory / 'service-accounts.key'}",
    ]


def _controller_manager(directory: Path, port: int) -> list[str]:
    return [
        *_client_of_api(directory, port),
        f"--service-account-private-key-file={directory / 'service-accounts.key'}",
        f"--root-ca-file={directory / 'ca.crt'}",
        f"--cluster-signing-cert-file={directory / 'ca.crt'}",
        f"--cluster-signing-key-file={directory / 'ca.key'}",
        "--node-monitor-grace-period=1h",  # a paused KWOK is not a lost node
        "--horizontal-pod-autoscaler-sync-period=2s",
    ]


def _client_of_api(directory: Path, port: int) -> list[str]:
    """Flags that the controller manager and the scheduler share; the defaults of 20 QPS would be the bottleneck."""
    kubeconfig = directory / "kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory / 'certificates' / str(port)}",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
