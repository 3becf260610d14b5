"""The requests of a revision's pods from page to page, for every engine of the dictionary. Times are arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from autoscaler.model.signal import RequestCounts
from autoscaler.model.workload import Engine
from autoscaler.signals.counters import NOTHING, PodCounts, counts_of
from autoscaler.signals.engines import ENGINES, recognise
from autoscaler.signals.readings import WorkloadReadings
from autoscaler.signals.targets import PodAddress, ScrapeTarget
from tests.signals.engine_pages import PAGES, Load, vllm

FINISHED_ONLY = {"triton", "tensorrt-llm, older"}  # what runs is not shown
WHOLE = sorted(PAGES.keys() - FINISHED_ONLY)
IDLE = Load(running=0, waiting=0, finished=7)
engines = pytest.mark.parametrize("name", WHOLE)


class Pod:
    """One pod of an engine, and what its pages say."""

    def __init__(self, name: str = "vllm") -> None:
        self.page: Callable[[Load], str] = PAGES[name]
        self.counts = PodCounts()

    def show(self, at_s: float, load: Load, cut: Callable[[str], str] = lambda page: page) -> RequestCounts:
        page = cut(self.page(load)).encode()
        engine = recognise(page)
        assert engine is not None
        self.counts.observe(engine, page, at_s)
        return self.whole

    @property
    def whole(self) -> RequestCounts:
        return counts_of([self.counts], NOTHING, True, 0.0)


def test_every_engine_of_the_dictionary_is_tried() -> None:
    assert {recognise(page(IDLE).encode()) for page in PAGES.values()} == set(ENGINES)


@engines
def test_the_first_page_is_a_base_and_proves_no_request(name: str) -> None:
    assert Pod(name).show(10.0, IDLE) == RequestCounts(in_flight=0, counted_at=10.0, counted_from=10.0)
    seen = Pod(name).show(10.0, replace(IDLE, running=2, waiting=1))
    assert seen == RequestCounts(in_flight=3, counted_at=10.0, counted_from=10.0, busy_at=10.0)


@engines
def test_a_pod_whose_counters_stand_at_zero_is_known_from_its_beginning(name: str) -> None:
    seen = Pod(name).show(10.0, Load(running=0, waiting=0, finished=0))
    assert (seen.in_flight, seen.counted_at, seen.counted_from) == (0, 10.0, 0.0)


@engines
def test_a_request_that_began_and_ended_between_two_pages_is_seen(name: str) -> None:
    pod = Pod(name)
    pod.show(10.0, IDLE)
    seen = pod.show(11.0, replace(IDLE, finished=9))
    assert (seen.last_request_at, seen.busy_at, seen.in_flight, seen.counted_at) == (11.0, 11.0, 0, 11.0)
    seen = pod.show(12.0, replace(IDLE, finished=9))
    assert (seen.last_request_at, seen.busy_at, seen.counted_at, seen.counted_from) == (11.0, 11.0, 12.0, 10.0)


@engines
@pytest.mark.parametrize("queued", [False, True], ids=["running", "waiting"])
def test_a_request_in_flight_is_new_once_and_keeps_the_pod_busy_until_it_ended(name: str, queued: bool) -> None:
    pod, load = Pod(name), replace(IDLE, waiting=2) if queued else replace(IDLE, running=2)
    pod.show(10.0, IDLE)
    for at_s in (11.0, 12.0):
        seen = pod.show(at_s, load)
        assert (seen.in_flight, seen.last_request_at, seen.busy_at) == (2, 11.0, at_s)
    seen = pod.show(13.0, replace(IDLE, finished=9))
    assert (seen.in_flight, seen.last_request_at, seen.busy_at) == (0, 11.0, 13.0), "they ended, and none was new"


@engines
def test_where_one_ends_and_another_begins_that_one_is_new(name: str) -> None:
    pod = Pod(name)
    pod.show(10.0, replace(IDLE, running=2))
    assert pod.show(11.0, Load(running=2, waiting=0, finished=9)).last_request_at == 11.0
    assert pod.show(12.0, Load(running=0, waiting=0, finished=11)).last_request_at == 11.0


@engines
def test_a_missing_page_hides_nothing(name: str) -> None:
    pod = Pod(name)
    pod.show(10.0, IDLE)
    seen = pod.show(25.0, replace(IDLE, finished=8))
    assert (seen.last_request_at, seen.counted_at, seen.counted_from) == (25.0, 25.0, 10.0)


@engines
def test_a_process_that_began_anew_is_known_from_then_on(name: str) -> None:
    pod = Pod(name)
    pod.show(10.0, replace(IDLE, running=2))
    seen = pod.show(11.0, Load(running=0, waiting=0, finished=0))
    assert (seen.last_request_at, seen.busy_at, seen.counted_at, seen.counted_from) == (None, 11.0, 11.0, 11.0)
    seen = pod.show(12.0, Load(running=1, waiting=0, finished=0))
    assert (seen.last_request_at, seen.counted_from) == (12.0, 11.0)


@engines
def test_what_another_process_has_finished_since_it_began_is_new(name: str) -> None:
    pod = Pod(name)
    pod.show(10.0, replace(IDLE, running=5))
    seen = pod.show(11.0, Load(running=0, waiting=0, finished=4))
    assert (seen.last_request_at, seen.counted_from) == (11.0, 11.0)


@pytest.mark.parametrize("name", sorted(FINISHED_ONLY))
def test_where_what_runs_is_not_shown_a_finished_request_is_proof_and_silence_is_none(name: str) -> None:
    pod = Pod(name)
    pod.show(10.0, Load(running=3, waiting=0, finished=7))
    seen = pod.show(11.0, Load(running=3, waiting=0, finished=7))
    assert (seen.in_flight, seen.counted_at, seen.last_request_at) == (None, None, None)
    seen = pod.show(12.0, Load(running=3, waiting=0, finished=8))
    assert (seen.in_flight, seen.counted_at, seen.last_request_at, seen.supported) == (None, None, 12.0, True)


def without(*names: str) -> Callable[[str], str]:
    return lambda page: "".join(line for line in page.splitlines(True) if not line.startswith(names)) + "tgi_x 1\n"


def test_a_counter_that_is_printed_from_the_first_request_on_begins_with_it() -> None:
    """TGI's and SGLang's: absent is unknown, but what appears afterwards is new."""
    pod = Pod("tgi")
    series = "tgi_request_success", "tgi_batch_current_size", "tgi_queue_size"
    seen = pod.show(10.0, IDLE, without(*series))
    assert (seen.in_flight, seen.counted_at) == (None, None), "nobody knows that the pod is idle"
    seen = pod.show(11.0, replace(IDLE, running=1), without("tgi_request_success"))
    assert (seen.in_flight, seen.counted_at, seen.last_request_at) == (1, None, 11.0)
    seen = pod.show(12.0, replace(IDLE, finished=1))
    assert (seen.in_flight, seen.counted_at, seen.last_request_at, seen.counted_from) == (0, 12.0, 11.0, 12.0)
    pod = Pod("tgi")
    pod.show(10.0, IDLE, without(*series))
    assert pod.show(11.0, replace(IDLE, finished=1)).last_request_at == 11.0


@pytest.mark.parametrize(
    ("series", "instead"),
    [
        ("vllm:num_requests_running{", "renamed{"),
        ("vllm:request_success_total{", "renamed{"),
        ('vllm:num_requests_running{engine="0",model_name="m"} 1', "vllm:num_requests_running x"),
        ('vllm:num_requests_waiting{engine="0",model_name="m"} 0', "vllm:num_requests_waiting -1"),
    ],
    ids=["what runs is lost", "what finished is lost", "malformed", "negative"],
)
def test_half_a_page_changes_nothing(series: str, instead: str) -> None:
    """A request ends: by half a page it would be in both places, or in none."""
    pod, after = Pod(), Load(running=1, waiting=0, finished=8)
    before = pod.show(10.0, Load(running=2, waiting=0, finished=7))
    assert series in pod.page(after)
    assert pod.show(11.0, after, lambda page: page.replace(series, instead)) == before
    seen = pod.show(12.0, after)
    assert (seen.last_request_at, seen.in_flight, seen.counted_at) == (None, 1, 12.0)


def test_what_follows_a_first_page_that_could_not_be_read_is_a_base_like_any_other() -> None:
    pod = Pod()
    seen = pod.show(
        10.0, IDLE, lambda page: page.replace("vllm:request_success_total{", "vllm:request_success_total x{")
    )
    assert seen == RequestCounts()
    assert pod.show(11.0, IDLE) == RequestCounts(in_flight=0, counted_at=11.0, counted_from=11.0)


def test_a_label_set_that_is_away_for_a_page_is_not_counted_anew() -> None:
    pod = Pod()
    pod.show(10.0, IDLE)
    pod.show(12.0, IDLE, lambda page: "".join(line for line in page.splitlines(True) if '"length"' not in line))
    seen = pod.show(13.0, IDLE)
    assert (seen.last_request_at, seen.busy_at, seen.counted_at) == (None, None, 13.0)


def test_one_rank_that_began_anew_hides_no_request_of_another() -> None:
    pod = Pod("vllm, four data-parallel ranks")
    pod.show(10.0, replace(IDLE, finished=8))
    page = vllm(replace(IDLE, finished=8), ranks=4).replace(
        'vllm:request_success_total{engine="3",model_name="m",finished_reason="stop"} 1.0',
        'vllm:request_success_total{engine="3",model_name="m",finished_reason="stop"} 0.0',
    )
    pod.counts.observe(Engine.VLLM, page.encode(), 11.0)
    assert (pod.whole.last_request_at, pod.whole.counted_from) == (None, 11.0)


class Revision:
    """A revision whose pods' pages the test hands in, as the scraper does."""

    def __init__(self, pods: int, engine: Engine = Engine.VLLM) -> None:
        self.engine = engine
        self.workload = WorkloadReadings(self.target(range(pods)), 15.0)

    def target(self, pods: range, counters: bool = True) -> ScrapeTarget:
        addresses = tuple(PodAddress(f"p{n}", f"uid-{n}", f"10.0.0.{n}") for n in pods)
        return ScrapeTarget(8000, "/metrics", self.engine, (), addresses, counters=counters)

    def show(self, pod: int, at_s: float, load: Load) -> None:
        self.workload.counts[f"uid-{pod}"].observe(Engine.VLLM, vllm(load).encode(), at_s)

    @property
    def requests(self) -> RequestCounts | None:
        return self.at(12.9)

    def at(self, now_s: float) -> RequestCounts | None:
        """With a page a second."""
        return self.workload.signals(now_s, 1.0).requests


def test_of_several_pods_all_must_be_known_and_each_may_have_had_the_request() -> None:
    revision = Revision(2)
    revision.show(0, 10.0, IDLE)
    assert revision.requests == RequestCounts(None, None, None, 10.0, None), "of one pod nothing is known"
    revision.show(1, 10.5, replace(IDLE, running=1))
    assert revision.requests == RequestCounts(1, None, 10.0, 10.5, 10.5)
    revision.show(0, 11.0, replace(IDLE, running=2))
    revision.show(1, 11.5, IDLE)
    assert revision.requests == RequestCounts(2, 11.0, 11.0, 10.5, 11.5)


def test_a_pod_that_shows_nothing_for_three_periods_makes_the_revision_unknown_and_what_it_had_stays() -> None:
    revision = Revision(2)
    for at_s in (10.0, 11.0):
        revision.show(0, at_s, replace(IDLE, running=at_s - 10.0))
        revision.show(1, at_s, IDLE)
    revision.show(1, 12.0, IDLE)
    assert revision.at(13.9) == RequestCounts(1, 11.0, 11.0, 10.0, 11.0), "one page may be missing"
    assert revision.at(14.0) == RequestCounts(None, 11.0, None, 10.0, 11.0)
    revision.show(0, 14.5, replace(IDLE, finished=8))
    assert revision.at(14.6) == RequestCounts(0, 11.0, 12.0, 10.0, 14.5), "the gap hid nothing: counters go on"


def test_a_new_pod_makes_the_revision_unknown_until_its_first_page() -> None:
    revision = Revision(1)
    revision.show(0, 10.0, IDLE)
    revision.show(0, 11.0, replace(IDLE, finished=9))
    revision.workload.retarget(revision.target(range(2)), 11.5)
    assert revision.requests == RequestCounts(None, 11.0, None, 10.0, 11.0)
    revision.show(1, 12.0, Load(running=0, waiting=0, finished=0))
    assert revision.requests == RequestCounts(0, 11.0, 11.0, 10.0, 11.0), "it never had a request: no gap"


def test_what_a_pod_had_is_remembered_when_it_went() -> None:
    revision = Revision(2)
    for pod in range(2):
        revision.show(pod, 10.0, IDLE)
    revision.show(1, 11.0, replace(IDLE, running=3))
    revision.workload.retarget(revision.target(range(1)), 11.5)
    assert revision.requests == RequestCounts(0, 11.0, 10.0, 10.0, 11.0)


def test_what_the_revision_before_was_asked_is_not_the_new_ones() -> None:
    """An update that takes over is read under the workload's own key from then on."""
    revision = Revision(1)
    revision.show(0, 10.0, IDLE)
    revision.show(0, 11.0, replace(IDLE, finished=9))
    revision.workload.retarget(replace(revision.target(range(1, 2)), revision="llama-2"), 11.5)
    assert revision.requests == RequestCounts()


def test_without_pods_nothing_is_known_and_where_nobody_asks_nothing_is_counted() -> None:
    revision = Revision(1)
    revision.show(0, 10.0, replace(IDLE, running=1))
    revision.workload.retarget(revision.target(range(0)), 11.0)
    assert revision.requests == RequestCounts(None, None, None, 0.0, 10.0)
    revision.workload.retarget(revision.target(range(1), counters=False), 12.0)
    assert revision.at(12.9) is None
    assert not revision.workload.counts
    revision.workload.retarget(revision.target(range(1)), 13.0)
    assert revision.requests == RequestCounts(), "and it begins anew"


def test_an_engine_that_we_do_not_know_will_never_show_its_requests() -> None:
    assert Revision(1, Engine.CUSTOM).requests == RequestCounts(supported=False)
    assert Revision(1, Engine.TRITON).requests == RequestCounts(supported=True)
    assert Revision(1, Engine.AUTO).requests == RequestCounts(supported=True), "no page yet"
