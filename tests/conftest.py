"""The fixtures every test may use. What they do is in tests/realcluster; here they are only named.

cluster        the real control plane of this run, shared by all tests and workers; never break it
namespace      the name of a namespace in it for one test, deleted afterwards
lws            the same `cluster`, with LeaderWorkerSet's controller and webhooks (about 2 s, once)
gateway        a Gateway in it, with a real Envoy Gateway and a real Envoy (about 11 s, once)
fresh_cluster  a control plane for one test (about 4 s): pause, kill, restart its processes as you like
prometheus     a Prometheus for one test that scrapes the pods of `namespace`; kill, empty and start it as you like

A test that uses one of them carries the marker `real_cluster` by itself. A test that carries it by hand runs in the
private namespace, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

from tests.realcluster import gateway as gateways
from tests.realcluster import lws as leaderworkersets
from tests.realcluster import session
from tests.realcluster.cluster import Cluster
from tests.realcluster.gateway import Gateway
from tests.realcluster.prometheus import Prometheus

# Timings never decide a test: on a busy machine an example may take any time. All else stays as Hypothesis has it, here
# and in CI.
settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# By the beginning of their ids: tests that one worker runs one after the other. The mark xdist_group does nothing, as
# xdist 3.8 writes it where pytest 9.2 no longer looks.
TOGETHER = {
    "tests/faults/": "the run of the fault matrix is made once",
    "tests/cluster/test_gatewayapi_real.py": "one test stops Envoy for a moment",
    "tests/realcluster_selftest/test_gateway.py": "one test stops Envoy for a moment",
}


class Together(LoadGroupScheduling):  # type: ignore[misc]
    """xdist's own scheduler, with TOGETHER instead of marks."""

    def _split_scope(self, nodeid: str) -> str:
        return next((reason for begin, reason in TOGETHER.items() if nodeid.startswith(begin)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together | None:
    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    session.enter(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"cluster", "fresh_cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(session.MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker(session.MARKER):
        session.require()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    if exitstatus != 0 and (logs := session.logs()):
        terminalreporter.write_line(f"logs of the control plane, until the next run: {logs}")


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return session.shared_cluster()


@pytest.fixture(scope="session")
def lws(cluster: Cluster) -> Cluster:
    leaderworkersets.start(cluster)
    return cluster


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> Gateway:
    return gateways.start(cluster)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = cluster.create_namespace(re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-"))
    yield name
    cluster.delete_namespace(name)


@pytest.fixture
def fresh_cluster() -> Iterator[Cluster]:
    with session.fresh_cluster() as own:
        yield own


@pytest.fixture
def prometheus(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Prometheus]:
    with Prometheus(cluster, namespace, tmp_path / "prometheus") as running:
        yield running
