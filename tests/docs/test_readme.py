"""Every command of README.md is run by a test, or is a test command itself; what it shows is what they print.

A command that stands in none of the tables fails the first test: put it into the table of the test that runs it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import typer
import yaml
from typer.core import TyperGroup

from autoscaler.cli.main import app
from autoscaler.cluster.resources import HTTPRoute
from autoscaler.cluster.traffic.gatewayapi import ObservedRoute, RuleAddress, Weights, observe
from autoscaler.model.decision import Observation
from autoscaler.model.signal import Activation, Quality, Reading, Sample, SignalSpec, WorkloadSignals
from autoscaler.model.workload import ActivationSpec, ScalingSpec
from autoscaler.scaling.decision import ScalingState, decide
from tests.chart.install import apply_crds
from tests.docs import emitted
from tests.docs.readme import README, ROOT, blocks, commands, languages, words
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Workload
from tests.realcluster.cluster import Cluster
from tests.realcluster.modelserver import ModelServers

# Each command exactly as README.md has it.
MAKE = {"make demo", "make test"}  # run by people and by CI; here: what they would run
DEMO = ".venv/bin/tidegate demo --plain"
OFFLINE = {
    DEMO,
    ".venv/bin/tidegate validate config/examples/llama-3-8b.yaml config/examples/scale-to-zero.yaml "
    "config/examples/config.yaml",
}
INSTALL = (
    "helm install tidegate charts/tidegate -n tidegate-system --create-namespace "
    "--set image.repository=your-registry/tidegate --set image.tag=0.1.0"
)
CREATE = "kubectl create namespace ml-team"
APPLY = "kubectl apply -f config/examples/llama-3-8b.yaml"
GET = "kubectl get iw -n ml-team"
SCALE = "kubectl scale iw llama-3-8b -n ml-team --replicas=3"
UNSET = """kubectl patch iw llama-3-8b -n ml-team --type=merge -p '{"spec":{"replicas":null}}'"""
UNINSTALL = "helm uninstall tidegate -n tidegate-system"
DOCTOR = ".venv/bin/tidegate doctor -n ml-team --service-account tidegate-system/tidegate"
UPDATING = [
    "sed -e 's/minReplicas: 1/minReplicas: 3/' config/examples/llama-3-8b.yaml | kubectl apply -f -",
    "sed -e 's/minReplicas: 1/minReplicas: 8/' -e 's/v0.11.0/v0.12.0/' config/examples/llama-3-8b.yaml > new.yaml",
    ".venv/bin/tidegate plan -f new.yaml",
    "kubectl apply -f new.yaml",
    "kubectl get iw llama-3-8b -n ml-team",
    ".venv/bin/tidegate get llama-3-8b -n ml-team -w",
    """kubectl patch iw qwen-7b -n ml-team --type=merge -p '{"spec":{"desiredPhase":"Stopped"}}'""",
    ".venv/bin/tidegate status llama-3-8b -n ml-team --timeout 1800",
    ".venv/bin/tidegate history llama-3-8b -n ml-team",
]  # run by test_readme_updates.py
ON_A_CLUSTER = [INSTALL, CREATE, APPLY, GET, SCALE, UNSET, UNINSTALL, DOCTOR]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def tidegate(command: str) -> str:
    """Run a command of the README with the interpreter that runs the tests."""
    program, *arguments = words(command)
    assert program == ".venv/bin/tidegate"
    done = run([str(Path(sys.executable).with_name("tidegate")), *arguments])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_command_of_the_readme_goes_unrun() -> None:
    found = commands()
    assert set(found) == MAKE | OFFLINE | set(ON_A_CLUSTER) | set(UPDATING)
    assert [command for command in found if command in ON_A_CLUSTER] == ON_A_CLUSTER
    assert [command for command in found if command in UPDATING] == UPDATING


def test_every_block_says_what_it_is() -> None:
    assert languages() == {"sh", "text", "yaml"}


def test_every_link_points_at_something() -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README.read_text())
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize(("command", "runs"), [("make demo", "tidegate demo"), ("make test", "-m pytest")])
def test_make_runs_what_the_readme_says(command: str, runs: str) -> None:
    assert command in MAKE
    done = run([*words(command), "--dry-run"])
    assert done.returncode == 0, done.stderr
    assert runs in done.stdout


@pytest.mark.parametrize("command", sorted(OFFLINE - {DEMO}))
def test_the_offline_commands_succeed(command: str) -> None:
    assert len(tidegate(command).splitlines()) == 3


def test_the_output_of_the_demo_is_from_a_run() -> None:
    printed = tidegate(DEMO)
    for part in blocks("text")[0].split("…\n"):
        _, found, printed = printed.partition(part)
        assert found, f"the demo does not print this (any more), in this order:\n{part}"


def test_the_manifests_are_the_shipped_examples() -> None:
    whole, _, canary, zero, several, queries, groups, projects = blocks("yaml")
    examples = ROOT / "config" / "examples"
    assert whole == (examples / "llama-3-8b.yaml").read_text()
    for block, name in ((zero, "scale-to-zero.yaml"), (several, "several-signals.yaml")):
        shipped = yaml.safe_load((examples / name).read_text())
        assert yaml.safe_load(block) == {"autoscaling": shipped["spec"]["autoscaling"]}
    spec = yaml.safe_load((examples / "canary.yaml").read_text())["spec"]
    shown = yaml.safe_load(canary)
    assert shown == {"rollout": {"steps": spec["rollout"]["steps"]}, "traffic": spec["traffic"]}
    nodes = yaml.safe_load((examples / "several-nodes.yaml").read_text())["spec"]["serving"]["leaderWorkerSet"]
    shown = yaml.safe_load(groups)["leaderWorkerSet"]
    for part in ("leaderTemplate", "workerTemplate"):
        shown[part] = nodes[part]
    assert shown == nodes, "but for the templates, which it leaves out"
    with_prometheus = yaml.safe_load((examples / "prometheus.yaml").read_text())
    assert yaml.safe_load(queries) == {"queries": with_prometheus["queries"]}
    configuration = yaml.safe_load((examples / "config.yaml").read_text())
    assert yaml.safe_load(projects) == {"projects": configuration["projects"]}


def test_the_rule_of_the_route_is_one_that_the_canary_can_use() -> None:
    """As the adapter reads it: it is found, the current revision has everything, and nobody else writes weights."""
    spec = yaml.safe_load((ROOT / "config" / "examples" / "canary.yaml").read_text())["spec"]
    named = spec["traffic"]["httpRoute"]
    rules = yaml.safe_load(blocks("yaml")[1])["rules"]
    route = msgspec.convert({"metadata": {"name": named["name"]}, "spec": {"rules": rules}}, HTTPRoute)
    address = RuleAddress("ml-team", named["name"], named["ruleName"], "llama-3-70b", "llama-3-70b-update")
    seen = observe(address, route, installed=True)
    assert isinstance(seen, ObservedRoute), seen
    assert seen.weights == Weights(100, 0)


def test_the_minimum_versions_are_the_checked_ones() -> None:
    text = README.read_text()
    chart = yaml.safe_load((ROOT / "charts" / "tidegate" / "Chart.yaml").read_text())
    assert chart["kubeVersion"].removeprefix(">=").rpartition(".0")[0] in re.findall(r"Kubernetes ([0-9.]+) or", text)
    modules = (ROOT / "tools" / "cluster" / "k8s" / "go.mod").read_text()
    [tested] = re.findall(r"k8s\.io/kubernetes v([0-9]+\.[0-9]+)\.", modules)
    assert f"(tested with {tested})" in text


def test_the_table_of_commands_has_them_all() -> None:
    """And none that is not there."""
    [table] = re.findall(r"^\| command \|.*?\n\n", README.read_text(), re.MULTILINE | re.DOTALL)
    shown = re.findall(r"^\| `tidegate ([a-z ]+)` \|", table, re.MULTILINE)
    there = typer.main.get_command(app)
    assert isinstance(there, TyperGroup)
    names = [
        f"{name} {below}".strip()
        for name, command in there.commands.items()
        for below in (command.commands if isinstance(command, TyperGroup) else ("",))
    ]
    assert sorted(shown) == sorted(names)


# --- numbers under "Limits worth knowing" ---


def falls_to_zero_after(delay_s: float, retention_s: float, load: float = 40.0, before: int = 6) -> int:
    """Seconds from the end of all load until zero is decided, where pods come and go at once."""
    signal = SignalSpec("concurrency", 10.0, 7.0)
    scaling = ScalingSpec(0, 8, 1, 1, signal, retention_s, delay_s, activation=ActivationSpec("gateway", "waiting"))
    spec = emitted.workload_spec(scaling)
    state, replicas, calm_at = ScalingState(), before, 1400
    for now in range(1000, 4000, 2):
        samples = tuple(Sample(float(at), load if at < calm_at else 0.0) for at in (now - 1, now))
        value = samples[-1].value
        reading = Reading("concurrency", value, Quality.FRESH, samples, 0.5, replicas, replicas)
        activity = Reading("activity", value, Quality.FRESH, (), 0.5, replicas, replicas)
        seen = WorkloadSignals({"concurrency": reading}, activity)
        observation = Observation(applied=replicas, ready=replicas, signals=seen, activation=Activation.IDLE)
        decision, state = decide(spec, state, observation, float(now))
        replicas = decision.desired
        if replicas == 0:
            return now - calm_at
    raise AssertionError("it never went to zero")


def test_the_time_to_zero_is_the_computed_one() -> None:
    rows = re.findall(r"^ *\| (\d+) \| (\d+) \| (\d+) s \|$", README.read_text(), re.MULTILINE)
    assert len(rows) == 4
    for delay, retention, after in rows:
        assert falls_to_zero_after(float(delay), float(retention)) == int(after)


# --- the quick start on the real control plane ---


@dataclass
class Tour:
    """The README's namespaces under names of their own, so that the shared cluster is safe, and what serves there.

    Two things differ from a reader's cluster: the CRDs are applied beforehand (they are the cluster's, not one
    release's), and the daemon runs beside the cluster and watches `team` only, because pods have no containers here.
    """

    cluster: Cluster
    system: str
    team: str

    def run(self, command: str) -> str:
        renamed = command.replace("tidegate-system", self.system).replace("ml-team", self.team)
        program, *arguments = words(renamed)
        if program == "helm":
            arguments = [str(ROOT / word) if word == "charts/tidegate" else word for word in arguments]
            extra = ["--set=crds.install=false"] if arguments[0] == "install" else []
            return self.cluster.helm(*arguments, *extra)
        assert program == "kubectl"
        return self.cluster.kubectl(*arguments)

    def doctor(self, command: str, directory: Path) -> str:
        """With a kubeconfig of an administrator, whatever it finds."""
        _, *arguments = words(command.replace("tidegate-system", self.system).replace("ml-team", self.team))
        cluster = {"server": self.cluster.url, "certificate-authority": str(self.cluster.ca_path)}
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": self.cluster.admin_token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (directory / "admin.yaml").write_text(yaml.safe_dump(kubeconfig))
        files = ["--kubeconfig", str(directory / "admin.yaml"), "-c", str(directory / "config.yaml")]
        return run([str(Path(sys.executable).with_name("tidegate")), *arguments, *files]).stdout

    def apply(self, command: str) -> Workload:
        """`kubectl apply -f FILE` with the file's namespace renamed; the project keeps its name."""
        *_, flag, file = words(command)
        assert flag == "-f"
        body = yaml.safe_load((ROOT / file).read_text())
        assert body["metadata"]["namespace"] == "ml-team"
        body["metadata"]["namespace"] = self.team
        return Workload(self.cluster, self.team, body)


@pytest.fixture
def tour(cluster: Cluster) -> Iterator[Tour]:
    apply_crds(cluster)
    suffix = uuid.uuid4().hex[:8]
    yield (found := Tour(cluster, f"readme-system-{suffix}", f"readme-team-{suffix}"))
    cluster.helm("uninstall", "tidegate", f"--namespace={found.system}", "--ignore-not-found")
    for namespace in (found.system, found.team):
        cluster.delete_namespace(namespace)


@pytest.fixture
def serving(tour: Tour, tmp_path: Path) -> Iterator[None]:
    """After the README's install and namespace: a daemon for that namespace, and pages for its pods."""
    tour.run(INSTALL)
    tour.run(CREATE)
    projects = yaml.safe_load(blocks("yaml")[-1])["projects"]
    projects["ml-team"]["namespaces"] = [tour.team]
    cluster = tour.cluster
    log = tmp_path / "modelservers.log"
    with ModelServers(cluster.url, cluster.admin_token, cluster.ca_path, tour.team, log) as servers:
        servers.set_load(tour.team, "llama-3-8b", concurrency=12, slots=100)
        daemon = Daemon(cluster, tour.team, tmp_path, {"projects": projects})
        try:
            daemon.start()
            yield
        finally:
            daemon.stop()
            print(f"--- daemon\n{daemon.log()[-6000:]}")


def test_the_output_of_the_doctor_is_from_a_run() -> None:
    """That run is held to the golden text by tests/e2e/test_doctor.py."""
    golden = (ROOT / "tests" / "e2e" / "data" / "doctor-sick.txt").read_text().replace("NAMESPACE", "ml-team")
    for part in blocks("text")[-1].split("…\n"):
        _, found, golden = golden.partition(part)
        assert found, f"the doctor does not print this (any more), in this order:\n{part}"


def test_the_quick_start_does_what_it_shows(tour: Tour, serving: None, tmp_path: Path) -> None:
    cluster = tour.cluster
    deployment = f"/apis/apps/v1/namespaces/{tour.system}/deployments/tidegate"
    cluster.wait_for(lambda: cluster.get(deployment)["status"]["readyReplicas"] == 2, "the installed daemon's pods")

    workload = tour.apply(APPLY)
    [header, row] = [line.split()[:-1] for line in blocks("text")[1].splitlines()]  # without the age

    def shown() -> list[list[str]]:
        return [line.split()[:-1] for line in tour.run(GET).splitlines()]

    cluster.wait_for(lambda: shown() == [header, row], f"`{GET}` to print what the README shows", timeout_s=90)

    tour.run(SCALE)
    workload.wait_ready(3)
    workload.wait_condition("ManualReplicas", "True")
    tour.run(UNSET)
    workload.wait_condition("ManualReplicas", "False")

    told = tour.doctor(DOCTOR, tmp_path)
    assert "rights ServiceAccount" in told
    assert f"pages {tour.team}/llama-3-8b: concurrency: shown by" in told, told

    tour.run(UNINSTALL)
    assert cluster.request("GET", deployment)[0] == 404
    assert workload.object()["metadata"]["name"] == "llama-3-8b"
