"""Events wait for an API server that is away, and wait for nothing else; in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from autoscaler.cluster.client import JSON
from autoscaler.cluster.errors import ApiError, Conflict, Denied, NotLeading, Refused, TooManyRequests, Unreachable
from autoscaler.cluster.events import KEPT_MOST_S, QUEUE_MOST, EventWriter
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.resources import Metadata
from autoscaler.model.report import EventReport
from tests import virtual_time

AWAY = Unreachable("refused")


@dataclass
class Server:
    """Takes events, or fails each try with what `fault` says; `tries` holds when and what."""

    fault: Callable[[dict[str, Any]], ApiError | None] = lambda body: None
    takes_s: float = 0.0
    tries: list[tuple[float, str]] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
    ) -> bytes:
        self.tries.append((asyncio.get_running_loop().time(), body["note"]))
        await asyncio.sleep(self.takes_s)
        error = self.fault(body)
        if error is not None:
            raise error
        self.written.append(body["note"])
        return b""

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        yield b""

    @property
    def gaps_s(self) -> list[float]:
        at = [at_s for at_s, _ in self.tries]
        return [later - earlier for earlier, later in itertools.pairwise(at)]


class Scene:
    def __init__(self) -> None:
        self.server = Server()
        self.writer = EventWriter(self.server, "pod-0")

    def emit(self, *notes: str, namespace: str = "n") -> None:
        workload = InferenceWorkload(metadata=Metadata(name="llama", namespace=namespace, uid="u"))
        for note in notes:
            self.writer.emit(workload, EventReport("Paused", note), 1_700_000_000.0)


def play(scene: Callable[[Scene], Coroutine[Any, Any, None]]) -> list[MutableMapping[str, Any]]:
    """The log."""

    async def main() -> None:
        own = Scene()
        async with asyncio.timeout(7200), asyncio.TaskGroup() as group:
            running = group.create_task(own.writer.run())
            await scene(own)
            running.cancel()

    with capture_logs() as lines:
        virtual_time.run(main())
    return lines


def test_events_are_written_at_once_and_in_order() -> None:
    async def scene(own: Scene) -> None:
        own.emit("a", "b", "c")
        await asyncio.sleep(0.01)
        assert own.server.written == ["a", "b", "c"]
        own.emit("d")
        await own.writer.flush()
        assert (own.server.written[-1], own.writer.queued, own.writer.dropped) == ("d", 0, 0)
        await asyncio.sleep(3600)
        assert len(own.server.tries) == 4

    assert play(scene) == []


@pytest.mark.parametrize("error", [AWAY, NotLeading("not sent"), TooManyRequests("busy", 1.0)])
def test_an_outage_loses_nothing_says_nothing_and_is_asked_later_and_later(error: ApiError) -> None:
    async def scene(own: Scene) -> None:
        own.server.fault = lambda body: error
        notes = [str(number) for number in range(50)]
        own.emit(*notes)
        await asyncio.sleep(400)
        assert own.writer.queued == 50
        for number, gap_s in enumerate(own.server.gaps_s):
            wait_s = min(30.0, 2.0**number)
            assert wait_s * 0.5 <= gap_s <= wait_s * 1.5
        own.server.fault = lambda body: None
        await asyncio.sleep(45)
        assert sorted(own.server.written) == sorted(notes)
        assert (own.writer.queued, own.writer.dropped) == (0, 0)

    assert play(scene) == []


def test_an_outage_that_is_over_leaves_no_trace() -> None:
    async def scene(own: Scene) -> None:
        own.server.fault = lambda body: AWAY
        own.emit("a")
        await asyncio.sleep(100)
        own.server.fault = lambda body: None
        await asyncio.sleep(45)
        own.emit("b")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert own.server.written == ["a", "b"]
        own.server.fault = lambda body: AWAY
        own.emit("c")
        await asyncio.sleep(2)
        own.server.fault = lambda body: None
        await asyncio.sleep(6)  # the third wait begins within 2 s and takes at most 6
        assert own.server.written == ["a", "b", "c"], "the next outage begins with short waits"

    assert play(scene) == []


def test_the_server_is_not_asked_before_it_wants_to_be_and_not_hours_later_either() -> None:
    async def scene(own: Scene) -> None:
        told_s = iter((20.0, 100_000.0))
        own.server.fault = lambda body: TooManyRequests("busy", next(told_s))
        own.emit("a")
        await asyncio.sleep(79)
        assert own.server.gaps_s == [pytest.approx(20.0)]
        own.server.fault = lambda body: None
        await asyncio.sleep(2)
        assert own.server.written == ["a"]

    play(scene)


def test_what_stays_away_for_too_long_is_given_up_with_one_warning_for_all() -> None:
    async def scene(own: Scene) -> None:
        own.server.fault = lambda body: AWAY
        own.emit("a", "b", "c")
        await asyncio.sleep(KEPT_MOST_S - 50)
        own.emit("young")
        assert own.writer.dropped == 0
        await asyncio.sleep(100)
        assert (own.writer.queued, own.writer.dropped) == (1, 3)
        own.server.fault = lambda body: None
        await asyncio.sleep(45)
        assert own.server.written == ["young"]
        assert len(own.server.gaps_s) < 50, "those given up cost no tries"

    (line,) = play(scene)
    assert (line["event"], line["log_level"], line["error"]) == ("event.not_written", "warning", "refused")


@pytest.mark.parametrize("error", [Denied("no right", 403), Refused("too long", 422)])
def test_what_will_never_be_taken_is_given_up_at_once_and_warned_of_once(error: ApiError) -> None:
    async def scene(own: Scene) -> None:
        own.server.fault = lambda body: error if body["note"] != "good" else None
        own.emit("a", "b", "c")
        await asyncio.sleep(0.01)
        assert (own.writer.queued, own.writer.dropped, len(own.server.tries)) == (0, 3, 3)
        own.emit("good", "d")
        await asyncio.sleep(0.01)
        assert own.server.written == ["good"]

    assert [line["event"] for line in play(scene)] == ["event.not_written"] * 2


def test_a_conflict_says_that_an_earlier_try_arrived() -> None:
    async def scene(own: Scene) -> None:
        answers = iter((AWAY, Conflict("exists", 409)))
        own.server.fault = lambda body: next(answers)
        own.emit("a")
        await own.writer.flush()
        assert (len(own.server.tries), own.writer.dropped) == (2, 0)

    assert play(scene) == []


def test_one_that_fails_does_not_hold_up_the_others() -> None:
    async def scene(own: Scene) -> None:
        own.server.fault = lambda body: AWAY if body["note"].startswith("bad") else None
        own.emit("bad", "a", "b")
        await asyncio.sleep(2)
        assert own.server.written == ["a", "b"]
        own.emit("c")
        await asyncio.sleep(31)
        assert own.server.written == ["a", "b", "c"]

    assert play(scene) == []


def test_a_full_queue_drops_the_newest_and_an_outage_does_not_make_it_longer() -> None:
    async def scene(own: Scene) -> None:
        own.server.fault = lambda body: AWAY
        own.emit(*(str(number) for number in range(QUEUE_MOST + 5)))
        await asyncio.sleep(60)
        own.emit("late")
        assert (own.writer.queued, own.writer.dropped) == (QUEUE_MOST, 6)
        own.server.fault = lambda body: None
        await own.writer.flush()
        assert sorted(map(int, own.server.written)) == list(range(QUEUE_MOST))

    assert play(scene) == []


def test_a_flush_does_not_wait_for_the_back_off() -> None:
    async def scene(own: Scene) -> None:
        loop = asyncio.get_running_loop()
        own.server.fault = lambda body: AWAY
        own.emit("a", "b")
        await asyncio.sleep(300)
        own.server.fault = lambda body: None
        began = loop.time()
        await own.writer.flush()
        assert (loop.time(), own.writer.queued) == (began, 0)

    play(scene)


def test_a_flush_that_comes_while_a_try_is_under_way_is_not_forgotten() -> None:
    async def scene(own: Scene) -> None:
        loop = asyncio.get_running_loop()
        own.server.takes_s = 0.2
        own.server.fault = lambda body: AWAY if len(own.server.tries) == 1 else None
        own.emit("a")
        await asyncio.sleep(0.1)
        await own.writer.flush()
        assert loop.time() == pytest.approx(0.4), "the try under way, and one more at once"

    play(scene)
