"""What is republished of a workload, from its pods' pages: whole, fresh, or not at all."""

from __future__ import annotations

import pytest

from autoscaler.model.foreign import Measure
from autoscaler.model.workload import Engine
from autoscaler.signals.pages import plan_for, read_page
from autoscaler.signals.readings import WorkloadReadings
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.signals.test_readings import WINDOW_S, vllm

GONE = Measure.REQUESTS, Measure.THROUGHPUT, Measure.ACTIVE, Measure.LATENCY_P50


class Pods:
    """A workload without any signal whose pods' pages the test hands in, page by page as the scraper would."""

    def __init__(self, pods: int, engine: Engine = Engine.VLLM, republish: bool = True) -> None:
        self.engine, self.republish = engine, republish
        self.workload = WorkloadReadings(self.target(range(pods)), WINDOW_S)

    def target(self, pods: range) -> ScrapeTarget:
        addresses = tuple(PodAddress(f"p{n}", f"uid-{n}", f"10.0.0.{n}") for n in pods)
        return ScrapeTarget(8000, "/metrics", self.engine, (), addresses, self.republish)

    def page(self, pod: int, at_s: float, page: bytes) -> None:
        plan = plan_for(self.engine, self.workload.target.wanted)
        self.workload.pods[f"uid-{pod}"].observe(plan, read_page(page, plan, at_s), at_s, WINDOW_S)

    def measures(self, now_s: float) -> dict[Measure, float]:
        return dict(self.workload.signals(now_s, 1.0).measures)


def test_all_pods_count_together() -> None:
    pods = Pods(2)
    for pod in (0, 1):
        pods.page(pod, 10.0, vllm(running=1, finished=100))
        pods.page(pod, 11.0, vllm(running=3, waiting=2, finished=110, fast=10))
    assert pods.measures(11.0) == pytest.approx(
        {
            Measure.ACTIVE: 10.0,
            Measure.THROUGHPUT: 20.0,
            Measure.REQUESTS: 20.0,
            Measure.LATENCY_P50: 0.75,
            Measure.LATENCY_P95: 0.975,
            Measure.LATENCY_P99: 0.995,
        }
    )


def test_nothing_is_read_or_republished_where_it_is_switched_off() -> None:
    pods = Pods(1, republish=False)
    assert pods.workload.target.wanted == ()
    pods.page(0, 10.0, vllm(running=3))
    assert pods.measures(10.0) == {}


def test_before_the_first_page_and_after_the_last_fresh_one_there_is_nothing_and_not_zero() -> None:
    pods = Pods(1)
    assert pods.measures(9.0) == {}
    pods.page(0, 10.0, vllm(running=3))
    assert pods.measures(10.0) == {Measure.ACTIVE: 3.0}, "one page gives no rate, and nobody has finished"
    pods.page(0, 11.0, vllm(running=3, finished=1, fast=1))
    assert set(GONE) <= pods.measures(13.9).keys()
    assert pods.measures(14.1) == {}


def test_a_true_zero_is_told() -> None:
    pods = Pods(1)
    pods.page(0, 10.0, vllm())
    pods.page(0, 11.0, vllm())
    assert pods.measures(11.0) == {Measure.ACTIVE: 0.0, Measure.THROUGHPUT: 0.0, Measure.REQUESTS: 0.0}


def test_one_pod_without_a_page_counts_with_its_last_value_as_it_does_for_signals() -> None:
    pods = Pods(2)
    pods.page(0, 10.0, vllm(running=3))
    pods.page(1, 10.0, vllm(running=4))
    pods.page(0, 15.0, vllm(running=5))
    assert pods.measures(15.0)[Measure.ACTIVE] == 9.0


def test_the_count_of_requests_never_falls_when_pods_restart_come_and_go() -> None:
    pods = Pods(2)
    for pod, finished in ((0, 1_000), (1, 500)):
        pods.page(pod, 10.0, vllm(finished=finished))
        pods.page(pod, 11.0, vllm(finished=finished + 5))
    assert pods.measures(11.0)[Measure.REQUESTS] == 10.0
    pods.page(0, 12.0, vllm(finished=2))  # its server began anew
    assert pods.measures(12.0)[Measure.REQUESTS] == 12.0
    pods.workload.retarget(pods.target(range(1, 3)), 12.5)  # the first one left, another came
    pods.page(2, 13.0, vllm(finished=7))
    pods.page(1, 13.0, vllm(finished=506))
    assert pods.measures(13.0)[Measure.REQUESTS] == 13.0
    pods.page(2, 14.0, vllm(finished=9))
    assert pods.measures(14.0)[Measure.REQUESTS] == 15.0


def test_what_an_engine_does_not_show_is_absent() -> None:
    pods = Pods(1, engine=Engine.TRITON)  # no running requests, no histogram of whole requests
    page = "nv_inference_pending_request_count 4\nnv_inference_request_success {}\n"
    for at_s, finished in ((10.0, 5), (11.0, 8)):
        pods.page(0, at_s, page.format(finished).encode())
    assert pods.measures(11.0) == {Measure.THROUGHPUT: 3.0, Measure.REQUESTS: 3.0}


def test_without_a_finished_request_in_the_window_there_is_no_latency() -> None:
    pods = Pods(1)
    pods.page(0, 10.0, vllm())
    pods.page(0, 11.0, vllm(slow=10))
    assert pods.measures(11.0)[Measure.LATENCY_P50] == pytest.approx(1.75)
    pods.page(0, 27.0, vllm(slow=10))
    assert not {each for each in pods.measures(27.0) if each.name.startswith("LATENCY")}
