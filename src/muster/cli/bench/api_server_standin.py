"""A stand-in for a large cluster's API server: lists in pages and watches, cheap enough to feed 100,000 pods.

It is a process of its own (``python -m muster.cli.bench.api_server_standin``), speaks TLS, and knows what Muster asks
of an API server and no more. Admissions are not made here: ``review_load`` tells which pods were admitted and which
end, and they appear in the watch as a real API server would show them. What the measurement asks is under ``/bench``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import re
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import yaml
from aiohttp import web

from muster.cli.bench.large_cluster import LargeApplication, LargeCluster, Spot
from muster.control.process import event_loop
from muster.kube.certificates import make_authority, make_serving
from muster.spark import names

KUBELET_NOTICES, STARTS = 0.3, 1.0
"""Seconds after its creation until a pod's first status, and until it runs."""
TERMINATES, GOES = 0.5, 0.6
"""Seconds after a pod's deletion until its containers have ended, and until it is gone."""
BOOKMARK_SECONDS = 30.0
_EXPIRED = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",' + (
    b'"message":"too old resource version","reason":"Expired","code":410}'
)

Render = Callable[[int], bytes]
"""The object's text at a resourceVersion."""


class Admitted(msgspec.Struct, frozen=True, array_like=True):
    """An executor that went through admission; ``node`` is empty when it is held."""

    application: int
    executor: int
    node: str
    extra: bool


class Happened(msgspec.Struct, frozen=True):
    """What ``review_load`` tells of."""

    admitted: list[Admitted] = []
    ended: list[tuple[int, int]] = []
    """(application, executor)"""


class Collection:
    """One resource: its objects by key, and every event since the start, for the watches."""

    def __init__(self, server: Standin, kind: str, api_version: str = "v1") -> None:
        self._server = server
        self._kind = kind
        self._api_version = api_version
        self.objects: dict[tuple[str, str], tuple[Render, int]] = {}
        self._rendered: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._events: list[tuple[int, bytes]] = []
        self._oldest = 0
        self._news = asyncio.Event()
        self._cut = asyncio.Event()
        self._snapshots: dict[str, list[tuple[str, str]]] = {}
        self.watched = asyncio.Event()
        """A watch has begun since the last cut."""

    def prepare(self) -> None:
        """Render what is there, to be told without work: on a small machine the measured process would feel it."""
        for key, (render, version) in self.objects.items():
            self._rendered[key] = version, _event("ADDED", render(version))

    def put(self, namespace: str, name: str, render: Render, event: str) -> None:
        version = self._server.next_version()
        self.objects[namespace, name] = (render, version)
        self._tell(version, event, render(version))

    def remove(self, namespace: str, name: str) -> None:
        found = self.objects.pop((namespace, name), None)
        if found is not None:
            version = self._server.next_version()
            self._tell(version, "DELETED", found[0](version))

    def expire(self) -> None:
        """End every watch as outdated: whoever watches must list again."""
        self._oldest = self._server.next_version()
        self.watched.clear()
        self._cut.set()
        self._cut = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return await (self._watch(request) if "watch" in request.query else self._list(request))

    async def _list(self, request: web.Request) -> web.Response:
        limit = int(request.query.get("limit", 0)) or sys.maxsize
        token = request.query.get("continue", "")
        identity, _, offset = token.partition(".")
        if not token:
            identity = str(self._server.version)
            self._snapshots[identity] = sorted(self.objects)
        keys, begin = self._snapshots[identity], int(offset or 0)
        rendered = []
        for key in keys[begin : begin + limit]:
            found = self.objects.get(key)
            if found is not None:
                rendered.append(found[0](found[1]))
        metadata: dict[str, Any] = {"resourceVersion": identity}
        if begin + limit < len(keys):
            left = len(keys) - begin - limit
            metadata |= {"continue": f"{identity}.{begin + limit}", "remainingItemCount": left}
        else:
            del self._snapshots[identity]
        head = {"kind": f"{self._kind}List", "apiVersion": self._api_version, "metadata": metadata}
        body = msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(rendered) + b"]}"
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        stream = request.query.get("sendInitialEvents") == "true"
        version = self._server.version if stream else int(request.query.get("resourceVersion", 0))
        if version < self._oldest:
            return web.Response(status=410, body=_EXPIRED, content_type="application/json")
        cut = self._cut
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            if stream:
                await self._tell_all(response, version)
            else:
                self.watched.set()
            await self._follow(response, version, cut)
        except ConnectionError:
            pass  # who watched is gone
        return response

    async def _tell_all(self, response: web.StreamResponse, version: int) -> None:
        """What is there, event by event in chunks of their own as kube-apiserver writes them, and where that ends."""
        for position, key in enumerate(sorted(self.objects)):
            line = self._line(key)
            if line is not None:
                await response.write(line)
            if position % 8 == 0:
                await asyncio.sleep(0)
        await response.write(self._bookmark(version, {"k8s.io/initial-events-end": "true"}))

    def _line(self, key: tuple[str, str]) -> bytes | None:
        """The event that tells of an object; ``None`` when it is gone."""
        found = self.objects.get(key)
        if found is None:
            return None
        render, version = found
        rendered = self._rendered.get(key)
        return rendered[1] if rendered is not None and rendered[0] == version else _event("ADDED", render(version))

    async def _follow(self, response: web.StreamResponse, version: int, cut: asyncio.Event) -> None:
        position = len(self._events)
        while position and self._events[position - 1][0] > version:
            position -= 1
        while not cut.is_set():
            if position == len(self._events):
                news = self._news
                if not await _either(news, cut, BOOKMARK_SECONDS):
                    await response.write(self._bookmark(self._server.version, {}))
                continue
            lines = [line for _, line in self._events[position : position + 500]]
            position += len(lines)
            await response.write(b"".join(lines))
        await response.write(b'{"type":"ERROR","object":' + _EXPIRED + b"}\n")

    def _bookmark(self, version: int, annotations: dict[str, str]) -> bytes:
        metadata = {"resourceVersion": str(version), "annotations": annotations}
        body = {"kind": self._kind, "apiVersion": self._api_version, "metadata": metadata}
        return _event("BOOKMARK", msgspec.json.encode(body))

    def _tell(self, version: int, event: str, text: bytes) -> None:
        self._events.append((version, _event(event, text)))
        self._news.set()
        self._news = asyncio.Event()


async def _either(first: asyncio.Event, second: asyncio.Event, timeout: float) -> bool:
    """Whether one of them was set in time."""
    waits = [asyncio.create_task(event.wait()) for event in (first, second)]
    done, pending = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return bool(done)


class Standin:
    """The objects of a ``LargeCluster``, and what Muster writes to them."""

    def __init__(self, cluster: LargeCluster) -> None:
        self.cluster = cluster
        self.version = 1_000_000
        self.nodes = Collection(self, "Node")
        self.pods = Collection(self, "Pod")
        self.gangs = Collection(self, "Gang", "muster.dev/v1alpha1")
        self.queues = Collection(self, "Queue", "muster.dev/v1alpha1")
        self.decided = asyncio.Event()
        self.writes: Counter[str] = Counter()
        self._applications = {app.key: app for app in (*cluster.applications, cluster.waiting)}
        self._config_maps = {(app.namespace, app.identity.config_map): app for app in self._applications.values()}
        self._others: dict[str, dict[str, Any]] = {}
        """Single objects, by path."""
        self._fill()

    def next_version(self) -> int:
        self.version += 1
        return self.version

    # Setting up

    def _fill(self) -> None:
        for name, text in self.cluster.node_objects():
            self.nodes.objects["", name] = (_constant(text), 1)
        for namespace, name, text in self.cluster.daemons():
            self.pods.objects[namespace, name] = (_constant(text), 1)
        for app, (driver_node, spots) in zip(self.cluster.applications, self.cluster.placed(), strict=True):
            driver, gang = app.driver(driver_node, 1), app.gang(driver_node, spots, 1)
            self.pods.objects[app.namespace, app.driver_name] = (_constant(driver), 1)
            self.gangs.objects[app.namespace, app.identity.application_id] = (_constant(gang), 1)
            for executor, spot in spots.items():
                name = app.executor_name(executor)
                self.pods.objects[app.namespace, name] = (_executor(app, executor, spot, "Running"), executor)
        waiting = self.cluster.waiting
        self.pods.objects[waiting.namespace, waiting.driver_name] = (lambda at: waiting.driver("", at), 1)
        self.pods.prepare()

    # What happens

    def happened(self, news: Happened) -> None:
        loop = asyncio.get_running_loop()
        for application, executor in news.ended:
            app = self.cluster.applications[application]
            found = self.pods.objects.get((app.namespace, app.executor_name(executor)))
            if found is not None:
                spot = self._spot_of(found[0](0))
                self._show(app, executor, spot, "Running" if spot is not None else "Pending", ending=True)
                loop.call_later(TERMINATES, self._show, app, executor, spot, "Succeeded", True)
                loop.call_later(GOES, self.pods.remove, app.namespace, app.executor_name(executor))
        for told in news.admitted:
            app = self.cluster.applications[told.application]
            spot = Spot(told.node, told.extra) if told.node else None
            render = _executor(app, told.executor, spot, "Pending")
            self.pods.put(app.namespace, app.executor_name(told.executor), render, "ADDED")
            if spot is not None:
                self._starts(app, told.executor, spot)

    def _starts(self, app: LargeApplication, executor: int, spot: Spot) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(KUBELET_NOTICES, self._show, app, executor, spot, "Pending")
        loop.call_later(STARTS, self._show, app, executor, spot, "Running")

    def _show(self, app: LargeApplication, executor: int, spot: Spot | None, phase: str, ending: bool = False) -> None:
        name = app.executor_name(executor)
        if (app.namespace, name) in self.pods.objects:
            self.pods.put(app.namespace, name, _executor(app, executor, spot, phase, ending), "MODIFIED")

    @staticmethod
    def _spot_of(text: bytes) -> Spot | None:
        notes = msgspec.json.decode(text)["metadata"]["annotations"]
        node = notes.get(names.SLOT_ANNOTATION, "")
        return Spot(node, names.EXTRA_ANNOTATION in notes) if node else None

    # What Muster asks

    def routes(self) -> list[web.RouteDef]:
        single = r"/{group:api/v1|apis/[^/]+/[^/]+}{namespace:(/namespaces/[^/]+)?}/{plural}"
        return [
            web.get("/api/v1/nodes", self.nodes.answer),
            web.get("/api/v1/pods", self.pods.answer),
            web.get("/apis/muster.dev/v1alpha1/gangs", self.gangs.answer),
            web.get("/apis/muster.dev/v1alpha1/queues", self.queues.answer),
            web.get("/api/v1/namespaces/{namespace}/configmaps/{name}", self._config_map),
            web.patch("/api/v1/namespaces/{namespace}/pods/{name}", self._release),
            web.post("/bench/happened", self._happened),
            web.post("/bench/expire", self._expire),
            web.get("/bench/decided", self._decided),
            web.get("/bench/watched", self._watched),
            web.get("/bench/writes", self._told_writes),
            web.get("/bench/webhook", self._webhook),
            web.get(single + "/{name}", self._get),
            web.post(single, self._write),
            web.put(single + "/{name}", self._write),
            web.patch(single + "/{name}", self._write),
            web.patch(single + "/{name}/status", self._write),
        ]

    async def _config_map(self, request: web.Request) -> web.Response:
        app = self._config_maps.get((request.match_info["namespace"], request.match_info["name"]))
        if app is None:
            return _failure(404, "NotFound", request.path)
        return web.Response(body=app.config_map(), content_type="application/json")

    async def _release(self, request: web.Request) -> web.Response:
        """The gate comes off, and the pod is pinned: it is bound at once."""
        self.writes["patch pods"] += 1
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        node = _pinned_node(await request.read())
        waiting = self.cluster.waiting
        if name == waiting.driver_name:
            self.decided.set()
            self.pods.put(namespace, name, lambda at: waiting.driver(node, at), "MODIFIED")
        else:
            found = self.pods.objects.get((namespace, name))
            if found is None:
                return _failure(404, "NotFound", request.path)
            labels = msgspec.json.decode(found[0](0))["metadata"]["labels"]
            app = self._applications[f"{namespace}/{labels[names.SPARK_APP_SELECTOR_LABEL]}"]
            executor = int(labels[names.SPARK_EXEC_ID_LABEL])
            self._show(app, executor, Spot(node), "Pending")
            self._starts(app, executor, Spot(node))
        render, version = self.pods.objects[namespace, name]
        return web.Response(body=render(version), content_type="application/json")

    async def _get(self, request: web.Request) -> web.Response:
        body = self._others.get(request.path)
        return web.json_response(body) if body is not None else _failure(404, "NotFound", request.path)

    async def _write(self, request: web.Request) -> web.Response:
        """Create, replace, merge or apply a single object: remembered as it was sent, gangs only counted."""
        plural, name = request.match_info["plural"], request.match_info.get("name", "")
        status = "/status" if request.path.endswith("/status") else ""
        self.writes[f"{request.method.lower()} {plural}{status}"] += 1
        text = await request.read()
        body = yaml.safe_load(text) if "yaml" in request.content_type else msgspec.json.decode(text)
        if plural == "gangs":
            namespace = request.match_info["namespace"].rpartition("/")[2]
            name = name or body["metadata"]["name"]
            spec = {"applicationId": name}
            metadata = {"name": name, "namespace": namespace, "resourceVersion": str(self.next_version())}
            return web.json_response({"metadata": metadata, "spec": spec})
        path = request.path if name else f"{request.path}/{body['metadata']['name']}"
        if request.method == "POST" and path in self._others:
            return _failure(409, "AlreadyExists", path)
        body["metadata"] = body["metadata"] | {"resourceVersion": str(self.next_version()), "uid": "none"}
        self._others[path] = body
        return web.json_response(body)

    # What the measurement asks

    async def _happened(self, request: web.Request) -> web.Response:
        self.happened(msgspec.json.decode(await request.read(), type=Happened))
        return web.Response()

    async def _expire(self, request: web.Request) -> web.Response:
        self.pods.expire()
        self.nodes.expire()
        return web.Response()

    async def _decided(self, request: web.Request) -> web.Response:
        await self.decided.wait()
        return web.Response()

    async def _watched(self, request: web.Request) -> web.Response:
        """Answers when a watch of pods has begun after the last cut."""
        await self.pods.watched.wait()
        return web.Response()

    async def _told_writes(self, request: web.Request) -> web.Response:
        return web.json_response(self.writes)

    async def _webhook(self, request: web.Request) -> web.Response:
        """Where the webhook is and whom to trust; 404 until it is registered."""
        found = [body for path, body in self._others.items() if "mutatingwebhookconfigurations" in path]
        if not found:
            return _failure(404, "NotFound", "no webhook is registered")
        return web.json_response(found[0]["webhooks"][0]["clientConfig"])


def _event(kind: str, text: bytes) -> bytes:
    """One line of a watch."""
    return b'{"type":"' + kind.encode() + b'","object":' + text + b"}\n"


def _constant(text: bytes) -> Render:
    return lambda version: text


def _executor(app: LargeApplication, executor: int, spot: Spot | None, phase: str, ending: bool = False) -> Render:
    return lambda version: app.executor(executor, spot, phase, version, ending=ending)


def _pinned_node(patch: bytes) -> str:
    found = re.search(rb'"metadata\.name","operator":"In","values":\["([^"]+)"', patch)
    return found.group(1).decode() if found else ""


def _failure(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    return web.json_response(body | {"message": message}, status=code)


@asynccontextmanager
async def _served(app: web.Application) -> AsyncIterator[tuple[str, bytes]]:
    """Serve over TLS on loopback; gives the URL and what to verify it against."""
    tls, authority = _certified()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}", authority
    finally:
        await runner.cleanup()


def _certified() -> tuple[ssl.SSLContext, bytes]:
    """A server's TLS context, and the authority to verify it against."""
    now = datetime.now(UTC)
    authority = make_authority(now, timedelta(days=1))
    serving = make_serving(authority, ["127.0.0.1"], now, timedelta(days=1))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(serving.certificate + serving.key)
        tls.load_cert_chain(file.name)
    return tls, authority.certificate


async def _run(arguments: argparse.Namespace) -> None:
    """Say where it is on standard output, and serve until standard input ends."""
    standin = Standin(LargeCluster(arguments.nodes, arguments.pods, arguments.applications, arguments.seed))
    gc.freeze()
    app = web.Application(client_max_size=2**24)
    app.router.add_routes(standin.routes())
    async with _served(app) as (url, authority):
        print(msgspec.json.encode({"server": url, "authority": authority}).decode(), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    for _size in ("nodes", "pods", "applications", "seed"):
        _parser.add_argument(f"--{_size}", type=int, required=True)
    with asyncio.Runner(loop_factory=event_loop()) as _runner:
        _runner.run(_run(_parser.parse_args()))
