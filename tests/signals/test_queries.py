"""What a query of the configuration asks, and what its answers are worth."""

from __future__ import annotations

import math

import pytest

from autoscaler.model.signal import Quality, Shape
from autoscaler.signals.faults import Fault
from autoscaler.signals.prometheus import Answer, Failure, Series
from autoscaler.signals.queries import Outcome, Track, is_selector, judged, named_query, question

NAMES = {"namespace": "ml", "workload": "llama", "revision": "llama-1a2b3c4d"}
SUM = named_query('sum(pending{namespace="{namespace}", service="{workload}"})', Shape.TOTAL, 10.0)
PLAIN = named_query('pending{namespace="{namespace}"}', Shape.TOTAL, 10.0)
OF_PODS = named_query('sum(x{pod=~"{pods}", revision="{revision}"})', Shape.TOTAL, 10.0)


@pytest.mark.parametrize(
    ("template", "plain"),
    [
        ("pending", True),
        (' job:pending:sum{a="{namespace}", b=~"x{2}"} ', True),
        ('{__name__="pending"}', True),
        ('pending{a="sum(x)[5m] offset 1m"}', True),
        ("sum(pending)", False),
        ("pending offset 1m", False),
        ("pending @ 5", False),
        ("pending[5m]", False),
        ("-pending", False),
        ("pending > 1", False),
        ('pending{a="b"} or other', False),
    ],
)
def test_only_a_plain_selector_has_samples_with_instants_of_their_own(template: str, plain: bool) -> None:
    assert is_selector(template) is plain


def test_names_are_filled_in_and_a_plain_selector_is_asked_for_its_instant() -> None:
    assert question(SUM, NAMES, []) == 'sum(pending{namespace="ml", service="llama"})'
    asked = question(PLAIN, NAMES, [])
    assert asked == (
        'label_replace(pending{namespace="ml"}, "tidegate_part", "value", "", "") or '
        'label_replace(timestamp(pending{namespace="ml"}), "tidegate_part", "instant", "", "")'
    )
    assert question(OF_PODS, NAMES, ["a", "b.c"]) == 'sum(x{pod=~"(?:a|b\\\\.c)", revision="llama-1a2b3c4d"})'


def test_what_cannot_be_asked_is_a_fault() -> None:
    assert question(OF_PODS, NAMES, []) is Fault.NO_SAMPLES, "an empty alternative would match everything"
    assert question(OF_PODS, NAMES, ["x" * 60] * 5000) is Fault.QUERY_TOO_LONG


def test_no_more_is_asked_for_than_can_be_used() -> None:
    assert SUM.options == {"limit": "4", "lookback_delta": "30000ms"}


def answer(*values: float, warnings: tuple[str, ...] = ()) -> Answer:
    return Answer(1000.0 if values else None, tuple(Series({"n": str(n)}, v) for n, v in enumerate(values)), warnings)


def dated(instant_s: float) -> Answer:
    parts = (Series({"tidegate_part": "value"}, 5.0), Series({"tidegate_part": "instant"}, instant_s))
    return Answer(1000.0, parts)


def test_a_value_is_as_old_as_its_sample_on_the_clock_of_prometheus() -> None:
    assert judged(PLAIN, dated(993.0), 5000.0) == Outcome(5.0, 4993.0)
    assert judged(SUM, answer(5.0), 5000.0) == Outcome(5.0, 5000.0), "of an expression nobody knows more"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (answer(), "no samples"),
        (answer(1.0, 2.0), "more than one series; aggregate the query, e.g. with sum() or max()"),
        (answer(math.nan), "not a number"),
        (answer(math.inf), "infinite"),
        (answer(-1.0), "negative"),
        (answer(1e18), "absurdly large"),
        (Failure("http 503"), "http 503"),
        (Failure(Fault.QUERY_REFUSED, "parse error"), "query refused"),
    ],
)
def test_what_is_no_value_is_a_fault_and_never_zero(given: Answer | Failure, fault: str) -> None:
    assert judged(SUM, given, 5000.0) == Outcome(fault=f"Prometheus: {fault}")


def test_a_sample_without_an_instant_is_a_fault() -> None:
    assert judged(PLAIN, dated(math.nan), 5000.0).fault == "Prometheus: malformed"
    lacking = Answer(1000.0, (Series({"tidegate_part": "value"}, 5.0),))
    assert judged(PLAIN, lacking, 5000.0).fault == "Prometheus: malformed"


def seen(*outcomes: Outcome) -> Track:
    track = Track()
    for second, outcome in enumerate(outcomes):
        track.enter(outcome)
        track.sample(100 + second)
    return track


def test_a_fresh_value_speaks_for_all_ready_pods_and_an_old_one_for_none() -> None:
    track = seen(Outcome(5.0, 100.0))
    fresh = track.reading("pending", 101.0, 10.0, pods=3)
    assert (fresh.value, fresh.quality, fresh.pods_fresh, fresh.pods_expected, fresh.faults) == (
        5.0,
        Quality.FRESH,
        3,
        3,
        (),
    )
    old = track.reading("pending", 130.0, 10.0, pods=3)
    assert (old.value, old.quality, old.pods_fresh, old.age_s) == (5.0, Quality.STALE, 0, 30.0)
    assert [(fault.pod, fault.reason) for fault in old.faults] == [("query pending", "overdue")]
    ahead = track.reading("pending", 70.0, 10.0, pods=3)
    assert ahead.quality is Quality.STALE, "the clock was set back"


def test_nothing_ever_seen_is_absent() -> None:
    reading = seen(Outcome(fault="Prometheus: no samples")).reading("pending", 101.0, 10.0, pods=2)
    assert (reading.value, reading.quality, reading.samples, reading.pods_fresh) == (None, Quality.ABSENT, (), 0)
    assert reading.faults[0].reason == "Prometheus: no samples"


def test_an_empty_answer_leaves_the_last_value_to_grow_old_with_its_reason() -> None:
    track = seen(Outcome(5.0, 100.0), Outcome(fault="Prometheus: no samples"))
    assert track.reading("pending", 102.0, 10.0, pods=1).quality is Quality.FRESH
    late = track.reading("pending", 131.0, 10.0, pods=1)
    assert (late.value, late.quality, late.faults[0].reason) == (5.0, Quality.STALE, "Prometheus: no samples")


def test_a_warned_answer_raises_and_never_lowers() -> None:
    lower = seen(Outcome(5.0, 100.0), Outcome(1.0, 101.0, partial=True)).reading("pending", 102.0, 10.0, pods=2)
    assert (lower.value, lower.quality, lower.pods_fresh) == (5.0, Quality.PARTIAL, 0)
    assert lower.faults[0].reason == "Prometheus: partial answer"
    higher = seen(Outcome(5.0, 100.0), Outcome(9.0, 101.0, partial=True)).reading("pending", 102.0, 10.0, pods=2)
    assert (higher.value, higher.quality) == (9.0, Quality.PARTIAL)
    failed = seen(Outcome(9.0, 100.0, partial=True), Outcome(fault="Prometheus: refused"))
    assert failed.reading("pending", 102.0, 10.0, pods=2).quality is Quality.PARTIAL, "still nothing to lower on"
    whole = seen(Outcome(9.0, 100.0, partial=True), Outcome(1.0, 101.0)).reading("pending", 102.0, 10.0, pods=2)
    assert (whole.value, whole.quality) == (1.0, Quality.FRESH)
