"""The demo: the same for a seed, true to its numbers, and never outside its quota."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from autoscaler.cli.demo import demo, watch
from autoscaler.model.resources import GPU
from autoscaler.simulator import report, scenario
from autoscaler.simulator.picture import Picture, sparkline
from autoscaler.simulator.report import Comparison, compare
from autoscaler.simulator.run import Moment, Simulation, fixed
from autoscaler.simulator.scenario import Scenario
from autoscaler.simulator.story import Event, Kind, Story

SEEDS = [7, 11]


def run(chosen: Scenario) -> tuple[Simulation, list[Moment], list[Event]]:
    simulation, story = Simulation(chosen), Story()
    moments = list(simulation.play())
    return simulation, moments, [event for moment in moments for event in story.tell(moment)]


@pytest.fixture(scope="module", params=SEEDS)
def played(request: pytest.FixtureRequest) -> tuple[Simulation, list[Moment], list[Event]]:
    return run(scenario.demo(request.param))


@pytest.fixture(scope="module")
def compared() -> tuple[Scenario, Comparison]:
    chosen = scenario.demo(7)
    simulation, moments, _ = run(chosen)
    return chosen, compare(chosen, simulation.outcomes(), max(moment.gpus for moment in moments))


def test_the_same_seed_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for seed in (7, 7, 8):
        demo(seed, plain=True)
        printed.append(capsys.readouterr().out)

    assert printed[0] == printed[1] != printed[2]


def test_without_a_terminal_it_prints_lines(capsys: pytest.CaptureFixture[str]) -> None:
    demo(7, plain=True)
    plain = capsys.readouterr().out
    demo(7, plain=False)

    assert capsys.readouterr().out == plain
    assert plain.isascii()


def test_the_live_picture_changes_no_number(compared: tuple[Scenario, Comparison]) -> None:
    simulation = Simulation(compared[0])
    terminal = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)

    assert watch(simulation, terminal, live_s=0.5) == compared[1].most_gpus
    assert simulation.outcomes() == compared[1].tidegate.outcomes


def test_the_quota_is_never_exceeded(played: tuple[Simulation, list[Moment], list[Event]]) -> None:
    simulation, moments, _ = played

    for moment in moments:
        live = sum((view.ready + view.starting + view.terminating) * view.model.server.gpus for view in moment.views)
        assert moment.gpus == live <= simulation.scenario.gpus == 12


@pytest.mark.parametrize("gpus", [12, 8])
def test_no_replica_runs_without_its_hold_in_the_ledger(gpus: int) -> None:
    simulation = Simulation(replace(scenario.demo(7), gpus=gpus))
    for moment in simulation.play():
        held = {each.owner: each.vector[GPU] // 1000 for each in simulation.quota.ledger.holds}
        assert sum(held.values()) == simulation.quota.gpus <= gpus
        assert [view for view in moment.views if view.gpus > held.get(str(view.model.spec.key), 0)] == []


def test_requests_are_conserved_in_every_second(played: tuple[Simulation, list[Moment], list[Event]]) -> None:
    simulation, moments, _ = played

    for moment in moments:
        for view in moment.views:
            assert view.arrived == view.finished + view.in_service + view.waiting
    assert [outcome.arrived for outcome in simulation.outcomes()] == [
        len(model.arrivals) for model in simulation.scenario.models
    ]


def test_one_model_goes_to_zero_and_comes_back(played: tuple[Simulation, list[Moment], list[Event]]) -> None:
    simulation, _, events = played
    changes = [event.change for event in events if event.model == "chat-8b"]

    assert changes.index("1 -> 0") < changes.index("0 -> 1")
    assert simulation.outcomes()[1].seconds_at_zero > 0
    assert simulation.outcomes()[0].seconds_at_zero == 0


def test_nothing_goes_to_zero_with_a_request_in_flight(
    played: tuple[Simulation, list[Moment], list[Event]],
) -> None:
    for moment in played[1]:
        for view in moment.views:
            if view.choice is not None and view.choice.after == 0 < view.choice.before:
                assert (view.in_service, view.waiting, view.starting) == (0, 0, 0)


def test_the_quota_clips_and_says_what_is_short(played: tuple[Simulation, list[Moment], list[Event]]) -> None:
    clipped = [event for event in played[2] if event.kind is Kind.QUOTA]

    assert clipped
    assert all("GPU short in project demo" in event.text and "of 12 free" in event.text for event in clipped)


def test_every_change_of_a_count_is_told_once_and_chains(
    played: tuple[Simulation, list[Moment], list[Event]],
) -> None:
    simulation, moments, events = played

    for view, outcome in zip(moments[-1].views, simulation.outcomes(), strict=True):
        told = [event.change.split(" -> ") for event in events if event.model == view.model.name]
        steps = [(int(each[0]), int(each[1])) for each in told if len(each) == 2]
        assert len(steps) == outcome.scale_events
        assert all(before[1] == after[0] for before, after in pairwise(steps))


def test_one_model_alone_is_never_clipped() -> None:
    chosen = scenario.demo(7)
    _, _, events = run(replace(chosen, models=chosen.models[:1]))

    assert Kind.QUOTA not in {event.kind for event in events}


def test_the_fixed_counts_are_what_their_definition_says(compared: tuple[Scenario, Comparison]) -> None:
    chosen, found = compared

    assert found.peak.counts is not None
    for model, count, outcome in zip(chosen.models, found.peak.counts, found.peak.outcomes, strict=True):
        assert outcome.share >= report.PEAK_SHARE
        assert count == 1 or fixed(model, chosen, count - 1).share < report.PEAK_SHARE
        assert outcome.gpu_hours == pytest.approx(count * model.server.gpus * chosen.duration_s / 3600)
    gpus = [count * model.server.gpus for model, count in zip(chosen.models, found.peak.counts, strict=True)]
    assert sum(gpus) <= chosen.gpus


def test_a_quota_too_small_for_the_peak_leaves_one_replica_of_each_model(
    compared: tuple[Scenario, Comparison],
) -> None:
    found = compare(replace(compared[0], gpus=4), compared[1].tidegate.outcomes, 4)

    assert found.peak.counts == (1, 2)


def test_the_printed_results_are_the_measured_ones(
    compared: tuple[Scenario, Comparison], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen, found = compared
    demo(7, plain=True)
    lines = capsys.readouterr().out.splitlines()

    for line in (found.tidegate, found.peak, found.mean):
        printed = next(each for each in lines if each.startswith(f"{line.label}  "))
        assert f"{line.gpu_hours:.2f}" in printed.split()
        shares = [line.share, *(outcome.share for outcome in line.outcomes)]
        assert printed.endswith(
            "".join(f" {report.percent(share):>{n}}" for share, n in zip(shares, (11, 9, 9), strict=True))
        )
    assert f"most GPUs held at once: {found.most_gpus} of {chosen.gpus};" in "\n".join(lines)
    starts = sum(outcome.starts for outcome in found.tidegate.outcomes)
    assert any(line.endswith(f"replicas started: {starts}") for line in lines)


def test_the_words_around_the_picture_fit_into_80_columns(compared: tuple[Scenario, Comparison]) -> None:
    chosen, found = compared

    assert [line for line in [*report.opening(chosen), *report.closing(chosen, found)] if len(line) > 80] == []


def test_a_share_is_rounded_down_so_that_100_percent_means_all() -> None:
    assert [report.percent(share) for share in (1.0, 0.99999, 0.999, 0.0)] == [
        "100.0 %",
        "99.9 %",
        "99.9 %",
        "0.0 %",
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_picture_fits_the_terminal(width: int, height: int) -> None:
    simulation, story = Simulation(scenario.demo(7)), Story()
    picture = Picture(simulation.scenario, 60.0)
    for moment in simulation.play():
        picture.add(moment, story.tell(moment))
        if moment.at_s % 300 != 299:
            continue
        screen = io.StringIO()
        Console(file=screen, width=width, height=height, force_terminal=True, no_color=True).print(picture)
        lines = screen.getvalue().splitlines()
        assert len(lines) == height - 1
        assert "\x1b[3" not in screen.getvalue()  # no colour


def test_a_sparkline_shows_zero_as_a_blank_and_the_largest_as_a_full_block() -> None:
    assert sparkline([0.0, 1.0, 4.0, 8.0]) == " ▂▅█"
    assert sparkline([2.0, 4.0], top=8.0) == "▃▅"
    assert sparkline([]) == ""
