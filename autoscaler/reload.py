"""Reads the configuration again when its file changes: whole or not at all, and the last good one is kept.

Decides when to read and what to tell about it. What the document says and who uses it is the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from autoscaler.api.board import Configuration

POLL_S: Final = 2.0
MOUNT_LINK: Final = "..data"  # what the kubelet swaps when a ConfigMap has changed

T = TypeVar("T")
log = structlog.get_logger()


class Refused(Exception):
    """The new document cannot be used. `problems` are whole sentences."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Version:
    """Where and which the file is; equal versions have equal contents."""

    mount: str | None  # the directory that `..data` names; None: a plain file
    file: tuple[int, ...] | None  # inode, size, and times of content and inode; None: there is no file


class FileWatch:
    """Says once per version of the file that it may be read.

    A mount is swapped as a whole, so it is read at once. A plain file may be seen half-written, and half a document can
    be a valid one (an empty file is all defaults), so it is read when two looks in a row agree.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Version | None = None
        self._told: Version | None = None

    def changed(self) -> bool:
        now = _version(self._path)
        at_rest = now.mount is not None or now == self._seen
        self._seen = now
        if not at_rest or now == self._told:
            return False
        self._told = now
        return True


class Reload(Generic[T]):
    """Keeps `state`, says what changed in the log, and shows it."""

    def __init__(
        self,
        path: Path,
        read: Callable[[], tuple[str, T]],
        apply: Callable[[T], Awaitable[tuple[str, ...]]],
        show: Callable[[Configuration], None],
        running: Configuration,
        clock: Callable[[], float],
        poll_s: float = POLL_S,
    ) -> None:
        """`read` gives the hash and the document, or raises Refused; it runs in a thread.

        `apply` changes everything or raises and changes nothing; it returns the keys that wait for a restart.
        """
        self.state = running
        self._watch = FileWatch(path)
        self._read = read
        self._apply = apply
        self._show = show
        self._clock = clock
        self._poll_s = poll_s
        show(running)

    async def run(self) -> None:
        """The first look compares with what runs: the file may have changed since it was read at the start."""
        while True:
            if await asyncio.to_thread(self._watch.changed):
                await self._look()
            await asyncio.sleep(self._poll_s)

    async def _look(self) -> None:
        waiting = self.state.waits_for_restart
        try:
            sha256, document = await asyncio.to_thread(self._read)
            if sha256 == self.state.sha256 and not self.state.problems:
                return
            if sha256 != self.state.sha256:
                waiting = await self._apply(document)
        except Refused as refused:
            self._refuse(refused.problems)
        except (
            Exception
        ) as error:  # a bug; what runs is whole, and ending it would only start the next one with the same
            log.exception("config.crashed")
            self._refuse((f"internal error: {type(error).__name__}: {error}",))
        else:
            self._accept(sha256, waiting)

    def _refuse(self, problems: tuple[str, ...]) -> None:
        before, now = self.state, self._clock()
        since = now if before.refused_at_s is None else before.refused_at_s
        self.state = replace(before, failures=before.failures + 1, problems=problems, refused_at_s=since)
        self._show(self.state)
        if problems != before.problems:
            log.error("config.refused", problems=problems, kept=before.short)

    def _accept(self, sha256: str, waiting: tuple[str, ...]) -> None:
        before = self.state
        self.state = Configuration(sha256, self._clock(), before.successes + 1, before.failures, (), None, waiting)
        self._show(self.state)
        if before.problems:
            log.info("config.recovered", config=self.state.short, problems_before=before.problems)
        if sha256 != before.sha256:
            log.info("config.reloaded", config=self.state.short, before=before.short)
        if waiting and waiting != before.waits_for_restart:
            log.warning("config.restart_needed", keys=waiting)


def _version(path: Path) -> Version:
    try:
        mount = str((path.parent / MOUNT_LINK).readlink())
    except OSError:
        mount = None
    try:
        found = path.stat()
    except OSError:
        return Version(mount, None)
    return Version(mount, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
