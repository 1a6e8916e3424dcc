"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

For tests and benchmarks. The binaries come from ``make kubernetes`` or ``KUBEBUILDER_ASSETS``. There is no kubelet:
nodes are virtual or written by the caller.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from muster.devcluster.node_registration import LEASE_SECONDS
from muster.kube.certificates import make_authority, make_serving

VERSION = "1.36.3"
START_SECONDS = 120.0


class NotBuilt(Exception):
    """The binaries are not there; the message says how to get them."""


def binaries() -> Path:
    """The folder with etcd and the components. Raises ``NotBuilt``."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    cache = Path(os.environ.get("MUSTER_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "muster"))
    folder = Path(assets) if assets else cache.expanduser() / "kubernetes" / VERSION
    missing = [name for name in ("etcd", "kube-apiserver") if not (folder / name).is_file()]
    if missing:
        raise NotBuilt(f"{folder} has no {' and no '.join(missing)}: run `make kubernetes`, or set KUBEBUILDER_ASSETS")
    return folder


class ControlPlane:
    """Use as an async context manager. Every process it started is ended on leaving, by its own handle.

    ``folder`` gets certificates, tokens, logs and etcd's data. Components are named ``etcd``, ``kube-apiserver``,
    ``kube-controller-manager`` and ``kube-scheduler``; stop and start them one by one to see what their loss does.
    Without ``controllers`` there is no garbage collection, no default service account and nobody who minds that nodes
    send no heartbeats. ``scheduler_qps`` is kube-scheduler's own limit of requests per second.
    After ``node_grace_seconds`` without a heartbeat a node counts as lost (Kubernetes' default is 50: virtual nodes
    beat less often).
    """

    def __init__(
        self,
        folder: Path,
        *,
        scheduler: bool = True,
        controllers: bool = True,
        scheduler_qps: int = 50,
        node_grace_seconds: int = LEASE_SECONDS,
        audit_reads: bool = False,
        api_server_options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.kubeconfig = folder / "admin.kubeconfig"
        self._scheduler = scheduler
        self._controllers = controllers
        self._scheduler_qps = scheduler_qps
        self._node_grace_seconds = node_grace_seconds
        self._api_server_options = tuple(api_server_options)
        self._audit_reads = audit_reads
        self._binaries = binaries()
        self._etcd_port, self._peer_port, self._port = free_ports(3)
        self._tokens = {name: secrets.token_hex(16) for name in ("admin", "scheduler", "controllers")}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ca = b""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._write_files)
            await self.start_etcd()
            await self.start_api_server()
            if self._controllers:
                await self.start_controllers()
            if self._scheduler:
                await self.start_scheduler()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in reversed(list(self._processes)):
            await self.stop(name)

    @property
    def audit_log(self) -> Path:
        """One JSON event (``audit.k8s.io/v1``) a line for every write that ended; for reads too if asked for."""
        return self.folder / "audit.log"

    def processes(self) -> dict[str, int]:
        """The process ids of the components that were started, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def process(self, name: str) -> asyncio.subprocess.Process:
        return self._processes[name]

    def log(self, name: str) -> str:
        """What a component has printed so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    async def stop(self, name: str) -> None:
        """End a component (SIGTERM, SIGKILL after 10 s); nothing when it does not run."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
        await process.wait()

    async def kill(self, name: str) -> None:
        """End a component with SIGKILL, as a crash would."""
        process = self._processes.pop(name)
        process.kill()
        await process.wait()

    async def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        await self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    async def start_api_server(self) -> None:
        f = self.folder
        await self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={f / 'serving.crt'}",
            f"--tls-private-key-file={f / 'serving.key'}",
            f"--token-auth-file={f / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={f / 'accounts.key'}",
            f"--service-account-signing-key-file={f / 'accounts.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            "--anonymous-auth=false",
            "--allow-privileged=true",
            f"--cert-dir={f}",
            f"--audit-policy-file={f / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
            *self._api_server_options,
        )
        await self._until_ready()

    async def start_controllers(self) -> None:
        await self._start(
            "kube-controller-manager",
            f"--kubeconfig={self._write_kubeconfig('controllers')}",
            "--use-service-account-credentials=false",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            f"--root-ca-file={self.folder / 'ca.crt'}",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            "--leader-elect=false",
            f"--node-monitor-grace-period={self._node_grace_seconds}s",
            "--kube-api-qps=500",
            "--kube-api-burst=500",
        )

    async def start_scheduler(self, settings: Mapping[str, Any] | None = None) -> None:
        """``settings``: more of the KubeSchedulerConfiguration, such as profiles and extenders."""
        config = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {
                "kubeconfig": str(self._write_kubeconfig("scheduler")),
                "qps": self._scheduler_qps,
                "burst": 2 * self._scheduler_qps,
            },
            "leaderElection": {"leaderElect": False},
            **(settings or {}),
        }
        (self.folder / "scheduler.yaml").write_text(yaml.safe_dump(config))
        await self._start(
            "kube-scheduler",
            f"--config={self.folder / 'scheduler.yaml'}",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
        )

    async def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                str(self._binaries / name), *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def _until_ready(self) -> None:
        trust = ssl.create_default_context(cadata=self._ca.decode())
        headers = {"Authorization": f"Bearer {self._tokens['admin']}"}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_SECONDS
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=trust)) as http:
            while True:
                for name, process in self._processes.items():
                    if process.returncode is not None:
                        raise RuntimeError(f"{name} ended with code {process.returncode}:\n{self.log(name)[-3000:]}")
                try:
                    async with http.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass  # not listening yet
                if loop.time() > deadline:
                    raise RuntimeError(f"kube-apiserver was not ready in time:\n{self.log('kube-apiserver')[-3000:]}")
                await asyncio.sleep(0.1)

    def _write_files(self) -> None:
        now, life = datetime.now(UTC), timedelta(days=2)
        authority = make_authority(now, life)
        names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1"]
        serving = make_serving(authority, names, now, life)
        self._ca = authority.certificate
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        users = {
            "admin": 'admin,admin,"system:masters"',
            "scheduler": 'system:kube-scheduler,scheduler,""',
            "controllers": 'system:kube-controller-manager,controllers,"system:masters"',
        }
        files = {
            "ca.crt": authority.certificate,
            "serving.crt": serving.certificate,
            "serving.key": serving.key,
            "accounts.key": key,
            "tokens.csv": "".join(f"{self._tokens[name]},{user}\n" for name, user in users.items()).encode(),
            "audit-policy.yaml": json.dumps(_audit_policy(self._audit_reads)).encode(),
        }
        for name, content in files.items():
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_bytes(content)
        self._write_kubeconfig("admin")

    def _write_kubeconfig(self, user: str) -> Path:
        path = self.folder / f"{user}.kubeconfig"
        document: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "real",
                    "cluster": {"server": self.url, "certificate-authority": str(self.folder / "ca.crt")},
                }
            ],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": user, "namespace": "default"}}],
            "current-context": "real",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        return path


def _audit_policy(reads: bool) -> dict[str, Any]:
    silent = [] if reads else [{"level": "None", "verbs": ["get", "list", "watch"]}]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [*silent, {"level": "Metadata"}],
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
