"""Objects that nest deeper than the decoder reads: one of them hides no other, and nothing is cut out of it unseen."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from autoscaler.cluster import resources
from autoscaler.cluster.inferenceworkload import InferenceWorkload
from autoscaler.cluster.nesting import DEEPEST, TOO_DEEP, cut
from autoscaler.cluster.watch import Selection, Timing, Watched
from tests import virtual_time

LEVELS = 5_000
JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(['"', "\\", '\\"{', "}]", "{["]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


# --- the text ---


@given(JSON)
def test_what_is_shallow_stays_as_it_is(document: Any) -> None:
    for ascii_only in (True, False):
        text = json.dumps(document, ensure_ascii=ascii_only).encode()
        assert cut(text) == text


@given(JSON, JSON)
def test_only_what_is_too_deep_is_cut_out(before: Any, after: Any) -> None:
    text = f"[{json.dumps(before)}, {nested(LEVELS)}, {json.dumps([after, '[' * LEVELS])}]".encode()
    first, deep, last = json.loads(cut(text))
    assert (first, last) == (before, [after, "[" * LEVELS])
    levels = 1
    while isinstance(deep, dict):
        levels, deep = levels + 1, deep["a"]
    assert levels == DEEPEST
    assert deep == json.loads(TOO_DEEP)


# --- the copy ---


class Server:
    """An imitation of KubeApi: lists what it is given, once, then streams the given lines."""

    def __init__(self, items: list[str], *lines: str) -> None:
        self._items = items
        self._lines = lines
        self.watched_from: list[str] = []
        self.lists = 0

    async def call(self, method: str, path: str, **others: object) -> bytes:
        self.lists += 1
        return f'{{"metadata": {{"resourceVersion": "20"}}, "items": [{",".join(self._items)}]}}'.encode()

    async def stream(self, path: str, params: Mapping[str, str], silence_s: float) -> AsyncIterator[bytes]:
        self.watched_from.append(params["resourceVersion"])
        yield b""
        if len(self.watched_from) == 1:
            yield "".join(f"{line}\n" for line in self._lines).encode()
        await asyncio.sleep(60)


def workload(name: str, version: int, levels: int = 1) -> str:
    metadata = json.dumps({"name": name, "namespace": "models", "uid": name, "resourceVersion": str(version)})
    return f'{{"metadata":{metadata},"spec":{{"serving":{{"deployment":{{"template":{nested(levels)}}}}}}}}}'


def event(kind: str, item: str) -> str:
    return f'{{"type":"{kind}","object":{item}}}'


def followed(server: Server) -> tuple[Watched[InferenceWorkload], list[str]]:
    """The copy after two watches, and the names of the objects that it told of."""

    async def follow() -> Watched[InferenceWorkload]:
        copy = Watched(server, Selection(resources.WORKLOADS), InferenceWorkload, lambda: None, timing=Timing())
        running = asyncio.create_task(copy.run())
        await asyncio.wait({running}, timeout=90)
        assert not running.done(), running
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return copy

    with capture_logs() as lines:
        copy = virtual_time.run(follow())
    assert {line["event"] for line in lines} <= {"object.unreadable"}
    return copy, [line["name"] for line in lines]


def versions(copy: Watched[InferenceWorkload]) -> dict[str, str]:
    return {each.metadata.name: each.metadata.resource_version for each in copy}


def test_a_list_with_an_object_that_nests_too_deeply_holds_the_others() -> None:
    server = Server([workload("a", 1), workload("deep", 2, LEVELS), workload("z", 3)])
    copy, told = followed(server)
    assert versions(copy) == {"a": "1", "z": "3"}
    assert told == ["deep"]
    assert (server.lists, copy.failures) == (1, 0)


def test_an_event_that_nests_too_deeply_leaves_the_object_as_it_was_and_the_others_go_on() -> None:
    server = Server(
        [workload("a", 1), workload("b", 2)],
        event("MODIFIED", workload("a", 21)),
        event("MODIFIED", workload("b", 22, LEVELS)),
        event("MODIFIED", workload("b", 23, LEVELS)),
        event("ADDED", workload("c", 24)),
        event("ADDED", workload("d", 25, LEVELS)),
    )
    copy, told = followed(server)
    assert versions(copy) == {"a": "21", "b": "2", "c": "24"}
    assert told == ["b", "d"], "each once"
    assert server.watched_from == ["20", "25"]
    assert (server.lists, copy.failures) == (1, 0)


def test_a_deletion_that_nests_too_deeply_is_a_deletion() -> None:
    server = Server([workload("a", 1), workload("b", 2)], event("DELETED", workload("a", 21, LEVELS)))
    copy, told = followed(server)
    assert versions(copy) == {"b": "2"}
    assert told == []


def test_an_object_that_can_be_read_again_is_read_and_told_of_when_it_cannot_once_more() -> None:
    server = Server(
        [workload("a", 1, LEVELS)],
        event("MODIFIED", workload("a", 21)),
        event("MODIFIED", workload("a", 22, LEVELS)),
    )
    copy, told = followed(server)
    assert versions(copy) == {"a": "21"}
    assert told == ["a", "a"]


@pytest.mark.parametrize("garbage", ["[" * LEVELS, nested(LEVELS), '{"type":' * LEVELS])
def test_lines_that_are_no_events_and_nest_deeply_end_no_copy(garbage: str) -> None:
    server = Server([workload("a", 1)], garbage)

    async def follow() -> Watched[InferenceWorkload]:
        copy = Watched(server, Selection(resources.WORKLOADS), InferenceWorkload, lambda: None)
        running = asyncio.create_task(copy.run())
        await asyncio.wait({running}, timeout=30)
        assert not running.done(), running
        running.cancel()
        await asyncio.wait({running})
        return copy

    copy = virtual_time.run(follow())
    assert versions(copy) == {"a": "1"}
    assert server.lists == 2
