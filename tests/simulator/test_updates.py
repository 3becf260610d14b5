"""The demo's updates: the daemon's own cycle decides, and what is printed is what happened in that run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from autoscaler.cli.demo import demo, watch_updates
from autoscaler.controller.reserving import NotHeld
from autoscaler.model.resources import GPU
from autoscaler.simulator import update_report, update_run
from autoscaler.simulator.objects import Quota
from autoscaler.simulator.update_picture import UpdatePicture
from autoscaler.simulator.update_run import (
    RevisionView,
    Told,
    UpdateMoment,
    UpdateOutcome,
    UpdateScenario,
    UpdateSimulation,
)
from rollouts.record import Phase


@dataclass(frozen=True)
class Played:
    run: UpdateSimulation
    moments: list[UpdateMoment]

    @property
    def told(self) -> list[Told]:
        return [told for moment in self.moments for told in moment.told]

    @property
    def good(self) -> UpdateOutcome:
        return self.run.outcomes[0]

    @property
    def bad(self) -> UpdateOutcome:
        return self.run.outcomes[1]

    def at(self, what: str, number: int = 0) -> Told:
        """The first event of that name, or a later one."""
        return [told for told in self.told if told.what == what][number]

    def of(self, revision: str) -> Iterator[tuple[int, RevisionView]]:
        for moment in self.moments:
            for view in moment.views:
                yield from ((moment.at_s, each) for each in view.revisions if each.name == revision)


def play(chosen: UpdateScenario) -> Played:
    run = UpdateSimulation(chosen)
    return Played(run, list(run.play()))


@pytest.fixture(scope="module", params=[7, 11])
def played(request: pytest.FixtureRequest) -> Played:
    return play(update_run.demo(request.param))


def pods(each: RevisionView) -> int:
    return each.ready + each.starting + each.terminating


def test_no_pod_of_the_update_exists_before_the_8th_gpu_is_free(played: Played) -> None:
    queued, started = played.at("RolloutQueued"), played.at("RolloutStarted")

    assert queued.text == f"Update {played.good.revision} queued: 1 GPU short in project demo (7 of 8 free)"
    assert queued.at_s < played.at("2 -> 1").at_s < started.at_s, "the other model's load falls first"
    assert [at_s for at_s, each in played.of(played.good.revision) if pods(each) and at_s < started.at_s] == []
    first = next(each for at_s, each in played.of(played.good.revision) if at_s == started.at_s)
    assert (first.starting, first.gpus) == (8, 8), "all at once, and held"


def test_the_other_models_load_is_what_it_waits_for() -> None:
    """Nothing is written in advance: without that it waits for ever."""
    chosen = update_run.demo(7)
    chat, embed = chosen.models
    waiting = play(replace(chosen, models=(chat, replace(embed, loads=embed.loads[:1])), duration_s=200))

    assert [told.what for told in waiting.told] == ["edit", "RolloutQueued"]
    assert waiting.good.held_at is None
    assert "its quota was never free" in "\n".join(update_report.closing(waiting.run))


def test_pods_never_have_more_than_the_ledger_holds_nor_that_more_than_the_quota(played: Played) -> None:
    for moment in played.moments:
        revisions = [each for view in moment.views for each in view.revisions]
        assert moment.used == sum(pods(each) for each in revisions)
        assert moment.held == sum(each.gpus for each in revisions) <= 12
        assert [each for each in revisions if pods(each) > each.gpus] == []
    assert max(moment.used for moment in played.moments) == played.run.totals.most_used == 12
    assert max(moment.held for moment in played.moments) == played.run.totals.most_held == 12
    assert played.run.totals.uncovered == 0


def test_traffic_moves_once_all_8_are_ready_together(played: Played) -> None:
    at_s, first = next((at_s, each) for at_s, each in played.of(played.good.revision) if each.percent)

    assert (first.percent, first.ready) == (100, 8)
    assert [each.ready < 8 for at, each in played.of(played.good.revision) if at == at_s - 1] == [True]
    assert (
        sum(each.unanswered for each in played.run.workloads) == 0 < sum(each.requests for each in played.run.workloads)
    )


def test_the_old_revision_goes_after_its_last_request(played: Played) -> None:
    full, done = played.at("TrafficWeightUpdated"), played.at("RolloutCompleted")
    old = done.text.split(" serves; ")[1].removesuffix(" goes")

    assert done.at_s >= full.at_s + 5, "drain.quietSeconds"
    assert {each.ready for at_s, each in played.of(old) if at_s < done.at_s} == {3}
    assert [at_s for at_s, _ in played.of(old) if at_s > done.at_s + 10] == []


def test_the_bad_update_goes_at_its_deadline_and_the_current_revision_never_noticed(played: Played) -> None:
    edited = played.at("edit", 1)
    late, failed = played.at("ProgressDeadlineExceeded"), played.at("RolledBack")
    bad, current = played.bad.revision, played.good.revision

    assert late.at_s == played.at("RolloutStarted", 1).at_s + 120
    assert late.bad
    assert failed.text == f"Update {bad} failed: it did not serve within the progress deadline; {current} goes on"
    assert failed.at_s - late.at_s <= 5, "the grace of pods that never served"
    seen = [each for at_s, each in played.of(current) if at_s >= edited.at_s]
    assert {(each.ready, each.terminating, each.percent, each.gpus) for each in seen} == {(8, 0, 100, 8)}
    assert {each.percent + each.ready for _, each in played.of(bad)} == {0}
    assert [at_s for at_s, _ in played.of(bad) if at_s > failed.at_s] == []
    assert len(played.bad.before) == 8
    assert played.bad.lost == set()
    record = played.run.workloads[0].record
    assert record.current == current
    assert record.rollout is not None
    assert record.rollout.phase is Phase.FAILED


def test_the_deadline_is_the_scenarios() -> None:
    """A good image fails as well where its pods take longer than that."""
    late = play(replace(update_run.demo(7), progress_deadline_s=20.0, duration_s=200))

    assert late.good.rolled_back_at is not None
    assert late.good.held_at is not None
    assert late.good.rolled_back_at - late.good.held_at == 20
    assert late.good.full_at is None


def test_an_image_that_works_is_not_rolled_back() -> None:
    chosen = update_run.demo(7)
    chat, embed = chosen.models
    mended = replace(chat, edits=(*chat.edits[:2], replace(chat.edits[2], works=True)))
    fine = play(replace(chosen, models=(mended, embed)))

    assert fine.bad.full_at is not None
    assert fine.bad.rolled_back_at is None


def test_replicas_that_stop_serving_are_counted() -> None:
    """So that the 0 of the demo means something."""
    run = UpdateSimulation(update_run.demo(7))
    for moment in run.play():
        if moment.at_s == 250:
            [thing] = [each for each in run.workloads[0].things.values() if each.replicas == 8]
            del thing.pods[0]  # as if its node was lost

    assert len(run.outcomes[1].lost) == 1
    assert "that stopped serving meanwhile: 1 of 8" in "\n".join(update_report.closing(run))


def test_the_ledger_refuses_what_does_not_fit() -> None:
    quota = Quota(("demo", "default"), 12)
    quota.write("demo/a", "a-1", {GPU: 8000})

    with pytest.raises(NotHeld):
        quota.write("demo/b", "b-1", {GPU: 5000})
    assert (quota.gpus, quota.refused) == (8, 1)
    quota.write("demo/b", "b-1", {GPU: 4000})
    quota.write("demo/a", "a-1", {GPU: 3000})
    quota.write("demo/b", "b-1", None)
    assert quota.gpus == 3


def test_the_printed_results_are_the_measured_ones(capsys: pytest.CaptureFixture[str]) -> None:
    played = play(update_run.demo(7))
    demo(7, plain=True)
    printed = capsys.readouterr().out

    for told in played.told:
        assert update_report.event_line(told) in printed
    good, bad = played.good, played.bad
    assert good.held_at is not None
    assert good.full_at is not None
    assert bad.held_at is not None
    assert bad.rolled_back_at is not None
    assert f"queued {good.held_at - good.edited_at:.0f} s, until {good.size} GPUs were free" in printed
    assert f"from its hold to verified 100 %: {good.full_at - good.held_at:.0f} s" in printed
    assert f"rolled back {bad.rolled_back_at - bad.held_at:.0f} s after its hold" in printed
    assert f"most GPUs held in the ledger: {played.run.totals.most_held} of 12" in printed


def test_the_live_picture_changes_no_number() -> None:
    chosen = update_run.demo(7)
    shown = UpdateSimulation(chosen)
    watch_updates(shown, Console(file=io.StringIO(), width=80, height=24, force_terminal=True), live_s=0.5)
    played = play(chosen)

    assert update_report.closing(shown) == update_report.closing(played.run)
    assert shown.outcomes == played.run.outcomes


def test_the_words_around_the_picture_fit_into_80_columns(played: Played) -> None:
    lines = [*update_report.opening(played.run.scenario), *update_report.closing(played.run)]

    assert [line for line in lines if len(line) > 80] == []
    assert all(line.isascii() for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_picture_fits_the_terminal(width: int, height: int) -> None:
    run = UpdateSimulation(update_run.demo(7))
    picture = UpdatePicture(run.scenario, 17.0)
    for moment in run.play():
        picture.add(moment)
        if moment.at_s % 20 != 19:
            continue
        screen = io.StringIO()
        Console(file=screen, width=width, height=height, force_terminal=True, no_color=True).print(picture)
        lines = screen.getvalue().splitlines()
        assert len(lines) == height - 1
        assert "\x1b[3" not in screen.getvalue()  # no colour


def test_the_picture_shows_revisions_quota_traffic_and_the_sentence() -> None:
    run = UpdateSimulation(update_run.demo(7))
    picture = UpdatePicture(run.scenario, 17.0)
    for moment in run.play():
        picture.add(moment)
        if moment.at_s == 90:
            break
    screen = io.StringIO()
    Console(file=screen, width=120, height=40).print(picture)
    shown = screen.getvalue()

    assert "12 of 12 GPUs held, 12 by pods" in shown
    assert "100 % traffic, 3 GPUs held, 3 ready" in shown
    assert "0 % traffic, 8 GPUs held, 8 starting" in shown
    assert "starting: 0 of 8 replicas of" in shown
