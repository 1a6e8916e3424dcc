"""``muster serve`` killed with SIGKILL twenty times while applications start, run and end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
import yaml

from muster.devcluster.node_pool import NodePool
from muster.kube.kinds import PODS
from muster.kube.list_watch import Added, ListWatch, Modified
from muster.kube.objects import Pod
from tests.control.running_cluster import NAMESPACE, RunningCluster, running_cluster

KILLS = 20
APPLICATIONS = 9
EXECUTORS = 5


class ServeProcess:
    """``muster serve`` with fixed ports, as a Deployment would start it again and again."""

    def __init__(self, cluster: RunningCluster, folder: Path) -> None:
        self.management = _free_port()
        webhook = _free_port()
        self.file = folder / "muster.yaml"
        self.log = folder / "serve.log"
        self.file.write_text(
            yaml.safe_dump(
                {
                    "kubernetes": {"kubeconfig": str(cluster.cluster.kubeconfig)},
                    "webhook": {"port": webhook, "url": f"https://127.0.0.1:{webhook}/mutate"},
                    "management": {"port": self.management},
                    "lease": {"duration": "1s", "renewDeadline": "0.8s", "retryPeriod": "0.2s"},
                    "validate": True,
                }
            )
        )
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "muster.cli.main", "serve", "--config", str(self.file), stdout=log, stderr=log
            )

    async def kill(self) -> None:
        assert self.process is not None
        assert self.process.returncode is None, f"it ended by itself:\n{self.log.read_text()[-2000:]}"
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def leads(self) -> bool:
        """Whether it decides: ``/why`` answers 404 for an unknown application then, 503 before."""
        url = f"http://127.0.0.1:{self.management}/why?application=nobody/knows"
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as http, http.get(url) as answer:
                return answer.status == 404
        return False


class Onlooker:
    """Sees every state of every pod, and remembers which drivers got a node without their gang's slots."""

    def __init__(self, cluster: RunningCluster) -> None:
        self.cluster = cluster
        self.started: dict[str, str] = {}
        self.without_gang: list[str] = []
        self.checks: set[asyncio.Task[None]] = set()

    def see(self, event: object) -> None:
        if not isinstance(event, Added | Modified):
            return
        pod: Pod = event.object
        application = pod.metadata.labels.get("spark-app-selector", "")
        if pod.metadata.labels.get("spark-role") == "driver" and pod.spec.node_name and application not in self.started:
            self.started[application] = pod.spec.node_name
            task = asyncio.create_task(self._check(application))
            self.checks.add(task)

    async def _check(self, application: str) -> None:
        gang = await self.cluster.gang(application)
        if gang is None or sum(slot.count for slot in gang.spec.slots) != EXECUTORS:
            self.without_gang.append(application)


@pytest.mark.timeout(400)
async def test_killed_twenty_times_it_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    luck = random.Random(20)
    async with running_cluster(NodePool(count=4, cpu=8), muster=False, speed=10) as cluster:
        serve = ServeProcess(cluster, tmp_path)
        await serve.start()
        onlooker = Onlooker(cluster)
        watch = asyncio.create_task(ListWatch(cluster.client, PODS, NAMESPACE).run(onlooker.see))
        try:
            await cluster.until(serve.leads, "muster serve leads")
            applications = [
                await cluster.submit(f"app-{number}", executors=EXECUTORS, run_seconds=luck.uniform(60, 160))
                for number in range(APPLICATIONS)
            ]
            for _ in range(KILLS):
                await asyncio.sleep(luck.uniform(0.0, 1.2))
                await serve.kill()
                await serve.start()
                await cluster.until(serve.leads, "the next muster serve leads")
            for application in applications:
                await cluster.expect_succeeded(application)
            for application in applications:
                await cluster.expect_phase(application, "Finished")
            await asyncio.gather(*onlooker.checks)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            if serve.process is not None and serve.process.returncode is None:
                serve.process.terminate()
                await serve.process.wait()

        assert set(onlooker.started) == set(applications)
        assert onlooker.without_gang == [], "a driver started without all of its minimum reserved"
        counters = cluster.cluster.counters()
        assert counters.pods_rejected == {}, "a node was given more than it has"
        assert counters.applications_failed == 0
        names = Counter(pod.metadata.labels["spark-role"] for pod in await cluster.client.list(PODS, NAMESPACE))
        assert names["driver"] == APPLICATIONS
        assert serve.process is not None
        assert serve.process.returncode == 0, "SIGTERM is a graceful stop"
        assert "Traceback" not in serve.log.read_text()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
