"""The live picture of the updates, for terminals from 80 × 24. Shows; computes nothing that is reported."""

from __future__ import annotations

from collections import deque
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autoscaler.simulator.picture import GPU_BAR
from autoscaler.simulator.story import clock
from autoscaler.simulator.update_run import RevisionView, Told, UpdateMoment, UpdateScenario, UpdateView

REVISIONS: Final = 2  # with pods, at most, of one model
SENTENCE: Final = 2  # lines
NAME_WIDTH: Final = 17
PODS_WIDTH: Final = 9


class UpdatePicture:
    """Fed with every moment; draws the newest one when asked."""

    def __init__(self, chosen: UpdateScenario, speed: float) -> None:
        self._scenario = chosen
        self._speed = speed
        self._moment: UpdateMoment | None = None
        self._told: deque[Told] = deque(maxlen=60)

    def add(self, moment: UpdateMoment) -> None:
        self._moment = moment
        self._told.extend(moment.told)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._moment is None:
            return
        width, height = console.size
        panels = [self._panel(view) for view in self._moment.views]
        used = 1 + sum(panel.height or 0 for panel in panels)
        yield Group(self._head(self._moment), *panels, self._events(width, max(3, height - 1 - used)))

    def _head(self, moment: UpdateMoment) -> Table:
        free = max(0, self._scenario.gpus - moment.held)
        now = Text.assemble(
            ("Tidegate", "bold"),
            f"  {clock(moment.at_s + 1)} of {clock(self._scenario.duration_s)}, x{self._speed:.0f}",
        )
        held = Text.assemble(
            (GPU_BAR * moment.used, "green"),
            ("□" * (moment.held - moment.used), "yellow"),
            ("·" * free, "dim"),
            f"  {moment.held} of {self._scenario.gpus} GPUs held, {moment.used} by pods",
        )
        row = Table.grid(expand=True)
        row.add_column()
        row.add_column(justify="right")
        row.add_row(now, held)
        return row

    def _panel(self, view: UpdateView) -> Panel:
        """The model that is updated has room for two revisions and a sentence."""
        edited = any(model.name == view.name and len(model.edits) > 1 for model in self._scenario.models)
        rows = Table.grid(padding=(0, 1))
        rows.add_column(width=NAME_WIDTH, no_wrap=True)
        rows.add_column(width=PODS_WIDTH, no_wrap=True)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        shown = [each for each in view.revisions if each.gpus or each.percent or _pods(each)]
        for each in shown[-REVISIONS:]:
            rows.add_row(each.name, _bar(each), _words(each))
        parts: list[Table | Text] = [rows]
        lines = 1
        if edited:
            lines = REVISIONS + SENTENCE
            parts += [Text("")] * (REVISIONS - len(shown[-REVISIONS:]))
            parts.append(Text(view.sentence or "no update", "bold" if view.sentence else "dim"))
        return Panel(
            Group(*parts), title=Text(view.name, "bold"), title_align="left", border_style="dim", height=lines + 2
        )

    def _events(self, width: int, height: int) -> Panel:
        rows = Table.grid(padding=(0, 1))
        widths = [5, max(len(model.name) for model in self._scenario.models)]
        for column_width in (*widths, width - 4 - sum(widths) - len(widths)):
            rows.add_column(width=column_width, no_wrap=True, overflow="ellipsis")
        for told in list(self._told)[-(height - 2) :]:
            rows.add_row(clock(told.at_s), told.model, Text(_short(told), "bold red" if told.bad else ""))
        return Panel(rows, title=Text("events", "bold"), title_align="left", border_style="dim", height=height)


def _pods(each: RevisionView) -> int:
    return each.ready + each.starting + each.terminating


def _bar(each: RevisionView) -> Text:
    return Text.assemble(("■" * each.ready, "green"), ("□" * each.starting, "yellow"), ("×" * each.terminating, "dim"))


def _words(each: RevisionView) -> str:
    counts = ((each.ready, "ready"), (each.starting, "starting"), (each.terminating, "terminating"))
    pods = ", ".join(f"{count} {word}" for count, word in counts if count) or "no pods"
    return f"{each.percent:3} % traffic, {each.gpus} GPU{'s' * (each.gpus != 1)} held, {pods}"


def _short(told: Told) -> str:
    """The daemon's sentences say what they are; of "Update llama-7f3a91c2 queued: …" the model is told beside it."""
    if told.text.startswith("revision "):
        return told.text
    sentence = told.text.removeprefix(f"Update {told.model}-")
    return sentence if sentence != told.text else f"{told.what}: {told.text}"
