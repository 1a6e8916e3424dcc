"""A Kubernetes API server that says, line by line, what a test told it to say, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp import web

from muster.kube.client import Call, Client
from muster.kube.config import ClusterAccess
from muster.kube.credentials import FixedHeader
from muster.kube.errors import ApiError

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class ScriptedApi:
    """Answers per (method, path) are used up one by one; running out of them is a failure of the test."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    scripts: dict[tuple[str, str], deque[Answer]] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self.scripts.setdefault((method, path), deque()).extend(answers)

    def of(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.read()
        body = json.loads(text) if text else None
        asked = Asked(request.method, request.path, dict(request.query), dict(request.headers), body)
        self.asked.append(asked)
        script = self.scripts.get((request.method, request.path))
        if not script:
            self.surprises.append(f"{request.method} {request.path_qs}")
            return web.json_response({"kind": "Status", "code": 418, "message": "not in the script"}, status=418)
        return await script.popleft()(request)

    # Answers

    @staticmethod
    def json(body: Any, status: int = 200, **headers: str) -> Answer:
        async def answer(request: web.Request) -> web.StreamResponse:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.json_response(body, status=status, headers=named)

        return answer

    @staticmethod
    def status(code: int, reason: str, message: str = "", **headers: str) -> Answer:
        """A ``metav1.Status`` as kube-apiserver writes it."""
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        return ScriptedApi.json(body, code, **headers)

    @staticmethod
    def hang_up() -> Answer:
        """The request is read, no answer is given, the connection is closed: was it done or not?"""

        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.close()
            return web.Response()

        return answer

    def stream(self, *pieces: Any, end: str = "clean") -> Answer:
        """A watch of events (dicts) or raw bytes. ``end``: ``clean``, ``cut`` (no final chunk) or ``silent``."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece if isinstance(piece, bytes) else json.dumps(piece).encode() + b"\n")
            if end == "cut":
                assert request.transport is not None
                request.transport.close()
            elif end == "silent":
                await self.stopping.wait()
            return response

        return answer


@dataclass
class QuickClock:
    """Time that passes only when somebody sleeps; sleeps are remembered and take no time."""

    now: float = 1_800_000_000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> QuickClock:
    return QuickClock()


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    scripted = ScriptedApi()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", scripted.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    scripted.url = f"http://{host}:{port}"
    yield scripted
    scripted.stopping.set()
    await runner.cleanup()
    assert scripted.surprises == [], "the client asked for something the test did not expect"


@pytest.fixture
def calls() -> list[Call]:
    """Every request the client says it has sent."""
    return []


@pytest.fixture
async def client(api: ScriptedApi, clock: QuickClock, calls: list[Call]) -> AsyncIterator[Client]:
    access = ClusterAccess(api.url, "the scripted server", credentials=FixedHeader.bearer("s3cr3t"))
    async with Client(access, clock=clock, random=lambda: 0.0, observe=calls.append) as opened:
        yield opened


class MemoryApi:
    """Stands in for ``Client`` where a test is about what is stored: names, resourceVersions and their conflicts.

    ``before`` and ``after`` run around each access, so that a test can delay, lose or interleave them.
    """

    def __init__(self, clock: Any, before: Any = None, after: Any = None) -> None:
        self.clock = clock
        self.stored: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self._version = 0
        self._before = before
        self._after = after

    async def get(self, resource: Any, name: str, namespace: str = "") -> Any:
        path = resource.path(namespace, name)
        await self._around(self._before)
        found = self.stored.get(path)
        await self._around(self._after)
        if found is None:
            raise ApiError(f"GET {path}", 404, "NotFound", "not found")
        return msgspec.convert(found, resource.object)

    async def create(self, resource: Any, body: Any, namespace: str = "") -> Any:
        new = msgspec.to_builtins(body)
        path = resource.path(namespace, new["metadata"]["name"])
        await self._around(self._before)
        if path in self.stored:
            raise ApiError(f"POST {path}", 409, "AlreadyExists", "already exists")
        return await self._store("create", path, new, resource)

    async def replace(self, resource: Any, name: str, body: Any, namespace: str = "") -> Any:
        new = msgspec.to_builtins(body)
        path = resource.path(namespace, name)
        await self._around(self._before)
        if path not in self.stored:
            raise ApiError(f"PUT {path}", 404, "NotFound", "not found")
        if new["metadata"].get("resourceVersion") != self.stored[path]["metadata"]["resourceVersion"]:
            raise ApiError(f"PUT {path}", 409, "Conflict", "the object has been modified")
        return await self._store("update", path, new, resource)

    async def _store(self, verb: str, path: str, new: dict[str, Any], resource: Any) -> Any:
        self._version += 1
        new["metadata"] = {**new["metadata"], "resourceVersion": str(self._version)}
        self.stored[path] = new
        self.writes.append(verb)
        await self._around(self._after)
        return msgspec.convert(new, resource.object)

    @staticmethod
    async def _around(hook: Any) -> None:
        if hook is not None:
            await hook()


@pytest.fixture
def memory_api(clock: QuickClock) -> MemoryApi:
    return MemoryApi(clock)


@pytest.fixture(scope="session")
def memory_api_type() -> type[MemoryApi]:
    return MemoryApi
