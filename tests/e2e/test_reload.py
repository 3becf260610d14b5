"""The configuration changes while the daemon runs: what is new applies within 5 s, what is broken changes nothing.

Not real: KWOK's pods have no volumes, so no kubelet carries the ConfigMap into a file. The test does what the kubelet
does: it reads the ConfigMap that the chart installed, writes it into a new directory and swaps `..data` by one rename.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.daemon.mount import Mount
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster

APPLIED_WITHIN_S = 5.0


class Mounted:
    """A daemon whose file is a mount, and the ConfigMap that fills it."""

    def __init__(self, cluster: Cluster, namespace: str, directory: Path, config: Mapping[str, Any]) -> None:
        self.daemon = Daemon(cluster, namespace, directory, config)
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        self._mount = Mount(directory, self._document())
        self._installed = yaml.safe_load(self._document())

    def _config_map(self) -> dict[str, Any]:
        (found,) = [each for each in self._cluster.get(self._path)["items"] if "config.yaml" in each.get("data", {})]
        return dict(found)

    def _document(self) -> str:
        return str(self._config_map()["data"]["config.yaml"])

    def change(self, **changes: Any) -> float:
        """The ConfigMap is as installed but for this, and the mount follows. When, on the monotonic clock."""
        document = {**self._installed, **changes}
        name = self._config_map()["metadata"]["name"]
        patch = {"data": {"config.yaml": yaml.safe_dump(document)}}
        content_type = "application/merge-patch+json"
        status, answer = self._cluster.request("PATCH", f"{self._path}/{name}", patch, content_type=content_type)
        assert status == 200, answer
        self._mount.write(self._document())
        return time.monotonic()

    def value(self, series: str) -> float | None:
        lines = [line for line in self.daemon.get("/metrics")[1].splitlines() if line.startswith(f"{series} ")]
        return float(lines[0].split()[1]) if lines else None

    def reloads(self, result: str) -> float | None:
        return self.value(f'tidegate_config_reloads_total{{result="{result}"}}')

    def wait_for(self, seen: Callable[[], object], what: str) -> None:
        self._cluster.wait_for(seen, what, 15)


@pytest.fixture
def mounted(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Mounted]:
    made = Mounted(cluster, namespace, tmp_path, {"projects": project(namespace, 2)})
    made.daemon.start()
    yield made
    assert made.daemon.stop() == 0
    print(f"--- daemon of {namespace}\n{made.daemon.log()[-6000:]}")


def project(namespace: str, gpus: int) -> dict[str, Any]:
    return {"team": {"namespaces": [namespace], "quota": {"limits": {"default": {"nvidia.com/gpu": gpus}}}}}


def second_of_two(cluster: Cluster, namespace: str) -> Workload:
    """A workload that wants three GPUs and has one, because of two the first has the other."""
    for name, replicas in (("first", 1), ("second", 3)):
        bounds = {"minReplicas": replicas, "maxReplicas": replicas}
        workload = Workload(cluster, namespace, manifest(name, bounds))
        workload.wait_replicas(1)
    workload.wait_condition("ScalingLimited", "True", "QuotaLimited")
    return workload


def test_a_raised_limit_applies_to_the_workload_that_waits_for_it(
    cluster: Cluster, namespace: str, mounted: Mounted
) -> None:
    second = second_of_two(cluster, namespace)
    started = mounted.change(projects=project(namespace, 4))
    second.wait_replicas(3)
    assert time.monotonic() - started < APPLIED_WITHIN_S
    assert mounted.reloads("success") == 1
    assert len(mounted.daemon.log_lines("config.reloaded")) == 1
    second.wait_condition("ScalingLimited", "False")

    started = mounted.change(projects=project(namespace, 4), ceilings={"maxReplicas": 2}, tick="300ms")
    second.wait_replicas(2)
    assert time.monotonic() - started < APPLIED_WITHIN_S
    mounted.wait_for(lambda: "allowed: 1.5 s" in mounted.daemon.get("/healthz")[1], "five of the new ticks")
    assert mounted.daemon.get("/healthz")[0] == 200


def test_a_broken_file_leaves_the_last_good_one_and_its_repair_is_told_once(
    cluster: Cluster, namespace: str, mounted: Mounted
) -> None:
    second = second_of_two(cluster, namespace)
    before = mounted.daemon.get("/readyz")[1].splitlines()[1]
    mounted.change(projects=project(namespace, 4), tick="0s", nope=1)  # half of it would be a raised limit
    mounted.wait_for(lambda: mounted.reloads("failure") == 1, "the file to be refused")
    (line,) = mounted.daemon.log_lines("config.refused")
    assert line["level"] == "error"
    assert [any(key in problem for problem in line["problems"]) for key in ("tick", "nope")] == [True, True]
    status, text = mounted.daemon.get("/readyz")
    assert (status, text.splitlines()[1]) == (200, before)
    assert all(problem in text for problem in line["problems"])
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert second.replicas() == 1
        time.sleep(0.1)

    started = mounted.change(projects=project(namespace, 4))
    second.wait_replicas(3)
    assert time.monotonic() - started < APPLIED_WITHIN_S
    assert len(mounted.daemon.log_lines("config.recovered")) == 1
    assert "refused" not in mounted.daemon.get("/readyz")[1]


def test_what_is_republished_ends_and_begins_again_with_the_switch(
    cluster: Cluster, namespace: str, mounted: Mounted
) -> None:
    Workload(cluster, namespace, manifest("llama", {"minReplicas": 1}))
    series = f'replica_count{{namespace="{namespace}",workload="llama"}}'
    mounted.wait_for(lambda: mounted.value(series) == 1, "the series")
    mounted.change(metrics={"republish": False})
    mounted.wait_for(lambda: mounted.value(series) is None, "it to end")
    mounted.change(metrics={"republish": True})
    mounted.wait_for(lambda: mounted.value(series) == 1, "it to begin again")
