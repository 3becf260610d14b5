"""Queries that the configuration names: what is asked for a workload, what an answer is worth. No input or output.

A query gives one number of a workload as a whole. Nobody can say which pods it lacks, so it is as good as its samples
are young: a plain selector is dated by its sample; of any other expression Prometheus tells no more than when it was
evaluated, so it is asked to look no further back than three intervals. An answer without a series is absent, not 0.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from autoscaler.model.signal import PodFault, Quality, Reading, Sample, Shape
from autoscaler.signals.aggregates import INSTANT, PART, VALUE, marked
from autoscaler.signals.faults import Fault
from autoscaler.signals.pages import MOST_VALUE, unfit
from autoscaler.signals.prometheus import Answer, Failure, Series
from autoscaler.signals.promql import Query, read_query
from autoscaler.signals.readings import FRESH_PERIODS, KEPT_SAMPLES

MAX_QUERY_CHARACTERS: Final = 256 * 1024  # with the names of all pods in it
MAX_ANSWER_BYTES: Final = 256 * 1024
MAX_SERIES: Final = 4  # two instants beside two values are enough to refuse
AT_ZERO: Final = frozenset({"namespace", "workload"})  # what a workload without pods can fill in
_TEXT: Final = re.compile(r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`""")
_SELECTOR: Final = re.compile(r"^\s*([a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{[^{}]*\})?|\{[^{}]*\})\s*$")


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """One query of the configuration, read once."""

    query: Query
    shape: Shape
    interval_s: float  # between two samples behind it
    dated: bool  # a plain selector, whose sample has an instant of its own

    @property
    def options(self) -> dict[str, str]:
        """No more series than it takes to refuse, and nothing older than what is still fresh."""
        lookback = f"{math.ceil(FRESH_PERIODS * self.interval_s * 1000)}ms"
        return {"limit": str(MAX_SERIES), "lookback_delta": lookback}


def named_query(template: str, shape: Shape, interval_s: float) -> NamedQuery:
    """Raises NotAQuery where the placeholders cannot be used."""
    return NamedQuery(read_query(template), shape, interval_s, is_selector(template))


def is_selector(template: str) -> bool:
    """Whether it is a metric with its matchers and nothing else: no function, range, offset or operator."""
    return _SELECTOR.match(_TEXT.sub('""', template)) is not None


def question(query: NamedQuery, names: Mapping[str, str], pods: Sequence[str]) -> str | Fault:
    """The PromQL for one workload; `names`: namespace, workload and revision."""
    if "pods" in query.query.placeholders and not pods:
        return Fault.NO_SAMPLES
    text = query.query.filled(names, pods)
    if len(text) > MAX_QUERY_CHARACTERS:
        return Fault.QUERY_TOO_LONG
    if not query.dated:
        return text
    return f"{marked(text, VALUE)} or {marked(f'timestamp({text})', INSTANT)}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one answer says. A value has an instant of our clock and may lack a part; else there is a fault."""

    value: float | None = None
    at_s: float | None = None
    partial: bool = False
    fault: str | None = None


def judged(query: NamedQuery, answer: Answer | Failure, asked_at_s: float) -> Outcome:
    """`asked_at_s`: our clock just before the question, so that samples rather look old."""
    if isinstance(answer, Failure):
        return Outcome(fault=f"Prometheus: {answer.reason}")
    values = [each for each in answer.series if each.labels.get(PART) == VALUE] if query.dated else answer.series
    fault = _fault(values)
    at_s = asked_at_s
    if query.dated and fault is None:
        instant = next((each.value for each in answer.series if each.labels.get(PART) == INSTANT), math.nan)
        at_s = asked_at_s + instant - answer.at_s if answer.at_s is not None else math.nan
        fault = None if math.isfinite(at_s) else Fault.MALFORMED
    if fault is not None:
        return Outcome(fault=f"Prometheus: {fault}")
    return Outcome(values[0].value, at_s, bool(answer.warnings))


def _fault(values: Sequence[Series]) -> Fault | None:
    if not values:
        return Fault.NO_SAMPLES
    return Fault.SEVERAL_SERIES if len(values) > 1 else unfit(values[0].value, MOST_VALUE)


@dataclass(slots=True)
class Track:
    """One query of one workload over time. What gives no value changes none: the last one grows old."""

    value: float | None = None
    at_s: float | None = None  # of the sample, or of the evaluation
    partial: bool = False
    fault: str | None = Fault.NO_ANSWER_YET  # of the newest answer
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))

    def enter(self, outcome: Outcome) -> None:
        """A warned answer may raise the value and never lower it."""
        self.fault = outcome.fault
        if outcome.value is None:
            return
        self.partial = outcome.partial
        self.value = max(outcome.value, self.value or 0.0) if outcome.partial else outcome.value
        self.at_s = outcome.at_s

    def sample(self, at_s: float) -> None:
        """Draw the sample of the whole second `at_s`."""
        while self.samples and self.samples[-1].at_s > at_s:
            self.samples.pop()  # the clock was set back
        if self.value is not None and not (self.samples and self.samples[-1].at_s == at_s):
            self.samples.append(Sample(at_s, self.value))

    def quality(self, now_s: float, interval_s: float) -> Quality:
        limit_s = FRESH_PERIODS * interval_s
        if self.value is None or self.at_s is None:
            return Quality.ABSENT
        if not -limit_s < now_s - self.at_s < limit_s:
            return Quality.STALE
        return Quality.PARTIAL if self.partial else Quality.FRESH

    def reading(self, name: str, now_s: float, interval_s: float, pods: int) -> Reading:
        """It speaks for all ready pods while it is fresh, and else for none."""
        quality = self.quality(now_s, interval_s)
        fresh = quality is Quality.FRESH
        reason = self.fault or (f"Prometheus: {Fault.PARTIAL_ANSWER}" if self.partial else Fault.OVERDUE)
        return Reading(
            name=name,
            value=self.samples[-1].value if self.samples else None,
            quality=quality if self.samples else Quality.ABSENT,
            samples=tuple(self.samples),
            age_s=max(0.0, now_s - self.at_s) if self.at_s is not None else None,
            pods_expected=pods,
            pods_fresh=pods if fresh and self.samples else 0,
            faults=() if fresh else (PodFault(f"query {name}", str(reason)),),
        )
