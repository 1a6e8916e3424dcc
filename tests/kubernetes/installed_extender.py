"""The drop-in as it is installed: the objects of ``muster manifests --extender``, ``spark-scheduler server`` processes
with the service account's token, and kube-schedulers beside them. Addresses differ, for there is no network of pods.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from muster.control.extender.manifests import (
    NAME,
    ExtenderOptions,
    extender_manifests,
    install_document,
    kube_scheduler_configuration,
)
from muster.control.extender.reservations import RESOURCE_RESERVATIONS, ResourceReservation
from muster.devcluster.control_plane import ControlPlane, binaries, free_ports
from muster.kube.certificates import make_authority, make_serving
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.kinds import NODES, PODS, Resource
from muster.kube.manifests import Manifest
from muster.kube.objects import Pod
from tests.kubernetes.connection_balancer import ConnectionBalancer
from tests.kubernetes.real_cluster import ACCOUNTS, until

OPTIONS = ExtenderOptions(replicas=0)
USER = f"system:serviceaccount:{OPTIONS.namespace}:{NAME}"
JOBS = "jobs"
GROUP = "batch"
CONTEXT = "/spark-scheduler"
QUICK_LEASE = {"leaseDuration": "4s", "renewDeadline": "3s", "retryPeriod": "1s"}
_RAW_PODS = Resource[dict[str, Any]]("", "v1", "pods", "Pod", dict)


class Process:
    """One of the two containers of a replica."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


class Extender(Process):
    """``port`` answers calls, status and metrics alike."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, port: int, tls: ssl.SSLContext) -> None:
        super().__init__(process, log)
        self.port = port
        self._tls = tls

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    async def call(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status 0 while nobody listens."""
        url = f"https://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as http:
            request = http.get(url, ssl=self._tls) if body is None else http.post(url, json=body, ssl=self._tls)
            try:
                async with request as answer:
                    kind = answer.content_type
                    return answer.status, await (answer.json() if kind == "application/json" else answer.text())
            except aiohttp.ClientConnectionError:
                return 0, ""

    async def is_ready(self) -> bool:
        assert self.process.returncode is None, self.text()[-3000:]
        return (await self.call(f"{CONTEXT}/status/readiness"))[0] == 200

    async def asked(self) -> int:
        """How many calls it has answered."""
        return sum(1 for line in self.log() if line["event"] in ("scheduling pod to node", "failed to schedule pod"))


class InstalledExtender:
    """The cluster, and what was started on it. ``balancer`` stands behind the Service."""

    def __init__(self, plane: ControlPlane, client: Client, folder: Path, balancer: ConnectionBalancer) -> None:
        self.plane = plane
        self.client = client
        self.balancer = balancer
        self._folder = folder / "extender"
        self._folder.mkdir()
        self._started: list[Process] = []
        now, life = datetime.now(UTC), timedelta(days=1)
        authority = make_authority(now, life)
        names = ["127.0.0.1", "localhost", f"{NAME}.{OPTIONS.namespace}.svc"]
        serving = make_serving(authority, names, now, life)
        self.authority = authority.certificate
        for name, content in {
            "ca.crt": authority.certificate,
            "tls.crt": serving.certificate,
            "tls.key": serving.key,
        }.items():
            (self._folder / name).write_bytes(content)
        self._tls = ssl.create_default_context(cadata=authority.certificate.decode())

    async def install(self, *, kube_scheduler_rights: bool = True) -> None:
        """``kubectl apply`` of the manifests, in the order in which they are printed."""
        objects = extender_manifests(OPTIONS)
        if not kube_scheduler_rights:
            objects = [one for one in objects if not one.get("roleRef", {}).get("name", "").startswith("system:")]
        [service] = [one for one in objects if one["kind"] == "Service"]
        service["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        await self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    async def kubectl(self, *arguments: str, stdin: str = "") -> None:
        process = await asyncio.create_subprocess_exec(
            *(str(binaries() / "kubectl"), "--kubeconfig", str(self.plane.kubeconfig), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, complaint = await process.communicate(stdin.encode())
        assert process.returncode == 0, complaint.decode()

    async def extender(self, name: str = "extender", *, webhook: bool = True, **install: Any) -> Extender:
        """``install.yml`` as installed, save for paths and ports; ready when this returns."""
        kubeconfig = await self._kubeconfig(name)
        [port] = free_ports(1)
        document = install_document(OPTIONS) | install | {"kube-config": str(kubeconfig)}
        document["server"] |= {
            "address": "127.0.0.1",
            "port": port,
            "management-port": port,
            "cert-file": str(self._folder / "tls.crt"),
            "key-file": str(self._folder / "tls.key"),
            "client-ca-files": [str(self._folder / "ca.crt")],
        }
        document["webhook-service-config"]["service-port"] = self.balancer.port
        if not webhook:
            del document["webhook-service-config"]
        folder = self._folder / name
        (folder / "var/conf").mkdir(parents=True, exist_ok=True)
        (folder / "var/conf/install.yml").write_text(yaml.safe_dump(document))
        arguments = (sys.executable, "-m", "muster.cli.spark_scheduler", "server")
        process, log = await self._start(f"{name}-{len(self._started)}", *arguments, folder=folder)
        extender = Extender(process, log, port, self._tls)
        self._started.append(extender)
        self.balancer.backends.append(port)
        await until(f"{name} is ready", extender.is_ready)
        return extender

    async def kube_scheduler(self, name: str, extender: Extender) -> Process:
        """Beside an extender, as the same account, one of several that elect a leader."""
        config = kube_scheduler_configuration(OPTIONS)
        config["clientConnection"] = {"kubeconfig": str(await self._kubeconfig(name))}
        config["leaderElection"] |= QUICK_LEASE
        [asked] = config["extenders"]
        asked["urlPrefix"] = f"https://127.0.0.1:{extender.port}{CONTEXT}"
        asked["tlsConfig"] = {"caFile": str(self._folder / "ca.crt")}
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        arguments = (str(binaries() / "kube-scheduler"), f"--config={path}", "--secure-port=0")
        scheduler = Process(*await self._start(name, *arguments, folder=self._folder))
        self._started.append(scheduler)
        return scheduler

    async def stop(self) -> None:
        for process in self._started:
            await process.stop()

    async def _start(self, name: str, *arguments: str, folder: Path) -> tuple[asyncio.subprocess.Process, Path]:
        log = self._folder / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(*arguments, cwd=folder, stdout=output, stderr=output)
        return process, log

    async def _kubeconfig(self, name: str) -> Path:
        token = self._folder / f"{name}.token"
        token.touch(mode=0o600)
        token.write_text(await self.client.service_account_token(NAME, OPTIONS.namespace))
        admin = yaml.safe_load(self.plane.kubeconfig.read_text())
        admin["users"] = [{"name": NAME, "user": {"tokenFile": str(token)}}]
        admin["contexts"][0]["context"] |= {"user": NAME}
        path = self._folder / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(admin))
        return path

    # The cluster

    async def node(self, name: str, cpu: str = "8") -> None:
        """Ready for good: nobody watches over nodes where there are no kubelets."""
        node = {
            "metadata": {"name": name, "labels": {"resource_channel": GROUP}},
            "status": {
                "allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110"},
                "capacity": {"cpu": cpu, "memory": "64Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        await self.client.create(NODES, node)

    async def driver(self, app: str, executors: int, maximum: int = 0, **annotations: str) -> Pod:
        sizes = {
            "spark-driver-cpu": "1",
            "spark-driver-mem": "1Gi",
            "spark-executor-cpu": "1",
            "spark-executor-mem": "1Gi",
            "spark-dynamic-allocation-enabled": "true",
            "spark-dynamic-allocation-min-executor-count": str(executors),
            "spark-dynamic-allocation-max-executor-count": str(maximum or executors),
        }
        return await self.pod(f"{app}-driver", app, "driver", sizes | annotations)

    async def executor(self, app: str, number: int) -> Pod:
        return await self.pod(f"{app}-exec-{number}", app, "executor", {})

    async def pod(self, name: str, app: str, role: str, annotations: Mapping[str, str]) -> Pod:
        body: Manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {"spark-role": role, "spark-app-id": app},
                "annotations": dict(annotations),
            },
            "spec": {
                "schedulerName": NAME,
                "nodeSelector": {"resource_channel": GROUP},
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {"name": "c", "image": "none", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
                ],
            },
        }
        return await self.client.create(PODS, body, JOBS)

    async def pods(self) -> dict[str, Pod]:
        return {pod.metadata.name: pod for pod in await self.client.list(PODS, JOBS)}

    async def reservation(self, app: str) -> ResourceReservation | None:
        found = await self.client.list(RESOURCE_RESERVATIONS, JOBS)
        return next((each for each in found if each.metadata.name == app), None)

    async def ask(self, extender: Extender, pod: Pod, nodes: list[str]) -> str:
        """As kube-scheduler would; the node, "" for none."""
        document = await self.client.get(_RAW_PODS, pod.metadata.name, JOBS)
        status, answer = await extender.call(f"{CONTEXT}/predicates", {"Pod": document, "NodeNames": nodes})
        assert status == 200, answer
        return (answer["NodeNames"] or [""])[0]

    async def schedule(self, extender: Extender, pod: Pod, nodes: list[str]) -> str:
        node = await self.ask(extender, pod, nodes)
        if node:
            await self.client.bind(pod.metadata.name, JOBS, node)
        return node

    async def delete(self, pod: Pod) -> None:
        await self.client.delete(PODS, pod.metadata.name, JOBS, grace_period_seconds=0)


@asynccontextmanager
async def installed_extender(
    folder: Path, *, kube_scheduler_rights: bool = True, **options: Any
) -> AsyncIterator[InstalledExtender]:
    """No replica runs yet; those that are started are stopped in the end. ``options`` are the control plane's."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder, scheduler=False, **options))
        client = await stack.enter_async_context(Client(load_access(plane.kubeconfig), user_agent="test"))
        balancer = await stack.enter_async_context(ConnectionBalancer())
        cluster = InstalledExtender(plane, client, folder, balancer)
        stack.push_async_callback(cluster.stop)
        await cluster.install(kube_scheduler_rights=kube_scheduler_rights)
        await cluster.kubectl("create", "namespace", JOBS)
        await client.apply(ACCOUNTS, _account(), field_manager="test")
        yield cluster


def _account() -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": JOBS}}
