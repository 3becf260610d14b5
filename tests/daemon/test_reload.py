"""When the configuration is read again, what becomes of it, and what is told: real files, short looks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path

from structlog.testing import capture_logs
from structlog.typing import EventDict

from autoscaler.api.board import Configuration
from autoscaler.reload import FileWatch, Refused, Reload
from tests.daemon.mount import Mount
from tests.signals.pods import until

POLL_S = 0.01


class Subject:
    """A reload of a mounted file whose document is its text. Words say what becomes of it."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.applied: list[str] = []
        text = mount.path.read_text()
        running = Configuration(_hash(text), 100.0)
        self.reload = Reload(mount.path, self._read, self._apply, self._show, running, lambda: 200.0, POLL_S)

    def _read(self) -> tuple[str, str]:
        text = self.mount.path.read_text()
        if "broken" in text:
            raise Refused(text.split(", "))
        return _hash(text), text

    async def _apply(self, text: str) -> tuple[str, ...]:
        if "crash" in text:
            raise ZeroDivisionError("of this test")
        self.applied.append(text)
        return ("api.port",) if "port" in text else ()

    def _show(self, configuration: Configuration) -> None:
        self.shown = configuration

    async def becomes(self, text: str, seen: Callable[[Configuration], bool]) -> Configuration:
        """The file is this from now on; what is shown once it is as expected."""
        self.mount.write(text)
        await until(lambda: seen(self.shown))
        return self.shown


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@contextlib.asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[tuple[Subject, list[EventDict]]]:
    subject = Subject(Mount(tmp_path, "first"))
    with capture_logs() as lines:
        task = asyncio.create_task(subject.reload.run())
        yield subject, lines
        task.cancel()
        await asyncio.wait({task})


def events(lines: list[EventDict]) -> list[str]:
    return [line["event"] for line in lines]


async def test_what_runs_is_not_applied_again(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, lines):
        await asyncio.sleep(0.1)
        subject.mount.write("first")  # another version of the mount, the same document
        await asyncio.sleep(0.1)
        assert (subject.applied, lines, subject.shown.successes) == ([], [], 0)


async def test_a_swapped_mount_is_applied_once(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, lines):
        shown = await subject.becomes("second", lambda now: now.successes == 1)
        assert shown == Configuration(_hash("second"), 200.0, successes=1)
        await asyncio.sleep(0.1)
        assert subject.applied == ["second"]
        assert events(lines) == ["config.reloaded"]


async def test_every_swap_is_seen_not_only_the_first(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, _):
        for number in range(1, 6):
            await subject.becomes(f"document {number}", lambda now, number=number: now.successes == number)  # type: ignore[misc]
        assert subject.applied == [f"document {number}" for number in range(1, 6)]


async def test_a_refused_file_changes_nothing_and_all_its_problems_are_told(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, lines):
        shown = await subject.becomes("broken here, broken there", lambda now: now.failures == 1)
        assert subject.applied == []
        assert (shown.sha256, shown.read_at_s, shown.refused_at_s) == (_hash("first"), 100.0, 200.0)
        assert shown.problems == ("broken here", "broken there")
        assert [(line["event"], line["log_level"], line["problems"]) for line in lines] == [
            ("config.refused", "error", ("broken here", "broken there"))
        ]


async def test_the_same_problem_is_logged_once_and_counted_each_time(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, lines):
        await subject.becomes("broken", lambda now: now.failures == 1)
        await subject.becomes("broken", lambda now: now.failures == 2)
        await subject.becomes("broken otherwise", lambda now: now.failures == 3)
        assert events(lines) == ["config.refused", "config.refused"]


async def test_recovery_by_a_new_document_is_told_once(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, lines):
        await subject.becomes("broken", lambda now: now.failures == 1)
        shown = await subject.becomes("second", lambda now: now.successes == 1)
        await subject.becomes("third", lambda now: now.successes == 2)
        assert (shown.problems, shown.refused_at_s, shown.failures) == ((), None, 1)
        assert events(lines) == ["config.refused", "config.recovered", "config.reloaded", "config.reloaded"]


async def test_recovery_by_the_document_that_runs_applies_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, lines):
        await subject.becomes("broken", lambda now: now.failures == 1)
        shown = await subject.becomes("first", lambda now: not now.problems)
        assert (shown.sha256, shown.successes) == (_hash("first"), 1)
        assert subject.applied == []
        assert events(lines) == ["config.refused", "config.recovered"]


async def test_a_crash_while_it_is_applied_is_a_refusal(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, lines):
        shown = await subject.becomes("crash", lambda now: now.failures == 1)
        assert shown.problems == ("internal error: ZeroDivisionError: of this test",)
        assert shown.sha256 == _hash("first")
        await subject.becomes("second", lambda now: now.successes == 1)
        assert events(lines) == ["config.crashed", "config.refused", "config.recovered", "config.reloaded"]


async def test_keys_that_wait_for_a_restart_are_named_until_they_do_not(tmp_path: Path) -> None:
    async with running(tmp_path) as (subject, lines):
        shown = await subject.becomes("new port", lambda now: now.successes == 1)
        assert shown.waits_for_restart == ("api.port",)
        await subject.becomes("new port, more", lambda now: now.successes == 2)
        assert events(lines) == ["config.reloaded", "config.restart_needed", "config.reloaded"]
        shown = await subject.becomes("second", lambda now: now.successes == 3)
        assert shown.waits_for_restart == ()


def test_a_plain_file_is_read_when_two_looks_agree(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\nb: 2\n")
    watch = FileWatch(path)
    assert [watch.changed() for _ in range(4)] == [False, True, False, False]
    path.write_text("")  # an editor begins: empty, and so a valid document
    assert not watch.changed()
    path.write_text("a: 1\n")
    assert not watch.changed()
    path.write_text("a: 1\nb: 3\n")
    assert [watch.changed() for _ in range(3)] == [False, True, False]


def test_a_plain_file_that_is_replaced_by_one_of_equal_size_and_time_has_changed(tmp_path: Path) -> None:
    path, other = tmp_path / "config.yaml", tmp_path / "new"
    path.write_text("a: 1\n")
    watch = FileWatch(path)
    assert [watch.changed() for _ in range(2)] == [False, True]
    other.write_text("a: 2\n")
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(path)
    assert [watch.changed() for _ in range(3)] == [False, True, False]


def test_a_file_that_goes_and_comes_is_a_change_each_time(tmp_path: Path) -> None:
    mount = Mount(tmp_path, "first")
    watch = FileWatch(mount.path)
    assert [watch.changed(), watch.changed()] == [True, False]
    mount.path.unlink()
    assert [watch.changed(), watch.changed()] == [True, False]
    mount.path.symlink_to("..data/config.yaml")
    assert [watch.changed(), watch.changed()] == [True, False]


def test_a_look_costs_little(tmp_path: Path) -> None:
    watch = FileWatch(Mount(tmp_path, "first").path)
    started = time.process_time()
    for _ in range(1000):
        watch.changed()
    assert time.process_time() - started < 0.5
