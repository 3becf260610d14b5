"""Each key of the configuration is one that a running daemon takes, or one of which it says that it cannot."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.model.workload import KpaParameters
from autoscaler.settings.config import Config
from autoscaler.settings.load import parse
from autoscaler.settings.section import Section
from autoscaler.wiring import NEEDS_RESTART, waits_for_restart
from tests.scaling.test_decision import Timeline, workload

TAKEN = {
    "tick",
    "scrape.period",
    "scrape.timeout",
    "scrape.max_page_size",
    "scrape.pages_per_second",
    "prometheus",
    "queries",
    "log.level",
    "metrics.republish",
    "writes.budget_per_second",
    "defaults",
    "kpa",
    "projects",
    "node_pools",
    "activation_pages",
    "ceilings",
    "target_kinds",
}
WHOLE = {"defaults", "kpa", "ceilings", "prometheus"}  # handed over as one value


def keys() -> set[str]:
    found = set()
    for name, value in Config():
        if isinstance(value, Section) and name not in WHOLE:
            found |= {f"{name}.{key}" for key, _ in value}
        else:
            found.add(name)
    return found


def test_a_new_key_must_be_taken_or_named() -> None:
    """Whoever adds a key decides: `Daemon._take` hands it over, or NEEDS_RESTART names it."""
    assert keys() == TAKEN | set(NEEDS_RESTART)
    assert TAKEN.isdisjoint(NEEDS_RESTART)


def test_only_changed_keys_wait_and_a_change_taken_back_does_not() -> None:
    before = config("")
    changed = config("{tick: 1s, api: {port: 9000}, log: {level: debug}, scrape: {period: 2s, concurrency: 8}}")
    assert waits_for_restart(before, changed) == ("api.port", "scrape.concurrency")
    assert waits_for_restart(before, config("tick: 1s")) == ()


def config(text: str) -> Config:
    return parse(text.encode(), {}, name="config.yaml").config


def with_window(timeline: Timeline, stable_window_s: float) -> None:
    kpa = KpaParameters(stable_window_s=stable_window_s)
    timeline.spec = replace(timeline.spec, scaling=replace(timeline.spec.scaling, kpa=kpa))


def test_a_shorter_window_keeps_what_it_has_seen() -> None:
    timeline = Timeline(workload(kpa=KpaParameters(stable_window_s=60.0)), 1)
    timeline.run(70, 40.0)
    assert timeline.run(8, 3.0).desired >= 5  # a minute is long
    with_window(timeline, 6.0)
    assert timeline.run(2, 3.0).desired <= 3  # the last six seconds are known already


def test_a_longer_window_keeps_what_it_has_seen_and_lowers_nothing_until_it_is_full() -> None:
    timeline = Timeline(workload(), 1)
    assert timeline.run(20, 40.0).desired == 6
    with_window(timeline, 60.0)
    assert timeline.run(1, 40.0).desired == 6
    assert timeline.run(30, 3.0).desired == 6
    assert timeline.run(60, 3.0).desired == 1
