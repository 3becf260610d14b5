"""The commands that look at workloads: `list`, `get`, `status`, `history`, `plan`. Their work is in other modules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.options import AllNamespaces, Call, Format, Name, NoHeaders, Watch, calling

app = typer.Typer(rich_markup_mode=None)


def _check_watch(watch: bool, output: Format) -> None:
    if watch and output not in (Format.TABLE, Format.WIDE):
        raise typer.BadParameter(f"a picture that moves is no {output.value}; use -o table or wide", param_hint="-w")


@app.command(
    "list",
    epilog="""
\b
Exit status: 0 done, 1 it did not work, 2 wrong usage, 4 not done in time.

\b
STATUS joins the phase and that of an update, REV the current revision and the one that is coming,
TRAFFIC their percents. GPUS are held of the quota by all its revisions. With -o wide, NEXT-ELIGIBLE is
when there may be fewer replicas again: a delay, a window or a retention holds them; more may come at any time.

\b
Examples:
  tidegate list
  tidegate list -A -o wide
  tidegate list -A --no-headers | awk '$3 ~ /,/'      only those with an update
  tidegate list -o json | jq -r '.items[].metadata.name'
""",
)
@calling
def list_workloads(
    call: Call,
    all_namespaces: AllNamespaces = False,
    watch: Watch = False,
    no_headers: NoHeaders = False,
) -> None:
    """List workloads: phase, revisions, traffic, replicas, signal, GPUs."""
    from autoscaler.cli import show

    _check_watch(watch, call.output)
    if call.namespace is not None and all_namespaces:
        raise typer.BadParameter("--namespace and --all-namespaces exclude each other", param_hint="-n, -A")
    look = show.Look(call.output, watch, no_headers, call.no_color)
    raise typer.Exit(show.list_workloads(call.where(watch), look, all_namespaces))


@app.command(
    epilog="""
\b
Exit status: 0 done, 1 it did not work, 2 wrong usage, 4 not done in time.

\b
Shows what the workload does and why, the update with its clocks, the quota, and a tree:
revision -> replicas -> pods, each with what holds it up.

\b
Examples:
  tidegate get llama
  tidegate get llama -w                  watch an update, until Ctrl-C
  tidegate get llama -n ml-team -o wide  nodes, and whole messages
  tidegate get llama -o yaml
""",
)
@calling
def get(
    call: Call,
    workload: Name,
    watch: Watch = False,
) -> None:
    """Show one workload, down to its pods."""
    from autoscaler.cli import show

    _check_watch(watch, call.output)
    raise typer.Exit(show.get(call.where(watch), show.Look(call.output, watch, no_color=call.no_color), workload))


@app.command(
    epilog="""
\b
Exit status: 0 it runs and no update is under way, 1 it did not work, 2 wrong usage,
3 degraded, or its update failed, 4 still under way when the time was over.

\b
Examples:
  tidegate status llama                    as it is now
  tidegate status llama --timeout 1800     wait for the update, e.g. after kubectl apply in CI
  tidegate status llama --timeout 600 || tidegate abort llama
""",
)
@calling
def status(
    call: Call,
    workload: Name,
    timeout: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, max=86_400, help="How long to wait; 0 looks once.")
    ] = 0,
) -> None:
    """Say whether a workload and its update are well, and wait for it."""
    from autoscaler.cli import show
    from autoscaler.cli.reach import TIMEOUT_S

    where = replace(call.where(), timeout_s=timeout + TIMEOUT_S)
    raise typer.Exit(show.status(where, show.Look(call.output, no_color=call.no_color), workload, float(timeout)))


@app.command(
    epilog="""
\b
Exit status: 0 done, 1 it did not work, 2 wrong usage, 4 not done in time.

\b
STATE: Current serves; Update is coming, with its phase; Leaving is on its way out; Failed was
taken back; Previous comes back if the current one, which has not served yet, fails; Stored is kept.

\b
Examples:
  tidegate history llama
  tidegate history llama -o json | jq -r '.revisions[] | select(.state == "Stored") | .name'
""",
)
@calling
def history(
    call: Call,
    workload: Name,
    no_headers: NoHeaders = False,
) -> None:
    """List the revisions of a workload, the newest first."""
    from autoscaler.cli import show

    look = show.Look(call.output, no_headers=no_headers, no_color=call.no_color)
    raise typer.Exit(show.history(call.where(), look, workload))


@app.command(
    epilog="""
\b
Exit status: 0 it fits, or this is not known from here, 1 it did not work or would be refused, 2 wrong usage,
3 quota is short, 4 not done in time.

\b
The API server is asked what it would store (a dry run, which takes the right to patch the workload);
nothing is changed. It is a forecast: demand and quota may be others when you apply. Bounds that nobody
set count as the built-in defaults. What is free is known while the workload waits for quota, and always
to whoever may list quotaledgers, and the project's pods, which may hold GPUs without being Tidegate's.

\b
Examples:
  tidegate plan -f llama.yaml
  helm template models/ | tidegate plan -f -
  tidegate plan -f llama.yaml -o json | jq '.plans[0].gpus'
  tidegate plan -f llama.yaml && kubectl apply -f llama.yaml
""",
)
@calling
def plan(
    call: Call,
    file: Annotated[
        Path,
        typer.Option("--filename", "-f", metavar="FILE", help="Manifests, as for kubectl apply; - is standard input."),
    ],
) -> None:
    """Say what an edit would do: new revision or in place, GPUs at the peak, does it fit."""
    from autoscaler.cli import planning

    raise typer.Exit(planning.plan(call.where(), file, call.output, call.no_color))
