"""Asks the configuration's queries, each once an interval for every workload that uses it. Decides when, no more.

A workload's first question is asked at once, the others at a place of its own within the interval. What the answers are
worth, `queries` says.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

import structlog

from autoscaler.model.signal import Activation, Quality, Reading
from autoscaler.model.workload import ActivationQuery, TargetKey
from autoscaler.signals.faults import Fault
from autoscaler.signals.prometheus import Access, Failure, PrometheusClient
from autoscaler.signals.queries import MAX_ANSWER_BYTES, NamedQuery, Outcome, Track, judged, question
from autoscaler.signals.targets import ScrapeTarget

MOST_AT_ONCE: Final = 16
LOOK_EVERY_S: Final = 0.1
TELL_EVERY_S: Final = 60.0  # of one query, at most
_FORGET_AFTER_S: Final = 300.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Use:
    """One query as one workload uses it."""

    query: NamedQuery
    target: ScrapeTarget | None = None  # None: it is at zero, and asked for its activation
    activation_at_s: float | None = None  # when that was asked for last
    track: Track = field(default_factory=Track)
    due_s: float = 0.0  # loop time; 0: at once
    busy: bool = False


class QueryPoller:
    """`clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float], access: Access, queries: Mapping[str, NamedQuery]) -> None:
        self.answers_total: Counter[str] = Counter()  # by "ok" or the reason
        self._clock = clock
        self._uses: dict[tuple[TargetKey, str], _Use] = {}
        self._told: dict[str, tuple[str, float]] = {}  # by query: the trouble that the log knows, and since when
        self.configure(access, queries)

    def configure(self, access: Access, queries: Mapping[str, NamedQuery]) -> None:
        """For the questions to come. A query that reads otherwise begins anew."""
        self._access = replace(access, max_answer_bytes=MAX_ANSWER_BYTES)
        self._queries = queries
        self._uses = {use: it for use, it in self._uses.items() if queries.get(use[1]) == it.query}

    def set_targets(self, targets: Mapping[TargetKey, ScrapeTarget]) -> None:
        """These workloads use the queries that their signals name; others only while their activation is asked for."""
        now_s = self._clock()
        wanted = {(key, spec.name): target for key, target in targets.items() for spec in target.signals}
        for use, target in wanted.items():
            it = self._use(use)
            if it is not None:
                it.target = target
        for use in self._uses.keys() - wanted.keys():
            it = self._uses[use]
            it.target = None
            if it.activation_at_s is None or abs(now_s - it.activation_at_s) > _FORGET_AFTER_S:
                del self._uses[use]

    def reading(self, key: TargetKey, name: str, pods: int, now_s: float) -> Reading:
        """What is known of this workload's query now; it counts for all of its ready pods."""
        use = self._uses.get((key, name))
        if use is None:
            fault = Fault.NO_ANSWER_YET if name in self._queries else Fault.NO_SUCH_QUERY
            return Track(fault=fault).reading(name, now_s, 1.0, pods)
        return use.track.reading(name, now_s, use.query.interval_s, pods)

    def state(self, spec: ActivationQuery, now_s: float) -> Activation:
        """Does the query say that requests wait? The first question also has it asked."""
        use = self._use((spec.workload, spec.query))
        if use is None:
            return Activation.UNKNOWN
        use.activation_at_s = now_s
        quality, value = use.track.quality(now_s, use.query.interval_s), use.track.value or 0.0
        if quality in (Quality.FRESH, Quality.PARTIAL) and value > 0:
            return Activation.WAITING
        return Activation.IDLE if quality is Quality.FRESH else Activation.UNKNOWN

    async def run(self) -> None:
        """Ask and sample until cancelled. May be called again: what is known stays, and has aged."""
        for use in self._uses.values():
            use.busy = False
        client = PrometheusClient(self._access)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sample_every_second())
                while True:
                    client.access = self._access
                    for key, name in self._due(asyncio.get_running_loop().time()):
                        group.create_task(self._visit(client, key, name, self._uses[key, name]))
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await client.close()

    def _use(self, use: tuple[TargetKey, str]) -> _Use | None:
        query = self._queries.get(use[1])
        if query is not None and use not in self._uses:
            self._uses[use] = _Use(query)
        return self._uses.get(use)

    def _due(self, now_s: float) -> list[tuple[TargetKey, str]]:
        """Whom to ask for now, the longest overdue first; marks them busy and says when they are due again."""
        free = MOST_AT_ONCE - sum(use.busy for use in self._uses.values())
        due = [name for name, use in self._uses.items() if use.due_s <= now_s and not use.busy]
        due.sort(key=lambda name: (self._uses[name].due_s, str(name[0]), name[1]))
        for name in due[:free]:
            use = self._uses[name]
            use.busy, use.due_s = True, next_place(name, use.query.interval_s, now_s)
        return due[:free]

    async def _visit(self, client: PrometheusClient, key: TargetKey, name: str, use: _Use) -> None:
        try:
            outcome = await self._asked(client, key, name, use)
        except Exception:  # whatever an answer holds must not end the daemon
            log.exception("query.not_read", query=name)
            outcome = Outcome(fault=Fault.UNREADABLE)
        finally:
            use.busy = False
        use.track.enter(outcome)

    async def _asked(self, client: PrometheusClient, key: TargetKey, name: str, use: _Use) -> Outcome:
        target, asked_at_s = use.target, self._clock()
        names = {"namespace": key.namespace, "workload": key.name, "revision": target.revision if target else ""}
        text = question(use.query, names, [pod.name for pod in target.pods] if target else [])
        if isinstance(text, Fault):
            return Outcome(fault=text)
        answer = await client.query(text, use.query.options)
        self.answers_total[answer.reason if isinstance(answer, Failure) else "ok"] += 1
        self._tell(name, key, answer if isinstance(answer, Failure) else None)
        return judged(use.query, answer, asked_at_s)

    def _tell(self, name: str, key: TargetKey, failure: Failure | None) -> None:
        """A trouble of a query and its end, whomever it is asked for; an author learns his own from the condition."""
        now_s, known = self._clock(), self._told.get(name)
        if known is not None and abs(now_s - known[1]) < TELL_EVERY_S and failure is not None:
            return
        if failure is not None and (known is None or known[0] != failure.reason):
            log.warning("query.failed", query=name, workload=str(key), reason=failure.reason, detail=failure.detail)
            self._told[name] = failure.reason, now_s
        elif failure is None and known is not None:
            log.info("query.recovered", query=name, after=known[0])
            del self._told[name]

    async def _sample_every_second(self) -> None:
        while True:
            now_s = self._clock()
            await asyncio.sleep(math.floor(now_s) + 1 - now_s)
            at_s = math.floor(self._clock())
            for use in self._uses.values():
                use.track.sample(at_s)


def next_place(use: tuple[TargetKey, str], interval_s: float, now_s: float) -> float:
    """The use's next place in the interval, at least half of one away: workloads spread, and each keeps its place."""
    offset_s = crc32(f"{use[0]} {use[1]}".encode()) % 1000 / 1000 * interval_s
    return math.ceil((now_s + interval_s / 2 - offset_s) / interval_s) * interval_s + offset_s
