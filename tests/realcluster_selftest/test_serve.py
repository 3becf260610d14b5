"""`make cluster`: what it prints works when typed, and it goes when told to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_cluster

DEADLINE_S = 120.0


def serve(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.realcluster.serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout


def typed(line: str, kubeconfig: str) -> str:
    environment = {**os.environ, "KUBECONFIG": kubeconfig}
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, check=True, timeout=DEADLINE_S, env=environment
    )
    return done.stdout


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cluster"
    serve("--stop", "--directory", str(tmp_path / "cluster"))


def test_the_printed_commands_work_from_an_ordinary_shell(directory: Path) -> None:
    text = serve("--directory", str(directory))
    commands = re.findall(r"^  (\S.*)$", text, re.MULTILINE)
    export, get_nodes, create, enter, stop = commands
    kubeconfig = export.removeprefix("export KUBECONFIG=")
    assert re.findall(r"^gpu-\d +Ready", typed(get_nodes, kubeconfig), re.MULTILINE) == [
        "gpu-0   Ready",
        "gpu-1   Ready",
    ]
    assert typed(create, kubeconfig) == "deployment.apps/hello created\n"
    inside = enter.rpartition(" ")[0]  # without the interactive shell
    assert typed(f"{inside} readlink /proc/self/ns/net", kubeconfig) != typed("readlink /proc/self/ns/net", "")
    assert typed(f"{inside} {get_nodes}", kubeconfig).count("Ready") == 2
    assert serve("--directory", str(directory)).startswith("It is running already.")
    assert typed(stop, kubeconfig) == "Stopped; its data is gone.\n"
    assert typed(stop, kubeconfig) == "No control plane is running.\n"
    assert not directory.exists()
