"""What programs of the tests share that bring their own control plane: they run without pytest, in its namespace."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.realcluster import assets, sandbox
from tests.realcluster.errors import AssetError


def enter(name: str) -> None:
    """Runs this program again in a private namespace, as pytest does with itself; returns where it is in one.

    `name`: of the program, for the message with which it ends where that cannot be.
    """
    if sandbox.inside():
        return
    if reason := sandbox.why_not():
        raise SystemExit(f"{name}: {reason}")
    try:
        assets.Resolver(os.environ).resolve_all(build=False)
    except AssetError as error:
        raise SystemExit(f"{name}: {error}") from None
    run_dir = Path(tempfile.mkdtemp(prefix="tidegate-run-"))
    command = sandbox.command_to_enter(run_dir, [sys.executable, *sys.orig_argv[1:]])
    os.execv(command[0], command)


def logs(name: str) -> Path:
    """Where its daemons write; kept where the run fails."""
    return Path(os.environ[sandbox.RUN_DIR_VARIABLE]) / name / "logs"


def say(text: str) -> None:
    """At once, also where the output is a file."""
    print(text, flush=True)
