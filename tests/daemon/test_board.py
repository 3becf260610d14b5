"""/healthz and /readyz in sentences: is it alive, may it be trusted, which configuration applies?"""

from __future__ import annotations

from dataclasses import dataclass, field

from autoscaler.api.board import Board, Configuration, Leader, Totals
from autoscaler.api.exposition import families, render
from autoscaler.model.report import CycleReport

APPLIED = Configuration("0123456789abcdef", 1_700_000_000.0)


@dataclass
class Scene:
    """A board whose clock the test moves."""

    now: float = 0.0
    synced: bool = True
    leader: Leader = field(default_factory=lambda: Leader("tidegate", "pod-0", 3))
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        totals = Totals({}, "api", {}, 0.0, 1.0, 0)
        self.board = Board(2.0, lambda: self.now, lambda: self.synced, lambda: self.leader, lambda: totals, "0.0.0")
        self.board.show(APPLIED)

    def cycle(self, crashes: bool = False) -> None:
        self.board.take(None if crashes else CycleReport(0.0, duration_s=0.5))

    def line(self) -> tuple[bool, str]:
        good, text = self.board.ready()
        return good, text.splitlines()[0]


def test_it_is_dead_after_five_ticks_without_a_finished_cycle() -> None:
    scene = Scene()
    scene.cycle()
    scene.now = 10.0
    assert scene.board.alive() == (True, "the last cycle finished 10.0 s ago; allowed: 10 s")
    scene.now = 10.1
    scene.cycle(crashes=True)  # it turns, and nothing is decided
    assert scene.board.alive() == (False, "the last cycle finished 10.1 s ago; allowed: 10 s")


def test_a_start_has_its_own_patience() -> None:
    scene = Scene(now=100.0)
    scene.now = 159.0
    assert scene.board.alive()[0]
    scene.now = 161.0
    good, text = scene.board.alive()
    assert (good, text) == (False, "no cycle has finished in the 61.0 s since the start; allowed: 60 s")


def test_a_cycle_of_the_old_tick_is_not_late_by_the_new_one() -> None:
    scene = Scene()
    scene.cycle()
    scene.now = 8.0
    scene.board.set_tick(0.2)
    assert scene.board.alive()[0]
    scene.now = 9.1
    assert scene.board.alive() == (False, "the last cycle finished 9.1 s ago; allowed: 1 s")


def test_a_longer_tick_makes_it_more_patient() -> None:
    scene = Scene()
    scene.cycle()
    scene.board.set_tick(60.0)
    scene.now = 299.0
    assert scene.board.alive()[0]


def test_reloads_that_keep_the_tick_do_not_hide_a_dead_loop() -> None:
    scene = Scene()
    scene.cycle()
    for now in range(12):
        scene.now = float(now)
        scene.board.set_tick(2.0)
    assert not scene.board.alive()[0]


def test_what_is_missing_for_readiness_is_said() -> None:
    scene = Scene(synced=False)
    assert scene.line() == (False, "not ready: the copies of the cluster's objects are not complete yet.")
    scene.synced = True
    assert scene.line() == (False, "not ready: no cycle has finished yet.")
    scene.cycle()
    assert scene.line() == (True, "ready: 0 workloads, the last cycle took 0.500 s.")
    scene.now = 11.0
    assert scene.line() == (False, "not ready: the last cycle finished 11.0 s ago; allowed: 10 s.")
    scene.board.stopping = True
    assert scene.line() == (False, "not ready: the daemon stops.")


def test_a_refused_file_is_explained_and_it_stays_ready() -> None:
    scene = Scene()
    scene.cycle()
    problems = ("config.yaml:3: tick: value 0s is too short", "config.yaml:9: nope: is unknown")
    scene.board.show(Configuration("0123456789abcdef", 1_700_000_000.0, 0, 1, problems, 1_700_000_100.0, ("api.port",)))
    good, text = scene.board.ready()
    assert good
    assert text.splitlines()[2:] == [
        "Configuration 0123456789ab applies, read at 2023-11-14T22:13:20Z.",
        "New values of these keys wait for a restart: api.port.",
        "Newer versions of the file are refused since 2023-11-14T22:15:00Z:",
        *problems,
    ]


def test_both_results_have_a_series_before_the_first_reload() -> None:
    page = render(families(Scene().board)).decode()
    assert 'tidegate_config_reloads_total{result="failure"} 0.0' in page
    assert 'tidegate_config_reloads_total{result="success"} 0.0' in page
    assert 'tidegate_config_info{sha256="0123456789ab"} 1.0' in page
    assert "tidegate_config_last_reload_success_timestamp_seconds 1.7e+09" in page
