"""The imitated servers: slots, queue, start-up, drain, and what the daemon would see of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.model.signal import Activation, Quality
from autoscaler.simulator.traces import Request
from autoscaler.simulator.world import ModelWorld, Server

SERVER = Server(gpus=2, slots=2, start_s=40.0, prefill_tokens_per_s=100.0, token_s=0.1)
TEN_SECONDS = (100, 90)  # 1 s of prompt, 9 s of answer


def world(arrivals: Sequence[float], warm: int = 1) -> ModelWorld:
    requests = [Request(at_s, *TEN_SECONDS) for at_s in arrivals]
    return ModelWorld(SERVER, requests, warm, random.Random(1))


def test_a_request_is_served_for_as_long_as_its_tokens_take() -> None:
    assert SERVER.service_s(Request(0.0, 100, 90)) == 10.0


def test_requests_beyond_the_slots_wait_first_come_first_served() -> None:
    small = world([0.0, 0.5, 1.0, 2.0])

    small.advance(9.0)
    assert (small.in_service, len(small.waiting), small.oldest_wait_s) == (2, 2, 8.0)

    small.advance(11.0)
    assert small.waits == [(0.0, 0.0), (0.5, 0.0), (1.0, 9.0), (2.0, 8.5)]
    assert (small.within(8.5), small.within(2.0)) == (3, 2)


def test_a_new_replica_serves_only_when_it_is_ready() -> None:
    small = world([0.0], warm=0)
    small.advance(0.0)
    small.have(1)
    ready_at = int(small.replicas[0].ready_at)

    small.advance(ready_at - 1)
    assert (len(small.ready), len(small.starting), small.in_service) == (0, 1, 0)
    small.advance(ready_at)
    assert (len(small.ready), len(small.starting), small.in_service) == (1, 0, 1)
    assert small.waits == [(0.0, float(ready_at))]


def test_a_terminating_replica_takes_nothing_new_ends_its_requests_and_then_frees_its_gpus() -> None:
    small = world([0.0, 3.0])
    small.advance(1.0)
    small.have(0)

    small.advance(9.0)
    assert (small.terminating, small.in_service, len(small.waiting), small.gpus) == (1, 1, 1, 2)
    small.advance(10.0)
    assert (small.terminating, small.in_service, len(small.waiting), small.gpus) == (0, 0, 1, 0)


def test_replicas_that_are_not_ready_go_first_then_the_least_busy() -> None:
    small = world([0.0, 0.0, 0.0], warm=2)
    small.advance(1.0)  # two requests on replica 0, one on replica 1
    small.have(3)

    small.have(2)
    assert [each.number for each in small.replicas if each.terminating] == [2]
    small.have(1)
    assert [each.number for each in small.replicas if each.terminating] == [1, 2]


def test_the_page_shows_running_and_waiting_requests_of_ready_replicas() -> None:
    small = world([0.0, 0.0, 0.0])
    small.advance(1.0)
    seen = small.signals()

    assert seen is not None
    reading = seen.readings["concurrency"]
    assert (reading.value, reading.quality, reading.pods_fresh) == (3.0, Quality.FRESH, 1)


def test_what_just_finished_is_activity_and_no_proof_of_idleness() -> None:
    small = world([0.0])
    seen = []
    for at_s in range(14):
        small.advance(float(at_s))
        seen.append(small.signals())

    assert [each.activity.value if each else None for each in seen[9:]] == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_without_a_ready_replica_there_is_no_page_and_the_gateway_tells() -> None:
    small = world([5.0], warm=0)
    small.advance(4.0)
    assert (small.signals(), small.activation()) == (None, Activation.IDLE)
    small.advance(5.0)
    assert (small.signals(), small.activation()) == (None, Activation.WAITING)


def test_starting_and_draining_replicas_are_paid_for() -> None:
    small = world([])
    small.advance(0.0)
    small.have(3)
    small.hold(10)

    assert small.gpu_seconds == 3 * SERVER.gpus * 10


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 300), max_size=80).map(sorted),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
)
def test_no_request_is_lost_and_no_slot_is_used_twice(arrivals: list[float], counts: list[int]) -> None:
    small = world(arrivals)
    for step, count in enumerate(counts):
        small.advance(float(step * 10))
        small.have(count)
        assert small.arrived == small.finished + small.in_service + len(small.waiting)
        assert all(0 <= each.busy <= SERVER.slots for each in small.replicas)
        assert small.in_service == sum(each.busy for each in small.replicas)
        assert len(small.replicas) - small.terminating == count
