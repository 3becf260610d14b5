"""Ranges of samples become the moments of a workload: with those that have gone, without holes that look like zeros."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from autoscaler.model.past import Moment
from autoscaler.model.signal import SignalSpec
from autoscaler.model.workload import Engine, WorkloadKey
from autoscaler.signals.aggregates import PART, Labels
from autoscaler.signals.past import Past, doubled, family_of, knowable, presence
from autoscaler.signals.range_reader import Ranges, RangeSeries
from autoscaler.signals.targets import PodAddress, ScrapeTarget

BEGIN = 1_700_000_000
KEY = WorkloadKey("ml", "llama")
QUEUE = SignalSpec("queue", 10.0, 7.0)
A, B, GONE = (f"llama-1a2b3c4d-7c9d8f6b5-{end}" for end in ("x8k2p", "b4c6d", "zz2zz"))
OTHER = "llama-tiny-1a2b3c4d-7c9d8f6b5-x8k2p"
Values = Mapping[str, Mapping[int, float]]  # pod → second → value


def target(*pods: str, created: int | None = BEGIN - 3600) -> ScrapeTarget:
    at = "" if created is None else datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ScrapeTarget(
        8000, "/metrics", Engine.VLLM, (QUEUE,), tuple(PodAddress(pod, f"uid-{pod}", "10.0.0.1", at) for pod in pods)
    )


def ranges(values: Values, part: str, own_instants: Mapping[str, Mapping[int, int]] | None = None) -> list[RangeSeries]:
    """What Prometheus has: `values`, or with `part` instant when each was taken."""
    found = []
    for pod, seconds in values.items():
        labels = {"namespace": "ml", "pod": pod, PART: f"{part} 0"}
        instants = (own_instants or {}).get(pod, {})
        shown = tuple(
            (float(BEGIN + at), float(BEGIN + instants.get(at, at)) if part == "instant" else value)
            for at, value in sorted(seconds.items())
        )
        found.append(RangeSeries(labels, shown))
    return found


def moments(
    pods: ScrapeTarget,
    values: Values,
    seconds: int,
    scraped: Values | None = None,
    instants: Mapping[str, Mapping[int, int]] | None = None,
    offset_s: float = 0.0,
) -> list[Moment]:
    """`scraped`: who Prometheus tried to scrape, with or without success; else those with values."""

    async def replay() -> list[Moment]:
        past = Past({KEY: pods}, Labels(), 1.0, BEGIN + offset_s)
        quantities = []
        for (source,) in past.groups:
            waiting = source.key == "waiting requests"
            shown = ranges(values, "value") + ranges(values, "instant", instants) if waiting else []
            quantities.append(Ranges(tuple(shown)))
        there = Ranges(tuple(ranges(values if scraped is None else scraped, "instant", instants)))
        steps = range(BEGIN, BEGIN + seconds)
        for part in (steps[: seconds // 2], steps[seconds // 2 :]):
            await past.feed(quantities, there, part, 1, offset_s)
        return past.moments[KEY]

    return asyncio.run(replay())


def steady(value: float, begin: int, end: int) -> dict[int, float]:
    return dict.fromkeys(range(begin, end), value)


def test_each_second_has_the_sum_over_all_who_were_there() -> None:
    found = moments(target(A, B), {A: steady(3, 0, 10), B: steady(4, 0, 10)}, 10)
    assert [each.at_s for each in found] == [BEGIN + at for at in range(10)]
    assert {each.values["queue"] for each in found} == {7.0}
    assert {(each.ready, each.whole) for each in found} == {(2, frozenset({"queue"}))}


def test_a_pod_that_has_gone_counts_while_it_was_there() -> None:
    values = {A: steady(3, 0, 20), GONE: steady(9, 0, 8), OTHER: steady(99, 0, 20)}
    found = moments(target(A), values, 20)
    assert [each.ready for each in found] == [2] * 8 + [1] * 12
    assert [each.values["queue"] for each in found[:8]] == [12.0] * 8
    assert {each.values["queue"] for each in found[12:]} == {3.0}
    assert all(each.whole for each in found)


def test_a_pod_that_has_gone_and_could_not_be_read_is_a_hole() -> None:
    values = {A: steady(3, 0, 20), GONE: steady(9, 0, 5)}
    found = moments(target(A), values, 20, scraped={A: steady(1, 0, 20), GONE: steady(1, 0, 12)})
    assert [each.at_s - BEGIN for each in found if not each.whole] == list(range(7, 12))


def test_a_pod_of_today_without_values_is_a_hole() -> None:
    values = {A: steady(3, 0, 20), B: steady(4, 6, 20)}
    found = moments(target(A, B), values, 20)
    assert [each.at_s - BEGIN for each in found if not each.whole] == list(range(6))
    unknown = moments(target(A, B, created=None), values, 20)
    assert [each.at_s - BEGIN for each in unknown if not each.whole] == list(range(6))


def test_a_pod_that_was_made_meanwhile_counts_from_its_first_value() -> None:
    values = {A: steady(3, 0, 20), B: steady(4, 6, 20)}
    scraped = {A: steady(1, 0, 20), B: steady(1, 2, 20)}
    found = moments(target(A, B, created=BEGIN + 1), values, 20, scraped)
    assert [each.ready for each in found] == [1] * 6 + [2] * 14
    assert all(each.whole for each in found)


def test_a_hole_in_the_samples_is_a_hole() -> None:
    values = {A: {**steady(3, 0, 8), **steady(3, 14, 20)}}
    found = moments(target(A), values, 20)
    assert [each.at_s - BEGIN for each in found if not each.whole] == [10, 11, 12, 13]


def test_a_sample_that_prometheus_repeats_grows_old() -> None:
    """After it was killed it has no mark that a series ended, and shows the last value for five minutes."""
    repeated = {A: {at: min(at, 8) for at in range(20)}}
    found = moments(target(A), {A: steady(3, 0, 20)}, 20, instants=repeated)
    assert [each.at_s - BEGIN for each in found if not each.whole] == list(range(11, 20))


def test_its_clock_is_not_ours() -> None:
    found = moments(target(A), {A: steady(3, 0, 10)}, 10, offset_s=-40.4)
    assert [each.at_s for each in found] == [BEGIN - 40 + at for at in range(10)]
    assert all(each.whole for each in found)


@pytest.mark.parametrize(
    ("pod", "family"),
    [
        ("llama-7c9d8f6b5-x8k2p", "llama-*-*"),
        ("llama-5d4f-7c9d8f6b5-x8k2p", "llama-5d4f-*-*"),
        ("llama-0", "llama-#"),
        ("llama-0-1", "llama-0-#"),
        ("llama-x8k2p", "llama-*"),
        ("llama", None),
        ("llama-main", None),
    ],
)
def test_pods_of_one_object_are_of_one_family(pod: str, family: str | None) -> None:
    assert family_of(pod) == family


def test_without_a_family_nothing_is_known_of_those_that_have_gone() -> None:
    assert knowable(target(A, B), True)
    assert not knowable(target(A, "by-hand"), True)
    assert not knowable(target(), True)


def test_a_metric_whose_type_only_the_page_knows_is_not_taken_from_prometheus() -> None:
    for name, by_pages, known in (("jobs", True, False), ("jobs", False, True), ("jobs_total", True, True)):
        own = replace(target(A), signals=(SignalSpec(name, 10.0, 7.0),))
        assert knowable(own, by_pages) is known


def test_the_questions_keep_to_our_series() -> None:
    labels = Labels("ns", "p", (("cluster", "a"),))
    assert presence(labels) == 'max by (ns, p) (timestamp(up{cluster="a"}))'
    past = Past({KEY: target(A)}, labels, 1.0, 0.0)
    assert doubled(past.groups[0], labels).endswith('{cluster="a"})) > 1')
