"""How a test run gets its control plane: one for the run, however many workers, in a private namespace.

At start-up pytest replaces itself by sandbox.py, which runs the same command line again inside the namespace
(`enter`); xdist workers inherit it. The first worker that needs the control plane starts it, the others attach.
Nobody stops it: the end of the run ends the namespace with everything in it, also after kill -9 of pytest.
Programs are built before that, because the namespace has no way out to the network.

Not entered: for ``-m "not real_cluster"``, for ``--collect-only``, where the machine forbids namespaces or the
programs cannot be had. Tests that need the control plane then skip with one reason, or fail if
``TIDEGATE_REQUIRE_CLUSTER=1``. A variable that names a program which is not there ends the run at once.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.realcluster import assets, sandbox
from tests.realcluster.cluster import Cluster, fresh_directory
from tests.realcluster.errors import AssetError, StartError, VariableError

MARKER = "real_cluster"
REASON_VARIABLE = "TIDEGATE_CLUSTER_UNAVAILABLE"
NOTHING_COLLECTED = 5  # pytest's exit status


def enter(config: pytest.Config) -> None:
    """Run this pytest again inside the namespace; returns only where that is not wanted or not possible."""
    if sandbox.inside() or hasattr(config, "workerinput") or _needs_no_cluster(config):
        return
    reason = _cannot_run_because(config)
    if reason:
        os.environ[REASON_VARIABLE] = reason
        return
    run_dir = Path(tempfile.mkdtemp(prefix="tidegate-run-"))
    command = sandbox.command_to_enter(run_dir, [sys.executable, *sys.orig_argv[1:]])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def require() -> None:
    """Skip the test that runs, or fail it if the environment requires a cluster; nothing inside the namespace."""
    if sandbox.inside():
        return
    reason = os.environ.get(REASON_VARIABLE, "pytest was started without loading tests/conftest.py first")
    if os.environ.get("TIDEGATE_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"TIDEGATE_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def shared_cluster() -> Cluster:
    """The control plane of this run; starts it if no other worker has."""
    run_dir = Path(os.environ[sandbox.RUN_DIR_VARIABLE])
    directory = run_dir / "shared"
    with (run_dir / "shared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / "cluster.json").exists():
            return Cluster.attach(directory)
        if directory.exists():
            raise StartError("another worker could not start the control plane; its first error says why")
        return Cluster.start(directory, _programs())


def fresh_cluster() -> Cluster:
    """A control plane of one's own, for tests that break things. Stop it, or use it in a `with` statement."""
    directory, pod_cidr = fresh_directory()
    return Cluster.start(directory, _programs(), pod_cidr)


def logs() -> str | None:
    """Where the control planes of this run wrote; None if there were none."""
    run_dir = Path(os.environ.get(sandbox.RUN_DIR_VARIABLE, "/nonexistent"))
    return f"{run_dir}/*/logs" if sandbox.inside() and any(run_dir.glob("*/logs")) else None


def _needs_no_cluster(config: pytest.Config) -> bool:
    options = config.option
    return options.collectonly or options.help or f"not {MARKER}" in options.markexpr


def _cannot_run_because(config: pytest.Config) -> str | None:
    """One sentence, or None after making sure that every program is there."""
    if reason := sandbox.why_not():
        return reason
    resolver = assets.Resolver(os.environ)
    try:
        resolver.resolve_all(build=False)
        return None
    except VariableError as error:
        raise pytest.UsageError(str(error)) from error
    except AssetError as error:
        if not _selects_cluster_tests(config):
            return str(error)
    try:
        assets.announce_build(resolver)
        resolver.resolve_all(build=True)
    except AssetError as error:
        return str(error)
    return None


def _selects_cluster_tests(config: pytest.Config) -> bool:
    """Ask a collecting pytest. Costs a second, only where the alternative is to build for minutes."""
    wanted = f"({config.option.markexpr}) and {MARKER}" if config.option.markexpr else MARKER
    command = [sys.executable, "-m", "pytest", *config.invocation_params.args]
    answer = subprocess.run(
        [*command, "--collect-only", "-q", "-n0", "-m", wanted],
        cwd=config.invocation_params.dir,
        capture_output=True,
        check=False,
    )
    return answer.returncode != NOTHING_COLLECTED


def _programs() -> dict[str, Path]:
    return {name: part.path for name, part in assets.Resolver(os.environ).resolve_all(build=False).items()}
