"""Where the drop-in listens: calls and conversions on one port, status and metrics on the other, or all on one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from muster.control.extender.configuration import Install
from muster.control.extender.routes import add_status
from muster.control.listening import listening
from muster.kube.certificate_files import CertificateFiles
from muster.kube.credentials import AccessError


@asynccontextmanager
async def https(
    install: Install,
    certificates: CertificateFiles,
    app: web.Application,
    is_ready: Callable[[], str],
    render: Callable[[], bytes],
) -> AsyncIterator[tuple[int, int]]:
    """Serve ``app``, and the status routes; gives both ports, which are one when there is no management port.

    ``is_ready``: why not, "" when it is. ``render``: the text of all metrics. Raises ``AccessError``.
    """
    server = install.server
    tls = await certificates.ready()
    if server.client_ca_files:
        await asyncio.to_thread(_trust_clients, tls, server.client_ca_files)
    shared = server.management_port in (0, server.port)
    status = app if shared else web.Application()
    add_status(status, server.context_path, is_ready, install.health_checks.shared_secret, render)
    async with listening(app, server.address or None, server.port, tls) as port:
        if shared:
            yield port, port
            return
        async with listening(status, server.address or None, server.management_port, tls) as management_port:
            yield port, management_port


def _trust_clients(context: ssl.SSLContext, authorities: tuple[str, ...]) -> None:
    """Check the certificates of clients that present one. Raises ``AccessError``."""
    for path in authorities:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise AccessError(f"server.client-ca-files: {path} cannot be read: {error}") from None
    context.verify_mode = ssl.CERT_OPTIONAL
