"""A small imitation of model servers: arrivals, one queue, slots, start-up and drain, in virtual seconds.

It stands in for the cluster alone. It decides no count: it is told how many replicas to have (`have`) and shows what
the scraper (`signals`) and the listing would show. No clock: time is whatever it is advanced to.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from autoscaler.model.signal import Activation, Quality, Reading, Sample, WorkloadSignals
from autoscaler.simulator.traces import Request

KEPT_SAMPLES: Final = 16
ACTIVITY_S: Final = 3  # finished requests count as activity this long, as on pages three scrape periods old
START_SPREAD: Final = 0.25  # sigma of the lognormal start-up time


@dataclass(frozen=True, slots=True)
class Server:
    """One imitated replica: so many requests at a time, each as long as its tokens take."""

    gpus: int
    slots: int  # requests in service at once; the others wait
    start_s: float  # median from created to ready
    prefill_tokens_per_s: float
    token_s: float  # per output token

    def service_s(self, request: Request) -> float:
        """1,000 tokens in at 2,000/s and 200 out at 0.04 s are 0.5 + 8 = 8.5 s."""
        return request.input_tokens / self.prefill_tokens_per_s + request.output_tokens * self.token_s


@dataclass(slots=True)
class Replica:
    """`number` counts the starts of this model; `busy` slots are in use."""

    number: int
    ready_at: float
    busy: int = 0
    terminating: bool = False


class ModelWorld:
    """One model's requests and replicas. `waits` holds (arrival, queue wait) of every request that was started."""

    def __init__(self, server: Server, arrivals: Sequence[Request], warm: int, chance: random.Random) -> None:
        self.server = server
        self.now = 0.0
        self.arrived = self.finished = self.starts = 0
        self.gpu_seconds = self.seconds_at_zero = 0
        self.waits: list[tuple[float, float]] = []  # seconds
        self.replicas: list[Replica] = [Replica(number, 0.0) for number in range(warm)]
        self.waiting: deque[Request] = deque()
        self._arrivals = arrivals
        self._chance = chance
        self._numbers = warm
        self._ends: list[tuple[float, int, Replica]] = []  # (instant, tie-break, where)
        self._finished_at: deque[float] = deque()
        self._starting_at: set[int] = set()  # seconds in which a replica was starting
        self._samples: deque[Sample] = deque(maxlen=KEPT_SAMPLES)

    @property
    def ready(self) -> list[Replica]:
        return [each for each in self.replicas if not each.terminating and each.ready_at <= self.now]

    @property
    def starting(self) -> list[Replica]:
        return [each for each in self.replicas if not each.terminating and each.ready_at > self.now]

    @property
    def terminating(self) -> int:
        return sum(each.terminating for each in self.replicas)

    @property
    def in_service(self) -> int:
        return len(self._ends)

    @property
    def gpus(self) -> int:
        """Held now: starting and terminating replicas hold theirs, too."""
        return self.server.gpus * len(self.replicas)

    @property
    def oldest_wait_s(self) -> float:
        return self.now - self.waiting[0].at_s if self.waiting else 0.0

    def within(self, limit_s: float) -> int:
        """Requests that were started after a wait of at most `limit_s`."""
        return sum(wait <= limit_s for _, wait in self.waits)

    def late_while_starting(self, limit_s: float) -> int:
        """Requests that waited longer, or wait still, and at some second of that wait a replica was starting."""
        late = [(at_s, at_s + wait) for at_s, wait in self.waits if wait > limit_s]
        late += [(request.at_s, self.now) for request in self.waiting]
        return sum(not self._starting_at.isdisjoint(range(int(start), int(end) + 1)) for start, end in late)

    def have(self, count: int) -> None:
        """Have `count` replicas that are not terminating. Those not ready go first, then the least busy."""
        alive = [each for each in self.replicas if not each.terminating]
        for _ in range(count - len(alive)):
            start_s = self.server.start_s * math.exp(self._chance.gauss(0.0, START_SPREAD))
            self.replicas.append(Replica(self._numbers, self.now + math.ceil(start_s)))
            self._numbers += 1
            self.starts += 1
        alive.sort(key=lambda each: (each.ready_at <= self.now, each.busy, -each.number))
        for each in alive[: max(0, len(alive) - count)]:
            each.terminating = True

    def hold(self, seconds: int) -> None:
        """Charge what is held now for the next `seconds`."""
        self.gpu_seconds += self.gpus * seconds
        self.seconds_at_zero += 0 if self.replicas else seconds
        if self.starting:
            self._starting_at.update(range(int(self.now), int(self.now) + seconds))

    def advance(self, until: float) -> None:
        """Arrivals, starts of service and ends up to `until`, a whole second; then replicas become ready or go."""
        while True:
            arrival = self._arrivals[self.arrived].at_s if self.arrived < len(self._arrivals) else math.inf
            end = self._ends[0][0] if self._ends else math.inf
            if min(arrival, end) > until:
                break
            self.now = min(arrival, end)
            if end <= arrival:
                self._finish()
            else:
                self.waiting.append(self._arrivals[self.arrived])
                self.arrived += 1
            self._serve()
        self.now = until
        self.replicas = [each for each in self.replicas if each.busy or not each.terminating]
        self._serve()

    def activation(self) -> Activation:
        """What a gateway's page says: does a request wait for a server?"""
        return Activation.WAITING if self.waiting and not self.ready else Activation.IDLE

    def signals(self) -> WorkloadSignals | None:
        """The pages of all ready replicas, fresh; None where nobody is ready. Terminating ones are not scraped."""
        ready = self.ready
        while self._finished_at and self._finished_at[0] <= self.now - ACTIVITY_S:
            self._finished_at.popleft()
        if not ready:
            self._samples.clear()
            return None
        in_flight = float(sum(each.busy for each in ready) + len(self.waiting))
        if not self._samples or self._samples[-1].at_s < self.now:
            self._samples.append(Sample(self.now, in_flight))
        pods = len(ready)
        concurrency = Reading("concurrency", in_flight, Quality.FRESH, tuple(self._samples), 0.0, pods, pods)
        activity = in_flight + len(self._finished_at)
        return WorkloadSignals(
            {concurrency.name: concurrency}, Reading("activity", activity, Quality.FRESH, (), 0.0, pods, pods), "vllm"
        )

    def _finish(self) -> None:
        heapq.heappop(self._ends)[2].busy -= 1
        self.finished += 1
        self._finished_at.append(self.now)

    def _serve(self) -> None:
        """First come, first served, on the least busy ready replica."""
        while self.waiting:
            free = [each for each in self.ready if each.busy < self.server.slots]
            if not free:
                return
            where = min(free, key=lambda each: (each.busy, each.number))
            request = self.waiting.popleft()
            where.busy += 1
            self.waits.append((request.at_s, self.now - request.at_s))
            end = self.now + self.server.service_s(request)
            heapq.heappush(self._ends, (end, len(self.waits), where))
