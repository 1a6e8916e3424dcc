"""The API server as one async context manager.

>>> async with ApiServer() as api:
...     api.write_kubeconfig(Path("kubeconfig"))
"""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
import yaml
from aiohttp import web

from muster.devcluster.audit import Audit
from muster.devcluster.authentication import Tokens
from muster.devcluster.controllers import Controllers
from muster.devcluster.custom_resources import CustomResources
from muster.devcluster.garbage import GarbageCollector
from muster.devcluster.handlers import Handlers, PodLogs
from muster.devcluster.kinds import KindTable
from muster.devcluster.metadata import Origin
from muster.devcluster.registry import Registry
from muster.devcluster.storage import Store
from muster.devcluster.webhooks import WebhookCaller
from muster.kube.certificates import KeyPair, make_authority, make_serving
from muster.kube.clock import Clock, SystemClock

_log = structlog.get_logger("muster.devcluster")
_YEAR = timedelta(days=365)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ApiServer:
    """An in-memory Kubernetes API on ``host``; port 0 takes a free one.

    ``history`` bounds the changes kept per resource: older resource versions get 410 Expired. ``authority`` and
    ``admin_token`` may be given so that a kubeconfig stays good over restarts; else both are new. ``clock`` and
    ``luck`` give timestamps, uids and generated names. ``around`` wraps the handler of all requests: it stands where
    a proxy in front of the server would.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        history: int = 10_000,
        admin_token: str | None = None,
        authority: KeyPair | None = None,
        clock: Clock | None = None,
        luck: random.Random | None = None,
        around: Callable[[Handler], Handler] = lambda handler: handler,
    ) -> None:
        self.host = host
        self.port = port
        clock = clock or SystemClock()
        now = datetime.fromtimestamp(clock.time(), UTC)
        origin = Origin(clock, luck)
        self._authority = authority or make_authority(now, _YEAR)
        names = [host, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        self._serving = make_serving(self._authority, sorted(set(names)), now, _YEAR)
        self.services: dict[str, tuple[str, int]] = {}
        """Where a webhook's service ("namespace/name") really listens: (host, port)."""
        self.audit = Audit()
        self.tokens = Tokens(admin_token)
        self.store = Store(history)
        self._kinds = KindTable()
        self._webhooks = WebhookCaller(self.store, self._kinds, self.services, origin)
        self._registry = Registry(self.store, self._kinds, self._webhooks, origin)
        self._handlers = Handlers(self.store, self._kinds, self._registry, self.tokens, self.audit)
        self._handle = around(self._handlers.handle)
        self._custom = CustomResources(self._registry, self._handlers)
        self._garbage = GarbageCollector(self._registry)
        self._controllers = Controllers(self._registry, self.ca_pem)
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.ServerRunner | None = None

    @property
    def ca_pem(self) -> str:
        return self._authority.certificate.decode()

    @property
    def admin_token(self) -> str:
        return self.tokens.admin_token

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def pod_logs(self) -> PodLogs | None:
        """Answers ``pods/log``; None answers 501."""
        return self._handlers.pod_logs

    @pod_logs.setter
    def pod_logs(self, logs: PodLogs | None) -> None:
        self._handlers.pod_logs = logs

    def kubeconfig(self, *, token: str | None = None, namespace: str = "default") -> str:
        """A kubeconfig (YAML) for the administrator, or for another ``token``."""
        authority = base64.b64encode(self.ca_pem.encode()).decode()
        context = {"cluster": "muster", "user": "muster", "namespace": namespace}
        document: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "muster", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "muster", "user": {"token": token or self.admin_token}}],
            "contexts": [{"name": "muster", "context": context}],
            "current-context": "muster",
        }
        return yaml.safe_dump(document, sort_keys=False)

    def write_kubeconfig(self, path: Path, *, token: str | None = None, namespace: str = "default") -> None:
        """Writes the kubeconfig, readable by its owner alone: it holds a token."""
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(self.kubeconfig(token=token, namespace=namespace))

    async def __aenter__(self) -> Self:
        await self._controllers.create_system_namespaces()
        for name, work in (
            ("garbage", self._garbage.run()),
            ("controllers", self._controllers.run()),
            ("custom-resources", self._custom.run()),
        ):
            self._tasks.append(asyncio.create_task(work, name=f"apiserver-{name}"))
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=self._tls(), backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._handlers.address = f"{self.host}:{self.port}"
        _log.info("API server is listening", url=self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handlers.close_watches()
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._webhooks.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The ssl module reads certificates from files only.
        with tempfile.TemporaryDirectory() as folder:
            chain, key = Path(folder) / "tls.crt", Path(folder) / "tls.key"
            chain.write_bytes(self._serving.certificate + self._authority.certificate)
            key.touch(mode=0o600)
            key.write_bytes(self._serving.key)
            context.load_cert_chain(chain, key)
        return context
