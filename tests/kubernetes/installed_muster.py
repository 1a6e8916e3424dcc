"""Muster as it is installed: the shipped manifests with kubectl, and ``muster serve`` processes with the service
account's token. Nothing but their webhook's address differs, for there is no network of pods here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from muster.devcluster.control_plane import ControlPlane, binaries
from muster.devcluster.node_pool import NodePool
from muster.devcluster.pace import Pace
from muster.devcluster.virtual_kubelet import VirtualKubelets
from muster.devcluster.virtual_spark import VirtualSpark
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.kinds import LEASES, MUTATING_WEBHOOKS, NAMESPACES, PODS
from muster.kube.manifests import InstallOptions, manifests
from muster.kube.objects import Lease
from tests.kubernetes.connection_balancer import ConnectionBalancer
from tests.kubernetes.real_cluster import ACCOUNTS, NAMESPACE, SYSTEM_NAMESPACE, RealCluster, until

USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:muster"
QUICK_LEASE = {"duration": "5s", "renewDeadline": "3s", "retryPeriod": "0.3s"}


class Replica:
    """One ``muster serve`` process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log
        self.webhook_port = self.management_port = 0
        self.identity = ""

    def text(self) -> str:
        """Everything it has printed."""
        return self._log.read_text()

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    async def serving(self) -> None:
        """Waits until it answers reviews."""

        async def told() -> bool:
            assert self.runs, self.text()[-3000:]
            for line in self.log():
                if line["event"] == "serving":
                    self.webhook_port, self.management_port = line["webhook_port"], line["management_port"]
                    self.identity = line["identity"]
            return self.webhook_port != 0

        await until("a replica serves", told)

    @property
    def runs(self) -> bool:
        return self.process.returncode is None

    async def metric(self, name: str) -> float:
        """The sum over its labels."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.management_port}/metrics") as answer,
        ):
            families = text_string_to_metric_families(await answer.text())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    async def leads(self) -> bool:
        """Whether it holds the lease and knows the cluster."""
        return await self.metric("muster_leader") == 1 and await self.metric("muster_synced") == 1

    async def terminate(self) -> None:
        self.process.terminate()
        await self.process.wait()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


class Installation:
    """``balancer`` stands in for the Service: replicas that serve are behind it."""

    def __init__(self, plane: ControlPlane, client: Client, folder: Path, balancer: ConnectionBalancer) -> None:
        self.plane = plane
        self.client = client
        self.balancer = balancer
        self.replicas: list[Replica] = []
        self._folder = folder
        self._started = 0

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        process = await asyncio.create_subprocess_exec(
            *(str(binaries() / "kubectl"), "--kubeconfig", str(self.plane.kubeconfig), *arguments),
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaint = await process.communicate(stdin.encode())
        assert process.returncode == 0, complaint.decode()
        return output.decode()

    async def install(self, failure_policy: str = "Ignore") -> None:
        """``muster manifests`` without replicas; the webhook asks the balancer instead of the Service."""
        objects = manifests(InstallOptions(replicas=0))
        [hook] = objects[-1]["webhooks"]
        hook["clientConfig"] = {"url": f"https://127.0.0.1:{self.balancer.port}/mutate"}
        hook["failurePolicy"] = failure_policy
        await self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    async def start(self, *, wait: bool = True, **config: Any) -> Replica:
        """A further replica, with the rights of the service account and nobody else's, once it serves (``wait``)."""
        self._started += 1
        name = f"replica-{self._started}"
        kubeconfig = await self._write_kubeconfig(name)
        settings = self._folder / f"{name}.yaml"
        settings.write_text(yaml.safe_dump(_merged(_settings(kubeconfig), config)))
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "muster.cli.main", "serve", "--config", str(settings)),
                env=os.environ | {"POD_NAME": name},
                stdout=output,
                stderr=output,
            )
        replica = Replica(process, log)
        self.replicas.append(replica)
        if wait:
            await replica.serving()
            self.balancer.backends.append(replica.webhook_port)
        return replica

    async def start_leading(self, **config: Any) -> Replica:
        """A replica that decides, and whose webhook is in force."""
        replica = await self.start(**config)
        await until("the replica leads", replica.leads)
        await self.in_force()
        return replica

    async def in_force(self) -> None:
        """Waits until the API server asks the webhook: it learns of a changed configuration through a watch."""
        body = yaml.safe_dump(NOBODY)

        async def asked() -> bool:
            before = await self.reviews()
            await self.kubectl("create", "--dry-run=server", "-n", NAMESPACE, "-f", "-", stdin=body)
            return await self.reviews() > before

        await until("the webhook is in force", asked)

    async def reviews(self) -> int:
        """How many reviews the replicas that run have answered."""
        counts = [await replica.metric("muster_admissions_total") for replica in self.replicas if replica.runs]
        return round(sum(counts))

    async def lease(self) -> Lease:
        return await self.client.get(LEASES, "muster", SYSTEM_NAMESPACE)

    async def webhook(self) -> dict[str, Any]:
        [hook] = (await self.client.get(MUTATING_WEBHOOKS, "muster"))["webhooks"]
        return dict(hook)

    async def stop(self) -> None:
        for replica in self.replicas:
            if replica.runs:
                replica.process.send_signal(signal.SIGCONT)
                await replica.terminate()
        self.replicas.clear()
        self.balancer.backends.clear()

    async def _write_kubeconfig(self, name: str) -> Path:
        token = self._folder / f"{name}.token"
        token.touch(mode=0o600)
        token.write_text(await self.client.service_account_token("muster", SYSTEM_NAMESPACE))
        admin = yaml.safe_load(self.plane.kubeconfig.read_text())
        admin["users"] = [{"name": "muster", "user": {"tokenFile": str(token)}}]
        admin["contexts"][0]["context"] |= {"user": "muster"}
        path = self._folder / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(admin))
        return path


NOBODY = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "nobody", "labels": {"spark-role": "driver"}},
    "spec": {"containers": [{"name": "c", "image": "none"}]},
}
"""A pod that the webhook is asked about and that it leaves alone: it names no application."""


class InstalledCluster(RealCluster):
    """Virtual Spark on virtual nodes, and Muster installed."""

    def __init__(self, client: Client, kubelets: VirtualKubelets, muster: Installation) -> None:
        super().__init__(client, kubelets)
        self.muster = muster
        self.plane = muster.plane

    async def delete_applications(self) -> None:
        """Every pod, and with the drivers what they own."""
        await self.client.delete_collection(PODS, self.namespace)

        async def none() -> bool:
            return not await self.client.list(PODS, self.namespace)

        await until("all pods are gone", none)


@asynccontextmanager
async def installed_cluster(
    folder: Path, *pools: NodePool, speed: float = 30.0, failure_policy: str = "Ignore", **options: Any
) -> AsyncIterator[InstalledCluster]:
    """No replica runs yet; those that are started are stopped in the end. ``options`` are the control plane's."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder, **options))
        client = await stack.enter_async_context(Client(load_access(plane.kubeconfig), user_agent="test"))
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "spark"}}
        await client.create(ACCOUNTS, account, NAMESPACE)
        pace = Pace(speed)
        spark = VirtualSpark(client, pace)
        kubelets = await stack.enter_async_context(VirtualKubelets(client, pools, pace, spark.program))
        balancer = await stack.enter_async_context(ConnectionBalancer())
        muster = Installation(plane, client, folder, balancer)
        stack.push_async_callback(muster.stop)
        await muster.install(failure_policy)
        yield InstalledCluster(client, kubelets, muster)


def _settings(kubeconfig: Path) -> dict[str, Any]:
    """``muster.yaml`` as installed, save for addresses."""
    return {
        "namespace": SYSTEM_NAMESPACE,
        "kubernetes": {"kubeconfig": str(kubeconfig)},
        "webhook": {"host": "127.0.0.1", "port": 0, "service": "muster", "registration": "ca-bundle"},
        "management": {"port": 0},
        "lease": QUICK_LEASE,
        "validate": True,
    }


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in more.items():
        merged[key] = _merged(base[key], value) if isinstance(value, dict) and key in base else value
    return merged
