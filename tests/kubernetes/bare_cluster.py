"""A real control plane with virtual nodes and Spark, before Muster is installed: tests of the installation itself."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from muster.devcluster.control_plane import ControlPlane
from muster.devcluster.node_pool import NodePool
from muster.devcluster.pace import Pace
from muster.devcluster.virtual_kubelet import Program, RunningPod, VirtualKubelets
from muster.devcluster.virtual_spark import VirtualSpark
from muster.kube.client import Client, PatchType
from muster.kube.config import load_access
from muster.kube.kinds import CONFIG_MAPS, MUTATING_WEBHOOKS, NAMESPACES, PODS
from muster.kube.manifests import WEBHOOK_NAME
from muster.kube.objects import Pod
from tests.kubernetes.connection_balancer import ConnectionBalancer
from tests.kubernetes.installed_muster import Installation, Replica
from tests.kubernetes.real_cluster import ACCOUNTS, NAMESPACE, SYSTEM_NAMESPACE, RealCluster

FAIL_OPEN = "apiserver_admission_webhook_fail_open_count"
"""kube-apiserver's count of webhooks that it could not reach and did without."""


class BareCluster(RealCluster):
    """``muster`` has ``kubectl``, and starts replicas once something is installed."""

    def __init__(self, client: Client, kubelets: VirtualKubelets, muster: Installation) -> None:
        super().__init__(client, kubelets)
        self.muster = muster
        self.plane = muster.plane

    async def start_replica(self, **config: Any) -> Replica:
        """``muster serve`` with the installed muster.yaml, but on loopback, and the service account's token."""
        shipped = yaml.safe_load((await self.client.get(CONFIG_MAPS, "muster", SYSTEM_NAMESPACE)).data["muster.yaml"])
        shipped["webhook"] |= {"host": "127.0.0.1", "port": 0, "certificates": {"checkInterval": "1s"}}
        shipped["management"] |= {"host": "127.0.0.1", "port": 0}
        return await self.muster.start(**shipped | config)

    async def webhooks(self) -> list[str]:
        return [each["metadata"]["name"] for each in await self.client.list(MUTATING_WEBHOOKS)]

    async def reach_replicas(self) -> None:
        """Instead of the Service, which leads nowhere here, the API server asks the balancer."""
        patch = [
            {"op": "test", "path": "/webhooks/0/name", "value": WEBHOOK_NAME},
            {"op": "remove", "path": "/webhooks/0/clientConfig/service"},
            {
                "op": "add",
                "path": "/webhooks/0/clientConfig/url",
                "value": f"https://127.0.0.1:{self.muster.balancer.port}/mutate",
            },
        ]
        await self.client.patch(MUTATING_WEBHOOKS, "muster", patch, patch_type=PatchType.JSON)

    async def muster_command(self, *arguments: str) -> str:
        """``muster …`` as an administrator; what it prints."""
        code, output = await _muster(self.plane.kubeconfig, *arguments)
        assert code == 0, output
        return output

    async def unreached(self) -> float:
        """How often the API server went on without an answer of our webhook."""
        return await api_server_metric(self.client, FAIL_OPEN, name=WEBHOOK_NAME)

    async def one_waits(self) -> str:
        """An application that holds the whole room, and one that waits for it behind the gate; returns the second."""
        first = await self.submit("first", executors=5, run_seconds=3000)
        await self.expect_phase(first, "Running")
        second = await self.submit("second", executors=5, run_seconds=10)
        await self.expect_phase(second, "Pending")
        assert await self.is_gated(second)
        return second

    async def is_gated(self, application: str) -> bool:
        [driver] = await self.pods(application, "driver")
        return bool(driver.spec.scheduling_gates)


async def api_server_metric(client: Client, wanted: str, **labels: str) -> float:
    headers = {"Authorization": await client.access.credentials.authorization() or ""}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client.access.tls or True)) as http,
        http.get(f"{client.access.server}/metrics", headers=headers) as answer,
    ):
        families = text_string_to_metric_families(await answer.text())
    samples = (sample for family in families for sample in family.samples)
    return sum(s.value for s in samples if s.name in (wanted, f"{wanted}_total") and labels.items() <= s.labels.items())


@asynccontextmanager
async def bare_cluster(folder: Path, *pools: NodePool, **options: Any) -> AsyncIterator[BareCluster]:
    """Pods that name ``muster withdraw`` as what they run, run it, with their own service account's token."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder, **options))
        client = await stack.enter_async_context(Client(load_access(plane.kubeconfig), user_agent="test"))
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "spark"}}
        await client.create(ACCOUNTS, account, NAMESPACE)
        pace = Pace(30.0)
        spark = VirtualSpark(client, pace)

        def programs(pod: Pod) -> Program | None:
            if pod.metadata.labels.get("app.kubernetes.io/name") == "muster-withdraw":
                return lambda running: _withdraw(plane, client, folder, running)
            return spark.program(pod)

        kubelets = await stack.enter_async_context(VirtualKubelets(client, pools, pace, programs))
        balancer = await stack.enter_async_context(ConnectionBalancer())
        muster = Installation(plane, client, folder, balancer)
        stack.push_async_callback(muster.stop)
        yield BareCluster(client, kubelets, muster)


async def _withdraw(plane: ControlPlane, client: Client, folder: Path, running: RunningPod) -> int:
    """The hook's container as a process: its arguments, and the rights of its service account."""
    meta = running.pod.metadata
    spec = (await client.get(PODS.decoding_to(dict), meta.name, meta.namespace))["spec"]
    admin = yaml.safe_load(plane.kubeconfig.read_text())
    token = await client.service_account_token(spec["serviceAccountName"], meta.namespace)
    admin["users"][0]["user"] = {"token": token}
    kubeconfig = folder / f"{meta.name}.kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(yaml.safe_dump(admin))
    code, output = await _muster(kubeconfig, *spec["containers"][0]["args"])
    (folder / "withdraw.log").write_text(output)
    return code


async def _muster(kubeconfig: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "muster.cli.main", *arguments),
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()
