"""An imitated cluster for the state machine: pods take time and die, quota moves, the driver may be cut off anywhere.

It is imitated because thousands of histories a second are wanted; the same machine runs on the real control plane in
tests/e2e. Its own oracle (`check`) looks at what is there, not at what the machine says of itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace

from autoscaler.model.resources import GPU, ResourceVector
from autoscaler.model.rollout import RolloutSpec
from autoscaler.model.workload import WorkloadKey
from rollouts import machine, quota
from rollouts.driver import Driver
from rollouts.machine import Step, step
from rollouts.observed import (
    Limits,
    Observed,
    ObservedHold,
    ObservedRevision,
    ObservedRoute,
    ObservedService,
    Situation,
)
from rollouts.planner import Asker
from rollouts.ports import OwnPorts
from rollouts.record import Bounds, Phase, Record
from rollouts.revision import Revision
from rollouts.verbs import Verb, VerbRequest

KEY = WorkloadKey("ml", "llama")
ASKER = Asker(KEY, "team", 0, 0.0)
PLACED_S, READY_S, GONE_S = 1.0, 5.0, 3.0  # how long pods take


def revision(letter: str) -> Revision:
    return Revision(f"llama-{letter * 8}", letter * 64, {"port": letter})


@dataclass
class Pod:
    name: str
    born_at: float
    gone_at: float | None = None  # it terminates until then


@dataclass
class Thing:
    """One revision's object and its pods."""

    replicas: int | None
    pods: list[Pod] = field(default_factory=list)
    epoch: int | None = None
    deleted_immediately: bool | None = None


class Cut(Exception):
    """The daemon died here."""


@dataclass
class World:
    asker: Asker = ASKER
    project: list[World] = field(default_factory=list)  # workloads that share the quota, itself included
    spec: RolloutSpec = field(default_factory=lambda: RolloutSpec(1, 8, steps=()))
    limits: Limits = field(default_factory=lambda: Limits(1))
    routed: bool = False
    now: float = 1000.0
    record: Record = field(default_factory=Record)
    template: Revision = field(default_factory=lambda: revision("a"))
    desired: int = 3
    requests: bool = True  # traffic flows
    gpus: dict[str, int] = field(default_factory=lambda: {"default": 12})  # a node pool that is not in it is unlimited
    foreign: int = 0  # GPUs of pods that are not ours, in every pool
    things: dict[str, Thing] = field(default_factory=dict)
    saved: set[str] = field(default_factory=set)
    holds: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    selects: dict[str, str] = field(default_factory=dict)
    weight: int = 0
    weight_since: float = 0.0
    missing: bool = False  # the route was deleted: nobody is sent anywhere by it
    foreign_route: bool = False  # somebody else applies its rules
    last_request: dict[str, float] = field(default_factory=dict)
    in_flight: dict[str, int] = field(default_factory=dict)
    uncounted: set[str] = field(default_factory=set)  # revisions whose engine shows nothing of its requests
    warmed: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)  # revisions whose pods never become ready
    unplaceable: set[str] = field(default_factory=set)  # node pools without a node
    denied: set[str] = field(default_factory=set)  # revisions whose pods a webhook denies
    per_replica: Mapping[str, ResourceVector] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    peaceful: bool = True  # no pod ever died, and nothing was seen late
    late_s: float = 0.0  # pods and their readiness are seen so late; our own writes are seen at once
    past: dict[str, list[tuple[float, ObservedRevision]]] = field(default_factory=dict)
    cut_at: int | None = None  # the nth call fails
    after_effect: bool = False
    calls: int = 0
    pod_count: int = 0
    most_live: int = 0

    # what happens by itself

    def pass_time(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self._settle()

    def _settle(self) -> None:
        for name, thing in self.things.items():
            thing.pods = [pod for pod in thing.pods if pod.gone_at is None or self.now < pod.gone_at]
            live = [pod for pod in thing.pods if pod.gone_at is None]
            wanted = thing.replicas or 0
            while len(live) < wanted and name not in self.denied:
                self.pod_count += 1
                live.append(Pod(f"{name}-{self.pod_count}", self.now))
                thing.pods.append(live[-1])
            for pod in live[wanted:]:
                pod.gone_at = self.now + (GONE_S if thing.deleted_immediately is not True else 1.0)
        self.things = {name: each for name, each in self.things.items() if each.replicas is not None or each.pods}
        self.past = {name: each for name, each in self.past.items() if name in self.things}
        if self.requests:
            for name, percent in self.traffic().items():
                if percent and self._ready(name):
                    self.last_request[name] = self.now

    def traffic(self) -> dict[str, int]:
        """Percent by revision, as a proxy sends it."""
        shares: dict[str, int] = {}
        if self.routed and self.missing:
            return {}
        parts = {"llama": 100 - self.weight, "llama-update": self.weight} if self.routed else {"llama": 100}
        for service, percent in parts.items():
            name = self.selects.get(service)
            if percent and name is not None:
                shares[name] = shares.get(name, 0) + percent
        return shares

    def _ready(self, name: str) -> list[Pod]:
        if name in self.broken or name not in self.things:
            return []
        placed = self._pool(name) not in self.unplaceable
        return [
            pod
            for pod in self.things[name].pods
            if pod.gone_at is None and self.now >= pod.born_at + READY_S and placed
        ]

    def _pool(self, name: str) -> str:
        return self.holds[name][0] if name in self.holds else "default"

    def kill(self, name: str, count: int = 1) -> None:
        """Ready pods vanish with their nodes and are replaced."""
        for pod in self._ready(name)[:count]:
            self.things[name].pods.remove(pod)
        self._settle()

    # what is seen of it

    def observed_revision(self, name: str) -> ObservedRevision:
        thing = self.things.get(name, Thing(None))
        ready = self._ready(name)
        names = frozenset(pod.name for pod in ready)
        live = [pod for pod in thing.pods if pod.gone_at is None]
        stuck = self._pool(name) in self.unplaceable
        return ObservedRevision(
            name,
            thing.replicas,
            ready=len(ready),
            starting=len(live) - len(ready),
            unscheduled=sum(1 for pod in live if stuck or self.now < pod.born_at + PLACED_S),
            terminating=len(thing.pods) - len(live),
            epoch=thing.epoch,
            warm=len(names & self.warmed),
            serving=names,
            in_flight=None if name in self.uncounted else self.in_flight.get(name, 0),
            last_request_at=None if name in self.uncounted else self.last_request.get(name),
            counted_at=None if name in self.uncounted else self.now,
        )

    def _late(self, name: str) -> ObservedRevision:
        """As it was `late_s` ago, but with what we wrote since."""
        fresh = self.observed_revision(name)
        past = self.past.setdefault(name, [])
        past.append((self.now, fresh))
        while len(past) > 1 and past[1][0] <= self.now - self.late_s:
            past.pop(0)
        old = past[0][1]
        pods = (old.ready, old.starting, old.terminating)
        settled = pods == (fresh.ready, fresh.starting, fresh.terminating)
        return replace(old, replicas=fresh.replicas, epoch=fresh.epoch, settled=settled)

    def service(self, name: str) -> ObservedService:
        selects = self.selects.get(name)
        ready = frozenset(pod.name for pod in self._ready(selects)) if selects else frozenset()
        return ObservedService(name, selects is not None, selects, ready)

    def look(self) -> Observed:
        current = self.record.current
        seen_of = self._late
        return Observed(
            newest=self.template,
            collision_count=0,
            saved=frozenset(self.saved),
            current=seen_of(current) if current else None,
            service=self.service("llama"),
            update_service=self.service("llama-update"),
            others=tuple(seen_of(name) for name in sorted(self.things) if name != current),
            route=self.route(),
            holds=tuple(ObservedHold(name, pool, dict(held)) for name, (pool, held) in sorted(self.holds.items())),
            per_replica=self._prices(),
            desired=self.desired,
        )

    def route(self) -> ObservedRoute | None:
        if not self.routed:
            return None
        if self.missing:
            return ObservedRoute(0, accepted=True, usable=False)
        return ObservedRoute(self.weight, self.now >= self.weight_since, usable=not self.foreign_route)

    def _limited(self, name: str) -> bool:
        """Is anything limited where the revision is, or in any of its pools where it is nowhere yet?"""
        places = {self.record.current: self.record.pool}
        if self.record.rollout is not None:
            places[self.record.rollout.revision] = self.record.rollout.pool
        places |= {each: pool for each, (pool, _) in self.holds.items()}
        pool = places.get(name)
        return bool(self.gpus.keys() & ({pool} if pool is not None else set(self.spec.node_pools)))

    def _prices(self) -> dict[str, ResourceVector]:
        known: dict[str, ResourceVector] = {f"llama-{letter * 8}": {GPU: 1000} for letter in "abcdef"}
        return {name: price if self._limited(name) else {} for name, price in (known | dict(self.per_replica)).items()}

    # one cycle

    def granted(self, seen: Observed) -> int:
        """What the allocation leaves of the current revision's growth: greedy, never below what is applied."""
        current = self.record.current or self.template.name
        bounds = self.record.bounds or Bounds(self.spec.min_replicas, self.spec.max_replicas)
        wanted = 0 if self.limits.stopped else min(bounds.most, max(bounds.least, self.desired))
        there = seen.of(current)
        pool = next((hold.pool for hold in seen.holds if hold.revision == current), self.spec.node_pools[0])
        if pool not in self.gpus:
            return wanted
        used = self.used(pool) - self.holds.get(current, (pool, {}))[1].get(GPU, 0)
        room = max(0, (self.gpus[pool] - self.foreign) * 1000 - used) // 1000
        return min(wanted, max(there.replicas or 0, room - there.terminating))

    def used(self, pool: str) -> int:
        """Thousandths of GPUs that the ledger of this pool holds."""
        everyone = [held for each in self.project or [self] for held in each.holds.values()]
        return sum(vector.get(GPU, 0) for where, vector in everyone if where == pool)

    def ledgers(self) -> dict[quota.Domain, quota.Ledger]:
        return {
            ("team", pool): quota.Ledger({GPU: gpus * 1000}, {GPU: self.foreign * 1000 + self.used(pool)})
            for pool, gpus in self.gpus.items()
        }

    def situation(self, seen: Observed) -> Situation:
        return Situation(self.limits, self.spec, seen, self.granted(seen), self.now)

    def asks(self, seen: Observed) -> quota.Ask | None:
        return machine.ask(self.situation(seen), self.record, self.asker)

    def decide(self, seen: Observed) -> Step:
        if seen.verdict is None and (ask := self.asks(seen)) is not None:
            seen = replace(seen, verdict=quota.share([ask], self.ledgers(), self.now)[ask.id])
        return step(self.situation(seen), self.record)

    def cycle(self, seen: Observed | None = None) -> Step:
        """One look, one step, carried out by the real driver. Raises Cut where it was cut off."""
        todo = self.decide(seen if seen is not None else self.look())
        assert (todo.broken, todo.noticed) == (None, None)
        self.steps.append(todo)
        own = OwnPorts(self, self, self, self, self, self)
        self._at_once(Driver(self, self, lambda _: True, own).run(self.record, todo))
        return todo

    @staticmethod
    def _at_once(work: Coroutine[None, None, None]) -> None:
        """Nothing in it really waits, so it needs no loop."""
        with contextlib.suppress(StopIteration):
            work.send(None)
            raise RuntimeError("a port of the imitated cluster waited")

    def run(self, seconds: float, until: Callable[[World], bool] = lambda _: False) -> World:
        for _ in range(math.ceil(seconds)):
            with contextlib.suppress(Cut):
                self.cycle()
            self.check()
            if until(self):
                return self
            self.pass_time(1.0)
        return self

    # the driver's ports

    def _call(self, effect: Callable[[], object]) -> None:
        self.calls += 1
        if self.calls == self.cut_at:
            if self.after_effect:
                effect()
            raise Cut
        effect()
        self._settle()
        self.check()

    async def save(self, thing: Record | Revision) -> None:
        if isinstance(thing, Record):
            self._call(lambda: setattr(self, "record", thing))
        else:
            self._call(lambda: self.saved.add(thing.name))

    async def stamp(self, revision: str, epoch: int) -> None:
        self._call(lambda: setattr(self.things[revision], "epoch", epoch))

    async def create(self, revision: str, replicas: int) -> None:
        def effect() -> None:
            thing = self.things.setdefault(revision, Thing(None))
            assert revision in self.saved, "no object without its content"
            thing.replicas, thing.deleted_immediately, thing.epoch = replicas, None, self.limits.epoch

        self._call(effect)

    async def scale(self, name: str, replicas: int, seen: int) -> None:
        assert self.things[name].replicas == seen, "nobody else writes here"
        self._call(lambda: setattr(self.things[name], "replicas", replicas))

    async def select(self, service: str, revision: str, exists: bool) -> None:
        self._call(lambda: self._moving(lambda: self.selects.__setitem__(service, revision)))

    def _moving(self, effect: Callable[[], object]) -> None:
        """Traffic moves. I1: what receives it afterwards has the capacity, where no pod died behind our back."""
        before = sum(len(self._ready(name)) for name, percent in self.traffic().items() if percent)
        effect()
        after = sum(len(self._ready(name)) for name, percent in self.traffic().items() if percent)
        back = self.record.rollout is None or self.record.rollout.phase not in (Phase.SHIFTING, Phase.DRAINING)
        assert after >= min(self.desired, before) or back or not self.peaceful, f"I1: {before} -> {after}"

    async def delete(self, revision: str, immediate: bool) -> None:
        def effect() -> None:
            if revision in self.things:
                assert self.traffic().get(revision, 0) == 0 or not self._ready(revision), "I5: it serves"
                self.things[revision].replicas = None
                self.things[revision].deleted_immediately = immediate

        self._call(effect)

    async def hold(self, revision: str, pool: str, vector: ResourceVector) -> None:
        if pool not in self.gpus:  # granted, and written nowhere
            self._call(lambda: self.holds.pop(revision, None))
            return
        before = self.holds.get(revision, (pool, {}))[1].get(GPU, 0)
        after = vector.get(GPU, 0)
        if self.used(pool) - before + after > (self.gpus[pool] - self.foreign) * 1000 and after > before:
            raise Cut  # as the API server refuses it
        self._call(lambda: self.holds.__setitem__(revision, (pool, dict(vector))))

    async def release(self, revision: str) -> None:
        self._call(lambda: self.holds.pop(revision, None))

    async def weigh(self, update_percent: int, seen: int | None) -> None:
        def effect() -> None:
            if update_percent > self.weight:
                name = self.selects["llama-update"]
                assert self._ready(name) or not self.peaceful, "I2: weight without a ready replica"
            self._moving(lambda: setattr(self, "weight", update_percent))
            self.weight_since = self.now + 1.0

        self._call(effect)

    async def warm_up(self, revision: str) -> None:
        self._call(lambda: self.warmed.update(pod.name for pod in self._ready(revision)))

    # the oracle

    def check(self) -> None:
        """I3, I4 and I6 of what is really there; I1, I2 and I5 are checked where traffic moves and objects go."""
        live = {name: each for name, each in self.things.items() if each.pods}
        self.most_live = max(self.most_live, len(live))
        assert len(live) <= 2, f"I4: pods of {sorted(live)}"
        for name, thing in live.items():
            held = self.holds.get(name, ("", {}))[1].get(GPU, 0)
            assert len(thing.pods) * 1000 <= held or not self._limited(name), f"I3: {name} {len(thing.pods)} > {held}"
        unknown = [name for name, each in self.things.items() if each.replicas and name not in self.record.names]
        assert not unknown, f"I6: {unknown}"

    # shortcuts

    def settled(self) -> bool:
        newest = self.template.name
        done = self.record.current == newest and self.record.rollout is None and not self.record.leaving
        return done and len(self._ready(newest)) >= self.desired

    def serving(self) -> World:
        """The first revision, ready and at rest."""
        self.run(60, World.settled)
        assert self.settled(), self.story()
        self.steps.clear()
        return self

    def edit(self, letter: str) -> World:
        self.template = revision(letter)
        return self

    def ask(self, verb: Verb, letter: str) -> World:
        name = revision(letter).name
        text = f"{verb.value} {name} {self.now}"
        self.limits = replace(self.limits, verb=VerbRequest(verb, name, text))
        return self

    def phase(self) -> Phase | None:
        return self.record.rollout.phase if self.record.rollout else None

    def until(self, phase: Phase, seconds: float = 400) -> World:
        self.run(seconds, lambda world: world.phase() is phase)
        assert self.phase() is phase, self.story()
        return self

    def live(self, letter: str) -> int:
        return len(self.things.get(revision(letter).name, Thing(None)).pods)

    def replicas(self, letter: str) -> int | None:
        return self.things.get(revision(letter).name, Thing(None)).replicas

    def held(self, letter: str) -> int:
        return self.holds.get(revision(letter).name, ("", {}))[1].get(GPU, 0) // 1000

    def story(self) -> str:
        last = self.steps[-1] if self.steps else None
        return f"{self.record}\n{last}\n{self.holds}\n{self.things}\n{self.selects} {self.weight}"
