"""`tidegate doctor`: looks at everything that scaling depends on, and says how to mend what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import typer
import yaml
from rich.console import Console

from autoscaler.cli.main import Output
from autoscaler.cli.reach import usual_kubeconfig
from autoscaler.cluster.client import connect
from autoscaler.doctor.cluster import Lease
from autoscaler.doctor.examine import Asked, Examination
from autoscaler.doctor.findings import Exit, Finding, Level, counted, document, exit_of
from autoscaler.settings.config import Config, Source
from autoscaler.settings.crd import inference_workload_crd
from autoscaler.settings.load import ConfigError, load
from autoscaler.wiring import access_of, labels_of, operator_of, terms_of

INSTALLED: Final = Path("/etc/tidegate/config.yaml")  # in the daemon's pod
_MARKS: Final = {Level.OK: "✔", Level.SKIPPED: "-", Level.WARNING: "⚠", Level.ERROR: "✖"}
_COLOURS: Final = {
    Level.OK: typer.colors.GREEN,
    Level.SKIPPED: typer.colors.BRIGHT_BLACK,
    Level.WARNING: typer.colors.YELLOW,
    Level.ERROR: typer.colors.RED,
}


@dataclass(frozen=True, slots=True)
class Options:
    """As given on the command line."""

    workload: str | None = None
    config: Path | None = None
    kubeconfig: Path | None = None
    namespace: str | None = None
    all_namespaces: bool = False
    prometheus: str | None = None
    service_account: str | None = None
    output: Output = Output.TABLE
    timeout_s: float = 60.0


def doctor(options: Options) -> Exit:
    """Prints the findings and returns the exit status."""
    path = options.config or (INSTALLED if INSTALLED.exists() else None)
    configuration, config = _configuration(path, options.prometheus)
    findings: Sequence[Finding] = [configuration]
    in_time = True
    if config is not None:
        findings, in_time = asyncio.run(_examine(config, options, configuration))
    status = exit_of(findings, in_time)
    _show(findings, status, options.output)
    return status


def _configuration(path: Path | None, url: str | None) -> tuple[Finding, Config | None]:
    """The configuration as the daemon would read it; `url` in place of its prometheus.url."""
    check, name = "configuration", str(path) if path else "built-in defaults"
    environment: dict[str, str] = {**os.environ} | ({"TIDEGATE__PROMETHEUS__URL": url} if url else {})
    try:
        if path is not None:
            config = load(path, environment).config
        else:
            config = Config.model_validate({"prometheus": {"url": url}} if url else {})
    except ConfigError as error:
        fix = f"correct it, then: tidegate validate {name}"
        return Finding(Level.ERROR, check, name, "; ".join(error.problems), fix), None
    except ValueError as error:
        return Finding(Level.ERROR, check, name, str(error), "correct --prometheus"), None
    source = "a Prometheus" if config.signals.source is Source.PROMETHEUS else "the pods' own pages"
    if path is None:
        fix = "give the daemon's own with --config, or run this in its pod"
        message = f"no configuration was given; the built-in one takes signals from {source}"
        return Finding(Level.SKIPPED, check, name, message, fix), config
    return Finding(Level.OK, check, name, f"valid; signals come from {source}"), config


async def _examine(config: Config, options: Options, first: Finding) -> tuple[Sequence[Finding], bool]:
    fix = "give a kubeconfig with --kubeconfig, or run this in the daemon's pod"
    try:
        client = await connect(options.kubeconfig or usual_kubeconfig())
    except Exception as error:  # of many libraries: files, YAML, certificates, commands of the kubeconfig
        message = f"no access to a cluster: {type(error).__name__}: {error}"
        return [first, Finding(Level.ERROR, "API server", "kubeconfig", message, fix)], True
    console = Console(stderr=True)
    live = console.is_terminal and options.output is Output.TABLE
    status = console.status("") if live else None
    try:
        with status or nullcontext():
            begins = (lambda check: status.update(f"looking at: {check}")) if status else (lambda check: None)
            examination = Examination(client, _asked(config, options, client.host), begins, [first])
            try:
                async with asyncio.timeout(options.timeout_s):
                    await examination.run()
            except TimeoutError:
                message = f"not all was looked at within {options.timeout_s:g} s"
                late = Finding(Level.ERROR, "doctor", "--timeout", message, "raise --timeout, or name one workload")
                return [*examination.findings, late], False
        return examination.findings, not examination.late
    finally:
        await client.close()


def _asked(config: Config, options: Options, host: str) -> Asked:
    terms = terms_of(config.leader_election, os.environ)
    watched = config.watch.namespaces
    namespaces = () if options.all_namespaces else (options.namespace,) if options.namespace else watched
    access, service_account = access_of(config.prometheus), options.service_account
    lease = Lease(terms.namespace, terms.name)
    if service_account and config.leader_election.resource_namespace is None:
        lease = replace(lease, namespace=service_account.partition("/")[0])  # the Lease is in the daemon's namespace
    return Asked(
        host=host,
        namespaces=namespaces,
        watched=watched,
        lease=lease,
        operator=operator_of(config),
        definition=inference_workload_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        access=access,
        labels=labels_of(config.prometheus),
        interval_s=config.prometheus.scrape_interval,
        by_prometheus=config.signals.source is Source.PROMETHEUS,
        page_timeout_s=config.scrape.timeout,
        page_most_bytes=config.scrape.max_page_size,
        workload=options.workload,
        service_account=service_account,
    )


def _show(findings: Sequence[Finding], status: Exit, output: Output) -> None:
    if output is Output.TABLE:
        typer.echo("\n".join(lines_of(findings)))
        return
    shown: Mapping[str, Any] = document(findings, status)
    if output is Output.JSON:
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        typer.echo(yaml.safe_dump(dict(shown), sort_keys=False, allow_unicode=True, width=1000), nl=False)


def lines_of(findings: Sequence[Finding], width: int | None = None) -> list[str]:
    """A line a finding, the way to mend it below, and the sum of all."""
    width = width or _width()
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    lines: list[str] = []
    for each in findings:
        level = f"{_MARKS[each.level]} {each.level.value:<8}"
        subject = f"{each.check} {each.subject}: "
        below = " " * (len(level) + 1)
        text = textwrap.wrap(subject + each.message, width - len(below), break_long_words=False, break_on_hyphens=False)
        shown = typer.style(level, fg=_COLOURS[each.level]) if colours else level
        lines += [f"{shown} {text[0]}", *(below + line for line in text[1:])]
        if each.fix:
            lines.append(f"{below}fix: {each.fix}")  # in one piece, to be copied
    sums = ", ".join(f"{count} {level}" for level, count in counted(findings).items())
    return [*lines, "", sums]


def _width() -> int:
    return max(60, Console().width)
