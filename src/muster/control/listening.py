"""Serving an application of aiohttp on a port."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def listening(
    app: web.Application, host: str | None, port: int, tls: ssl.SSLContext | None
) -> AsyncIterator[int]:
    """Serve ``app``; gives the port (of the machine's choice when 0 was asked). ``host`` ``None``: every address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
