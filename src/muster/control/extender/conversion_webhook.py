"""``spark-scheduler-conversion-webhook``: conversions alone, for those who run them as a deployment of their own.

The extender answers conversions too; one that stands apart keeps reservations readable while no extender runs. It talks
to nobody, and needs no rights.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import structlog

from muster.control import logs
from muster.control.config import Logging
from muster.control.extender.configuration import Loaded
from muster.control.extender.listeners import https
from muster.control.extender.routes import conversion_app
from muster.control.metrics import Metrics
from muster.kube.certificate_files import CertificateFiles

_log = structlog.get_logger("muster.extender")

CERTIFICATE_CHECK = 30.0
"""Seconds."""


async def serve(loaded: Loaded) -> None:
    """Until SIGTERM or SIGINT. Raises ``AccessError``."""
    install = loaded.install
    logs.configure(Logging(level=install.log_level))
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    certificates = CertificateFiles(Path(install.server.cert_file), Path(install.server.key_file))
    app = conversion_app(install.server.context_path)
    async with https(install, certificates, app, lambda: "stopping" if stopping.is_set() else "", Metrics().render) as (
        port,
        management_port,
    ):
        _log.info("serving conversions", port=port, management_port=management_port)
        while not stopping.is_set():
            try:
                await asyncio.wait_for(stopping.wait(), CERTIFICATE_CHECK)
            except TimeoutError:
                await certificates.check()
    _log.info("stopped")
