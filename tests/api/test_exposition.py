"""/metrics tells what its own process takes: tasks, objects, memory, CPU and open files, as they are at the scrape."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from autoscaler.api.board import Board, Leader, Totals
from autoscaler.api.exposition import families, render

MIB = 1024 * 1024


def page() -> dict[str, float]:
    """The process's own series by name; one value each, generations summed."""
    totals = Totals({}, "api", {}, 0.0, 1.0, 0)
    board = Board(2.0, lambda: 0.0, lambda: True, Leader, lambda: totals, "0.0.0")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(render(families(board)).decode()):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


async def test_tasks_are_those_of_the_loop_that_renders() -> None:
    before = page()["tidegate_tasks"]
    waiting = [asyncio.create_task(asyncio.sleep(60)) for _ in range(5)]
    assert page()["tidegate_tasks"] == before + 5
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert page()["tidegate_tasks"] == before


def test_without_a_loop_there_is_no_task() -> None:
    assert page()["tidegate_tasks"] == 0


def test_kept_objects_are_counted() -> None:
    before = page()["tidegate_memory_blocks"]
    kept = [object() for _ in range(100_000)]
    assert 100_000 <= page()["tidegate_memory_blocks"] - before < 110_000
    assert len(kept) == 100_000


def test_open_files_are_counted() -> None:
    before = page()["process_open_fds"]
    with ExitStack() as opened:
        for _ in range(7):
            opened.enter_context(Path(os.devnull).open())
        assert page()["process_open_fds"] == before + 7
    assert page()["process_open_fds"] == before


def test_memory_and_cpu_are_the_kernels() -> None:
    shown = page()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert abs(shown["process_resident_memory_bytes"] - resident) < 8 * MIB
    assert abs(shown["process_cpu_seconds_total"] - sum(os.times()[:2])) < 1
    assert shown["python_gc_collections_total"] > 0
