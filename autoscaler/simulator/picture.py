"""The live picture of a run, for terminals from 80 × 24. Shows; computes nothing that is reported.

Left to right on the timelines is the whole run. Colour only repeats what a word or a number says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autoscaler.simulator.run import Choice, Moment, View
from autoscaler.simulator.scenario import Scenario
from autoscaler.simulator.story import Event, Kind, clock

BLOCKS: Final = "▁▂▃▄▅▆▇█"
LABEL_WIDTH: Final = 10
VALUE_WIDTH: Final = 9
GPU_BAR: Final = "■"
STYLES: Final = {Kind.UP: "green", Kind.DOWN: "cyan", Kind.QUOTA: "bold red", Kind.ROOM: "yellow"}


class Picture:
    """Fed with every moment; draws the newest one when asked."""

    def __init__(self, scenario: Scenario, speed: float) -> None:
        self._scenario = scenario
        self._speed = speed
        self._moment: Moment | None = None
        self._arrived: dict[str, list[int]] = {model.name: [] for model in scenario.models}  # so far, by second
        self._granted: dict[str, list[int]] = {model.name: [] for model in scenario.models}
        self._choices: dict[str, Choice] = {}
        self._events: deque[Event] = deque(maxlen=60)

    def add(self, moment: Moment, events: Iterable[Event]) -> None:
        self._moment = moment
        self._events.extend(events)
        for view in moment.views:
            if view.choice is not None:
                self._choices[view.model.name] = view.choice
            self._arrived[view.model.name].append(view.arrived)
            self._granted[view.model.name].append(self._choices[view.model.name].after)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._moment is None:
            return
        width, height = console.size
        parts: list[RenderableType] = [self._head(self._moment, width)]
        parts += [self._panel(view, width) for view in self._moment.views]
        used = 1 + 6 * len(self._moment.views)
        parts.append(self._decisions(width, max(3, height - 1 - used)))
        yield Group(*parts)

    def _head(self, moment: Moment, width: int) -> Table:
        gpus, quota = moment.gpus, self._scenario.gpus
        now = Text.assemble(
            ("Tidegate", "bold"),
            f"  {clock(moment.at_s + 1)} of {clock(self._scenario.duration_s)}, x{self._speed:.0f}",
        )
        held = Text.assemble(
            "quota  ",
            (GPU_BAR * gpus, "red" if gpus >= quota else "green"),
            ("·" * max(0, quota - gpus), "dim"),
            f"  {gpus} of {quota} GPUs held",
        )
        row = Table.grid(expand=True)
        row.add_column()
        row.add_column(justify="right")
        row.add_row(now, held)
        return row

    def _panel(self, view: View, width: int) -> Panel:
        name, scaling = view.model.name, view.model.spec.scaling
        room = max(10, width - 4 - LABEL_WIDTH - VALUE_WIDTH)
        arrived = self._arrived[name]
        rate = (arrived[-1] - arrived[max(0, len(arrived) - 11)]) / min(10, max(1, len(arrived) - 1))
        rows = Table.grid()
        rows.add_column(width=LABEL_WIDTH, style="dim")
        rows.add_column(width=VALUE_WIDTH, no_wrap=True)
        rows.add_column(width=room, no_wrap=True, overflow="ellipsis")
        rows.add_row("arrivals", f"{rate:.1f}/s", Text(self._rates(arrived, room), "blue"))
        rows.add_row("in flight", f"{view.in_service + view.waiting}", _load(view))
        rows.add_row("replicas", f"{self._granted[name][-1]}", Text(self._counts(name, room), "magenta"))
        rows.add_row("", "", _replicas(view, self._choices[name]))
        gpus = view.model.server.gpus
        title = f"{name}: {scaling.min_replicas}..{scaling.max_replicas} replicas of {gpus} GPU{'s' * (gpus > 1)}"
        return Panel(rows, title=Text(title, "bold"), title_align="left", border_style="dim", height=6)

    def _rates(self, arrived: Sequence[int], room: int) -> str:
        """Arrivals per cell; every cell stands for the same share of the run."""
        edges = self._edges(len(arrived), room)
        before = [arrived[edge - 1] if edge else 0 for edge in edges]
        return sparkline([float(b - a) for a, b in pairwise(before)])

    def _counts(self, name: str, room: int) -> str:
        edges = self._edges(len(self._granted[name]), room)
        values = [float(max(self._granted[name][a:b])) for a, b in pairwise(edges)]
        return sparkline(values, float(self._scenario.gpus))

    def _edges(self, seconds: int, room: int) -> list[int]:
        """Where cells begin and end, up to the last complete one."""
        edges = [round(cell * self._scenario.duration_s / room) for cell in range(room + 1)]
        return [edge for edge in edges if edge <= seconds]

    def _decisions(self, width: int, height: int) -> Panel:
        rows = Table.grid(padding=(0, 1))
        widths = [5, max(len(model.name) for model in self._scenario.models), 7]
        for column_width in (*widths, width - 4 - sum(widths) - len(widths)):
            rows.add_column(width=column_width, no_wrap=True, overflow="ellipsis")
        for event in list(self._events)[-(height - 2) :]:
            text = event.text if width >= 110 else event.short
            rows.add_row(clock(event.at_s), event.model, Text(event.change, STYLES[event.kind]), text)
        return Panel(rows, title=Text("decisions", "bold"), title_align="left", border_style="dim", height=height)


def sparkline(values: Sequence[float], top: float | None = None) -> str:
    """One block a value, the highest for `top` (else for the largest value); a blank for zero."""
    highest = max(values, default=0.0) if top is None else top
    if highest <= 0:
        return " " * len(values)
    steps = len(BLOCKS) - 1
    return "".join(" " if value <= 0 else BLOCKS[min(steps, round(value / highest * steps))] for value in values)


def _load(view: View) -> Text:
    """Requests in flight against what the ready replicas should carry, and who waits."""
    aim = view.model.target * view.ready
    filled = min(20, round(20 * (view.in_service + view.waiting) / aim)) if aim else 0
    over = view.in_service + view.waiting > aim
    text = Text.assemble(("█" * filled, "yellow" if over else "green"), ("░" * (20 - filled), "dim"))
    text.append(f" target {aim:.0f}")
    if view.waiting:
        text.append(f", {view.waiting} wait, {view.oldest_wait_s:.0f} s at most", "bold")
    return text


def _replicas(view: View, choice: Choice) -> Text:
    text = Text.assemble(
        ("■" * view.ready, "green"), ("□" * view.starting, "yellow"), ("×" * view.terminating, "dim"), " "
    )
    words = [f"{view.ready} ready"]
    words += [f"{view.starting} starting"] if view.starting else []
    words += [f"{view.terminating} draining"] if view.terminating else []
    text.append(f"{', '.join(words)}; desired {choice.grant.desired}, granted {choice.grant.granted}")
    if choice.grant.clipped:
        text.append("  quota", "bold red")
    return text
