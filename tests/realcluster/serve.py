"""A control plane to play with: ``python -m tests.realcluster.serve`` leaves one running, ``--stop`` ends it.

It runs in its private namespace, as in tests, so that nothing of it leaks into the machine. Its API is reachable
from an ordinary shell all the same: a socket that listens on this machine's loopback is made before the
namespace and handed in, and a relay in there passes connections on. Pod addresses exist in the namespace only;
what needs them (a daemon that scrapes pods) is started with the printed `nsenter` command.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.realcluster import assets, sandbox, waiting
from tests.realcluster.cluster import GPU_NODES, GPUS_PER_NODE, Cluster
from tests.realcluster.controlplane import write_kubeconfig
from tests.realcluster.errors import ClusterError, StartError

PROJECT = Path(__file__).resolve().parents[2]
DIRECTORY = PROJECT / ".tidegate" / "cluster"
READY_FILE = "kubeconfig"  # written last
START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.realcluster.serve", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--stop", action="store_true", help="end it and remove its data")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where its files are")
    choice.add_argument("--inside", type=int, metavar="FD", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    directory: Path = arguments.directory.resolve()
    try:
        if arguments.inside is not None:
            asyncio.run(_serve(directory, arguments.inside))
        elif arguments.stop:
            _stop(directory)
        else:
            _start(directory)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _start(directory: Path) -> None:
    if _is_running(directory):
        print("It is running already.\n")
    else:
        _launch(directory)
    print(_what_next(directory, _pid(directory)))


def _launch(directory: Path) -> None:
    """Start it in the background and wait until it is ready."""
    resolver = assets.Resolver(os.environ)
    assets.announce_build(resolver)
    resolver.resolve_all(build=True)
    if reason := sandbox.why_not():
        raise StartError(reason)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    log_path = directory.with_suffix(".log")
    with socket.create_server(("127.0.0.1", 0)) as door, log_path.open("w") as log:
        inside = [sys.executable, "-m", "tests.realcluster.serve", "--directory", str(directory)]
        process = subprocess.Popen(
            sandbox.command_to_enter(directory, [*inside, "--inside", str(door.fileno())]),
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[door.fileno()],
            start_new_session=True,
        )
    (directory / "pid").write_text(str(process.pid))

    def ready() -> bool:
        if process.poll() is not None:
            raise StartError(f"it ended while starting: {log_path.read_text()[-2000:]}")
        return (directory / READY_FILE).exists()

    try:
        waiting.wait_for(ready, "the control plane to be ready", START_DEADLINE_S)
    except BaseException:
        process.terminate()
        raise


async def _serve(directory: Path, door: int) -> None:
    """In the namespace: start the control plane, relay its API until SIGTERM."""
    programs = {name: part.path for name, part in assets.Resolver(os.environ).resolve_all(build=False).items()}
    cluster = await asyncio.to_thread(Cluster.start, directory / "shared", programs)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    api_port = int(cluster.url.rpartition(":")[2])

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        api_reader, api_writer = await asyncio.open_connection("127.0.0.1", api_port)
        await asyncio.gather(_copy(reader, api_writer), _copy(api_reader, writer))

    with socket.socket(fileno=door) as outside:
        port = outside.getsockname()[1]
        await asyncio.start_server(relay, sock=outside)
        await asyncio.start_server(relay, "127.0.0.1", port)  # so that one kubeconfig is right on both sides
        unfinished = directory / f".{READY_FILE}"
        write_kubeconfig(unfinished, f"https://127.0.0.1:{port}", cluster.ca_path, cluster.admin_token)
        unfinished.rename(directory / READY_FILE)
        await ended.wait()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _stop(directory: Path) -> None:
    if not _is_running(directory):
        print("No control plane is running.")
        return
    handle = os.pidfd_open(_pid(directory))
    signal.pidfd_send_signal(handle, signal.SIGTERM)
    if not select.select([handle], [], [], STOP_DEADLINE_S)[0]:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
    shutil.rmtree(directory, ignore_errors=True)
    print("Stopped; its data is gone.")


def _pid(directory: Path) -> int:
    return int((directory / "pid").read_text())


def _is_running(directory: Path) -> bool:
    """The namespace's outer process holds this lock for as long as it lives."""
    try:
        with (directory / "held").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _what_next(directory: Path, pid: int) -> str:
    kubectl = assets.Resolver(os.environ).resolve("kubectl", build=False).path
    enter = f"nsenter --target {pid} --net" if os.getuid() == 0 else f"nsenter --target {pid} --user --net"
    enter += "" if os.getuid() == 0 else " --preserve-credentials"
    stop = f"{sys.executable} -m tests.realcluster.serve --stop"
    stop += "" if directory == DIRECTORY else f" --directory {directory}"
    return f"""\
A real control plane is running, with {len(GPU_NODES)} nodes of {GPUS_PER_NODE} GPUs each. Next:

  export KUBECONFIG={directory / READY_FILE}
  {kubectl} get nodes
  {kubectl} create deployment hello --image=none --replicas=3

Its pods are KWOK's: scheduled and Ready, without containers. Their addresses are reachable in its network only:

  {enter} {os.environ.get("SHELL", "/bin/sh")}

Logs are in {directory / "shared" / "logs"}. To stop it:

  {stop}"""


if __name__ == "__main__":
    raise SystemExit(main())
