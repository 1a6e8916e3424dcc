"""Serving HTTP on a port: an application of aiohttp, or one path without any application around it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


@asynccontextmanager
async def listening(
    app: web.Application | web.Server, host: str | None, port: int, tls: ssl.SSLContext | None
) -> AsyncIterator[int]:
    """Serve ``app``; gives the port (of the machine's choice when 0 was asked). ``host`` ``None``: every address."""
    runner: web.BaseRunner
    if isinstance(app, web.Server):
        runner = web.ServerRunner(app, shutdown_timeout=2.0)
    else:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def posts_to(
    path: str, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], *, most_bytes: int
) -> web.Server:
    """``POST path`` answered by ``answer``; what an application does for routing costs a short answer a tenth more.

    404 for other paths and 405 for other methods, as an application has them; reading more than ``most_bytes`` raises
    ``web.HTTPRequestEntityTooLarge``. To be made where a loop runs.
    """
    loop = asyncio.get_running_loop()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != path:
            raise web.HTTPNotFound
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        return await answer(request)

    def request_of(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=most_bytes)

    return web.Server(handle, request_factory=request_of, access_log=None)
