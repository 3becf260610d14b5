"""The end of an outage: who waits is woken, and a server that has just come back is not run over; in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from autoscaler.cluster import resources
from autoscaler.cluster.client import JSON
from autoscaler.cluster.errors import ApiError, ServerError, TooManyRequests, Unreachable
from autoscaler.cluster.lease import Election, Terms
from autoscaler.cluster.resources import Pod
from autoscaler.cluster.watch import WOKEN_PER_S, Outages, Selection, Watched
from tests import virtual_time


@dataclass
class Server:
    """Empty lists, watches that stay open and bring nothing, one Lease; or an error to everything."""

    error: ApiError | None = None
    lease_error: ApiError | None = None  # to the Lease alone
    answers_after_s: float = 0.0
    cut: asyncio.Event = field(default_factory=asyncio.Event)  # replaced each time it is set
    asked_at: list[float] = field(default_factory=list)  # for a watch
    opened_at: list[float] = field(default_factory=list)
    version: int = 0
    spec: dict[str, object] = field(default_factory=dict)

    def fail(self, error: ApiError) -> None:
        self.error = error
        self.cut.set()
        self.cut = asyncio.Event()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        error = self.error or (self.lease_error if "leases" in path else None)
        await asyncio.sleep(self.answers_after_s)
        if error is not None:
            raise error
        if "leases" not in path:
            return json.dumps({"metadata": {"resourceVersion": "7"}, "items": []}).encode()
        if isinstance(body, dict):
            self.version += 1
            self.spec |= body["spec"]
        return json.dumps({"metadata": {"name": "l", "resourceVersion": str(self.version)}, "spec": self.spec}).encode()

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        error = self.error
        self.asked_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.answers_after_s)
        if error is not None:
            raise error
        self.opened_at.append(asyncio.get_running_loop().time())
        yield b""
        await self.cut.wait()
        raise Unreachable("cut")


class Scene:
    """So many copies of one server and, if wanted, an election."""

    def __init__(self, copies: int, election: bool = True) -> None:
        self.server = Server()
        self.outages = Outages(asyncio.get_running_loop().time)
        self.copies = [
            Watched(
                self.server,
                Selection(resources.PODS, f"n{number}"),
                Pod,
                lambda: None,
                outages=self.outages,
                clock=asyncio.get_running_loop().time,
            )
            for number in range(copies)
        ]
        self.election = Election(
            self.server,
            Terms("ns", "l", "a"),
            lambda: True,
            lambda: 0,
            lambda: None,
            asyncio.get_running_loop().time,
            self.outages,
        )
        runs = [copy.run() for copy in self.copies] + ([self.election.run()] if election else [])
        self._tasks = [asyncio.create_task(run) for run in runs]

    async def fail(self, error: ApiError, seconds: float) -> float:
        """The end of the outage."""
        await asyncio.sleep(10)
        self.server.fail(error)
        await asyncio.sleep(seconds)
        self.server.error = None
        self.server.opened_at.clear()
        return asyncio.get_running_loop().time()

    async def back_after_s(self, ended_at: float) -> list[float]:
        await asyncio.sleep(60)
        return [at - ended_at for at in self.server.opened_at]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def after_an_outage(copies: int, error: ApiError, seconds: float, election: bool = True) -> list[float]:
    """When each watch was open again, in seconds after the end of the outage."""

    async def main() -> list[float]:
        scene = Scene(copies, election)
        back = await scene.back_after_s(await scene.fail(error, seconds))
        await scene.stop()
        return back

    return virtual_time.run(main())


@pytest.mark.parametrize("error", [Unreachable("refused"), ServerError("no", 503), TooManyRequests("busy", 1.0)])
@pytest.mark.parametrize("seconds", [20, 60, 600])
def test_the_copies_are_back_seconds_after_the_server_is(error: ApiError, seconds: float) -> None:
    back = after_an_outage(6, error, seconds)
    assert len(back) == 6
    assert max(back) < 4.5, "the Lease is tried every 2.4 s at most; 429 asks for 1.25 s more"


def test_nobody_is_woken_before_the_server_wants_to_be_asked() -> None:
    async def main() -> None:
        scene = Scene(1)
        await scene.back_after_s(await scene.fail(TooManyRequests("busy", 20.0), 65))
        _, *told_s = [later - earlier for earlier, later in itertools.pairwise(scene.server.asked_at)]
        assert len(told_s) >= 3
        assert min(told_s) >= 20.0
        await scene.stop()

    virtual_time.run(main())


def test_a_copy_follows_from_a_second_after_its_watch_is_open_until_it_fails() -> None:
    async def main() -> None:
        scene = Scene(1)
        (copy,) = scene.copies
        assert not copy.follows
        await asyncio.sleep(0.9)
        assert (copy.synced.is_set(), copy.follows) == (True, False)
        await asyncio.sleep(0.2)
        assert copy.follows
        await scene.fail(Unreachable("refused"), 60)
        assert not copy.follows
        while not scene.server.opened_at:  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.01)
        assert not copy.follows, "the watch is open, and what it has to tell is on its way"
        await asyncio.sleep(1.1)
        assert copy.follows
        await scene.stop()

    virtual_time.run(main())


def test_without_the_lease_they_wait_for_up_to_45_s() -> None:
    assert max(after_an_outage(50, Unreachable("refused"), 600, election=False)) > 20


def test_a_server_that_is_just_back_meets_so_many_watches_a_second_and_no_more() -> None:
    back = after_an_outage(1_000, Unreachable("refused"), 100)
    assert len(back) == 1_000
    assert max(back) < 2.4 + 1_000 / WOKEN_PER_S + 0.5
    assert max(Counter(int(each * 2) for each in back).values()) < WOKEN_PER_S


def test_an_attempt_that_was_under_way_when_the_server_came_back_is_made_again_at_once() -> None:
    async def main() -> None:
        scene = Scene(20)
        await asyncio.sleep(10)
        scene.server.fail(Unreachable("refused"))
        await asyncio.sleep(300)
        scene.server.answers_after_s = 30.0  # swallowed: each attempt that begins now fails in 30 s
        await asyncio.sleep(25)
        scene.server.answers_after_s, scene.server.error = 0.0, None
        scene.server.opened_at.clear()
        await asyncio.sleep(35)
        assert len(scene.server.opened_at) == 20
        await scene.stop()

    virtual_time.run(main())


def test_a_server_that_fails_again_right_after_it_came_back_is_asked_soon() -> None:
    async def main() -> None:
        scene = Scene(20)
        await scene.fail(Unreachable("refused"), 600)
        while not scene.server.opened_at:  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.01)
        scene.server.fail(ServerError("starting", 503))
        await asyncio.sleep(1)
        scene.server.error = None
        scene.server.opened_at.clear()
        await asyncio.sleep(4)
        assert len(scene.server.opened_at) == 20
        await scene.stop()

    virtual_time.run(main())


def test_whose_own_time_comes_before_its_turn_was_woken_too() -> None:
    """Its next attempt may fail once more, and then it must not wait as long as in the outage."""

    async def main() -> None:
        outages = Outages(asyncio.get_running_loop().time)
        waits = [asyncio.create_task(outages.wait(outages.answers, 0.0, 1.0)) for _ in range(100)]
        await asyncio.sleep(0.9)
        outages.wake()  # turns of up to 0.5 s
        assert await asyncio.gather(*waits) == [True] * 100
        assert not await outages.wait(outages.answers, 0.0, 1.0)

    virtual_time.run(main())


@pytest.mark.parametrize("error", [Unreachable("refused"), ServerError("no", 503), TooManyRequests("busy", 1.0)])
def test_an_outage_is_one_line_and_its_end_is_one(error: ApiError) -> None:
    with capture_logs() as lines:
        after_an_outage(6, error, 60)
    told = [(line["event"], line["log_level"]) for line in lines if line["event"] != "leader.elected"]
    assert told == [("watch.failed", "warning"), ("watch.recovered", "info")]
    assert [line["epoch"] for line in lines if line["event"] == "leader.elected"] == [1, 2]


def test_where_the_watches_stay_open_the_lease_tells_of_the_outage() -> None:
    async def main() -> None:
        scene = Scene(6)
        await asyncio.sleep(10)
        scene.server.lease_error = ServerError("no", 503)
        await asyncio.sleep(20)
        scene.server.lease_error = None
        await asyncio.sleep(5)
        await scene.stop()

    with capture_logs() as lines:
        virtual_time.run(main())
    told = [(line["event"], line.get("kind")) for line in lines]
    assert told == [
        ("leader.elected", None),
        ("watch.failed", "Lease"),
        ("leader.elected", None),
        ("watch.recovered", "Lease"),
    ]


def test_a_server_that_takes_three_seconds_to_answer_can_be_led_on() -> None:
    async def main() -> None:
        scene = Scene(0)
        scene.server.answers_after_s = 3.0
        await asyncio.sleep(10)
        assert scene.election.epoch == 1
        scene.server.version += 1  # as if an earlier renewal had arrived late: it reads before it renews
        for _ in range(300):
            await asyncio.sleep(1)
            assert scene.election.epoch == 1
        await scene.stop()

    with capture_logs() as lines:
        virtual_time.run(main())
    assert [line["event"] for line in lines] == ["leader.elected"]
