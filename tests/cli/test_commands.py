"""The commands as people type them: exit status and words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from autoscaler.settings.crd import definitions
from tests.cli.desk import Ended
from tests.cli.desk import run as tidegate

CONFIG = Path(__file__).parents[2] / "config"
WORKLOAD = (CONFIG / "examples" / "llama-3-8b.yaml").read_text()
BAD = WORKLOAD.replace("maxReplicas: 8", "maxReplicas: 0").replace("engine: vllm", "engine: ollama")


def installed(*arguments: str, stdin: str = "", **environ: str) -> Ended:
    """Run what the console script runs, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from autoscaler.cli.main import main; main()", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "100", **environ},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


COMMANDS = (
    *("validate", "crd", "run", "doctor", "demo"),
    *("list", "get", "status", "history", "plan"),
    *("promote", "pause", "resume", "abort", "retry"),
)


def test_help_names_every_command_and_shows_examples() -> None:
    ended = tidegate("--help")
    assert ended.status == 0
    for command in (*COMMANDS, "version", "set"):
        assert f"\n  {command}" in ended.out
    assert "tidegate crd | kubectl apply --server-side -f -" in ended.out


@pytest.mark.parametrize("command", [*COMMANDS, "set image"])
def test_the_help_of_a_command_shows_examples(command: str) -> None:
    ended = tidegate(*command.split(), "-h")
    assert ended.status == 0
    assert f"tidegate {command}" in ended.out.partition("Examples:")[2]


@pytest.mark.parametrize("command", [*COMMANDS[5:], "set image"])
def test_every_command_that_asks_the_api_server_may_be_told_the_same(command: str) -> None:
    shown = tidegate(*command.split(), "-h").out
    shared = ("-n, --namespace", "-o, --output", "--no-color", "--kubeconfig", "--context", "--timeout")
    assert [shown.count(f"  {option} ") for option in shared] == [1] * len(shared)


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}])
def test_no_colour_where_none_is_wanted(environ: dict[str, str]) -> None:
    ended = installed("validate", "-", stdin=BAD, **environ)
    assert ended.status == 1
    assert "\x1b[" not in ended.out + installed("--help", **environ).out


def test_help_imports_nothing_heavy() -> None:
    heavy = {"pydantic", "kubernetes_asyncio", "aiohttp", "rich", "structlog"}
    code = (
        "import sys; sys.argv = ['tidegate', '--help']\n"
        "from autoscaler.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('heavy:', sorted({heavy} & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "heavy: []" in done.stdout


def test_no_arguments_is_help_and_wrong_usage() -> None:
    ended = tidegate()
    assert ended.status == 2
    assert "validate" in ended.out + ended.err


def test_good_files_are_named() -> None:
    files = [str(CONFIG / name) for name in ("defaults.yaml", "examples/config.yaml", "examples/llama-3-8b.yaml")]
    ended = tidegate("validate", *files)
    assert ended.status == 0
    assert ended.out.splitlines() == [
        f"{files[0]}: a valid configuration",
        f"{files[1]}: a valid configuration",
        f"{files[2]}: InferenceWorkload ml-team/llama-3-8b is valid",
    ]


def test_every_mistake_has_file_line_key_value_and_range(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    ended = tidegate("validate", str(file))
    assert ended.status == 1
    lines = BAD.splitlines()
    engine, bound = lines.index("    engine: ollama") + 1, lines.index("    maxReplicas: 0") + 1
    assert ended.out.splitlines() == [
        f"{file}:{engine}: InferenceWorkload ml-team/llama-3-8b: spec.serving.engine: "
        "value 'ollama' is not known; allowed: auto, vllm, sglang, tgi, nim, triton, tensorrt-llm, dynamo, custom",
        f"{file}:{bound}: InferenceWorkload ml-team/llama-3-8b: spec.autoscaling.maxReplicas: "
        "value 0 is out of range; allowed: a whole number from 1 to 2147483647",
    ]


def test_standard_input_and_many_documents() -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: front}\n"
    ended = tidegate("validate", "-", stdin=f"---\n{WORKLOAD}\n---\n{service}\n---\n{BAD}")
    assert ended.status == 1
    assert "stdin: InferenceWorkload ml-team/llama-3-8b is valid" in ended.out
    assert "stdin: Service front was not checked: not one of Tidegate's kinds" in ended.out
    assert "spec.serving.engine: value 'ollama'" in ended.out


def test_the_items_of_a_list_are_checked() -> None:
    items = [yaml.safe_load(WORKLOAD), yaml.safe_load(BAD)]
    ended = tidegate("validate", "-", stdin=yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}))
    assert ended.status == 1
    assert "items[1].spec.serving.engine: value 'ollama'" in ended.out


def test_an_object_as_the_server_returns_it_is_valid() -> None:
    stored = yaml.safe_load(WORKLOAD)
    stored["metadata"] |= {
        "uid": "x",
        "generation": 2,
        "managedFields": [{}],
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    stored["status"] = {"phase": "Running", "signals": [{"name": "concurrency", "value": "3"}]}
    assert tidegate("validate", "-", stdin=yaml.safe_dump(stored)).status == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tick: 30\n", "stdin:1: tick: value 30 has no unit; write 30s for seconds"),
        ("kind: InferenceWorkload\nkind: Service\n", "stdin:2: key 'kind' was given on line 1 already"),
        ("kind: InferenceWorkload\n---\n- x\n", "stdin:3: not an object"),
        (
            "apiVersion: tidegate.dev/v1\nkind: InferenceWorkload\n",
            "value 'tidegate.dev/v1' is not known; allowed: tidegate",
        ),
        (
            "apiVersion: tidegate.dev/v1alpha1\nkind: Workload\n",
            "value 'Workload' is not known; allowed: InferenceWorkload",
        ),
        ("a: [\n", "not YAML"),
    ],
    ids=range(6),
)
def test_files_that_are_something_else(text: str, says: str) -> None:
    ended = tidegate("validate", "-", stdin=text)
    assert ended.status == 1
    assert says in ended.out


def test_the_environment_of_the_person_who_validates_does_not_matter() -> None:
    assert tidegate("validate", str(CONFIG / "defaults.yaml"), TIDEGATE__TICK="nonsense").status == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["validate"], "Missing argument 'FILE'"),
        (["validate", "no-such-file.yaml"], "there is no file no-such-file.yaml"),
        (["crd", "--name", "pods"], "'pods' is not one of 'inferenceworkloads', 'quotaledgers'"),
        (["run"], "Missing option '--config' / '-c'"),
        (["run", "-c", "no-such-file.yaml"], "no-such-file.yaml"),
        (["doctor", "-A", "-n", "ml"], "exclude each other"),
        (["doctor", "--service-account", "tidegate"], "write it as NAMESPACE/NAME"),
        (["doctor", "-o", "xml"], "'xml' is not one of 'table', 'json', 'yaml'"),
        (["doctor", "-c", "no-such-file.yaml"], "no-such-file.yaml"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_usage_is_status_two(arguments: list[str], says: str) -> None:
    ended = tidegate(*arguments)
    assert ended.status == 2
    assert says in " ".join(ended.err.split())


def test_crd_prints_all_definitions() -> None:
    ended = tidegate("crd")
    assert ended.status == 0
    assert list(yaml.safe_load_all(ended.out)) == list(definitions().values())


def test_crd_prints_one_definition_as_shipped() -> None:
    assert tidegate("crd", "--name", "quotaledgers").out == (CONFIG / "crd" / "quotaledgers.yaml").read_text()


def test_version_is_one_line() -> None:
    ended = tidegate("version")
    assert ended.status == 0
    assert ended.out.split()[0] == "tidegate"
    assert len(ended.out.splitlines()) == 1


def test_run_names_every_mistake_of_its_configuration_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("tick: 30\napi: {port: 0}\n")
    ended = tidegate("run", "--config", str(file))
    assert ended.status == 1
    assert ended.err.splitlines() == [
        f"{file}:1: tick: value 30 has no unit; write 30s for seconds; allowed: a duration from 200ms to 1m",
        f"{file}:2: api.port: value 0 is out of range; allowed: a whole number from 1 to 65535",
    ]


def test_doctor_that_is_not_done_in_time_says_so_and_what_it_knows(tmp_path: Path) -> None:
    """The API server takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{silent.getsockname()[1]}"}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        kubeconfig = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context]}
        kubeconfig |= {"users": [{"name": "u", "user": {"token": "x"}}], "current-context": "x"}
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        ended = installed("doctor", "--kubeconfig", str(tmp_path / "kubeconfig"), "--timeout", "1", "-o", "json")
    assert ended.status == 4
    told = yaml.safe_load(ended.out)
    assert told["status"] == "timeout"
    assert [each["check"] for each in told["findings"]] == ["configuration", "doctor"]
