"""The extender's service on an embedded API server, and a kube-scheduler's side of it: HTTPS calls, bindings."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from muster.control.extender.configuration import parse
from muster.control.extender.reservations import RESOURCE_RESERVATIONS, ResourceReservation
from muster.control.extender.service import ExtenderService
from muster.control.metrics import Metrics
from muster.devcluster.server import ApiServer
from muster.kube.certificates import make_authority, make_serving
from muster.kube.client import Client, PatchType
from muster.kube.config import ClusterAccess, load_access
from muster.kube.kinds import NAMESPACES, NODES, PODS, Resource
from muster.kube.objects import Pod

CONTEXT = "/spark-scheduler"
GROUP = "batch"
PATIENCE = 60.0
"""Seconds until what should happen counts as not happening; the machine may be busy."""


class RunningExtender:
    """One API server, at most one service at a time. ``until`` waits; everything else acts at once."""

    def __init__(self, client: Client, folder: Path, install: Mapping[str, Any]) -> None:
        self.client = client
        self.folder = folder
        self._authority = make_authority(datetime.now(UTC), timedelta(days=1))
        serving = make_serving(self._authority, ["127.0.0.1", "localhost"], datetime.now(UTC), timedelta(days=1))
        self._write("ca.crt", self._authority.certificate)
        self._write("tls.crt", serving.certificate)
        self._write("tls.key", serving.key)
        self.install: dict[str, Any] = {
            "fifo": True,
            "binpack": "tightly-pack",
            **install,
            "server": {
                "address": "127.0.0.1",
                "port": 0,
                "context-path": CONTEXT,
                "cert-file": str(folder / "tls.crt"),
                "key-file": str(folder / "tls.key"),
                **install.get("server", {}),
            },
        }
        self.service: ExtenderService | None = None
        self._service_client: Client | None = None
        self._running: asyncio.Task[None] | None = None
        self.http = aiohttp.ClientSession()
        self.tls = ssl.create_default_context(cadata=self._authority.certificate.decode())

    def _write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def client_certificate(self) -> ssl.SSLContext:
        """As ``tls``, and presents a certificate of the same authority."""
        issuer = x509.load_pem_x509_certificate(self._authority.certificate)
        issuer_key = serialization.load_pem_private_key(self._authority.key, password=None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-scheduler")]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._write("client.crt", certificate.public_bytes(encoding))
        self._write("client.key", private)
        context = ssl.create_default_context(cadata=self._authority.certificate.decode())
        context.load_cert_chain(self.folder / "client.crt", self.folder / "client.key")
        return context

    # The service

    async def start(self, access: ClusterAccess | None = None) -> ExtenderService:
        """Until it is ready; with an ``access`` of its own until it listens."""
        assert self.service is None
        self._service_client = await Client(access or self.client.access, user_agent="spark-scheduler").__aenter__()
        loaded = parse(self.install, "install.yml")
        self.service = service = ExtenderService(loaded.install, self._service_client, Metrics(), "test")
        self._running = asyncio.create_task(service.run())
        await self.until(lambda: service.port and (access or not service.why_not_ready()), "the extender serves")
        return service

    async def stop(self) -> None:
        assert self.service is not None and self._running is not None and self._service_client is not None
        self.service.stop()
        await self._running
        await self._service_client.close()
        self.service = self._running = self._service_client = None

    async def close(self) -> None:
        if self.service is not None:
            await self.stop()
        await self.http.close()

    async def call(
        self,
        path: str,
        body: Any = None,
        *,
        tls: ssl.SSLContext | None = None,
        text: bytes | None = None,
        **headers: str,
    ) -> tuple[int, Any]:
        """Status and answer, JSON decoded if it is JSON."""
        assert self.service is not None
        port = self.service.management_port if path.startswith(("/status", "/metrics")) else self.service.port
        content: dict[str, Any] = {} if body is None and text is None else {"data": text} if text else {"json": body}
        request = self.http.post if content else self.http.get
        url = f"https://127.0.0.1:{port}{path}"
        async with request(url, ssl=tls or self.tls, headers=headers, **content) as answer:
            kind = answer.content_type
            return answer.status, await (answer.json() if kind == "application/json" else answer.text())

    async def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Ask again and again, until the answer is truthy; returns it."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            if self._running is not None and self._running.done():
                self._running.result()
            answer = holds()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return answer
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"did not happen within {PATIENCE:.0f} s: {what}")
            await asyncio.sleep(0.02)

    # The cluster

    async def node(self, name: str, cpu: str = "8", memory: str = "32Gi", **labels: str) -> None:
        await self.client.create(
            NODES,
            {
                "metadata": {"name": name, "labels": {"resource_channel": GROUP, **labels}},
                "status": {
                    "allocatable": {"cpu": cpu, "memory": memory, "pods": "110"},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            },
        )

    async def driver(self, app: str = "app", *, executors: int = 2, **annotations: str) -> Pod:
        sizes = {
            "spark-driver-cpu": "1",
            "spark-driver-mem": "1Gi",
            "spark-executor-cpu": "2",
            "spark-executor-mem": "4Gi",
            "spark-executor-count": str(executors),
        }
        return await self._pod(f"{app}-driver", app, "driver", sizes | annotations, {"cpu": "1", "memory": "1Gi"})

    async def executor(self, name: str, app: str = "app") -> Pod:
        return await self._pod(name, app, "executor", {}, {"cpu": "2", "memory": "4Gi"})

    async def _pod(
        self, name: str, app: str, role: str, annotations: Mapping[str, str], requests: Mapping[str, str]
    ) -> Pod:
        return await self.client.create(
            PODS,
            {
                "metadata": {
                    "name": name,
                    "labels": {"spark-role": role, "spark-app-id": app},
                    "annotations": dict(annotations),
                },
                "spec": {
                    "schedulerName": "spark-scheduler",
                    "nodeSelector": {"resource_channel": GROUP},
                    "containers": [{"name": "spark", "image": "spark", "resources": {"requests": dict(requests)}}],
                },
            },
            "default",
        )

    # kube-scheduler

    async def ask(self, pod: Pod, names: Sequence[str]) -> dict[str, Any]:
        """``ExtenderFilterResult``."""
        document = await self.client.get(_RAW_PODS, pod.metadata.name, "default")
        status, answer = await self.call(
            f"{CONTEXT}/predicates", {"Pod": document, "Nodes": None, "NodeNames": list(names)}
        )
        assert status == 200, answer
        return dict(answer)

    async def schedule(self, pod: Pod, names: Sequence[str]) -> str:
        """The node that the pod was bound to, "" when it may not go anywhere."""
        answer = await self.ask(pod, names)
        if not answer["NodeNames"]:
            return ""
        [node] = answer["NodeNames"]
        await self.client.bind(pod.metadata.name, "default", node)
        return str(node)

    async def set_phase(self, pod: Pod, phase: str) -> None:
        await self.client.patch(
            PODS,
            pod.metadata.name,
            {"status": {"phase": phase}},
            "default",
            patch_type=PatchType.MERGE,
            subresource="status",
        )

    async def reservation(self, app: str = "app") -> ResourceReservation | None:
        found = await self.client.list(RESOURCE_RESERVATIONS, "default")
        return next((each for each in found if each.metadata.name == app), None)

    async def expect_slots(self, expected: Mapping[str, tuple[str, str]], app: str = "app") -> ResourceReservation:
        """Node and pod of each slot, in the API server."""

        async def holds() -> ResourceReservation | None:
            found = await self.reservation(app)
            slots = {name: (slot.node, pod) for name, slot, pod in found.slots()} if found is not None else None
            return found if slots == expected else None

        reservation: ResourceReservation = await self.until(holds, f"slots of {app}: {expected}")
        return reservation


_RAW_PODS = Resource[dict[str, Any]]("", "v1", "pods", "Pod", dict)


@asynccontextmanager
async def running_extender(folder: Path, *, started: bool = True, **install: Any) -> AsyncIterator[RunningExtender]:
    async with ApiServer() as server:
        server.write_kubeconfig(folder / "kubeconfig")
        async with Client(load_access(folder / "kubeconfig")) as client:
            if "default" not in {each["metadata"]["name"] for each in await client.list(NAMESPACES)}:
                await client.create(NAMESPACES, {"metadata": {"name": "default"}})
            running = RunningExtender(client, folder, install)
            try:
                if started:
                    await running.start()
                yield running
            finally:
                await running.close()
