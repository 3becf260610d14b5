"""What is wrong with a quantity of a pod, and how to mend it: sentences. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from autoscaler.doctor.findings import Finding, Level, pods_in_words
from autoscaler.model.workload import Engine
from autoscaler.signals.engines import ENGINES, NEEDS, Kind, Ranks, Source
from autoscaler.signals.faults import Fault
from autoscaler.signals.pages import ACTIVITY, Plan

MOST_SIMILAR: Final = 3
_HINTS: Final = {
    Engine.CUSTOM: "do the pods print a metric of exactly this name? curl their page",
    Engine.SGLANG: "sglang prints its series only with --enable-metrics",
    Engine.TGI: "tgi prints a series only after its first request",
    Engine.TRITON: "triton prints histograms only where they are switched on",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with one pod. Equal troubles of several pods are told once."""

    level: Level
    message: str  # with {pods} where they are named
    fix: str


def told(check: str, subject: str, troubles: Iterable[tuple[str, Trouble]], pods: int) -> Iterator[Finding]:
    """One finding for each trouble, with the pods that have it; `pods`: how many were looked at."""
    by_trouble: defaultdict[Trouble, list[str]] = defaultdict(list)
    for pod, trouble in troubles:
        by_trouble[trouble].append(pod)
    for trouble, having in by_trouble.items():
        message = trouble.message.replace("{pods}", pods_in_words(having, pods))
        yield Finding(trouble.level, check, subject, message, trouble.fix)


def series_of(source: Source) -> str:
    """The newest name, as it stands on a page."""
    name = source.names[0].decode()
    return f"{name}_bucket" if source.kind is Kind.HISTOGRAM else name


def stem_of(name: str) -> str:
    """A name without the engine's prefix: `stem_of("vllm:num_requests_running") == "num_requests_running"`."""
    for words in ENGINES.values():
        for mark in (mark.decode().rstrip("{ ") for mark in words.marks):
            if name.startswith(mark) and name != mark:
                return name.removeprefix(mark)
    return name.rpartition(":")[2]


def similar(name: str, there: Iterable[str]) -> list[str]:
    """Names that end like this one, with another prefix or none: what a rename leaves behind."""
    stem = stem_of(name)
    ends = re.compile(f"(?:^|[:_]){re.escape(stem)}$")
    return sorted({each for each in there if each != name and ends.search(each)})[:MOST_SIMILAR]


def renamed(signals: Iterable[str], there: Sequence[str]) -> str:
    """A name there that ends like a series which an engine has for one of these signals; "" where there is none."""
    for signal in signals:
        for words in ENGINES.values():
            for quantity in words.needs(signal) if signal in NEEDS else ():
                found = similar(series_of(words.sources[quantity]), there) if quantity in words.sources else []
                if found:
                    return found[0]
    return ""


def restored(name: str) -> str:
    """How to mend a series that has another name."""
    return f"there is {name}: if that is the same, write it as autoscaling.metric, or restore the name"


def lacking(plan: Plan, source: Source, there: Sequence[str], where: str, level: Level) -> Trouble:
    """`there`: the names that stand where the series should."""
    name = series_of(source)
    users = sorted({signal for signal, keys in plan.signals.items() if source.key in keys} or {ACTIVITY})
    message = f"{where} no series {name}, which {' and '.join(users)} needs, for {{pods}}"
    if others := similar(name, there):
        return Trouble(level, message, restored(others[0]))
    hint = _HINTS.get(plan.engine, f"is {plan.engine} a version that prints it, and is serving.engine right?")
    return Trouble(level, message, hint)


def engine_lacks(plan: Plan, signal: str, level: Level) -> Trouble:
    """An engine that never prints what a signal is made of."""
    words = ENGINES.get(plan.engine)
    has = [str(each) for each in NEEDS if words is not None and set(words.needs(each)) <= words.sources.keys()]
    if signal == ACTIVITY:
        message = f"{plan.engine} has no series for {plan.missing[signal]}: it is never proven idle, so never at zero"
        return Trouble(Level.WARNING, message, "set minReplicas to 1, or use an engine that shows what runs")
    message = f"{plan.engine} has no series for {plan.missing[signal]}, which {signal} needs"
    return Trouble(level, message, f"set autoscaling.metric to one that it has: {', '.join(has)}")


def unfit_value(source: Source, fault: Fault, where: str, level: Level) -> Trouble:
    """A series whose value cannot be what it should measure."""
    name = series_of(source)
    if fault is Fault.ABSURD and source.ranks is Ranks.MAX:
        message = f"{where} {name} above 2, for {{pods}}: a share is 0..1, so this looks like percent"
        return Trouble(level, message, _PERCENT)
    return Trouble(
        level, f"{where} {name}, and its value is {fault}, for {{pods}}", "see the engine's own log and page"
    )


def percent_perhaps(source: Source, value: float, where: str) -> Trouble | None:
    """A share above 1 is suspect long before it is refused."""
    if source.ranks is not Ranks.MAX or value <= 1.0:
        return None
    message = f"{where} {series_of(source)} above 1, for {{pods}}: a share is 0..1; percent?"
    return Trouble(Level.WARNING, message, _PERCENT)


_PERCENT: Final = "divide it by 100 before it is scraped, or scale by another signal until the engine prints a share"
