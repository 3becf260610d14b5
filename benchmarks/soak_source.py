"""The copy of the source tree that benchmarks/soak.py runs: others may be writing in this one."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("autoscaler", "rollouts", "config", "charts", "tests", "benchmarks", "tools", "pyproject.toml")


def copy_the_source(tree: Path, commit: str | None) -> None:
    """Others may be writing: a copy that cannot be imported is made anew."""
    while True:
        if commit:
            packed = subprocess.run(["git", "archive", commit, *COPIED], cwd=ROOT, stdout=subprocess.PIPE, check=True)
            with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
                archive.extractall(tree, filter="data")
        else:
            shutil.copytree(ROOT, tree, ignore=_not_copied)
        trial = [sys.executable, "-c", "import autoscaler.cli.run; import benchmarks.soak"]
        done = subprocess.run(trial, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, stderr=subprocess.PIPE)
        if done.returncode == 0:
            return
        print(f"the source cannot be imported; again in 20 s:\n{done.stderr.decode()[-500:]}", flush=True)
        shutil.rmtree(tree)
        time.sleep(20)


def _not_copied(folder: str, names: list[str]) -> set[str]:
    return set(names) - set(COPIED) if Path(folder) == ROOT else {"__pycache__"} & set(names)


def source(commit: str | None) -> dict[str, Any]:
    """Which one it is, where git knows."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        except OSError:
            return ""

    changed = git("status", "--porcelain", "--", "autoscaler", "rollouts", "config", "charts")
    named = git("rev-parse", "--short", commit or "HEAD") or "unknown"
    return {"commit": named, "changed": bool(changed) and commit is None}
