"""The reflector under every fault that its peers fall for, against an imitated API server; each one named."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest
import time_machine
from aiohttp import web
from kubernetes_asyncio import client as kubernetes_client
from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader
from structlog.testing import capture_logs

from autoscaler.cluster.resources import Metadata, Pod
from autoscaler.cluster.watch import BackOff, Timing
from tests.cluster.copying import following, until
from tests.cluster.fakeapi import NAMESPACE, FakeApi, line, opened, pod, status

TWICE_AS_FAST: Final = Timing(steady_s=0.5, back_off_first_s=0.05, back_off_most_s=15.0)
OBSERVED_S: Final = 1.5  # as 3 s at the speed of every day
MOST_REQUESTS: Final = 6

Fault = Callable[[FakeApi, web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    for name in ("a", "b", "c"):
        fake.put(name)
    await fake.start()
    yield fake
    await fake.stop()


# --- faults of a watch that last ---


async def ends_at_once(api: FakeApi, request: web.Request) -> web.StreamResponse:
    return await opened(request)


async def load_balancers_503(api: FakeApi, request: web.Request) -> web.StreamResponse:
    return web.Response(status=503, text="<html>no backend</html>", content_type="text/html")


async def html_with_status_200(api: FakeApi, request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>\nplease log in\n</html>\n", content_type="text/html")


async def garbage_line(api: FakeApi, request: web.Request) -> web.StreamResponse:
    response = await opened(request)
    await response.write(line("MODIFIED", api.pods["a"]) + b'{"type": "MODIFIED", "obj\n')
    return response


async def object_without_a_name(api: FakeApi, request: web.Request) -> web.StreamResponse:
    response = await opened(request)
    await response.write(line("ADDED", {"metadata": {}}))
    return response


async def unknown_event_type(api: FakeApi, request: web.Request) -> web.StreamResponse:
    response = await opened(request)
    await response.write(line("EXPLODED", api.pods["a"]))
    return response


async def error_410_after_an_event(api: FakeApi, request: web.Request) -> web.StreamResponse:
    response = await opened(request)
    await response.write(line("MODIFIED", api.put("a")) + line("ERROR", status(410, "too old resource version")))
    return response


async def error_500(api: FakeApi, request: web.Request) -> web.StreamResponse:
    response = await opened(request)
    await response.write(line("ERROR", status(500, "etcdserver: no leader")))
    return response


async def http_410(api: FakeApi, request: web.Request) -> web.StreamResponse:
    return web.json_response(status(410, "too old resource version"), status=410)


async def http_400(api: FakeApi, request: web.Request) -> web.StreamResponse:
    return web.json_response(status(400, "invalid resource version"), status=400)


async def http_403(api: FakeApi, request: web.Request) -> web.StreamResponse:
    return web.json_response(status(403, "pods is forbidden"), status=403)


async def http_504(api: FakeApi, request: web.Request) -> web.StreamResponse:
    return web.json_response(status(504, "Too large resource version"), status=504)


async def http_429_without_retry_after(api: FakeApi, request: web.Request) -> web.StreamResponse:
    return web.json_response(status(429, "too many requests"), status=429)


async def reset_before_the_answer(api: FakeApi, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def reset_in_the_middle_of_a_line(api: FakeApi, request: web.Request) -> web.StreamResponse:
    response = await opened(request)
    await response.write(line("MODIFIED", api.pods["a"])[:40])
    assert request.transport is not None
    request.transport.abort()
    return response


async def mute(api: FakeApi, request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


FAULTS: list[Fault] = [
    ends_at_once,
    load_balancers_503,
    html_with_status_200,
    garbage_line,
    object_without_a_name,
    unknown_event_type,
    error_410_after_an_event,
    error_500,
    http_410,
    http_400,
    http_403,
    http_504,
    http_429_without_retry_after,
    reset_before_the_answer,
    reset_in_the_middle_of_a_line,
]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
async def test_a_lasting_fault_meets_few_requests_and_the_copy_is_right_before_and_after(
    api: FakeApi, fault: Fault
) -> None:
    with capture_logs() as lines:
        async with following(api, TWICE_AS_FAST) as copy:
            began = time.monotonic()
            api.on_watch = fault
            api.cut()
            await asyncio.sleep(OBSERVED_S)  # a measurement, nothing waits for it
            assert api.count("watch", began) <= MOST_REQUESTS
            assert api.count("list", began) <= MOST_REQUESTS
            assert sorted(copy.versions) == ["a", "b", "c"]

            api.on_watch = None
            api.put("d")
            api.delete("b")
            await copy.right(api)
            await until(lambda: len(lines) == 2, "the recovery to be told")
            assert copy.watched.failures > 0
    assert [entry["event"] for entry in lines] == ["watch.failed", "watch.recovered"]


# --- faults of a watch that pass ---


async def test_a_silent_half_open_connection_ends_by_the_deadline(api: FakeApi) -> None:
    async def silent(api: FakeApi, request: web.Request) -> web.StreamResponse:
        response = await opened(request)
        await response.write(line("MODIFIED", api.pods["a"]))
        await asyncio.Event().wait()
        return response

    api.on_watch = silent
    async with following(api, Timing(watch_s=0.5, overrun_s=0.3)) as copy:
        began = time.monotonic()
        api.on_watch = None
        api.put("d")
        await copy.right(api)
        assert time.monotonic() - began < 3
        assert copy.watched.relists == 1, "the version was still good"


async def test_a_watch_that_drips_without_end_ends_by_the_deadline(api: FakeApi) -> None:
    async def dripping(api: FakeApi, request: web.Request) -> web.StreamResponse:
        response = await opened(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    api.on_watch = dripping
    async with following(api, Timing(watch_s=0.5, overrun_s=0.3)) as copy:
        api.on_watch = None
        api.put("d")
        await copy.right(api, within_s=3)


async def test_a_server_that_accepts_and_never_answers_is_left_by_the_deadline(api: FakeApi) -> None:
    api.on_watch = mute
    async with following(api, Timing(watch_s=0.5, overrun_s=0.3)) as copy:
        api.on_watch = None
        api.put("d")
        await copy.right(api, within_s=3)


async def test_objects_above_the_line_limit_of_aiohttp_arrive(api: FakeApi) -> None:
    async with following(api) as copy:
        api.put("large", note="x" * 9_000_000)
        await copy.right(api)
        large = copy.watched.get(NAMESPACE, "large")
        assert large is not None
        assert len((large.metadata.labels or {})["note"]) == 9_000_000
        assert copy.watched.failures == 0


async def test_a_line_that_never_ends_is_given_up_at_16_mib(api: FakeApi) -> None:
    async def endless(api: FakeApi, request: web.Request) -> web.StreamResponse:
        response = await opened(request)
        api.on_watch = None
        for _ in range(40):
            await response.write(b"x" * 1_000_000)
        await asyncio.Event().wait()
        return response

    with capture_logs() as lines:
        async with following(api) as copy:
            api.on_watch = endless
            api.cut()
            await until(lambda: len(lines) == 1, "the failure to be told")
            api.put("d")
            await copy.right(api)
    assert "a line of more than 16777216 bytes" in lines[0]["error"]


async def test_retry_after_is_honoured_and_the_version_is_kept(api: FakeApi) -> None:
    async def busy(api: FakeApi, request: web.Request) -> web.StreamResponse:
        api.on_watch = None
        return web.json_response(status(429, "too many requests"), status=429, headers={"Retry-After": "2"})

    async with following(api) as copy:
        api.on_watch = busy
        api.cut()
        await until(lambda: api.count("watch") == 3, "the watch after the refusal")
        assert 2.0 <= api.asked[-1].at_s - api.asked[-2].at_s < 3.5
        assert api.asked[-1].version == api.asked[-2].version
        assert copy.watched.relists == 1


async def test_retry_after_in_an_error_event_is_honoured(api: FakeApi) -> None:
    async def busy(api: FakeApi, request: web.Request) -> web.StreamResponse:
        api.on_watch = None
        response = await opened(request)
        await response.write(line("ERROR", status(429, "too many requests", retryAfterSeconds=2)))
        return response

    async with following(api) as copy:
        api.on_watch = busy
        api.cut()
        await until(lambda: api.count("watch") == 3, "the watch after the refusal")
        assert 2.0 <= api.asked[-1].at_s - api.asked[-2].at_s < 3.5
        assert copy.watched.relists == 1


async def test_an_error_event_is_asked_again_once_and_then_listed_anew(api: FakeApi) -> None:
    async with following(api):
        api.on_watch = error_500
        api.cut()
        await until(lambda: api.count("list") == 2, "the second list")
        assert [each.kind for each in api.asked[:5]] == ["list", "watch", "watch", "watch", "list"]
        assert len({each.version for each in api.asked[1:4]}) == 1


async def test_events_before_an_error_in_one_block_count(api: FakeApi) -> None:
    async def then_gone(api: FakeApi, request: web.Request) -> web.StreamResponse:
        response = await opened(request)
        await response.write(line("DELETED", {**api.pods["a"]}) + line("ERROR", status(410)))
        return response

    async def no_list(api: FakeApi, request: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    async with following(api) as copy:
        api.on_watch, api.on_list = then_gone, no_list
        api.cut()
        await until(lambda: sorted(copy.versions) == ["b", "c"], "the event before the error")


async def test_a_bookmark_moves_the_version_and_pokes_nobody(api: FakeApi) -> None:
    async with following(api) as copy:
        pokes = copy.pokes
        api.bookmark()
        await until(lambda: copy.watched.events == 1, "the bookmark")
        api.cut()
        await until(lambda: api.count("watch") == 2, "the next watch")
        assert api.asked[-1].version == str(api.version)
        assert copy.pokes == pokes


async def test_after_a_restart_of_the_server_the_watch_resumes_without_a_list(api: FakeApi) -> None:
    with capture_logs() as lines:
        async with following(api) as copy:
            await api.stop()
            await until(lambda: copy.watched.failures >= 3, "the outage to be noticed")
            api.put("d")
            await api.start()
            await copy.right(api)
            await until(lambda: len(lines) == 2, "the recovery to be told")
            assert copy.watched.relists == 1
    assert [entry["event"] for entry in lines] == ["watch.failed", "watch.recovered"]
    assert lines[1]["lasted_s"] >= 1


async def test_a_watch_that_ends_as_asked_is_followed_by_the_next_at_once(api: FakeApi) -> None:
    with capture_logs() as lines:
        async with following(api, Timing(steady_s=0.05)) as copy:
            for watches in range(2, 6):
                began = len(api.asked)
                api.put("a")
                await copy.right(api)
                await asyncio.sleep(0.06)  # a life longer than steady_s
                api.cut()
                await until(lambda began=began: len(api.asked) > began, "the next watch")  # type: ignore[misc]
                assert api.count("watch") == watches
            assert copy.watched.failures == 0
    assert lines == []


# --- lists ---


async def test_a_list_comes_in_pages(api: FakeApi) -> None:
    api.page_size = 2
    async with following(api):
        assert [each.kind for each in api.asked] == ["list", "list", "watch"]
        assert api.asked[-1].version == str(api.version)


async def test_410_in_the_middle_of_paging_starts_the_list_anew(api: FakeApi) -> None:
    async def expired(api: FakeApi, request: web.Request) -> web.StreamResponse | None:
        if "continue" not in request.query:
            return None
        api.on_list = None
        api.delete("a")
        return web.json_response(status(410, "the provided continue parameter is too old"), status=410)

    api.page_size, api.on_list = 2, expired
    async with following(api) as copy:
        assert [each.continues != "" for each in api.asked[:4]] == [False, True, False, False]
        assert sorted(copy.versions) == ["b", "c"]
        assert copy.watched.failures == 0


async def test_what_changes_between_two_pages_is_seen_again_by_the_watch(api: FakeApi) -> None:
    async def meanwhile(api: FakeApi, request: web.Request) -> web.StreamResponse | None:
        if "continue" in request.query:
            api.put("a")
            api.delete("b")
            api.put("d")
        return None

    api.page_size, api.on_list = 1, meanwhile
    api.delete("c")
    async with following(api) as copy:
        await copy.right(api)


async def test_pages_of_different_versions_hide_nothing(api: FakeApi) -> None:
    async def newer(api: FakeApi, request: web.Request) -> web.StreamResponse | None:
        if "continue" not in request.query:
            return None
        api.on_list = None
        api.delete("a")  # it was on the first page; only the watch can tell
        metadata = {"resourceVersion": str(api.version)}
        return web.json_response({"metadata": metadata, "items": [api.pods["c"]]})

    api.page_size, api.on_list = 2, newer
    async with following(api) as copy:
        assert sorted(copy.versions) == ["b", "c"]


@pytest.mark.parametrize(
    "body",
    ["{}", '{"metadata": {}, "items": []}', '{"metadata": {"resourceVersion": "7", "continue": "x"}, "items": []}'],
    ids=["empty object", "no version", "endless pages"],
)
async def test_an_answer_that_is_no_list_empties_no_copy(api: FakeApi, body: str) -> None:
    async def not_a_list(api: FakeApi, request: web.Request) -> web.StreamResponse | None:
        return web.Response(text=body, content_type="application/json")

    async with following(api) as copy:
        api.on_list, api.on_watch = not_a_list, http_410
        api.cut()
        await until(lambda: copy.watched.failures >= 3, "some lists to fail")
        assert sorted(copy.versions) == ["a", "b", "c"]
        api.on_list = api.on_watch = None
        api.put("d")
        await copy.right(api)


async def test_null_items_are_an_empty_list(api: FakeApi) -> None:
    async def null(api: FakeApi, request: web.Request) -> web.StreamResponse | None:
        metadata = {"resourceVersion": str(api.version)}
        return web.Response(text=json.dumps({"metadata": metadata, "items": None}), content_type="application/json")

    api.on_list = null
    async with following(api, synced=False) as copy:
        await until(copy.watched.synced.is_set, "the copy to be synced")
        assert copy.versions == {}


# --- what counts as a change ---


async def test_a_relist_finds_what_was_deleted_and_pokes_only_then(api: FakeApi) -> None:
    async with following(api) as copy:
        kept = copy.watched.get(NAMESPACE, "a")
        pokes = copy.pokes
        api.on_watch = http_410
        api.cut()
        await until(lambda: copy.watched.relists >= 2, "a list that differs in nothing")
        assert copy.pokes == pokes
        api.on_watch = None
        api._history.clear()  # deleted without an event, as after a compaction
        api.version += 1
        del api.pods["b"]
        api.on_watch = None
        await until(lambda: api.count("watch") > 2, "the watch to be back")
        api.on_watch = http_410
        api.cut()
        await copy.right(api)
        assert copy.pokes == pokes + 1
        assert copy.watched.get(NAMESPACE, "a") is kept


async def test_events_that_bring_nothing_new_poke_nobody(api: FakeApi) -> None:
    async with following(api) as copy:
        pokes = copy.pokes
        written = api.put("a")
        copy.watched.assume(_as_pod(written))
        await until(lambda: copy.watched.events == 1, "the echo of our write")
        assert copy.pokes == pokes
        assert copy.versions["a"] == written["metadata"]["resourceVersion"]


async def test_our_own_write_is_not_undone_by_an_older_event(api: FakeApi) -> None:
    async with following(api) as copy:
        copy.watched.assume(_as_pod(pod("a", 105)))
        api.version = 103
        api.put("a")
        await until(lambda: copy.watched.events == 1, "the older event")
        assert copy.versions["a"] == "105"


async def test_the_late_answer_to_a_write_does_not_bring_a_deleted_object_back(api: FakeApi) -> None:
    async with following(api) as copy:
        written = api.put("a")
        api.delete("a")
        await copy.right(api)
        copy.watched.assume(_as_pod(written))
        assert sorted(copy.versions) == ["b", "c"]


async def test_a_write_during_a_list_survives_the_list(api: FakeApi) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(api: FakeApi, request: web.Request) -> web.StreamResponse | None:
        answer = api.page(request)
        reached.set()
        await go_on.wait()
        return answer

    async with following(api) as copy:
        api.on_list, api.on_watch = slow, http_410
        api.cut()
        await reached.wait()
        api.on_watch = mute  # nothing but the list is heard
        copy.watched.assume(_as_pod(api.put("a")))
        copy.watched.assume(_as_pod(api.put("new")))
        go_on.set()
        await until(lambda: copy.watched.relists == 2, "the list")
        await copy.right(api)


async def test_the_late_deletion_of_a_namesake_takes_nothing_away(api: FakeApi) -> None:
    async with following(api) as copy:
        copy.watched.assume(_as_pod(pod("a", 105)))
        api.delete("a")
        await until(lambda: copy.watched.events == 1, "the deletion")
        assert copy.versions["a"] == "105"


# --- the token, the end, the waits ---


async def test_an_empty_token_file_does_not_end_the_watch_and_the_new_token_is_used(
    api: FakeApi, tmp_path: Path
) -> None:
    token, certificate = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    certificate.write_text("not read over plain HTTP")
    configuration = kubernetes_client.Configuration()
    environment = {"KUBERNETES_SERVICE_HOST": "unused", "KUBERNETES_SERVICE_PORT": "1"}
    InClusterConfigLoader(str(token), str(certificate), environ=environment).load_and_set(configuration)
    configuration.ssl_ca_cert = None
    async with following(api, configuration=configuration) as copy:
        assert api.asked[-1].authorization == "Bearer first"
        with time_machine.travel(time.time() + 61):
            token.write_text("")
            api.cut()
            await until(lambda: copy.watched.failures >= 2, "the empty file to be noticed")
            token.write_text("second")
            api.put("d")
            await copy.right(api)
        assert api.asked[-1].authorization == "Bearer second"
        assert copy.watched.relists == 1


async def test_cancelling_ends_it_while_it_lists(api: FakeApi) -> None:
    api.on_list = mute
    async with following(api, synced=False):
        await until(lambda: bool(api.asked), "the list to begin")


async def test_cancelling_ends_it_while_it_backs_off(api: FakeApi) -> None:
    api.on_watch = load_balancers_503
    timing = Timing(back_off_first_s=100, back_off_most_s=100)
    async with following(api, timing) as copy:
        await until(lambda: copy.watched.failures == 1, "the back-off")


async def test_the_age_of_the_last_event_is_unknown_until_there_is_one(api: FakeApi) -> None:
    api.on_list = load_balancers_503
    async with following(api, synced=False) as copy:
        await until(lambda: copy.watched.failures == 1, "the first failure")
        assert copy.watched.last_event_age_s is None
        api.on_list = None
        await copy.right(api)
        age_s = copy.watched.last_event_age_s
        assert age_s is not None
        assert 0 <= age_s < 1


def test_waits_double_from_a_tenth_of_a_second_to_half_a_minute_and_are_spread() -> None:
    back_off = BackOff(Timing())
    waits_s = [back_off.next_s() for _ in range(2_000)]
    for wait_s, middle_s in zip(waits_s, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30], strict=False):
        assert 0.5 * middle_s <= wait_s <= 1.5 * middle_s
    assert 15 <= min(waits_s[9:]) < 20
    assert 40 < max(waits_s) <= 45
    back_off.reset()
    assert back_off.next_s() <= 0.15


def _as_pod(item: dict[str, object]) -> Pod:
    decoded = msgspec.convert(item, Pod)
    assert isinstance(decoded.metadata, Metadata)
    return decoded
