"""A reverse proxy between a client and the API server on which a ``FaultPlan`` is carried out: TLS, loopback only.

Watches are passed on line by line. What was really done to requests is counted, for a test must know that it happened.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from muster.kube.certificates import make_authority, make_serving
from muster.kube.config import load_access
from tests.faults.failed_answers import expired_event, failed
from tests.faults.fault_plan import (
    ApiRequest,
    CutWatch,
    Delay,
    ExpireWatch,
    Fate,
    FaultPlan,
    LoseAnswer,
    Pass,
    Rates,
    Refuse,
    classify,
)

HARMLESS = FaultPlan(seed=0, faulty_seconds=0.0, rates=Rates(), events=())
_PASSED_BACK = ("Content-Type", "Content-Encoding", "Retry-After")
_PASSED_ON = ("Authorization", "Accept", "Accept-Encoding", "Content-Type", "User-Agent")


LONGEST_IN_TRANSIT = 1.0
"""Seconds, less than a lease: a write that arrives when another replica has long been leading is the one thing that no
client without fencing is safe from (docs/architecture.md, Durability). Answers may take as long as the plan says."""


class FaultProxy:
    """Use as an async context manager; ``kubeconfig`` is one that leads through it. Begins harmless."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._upstream = load_access(kubeconfig)
        self._folder = folder
        self.kubeconfig = folder / "through-the-faults.kubeconfig"
        self._written = yaml.safe_load(kubeconfig.read_text())
        self.injected: Counter[str] = Counter()
        """By kind of fault, as ``refuse 409``, over all plans."""
        self._plan = HARMLESS
        self._began = 0.0
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._watches: dict[asyncio.Task[Any], web.Request] = {}

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._upstream.tls or True, limit=0)
        self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self._http._retry_connection = False  # a request that the API server has seen must not be sent twice
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # a client that gives up takes back what is still on its way, as closing a connection to the API server does
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls()).start()
        port = self._runner.addresses[0][1]
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(self._folder / "proxy-ca.crt")}
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(
            yaml.safe_dump(self._written | {"clusters": [{"name": self._cluster_name(), "cluster": cluster}]})
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut_watches()
        await self._runner.cleanup()
        await self._http.close()

    def follow(self, plan: FaultPlan) -> None:
        """From now on requests meet the fates of this plan; its clock starts."""
        self._plan, self._began = plan, asyncio.get_running_loop().time()
        self._attempts.clear()

    @property
    def elapsed(self) -> float:
        """Seconds since the plan began."""
        return asyncio.get_running_loop().time() - self._began

    def cut_watches(self) -> None:
        """Every open watch ends here and now, wherever in a line it is."""
        for request in self._watches.values():
            self.injected["cut all watches"] += 1
            _reset(request)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        verb, resource = classify(request.method, request.path, request.query)
        attempt = self._attempts[verb, request.path]
        self._attempts[verb, request.path] += 1
        fate: Fate = self._plan.fate(ApiRequest(verb, resource, request.path, attempt), self.elapsed)
        try:
            match fate:
                case Refuse(code, retry_after):
                    self.injected[f"refuse {code}"] += 1
                    return failed(code, retry_after)
                case LoseAnswer(code):
                    answer = await self._call(request)
                    if answer.status < 300:
                        self.injected[f"lose the answer to {verb}, {code or 'reset'}"] += 1
                    return failed(code) if code else _reset(request)
                case Delay(seconds, on_the_way_back):
                    self.injected["delay the answer" if on_the_way_back else "delay the request"] += 1
                    if not on_the_way_back:
                        await asyncio.sleep(min(seconds, LONGEST_IN_TRANSIT))
                        if request.transport is None or request.transport.is_closing():
                            return _reset(request)  # its sender is dead: nobody delivers what it had not sent yet
                    answer = await self._call(request)
                    if on_the_way_back:
                        await asyncio.sleep(seconds)
                    return answer
                case ExpireWatch(in_stream):
                    self.injected["expire a watch"] += 1
                    return expired_event() if in_stream else failed(410)
                case CutWatch(after_lines):
                    return await self._watch(request, after_lines)
                case Pass():
                    return await (self._watch(request, None) if verb == "watch" else self._call(request))
        except aiohttp.ClientError:  # the API server is away: so it must look to the client
            return _reset(request)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        async with self._http.request(
            request.method, self._url(request), headers=_headers(request), data=body or None, allow_redirects=False
        ) as answer:
            content = await answer.read()
            kept = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
            return web.Response(status=answer.status, body=content, headers=kept)

    async def _watch(self, request: web.Request, lines: int | None) -> web.StreamResponse:
        """Passes whole lines on; after ``lines`` of them half of the next one, and no more."""
        task = asyncio.current_task()
        assert task is not None
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._http.get(self._url(request), headers=_headers(request), timeout=timeout) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), headers=_content_type(answer))
            response = web.StreamResponse(headers=_content_type(answer))
            await response.prepare(request)
            self._watches[task] = request
            try:
                async for line in _lines(answer.content):
                    if lines == 0:
                        self.injected["cut a watch"] += 1
                        await response.write(line[: len(line) // 2])
                        return response
                    if lines is not None:
                        lines -= 1
                    await response.write(line)
            except ConnectionError:
                pass  # cut, or the client has gone
            finally:
                del self._watches[task]
        return response

    def _url(self, request: web.Request) -> URL:
        return URL(self._upstream.server + request.raw_path, encoded=True)

    def _cluster_name(self) -> str:
        name: str = self._written["clusters"][0]["name"]
        return name

    def _tls(self) -> ssl.SSLContext:
        now, life = datetime.now(UTC), timedelta(days=2)
        authority = make_authority(now, life)
        serving = make_serving(authority, ["127.0.0.1"], now, life)
        (self._folder / "proxy-ca.crt").write_bytes(authority.certificate)
        pair = self._folder / "proxy.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(serving.key + serving.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        return context


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length, with their ends."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"


def _headers(request: web.Request) -> dict[str, str]:
    kept = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
    return {"Accept-Encoding": "identity"} | kept


def _content_type(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {"Content-Type": answer.headers.get("Content-Type", "application/json")}


def _reset(request: web.Request) -> web.StreamResponse:
    """Ends the connection without an answer."""
    with suppress(AttributeError):
        request.transport.abort()  # type: ignore[union-attr]
    return web.Response(status=500)
