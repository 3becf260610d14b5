"""Options that several commands share. Only their names and help, so that `--help` stays quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer

if TYPE_CHECKING:
    from autoscaler.cli.reach import Where


class Format(StrEnum):
    """How something is shown."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Name: TypeAlias = Annotated[str, typer.Argument(metavar="WORKLOAD", help="Its name.")]
Namespace: TypeAlias = Annotated[
    str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Else that of the kubeconfig's context.")
]
AllNamespaces: TypeAlias = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Workloads of all.")]
Context: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Another context of the kubeconfig than the current one.")
]
Kubeconfig: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Another one than the usual one.")
]
Output: TypeAlias = Annotated[
    Format, typer.Option("--output", "-o", help="wide shows more; json and yaml are for programs, name for xargs.")
]
Watch: TypeAlias = Annotated[bool, typer.Option("--watch", "-w", help="Stay, and show every change.")]
NoHeaders: TypeAlias = Annotated[bool, typer.Option("--no-headers", help="Without the line of column names.")]
NoColor: TypeAlias = Annotated[bool, typer.Option("--no-color", help="As the variable NO_COLOR does.")]
Timeout: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="SECONDS", min=1, max=86_400, help="For everything; 30 by default, with -w none."),
]


@dataclass(frozen=True, slots=True)
class Call:
    """What every command that asks the API server may be told."""

    namespace: Namespace = None
    output: Output = Format.TABLE
    no_color: NoColor = False
    kubeconfig: Kubeconfig = None
    context: Context = None
    timeout: Timeout = None

    def where(self, watch: bool = False) -> Where:
        """Without --timeout a watch has no end."""
        from autoscaler.cli.reach import TIMEOUT_S, Where

        within_s = None if watch and self.timeout is None else float(self.timeout or TIMEOUT_S)
        return Where(self.kubeconfig, self.context, self.namespace, within_s)


def calling(command: Callable[..., None]) -> Callable[..., None]:
    """`command(call, …)` with the options of Call behind its own, as typer reads them from a signature. An option that
    the command has itself is not Call's."""
    hints = get_type_hints(Call, include_extras=True) | get_type_hints(command, include_extras=True)
    _, *own = signature(command).parameters.values()
    names = {each.name for each in own}
    shared = [each for each in signature(Call).parameters.values() if each.name not in names]

    @wraps(command)
    def called(**given: Any) -> None:
        command(Call(**{each.name: given.pop(each.name) for each in shared}), **given)

    parameters = [each.replace(annotation=hints[each.name]) for each in (*own, *shared)]
    called.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called
