"""What successive pages of several pods are worth: values, samples, quality. Pure: times are arguments."""

from __future__ import annotations

import math

import pytest

from autoscaler.model.signal import PodFault, Quality, Sample, SignalSpec
from autoscaler.model.workload import Engine
from autoscaler.signals.faults import Fault
from autoscaler.signals.histograms import bucket_increase, quantile
from autoscaler.signals.history import increase
from autoscaler.signals.pages import plan_for, read_page
from autoscaler.signals.readings import WorkloadReadings
from autoscaler.signals.targets import PodAddress, ScrapeTarget

WINDOW_S = 15.0


def vllm(
    running: float | str = 0,
    waiting: float | str = 0,
    finished: float = 0,
    *,
    tokens: float = 0,
    kv: float | str = 0,
    slow: float = 0,
    fast: float = 0,
    more: str = "",
) -> bytes:
    """A short vLLM page. `fast` requests took under 1 s, `slow` ones between 1 and 2.5 s."""
    at = 'engine="0",model_name="m"'
    return (
        f"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{{at}}} {running}\n"
        f"vllm:num_requests_waiting{{{at}}} {waiting}\n"
        f"vllm:kv_cache_usage_perc{{{at}}} {kv}\n"
        f'vllm:request_success_total{{{at},finished_reason="stop"}} {finished}\n'
        f"vllm:prompt_tokens_total{{{at}}} {tokens}\n"
        f"vllm:generation_tokens_total{{{at}}} {3 * tokens}\n"
        f'vllm:e2e_request_latency_seconds_bucket{{{at},le="0.5"}} 0\n'
        f'vllm:e2e_request_latency_seconds_bucket{{{at},le="1.0"}} {fast}\n'
        f'vllm:e2e_request_latency_seconds_bucket{{{at},le="2.5"}} {fast + slow}\n'
        f'vllm:e2e_request_latency_seconds_bucket{{{at},le="+Inf"}} {fast + slow}\n'
        f"{more}"
    ).encode()


class Pods:
    """A workload whose pods' pages the test hands in."""

    def __init__(self, pods: int, *signals: str, engine: Engine = Engine.VLLM) -> None:
        self.specs = tuple(SignalSpec(name, 1.0, 1.0, percentile=0.5) for name in signals)
        self.engine = engine
        self.workload = WorkloadReadings(self.target(pods), WINDOW_S)

    def target(self, pods: int, first: int = 0) -> ScrapeTarget:
        addresses = tuple(PodAddress(f"p{n}", f"uid-{n}", f"10.0.0.{n}") for n in range(first, first + pods))
        return ScrapeTarget(8000, "/metrics", self.engine, self.specs, addresses)

    def page(self, pod: int, at_s: float, page: bytes) -> None:
        plan = plan_for(self.engine, tuple(spec.name for spec in self.specs))
        self.workload.pods[f"uid-{pod}"].observe(plan, read_page(page, plan, at_s), at_s, WINDOW_S)

    def fails(self, pod: int, reason: str) -> None:
        self.workload.pods[f"uid-{pod}"].observe_fault(reason)

    def sampled(self, name: str, at_s: float) -> float | None:
        """The sample of this second."""
        self.workload.sample(at_s, at_s, 1.0)
        samples = self.workload.signals(at_s, 1.0).readings[name].samples
        return samples[-1].value if samples and samples[-1].at_s == at_s else None

    def quality(self, name: str, now_s: float) -> Quality:
        return self.workload.signals(now_s, 1.0).readings[name].quality


def test_concurrency_is_what_all_pods_run_and_queue() -> None:
    pods = Pods(2, "concurrency", "queue")
    pods.page(0, 10.0, vllm(running=3, waiting=2))
    pods.page(1, 10.5, vllm(running=4))
    assert pods.sampled("concurrency", 11) == 9.0
    assert pods.workload.signals(11, 1.0).readings["queue"].value == 2.0


def test_ranks_add_their_requests_but_not_their_caches() -> None:
    pods = Pods(1, "concurrency", "kv-cache")
    rank = 'engine="1",model_name="m"'
    more = f"vllm:num_requests_running{{{rank}}} 5\nvllm:num_requests_waiting{{{rank}}} 1\n"
    pods.page(0, 10.0, vllm(running=3, kv=0.25, more=more + f"vllm:kv_cache_usage_perc{{{rank}}} 0.75\n"))
    assert pods.sampled("concurrency", 10) == 9.0
    assert pods.workload.signals(10, 1.0).readings["kv-cache"].value == 0.75


def test_the_cache_of_a_workload_is_the_mean_over_its_pods() -> None:
    pods = Pods(2, "kv-cache")
    pods.page(0, 10.0, vllm(kv=0.2))
    pods.page(1, 10.0, vllm(kv=0.6))
    assert pods.sampled("kv-cache", 10) == pytest.approx(0.4)


def test_a_pod_that_has_just_become_ready_adds_nothing_to_a_level_until_it_is_measured() -> None:
    pods = Pods(1, "kv-cache")
    pods.page(0, 20.0, vllm(kv=0.8))
    assert pods.sampled("kv-cache", 20) == 0.8
    pods.workload.retarget(pods.target(2), 20.5)
    assert pods.sampled("kv-cache", 21) == 0.4, "times two pods it is what one of them carries"
    assert pods.quality("kv-cache", 21) is Quality.PARTIAL, "and lowers nothing"
    pods.page(0, 23.0, vllm(kv=0.8))
    assert pods.sampled("kv-cache", 24) == 0.8, "it stays silent: nobody knows, so it counts like the other"
    pods.page(1, 24.0, vllm(kv=0.6))
    assert pods.sampled("kv-cache", 25) == pytest.approx(0.7)


def test_old_names_are_understood_and_not_added_to_new_ones() -> None:
    old = vllm(kv=0.5).replace(b"kv_cache_usage_perc", b"gpu_cache_usage_perc")
    pods = Pods(1, "kv-cache")
    pods.page(0, 10.0, old)
    assert pods.sampled("kv-cache", 10) == 0.5
    pods.page(0, 11.0, vllm(kv=0.6, more="vllm:gpu_cache_usage_perc 0.9\n"))
    assert pods.sampled("kv-cache", 11) == 0.6


def test_rates_come_from_successive_pages() -> None:
    pods = Pods(1, "throughput", "tokens")
    pods.page(0, 10.0, vllm(finished=100, tokens=1000))
    assert pods.sampled("throughput", 10) is None
    pods.page(0, 12.0, vllm(finished=110, tokens=1500))
    assert pods.sampled("throughput", 12) == 5.0
    assert pods.workload.signals(12, 1.0).readings["tokens"].value == 1000.0


def test_a_counter_that_began_anew_counts_from_zero() -> None:
    pods = Pods(1, "throughput")
    pods.page(0, 10.0, vllm(finished=100))
    for at_s, finished, rate in ((11.0, 105, 5.0), (12.0, 8, 8.0), (13.0, 3, 8.0), (14.0, 5, 2.0)):
        pods.page(0, at_s, vllm(finished=finished))
        assert pods.sampled("throughput", at_s) == rate, "what was lost with a restart is not a rate of nothing"
    assert increase({b"a": 5, b"b": 7}, {b"a": 6, b"b": 2, b"c": 1}) == 4


def test_a_sample_that_is_dated_otherwise_by_the_pod_is_no_sample_of_now() -> None:
    """A page that somebody shows again would else look idle for ever; one of a wrong clock is not trusted either."""
    page = vllm(running=3, waiting=2).decode()
    for stamp_s, value in ((1000.0, 5.0), (990.0, 5.0), (1010.0, 5.0), (980.0, None), (1020.0, None), (4600.0, None)):
        pods = Pods(1, "concurrency")
        dated = "".join(
            f"{line}{'' if line.startswith('#') else f' {stamp_s * 1000:.0f}'}\n" for line in page.splitlines()
        )
        pods.page(0, 1000.0, dated.encode())
        reading = pods.workload.signals(1000.0, 1.0).readings["concurrency"]
        assert pods.sampled("concurrency", 1000.0) == value
        assert [each.reason for each in reading.faults] == ([] if value else ["dated otherwise"])


def test_a_series_that_a_page_has_twice_is_a_fault_and_not_a_sum() -> None:
    pods = Pods(1, "concurrency", "throughput")
    pods.page(0, 10.0, vllm(running=3, waiting=2, finished=100))
    page = vllm(running=3, waiting=2, finished=110).decode()
    [line] = [line for line in page.splitlines() if line.startswith("vllm:num_requests_running")]
    pods.page(0, 20.0, (page + line.rpartition(" ")[0] + " 0\n").encode())
    readings = pods.workload.signals(20.0, 1.0).readings
    assert [fault.reason for fault in readings["concurrency"].faults] == ["printed twice"]
    assert readings["throughput"].faults == ()


def test_a_counter_that_is_away_for_a_page_is_not_counted_anew() -> None:
    pods = Pods(1, "throughput")
    pods.page(0, 10.0, vllm(finished=1000))
    pods.page(0, 11.0, vllm(finished=1001))
    pods.page(0, 12.0, vllm().replace(b"vllm:request_success", b"vllm:renamed"))
    pods.page(0, 13.0, vllm(finished=1005))
    assert pods.sampled("throughput", 13) == 2.0


def test_a_missed_page_repeats_the_pods_last_value_however_old() -> None:
    pods = Pods(2, "concurrency")
    pods.page(0, 10.0, vllm(running=3))
    pods.page(1, 10.0, vllm(running=4))
    pods.fails(1, Fault.TIME_OUT)
    for at_s in range(11, 100):
        pods.page(0, float(at_s), vllm(running=5))
        assert pods.sampled("concurrency", at_s) == 9.0


def test_quality_follows_the_age_of_the_last_good_page() -> None:
    pods = Pods(2, "concurrency")
    assert pods.quality("concurrency", 10.0) is Quality.ABSENT
    pods.page(0, 10.0, vllm(running=3))
    pods.workload.sample(10, 10.0, 1.0)
    assert pods.quality("concurrency", 10.0) is Quality.PARTIAL
    pods.page(1, 10.5, vllm(running=3))
    pods.fails(1, "http 500")
    assert pods.quality("concurrency", 12.9) is Quality.FRESH
    assert pods.quality("concurrency", 13.1) is Quality.PARTIAL
    assert pods.quality("concurrency", 13.6) is Quality.STALE
    reading = pods.workload.signals(13.6, 1.0).readings["concurrency"]
    assert (reading.value, reading.pods_expected, reading.pods_fresh) == (3.0, 2, 0)
    assert reading.age_s == pytest.approx(3.6)
    assert reading.faults == (PodFault("p0", "overdue"), PodFault("p1", "http 500"))


def test_a_page_from_the_future_is_not_fresh() -> None:
    pods = Pods(1, "concurrency")
    pods.page(0, 1000.0, vllm(running=3))
    pods.workload.sample(1000, 1000.0, 1.0)
    assert pods.quality("concurrency", 500.0) is Quality.STALE


def test_no_pods_is_absent_not_zero() -> None:
    pods = Pods(1, "concurrency")
    pods.page(0, 10.0, vllm(running=3))
    assert pods.sampled("concurrency", 10) == 3.0
    pods.workload.retarget(pods.target(0), 10.2)
    signals = pods.workload.signals(10.5, 1.0)
    assert (signals.readings["concurrency"].value, signals.activity.value) == (None, None)
    assert signals.readings["concurrency"].quality is Quality.ABSENT
    assert signals.activity.quality is Quality.ABSENT


def test_what_a_pod_carried_counts_until_the_others_show_what_became_of_it() -> None:
    pods = Pods(2, "throughput")
    for pod in (0, 1):
        pods.page(pod, 10.0, vllm(finished=0))
        pods.page(pod, 11.0, vllm(finished=4))
    assert pods.sampled("throughput", 11) == 8.0
    pods.workload.retarget(pods.target(1, first=1), 11.5)
    assert pods.sampled("throughput", 12) == 8.0
    pods.page(1, 12.5, vllm(finished=11.5))
    assert pods.sampled("throughput", 13) == 5.0


def test_what_a_pod_carried_is_forgotten_when_the_others_stay_silent() -> None:
    pods = Pods(2, "concurrency")
    for pod in (0, 1):
        pods.page(pod, 11.0, vllm(running=4))
    pods.workload.retarget(pods.target(1, first=1), 11.5)
    assert pods.sampled("concurrency", 14) == 8.0
    assert pods.sampled("concurrency", 15) == 4.0


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("NaN", "not a number"),
        ("+Inf", "infinite"),
        ("-1", "negative"),
        ("x", "malformed"),
        ("1.8446744073709552e+19", "absurdly large"),
    ],
)
def test_an_impossible_value_is_a_fault_and_never_a_number(value: str, fault: str) -> None:
    pods = Pods(1, "queue")
    pods.page(0, 10.0, vllm(waiting=7))
    pods.page(0, 11.0, vllm(waiting=value))
    assert pods.sampled("queue", 11) == 7.0
    reading = pods.workload.signals(14.0, 1.0).readings["queue"]
    assert (reading.quality, reading.faults) == (Quality.STALE, (PodFault("p0", fault),))


def test_activity_needs_two_pages_to_prove_idleness() -> None:
    pods = Pods(1)
    pods.page(0, 10.0, vllm(finished=5))
    assert pods.workload.signals(10.0, 1.0).activity.quality is Quality.ABSENT
    assert pods.workload.signals(10.0, 1.0).activity.faults == (PodFault("p0", "one page only"),)
    pods.page(0, 11.0, vllm(finished=5))
    activity = pods.workload.signals(11.0, 1.0).activity
    assert (activity.value, activity.quality) == (0.0, Quality.FRESH)


def test_a_request_that_came_and_went_between_two_ticks_is_activity() -> None:
    pods = Pods(1)
    for at_s, finished in ((10.0, 5), (11.0, 6), (12.0, 6)):
        pods.page(0, at_s, vllm(finished=finished))
    assert pods.workload.signals(12.5, 1.0).activity.value == 1.0
    pods.page(0, 14.0, vllm(finished=6))
    assert pods.workload.signals(14.5, 1.0).activity.value == 0.0


def test_latency_is_that_of_the_requests_finished_within_the_window() -> None:
    pods = Pods(2, "latency")
    pods.page(0, 10.0, vllm(fast=1000, slow=0))
    pods.page(1, 10.0, vllm(fast=0, slow=1000))
    pods.page(0, 11.0, vllm(fast=1000, slow=3, running=1, finished=3))
    pods.page(1, 11.0, vllm(fast=1, slow=1000, running=1, finished=1))
    # Four finished: one in (0.5, 1], three in (1, 2.5]; the median's rank 2 lies one third into the latter.
    assert pods.sampled("latency", 11) == pytest.approx(1.5)


def test_a_window_without_finished_requests_repeats_the_level_while_work_goes_on() -> None:
    pods = Pods(1, "latency")
    pods.page(0, 10.0, vllm(running=1))
    pods.page(0, 11.0, vllm(running=1, slow=2, finished=2))
    assert pods.sampled("latency", 11) == pytest.approx(1.75)
    for at_s in range(12, 40):
        pods.page(0, float(at_s), vllm(running=1, slow=2, finished=2))
        assert pods.sampled("latency", at_s) == pytest.approx(1.75)
    pods.page(0, 41.0, vllm(running=0, slow=2, finished=2))
    assert pods.sampled("latency", 41) == 0.0


def test_a_level_that_was_never_seen_is_unknown_while_work_goes_on() -> None:
    pods = Pods(1, "latency")
    for at_s in (10.0, 11.0, 12.0):
        pods.page(0, at_s, vllm(running=2))
    assert pods.sampled("latency", 12) is None
    assert pods.quality("latency", 12.0) is Quality.ABSENT


def test_a_pods_own_metric_is_a_gauge_or_a_rate_as_its_type_says() -> None:
    pods = Pods(1, "jobs", "done", engine=Engine.CUSTOM)
    text = '# TYPE jobs gauge\njobs{{q="a"}} 2\njobs{{q="b"}} 3\n# TYPE done counter\ndone {}\n'
    pods.page(0, 10.0, text.format(7).encode())
    pods.page(0, 12.0, text.format(17).encode())
    pods.workload.sample(12, 12.0, 1.0)
    signals = pods.workload.signals(12.0, 1.0)
    assert (signals.readings["jobs"].value, signals.readings["done"].value) == (5.0, 5.0)
    assert (signals.activity.value, signals.engine) == (15.0, "")


def test_samples_are_whole_seconds_at_most_one_each_and_the_last_sixteen() -> None:
    pods = Pods(1, "concurrency")
    for at_s in range(10, 40):
        pods.page(0, float(at_s), vllm(running=at_s))
        pods.workload.sample(at_s, at_s + 0.2, 1.0)
        pods.workload.sample(at_s, at_s + 0.9, 1.0)
    samples = pods.workload.signals(39.9, 1.0).readings["concurrency"].samples
    assert samples == tuple(Sample(at_s, float(at_s)) for at_s in range(24, 40))


def test_a_clock_set_back_leaves_samples_strictly_increasing() -> None:
    pods = Pods(1, "concurrency")
    for at_s in (10, 11, 12, 13, 11, 12):
        pods.page(0, float(at_s), vllm(running=1))
        pods.workload.sample(at_s, float(at_s), 1.0)
    samples = pods.workload.signals(12.0, 1.0).readings["concurrency"].samples
    assert [sample.at_s for sample in samples] == [10, 11, 12]


@pytest.mark.parametrize(
    ("share", "counts", "expected"),
    [
        (0.95, {1.0: 50.0, 2.0: 40.0, 4.0: 10.0, math.inf: 0.0}, 3.0),
        (0.5, {1.0: 10.0, math.inf: 0.0}, 0.5),
        (0.99, {1.0: 10.0, 2.0: 0.0, math.inf: 10.0}, 2.0),
        (0.5, {1.0: 0.0, 2.0: 0.0, 4.0: 8.0, math.inf: 0.0}, 3.0),
        (0.5, {-1.0: 10.0, math.inf: 0.0}, -1.0),
        (0.5, {1.0: 0.0, math.inf: 0.0}, None),
        (0.5, {math.inf: 5.0}, None),
        (0.5, {}, None),
    ],
)
def test_quantiles_are_those_of_prometheus(share: float, counts: dict[float, float], expected: float | None) -> None:
    assert quantile(share, counts) == expected


def test_buckets_grow_from_page_to_page_and_survive_a_restart() -> None:
    inf = math.inf
    assert bucket_increase({0.1: 5, inf: 6}, {0.1: 7, inf: 9}) == {0.1: 2, inf: 1}
    assert bucket_increase({0.1: 5, inf: 6}, {0.1: 1, inf: 2}) == {0.1: 1, inf: 1}
    assert bucket_increase({1.0: 4, inf: 6}, {0.5: 0, 1.0: 4, 2.0: 6, inf: 8}) == {0.5: 0, 1.0: 0, 2.0: 2, inf: 0}
