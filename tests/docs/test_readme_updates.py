"""The section "Updates" of README.md on the real control plane: its commands in a shell, its output from this run.

Imitated: pods run nothing, so the test says when one of the update is Ready; one that cannot pull its image never is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.readme import ROOT, updates_shown
from tests.docs.test_readme import UPDATING
from tests.e2e.daemon import Daemon
from tests.e2e.updating import GPU, bounds, set_pod_status
from tests.e2e.workload import Workload, manifest
from tests.realcluster.cluster import Cluster
from tests.realcluster.controlplane import write_kubeconfig
from tests.realcluster.modelserver import ModelServers

NAME = "llama-3-8b"
EXAMPLE = Path("config/examples/llama-3-8b.yaml")
START, EDIT, PLAN, APPLY, TABLE, WATCH, STOP_OTHER, STATUS, HISTORY = UPDATING
QUOTA, OTHERS = 12, 2
NEVER = {"pod-ready.stage.kwok.x-k8s.io/delay": "24h"}


def masked(text: str) -> list[str]:
    """Its lines without what differs from run to run: names of revisions and pods, ages, padding, and what the policy
    says of an idle workload while its windows fill."""
    text = re.sub(r"; (WindowsWarmingUp|MinReplicas|ScaleDown\w*) \d+ -> .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"asks for \d+$", "asks for some", text, flags=re.MULTILINE)
    text = re.sub(
        rf"{NAME}-[0-9a-f]{{8}}(-[a-z0-9]+-[a-z0-9]{{5}})?\b", lambda it: "POD" if it[1] else "REVISION", text
    )
    text = re.sub(r"(?<![\w.])\d+[smhd](\d+s)?(?![\w.])", "TIME", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def find(shown: str, printed: str) -> None:
    """All that README shows is in what was printed, in this order; "…" stands for lines that it leaves out."""
    lines = iter(masked(printed))
    for line in masked(shown):
        if line != "…":
            assert line in lines, f"not printed (any more), in this order: {line}\n--- printed\n{printed}"


class Desk:
    """A directory with the README's files, a shell, and a namespace whose name is as long as ml-team."""

    def __init__(self, cluster: Cluster, team: str, directory: Path, servers: ModelServers) -> None:
        self.cluster, self.team, self.servers = cluster, team, servers
        self._directory = directory
        programs = {".venv/bin/tidegate": Path(sys.executable).with_name("tidegate"), "bin/kubectl": _kubectl(cluster)}
        for name, path in programs.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).symlink_to(path)
        (directory / EXAMPLE).parent.mkdir(parents=True)
        (directory / EXAMPLE).write_text((ROOT / EXAMPLE).read_text().replace("ml-team", team))
        write_kubeconfig(directory / "kubeconfig", cluster.url, cluster.ca_path, cluster.admin_token)
        self._environ = {
            **os.environ,
            "KUBECONFIG": str(directory / "kubeconfig"),
            "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
            "COLUMNS": "120",
        }

    def run(self, command: str, status: int = 0) -> str:
        """As README has it; its exit status must be this."""
        done = subprocess.run(
            ["bash", "-c", command.replace("ml-team", self.team)],
            cwd=self._directory,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        print(f"$ {command}\n{done.stdout}{done.stderr}")
        return done.stdout.replace(self.team, "ml-team")

    def begin(self, command: str) -> subprocess.Popen[bytes]:
        with self.printed.open("wb") as out:
            words = command.replace("ml-team", self.team)
            return subprocess.Popen(["bash", "-c", f"exec {words}"], cwd=self._directory, env=self._environ, stdout=out)

    @property
    def printed(self) -> Path:
        return self._directory / "printed"

    def wait_watched(self, *parts: str) -> None:
        """Until one picture of the watch has all of this."""
        self.cluster.wait_for(lambda: self._watched(parts), f"a picture with {parts}", 60)

    def _watched(self, parts: tuple[str, ...]) -> bool:
        return any(all(part in each for part in parts) for each in self.printed.read_text().split("Name: "))

    def never_ready(self, **rollout: Any) -> None:
        """In the edited file: pods that do not get ready by themselves."""
        path = self._directory / "new.yaml"
        body = yaml.safe_load(path.read_text())
        body["spec"]["serving"]["deployment"]["template"]["metadata"] = {"annotations": NEVER}
        body["spec"]["rollout"] = rollout
        path.write_text(yaml.safe_dump(body))

    def patch(self, **rollout: Any) -> None:
        body = {"spec": {"rollout": rollout}}
        status, answer = self.cluster.request("PATCH", self._path, body, content_type="application/merge-patch+json")
        assert status == 200, answer

    @property
    def _path(self) -> str:
        return f"/apis/tidegate.dev/v1alpha1/namespaces/{self.team}/inferenceworkloads/{NAME}"

    def pods(self, update: bool) -> list[dict[str, Any]]:
        path = f"/api/v1/namespaces/{self.team}/pods?labelSelector=tidegate.dev/workload={NAME}"
        found: list[dict[str, Any]] = self.cluster.get(path)["items"]
        return [each for each in found if (each["metadata"].get("annotations") == NEVER) is update]

    def start(self) -> None:
        """Three replicas serve, and another workload has two GPUs."""
        Workload(self.cluster, self.team, manifest("qwen-7b", bounds(OTHERS))).wait_ready(OTHERS)
        self.run(START)
        self.cluster.wait_for(
            lambda: self.cluster.get(self._path).get("status", {}).get("counts", {}).get("ready") == 3, "3 replicas", 60
        )


def _kubectl(cluster: Cluster) -> Path:
    return Path(cluster.programs["kubectl"])


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Iterator[Desk]:
    with ExitStack() as stack:
        team = cluster.create_namespace("t")
        assert len(team) == len("ml-team")
        stack.callback(cluster.delete_namespace, team)
        servers = ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, team, tmp_path / "modelservers.log")
        stack.enter_context(servers)
        projects = {team: {"namespaces": [team], "quota": {"limits": {"default": {GPU: QUOTA}}}}}
        daemon = Daemon(cluster, team, tmp_path / "daemon", {"projects": projects})
        stack.callback(lambda: print(f"--- daemon\n{daemon.log()[-6000:]}"))
        stack.callback(daemon.stop)
        daemon.start()
        (tmp_path / "desk").mkdir()
        yield Desk(cluster, team, tmp_path / "desk", servers)


def test_an_update_goes_as_the_readme_shows(desk: Desk) -> None:
    plan_shown, table_shown, watch_shown, end_shown, _ = updates_shown()
    desk.start()
    desk.run(EDIT)
    desk.never_ready(drain={"quietSeconds": 3600, "timeoutSeconds": 3600})  # until it was seen
    find(plan_shown, desk.run(PLAN, status=3))
    watch = desk.begin(WATCH)
    try:
        desk.run(APPLY)
        desk.wait_watched("1 GPU short")
        desk.cluster.wait_for(lambda: masked(desk.run(TABLE)) == masked(table_shown), "the table as it is shown")
        assert not desk.pods(update=True)
        desk.run(STOP_OTHER)
        desk.wait_watched("starting: 0 of 8 replicas", "0 of 8 ready", "├── ◌ Starting")
        desk.cluster.wait_for(lambda: all(each["status"].get("podIP") for each in desk.pods(update=True)), "addresses")
        for pod in desk.pods(update=True):
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            set_pod_status(desk.cluster, pod, ready)
        desk.wait_watched("0 % of traffic  3 of 3 ready", "100 % of traffic  8 of 8 ready")
        desk.patch(drain=None)
        desk.run(STATUS)
    finally:
        watch.terminate()
        watch.wait(30)
        print(watched := desk.printed.read_text().replace(desk.team, "ml-team"))
    find(watch_shown, watched)
    desk.cluster.wait_for(lambda: "Stored" in desk.run(HISTORY), "the old revision to be gone")
    # the record is written before the sentence: `status` may have told of the end with the sentence of before
    find(end_shown, desk.run(STATUS) + desk.run(HISTORY))


def test_an_update_that_does_not_come_up_ends_as_the_readme_shows(desk: Desk) -> None:
    desk.start()
    desk.run(STOP_OTHER)
    desk.run(EDIT)
    desk.never_ready(progressDeadlineSeconds=5)
    desk.run(APPLY)
    status = desk.run(STATUS, status=3)
    find(updates_shown()[-1], status)
