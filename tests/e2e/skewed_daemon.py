"""`tidegate` on a machine whose clock is set while it runs: `python -m tests.e2e.skewed_daemon FILE run ...`.

FILE holds how many seconds the machine's clock is off. All times of day of the process follow; its steady clocks do
not, as on a real machine.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final

import time_machine

POLL_S: Final = 0.02


def main() -> None:
    file = Path(sys.argv.pop(1))
    travel = time_machine.travel(time.time() + _read(file), tick=True).start()
    threading.Thread(target=_follow, args=(file, travel), daemon=True).start()
    from autoscaler.cli.main import main as command  # only now: nothing may have kept the real clock

    command()


def _follow(file: Path, travel: time_machine.Traveller) -> None:
    offset_s = _read(file)
    while True:
        time.sleep(POLL_S)
        wanted_s = _read(file)
        if wanted_s != offset_s:
            travel.shift(wanted_s - offset_s)
            offset_s = wanted_s


def _read(file: Path) -> float:
    return float(file.read_text())


if __name__ == "__main__":
    main()
