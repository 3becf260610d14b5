"""An imitated model server's queue, and the load that a test offers to a workload. Pure: every time is an argument.

A replica serves `slots` requests at once, each for `service_time_s`, or longer beside others (`slowdown`); what comes
on top waits in order, or is refused (`refuses`). A workload's requests arrive evenly spaced (open loop) or are held at
a constant number in flight (closed loop), and are spread evenly over the replicas that receive; while there is none
they wait at an imitated gateway. Nothing is random.

Simplified on purpose: a request's service time is fixed when it starts, by a step time of a + b × batch and not by its
tokens; a server whose cache is full queues or preempts and hardly ever refuses, but here a refusal is what a client
would call one; and in the closed loop a waiting request moves to an emptier replica, which no gateway can do.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from autoscaler.signals.engines import Quantity

STEP_S: Final = 0.01
PREFILL_SHARE: Final = 0.1  # of the service time; the rest makes tokens

# vLLM's own bounds.
LATENCY_BOUNDS_S: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0),
    *(60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
TTFT_BOUNDS_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_BOUNDS_S: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a test offers to one workload, and how fast its replicas are."""

    rps: float = 0.0  # open loop: requests per second over all replicas
    concurrency: int | None = None  # closed loop: requests in flight over all replicas; wins over rps
    slots: int = 8
    service_time_s: float = 1.0
    prompt_tokens: int = 100
    output_tokens: int = 50
    slowdown: float = 0.0  # in a batch of all slots a request takes (1 + slowdown) × service_time_s
    refuses: bool = False  # what finds no slot, that is, a full cache, is refused instead of waiting


@dataclass(slots=True, eq=False)
class Request:
    """One request. `done` is called when its last token is out, or when it was refused; `tokens`: how many it asks for,
    if not the offer's."""

    arrived_at: float
    done: Callable[[], None] | None = None
    started_at: float = 0.0
    service_s: float = 1.0
    refused: bool = False
    tokens: int | None = None


@dataclass(slots=True)
class Histogram:
    """Observations by bucket; not cumulative, the last one has no bound."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float, times: int = 1) -> None:
        index = next((at for at, bound in enumerate(self.bounds) if value <= bound), len(self.bounds))
        self.counts[index] += times
        self.sum += value * times


class Replica:
    """One model server."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.waiting: deque[Request] = deque()
        self.running: set[Request] = set()
        self._events: list[tuple[float, int, bool, Request]] = []  # (time, order, it is the first token, request)
        self._order = 0
        self.reset_counters()

    def reset_counters(self) -> None:
        """What a restarted process would show, with the requests still here."""
        self.finished = 0
        self.refused = 0
        self.slowest_s = 0.0  # of the finished ones
        self.prompt_tokens = 0
        self._finished_tokens = 0
        self.histograms = {
            Quantity.TTFT: Histogram(TTFT_BOUNDS_S),
            Quantity.ITL: Histogram(ITL_BOUNDS_S),
            Quantity.LATENCY: Histogram(LATENCY_BOUNDS_S),
        }

    @property
    def in_flight(self) -> int:
        return len(self.running) + len(self.waiting)

    def add(self, request: Request, now: float) -> None:
        """A request arrives."""
        self.advance(now)
        request.arrived_at = now
        if self.offer.refuses and len(self.running) >= self.offer.slots:
            self._refuse(request)
            return
        self.waiting.append(request)
        self._fill(now)

    def abort(self, request: Request, now: float) -> None:
        """Its client went away: it is served no longer and never finishes, but its tokens were made."""
        if request in self.running:
            self._finished_tokens += self._tokens_of(request, now)
            self.running.discard(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._fill(now)

    def advance(self, now: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= now:
            at, _, first_token, request = heapq.heappop(self._events)
            if request not in self.running:
                continue  # its client went away
            if first_token:
                self.histograms[Quantity.TTFT].observe(at - request.arrived_at)
            else:
                self._finish(request, at)
                self._fill(at)
        self._fill(now)

    def generated_tokens(self, now: float) -> int:
        """Tokens made so far, those of running requests included."""
        return self._finished_tokens + sum(self._tokens_of(request, now) for request in self.running)

    def kv_share(self, now: float) -> float:
        """Used share of a cache that just holds `slots` whole requests."""
        offer = self.offer
        used = sum(offer.prompt_tokens + self._tokens_of(request, now) for request in self.running)
        return min(1.0, used / (offer.slots * (offer.prompt_tokens + offer.output_tokens)))

    def _refuse(self, request: Request) -> None:
        self.refused += 1
        request.refused = True
        if request.done is not None:
            request.done()

    def _tokens_of(self, request: Request, now: float) -> int:
        decoding = (now - request.started_at) / request.service_s - PREFILL_SHARE
        return int(self._asked(request) * min(1.0, max(0.0, decoding / (1 - PREFILL_SHARE))))

    def _asked(self, request: Request) -> int:
        return self.offer.output_tokens if request.tokens is None else request.tokens

    def _fill(self, now: float) -> None:
        while self.waiting and len(self.running) < self.offer.slots:
            request = self.waiting.popleft()
            request.started_at = now
            self.running.add(request)
            self.prompt_tokens += self.offer.prompt_tokens
            batch = len(self.running) / self.offer.slots
            share_s = self._asked(request) / self.offer.output_tokens * self.offer.service_time_s
            service_s = request.service_s = share_s * (1 + self.offer.slowdown * batch)
            for share, first_token in ((PREFILL_SHARE, True), (1.0, False)):
                self._order += 1
                heapq.heappush(self._events, (now + share * service_s, self._order, first_token, request))

    def _finish(self, request: Request, at: float) -> None:
        self.running.discard(request)
        self.finished += 1
        self._finished_tokens += self._asked(request)
        self.slowest_s = max(self.slowest_s, at - request.arrived_at)
        self.histograms[Quantity.LATENCY].observe(at - request.arrived_at)
        gaps = max(1, self._asked(request) - 1)
        decoding_s = (at - request.started_at) * (1 - PREFILL_SHARE)
        self.histograms[Quantity.ITL].observe(decoding_s / gaps, gaps)
        if request.done is not None:
            request.done()


class OfferedWorkload:
    """One workload's load, its replicas, and its part of the gateway."""

    def __init__(self, now: float) -> None:
        self.offer = Offer()
        self.replicas: dict[str, Replica] = {}  # by pod name
        self.receiving: list[str] = []  # the replicas that get new requests, sorted
        self.gateway: deque[Request] = deque()
        self.gateway_total = 0  # requests that came, wherever they went
        self.lost = 0  # in flight on a pod that went away
        self._refused = 0  # by pods that went away
        self._slowest_s = 0.0
        self._now = now
        self._next_arrival = math.inf
        self._turn = 0

    @property
    def in_flight(self) -> int:
        """Of everybody, at the gateway and at replicas."""
        return len(self.gateway) + sum(replica.in_flight for replica in self.replicas.values())

    @property
    def refused(self) -> int:
        """Requests that found a full cache."""
        return self._refused + sum(replica.refused for replica in self.replicas.values())

    @property
    def slowest_s(self) -> float:
        """The longest that any finished request took, from its arrival at the replica."""
        return max([self._slowest_s, *(replica.slowest_s for replica in self.replicas.values())])

    def set_offer(self, offer: Offer, now: float) -> None:
        """Offer another load from now on. What is in flight stays, but a lower concurrency drops waiting requests."""
        self.advance(now)
        self.offer = offer
        open_loop = offer.concurrency is None and offer.rps > 0
        # another rate does not put off what was about to come: a ramp is many offers
        self._next_arrival = min(max(self._next_arrival, now), now + 1 / offer.rps) if open_loop else math.inf
        for replica in self.replicas.values():
            replica.offer = offer
        self._settle(now)

    def set_replicas(self, present: set[str], receiving: set[str], now: float) -> None:
        """Which pods exist, and which of them get new requests."""
        self.advance(now)
        for name in sorted(self.replicas.keys() - present):
            gone = self.replicas.pop(name)
            self.lost += gone.in_flight
            self._refused += gone.refused
            self._slowest_s = max(self._slowest_s, gone.slowest_s)
        for name in sorted(present - self.replicas.keys()):
            self.replicas[name] = Replica(self.offer)
        self.receiving = sorted(receiving & present)
        self._settle(now)

    def advance(self, now: float) -> None:
        """Let time pass, in steps short enough for the closed loop to look continuous."""
        while self._now < now:
            self._now = min(now, self._now + STEP_S)
            while self._next_arrival <= self._now:
                self._arrive(self._next_arrival)
                self._next_arrival += 1 / self.offer.rps
            for replica in self.replicas.values():
                replica.advance(self._now)
            self._settle(self._now)

    def _arrive(self, at: float) -> None:
        self.gateway_total += 1
        self.gateway.append(Request(at))
        self._hand_over(at)

    def _hand_over(self, now: float) -> None:
        """Requests at the gateway go to the replicas in turn."""
        while self.gateway and self.receiving:
            self._turn += 1
            self.replicas[self.receiving[self._turn % len(self.receiving)]].add(self.gateway.popleft(), now)

    def _settle(self, now: float) -> None:
        self._hand_over(now)
        if self.offer.concurrency is not None:
            self._hold(self.offer.concurrency, now)

    def _hold(self, concurrency: int, now: float) -> None:
        """Keep this many in flight: add to the emptiest, drop waiting ones of the fullest, even out what waits."""
        for _ in range(concurrency - self.in_flight):
            self.gateway_total += 1
            if self.receiving:
                self._emptiest().add(Request(now), now)
            else:
                self.gateway.append(Request(now))
        for _ in range(self.in_flight - concurrency):
            if self.gateway:
                self.gateway.pop()
            elif (fullest := self._fullest()) is not None:
                fullest.waiting.pop()
        while self.receiving and (fullest := self._fullest()) is not None:
            if fullest.in_flight - self._emptiest().in_flight < 2:
                break
            self._emptiest().add(fullest.waiting.pop(), now)

    def _emptiest(self) -> Replica:
        return min((self.replicas[name] for name in self.receiving), key=lambda replica: replica.in_flight)

    def _fullest(self) -> Replica | None:
        """Of the replicas where a request waits."""
        candidates = [replica for replica in self.replicas.values() if replica.waiting]
        return max(candidates, key=lambda replica: replica.in_flight, default=None)
