"""What the lines of benchmarks/soak.py say: medians, slopes, and whether everything stayed as it was."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

WARM_UP_S: Final = 600.0
FIRST_S: Final = 3600.0
LIMIT_RATIO: Final = 0.02  # of the first median
# At least. `spare_fds` are those beyond one connection a ready pod: without the pods' coming and going.
LIMITS: Final[Mapping[str, float]] = {"rss_mib": 2.0, "tasks": 3.0, "fds": 5.0, "spare_fds": 3.0, "blocks": 10_000.0}
RULE: Final = (
    "flat: for each of them, neither the slope per hour nor last median - first median is above the larger of "
    f"{LIMIT_RATIO:.0%} of the first median and {', '.join(f'{limit:g} {name}' for name, limit in LIMITS.items())}"
)


@dataclass(frozen=True, slots=True)
class Trend:
    """One quantity over the run."""

    name: str
    first: float  # median
    last: float  # median
    slope: float  # per hour, least squares

    @property
    def limit(self) -> float:
        return max(LIMITS[self.name], LIMIT_RATIO * self.first)

    @property
    def is_flat(self) -> bool:
        return max(self.slope, self.last - self.first) <= self.limit


def trend_of(name: str, points: Sequence[tuple[float, float]]) -> Trend:
    """`points`: (seconds, value), after the warm-up. The first hour, or half if that is less, against the last half."""
    start, end = points[0][0], points[-1][0]
    middle = (start + end) / 2
    first = [value for at, value in points if at <= min(start + FIRST_S, middle)]
    last = [value for at, value in points if at >= middle]
    slope = statistics.linear_regression([at / 3600 for at, _ in points], [value for _, value in points]).slope
    return Trend(name, statistics.median(first), statistics.median(last), slope)


def report(path: Path) -> bool:
    """Prints it; is everything well?"""
    lines = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # the last one may be cut
            lines.append(json.loads(line))
    everything = [line for line in lines if line["kind"] == "sample"]
    if len(everything) < 6:
        print(f"{path}: too few samples ({len(everything)})")
        return False
    pid = Counter(line["pid"] for line in everything).most_common(1)[0][0]
    samples = [line for line in everything if line["pid"] == pid]
    lasted_s = samples[-1]["at_s"] - samples[0]["at_s"]
    warm_up_s = min(WARM_UP_S, lasted_s / 4)
    warm = [line for line in samples if line["at_s"] - samples[0]["at_s"] >= warm_up_s]
    _print_counts([line for line in lines if line["kind"] == "start"], everything)
    print(f"judged: {lasted_s / 60:.0f} min of one process, but for its first {warm_up_s / 60:.1f}")
    trends = [
        trend_of(name, [(line["at_s"], line[name]) for line in warm if line.get(name) is not None]) for name in LIMITS
    ]
    for each in trends:
        print(
            f"{each.name:9} first {each.first:.6g}  last {each.last:.6g}  slope {each.slope:+.4g} per hour  "
            f"limit {each.limit:.4g}  {'flat' if each.is_flat else 'NOT FLAT'}"
        )
    problems = [line for line in lines if line["kind"] == "problem"]
    flat = all(each.is_flat for each in trends)
    print(RULE)
    if lasted_s < 2 * WARM_UP_S:
        print("shorter than 20 min: the slopes say little")
    print(f"verdict: {'flat' if flat else 'NOT FLAT'}; invariants {'BROKEN' if problems else 'held'}")
    for kind, number in Counter(line["what"] for line in problems).items():
        print(
            f"  {kind}: {number} times (or more), e.g. {next(p['text'] for p in problems if p['what'] == kind)[:600]}"
        )
    return flat and not problems


def _print_counts(start: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]) -> None:
    """What happened, over all processes."""
    first, last = samples[0], samples[-1]
    took_s = last["at_s"] - first["at_s"]
    counts = last["counts"]
    for line in start:
        print(f"source {line['commit']}{' and changes of its working tree' if line['changed'] else ''}")
    print(f"{took_s / 60:.1f} min, {counts.get('scale writes', 0)} scale writes", end=" ")
    print(f"({counts.get('scale writes', 0) / last['at_s'] * 60:.0f} a minute), {last['faults']} faults")
    print(", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    same = [line for line in samples if line["pid"] == first["pid"]]
    cores = {
        "daemon": (same[-1]["cpu_s"] - same[0]["cpu_s"]) / max(1.0, same[-1]["at_s"] - same[0]["at_s"]),
        "control plane": (last["plane_cpu_s"] - first["plane_cpu_s"]) / took_s,
        "load, proxy, looking on": (last["own_cpu_s"] - first["own_cpu_s"]) / took_s,
    }
    print("cores: " + ", ".join(f"{name} {value:.2f}" for name, value in cores.items()))
    print(f"at the end: {last['workloads']} workloads, {last['replicas']} replicas, {last['cycles']} cycles")
