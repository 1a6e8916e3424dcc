"""List and then watch one resource for ever: what exists is told once, what changes is told as it happens.

Nothing is cached but names, uids and resourceVersions (about 300 bytes an object), which is what it takes to notice,
after a gap in the watch, which objects are gone and which have not changed. Protocol: Kubernetes API concepts,
"Efficient detection of changes"; client-go ``Reflector``; KEP-3157 (streaming lists).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

import aiohttp
import msgspec

from muster.kube.client import Client, DecodedPage, Query
from muster.kube.errors import SILENT, ApiError, error_from_status
from muster.kube.kinds import Resource
from muster.kube.objects import KubeStruct, ObjectMeta, PartialObject, Status, WatchEvent
from muster.kube.retry import RetryPolicy

T = TypeVar("T")

INACTIVITY_SECONDS = 70.0
"""Silence after which a watch is opened anew, from where it was. The API server sends a bookmark about every minute
where anything changes; of calm resources it may say nothing at all, and neither does a connection that is dead."""

SLICE = 8
"""Objects told before other tasks get their turn: about 0.5 ms, with what is made of them."""

AGAIN = 100
"""Objects on a page at most when they are listed again: meanwhile others wait for answers. The first list is decoded
page by page, in a few milliseconds each: nobody can be answered in full before it is complete."""

_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_RECONNECT = RetryPolicy(first=0.5, ceiling=30.0)


class Added(msgspec.Struct, Generic[T], frozen=True, gc=False):
    object: T


class Modified(msgspec.Struct, Generic[T], frozen=True, gc=False):
    object: T


class Deleted(msgspec.Struct, Generic[T], frozen=True, gc=False):
    namespace: str
    name: str
    uid: str
    object: T | None = None
    """Its last state; ``None`` when it went unseen during a gap in the watch."""


class Synced(msgspec.Struct, frozen=True, gc=False):
    """Everything that exists has been told: after the first list and after each later one."""

    resource_version: str
    objects: int


WatchedEvent = Added[T] | Modified[T] | Deleted[T] | Synced


class _Cut(Exception):
    """The stream ended in the middle of a line."""


class _Identity(KubeStruct, frozen=True):
    """Which object, and which state of it; decodes in half the time of the whole object."""

    class Metadata(KubeStruct, frozen=True):
        namespace: str = ""
        name: str = ""
        uid: str = ""
        resource_version: str = ""

    metadata: Metadata = Metadata()


_decode_identity = msgspec.json.Decoder(_Identity).decode
_decode_identity_line = msgspec.json.Decoder(WatchEvent[_Identity]).decode


class ListWatch(Generic[T]):
    """``async for event in ListWatch(client, PODS).events()``; the resource's struct must have a ``metadata``.

    It never gives up: failures are waited out with back-off. ``notice`` is told of each failure, and of each object
    that does not decode (which is then skipped).
    ``streaming`` asks for the first state as a stream (Kubernetes 1.34 on); a server that cannot is listed in pages.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = 250,
        streaming: bool = False,
        inactivity: float = INACTIVITY_SECONDS,
        notice: Callable[[Exception], None] | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._page_size = page_size
        self._streaming = streaming
        self._inactivity = inactivity
        self._notice = notice or (lambda error: None)
        self._decode = msgspec.json.Decoder(resource.object).decode
        self._decode_line = msgspec.json.Decoder(WatchEvent[resource.object]).decode  # type: ignore[name-defined]
        self._known: dict[tuple[str, str], tuple[str, str]] = {}
        """(namespace, name) → (uid, resourceVersion)"""
        self._version = ""

    async def run(self, sink: Callable[[WatchedEvent[T]], None]) -> None:
        """Feed ``sink`` until cancelled."""
        async with aclosing(self.events()) as events:
            async for event in events:
                sink(event)

    async def events(self) -> AsyncGenerator[WatchedEvent[T]]:
        """Endless. Close it (``contextlib.aclosing``) when leaving early."""
        clock = self._client.clock
        failures = 0
        listed = False
        while True:
            begun = clock.monotonic()
            progress = False
            asked = 0.0
            try:
                async with aclosing(self._watch() if listed else self._list()) as told:
                    async for event in told:
                        progress = True
                        yield event
                if not listed:
                    listed = True
                    continue  # failures are not forgotten: lists that no watch can follow must slow down
            except _Cut as cut:
                self._notice(cut)
            except ApiError as error:
                if error.reason != SILENT:
                    self._notice(error)
                asked = error.retry_after or 0.0
                if error.expired:
                    listed = progress = False
                elif self._streaming and not listed and error.code in (400, 422):
                    self._streaming = False
                    continue
            # a server that closes watches at once must not be asked in a tight loop either
            if listed and (progress or clock.monotonic() - begun >= 1.0):
                failures = 0
                if asked:
                    await clock.sleep(asked)
            else:
                failures += 1
                await clock.sleep(max(asked, _RECONNECT.delay(failures, self._client.random())))

    def _list(self) -> AsyncGenerator[WatchedEvent[T]]:
        return self._stream_all() if self._streaming else self._list_all()

    async def _list_all(self) -> AsyncGenerator[WatchedEvent[T]]:
        """Tell everything that exists and what is gone since the last time, page by page."""
        unseen = set(self._known)
        again = bool(unseen)
        token = ""
        while True:
            try:
                page = await (self._client.page if again else self._client.decoded_page)(
                    self._resource,
                    self._namespace,
                    label_selector=self._selectors["labelSelector"],
                    field_selector=self._selectors["fieldSelector"],
                    limit=min(self._page_size, AGAIN) if again else self._page_size,
                    continue_=token,
                )
            except ApiError as error:
                if not (error.expired and token):
                    raise
                self._notice(error)
                token = ""  # the pages would be of two different moments: start again, what was told stays told
                unseen = set(self._known)
                continue
            items = page.items if isinstance(page, DecodedPage) else self._changed(page.items, unseen)
            for position, item in enumerate(items):
                if position % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                if item is not None:
                    unseen.discard(_key(_metadata(item)))
                    for event in self._upsert(item):
                        yield event
            token = page.metadata.continue_
            if not token:
                break
        async for event in self._finish(unseen, page.metadata.resource_version):
            yield event

    async def _stream_all(self) -> AsyncGenerator[WatchedEvent[T]]:
        """The same by a watch that begins with what exists and says where that ends."""
        query: Query = {
            "sendInitialEvents": True,
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": True,
            **self._selectors,
        }
        unseen = set(self._known)
        again = bool(unseen)
        async with (
            self._client.watch(self._resource, self._namespace, query, inactivity=self._inactivity) as stream,
            aclosing(_lines(stream)) as lines,
        ):
            position = 0
            async for line in lines:
                position += 1
                if position % SLICE == 0:
                    await asyncio.sleep(0)
                if again and (told := self._told_before(_identity_in(line))):
                    unseen.discard(told)
                    continue
                kind, item, metadata = self._parse(line)
                if kind == "BOOKMARK" and metadata.annotations.get(_INITIAL_EVENTS_END) == "true":
                    async for event in self._finish(unseen, metadata.resource_version):
                        yield event
                    return
                unseen.discard(_key(metadata))
                for event in self._told_by(kind, item, metadata):
                    yield event
        raise _Cut("the stream of the first state ended before its end was marked")

    async def _finish(self, gone: set[tuple[str, str]], version: str) -> AsyncGenerator[WatchedEvent[T]]:
        for position, key in enumerate(sorted(gone)):
            uid, _ = self._known.pop(key)
            yield Deleted(*key, uid)
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._version = version
        yield Synced(version, len(self._known))

    async def _watch(self) -> AsyncGenerator[WatchedEvent[T]]:
        """One watch, from where the last one ended until the server or the network ends this one."""
        query: Query = {
            "resourceVersion": self._version,
            "allowWatchBookmarks": True,
            # spread over time, so that watches opened together do not end together (client-go: 5 to 10 minutes)
            "timeoutSeconds": int(300 + 300 * self._client.random()),
            **self._selectors,
        }
        async with (
            self._client.watch(self._resource, self._namespace, query, inactivity=self._inactivity) as stream,
            aclosing(_lines(stream)) as lines,
        ):
            position = 0
            async for line in lines:
                kind, item, metadata = self._parse(line)
                for event in self._told_by(kind, item, metadata):
                    yield event
                if metadata.resource_version:
                    self._version = metadata.resource_version
                position += 1
                if position % SLICE == 0:
                    await asyncio.sleep(0)

    def _parse(self, line: bytes) -> tuple[str, T | None, ObjectMeta]:
        """Type, object (``None`` for bookmarks and what does not decode) and metadata of a line.

        Raises ``ApiError`` for an ``ERROR`` event and ``_Cut`` for what is not JSON.
        """
        try:
            event = self._decode_line(line)
            if event.type in ("ADDED", "MODIFIED", "DELETED"):
                return event.type, event.object, _metadata(event.object)
        except msgspec.ValidationError as error:
            problem: msgspec.ValidationError | None = error
        except msgspec.DecodeError:
            raise _Cut(f"the watch of {self._resource.plural} sent a line that is not JSON") from None
        else:
            problem = None
        outline = msgspec.json.decode(line, type=WatchEvent[msgspec.Raw])
        if outline.type == "ERROR":
            raise error_from_status(f"WATCH {self._resource.path(self._namespace)}", _lenient(outline.object, Status()))
        if problem is not None and outline.type != "BOOKMARK":
            self._notice(problem)
        return outline.type, None, _lenient(outline.object, PartialObject()).metadata

    def _changed(self, raws: Sequence[msgspec.Raw], unseen: set[tuple[str, str]]) -> Iterator[T | None]:
        """Item by item: ``None`` for what is as it was told and for what does not decode, which is not gone either."""
        for raw in raws:
            told = self._told_before(_identity_of(raw)) if self._known else None
            if told is not None:
                unseen.discard(told)
                yield None
                continue
            try:
                yield self._decode(raw)
            except msgspec.MsgspecError as error:
                self._notice(error)
                unseen.discard(_key(_lenient(raw, PartialObject()).metadata))
                yield None

    def _told_before(self, metadata: _Identity.Metadata | None) -> tuple[str, str] | None:
        """The key of an object that is still as it was told; ``None`` when it has to be looked at."""
        if metadata is None:
            return None
        key = (metadata.namespace, metadata.name)
        return key if self._known.get(key) == (metadata.uid, metadata.resource_version) else None

    def _told_by(self, kind: str, item: T | None, metadata: ObjectMeta) -> Sequence[WatchedEvent[T]]:
        """What a line of a watch tells: nothing when it is a bookmark or does not decode."""
        if kind == "DELETED":
            return self._remove(metadata, item)
        return self._upsert(item) if item is not None else ()

    def _upsert(self, item: T) -> Sequence[WatchedEvent[T]]:
        """Nothing for a state that was told before; a successor of the same name tells the end of the first one."""
        metadata = _metadata(item)
        key = _key(metadata)
        before = self._known.get(key)
        now = (metadata.uid, metadata.resource_version)
        if before == now:
            return ()
        self._known[key] = now
        if before is None:
            return [Added(item)]
        if before[0] != metadata.uid:
            return [Deleted(*key, before[0]), Added(item)]
        return [Modified(item)]

    def _remove(self, metadata: ObjectMeta, item: T | None) -> Sequence[WatchedEvent[T]]:
        key = _key(metadata)
        before = self._known.get(key)
        if before is None or before[0] != metadata.uid:
            return ()  # told before, or the end of a predecessor of the same name
        del self._known[key]
        return [Deleted(*key, metadata.uid, item)]


async def _lines(stream: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    """Whole lines of any length. Raises ``_Cut`` when the stream ends within one."""
    parts: list[bytes] = []
    async for chunk in stream.iter_any():
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            if parts:
                parts.append(line)
                line = b"".join(parts)
                parts = []
            if line:
                yield line
        if rest:
            parts.append(rest)
    if parts:
        raise _Cut("the stream was cut in the middle of a line")


def _metadata(item: object) -> ObjectMeta:
    return item.metadata  # type: ignore[attr-defined, no-any-return]


def _key(metadata: ObjectMeta) -> tuple[str, str]:
    return sys.intern(metadata.namespace), metadata.name


def _identity_of(raw: msgspec.Raw) -> _Identity.Metadata | None:
    """Of an item of a list; ``None`` when it has none that can be read."""
    try:
        return _decode_identity(raw).metadata
    except msgspec.MsgspecError:
        return None


def _identity_in(line: bytes) -> _Identity.Metadata | None:
    """Of the object that a line of a watch says is there."""
    try:
        event = _decode_identity_line(line)
    except msgspec.MsgspecError:
        return None
    return event.object.metadata if event.type == "ADDED" else None


D = TypeVar("D")


def _lenient(raw: msgspec.Raw, default: D) -> D:
    try:
        return msgspec.json.decode(raw, type=type(default))
    except msgspec.MsgspecError:
        return default
