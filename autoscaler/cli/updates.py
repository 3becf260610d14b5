"""The commands that steer an update: `promote`, `pause`, `resume`, `abort`, `retry`, and `set image`, which begins one.

Each writes one annotation (or the images) with the caller's own rights; the daemon does the rest.
"""

from __future__ import annotations

from typing import Annotated

import typer

from autoscaler.cli.options import Call, Name, calling
from rollouts.verbs import Verb

app = typer.Typer(rich_markup_mode=None)
set_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Change part of a workload.")
app.add_typer(set_app, name="set")

_EXITS = """
\b
Exit status: 0 asked for, 1 it did not work or there is nothing to act on, 2 wrong usage, 4 not done in time.
Needs the right to patch inferenceworkloads in that namespace.
"""


def _ask(call: Call, verb: Verb, workload: str) -> None:
    from autoscaler.cli import change

    raise typer.Exit(change.ask(call.where(), workload, verb, call.output))


@app.command(
    epilog=f"""{_EXITS}
\b
Examples:
  tidegate promote llama           end the pause of this step, go on with the next
  tidegate promote llama --full    to 100 % without the remaining steps
""",
)
@calling
def promote(
    call: Call,
    workload: Name,
    full: Annotated[bool, typer.Option("--full", help="Leave the remaining steps out.")] = False,
) -> None:
    """Let an update go on to its next step, or to all of the traffic.

    Gates stay: weight rises only once enough replicas are ready.
    """
    _ask(call, Verb.PROMOTE_FULL if full else Verb.PROMOTE, workload)


@app.command(
    epilog=f"""{_EXITS}
\b
Examples:
  tidegate pause llama && tidegate get llama
""",
)
@calling
def pause(call: Call, workload: Name) -> None:
    """Hold an update where it is, weights and GPUs included, until `resume`. Its deadlines wait, too."""
    _ask(call, Verb.PAUSE, workload)


@app.command(
    epilog=f"""{_EXITS}
\b
Examples:
  tidegate resume llama
""",
)
@calling
def resume(call: Call, workload: Name) -> None:
    """End a pause, whether somebody asked for it or a step did."""
    _ask(call, Verb.RESUME, workload)


@app.command(
    epilog=f"""{_EXITS}
\b
Examples:
  tidegate abort llama
  tidegate abort llama && tidegate status llama --timeout 300     3: it has failed, as was asked
""",
)
@calling
def abort(call: Call, workload: Name) -> None:
    """Take an update back: its traffic, its pods, its quota. The current revision stays as it is.

    It is not tried again until the template changes, or `retry`.
    """
    _ask(call, Verb.ABORT, workload)


@app.command(
    epilog=f"""{_EXITS}
\b
Examples:
  tidegate retry llama     e.g. after the quota was raised, or the registry is back
""",
)
@calling
def retry(call: Call, workload: Name) -> None:
    """Try a failed update, or a first revision that never served, once more."""
    _ask(call, Verb.RETRY, workload)


@set_app.command(
    "image",
    epilog=f"""{_EXITS}
\b
Of a group, every template with a container of that name is changed.

\b
Examples:
  tidegate set image llama vllm=vllm/vllm-openai:v0.12.0
  tidegate set image llama vllm=vllm/vllm-openai:v0.12.0 && tidegate status llama --timeout 1800
""",
)
@calling
def image(
    call: Call,
    workload: Name,
    images: Annotated[list[str], typer.Argument(metavar="CONTAINER=IMAGE...", help="New images.")],
) -> None:
    """Give containers another image, which makes a new revision and so begins an update."""
    from autoscaler.cli import change
    from autoscaler.cli.images import parse

    try:
        wanted = parse(images)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="CONTAINER=IMAGE") from error
    raise typer.Exit(change.set_image(call.where(), workload, wanted, call.output))
