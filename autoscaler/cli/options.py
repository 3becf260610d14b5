"""Options that several commands share. Only their names and help, so that `--help` stays quick."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


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
