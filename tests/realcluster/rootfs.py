"""Runs one program with directories of its own in the root of the file system.

As a script: ``python rootfs.py ROOT /certs=SOURCE... NAME=VALUE... [--orphaned] -- COMMAND...``. ROOT, an empty
directory, becomes a copy of / in which every top-level directory is the machine's own, and beside them /certs is
SOURCE. For programs whose paths are fixed when they are built, and two of which want different things there. NAME=VALUE
goes into COMMAND's environment.

Only in the private namespace (sandbox.py), where nothing of it reaches the machine; the mounts are COMMAND's alone and
end with it. The process becomes COMMAND, so its pid stays. With --orphaned it waits until its parent is gone: Envoy
asks the kernel to be ended with its parent, which must then be process 1.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x0002_0000, 4096, 16384, 1 << 18
ORPHANED = "--orphaned"
INIT = 1


def command(
    root: Path,
    directories: Mapping[str, Path],
    *program: str,
    environment: Mapping[str, str] | None = None,
    orphaned: bool = False,
) -> tuple[str, ...]:
    """The argument vector that runs `program` so."""
    pairs = [f"{name}={value}" for name, value in {**directories, **(environment or {})}.items()]
    flags = [ORPHANED] if orphaned else []
    return (sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(root), *pairs, *flags, "--", *program)


def main(arguments: list[str]) -> None:
    end = arguments.index("--")
    root, *pairs = arguments[:end]
    if ORPHANED in pairs:
        pairs.remove(ORPHANED)
        while os.getppid() != INIT:
            time.sleep(0.001)
    named = dict(pair.split("=", 1) for pair in pairs)
    directories = {name: value for name, value in named.items() if name.startswith("/")}
    environment = {name: value for name, value in named.items() if name not in directories}
    _unshare_mounts()
    _build(root, directories)
    here = Path.cwd()
    os.chroot(root)
    os.chdir(here)
    os.execve(arguments[end + 1], arguments[end + 1 :], {**os.environ, **environment})


def _unshare_mounts() -> None:
    _libc_call("unshare", CLONE_NEWNS)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)


def _build(root: str, directories: dict[str, str]) -> None:
    Path(root).mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", root, "tmpfs", 0)
    for entry in Path("/").iterdir():
        target = Path(root) / entry.name
        if entry.is_symlink():
            target.symlink_to(entry.readlink())
        elif entry.is_dir() and str(entry) not in directories:
            target.mkdir()
            _mount(str(entry), str(target), None, MS_BIND | MS_REC)
    for name, source in directories.items():
        target = Path(root) / name.lstrip("/")
        target.mkdir()
        _mount(source, str(target), None, MS_BIND)


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    encoded = None if kind is None else kind.encode()
    _libc_call("mount", source.encode(), target.encode(), encoded, ctypes.c_ulong(flags), None)


def _libc_call(name: str, *arguments: object) -> None:
    function: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
