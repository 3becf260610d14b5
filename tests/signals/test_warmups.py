"""Warm-up requests against real servers on loopback: who gets them, how often, and what counts as an answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from autoscaler.model.rollout import WarmUpSpec
from autoscaler.model.workload import Protocol, RevisionKey, WorkloadKey
from autoscaler.signals import warmups
from autoscaler.signals.targets import PodAddress
from autoscaler.signals.warmups import WarmUps
from tests.signals.pods import Misbehaviour, Pod, until

KEY = RevisionKey(WorkloadKey("ml", "llama"), "llama-2")
OTHER = RevisionKey(WorkloadKey("ml", "other"), "other-2")
GET = WarmUpSpec("/v1/models")
POST = WarmUpSpec("/v1/completions", '{"prompt": "hé"}', 3)


class Scene:
    """Some pods, who warms them, and a clock that the test may set forward."""

    def __init__(self, pods: list[Pod], port: int) -> None:
        self.pods, self.port = pods, port
        self.ahead_s = 0.0
        self.warm_ups = WarmUps(
            lambda: time.time() + self.ahead_s, timeout_s=0.5, retry_first_s=0.05, shown_after_s=0.0
        )
        self.running = asyncio.create_task(self.warm_ups.run())

    def addresses(self, *numbers: int) -> tuple[PodAddress, ...]:
        chosen = numbers or range(len(self.pods))
        return tuple(PodAddress(f"p-{n}", f"uid-{n}", self.pods[n].ip) for n in chosen)

    def begin(self, spec: WarmUpSpec = GET, *numbers: int, key: RevisionKey = KEY) -> None:
        self.warm_ups.begin(key, self.port, Protocol.HTTP, spec, self.addresses(*numbers))

    def warm(self, key: RevisionKey = KEY) -> int:
        return self.warm_ups.warm(key, self.addresses())

    async def until_trouble(self, text: str) -> None:
        await until(lambda: text in (self.warm_ups.trouble(KEY) or ""))

    async def stop(self) -> None:
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    pods = [Pod(f"127.0.0.{31 + number}") for number in range(3)]
    port = await pods[0].start()
    for pod in pods[1:]:
        await pod.start(port)
    made = Scene(pods, port)
    yield made
    await made.stop()
    for pod in pods:
        await pod.stop()


async def test_every_pod_is_asked_and_counts_when_it_has_answered(scene: Scene) -> None:
    assert (scene.warm(), scene.warm_ups.trouble(KEY)) == (0, None)
    scene.begin()
    assert scene.warm() == 0, "it returns at once"
    await until(lambda: scene.warm() == 3)
    assert [pod.requests for pod in scene.pods] == [1, 1, 1]
    assert scene.pods[0].headers.startswith("GET /v1/models HTTP/1.1")
    assert f"Host: {scene.pods[0].ip}:{scene.port}" in scene.pods[0].headers
    assert scene.warm_ups.trouble(KEY) is None
    scene.begin()
    await asyncio.sleep(0.2)
    assert [pod.requests for pod in scene.pods] == [1, 1, 1], "a repeat asks nobody again"


async def test_a_body_is_posted_as_it_stands_as_often_as_told(scene: Scene) -> None:
    scene.begin(POST)
    await until(lambda: scene.warm() == 3)
    assert [pod.requests for pod in scene.pods] == [3, 3, 3]
    assert scene.pods[0].headers.startswith("POST /v1/completions HTTP/1.1")
    assert "Content-Type: application/json" in scene.pods[0].headers
    assert scene.pods[0].body.decode() == '{"prompt": "hé"}'
    assert scene.warm_ups.answers_total == {"ok": 9}


async def test_a_pod_that_fails_is_asked_again_and_what_it_answered_stays(scene: Scene) -> None:
    scene.pods[1].statuses = ["204 No Content", "503 Service Unavailable", "500 Internal Server Error"]
    scene.begin(POST)
    await until(lambda: scene.warm() == 3)
    assert [pod.requests for pod in scene.pods] == [3, 5, 3]
    assert scene.warm_ups.answers_total == {"ok": 9, "http 503": 1, "http 500": 1}


async def test_a_pod_that_only_fails_is_never_warm_and_named(scene: Scene) -> None:
    scene.pods[2].status = "500 Internal Server Error"
    scene.begin()
    await scene.until_trouble("warm-up of pod p-2 failed 3 times, last with: http 500")
    assert scene.warm() == 2
    scene.pods[2].status = "200 OK"
    await until(lambda: scene.warm() == 3)
    assert scene.warm_ups.trouble(KEY) is None


@pytest.mark.parametrize(
    ("misbehaviour", "reason"),
    [
        (Misbehaviour.HANG, "time-out"),
        (Misbehaviour.TRICKLE, "time-out"),
        (Misbehaviour.CUT, "cut short"),
        (Misbehaviour.GARBAGE, "not text"),
        (Misbehaviour.ENDLESS_HEADER, "not text"),
    ],
)
async def test_what_is_no_answer_is_none(scene: Scene, misbehaviour: Misbehaviour, reason: str) -> None:
    scene.pods[0].misbehaviour = misbehaviour
    scene.begin()
    await scene.until_trouble(f"last with: {reason}")
    await until(lambda: scene.warm() == 2)


async def test_nobody_listens_there(scene: Scene) -> None:
    await scene.pods[0].stop()
    scene.begin()
    await scene.until_trouble("warm-up of pod p-0 failed 1 times, last with: refused")


async def test_of_a_huge_answer_a_bounded_part_is_read(scene: Scene) -> None:
    scene.pods[0].misbehaviour = Misbehaviour.ENDLESS
    scene.begin()
    await until(lambda: scene.warm() == 3)
    assert scene.pods[0].requests == 1


async def test_a_redirect_is_not_followed(scene: Scene) -> None:
    scene.pods[0].status = "307 Temporary Redirect"
    scene.pods[0].extra_header = f"Location: http://{scene.pods[1].ip}:{scene.port}/secret\r\n"
    scene.begin(GET, 0)
    await scene.until_trouble("http 307")
    assert scene.pods[1].requests == 0


@pytest.mark.parametrize("path", ["v1/models", "@example.com/", "/a b", "/a\r\nHost: x", "/" + "x" * 2000])
async def test_a_path_that_would_lead_elsewhere_is_never_asked(scene: Scene, path: str) -> None:
    scene.begin(WarmUpSpec(path), 0)
    await scene.until_trouble("bad address")
    assert scene.pods[0].connections == 0


@pytest.mark.parametrize("path", ["//example.com/x", "/@example.com", "/x?to=http://example.com"])
async def test_whatever_the_path_holds_the_pod_is_asked(scene: Scene, path: str) -> None:
    scene.begin(WarmUpSpec(path), 0)
    await until(lambda: scene.warm() == 1)
    assert f"Host: {scene.pods[0].ip}:{scene.port}" in scene.pods[0].headers


async def test_a_name_instead_of_an_address_is_not_looked_up(scene: Scene) -> None:
    scene.warm_ups.begin(KEY, scene.port, Protocol.HTTP, GET, (PodAddress("p-9", "uid-9", "localhost"),))
    await scene.until_trouble("warm-up of pod p-9 failed 1 times, last with: bad address")


async def test_another_protocol_is_said_to_be_none_that_we_speak(scene: Scene) -> None:
    scene.warm_ups.begin(KEY, scene.port, Protocol.GRPC, GET, scene.addresses(0))
    await scene.until_trouble("warm-up requests are HTTP")
    assert scene.pods[0].connections == 0


async def test_only_pods_that_are_named_are_asked_and_a_new_one_begins_by_itself(scene: Scene) -> None:
    scene.begin(GET, 0)
    await until(lambda: scene.warm() == 1)
    assert [pod.requests for pod in scene.pods] == [1, 0, 0]
    scene.begin(GET, 0, 1)
    await until(lambda: scene.warm() == 2)
    assert [pod.requests for pod in scene.pods] == [1, 1, 0]
    successor = (PodAddress("p-0", "its successor", scene.pods[0].ip),)
    assert scene.warm_ups.warm(KEY, successor) == 0, "the address is not the pod"


async def test_other_requests_begin_anew(scene: Scene) -> None:
    scene.begin()
    await until(lambda: scene.warm() == 3)
    scene.begin(WarmUpSpec("/v1/models", requests=2))
    assert scene.warm() == 0
    await until(lambda: scene.warm() == 3)
    assert [pod.requests for pod in scene.pods] == [3, 3, 3]


async def test_what_nobody_waits_for_is_asked_no_more(scene: Scene) -> None:
    scene.pods[0].status = "500 Internal Server Error"
    scene.begin(GET, 0)
    scene.begin(GET, 1, key=OTHER)
    await scene.until_trouble("http 500")
    scene.warm_ups.forget_all_but([OTHER])
    await asyncio.sleep(0.1)
    before = scene.pods[0].requests
    await asyncio.sleep(0.5)
    assert scene.pods[0].requests == before
    assert (scene.warm_ups.trouble(KEY), scene.warm(KEY)) == (None, 0)
    await until(lambda: scene.warm(OTHER) == 1)


async def test_a_revision_that_hangs_delays_no_other(scene: Scene) -> None:
    scene.pods[0].misbehaviour = Misbehaviour.HANG
    scene.warm_ups._timeout_s = 60.0
    crowd = tuple(PodAddress(f"h-{n}", f"h-{n}", scene.pods[0].ip) for n in range(100))
    scene.warm_ups.begin(KEY, scene.port, Protocol.HTTP, GET, crowd)
    await until(lambda: scene.pods[0].requests >= warmups.MOST_OF_ONE)
    scene.begin(GET, 1, 2, key=OTHER)
    await until(lambda: scene.warm(OTHER) == 2)
    assert scene.pods[0].requests == warmups.MOST_OF_ONE


async def test_a_pod_counts_once_its_page_has_had_the_time_to_show_its_last_request(scene: Scene) -> None:
    scene.warm_ups._shown_after_s = 1000.0
    scene.begin()
    await until(lambda: scene.warm_ups.answers_total["ok"] == 3)
    await asyncio.sleep(0.1)
    assert scene.warm() == 0
    scene.ahead_s = 1001.0
    assert scene.warm() == 3


async def test_what_was_answered_stays_answered_over_a_rest(scene: Scene) -> None:
    scene.pods[2].misbehaviour = Misbehaviour.HANG
    scene.begin()
    await until(lambda: scene.warm() == 2)
    await scene.stop()
    scene.pods[2].misbehaviour = None
    asked = [pod.requests for pod in scene.pods[:2]]
    scene.running = asyncio.create_task(scene.warm_ups.run())
    await until(lambda: scene.warm() == 3)
    assert [pod.requests for pod in scene.pods[:2]] == asked == [1, 1]
