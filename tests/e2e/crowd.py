"""Clients that ask all the time, in a thread of their own, while a test does something to what they ask.

    with Crowd(RouteAsked(route)) as crowd:
        crowd.streams(100, tokens=600)       # so many at any time: who has finished begins anew
        crowd.short(200)                     # so many requests a second
        ...
    print(crowd.told())

Real clients of real sockets. Two ways to an answer: through the real Envoy, by the host that the route is for; or to
the pods of a Service, whose imitated kube-proxy is described at `ServiceAsked`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Protocol, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.realcluster.cluster import Cluster
from tests.realcluster.errors import WaitError
from tests.realcluster.gateway_clients import LONGEST_S, Began, Visit, visit
from tests.realcluster.gateway_routes import Route

LOOK_S: Final = 0.05  # between two looks at EndpointSlices; kube-proxy follows a watch
PARALLEL: Final = 400
FIRST_WITHIN_S: Final = 30.0
_SEED: Final = 7


class Asked(Protocol):
    """Where requests go."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ask(self, tokens: int, stream: bool, began: Began | None = None) -> Visit:
        """One request; every outcome is a value."""


class RouteAsked:
    """Through the real Envoy, over connections that are kept."""

    def __init__(self, route: Route) -> None:
        self._url = f"{route.gateway.url}/v1/completions"
        self._headers = {"Host": route.host}

    async def open(self) -> None:
        self._session = _session(keep=True)

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, tokens: int, stream: bool, began: Began | None = None) -> Visit:
        return await visit(self._session, self._url, self._headers, tokens=tokens, stream=stream, began=began)


class ServiceAsked:
    """To the ready pods of a Service, by its EndpointSlices.

    Imitated: kube-proxy and the cluster's DNS, of which there are none here. As with kube-proxy every new connection
    goes to one of the ready endpoints at random, and one that is open stays with its pod whatever the Service selects
    by then. `keep`: connections are kept, as most clients do; else every request has its own. Not as in a cluster: the
    slices are looked at every 50 ms, where kube-proxy follows a watch and then writes rules for as long as it takes.
    """

    def __init__(self, cluster: Cluster, namespace: str, service: str, keep: bool) -> None:
        self._url = f"http://{service}.{namespace}.svc/v1/completions"
        self._proxy = _ImitatedProxy(cluster, namespace, service)
        self._keep = keep

    async def open(self) -> None:
        await self._proxy.look()
        self._looking = asyncio.create_task(self._proxy.follow())
        self._session = _session(self._keep, self._proxy)

    async def close(self) -> None:
        self._looking.cancel()
        await asyncio.wait({self._looking})
        await self._session.close()

    async def ask(self, tokens: int, stream: bool, began: Began | None = None) -> Visit:
        return await visit(self._session, self._url, {}, tokens=tokens, stream=stream, began=began)


class _ImitatedProxy(AbstractResolver):
    """Where a new connection to the Service goes."""

    def __init__(self, cluster: Cluster, namespace: str, service: str) -> None:
        label = f"kubernetes.io/service-name={service}"
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={label}"
        self._cluster = cluster
        self._endpoints: list[tuple[str, int]] = []
        self._random = random.Random(_SEED)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not self._endpoints:
            raise OSError(f"{host} has no endpoint")
        address, its_port = self._random.choice(self._endpoints)
        found = ResolveResult(hostname=host, host=address, port=its_port, family=socket.AF_INET, proto=0, flags=0)
        return [found]

    async def close(self) -> None:
        """Nothing is open."""

    async def follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        slices = (await asyncio.to_thread(self._cluster.get, self._path))["items"]
        self._endpoints = sorted(
            (address, port["port"])
            for each in slices
            for endpoint in each.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
            for port in each.get("ports") or ()
        )


def revision_of(pod: str) -> str:
    """Of a Deployment's pod."""
    return pod.rsplit("-", 2)[0]


def _session(keep: bool, proxy: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """`proxy` is asked for every new connection."""
    kept_s = LONGEST_S if keep else None
    connector = aiohttp.TCPConnector(
        limit=PARALLEL, force_close=not keep, keepalive_timeout=kept_s, resolver=proxy, use_dns_cache=proxy is None
    )
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=LONGEST_S))


class Crowd:
    """Clients of one thing that is asked. Leaving the `with` statement ends them: what is under way is finished."""

    def __init__(self, asked: Asked) -> None:
        self.visits: list[Visit] = []  # finished ones, in the order of their ends
        self._asked = asked
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="crowd", daemon=True)
        self._clients: set[asyncio.Task[None]] = set()
        self._ending = False
        self._streaming = True
        self._open = Counter[str]()  # streams that have begun, by pod

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._asked.open())
        self._do(self._answered())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._finish(cancel=kind is not None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def no_more_streams(self) -> None:
        """Those that are under way go on; all else does."""
        self._streaming = False

    def streams(self, number: int, tokens: int, over_s: float = 0.0) -> None:
        """So many streams at any time; they begin spread over this time."""
        self._do(self._begin(self._streamer(tokens, over_s * at / number) for at in range(number)))

    def held(self, number: int, tokens: int) -> None:
        """So many requests that are no streams in flight at any time."""
        self._do(self._begin(self._holder(tokens) for _ in range(number)))

    def short(self, per_s: float) -> None:
        """So many short requests a second, whatever becomes of those before."""
        self._do(self._begin([self._opener(per_s)]))

    def streaming(self, revision: str) -> int:
        """Streams that are under way at its pods."""
        return sum(number for pod, number in dict(self._open).items() if revision_of(pod) == revision)

    def since(self, at_s: float) -> list[Visit]:
        """Those that began at this instant (Unix seconds) or later, and have ended."""
        return [each for each in self.visits if each.at_s >= at_s]

    def told(self, visits: list[Visit] | None = None) -> str:
        """How many were good and what the others saw."""
        visits = self.visits if visits is None else visits
        bad = Counter(f"{each.status} {each.said}".strip() for each in visits if not each.good)
        longest = max((each.took_s for each in visits), default=0.0)
        return f"{len(visits)} requests, the longest {longest:.1f} s, {sum(bad.values())} bad {dict(bad) or ''}".strip()

    def bad(self) -> list[Visit]:
        return [each for each in self.visits if not each.good]

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(LONGEST_S + 30)

    async def _answered(self) -> None:
        """Returns with the first good answer, which does not count: a route takes effect a little after its status."""
        deadline = time.monotonic() + FIRST_WITHIN_S
        while not (seen := await self._asked.ask(1, stream=False)).good:
            if time.monotonic() >= deadline:
                raise WaitError(f"waited {FIRST_WITHIN_S:g} s for a first answer; last seen: {seen}")
            await asyncio.sleep(0.05)

    async def _begin(self, clients: Any) -> None:
        self._clients |= {asyncio.create_task(each) for each in clients}

    async def _finish(self, cancel: bool) -> None:
        self._ending = True
        if cancel:
            for each in self._clients:
                each.cancel()
        if self._clients:
            await asyncio.wait(self._clients)
        await self._asked.close()

    async def _streamer(self, tokens: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while self._streaming and not self._ending:
            pods: list[str] = []

            def began(pod: str, pods: list[str] = pods) -> None:
                pods.append(pod)
                self._open[pod] += 1

            self._note(await self._asked.ask(tokens, stream=True, began=began))
            self._open.subtract(pods)

    async def _holder(self, tokens: int) -> None:
        while not self._ending:
            self._note(await self._asked.ask(tokens, stream=False))

    def _note(self, seen: Visit) -> None:
        self.visits.append(seen)

    async def _opener(self, per_s: float) -> None:
        """Evenly spaced; where the loop was late, it catches up."""
        began, sent, running = time.monotonic(), 0, set[asyncio.Task[None]]()
        while not self._ending:
            due = int((time.monotonic() - began) * per_s)
            for _ in range(due - sent):
                task = asyncio.create_task(self._one())
                running.add(task)
                task.add_done_callback(running.discard)
            sent = max(sent, due)
            await asyncio.sleep(0.02)
        if running:
            await asyncio.wait(running)

    async def _one(self) -> None:
        self._note(await self._asked.ask(1, stream=False))
