"""`tidegate demo`: the daemon's decisions and its updates on imitated servers, without a cluster.

Live on a terminal, in under a minute; lines elsewhere and with `--plain`, as fast as they come. The numbers are the
same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from rich.console import Console, ConsoleRenderable
from rich.live import Live

from autoscaler.simulator import report, scenario, update_report, update_run
from autoscaler.simulator.picture import Picture
from autoscaler.simulator.run import Moment, Simulation
from autoscaler.simulator.story import Story
from autoscaler.simulator.update_picture import UpdatePicture
from autoscaler.simulator.update_run import UpdateSimulation

LIVE_S: Final = 25.0  # wall seconds of the live picture of scaling
UPDATES_S: Final = 19.0  # and of updates
FRAME_S: Final = 0.1
READING_S: Final = 3.0  # for the opening words of each


def demo(seed: int, plain: bool) -> None:
    """Run both scenes and print what was measured."""
    console = Console(highlight=False)
    live = not plain and _can_draw(console)
    chosen, updated = scenario.demo(seed), update_run.demo(seed)
    simulation, updates = Simulation(chosen), UpdateSimulation(updated)
    _say([*report.opening(chosen), ""], live)
    most_gpus = watch(simulation, console, LIVE_S) if live else _list(simulation)
    _say(["", *update_report.opening(updated), ""], live)
    if live:
        watch_updates(updates, console, UPDATES_S)
    else:
        _list_updates(updates)
    found = report.compare(chosen, simulation.outcomes(), most_gpus)
    _say(["", *report.closing(chosen, found), "", *update_report.closing(updates), "", *report.NEXT])


def _say(lines: list[str], live: bool = False) -> None:
    """`live`: a picture follows, so there is a moment to read."""
    print("\n".join(lines), flush=True)
    time.sleep(READING_S if live else 0.0)


def _can_draw(console: Console) -> bool:
    width, height = console.size
    speaks_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return sys.stdout.isatty() and not console.is_dumb_terminal and speaks_utf8 and width >= 80 and height >= 24


def _list(simulation: Simulation) -> int:
    """One line an event. Returns the most GPUs ever held."""
    story, most_gpus = Story(), 0
    for moment in simulation.play():
        most_gpus = max(most_gpus, moment.gpus)
        for event in story.tell(moment):
            print(report.event_line(event))
    return most_gpus


def _list_updates(simulation: UpdateSimulation) -> None:
    """One line an event."""
    for moment in simulation.play():
        for told in moment.told:
            print(update_report.event_line(told))


def watch(simulation: Simulation, console: Console, live_s: float) -> int:
    """The live picture of scaling, in `live_s` wall seconds. Returns the most GPUs ever held."""
    speed = simulation.scenario.duration_s / live_s
    story, picture, gpus = Story(), Picture(simulation.scenario, speed), [0]

    def add(moment: Moment) -> None:
        gpus.append(moment.gpus)
        picture.add(moment, story.tell(moment))

    _draw(simulation.play(), add, picture, speed, console)
    return max(gpus)


def watch_updates(simulation: UpdateSimulation, console: Console, live_s: float) -> None:
    """The live picture of updates, in `live_s` wall seconds."""
    speed = simulation.scenario.duration_s / live_s
    picture = UpdatePicture(simulation.scenario, speed)
    _draw(simulation.play(), picture.add, picture, speed, console)


class _Timed(Protocol):
    @property
    def at_s(self) -> int: ...


M = TypeVar("M", bound=_Timed)


def _draw(
    moments: Iterable[M], add: Callable[[M], None], picture: ConsoleRenderable, speed: float, console: Console
) -> None:
    """A slow terminal gets fewer frames, not a longer run."""
    with Live(picture, console=console, auto_refresh=False) as live:
        started = drawn = time.monotonic()
        for moment in moments:
            add(moment)
            due = started + moment.at_s / speed
            if due - drawn >= FRAME_S:
                time.sleep(max(0.0, due - time.monotonic()))
                live.refresh()
                drawn = time.monotonic()
        live.refresh()
