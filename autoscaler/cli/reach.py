"""How a command reaches the API server: with the caller's own kubeconfig and rights, and within its time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from autoscaler.cli.words import clean
from autoscaler.cluster.client import KubernetesClient, connect
from autoscaler.cluster.errors import ApiError, Conflict, Denied, NotFound, Unreachable
from autoscaler.doctor.findings import Exit

TIMEOUT_S: Final = 30.0
_OF_CALLER: Final = "give another kubeconfig with --kubeconfig, or another of its contexts with --context"


@dataclass(frozen=True, slots=True)
class Where:
    """As given on the command line. `timeout_s` is for the whole command; None: until it is interrupted."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    timeout_s: float | None = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Reached:
    api: KubernetesClient
    namespace: str  # the one asked for, else that of the kubeconfig's context, else default


class Ended(Exception):
    """The command is over: its exit status, and the sentence why."""

    def __init__(self, status: Exit, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def run(where: Where, work: Callable[[Reached], Awaitable[Exit]]) -> Exit:
    """Does the work and returns the exit status; what went wrong is one sentence on standard error."""
    try:
        return asyncio.run(_run(where, work))
    except Ended as ended:
        typer.echo(f"Error: {clean(ended.sentence)}", err=True)
        return ended.status
    except KeyboardInterrupt:
        if where.timeout_s is None:
            return Exit.OK  # this is how a watch ends
        raise


async def _run(where: Where, work: Callable[[Reached], Awaitable[Exit]]) -> Exit:
    try:
        async with asyncio.timeout(where.timeout_s):
            client = await _connect(where)
            try:
                return await work(Reached(client, where.namespace or client.namespace or "default"))
            finally:
                await client.close()
    except TimeoutError:
        raise Ended(Exit.TIMEOUT, f"not done within {where.timeout_s:g} s; raise --timeout") from None
    except ApiError as error:
        raise Ended(Exit.ERROR, told(error)) from error


async def _connect(where: Where) -> KubernetesClient:
    kubeconfig = _existing(where.kubeconfig or usual_kubeconfig())
    try:
        return await connect(kubeconfig, where.context)
    except Exception as error:  # of many libraries: files, YAML, certificates, commands of the kubeconfig
        raise Ended(Exit.ERROR, f"no access to a cluster: {type(error).__name__}: {error}; {_OF_CALLER}") from error


def _existing(kubeconfig: Path | None) -> Path | None:
    listed = str(kubeconfig).split(os.pathsep) if kubeconfig is not None else []
    if listed and not any(Path(each).expanduser().is_file() for each in listed if each):
        raise Ended(Exit.ERROR, f"there is no kubeconfig {kubeconfig}; {_OF_CALLER}")
    return kubeconfig


def usual_kubeconfig() -> Path | None:
    """$KUBECONFIG, which may list several files, or ~/.kube/config. None: the ServiceAccount of the pod we run in."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return None
    listed = os.environ.get("KUBECONFIG", "").strip(os.pathsep)
    return Path(listed) if listed else Path.home() / ".kube" / "config"


def told(error: ApiError) -> str:
    """An error of the API server, with what to do about it."""
    if isinstance(error, Unreachable):
        return f"the API server does not answer: {error.message}; {_OF_CALLER}"
    if isinstance(error, Denied):
        return f"the API server refuses it: {error.message}"
    if isinstance(error, Conflict):
        return f"changed meanwhile, nothing was done: {error.message}; try again"
    if isinstance(error, NotFound) and not error.reason:
        return "the API server knows no InferenceWorkload; install the definitions: helm, or tidegate crd"
    return error.message
