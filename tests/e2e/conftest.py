"""Fixtures of the end-to-end tests: model servers and a daemon for the test's own namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.behind import Behind, behind
from tests.e2e.daemon import Daemon
from tests.e2e.updating import KINDS, Kind
from tests.realcluster.cluster import Cluster
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.lws import await_collector
from tests.realcluster.modelserver import ModelServers

StartDaemon = Callable[..., Daemon]


@pytest.fixture
def servers(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[ModelServers]:
    log = tmp_path / "modelservers.log"
    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, namespace, log) as running:
        yield running


@pytest.fixture
def start_daemon(
    cluster: Cluster, namespace: str, servers: ModelServers, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[StartDaemon]:
    """Installs the chart with this configuration and starts the daemon; shows its log where the test fails."""
    started: list[Daemon] = []

    def start(**config: Any) -> Daemon:
        pages = {"activationPages": {"gateway": {"url": servers.gateway_url}}}
        daemon = Daemon(cluster, namespace, tmp_path, {**pages, **config})
        started.append(daemon)
        return daemon.start()

    yield start
    for daemon in started:
        daemon.stop()
        print(f"--- daemon of {namespace}\n{daemon.log()[-6000:]}")


@pytest.fixture
def proxied(cluster: Cluster, namespace: str, servers: ModelServers, tmp_path: Path) -> Iterator[Behind]:
    """A daemon behind a fault proxy, beside model servers."""
    with (
        FaultProxy(cluster.url, cluster.ca_path) as proxy,
        behind(cluster, proxy, namespace, tmp_path, {}) as running,
    ):
        yield running


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    return start_daemon()


@pytest.fixture(params=KINDS)
def kind(cluster: Cluster, request: pytest.FixtureRequest) -> Kind:
    """Each kind, or that of the test's parameter; its objects can be created, and the garbage collector knows them."""
    found = KINDS[request.param]
    if found.name == "leaderWorkerSet":
        request.getfixturevalue("lws")
        await_collector(cluster)
    return found
