"""The table is the law: the docs are drawn from it, every phase is reachable, and nothing else is obeyed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from rollouts.moves import CURRENT_MOVES, MOVES, Event, IllegalMove, check_current, move
from rollouts.record import PHASES_OF_CURRENT, Phase, Rollout

PAGE = Path(__file__).parents[2] / "docs" / "rollouts.md"
QUEUED = Rollout("llama-bbbbbbbb", 0.0, 3600.0, 0.0)


def diagram(moves: Iterable[tuple[Phase, str, Phase]], starts: Phase) -> str:
    """A mermaid state diagram of these moves, in their order."""
    arrows = [f"    {start.value} --> {end.value}: {why}" for start, why, end in moves]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {starts.value}", *arrows])


def test_the_docs_are_drawn_from_the_table() -> None:
    drawn = re.findall(r"```mermaid\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
    assert drawn == [
        diagram([(start, why.value, end) for start, why, end in MOVES], Phase.QUEUED),
        diagram(CURRENT_MOVES, Phase.STARTING),
    ]


def test_every_phase_of_an_update_is_reached_and_only_three_end_it() -> None:
    reached = {Phase.QUEUED}
    while more := {end for start, _, end in MOVES if start in reached} - reached:
        reached |= more
    assert reached == set(Phase) - {Phase.UNVERIFIED}
    ends = reached - {start for start, _, _ in MOVES}
    assert ends == {Phase.COMPLETE, Phase.SUPERSEDED}
    assert {start for start, _, _ in CURRENT_MOVES} | {end for _, _, end in CURRENT_MOVES} == set(PHASES_OF_CURRENT)


def test_verified_100_percent_is_the_point_of_no_return() -> None:
    assert {end for start, _, end in MOVES if start is Phase.DRAINING} == {Phase.COMPLETE}


def test_one_event_leads_to_one_phase_except_where_a_pause_ends() -> None:
    pairs = [(start, event) for start, event, _ in MOVES if event is not Event.RESUMED]
    assert len(pairs) == len(set(pairs))


def test_an_illegal_move_is_refused() -> None:
    with pytest.raises(IllegalMove, match="Queued -> Shifting"):
        move(QUEUED, Event.WARM, Phase.SHIFTING, 1.0)
    with pytest.raises(IllegalMove):
        check_current(Phase.STARTING, Phase.UNVERIFIED)


def test_a_move_notes_since_when() -> None:
    assert move(QUEUED, Event.HELD, Phase.STARTING, 7.0).since == 7.0
