"""The command `tidegate`. Names the commands and their options; each one's work is imported only when it runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from autoscaler.cli import updates, workloads

OK: Final = 0
INVALID: Final = 1

app = typer.Typer(
    name="tidegate",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: half the start-up time, and nothing to colour
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Autoscaling and rolling updates for GPU inference on Kubernetes.",
    epilog="""
\b
Examples:
  tidegate demo                                       see the decisions, no cluster needed
  tidegate validate config.yaml llama.yaml            check files before a cluster sees them
  tidegate crd | kubectl apply --server-side -f -     install the resource definitions
  tidegate run --config config.yaml                   start the daemon
  tidegate doctor --config config.yaml                what is missing in the cluster, and how to mend it
  tidegate list -A                                    what runs, and what is being updated
  tidegate get llama -w                               watch an update, down to its pods
  tidegate plan -f llama.yaml                         what an edit would do, before you apply it
""",
)
app.add_typer(workloads.app)
app.add_typer(updates.app)


class Definition(StrEnum):
    """The custom resources, by plural name."""

    INFERENCE_WORKLOADS = "inferenceworkloads"
    QUOTA_LEDGERS = "quotaledgers"


@app.command(
    epilog="""
\b
Exit status: 0 all valid, 1 something is invalid, 2 wrong usage.

\b
Examples:
  tidegate validate config.yaml
  tidegate validate deploy/*.yaml
  kubectl get iw llama -o yaml | tidegate validate -
""",
)
def validate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="A configuration, or manifests of InferenceWorkloads; - is standard input."
        ),
    ],
) -> None:
    """Check configurations and workloads, without a cluster.

    Prints every mistake at once: file, line, key, value, and what is allowed.
    """
    from autoscaler.cli.validate import STDIN
    from autoscaler.cli.validate import validate as validate_files

    for file in files:
        if str(file) != STDIN and not file.is_file():
            raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    raise typer.Exit(INVALID if validate_files(files) else OK)


@app.command(
    epilog="""
\b
Examples:
  tidegate crd | kubectl apply --server-side -f -
  tidegate crd --name quotaledgers
""",
)
def crd(
    name: Annotated[Definition | None, typer.Option(help="Only this one; else all.")] = None,
) -> None:
    """Print the custom resource definitions."""
    from autoscaler.settings.crd import definitions, to_yaml

    wanted = [definition for plural, definition in definitions().items() if name in (None, plural)]
    typer.echo("---\n".join(to_yaml(definition) for definition in wanted), nl=False)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"tidegate {installed('tidegate')}")


@app.command(
    epilog="""
\b
Examples:
  tidegate run --config /etc/tidegate/config.yaml
  TIDEGATE__LOG__LEVEL=debug tidegate run -c config.yaml    one value from the environment
""",
)
def run(
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", exists=True, dir_okay=False, help="The configuration.")
    ],
    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Another kubeconfig than the usual one."),
    ] = None,
) -> None:
    """Run the daemon, in a cluster or with your kubeconfig."""
    from autoscaler.cli.run import run as run_daemon
    from autoscaler.settings.load import ConfigError

    try:
        run_daemon(config, kubeconfig)
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(INVALID) from None


@app.command(
    epilog="""
\b
Examples:
  tidegate demo
  tidegate demo --seed 11 --plain > demo.txt
""",
)
def demo(
    seed: Annotated[int, typer.Option(help="Another seed is another day.")] = 7,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live picture.")] = False,
) -> None:
    """Watch the decisions for two models on twelve simulated GPUs, and two updates. Needs no cluster."""
    from autoscaler.cli.demo import demo as run_demo

    run_demo(seed, plain)


class Output(StrEnum):
    """How findings are shown."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@app.command(
    epilog="""
\b
Exit status: 0 all is well, 1 something does not work, 2 wrong usage, 3 warnings only, 4 not done in time.

\b
Looks at the configuration, the API server, the definitions, the rights that the chart grants,
Prometheus (access, version, clock) and, for each workload, whether the pods' pages and Prometheus
show what it is scaled by: renamed series, percent for shares, pods scraped twice or at another pace.

\b
Examples:
  kubectl exec -n tidegate deploy/tidegate -- tidegate doctor   as the daemon sees it
  tidegate doctor -c config.yaml -n ml-team llama               one workload, with your kubeconfig
  tidegate doctor -c config.yaml --prometheus http://127.0.0.1:9090 --service-account tidegate/tidegate
  tidegate doctor -A -o json | jq '.findings[] | select(.level == "error")'
""",
)
def doctor(
    workload: Annotated[str | None, typer.Argument(metavar="[WORKLOAD]", help="Only this one; else all.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="The daemon's configuration; in its pod it is found.",
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Another kubeconfig than the usual one."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Its workloads; else those of all watched.")
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Workloads of all.")] = False,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it is from here, e.g. behind kubectl port-forward.")
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option(metavar="NAMESPACE/NAME", help="Whose rights to look at, e.g. the daemon's; else your own."),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Lines, or a document.")] = Output.TABLE,
    timeout: Annotated[int, typer.Option(metavar="SECONDS", min=1, max=3600, help="For everything.")] = 60,
) -> None:
    """Say what is wrong in the cluster, one line each, and how to mend it. Changes nothing."""
    from autoscaler.cli import doctor as command

    if namespace is not None and all_namespaces:
        raise typer.BadParameter("--namespace and --all-namespaces exclude each other", param_hint="-n, -A")
    if service_account is not None and not all(service_account.partition("/")):
        raise typer.BadParameter("write it as NAMESPACE/NAME", param_hint="--service-account")
    options = command.Options(
        workload,
        config,
        kubeconfig,
        namespace,
        all_namespaces,
        prometheus,
        service_account,
        output,
        timeout,
    )
    raise typer.Exit(command.doctor(options))


def main() -> None:
    """The entry point of the console script."""
    app()
