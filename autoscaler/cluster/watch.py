"""A local copy of one kind of object, kept up to date by list and watch.

Level-triggered: a change calls `changed()` without saying what changed. After any doubt (a version that is too old, a
line that does not decode, an error that comes twice) everything is listed again and compared. `synced` gates acting.

The server is asked again after 0.1 s, then later and later up to 30 s, until a watch has stayed open for a second or
has brought something new; and soon, when the Lease, which is asked for all the time, is answered again. A watch that
falls silent is opened anew from the last version: a dead connection looks just so, and one that lives loses nothing. An
object that nests too deeply to be read stays as it was known; the others do not suffer. A kind that need not be
installed has no objects while the server does not know it, and is looked for again once a minute. Nothing here gives
up: only cancellation ends `run`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import structlog

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError, Gone, NotFound, Refused, TooManyRequests, Unreachable, error_for
from autoscaler.cluster.nesting import DEEPEST, TOO_DEEP, cut
from autoscaler.cluster.resources import ListMetadata, Metadata, Resource

PAGE_SIZE: Final = 500
WOKEN_PER_S: Final = 200.0  # a server that has just come back meets no more of us than that
UNREADABLE: Final = "UNREADABLE"  # our own type of event, beside those of the API server

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    watch_s: float = 300.0  # the server is asked to end a watch after this long, ± 20 %
    overrun_s: float = 15.0  # beyond that, it does not do as asked
    # A watch that brings nothing for this long, + 10 %, is opened anew: its connection may be dead. A kube-apiserver
    # of 1.36 sent bookmarks at most 61 s apart, idle or not: 10 watches of our five kinds over 5 to 15 min.
    silence_s: float = 90.0
    steady_s: float = 1.0  # a watch that stays open this long is a good one
    back_off_first_s: float = 0.1
    back_off_most_s: float = 30.0
    told_most_s: float = 60.0  # a longer Retry-After would leave us blind
    absent_s: float = 60.0  # + 10 %: an optional kind that the server does not know is looked for again


class HasMetadata(Protocol):
    @property
    def metadata(self) -> Metadata: ...


T = TypeVar("T", bound=HasMetadata)
ObjectKey = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Selection:
    """What to watch: one namespace or all ("" ), and a label selector ("" for everything)."""

    resource: Resource
    namespace: str = ""
    labels: str = ""

    def params(self, **others: str) -> dict[str, str]:
        return {**others, "labelSelector": self.labels} if self.labels else others


class Outages:
    """Tells once that the server does not answer and once that it does again, however many copies share it.

    What only concerns one copy (a right that is missing, an answer that does not decode) is told for that copy. The
    election takes part: where the watches stay open and only new requests fail, it is the one that notices.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: dict[Selection | None, tuple[float, set[Selection]]] = {}  # by cause; None: the server
        self.answers = asyncio.Event()  # the server does again; replaced each time it is set
        self._waiting = 0

    def began(self, selection: Selection, error: Exception) -> None:
        """May be told again and again."""
        cause = None if isinstance(error, ApiError) and error.retryable else selection
        if cause not in self._failing:
            self._failing[cause] = (self._clock(), set())
            log.warning("watch.failed", error=str(error), **_names(selection))
        self._failing[cause][1].add(selection)

    def ended(self, selection: Selection) -> None:
        """Nothing unless this copy was the last one that failed for its cause."""
        for cause, (since, selections) in list(self._failing.items()):
            selections.discard(selection)
            if not selections:
                del self._failing[cause]
                log.info("watch.recovered", lasted_s=round(self._clock() - since, 1), **_names(selection))

    def wake(self) -> None:
        """The server answers again: nobody need wait any longer."""
        woken, self.answers = self.answers, asyncio.Event()
        woken.set()

    async def wait(self, answers: asyncio.Event, least_s: float, most_s: float) -> bool:
        """Waits for `most_s`, or until it is woken and its turn has come; was it?

        `answers` is that of the moment at which the attempt began. 1,000 copies that wait are back within 5 s.
        """
        end = asyncio.get_running_loop().time() + most_s
        self._waiting += 1
        try:
            await asyncio.sleep(least_s)
            async with asyncio.timeout_at(end):
                await answers.wait()
                await asyncio.sleep(random.uniform(0.0, self._waiting / WOKEN_PER_S))
        except TimeoutError:
            return answers.is_set()  # then its own time came while it waited for its turn
        finally:
            self._waiting -= 1
        return True


class BackOff:
    """Doubles from the first to the longest wait; each is spread by ± 50 %, so that copies do not come as one."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self.in_a_row = 0

    def reset(self) -> None:
        self.in_a_row = 0

    def next_s(self) -> float:
        longest = self._timing.back_off_most_s
        # 2 ** 30 is longer than any wait; without a bound the float would overflow in a long outage
        wait_s = min(longest, self._timing.back_off_first_s * 2.0 ** min(self.in_a_row, 30))
        self.in_a_row += 1
        return wait_s * random.uniform(0.5, 1.5)


class _EndedAtOnce(Unreachable):
    pass


class _Event(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float = 1.0


class _ErrorStatus(msgspec.Struct):
    code: int = 500
    message: str = ""
    reason: str = ""
    details: _Details | None = None


class _OnlyMetadata(msgspec.Struct):
    metadata: Metadata


class _Page(msgspec.Struct, Generic[T]):
    metadata: ListMetadata
    items: list[T] | None


class _RawPage(msgspec.Struct):
    metadata: ListMetadata
    items: list[msgspec.Raw] | None


_EVENTS: Final = msgspec.json.Decoder(_Event)
_ONLY_METADATA: Final = msgspec.json.Decoder(_OnlyMetadata)
_RAW_PAGE: Final = msgspec.json.Decoder(_RawPage)
_ERROR: Final = msgspec.json.Decoder(_ErrorStatus)


class Watched(Generic[T]):
    """The copy. Reading never blocks; `run` must be running.

    `relists`, `failures` (attempts that failed) and `events` (received, bookmarks too) only ever grow.
    """

    def __init__(
        self,
        api: KubeApi,
        selection: Selection,
        kind: type[T],
        changed: Callable[[], None],
        *,
        moved: Callable[[T | None, T | None], None] | None = None,
        optional: bool = False,
        outages: Outages | None = None,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`moved` gets each object that the copy loses and the one it gains in its place: for indexes.

        `optional`: the kind need not be installed; where it is not, the copy is synced and empty.
        """
        self._api = api
        self._selection = selection
        self._path = selection.resource.path(selection.namespace)
        self._changed = changed
        self._moved = moved
        self._optional = optional
        self._outages = outages or Outages(clock)
        self._timing = timing or Timing()
        self._clock = clock
        self._back_off = BackOff(self._timing)
        self._decode: Callable[[msgspec.Raw], T] = msgspec.json.Decoder(kind).decode
        self._page = msgspec.json.Decoder(_Page[kind])  # type: ignore[valid-type]
        self._objects: dict[ObjectKey, T] = {}
        self._assumed: dict[ObjectKey, T] = {}  # while there is no version, that is during a list
        self._unreadable: set[ObjectKey] = set()  # as far as told
        self._version = ""  # of the newest thing seen; "" means: list first
        self._refused_at = ""  # the version at which the server sent an error event
        self._steady = self._progressed = False  # of the watch that runs
        self._heard_at: float | None = None
        self._changes = 0
        self.synced = asyncio.Event()
        self.follows = False  # the server: from when a watch has proven good until the next failure
        self.absent = False  # the server said last that it knows no such kind
        self.relists = 0
        self.failures = 0
        self.events = 0

    def get(self, namespace: str, name: str) -> T | None:
        return self._objects.get((namespace, name))

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def last_event_age_s(self) -> float | None:
        """Since the server last sent anything: a list, an event, a bookmark, or that it accepts a watch.

        None: it never did. More than silence_s and some back-offs: it does not answer.
        """
        return None if self._heard_at is None else self._clock() - self._heard_at

    def assume(self, item: T) -> None:
        """Takes the answer to our own write for the truth until the watch brings something newer."""
        key = _key(item)
        known = self._objects.get(key)
        if not self._version:
            self._assumed[key] = item
        # not in the copy, yet older than what the watch has shown: it was deleted meanwhile
        if _later(item.metadata.resource_version, self._version) if known is None else _supersedes(item, known):
            self._put(key, item)

    async def run(self) -> None:
        """Follows the server until cancelled."""
        while True:
            least_s = 0.0
            answers = self._outages.answers
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except (ApiError, msgspec.DecodeError) as error:
                absent = self._optional and isinstance(error, NotFound)
                least_s, most_s = self._absent() if absent else self._failed(error)
            except RecursionError:  # not of an object: the answer itself is something else
                least_s, most_s = self._failed(msgspec.DecodeError("an answer that nests too deeply to be read"))
            else:
                most_s = 0.0 if self._steady else self._back_off.next_s()
            if await self._outages.wait(answers, least_s, most_s):
                self._back_off.reset()

    # --- when it goes wrong ---

    def _failed(self, error: ApiError | msgspec.DecodeError) -> tuple[float, float]:
        """Notes it; how long to wait at least, where the server said so, and at most."""
        if self._back_off.in_a_row or not isinstance(error, Gone | _EndedAtOnce):  # those are normal once
            self.failures += 1
            self._outages.began(self._selection, error)
        self.follows = self.absent = False
        if _doubtful(error):
            self._version = ""
        wait_s = self._back_off.next_s()
        told_s = error.retry_after_s if isinstance(error, TooManyRequests) else 0.0
        least_s = min(told_s, self._timing.told_most_s) * random.uniform(1.0, 1.25)
        return least_s, max(wait_s, least_s)

    def _absent(self) -> tuple[float, float]:
        """Takes the server's word that there is no such kind, and so no object of it; how long to wait."""
        before = (self._changes, self.synced.is_set())
        for key in list(self._objects):
            self._put(key, None)
        self._version = ""
        self.follows, self.absent = False, True
        self._heard_at = self._clock()
        self._back_off.reset()
        self._outages.ended(self._selection)
        self.synced.set()
        if before != (self._changes, True):
            self._changed()
        wait_s = self._timing.absent_s * random.uniform(1.0, 1.1)
        return wait_s, wait_s

    def _settled(self) -> None:
        """The watch has been open for long enough to be trusted."""
        self._steady = self.follows = True
        self._back_off.reset()
        self._outages.ended(self._selection)

    # --- list ---

    async def _list(self) -> None:
        """Takes over page by page, so that never two whole lists are in memory; drops at last what was not listed."""
        self._assumed = {}
        params = self._selection.params(limit=str(PAGE_SIZE))
        listed: set[ObjectKey] = set()
        version = ""
        before = (self._changes, self.synced.is_set())
        try:
            while True:
                page = self._page_of(await self._api.call("GET", self._path, params=params), listed)
                version = version or page.metadata.resource_version  # the first page's: what is older is seen twice
                if not version or page.metadata.next == params.get("continue"):
                    raise msgspec.DecodeError("a list without a resourceVersion, or without an end")
                self._take_listed(page.items or [], version, listed)
                if not page.metadata.next:
                    break
                params["continue"] = page.metadata.next
            for key in self._objects.keys() - listed:
                if not self._wrote(key, version):
                    self._put(key, None)
            self._unreadable &= listed
            self._version = version
            self.absent = False
            self._heard_at = self._clock()
            self.relists += 1
            self.synced.set()
        finally:
            if before != (self._changes, self.synced.is_set()):
                self._changed()

    def _page_of(self, body: bytes, listed: set[ObjectKey]) -> _Page[T]:
        """What cannot be read is not on it, but listed: what was known of it stays."""
        try:
            return self._page.decode(body)
        except RecursionError:
            raw = _RAW_PAGE.decode(cut(body))
        readable = []
        for item in raw.items or []:
            if TOO_DEEP in bytes(item):
                listed.add(self._tell_unreadable(_ONLY_METADATA.decode(item)))
            else:
                readable.append(self._decode(item))
        return _Page(raw.metadata, readable)

    def _take_listed(self, items: list[T], version: str, listed: set[ObjectKey]) -> None:
        for item in items:
            key = _key(item)
            listed.add(key)
            known = self._objects.get(key)
            if known is None or (_differs(item, known) and not self._wrote(key, version)):
                self._put(key, item)

    def _wrote(self, key: ObjectKey, version: str) -> bool:
        """Did we write this object after that version of the list?"""
        written = self._assumed.get(key)
        return written is not None and _later(written.metadata.resource_version, version)

    # --- watch ---

    async def _watch(self) -> None:
        """Follows one watch to its end. Raises ApiError also if it ends at once without having brought anything new."""
        self._steady = self._progressed = False
        lasts_s = self._timing.watch_s * random.uniform(0.8, 1.2)
        params = self._selection.params(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=self._version,
            timeoutSeconds=str(max(1, round(lasts_s))),
        )
        await self._follow(params, lasts_s + self._timing.overrun_s)
        if self._progressed:
            self.follows = True
            self._back_off.reset()
        elif not self._steady:
            raise _EndedAtOnce("the server ended the watch at once")

    async def _follow(self, params: dict[str, str], most_s: float) -> None:
        """Until the server ends it, or it was silent for too long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + most_s
        silence_s = self._timing.silence_s * random.uniform(1.0, 1.1)  # spread: copies do not come back as one
        blocks = self._api.stream(self._path, params, most_s)
        settling: asyncio.TimerHandle | None = None
        try:
            async with asyncio.timeout_at(min(end, loop.time() + silence_s)) as patience:
                async for block in blocks:
                    patience.reschedule(min(end, loop.time() + silence_s))
                    if settling is None:  # the first block says that the watch is open
                        settling = loop.call_later(self._timing.steady_s, self._settled)
                        self._heard_at = self._clock()
                    if block:
                        self._take(block)
        except TimeoutError as cause:
            if loop.time() >= end:
                raise Unreachable(f"the watch did not end within {most_s:.0f} s") from cause
            if not self._steady:
                raise Unreachable(f"the watch was not open within {silence_s:.0f} s") from cause
            log.debug("watch.fell_silent", silent_s=round(silence_s), **_names(self._selection))
        finally:
            if settling is not None:
                settling.cancel()
            if isinstance(blocks, AsyncGenerator):  # give the connection back now, not when the garbage is collected
                await blocks.aclose()

    def _take(self, lines: bytes) -> None:
        self._heard_at = self._clock()
        before = self._changes
        try:
            for event in _events_of(lines):
                self.events += 1
                self._apply(event)
        finally:
            if self._changes != before:
                self._progressed = True
                self._changed()

    def _apply(self, event: _Event) -> None:
        if event.type == "ERROR":
            raise self._error_of(_ERROR.decode(event.object))
        if event.type == "BOOKMARK":
            self._version = _ONLY_METADATA.decode(event.object).metadata.resource_version
            return
        item = self._decode(event.object)
        key = _key(item)
        known = self._objects.get(key)
        if event.type == UNREADABLE:
            self._tell_unreadable(item)
        elif event.type == "DELETED":
            self._unreadable.discard(key)
            if known is not None and not _later(known.metadata.resource_version, item.metadata.resource_version):
                self._put(key, None)
        elif event.type not in ("ADDED", "MODIFIED"):
            raise msgspec.DecodeError(f"an event of type {event.type}")
        elif known is None or _supersedes(item, known):
            self._put(key, item)
        self._version = item.metadata.resource_version

    def _error_of(self, status: _ErrorStatus) -> ApiError:
        """The error of an ERROR event. One that comes twice at the same version will not go away by asking again."""
        if status.code != 429 and self._refused_at == self._version:
            return Gone(status.message, status.code, status.reason)
        self._refused_at = self._version
        retry_after_s = status.details.retry_after_seconds if status.details else 1.0
        return error_for(status.code, status.message or f"code {status.code}", status.reason, retry_after_s)

    # --- the copy ---

    def _put(self, key: ObjectKey, item: T | None) -> None:
        """None: it is gone."""
        before = self._objects.pop(key, None) if item is None else self._objects.get(key)
        if item is not None:
            self._objects[key] = item
        self._unreadable.discard(key)
        self._changes += 1
        if self._moved is not None:
            self._moved(before, item)

    def _tell_unreadable(self, item: HasMetadata) -> ObjectKey:
        """Once, until it can be read or is gone."""
        key = _key(item)
        if key not in self._unreadable:
            self._unreadable.add(key)
            where = {"kind": self._selection.resource.kind, "namespace": key[0], "name": key[1]}
            log.error("object.unreadable", error=f"it nests deeper than {DEEPEST} levels", **where)
        return key


def _events_of(lines: bytes) -> list[_Event]:
    try:
        return _EVENTS.decode_lines(lines)
    except RecursionError:
        return [_readable(event) for event in _EVENTS.decode_lines(cut(lines))]


def _readable(event: _Event) -> _Event:
    """Of what was cut, the metadata alone."""
    if TOO_DEEP not in bytes(event.object):
        return event
    metadata = msgspec.Raw(msgspec.json.encode(_ONLY_METADATA.decode(event.object)))
    return _Event("DELETED" if event.type == "DELETED" else UNREADABLE, metadata)


def _names(selection: Selection) -> dict[str, str]:
    return {"kind": selection.resource.kind, "namespace": selection.namespace}


def _key(item: HasMetadata) -> ObjectKey:
    metadata = item.metadata
    if not metadata.name or not metadata.resource_version:
        raise msgspec.DecodeError("an object without a name or a resourceVersion")
    return (metadata.namespace, metadata.name)


def _doubtful(error: ApiError | msgspec.DecodeError) -> bool:
    """Can only a new list tell the truth? 504: the version is not yet reached, etcd was restored from a backup."""
    return isinstance(error, msgspec.DecodeError | Gone | Refused) or error.status == 504


def _later(version: str, than: str) -> bool:
    """Versions of one kind compare as integers. Where they are something else, what comes later is later."""
    return not (version.isdigit() and than.isdigit()) or int(version) > int(than)


def _differs(item: HasMetadata, known: HasMetadata) -> bool:
    one, other = item.metadata, known.metadata
    return one.resource_version != other.resource_version or one.uid != other.uid


def _supersedes(item: HasMetadata, known: HasMetadata) -> bool:
    return _differs(item, known) and _later(item.metadata.resource_version, known.metadata.resource_version)
