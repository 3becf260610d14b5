"""`tidegate list`, `get`, `status` and `history`: reads, and has it drawn. They change nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from autoscaler.cli import history as histories
from autoscaler.cli import listing, objects, standing
from autoscaler.cli.options import Format
from autoscaler.cli.output import console, document, lines, list_of, name_of, names, object_of
from autoscaler.cli.pods import PodSeen
from autoscaler.cli.reach import Reached, Where, run, told
from autoscaler.cli.seen import Stored
from autoscaler.cli.standing import Standing, Verdict
from autoscaler.cli.tree import Picture, picture
from autoscaler.cli.words import clean
from autoscaler.cluster.errors import ApiError
from autoscaler.doctor.findings import Exit

LOOK_EVERY_S: Final = 1.0
_DOCUMENTS: Final = (Format.JSON, Format.YAML)


@dataclass(frozen=True, slots=True)
class Look:
    """How it is to be shown."""

    form: Format = Format.TABLE
    watch: bool = False
    no_headers: bool = False
    no_color: bool = False

    @property
    def wide(self) -> bool:
        return self.form is Format.WIDE


# --- list ---


def list_workloads(where: Where, look: Look, everywhere: bool) -> Exit:
    async def work(reached: Reached) -> Exit:
        shown = console(look.no_color)
        if look.watch:
            await _watch(
                shown, lambda: objects.workloads(reached, everywhere), lambda found: _table(found, look, everywhere)
            )
        found = await objects.workloads(reached, everywhere)
        if look.form in _DOCUMENTS:
            document(shown, list_of([each.raw for each in found]), look.form)
        elif look.form is Format.NAME:
            names(shown, (name_of(each.seen.metadata.name) for each in found))
        elif found:
            shown.print(_table(found, look, everywhere), end="", soft_wrap=True)
        else:
            of = "" if everywhere else f" in namespace {reached.namespace}; see: tidegate list -A"
            typer.echo(f"No InferenceWorkloads{of}", err=True)
        return Exit.OK

    return run(where, work)


def _table(found: list[Stored], look: Look, everywhere: bool) -> Text:
    rows = listing.rows([each.seen for each in found], time.time(), look.wide, everywhere)
    return lines(rows, look.no_headers, coloured="STATUS")


# --- get ---


def get(where: Where, look: Look, name: str) -> Exit:
    async def read(reached: Reached) -> tuple[Stored, list[PodSeen]]:
        stored = await objects.workload(reached, name)
        return stored, await objects.pods_of(reached, stored)

    def draw(found: tuple[Stored, list[PodSeen]]) -> RenderableType:
        stored, pods = found
        return picture(Picture(stored.seen, pods, time.time(), look.wide))

    async def work(reached: Reached) -> Exit:
        shown = console(look.no_color)
        if look.watch:
            await _watch(shown, lambda: read(reached), draw)
        if look.form in (Format.TABLE, Format.WIDE):
            shown.print(draw(await read(reached)))
        else:
            _print_object(shown, await objects.workload(reached, name), look.form)
        return Exit.OK

    return run(where, work)


def _print_object(shown: Console, stored: Stored, form: Format) -> None:
    if form is Format.NAME:
        names(shown, [name_of(stored.seen.metadata.name)])
    else:
        document(shown, object_of(stored.raw), form)


async def _watch(shown: Console, read: Callable[[], Awaitable[Any]], draw: Callable[[Any], RenderableType]) -> None:
    """Until it is interrupted. On a terminal the picture moves; elsewhere each change is another picture.

    A server that does not answer for a while changes nothing but a line below it.
    """
    live = Live(console=shown, auto_refresh=False, vertical_overflow="visible") if shown.is_terminal else None
    last: Any = None
    with live or nullcontext():
        while True:
            note = Text()
            try:
                found = await read()
            except ApiError as error:
                if not error.retryable or last is None:
                    raise
                found, note = last, Text(clean(told(error)), style="yellow")
            if live is not None:
                live.update(Group(draw(found), note), refresh=True)
            elif found != last:
                shown.print(draw(found), end="\n")
            last = found
            await asyncio.sleep(LOOK_EVERY_S)


# --- status ---


def status(where: Where, look: Look, name: str, wait_s: float) -> Exit:
    async def work(reached: Reached) -> Exit:
        stored, found = await _settled(reached, name, wait_s)
        shown = console(look.no_color)
        if look.form in _DOCUMENTS:
            document(shown, standing.document(stored.seen, found), look.form)
        elif look.form is Format.NAME:
            names(shown, [name_of(name)])
        else:
            shown.print(Text(clean(standing.line(stored.seen, found, wait_s))), soft_wrap=True)
        return found.exit

    return run(where, work)


async def _settled(reached: Reached, name: str, wait_s: float) -> tuple[Stored, Verdict]:
    """The last look, at the latest after `wait_s`."""
    loop = asyncio.get_running_loop()
    end, known = loop.time() + wait_s, None
    errors = Console(stderr=True)
    status = errors.status("") if errors.is_terminal and wait_s else None
    with status or nullcontext():
        while True:
            try:
                stored = await objects.workload(reached, name)
                known = (stored, standing.verdict(stored.seen))
            except ApiError as error:
                if not error.retryable or known is None:
                    raise
            stored, found = known
            left = end - loop.time()
            if found.standing is not Standing.UNDERWAY or left <= 0:
                return stored, found
            if status is not None:
                status.update(Text(clean(found.message)))
            await asyncio.sleep(min(LOOK_EVERY_S, left))


# --- history ---


def history(where: Where, look: Look, name: str) -> Exit:
    async def work(reached: Reached) -> Exit:
        stored = await objects.workload(reached, name)
        found = histories.entries(stored.seen, await objects.revisions_of(reached, stored))
        shown = console(look.no_color)
        if look.form in _DOCUMENTS:
            document(shown, histories.document(stored.seen, found), look.form)
        elif look.form is Format.NAME:
            names(shown, (f"controllerrevision.apps/{each.name}" for each in found))
        elif found:
            rows = histories.rows(found, time.time(), look.wide)
            shown.print(lines(rows, look.no_headers, coloured="STATE"), end="", soft_wrap=True)
        else:
            typer.echo(f"{name} has no revisions", err=True)
        return Exit.OK

    return run(where, work)
