"""One private namespace for everything that a test run starts.

Run as a script, before anything else is imported: ``python sandbox.py RUN_DIR -- COMMAND...``. It makes new
network, mount and process namespaces (plus a user namespace unless it is root already), brings loopback up,
makes KWOK's pod addresses local, and runs COMMAND in there. Its exit status is COMMAND's.

Three processes: this one (outside, waits), process 1 inside (reaps orphans) and COMMAND. When COMMAND ends,
process 1 ends, and the kernel then ends every process of the namespace: control planes need no clean-up. When
this process dies, even by SIGKILL, process 1 gets SIGKILL from the kernel (PR_SET_PDEATHSIG), with the same effect.

It never touches the network or the mounts of the machine, and it needs no program from outside Python's
standard library (no `ip`, no `unshare`): a bare machine has none of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

POD_CIDR = "10.244.0.0/16"
MARK_VARIABLE = "TIDEGATE_SANDBOX"  # holds the network namespace's identity, so a stale value cannot lie
RUN_DIR_VARIABLE = "TIDEGATE_RUN_DIR"
FAILED_TO_ENTER = 125  # as `env`, `timeout` and container engines use it: the wrapper itself failed

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x0002_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
FORWARDED = (signal.SIGTERM, signal.SIGHUP)


def inside() -> bool:
    """True in a process that runs in a namespace made by this module."""
    return os.environ.get(MARK_VARIABLE, "") == _network_namespace()


def why_not() -> str | None:
    """Try all of it in a child that ends at once. None = permitted, else one sentence with the way out."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _unshare()
            _own_mounts()
            _bring_up_network()
        except OSError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        error_text = pipe.read()
    if not error_text:
        return None
    return (
        f"this machine permits no private network namespace ({error_text}): "
        "run as root, or allow user namespaces to users"
    )


def command_to_enter(run_dir: Path, command: list[str]) -> list[str]:
    """The argument vector that runs `command` inside; -I -S keep the waiting process small and its start quick."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(run_dir), "--", *command]


def main(arguments: list[str]) -> int:
    run_dir, separator, *command = arguments
    if separator != "--" or not command:
        raise SystemExit("usage: sandbox.py RUN_DIR -- COMMAND...")
    with _held(Path(run_dir)):
        status = _run_inside(run_dir, command)
    _tidy(Path(run_dir), keep_logs=status != 0)
    return status


def _run_inside(run_dir: str, command: list[str]) -> int:
    try:
        _unshare()
    except OSError as error:
        print(f"cannot make a private namespace: {error}", file=sys.stderr)
        return FAILED_TO_ENTER
    alive_reader, alive_writer = os.pipe()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to COMMAND as well, which decides
    first = os.fork()
    if first == 0:
        os.close(alive_writer)
        _as_first_process(alive_reader, run_dir, command)
    os.close(alive_reader)
    _forward_signals_to(first)
    return _status_of(first)


def _as_first_process(alive: int, run_dir: str, command: list[str]) -> None:
    """Process 1: never returns. Reaps orphans until COMMAND ends."""
    _end_with_parent(alive)
    _own_mounts()
    _own_proc()
    _bring_up_network()
    environment = {**os.environ, MARK_VARIABLE: _network_namespace(), RUN_DIR_VARIABLE: run_dir}
    main_child = os.fork()
    if main_child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execvpe(command[0], command, environment)
    _forward_signals_to(main_child)
    while True:
        pid, status = os.wait()
        if pid == main_child:
            os._exit(_exit_code(status))


def _end_with_parent(alive: int) -> None:
    """SIGKILL when the parent dies; the pipe tells whether it died before the kernel was asked."""
    _libc_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if select.select([alive], [], [], 0)[0]:
        os._exit(FAILED_TO_ENTER)


def _unshare() -> None:
    """New namespaces for this process (network, mounts) and its children (processes)."""
    wanted = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        with contextlib.suppress(PermissionError):  # root of a container without the capability: as a user then
            _libc_call("unshare", wanted)
            return
    _libc_call("unshare", wanted | CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _own_mounts() -> None:
    """What is mounted from here on is not seen outside."""
    _mount(b"none", b"/", None, MS_REC | MS_PRIVATE)


def _own_proc() -> None:
    """A /proc of the new process namespace. Where a container forbids it, tests go on with the outer one."""
    with contextlib.suppress(PermissionError):
        _mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _bring_up_network() -> None:
    """`ip link set lo up; ip route add local POD_CIDR dev lo`, by ioctl and netlink."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        siocsifflags, up_and_running = 0x8914, 0x41
        fcntl.ioctl(control, siocsifflags, struct.pack("16sh14x", b"lo", up_and_running))
    address, prefix = POD_CIDR.split("/")
    family_table_scope = (socket.AF_INET, int(prefix), 0, 0, 255, 3, 254, 2, 0)  # table local, scope host, type local
    loopback = struct.pack("HHi", 8, 4, socket.if_nametoindex("lo"))  # RTA_OIF
    destination = struct.pack("HH4s", 8, 1, socket.inet_aton(address))  # RTA_DST
    body = struct.pack("BBBBBBBBI", *family_table_scope) + destination + loopback
    new_route, request_create_ack = 24, 0x1 | 0x4 | 0x400
    header = struct.pack("IHHII", 16 + len(body), new_route, request_create_ack, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(header + body)
        (error,) = struct.unpack_from("i", netlink.recv(4096), 16)
    if error:
        raise OSError(-error, os.strerror(-error), f"local route {POD_CIDR}")


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    _libc_call("mount", source, target, kind, ctypes.c_ulong(flags), None)


def _libc_call(name: str, *arguments: object) -> None:
    function: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _network_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/net").readlink())
    except OSError:
        return "no namespaces here"


def _forward_signals_to(pid: int) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in FORWARDED:
        signal.signal(number, forward)


def _status_of(pid: int) -> int:
    return _exit_code(os.waitpid(pid, 0)[1])


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _tidy(run_dir: Path, *, keep_logs: bool) -> None:
    """Remove the run's files. Logs of a run that failed stay until the next run sweeps them."""
    if not (keep_logs and any(run_dir.glob("*/logs"))):
        shutil.rmtree(run_dir, ignore_errors=True)
        return
    for data in run_dir.glob("*/etcd"):
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def _held(run_dir: Path) -> Iterator[None]:
    """Hold the run directory's lock, and sweep those of runs that were killed before they could."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "held.new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (run_dir / "held.new").rename(run_dir / "held")  # never visible without its lock
        for other in run_dir.parent.glob("tidegate-run-*/held"):
            with contextlib.suppress(OSError), other.open() as stale:
                fcntl.flock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other.parent, ignore_errors=True)
        yield


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
