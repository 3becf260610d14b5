"""Sends a new revision's warm-up requests to each of its ready pods, and says how many have answered them all.

A pod that fails is asked again until nobody wants it any more: when to give up is the progress deadline's business. An
answer comes from somebody who is not trusted, as a page does: nothing of it is kept but its status.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import structlog

from autoscaler.model.rollout import WarmUpSpec
from autoscaler.model.workload import Protocol, RevisionKey
from autoscaler.signals.faults import Fault, http_fault
from autoscaler.signals.fetch import fault_of, plain_session
from autoscaler.signals.targets import PodAddress, pod_url

REQUEST_WITHIN_S: Final = (
    120.0  # a 70B model needs 30 to 60 s for its very first one (vllm#19824), and twice that is given
)
MOST_ANSWER_BYTES: Final = 1024 * 1024  # of which none is kept; what comes after it is not waited for
MOST_AT_ONCE: Final = 64  # requests, of all revisions
MOST_OF_ONE: Final = 16  # of one revision, so that one that hangs leaves room for others
RETRY_FIRST_S: Final = 1.0  # doubled with each failure in a row
RETRY_MOST_S: Final = 30.0
# A pod's page shows its last warm-up request late: pages are up to one and a half periods apart. If the pod counted as
# warm before that, it could have its weight by then, and the page would look as if the weight had brought a request.
SHOWN_AFTER_S: Final = 1.5
ONLY_HTTP: Final = "warm-up requests are HTTP, the workload serves another protocol"

log = structlog.get_logger()


@dataclass(slots=True)
class _Job:
    """One pod's requests."""

    pod: PodAddress
    answered: int = 0
    answered_at: float | None = None  # all of them
    failures: int = 0  # in all
    in_a_row: int = 0
    fault: str | None = None  # of the newest attempt
    task: asyncio.Task[None] | None = None  # None: `run` has yet to begin it

    def end(self) -> None:
        if self.task is not None:
            self.task.cancel()


@dataclass(slots=True)
class _Wave:
    """One revision's."""

    port: int
    protocol: Protocol
    spec: WarmUpSpec
    jobs: dict[str, _Job] = field(default_factory=dict)  # by the pod's uid
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_OF_ONE))

    def asks_as(self, other: _Wave) -> bool:
        return (self.port, self.protocol, self.spec) == (other.port, other.protocol, other.spec)

    def end(self) -> None:
        for job in self.jobs.values():
            job.end()


class WarmUps:
    """The warm-up requests of all revisions. Lives as long as the daemon; `clock` gives Unix seconds."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        timeout_s: float = REQUEST_WITHIN_S,
        retry_first_s: float = RETRY_FIRST_S,
        shown_after_s: float = SHOWN_AFTER_S,
    ) -> None:
        self.answers_total: Counter[str] = Counter()  # by "ok" or the reason
        self._clock = clock
        self._timeout_s = timeout_s
        self._retry_first_s = retry_first_s
        self._shown_after_s = shown_after_s
        self._waves: dict[RevisionKey, _Wave] = {}
        self._free = asyncio.Semaphore(MOST_AT_ONCE)
        self._new = asyncio.Event()

    def begin(
        self, key: RevisionKey, port: int, protocol: Protocol, spec: WarmUpSpec, pods: Collection[PodAddress]
    ) -> None:
        """Exactly these pods are to be warm; returns at once. What a pod has answered counts as long as it is named.

        Harmless to repeat. Other requests than before (path, body, number, port) begin anew.
        """
        wave, before = _Wave(port, protocol, spec), self._waves.get(key)
        if before is not None and before.asks_as(wave):
            wave = before
        elif before is not None:
            before.end()
        self._waves[key] = wave
        for uid in wave.jobs.keys() - {pod.uid for pod in pods}:
            wave.jobs.pop(uid).end()
        for pod in pods:
            wave.jobs.setdefault(pod.uid, _Job(pod)).pod = pod
        self._new.set()

    def warm(self, key: RevisionKey, pods: Collection[PodAddress]) -> int:
        """How many of these pods have answered all their requests with 2xx, and had time to show it on their pages."""
        wave, shown_at = self._waves.get(key), self._clock() - self._shown_after_s
        jobs = [wave.jobs.get(pod.uid) for pod in pods] if wave is not None else []
        return sum(1 for job in jobs if job and job.answered_at is not None and job.answered_at <= shown_at)

    def trouble(self, key: RevisionKey) -> str | None:
        """What the newest attempt of a pod that is not warm failed with; of several pods the one that failed most."""
        wave = self._waves.get(key)
        failing = [job for job in wave.jobs.values() if job.fault is not None] if wave is not None else []
        if not failing:
            return None
        worst = min(failing, key=lambda job: (-job.failures, job.pod.name))
        return f"warm-up of pod {worst.pod.name} failed {worst.failures} times, last with: {worst.fault}"

    def forget_all_but(self, keys: Collection[RevisionKey]) -> None:
        """Nobody waits for the others any more."""
        for key in self._waves.keys() - set(keys):
            self._waves.pop(key).end()

    async def run(self) -> None:
        """Send until cancelled. May be called again: what was answered stays answered."""
        session = plain_session({"Accept": "*/*"}, keep_alive=False)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._new.clear()
                    for wave in self._waves.values():
                        for job in wave.jobs.values():
                            if job.task is None and job.answered_at is None:
                                job.task = group.create_task(self._warm(session, wave, job))
                    await self._new.wait()
        finally:
            for wave in self._waves.values():
                for job in wave.jobs.values():
                    job.task = None
            await session.close()

    async def _warm(self, session: aiohttp.ClientSession, wave: _Wave, job: _Job) -> None:
        """Until all of one pod's requests are answered."""
        while job.answered < wave.spec.requests:
            async with wave.free, self._free:
                job.fault = await self._ask(session, wave, job.pod)
            self.answers_total[job.fault or "ok"] += 1
            if job.fault is None:
                job.answered, job.in_a_row = job.answered + 1, 0
                continue
            job.failures, job.in_a_row = job.failures + 1, job.in_a_row + 1
            await asyncio.sleep(min(RETRY_MOST_S, self._retry_first_s * 2.0 ** min(job.in_a_row - 1, 10)))
        job.answered_at = self._clock()

    async def _ask(self, session: aiohttp.ClientSession, wave: _Wave, pod: PodAddress) -> str | None:
        """One request; None where it was answered with 2xx, else why not."""
        try:
            return await self._asked(session, wave, pod)
        except TimeoutError:
            return Fault.TIME_OUT
        except (aiohttp.ClientError, ValueError, OSError) as error:
            return fault_of(error)
        except Exception:  # whatever an answer holds must not end the daemon
            log.exception("warm_up.not_read", pod=pod.name)
            return Fault.UNREADABLE

    async def _asked(self, session: aiohttp.ClientSession, wave: _Wave, pod: PodAddress) -> str | None:
        if wave.protocol is not Protocol.HTTP:
            return ONLY_HTTP
        url = pod_url(pod, wave.port, wave.spec.path)
        if url is None:
            return Fault.BAD_ADDRESS
        body = wave.spec.body
        method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": "application/json"})
        limit = aiohttp.ClientTimeout(total=None, sock_connect=min(10.0, self._timeout_s))
        async with (
            asyncio.timeout(self._timeout_s),
            session.request(method, url, data=body, headers=headers, allow_redirects=False, timeout=limit) as response,
        ):
            if not 200 <= response.status < 300:
                response.close()  # an endless error page is not drained either
                return http_fault(response.status)
            size = 0
            async for chunk in response.content.iter_any():  # the answer ends when the model has done its work
                size += len(chunk)
                if size > MOST_ANSWER_BYTES:
                    break
            response.close()
            return None
