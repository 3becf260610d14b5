"""Requests from a published trace: when they arrive and how long their prompts and answers are.

The files are data of the project (`config/traces`, whose README names sources and licences). Decides nothing.
"""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

JITTER_S: Final = 30.0  # keeps the shape of the minutes, invents no synchronous bursts


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `at_s` counts from the start of the slice."""

    at_s: float
    input_tokens: int
    output_tokens: int


def config_file(*parts: str) -> Traversable:
    """A file of `config/`: inside the package where it was installed from a wheel, beside it in a checkout."""
    package = resources.files("autoscaler")
    installed = package.joinpath("_data")
    root = installed if installed.is_dir() else package.joinpath("..", "config")
    return root.joinpath(*parts)


def load(name: str) -> tuple[Request, ...]:
    """The requests of one slice, sorted by time."""
    text = gzip.decompress(config_file("traces", name).read_bytes()).decode()
    return tuple(
        Request(float(row["t_seconds"]), int(row["input_tokens"]), int(row["output_tokens"]))
        for row in csv.DictReader(text.splitlines())
    )


def copied(requests: Sequence[Request], copies: int, duration_s: float, chance: random.Random) -> tuple[Request, ...]:
    """Every request `copies` times: once as it is, then shifted by up to 30 s either way.

    What would leave 0..duration_s stays at its own time, so that the number of requests is exact.
    """
    everything = list(requests)
    for _ in range(copies - 1):
        for request in requests:
            at_s = request.at_s + chance.uniform(-JITTER_S, JITTER_S)
            everything.append(replace(request, at_s=at_s) if 0 <= at_s < duration_s else request)
    return tuple(sorted(everything, key=lambda request: request.at_s))
