"""A local copy of one kind of object, kept up to date by list and watch.

Level-triggered: a change calls `changed()` without saying what changed. After any doubt (an error event, a line that
does not decode, a version that is too old) everything is listed again. `synced` gates acting.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import structlog

from autoscaler.cluster.client import KubeApi
from autoscaler.cluster.errors import ApiError, Gone
from autoscaler.cluster.resources import ListMetadata, Metadata, Resource

PAGE_SIZE: Final = 500
WATCH_S: Final = 300.0  # the server ends a watch after about this long
SILENCE_S: Final = 15.0  # beyond that, a silent connection is dead
BACK_OFF_FIRST_S: Final = 0.1
BACK_OFF_MOST_S: Final = 30.0

log = structlog.get_logger()


class Identified(Protocol):
    """The part of an object's metadata that the copy goes by."""

    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...


class HasMetadata(Protocol):
    @property
    def metadata(self) -> Identified: ...


T = TypeVar("T", bound=HasMetadata)
ObjectKey = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Selection:
    """What to watch: one namespace or all ("" ), and a label selector ("" for everything)."""

    resource: Resource
    namespace: str = ""
    labels: str = ""


class _Head(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _ErrorStatus(msgspec.Struct):
    code: int = 0
    message: str = ""


class _OnlyMetadata(msgspec.Struct):
    metadata: Metadata


class Watched(Generic[T]):
    """The copy. Reading never blocks; `run` must be running."""

    def __init__(self, api: KubeApi, selection: Selection, kind: type[T], changed: Callable[[], None]) -> None:
        self._api = api
        self._selection = selection
        self._changed = changed
        self._decode: Callable[[msgspec.Raw], T] = msgspec.json.Decoder(kind).decode
        self._page = msgspec.json.Decoder(_page_of(kind))
        self._objects: dict[ObjectKey, T] = {}
        self._version = ""
        self.synced = asyncio.Event()
        self.relists = 0

    def get(self, namespace: str, name: str) -> T | None:
        return self._objects.get((namespace, name))

    def __iter__(self) -> Iterator[T]:
        return iter(self._objects.values())

    def __len__(self) -> int:
        return len(self._objects)

    def assume(self, item: T) -> None:
        """Takes the answer to our own write for the truth until the watch brings something newer."""
        if not _older(item, self._objects.get(_key(item))):
            self._objects[_key(item)] = item

    async def run(self) -> None:
        """Follows the server until cancelled."""
        back_off_s = BACK_OFF_FIRST_S
        failing = False
        while True:
            began = asyncio.get_running_loop().time()
            try:
                if not self._version:
                    await self._list()
                seen = await self._watch()
                if failing:
                    log.info("watch.recovered", kind=self._selection.resource.kind)
                failing = False
                if seen or asyncio.get_running_loop().time() - began > 1:
                    back_off_s = BACK_OFF_FIRST_S
                    continue
            except (ApiError, msgspec.DecodeError) as error:
                if isinstance(error, Gone | msgspec.DecodeError):
                    self._version = ""
                if not failing and not isinstance(error, Gone):
                    log.warning("watch.failed", kind=self._selection.resource.kind, error=str(error))
                    failing = True
            await asyncio.sleep(back_off_s * random.uniform(0.5, 1.5))
            back_off_s = min(BACK_OFF_MOST_S, back_off_s * 2)

    async def _list(self) -> None:
        path = self._selection.resource.path(self._selection.namespace)
        params = {"limit": str(PAGE_SIZE)}
        if self._selection.labels:
            params["labelSelector"] = self._selection.labels
        fresh: dict[ObjectKey, T] = {}
        while True:
            page = self._page.decode(await self._api.call("GET", path, params=params))
            fresh.update((_key(each), each) for each in page.items)
            if not page.metadata.next:
                break
            params["continue"] = page.metadata.next
        self._objects = fresh
        self._version = page.metadata.resource_version
        self.relists += 1
        self.synced.set()
        self._changed()

    async def _watch(self) -> int:
        """Follows one watch to its end; how many events it brought."""
        lasts_s = WATCH_S * random.uniform(0.8, 1.2)
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(lasts_s)),
        }
        if self._selection.labels:
            params["labelSelector"] = self._selection.labels
        path = self._selection.resource.path(self._selection.namespace)
        events = 0
        async for line in self._api.stream(path, params, lasts_s + SILENCE_S):
            self._apply(msgspec.json.decode(line, type=_Head))
            events += 1
        return events

    def _apply(self, event: _Head) -> None:
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=_ErrorStatus)
            raise Gone(status.message, status.code)  # whatever it is: only a new list tells the truth
        if event.type == "BOOKMARK":
            self._version = msgspec.json.decode(event.object, type=_OnlyMetadata).metadata.resource_version
            return
        item = self._decode(event.object)
        if event.type == "DELETED":
            self._objects.pop(_key(item), None)
        elif not _older(item, self._objects.get(_key(item))):
            self._objects[_key(item)] = item
        self._version = item.metadata.resource_version
        self._changed()


def _key(item: HasMetadata) -> ObjectKey:
    return (item.metadata.namespace, item.metadata.name)


def _older(item: HasMetadata, known: HasMetadata | None) -> bool:
    """Versions of one object compare as integers (Kubernetes' comparable resource versions)."""
    if known is None or known.metadata.uid != item.metadata.uid:
        return False
    return _version(item) < _version(known)


def _version(item: HasMetadata) -> int:
    version = item.metadata.resource_version
    return int(version) if version.isdigit() else 0


class _Page(msgspec.Struct, Generic[T]):
    metadata: ListMetadata
    items: list[T]


def _page_of(kind: type[T]) -> type[_Page[T]]:
    return _Page[kind]  # type: ignore[valid-type]
