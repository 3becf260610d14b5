"""The private namespace: nothing leaks out of it, and nothing in it survives the one who made it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.realcluster import sandbox

pytestmark = pytest.mark.real_cluster

DEADLINE_S = 20.0


@pytest.fixture
def background(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A namespace with an orphan and a main process that both hold our pipe and would run for 1,000 s."""
    script = "(sleep 1000 &) ; echo ready; exec sleep 1000"
    with subprocess.Popen(
        _command(tmp_path, script),
        stdout=subprocess.PIPE,
        preexec_fn=_hear_hangups,  # a test run under nohup would hand its deafness down
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def _hear_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _command(tmp_path: Path, script: str) -> list[str]:
    return sandbox.command_to_enter(tmp_path / "tidegate-run-x", ["sh", "-c", script])


def _run(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(tmp_path, script), capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def _all_have_ended(process: subprocess.Popen[bytes]) -> bool:
    """End of file: nobody holds the other end of the pipe any more."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
    return bool(readable) and process.stdout.read() == b""


@pytest.mark.parametrize("status", [0, 1, 7])
def test_its_exit_status_is_the_commands(tmp_path: Path, status: int) -> None:
    assert _run(tmp_path, f"exit {status}").returncode == status


def test_a_command_ended_by_a_signal_is_told_as_shells_do(tmp_path: Path) -> None:
    assert _run(tmp_path, "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_its_processes_and_its_network_are_its_own(tmp_path: Path) -> None:
    answer = _run(tmp_path, "readlink /proc/self/ns/net; ls -d /proc/[0-9]*")
    network, *processes = answer.stdout.split()
    assert network != str(Path("/proc/self/ns/net").readlink())
    assert processes[:2] == ["/proc/1", "/proc/2"]  # process 1 and the command


def test_files_of_a_run_that_passed_are_gone_and_logs_of_one_that_failed_stay(tmp_path: Path) -> None:
    make = "mkdir -p $TIDEGATE_RUN_DIR/shared/logs $TIDEGATE_RUN_DIR/shared/etcd"
    run_dir = tmp_path / "tidegate-run-x"
    _run(tmp_path, f"{make}; exit 1")
    assert sorted(path.name for path in (run_dir / "shared").iterdir()) == ["logs"]
    _run(tmp_path, f"{make}; exit 0")
    assert not run_dir.exists()


def test_the_next_run_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    left = tmp_path / "tidegate-run-killed"
    left.mkdir()
    (left / "held").touch()
    _run(tmp_path, "true")
    assert not left.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_everything_ends_with_the_process_that_made_it(
    background: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    os.kill(background.pid, number)
    assert _all_have_ended(background)
    background.wait(DEADLINE_S)
