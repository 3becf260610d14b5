"""The imitated model servers follow from their load as queues do: without this, tests built on them prove nothing."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.model.workload import Engine
from autoscaler.signals.engines import Quantity
from autoscaler.signals.pages import plan_for, read_page
from tests.realcluster.load import Offer, OfferedWorkload, Replica, Request
from tests.realcluster.modelserver_page import PageFault, vllm_page


def workload(offer: Offer, *pods: str) -> OfferedWorkload:
    made = OfferedWorkload(0.0)
    made.set_replicas(set(pods), set(pods), 0.0)
    made.set_offer(offer, 0.0)
    return made


def in_flight(made: OfferedWorkload) -> list[tuple[int, int]]:
    """(running, waiting) by pod."""
    return [(len(replica.running), len(replica.waiting)) for _, replica in sorted(made.replicas.items())]


def test_open_loop_fills_as_many_slots_as_little_s_law_says() -> None:
    made = workload(Offer(rps=10, slots=8, service_time_s=1.0), "a", "b")
    made.advance(10.95)
    assert in_flight(made) == [(5, 0), (5, 0)]
    assert sum(replica.finished for replica in made.replicas.values()) == 99


def test_more_than_the_slots_can_serve_waits() -> None:
    made = workload(Offer(rps=10, slots=4, service_time_s=1.0), "a")
    made.advance(10.0)
    (running, waiting), finished = in_flight(made)[0], made.replicas["a"].finished
    assert running == 4
    assert waiting == pytest.approx(60, abs=3)
    assert finished == pytest.approx(37, abs=2)


def test_closed_loop_holds_its_number_evenly_whatever_comes_and_goes() -> None:
    made = workload(Offer(concurrency=20, slots=4, service_time_s=1.0), "a", "b")
    made.advance(1.0)
    assert in_flight(made) == [(4, 6), (4, 6)]
    made.set_replicas({"a", "b", "c", "d"}, {"a", "b", "c", "d"}, 1.5)
    assert in_flight(made) == [(4, 1)] * 4
    made.set_replicas({"a"}, {"a"}, 2.0)
    assert in_flight(made) == [(4, 16)]
    assert made.lost == 15
    made.set_offer(Offer(concurrency=0, slots=4), 2.5)
    assert in_flight(made) == [(4, 0)]
    made.advance(5.0)
    assert made.in_flight == 0


def test_without_replicas_requests_wait_at_the_gateway_until_one_is_ready() -> None:
    made = workload(Offer(rps=2, slots=8, service_time_s=1.0))
    made.advance(3.1)
    assert (len(made.gateway), made.gateway_total) == (6, 6)
    made.set_replicas({"a"}, {"a"}, 3.2)
    assert (len(made.gateway), in_flight(made)) == (0, [(6, 0)])


def test_a_terminating_replica_finishes_what_it_has() -> None:
    made = workload(Offer(rps=4, slots=8, service_time_s=2.0), "a", "b")
    made.advance(4.1)
    made.set_replicas({"a", "b"}, {"b"}, 4.1)
    made.advance(7.0)
    assert in_flight(made)[0] == (0, 0)
    assert made.lost == 0


def test_the_page_says_what_the_queue_holds_and_the_general_parser_reads_it() -> None:
    made = workload(Offer(rps=10, slots=4, service_time_s=1.0), "a")
    made.advance(10.0)
    replica = made.replicas["a"]
    page = vllm_page(replica, 10.0, "m", ranks=2)
    signals = ("latency", "ttft", "itl", "kv-cache", "tokens")
    values = read_page(page, plan_for(Engine.VLLM, signals), 0.0)
    assert values.faults == {}
    assert values.gauges[Quantity.RUNNING] == len(replica.running)
    assert values.gauges[Quantity.WAITING] == len(replica.waiting)
    assert 0.5 < values.gauges[Quantity.KV_CACHE] <= 1.0
    assert sum(values.counters[Quantity.FINISHED].values()) == replica.finished
    assert values.buckets[Quantity.LATENCY][float("inf")] == replica.finished
    families = list(text_string_to_metric_families(page.decode()))
    assert len(families) > 40


def test_generated_tokens_never_shrink() -> None:
    made = workload(Offer(rps=3, slots=2, service_time_s=0.7), "a")
    seen = 0
    for step in range(300):
        made.advance(step * 0.05)
        now = made.replicas["a"].generated_tokens(step * 0.05)
        assert now >= seen
        seen = now


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (PageFault.EMPTY, "no such series"),
        (PageFault.RENAMED, "no such series"),
        (PageFault.NAN, "not a number"),
        (PageFault.INF, "infinite"),
        (PageFault.NEGATIVE, "negative"),
    ],
)
def test_a_spoilt_page_has_no_usable_value(fault: PageFault, reason: str) -> None:
    made = workload(Offer(rps=3), "a")
    made.advance(5.0)
    page = vllm_page(made.replicas["a"], 5.0, "m", fault)
    values = read_page(page, plan_for(Engine.VLLM, ("concurrency", "latency")), 0.0)
    assert set(values.faults.values()) == {reason}
    assert len(values.faults) == 4


def test_a_request_for_fewer_tokens_takes_its_share_of_the_time() -> None:
    replica = Replica(Offer(slots=8, service_time_s=10.0, output_tokens=100))
    short, whole = Request(0.0, tokens=20), Request(0.0)
    for request in (short, whole):
        replica.add(request, 0.0)
    replica.advance(1.9)
    assert replica.running == {short, whole}
    replica.advance(2.1)
    assert replica.running == {whole}
    assert replica.generated_tokens(2.1) == 20 + 12
    replica.advance(10.1)
    assert (replica.in_flight, replica.finished, replica.generated_tokens(10.1)) == (0, 2, 120)


def test_a_client_that_goes_away_makes_room_for_the_next_and_is_not_counted() -> None:
    replica = Replica(Offer(slots=1, service_time_s=10.0))
    first, second, third = (Request(0.0) for _ in range(3))
    for request in (first, second, third):
        replica.add(request, 0.0)
    replica.advance(5.0)
    made = replica.generated_tokens(5.0)
    replica.abort(second, 5.0)
    replica.abort(first, 5.0)
    assert (replica.running, replica.generated_tokens(5.0)) == ({third}, made)
    replica.abort(third, 5.0)
    replica.advance(100.0)
    assert (replica.in_flight, replica.finished) == (0, 0)
    assert sum(replica.histograms[Quantity.LATENCY].counts) == 0


def test_a_request_takes_longer_the_fuller_the_batch() -> None:
    offer = Offer(concurrency=5, slots=10, service_time_s=1.0, slowdown=2.0)
    made = workload(offer, "a")
    made.advance(0.5)
    assert sorted(request.service_s for request in made.replicas["a"].running) == pytest.approx(
        [1.2, 1.4, 1.6, 1.8, 2.0]
    )
    made.advance(10.0)
    assert made.slowest_s == pytest.approx(2.0, abs=0.02)


def test_a_full_cache_refuses_and_the_page_counts_it() -> None:
    made = workload(
        Offer(rps=10, slots=4, service_time_s=1.0, prompt_tokens=1_000, output_tokens=10, refuses=True), "a"
    )
    made.advance(10.05)
    replica, (running, waiting) = made.replicas["a"], in_flight(made)[0]
    assert (running <= 4, waiting) == (True, 0), "nobody waits"
    assert replica.kv_share(10.05) == pytest.approx(running / 4, abs=0.01)
    assert made.refused == 100 - replica.finished - running > 50
    page = vllm_page(replica, 10.05, "m").decode()
    assert f"\nimitation:requests_refused_total {made.refused}\n" in page
    made.set_replicas(set(), set(), 10.1)
    assert made.refused == replica.refused, "those of a pod that went away still count"


def test_a_ramp_of_many_offers_puts_no_request_off() -> None:
    made = workload(Offer(rps=1.0, slots=8), "a")
    for step in range(100):
        made.set_offer(Offer(rps=1.0 + step / 1_000, slots=8), step / 10)
    made.advance(10.0)
    assert made.gateway_total == 10
