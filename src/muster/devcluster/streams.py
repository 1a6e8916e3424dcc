"""WATCH: the events a client has missed, then those that come, as JSON lines or over a WebSocket.

Source: Kubernetes API concepts, "Efficient detection of changes" and "Watch bookmarks".
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import WSCloseCode, web

from muster.devcluster.errors import ApiError, Cause, invalid
from muster.devcluster.lists import requested_version, selector_of
from muster.devcluster.requests import Request
from muster.devcluster.storage import Change, Record, Store, encode
from muster.devcluster.watch import Watcher, WatchHub

BOOKMARK_SECONDS = 60.0
LOOK_SECONDS = 10.0  # how often a quiet watch looks whether its client is still there
LONGEST_SECONDS = 1800.0  # kube-apiserver ends watches after 30 to 60 minutes

Send = Callable[[Iterable[bytes]], Awaitable[None]]
RenderChange = Callable[[Change, str], bytes]


def open_watch(store: Store, hub: WatchHub, request: Request, render: RenderChange) -> Watcher:
    """Subscribes, with everything that must be sent first already pending. Raises 400, 422, 410 Expired."""
    selector = selector_of(request)
    version = requested_version(request)
    initial = _wants_initial_events(request, version)
    watcher = Watcher(request.target.namespace, selector, render)
    collection = store.collection(request.kind.collection)
    if initial:
        for record in collection.scan(request.target.namespace):
            if selector.matches(record.obj):
                watcher.pending.append(render(_synthetic(record), "ADDED"))
    elif version:
        for change in collection.since(version):
            watcher.offer(change)
    watcher.version = store.version
    if request.flag("sendInitialEvents") and request.flag("allowWatchBookmarks"):
        watcher.pending.append(bookmark(request, store.version, ends_initial=True))
    if watcher.pending:
        watcher.wake.set()
    hub.add(watcher)
    return watcher


def _synthetic(record: Record) -> Change:
    return Change("ADDED", record, None)


def _wants_initial_events(request: Request, version: int | None) -> bool:
    """Without a version, or with 0, a watch begins with the present state; with one, after that version."""
    asked = request.params.get("sendInitialEvents")
    if asked is None:
        if request.params.get("resourceVersionMatch"):
            said = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            raise invalid(
                "ListOptions", "meta.k8s.io", "", [Cause("FieldValueForbidden", said, "resourceVersionMatch")]
            )
        return not version
    if request.params.get("resourceVersionMatch") != "NotOlderThan":
        said = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise invalid("ListOptions", "meta.k8s.io", "", [Cause("FieldValueForbidden", said, "resourceVersionMatch")])
    return request.flag("sendInitialEvents")


def bookmark(request: Request, version: int, *, ends_initial: bool = False) -> bytes:
    """An event that says only how far the watch has come."""
    metadata: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
    if ends_initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    kind = request.kind
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return encode({"type": "BOOKMARK", "object": obj})


def error_event(error: ApiError) -> bytes:
    return encode({"type": "ERROR", "object": error.status})


async def pump(
    store: Store, watcher: Watcher, request: Request, send: Send, client_is_gone: Callable[[], bool]
) -> None:
    """Sends what comes until the time is up, the watcher is closed or the client goes."""
    loop = asyncio.get_running_loop()
    seconds = request.integer("timeoutSeconds") or LONGEST_SECONDS * random.uniform(1, 2)
    end = loop.time() + seconds
    next_bookmark = loop.time() + BOOKMARK_SECONDS if request.flag("allowWatchBookmarks") else math.inf
    while not watcher.closed or watcher.pending:
        if watcher.pending:
            await send(watcher.take())
            continue
        now = loop.time()
        if now >= end or client_is_gone():
            break
        if now >= next_bookmark:
            next_bookmark = now + BOOKMARK_SECONDS
            await send([bookmark(request, store.version)])
        try:
            async with asyncio.timeout_at(min(end, next_bookmark, now + LOOK_SECONDS)):
                await watcher.wake.wait()
        except TimeoutError:
            continue


async def stream_lines(http: web.BaseRequest, store: Store, watcher: Watcher, request: Request) -> web.StreamResponse:
    """The chunked form: one JSON object a line."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})
    response.enable_chunked_encoding()
    await response.prepare(http)

    async def send(frames: Iterable[bytes]) -> None:
        await response.write(b"\n".join(frames) + b"\n")

    try:
        await pump(store, watcher, request, send, lambda: http.transport is None or http.transport.is_closing())
        await response.write_eof()
    except ConnectionError:
        pass  # the client has gone; the watch ends with it
    return response


async def stream_frames(http: web.BaseRequest, store: Store, watcher: Watcher, request: Request) -> web.StreamResponse:
    """The WebSocket form: one JSON object a text frame. fabric8 asks for it first."""
    socket = web.WebSocketResponse(compress=False, autoping=True)
    await socket.prepare(http)

    async def send(frames: Iterable[bytes]) -> None:
        for frame in frames:
            await socket.send_str(frame.decode())

    async def listen() -> None:
        async for _ in socket:
            pass  # clients only ping and close
        watcher.close()

    listener = asyncio.create_task(listen())
    try:
        await pump(store, watcher, request, send, lambda: socket.closed)
    except ConnectionError:
        pass
    finally:
        if not socket.closed:
            await socket.close(code=WSCloseCode.OK)
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
    return socket


async def refuse(http: web.BaseRequest, error: ApiError) -> web.StreamResponse:
    """A watch that cannot begin because its version is gone: one ERROR event, then the end."""
    if http.headers.get("Upgrade", "").lower() == "websocket":
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(http)
        await socket.send_str(error_event(error).decode())
        await socket.close(code=WSCloseCode.OK)
        return socket
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(http)
    try:
        await response.write(error_event(error) + b"\n")
        await response.write_eof()
    except ConnectionError:
        pass  # the client has gone; it will ask again
    return response
