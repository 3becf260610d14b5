"""Writes end with the tenure, also those that wait or are under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from autoscaler.cluster.client import JSON
from autoscaler.cluster.errors import NotLeading, Unreachable
from autoscaler.cluster.fencing import EPOCH_ANNOTATION, FencedApi, epoch_of
from autoscaler.cluster.pacing import WriteBudget
from autoscaler.cluster.resources import Metadata
from tests import virtual_time


class Slow:
    """An API server that takes its time; notes what reached it and what was answered."""

    def __init__(self, takes_s: float) -> None:
        self._takes_s = takes_s
        self.asked: list[str] = []
        self.answered: list[str] = []

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        self.asked.append(method)
        await asyncio.sleep(self._takes_s)
        self.answered.append(method)
        return b""

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        yield b"line"


def fenced(api: Slow, ends_at: float, per_s: float = 1000.0) -> FencedApi:
    loop = asyncio.get_running_loop()
    return FencedApi(api, WriteBudget(per_s), lambda: ends_at - loop.time())


def test_a_write_is_not_sent_after_the_end_and_a_read_is() -> None:
    async def main() -> None:
        api = Slow(0.0)
        door = fenced(api, ends_at=5.0)
        await door.call("PATCH", "/x")
        await asyncio.sleep(5)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            with pytest.raises(NotLeading):
                await door.call(method, "/x")
        await door.call("GET", "/x")
        assert api.asked == ["PATCH", "GET"]
        assert [block async for block in door.stream("/x", {}, 1.0)] == [b"line"]

    virtual_time.run(main())


def test_a_write_that_waited_for_the_budget_beyond_the_end_is_not_sent() -> None:
    async def main() -> None:
        api = Slow(0.0)
        await asyncio.sleep(100)
        door = fenced(api, ends_at=100.5, per_s=1.0)
        await door.call("PATCH", "/x")
        with pytest.raises(NotLeading):
            await door.call("PATCH", "/x")
        assert asyncio.get_running_loop().time() == pytest.approx(101.0)
        assert api.asked == ["PATCH"]

    virtual_time.run(main())


def test_a_write_under_way_is_given_up_at_the_end_and_its_outcome_is_unknown() -> None:
    async def main() -> None:
        api = Slow(60.0)
        with pytest.raises(Unreachable):
            await fenced(api, ends_at=5.0).call("PATCH", "/x")
        assert asyncio.get_running_loop().time() == pytest.approx(5.0)
        assert (api.asked, api.answered) == (["PATCH"], [])

    virtual_time.run(main())


def test_a_renewal_gives_a_write_under_way_more_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        api = Slow(12.0)
        door = FencedApi(api, WriteBudget(1000.0), lambda: (loop.time() // 2) * 2 + 10 - loop.time())
        await door.call("PATCH", "/x")
        assert api.answered == ["PATCH"]

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("annotations", "epoch"),
    [
        (None, None),
        ({}, None),
        ({EPOCH_ANNOTATION: "7"}, 7),
        ({EPOCH_ANNOTATION: "-7"}, None),
        ({EPOCH_ANNOTATION: "seven"}, None),
        ({EPOCH_ANNOTATION: "٣"}, None),
        ({EPOCH_ANNOTATION: "9" * 5000}, None),
    ],
)
def test_a_stamp_that_cannot_be_ours_is_none(annotations: dict[str, str] | None, epoch: int | None) -> None:
    assert epoch_of(Metadata(annotations=annotations)) == epoch
