"""`tidegate demo`: the daemon's decisions on imitated servers, without a cluster.

Live on a terminal, in about 40 s; lines elsewhere and with `--plain`, as fast as they come. The numbers are the same.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from rich.console import Console
from rich.live import Live

from autoscaler.simulator import report, scenario
from autoscaler.simulator.picture import Picture
from autoscaler.simulator.run import Simulation
from autoscaler.simulator.story import Story

LIVE_S: Final = 36.0  # wall seconds of the live picture
FRAME_S: Final = 0.1
READING_S: Final = 3.0  # for the opening words


def demo(seed: int, plain: bool) -> None:
    """Run the scenario and print what was measured."""
    console = Console(highlight=False)
    chosen = scenario.demo(seed)
    simulation = Simulation(chosen)
    _say([*report.opening(chosen), ""])
    if plain or not _can_draw(console):
        most_gpus = _list(simulation)
    else:
        time.sleep(READING_S)
        most_gpus = watch(simulation, console, LIVE_S)
    _say(["", *report.closing(chosen, report.compare(chosen, simulation.outcomes(), most_gpus))])


def _say(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)


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


def watch(simulation: Simulation, console: Console, live_s: float) -> int:
    """The live picture, in `live_s` wall seconds. A slow terminal gets fewer frames, not a longer run.

    Returns the most GPUs ever held.
    """
    speed = simulation.scenario.duration_s / live_s
    story, picture, most_gpus = Story(), Picture(simulation.scenario, speed), 0
    with Live(picture, console=console, auto_refresh=False) as live:
        started = drawn = time.monotonic()
        for moment in simulation.play():
            most_gpus = max(most_gpus, moment.gpus)
            picture.add(moment, story.tell(moment))
            due = started + moment.at_s / speed
            if due - drawn >= FRAME_S:
                time.sleep(max(0.0, due - time.monotonic()))
                live.refresh()
                drawn = time.monotonic()
        live.refresh()
    return most_gpus
