"""After a start: what a Prometheus kept of the workloads becomes the memory that the process before took with it.

Read once for each workload, as soon as its live samples have begun, so that past and present meet without a hole.
Holes, warnings and failures leave the memory as it is without: nothing is lowered for a stable window. Runs beside the
cycles, which wait for nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from autoscaler.controller.attention import scrape_targets
from autoscaler.controller.subject import Snapshot, Subject
from autoscaler.model.workload import ScalingSpec, TargetKey, WorkloadKey
from autoscaler.scaling.policy import PolicyState
from autoscaler.scaling.warming import wanted_s, warmed
from autoscaler.signals.aggregates import Labels, by_quantity, expression
from autoscaler.signals.past import Past, doubled, knowable, presence
from autoscaler.signals.prometheus import Access, Answer, Failure
from autoscaler.signals.prometheus_pods import sources_of
from autoscaler.signals.range_reader import RangeReader, Ranges
from autoscaler.signals.sources import plain
from autoscaler.signals.targets import ScrapeTarget

PATIENCE_S: Final = 5.0  # for workloads whose live samples have not begun
READ_WITHIN_S: Final = 4.0  # each query
RECALL_WITHIN_S: Final = 12.0  # all of it: the live samples of 16 s are kept, and must reach back to what was read
MOST_FAILURES: Final = 5  # in a tenure; then the windows are left to warm up
SHOWN: Final = 5  # workloads named in one line of the log
LEAD_INTERVALS: Final = 4  # a rate needs two samples, and a sample is fresh for three intervals
# Measured: 520,000 points (500 workloads of two pods, 65 steps) take 4.4 s of CPU, in small pieces beside the cycles.
MOST_POINTS: Final = 1_000_000
SLICE_POINTS: Final = 50_000  # of one answer: about 1.5 MB

log = structlog.get_logger()
States = tuple[PolicyState, ...]
Wanted = Mapping[WorkloadKey, tuple[ScrapeTarget, ScalingSpec]]


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the past is kept, and how dense."""

    access: Access
    labels: Labels
    interval_s: float
    by_pages: bool = False  # live values come from the pods' pages, which say of each metric whether it counts


class _NotKnown(Exception):
    """Why the past cannot be used: a reason, and what it is about."""


class Recall:
    """`clock` gives Unix seconds. `kept` None: there is no Prometheus, and nothing is recalled."""

    def __init__(self, clock: Callable[[], float], kept: Kept | None) -> None:
        self._clock = clock
        self.kept = kept
        self._begun_at: float | None = None  # when these workloads were first looked at
        self._looked_at = -math.inf
        self._asked: set[WorkloadKey] = set()
        self._wanted: Wanted = {}
        self._found: dict[WorkloadKey, States] = {}
        self._failures = 0
        self._go = asyncio.Event()

    def look(self, seen: Snapshot) -> None:
        """Every cycle. Begins to read where there is something to read and it is not too late to be of use."""
        if self.kept is None or self._wanted or seen.at_s - self._looked_at < PATIENCE_S:
            return
        begun_at = self._begun_at = seen.at_s if self._begun_at is None else self._begun_at
        targets = scrape_targets(seen, republish=False)
        pending = [
            each
            for each in seen.subjects
            if each.key in targets
            and each.key not in self._asked
            and seen.at_s - begun_at < each.spec.scaling.kpa.stable_window_s
        ]
        living = [each for each in pending if _lives(each)]
        patient = seen.at_s - begun_at < PATIENCE_S
        if not living or (patient and len(living) < len(pending)):
            return
        self._looked_at = seen.at_s
        self._asked |= {each.key for each in living}
        self._wanted = {
            each.key: (targets[each.key], each.spec.scaling)
            for each in living
            if plain(targets[each.key]) and knowable(targets[each.key], self.kept.by_pages)
        }
        self._go.set()

    def take(self) -> Mapping[WorkloadKey, States]:
        """What was recalled since it was last taken."""
        found, self._found = self._found, {}
        return found

    def rest(self) -> None:
        """Somebody else leads; a tenure to come recalls anew."""
        self._begun_at, self._looked_at, self._failures = None, -math.inf, 0
        self._asked.clear()
        self._found = {}

    async def run(self) -> None:
        while True:
            await self._go.wait()
            self._go.clear()
            wanted, begun_at = self._wanted, self._begun_at
            try:
                if wanted and self.kept is not None:
                    found = await self._within_time(wanted, self.kept)
                    self._take_over(wanted, found if begun_at == self._begun_at else {})
            finally:
                self._wanted = {}

    def _take_over(self, wanted: Wanted, found: Mapping[WorkloadKey, States] | None) -> None:
        if found is not None:
            self._found |= found
        elif self._failures < MOST_FAILURES:  # it may have been started with us
            self._failures += 1
            self._asked -= wanted.keys()

    async def _within_time(self, wanted: Wanted, kept: Kept) -> Mapping[WorkloadKey, States] | None:
        """None where the past could not be read."""
        reader, started_s = RangeReader(kept.access, READ_WITHIN_S), self._clock()
        try:
            async with asyncio.timeout(RECALL_WITHIN_S):
                found = await self._recall(wanted, kept, reader)
        except _NotKnown as why:
            log.warning("windows.not_recalled", reason=why.args[0], detail=why.args[1])
            return None
        except TimeoutError:
            log.warning("windows.not_recalled", reason=f"not done within {RECALL_WITHIN_S:.0f} s", detail="")
            return None
        except Exception:  # whatever an answer holds must not end the daemon
            log.exception("windows.not_recalled")
            return None
        finally:
            reader.close()
        if found:  # workloads that are new have no past
            log.info("windows.recalled", workloads=len(found), took_s=round(self._clock() - started_s, 2))
        return found

    async def _recall(self, wanted: Wanted, kept: Kept, reader: RangeReader) -> Mapping[WorkloadKey, States]:
        asked_at_s = self._clock()
        its_now = _good(await reader.query("time()")).at_s
        assert its_now is not None  # a scalar has an instant
        offset_s = asked_at_s - its_now  # taken before the question, so that samples rather look old
        wanted = await _scraped_once(wanted, kept, reader)
        if not wanted:
            return {}
        past = await _read(wanted, kept, reader, math.floor(its_now), offset_s)
        found = {}
        for key, (_, scaling) in wanted.items():
            if states := warmed(scaling, past.moments[key]):
                found[key] = states
            await asyncio.sleep(0)
        return found


async def _scraped_once(wanted: Wanted, kept: Kept, reader: RangeReader) -> Wanted:
    """Without the workloads of which Prometheus has series twice: their sums read double."""
    labels = kept.labels
    sources = sorted(sources_of(target for target, _ in wanted.values()), key=lambda source: source.names)
    twice = _good(await reader.query(doubled(sources, labels)))
    pods = {(each.labels.get(labels.namespace), each.labels.get(labels.pod)) for each in twice.series}
    once = {
        key: (target, scaling)
        for key, (target, scaling) in wanted.items()
        if not any((key.namespace, pod.name) in pods for pod in target.pods)
    }
    if len(once) < len(wanted):
        log.warning("windows.scraped_twice", workloads=sorted(map(str, wanted.keys() - once.keys()))[:SHOWN])
    return once


async def _read(wanted: Wanted, kept: Kept, reader: RangeReader, end_s: int, offset_s: float) -> Past:
    """The moments until `end_s` of Prometheus's clock."""
    targets: dict[TargetKey, ScrapeTarget] = {key: target for key, (target, _) in wanted.items()}
    step_s, pods = max(1, round(kept.interval_s)), sum(len(target.pods) for target in targets.values())
    quantities = len(by_quantity(sources_of(targets.values())))
    steps = _steps([scaling for _, scaling in wanted.values()], pods * 2 * quantities, step_s, kept.interval_s)
    instants = range(end_s - (steps - 1) * step_s, end_s + 1, step_s)
    past = Past(targets, kept.labels, kept.interval_s, instants[0] + offset_s)
    questions = [*(expression(group, kept.labels) for group in past.groups), presence(kept.labels)]
    at_once = max(1, SLICE_POINTS // (pods * 2))
    for begin in range(0, len(instants), at_once):
        part = instants[begin : begin + at_once]
        asked = (reader.query_range(question, part[0], part[-1], step_s) for question in questions)
        *ranges, present = [_whole(each) for each in await asyncio.gather(*asked)]
        await past.feed(ranges, present, part, step_s, offset_s)
    return past


def _lives(subject: Subject) -> bool:
    signals = subject.observation.signals
    return signals is not None and all(
        each.name in signals.readings and signals.readings[each.name].samples for each in subject.spec.scaling.signals
    )


def _good(answer: Answer | Failure) -> Answer:
    if isinstance(answer, Failure):
        raise _NotKnown(answer.reason, answer.detail)
    if answer.warnings:
        raise _NotKnown("partial answer", answer.warnings[0])
    return answer


def _whole(ranges: Ranges | Failure) -> Ranges:
    if isinstance(ranges, Failure):
        raise _NotKnown(ranges.reason, ranges.detail)
    if ranges.warnings:
        raise _NotKnown("partial answer", ranges.warnings[0])
    return ranges


def _steps(scalings: Sequence[ScalingSpec], points_a_step: int, step_s: int, interval_s: float) -> int:
    """How many steps to read: as far back as asked for, as long as that is not too much."""
    lead_s = LEAD_INTERVALS * interval_s
    asked = math.ceil((max(map(wanted_s, scalings)) + lead_s) / step_s) + 1
    steps = min(asked, MOST_POINTS // max(1, points_a_step))
    least_s = max(each.kpa.stable_window_s for each in scalings) + lead_s
    if steps * step_s < least_s:
        raise _NotKnown("too much to read", f"{points_a_step} points for each of {asked} steps")
    return steps
