"""How numbers and times are said."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from autoscaler.cli.output import lines
from autoscaler.cli.pods import ContainerState, ContainerStatus, PodSeen, PodSpec, PodStatus, Terminated, state_of
from autoscaler.cli.words import age, aligned, counted, mark, span
from autoscaler.cluster.resources import Condition, Metadata


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-"), (-5, "0s"), (0.4, "0s"), (59, "59s"), (190, "3m10s"), (3600, "1h"), (3605, "1h"), (90_000, "1d1h")],
)
def test_a_span_has_two_units_that_follow_each_other(seconds: float | None, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "-"), (130, "2m10s"), (600, "10m"), (7300, "2h"), (200_000, "2d")]
)
def test_an_age_is_short(seconds: float | None, said: str) -> None:
    assert age(seconds) == said


def test_what_is_counted_has_its_plural() -> None:
    assert [counted(1, "GPU"), counted(2, "GPU"), counted(0.5, "GPU")] == ["1 GPU", "2 GPUs", "0.5 GPUs"]


def test_columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_blanks() -> None:
    assert aligned([("A", "LONG", "C"), ("wide", "x", "")]) == ["A      LONG   C", "wide   x"]


def test_the_coloured_cell_is_the_one_of_its_column() -> None:
    """A name that is a phase, too, stays plain."""
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, color_system="standard", width=80).print(
        lines([("NAME", "STATUS"), ("Failed", "Failed")], no_headers=True, coloured="STATUS"), end=""
    )
    assert screen.getvalue() == "Failed   \x1b[31mFailed\x1b[0m\n"


# --- pods ---


def pod(status: PodStatus, node: str | None = "gpu-0", going: bool = False) -> PodSeen:
    meta = Metadata(name="p", deletion_timestamp="2026-05-01T10:00:00Z" if going else None)
    return PodSeen(metadata=meta, spec=PodSpec(node_name=node), status=status)


READY = [Condition(type="Ready", status="True")]
CRASHED = ContainerState(terminated=Terminated(reason="OOMKilled", exit_code=137))


@pytest.mark.parametrize(
    ("seen", "mark_and_word", "detail"),
    [
        (pod(PodStatus(conditions=READY)), "✔ Ready", ""),
        (
            pod(PodStatus(conditions=READY, container_statuses=[ContainerStatus(restart_count=1)])),
            "✔ Ready",
            "1 restart",
        ),
        (pod(PodStatus(conditions=READY), going=True), "⚠ Terminating", ""),
        (pod(PodStatus(phase="Failed", reason="Evicted")), "✖ Failed", "Evicted"),
        (pod(PodStatus(), node=None), "⚠ Unplaced", ""),
        (pod(PodStatus()), "◌ Starting", ""),
        (
            pod(PodStatus(container_statuses=[ContainerStatus(name="vllm", restart_count=2, last_state=CRASHED)])),
            "⚠ Restarted",
            "vllm: OOMKilled (exit code 137, 2 restarts)",
        ),
    ],
    ids=["ready", "ready again", "goes", "evicted", "unplaced", "starts", "crashed"],
)
def test_what_a_pod_is_doing(seen: PodSeen, mark_and_word: str, detail: str) -> None:
    state = state_of(seen)
    assert (f"{mark(state.word)} {state.word}", state.detail) == (mark_and_word, detail)
