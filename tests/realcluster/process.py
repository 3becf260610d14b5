"""One process of the control plane: start, stop, freeze, kill -9, start again.

A process is known by its pid file, not by a Python object: every xdist worker can reach every process, and none
of them ends when the worker that started it does (the private namespace ends them, see sandbox.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.realcluster.errors import StartError


@dataclass(frozen=True, slots=True)
class Process:
    """A command with the directory that keeps its pid file and log."""

    name: str
    command: tuple[str, ...]
    directory: Path

    @property
    def log_path(self) -> Path:
        return self.directory / "logs" / f"{self.name}.log"

    @property
    def pid(self) -> int:
        return int(self._pid_file.read_text())

    @property
    def _pid_file(self) -> Path:
        return self.directory / f"{self.name}.pid"

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C ends the tests and not the control plane under them."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            self.command[0],
            self.command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log_path), appending, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP),
        )
        self._pid_file.write_text(str(pid))

    def started(self) -> bool:
        return self._pid_file.exists()

    def alive(self) -> bool:
        """False for a process that ended, reaped or not."""
        try:
            handle = os.pidfd_open(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        try:
            return not select.select([handle], [], [], 0)[0]
        finally:
            os.close(handle)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers (a stalled machine)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self, deadline_s: float = 10.0) -> None:
        """SIGKILL, and wait until the kernel has ended it; its port and its files are free then."""
        try:
            handle = os.pidfd_open(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not select.select([handle], [], [], deadline_s)[0]:
                raise StartError(f"{self.name} (pid {self.pid}) did not end within {deadline_s} s of SIGKILL")
            with contextlib.suppress(ChildProcessError):  # another worker's child: process 1 reaps it
                os.waitpid(self.pid, os.WNOHANG)
            self._pid_file.unlink()  # ended on purpose: it is not "ended unexpectedly" from here on
        except ProcessLookupError:
            return
        finally:
            os.close(handle)

    def last_lines(self, count: int = 15) -> str:
        """The end of the log, for messages."""
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(lines[-count:])

    def resident_mib(self) -> float:
        """Resident memory in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0
