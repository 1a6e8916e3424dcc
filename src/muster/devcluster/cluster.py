"""The embedded cluster as one object: API server, scheduler stand-in, virtual kubelets and, if wanted, real Spark.

>>> async with DevCluster(pools=(NodePool(count=200),), speed=60) as cluster:
...     await cluster.submit(VirtualApplication("etl", executors=20, run_seconds=300))
...     print(cluster.kubeconfig, cluster.counters())
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import msgspec

from muster.devcluster.distribution import ensure_spark
from muster.devcluster.node_pool import VIRTUAL_LABEL, NodePool
from muster.devcluster.pace import Pace
from muster.devcluster.process_kubelet import ProcessKubelet
from muster.devcluster.real_spark import SparkJob, SubmissionResult, submit_real
from muster.devcluster.scheduler import SchedulerStandIn
from muster.devcluster.server import ApiServer
from muster.devcluster.submission_objects import Identity
from muster.devcluster.virtual_application import VirtualApplication
from muster.devcluster.virtual_kubelet import VirtualKubelets
from muster.devcluster.virtual_spark import VirtualSpark, submit
from muster.kube.client import Client
from muster.kube.config import ClusterAccess, load_access
from muster.kube.errors import ApiError
from muster.kube.kinds import NAMESPACES, Resource

SERVICE_ACCOUNT = "spark"

_SERVICE_ACCOUNTS = Resource[dict[str, Any]]("", "v1", "serviceaccounts", "ServiceAccount", dict)


class Counters(msgspec.Struct, frozen=True):
    """What has happened on the virtual nodes and in their applications."""

    nodes: int
    pods_started: int
    pods_running: int
    most_pods_running: int
    pods_waiting: int
    """Ungated pods that the scheduler stand-in cannot place."""
    pods_bound_by_scheduler: int
    pods_rejected: dict[str, int]
    """By reason (``OutOfcpu``): pods that a node refused because they did not fit."""
    overcommitted_nodes: int
    """Nodes that had to refuse a pod."""
    drivers_running: int
    applications_finished: int
    applications_failed: int
    problems: tuple[str, ...]
    """API calls of the cluster's own parts that failed for good, and pods that could not be run."""


class DevCluster:
    """Use as an async context manager; everything it started is ended on leaving.

    ``speed``: virtual seconds per real second, for virtual pods only. What the API itself takes is not compressed: at
    high speeds on a busy machine, drivers start their work before executors that are on their way.
    ``processes`` adds one node whose pods are real processes, with the node pool label ``process``. ``folder`` keeps
    kubeconfig and logs; a temporary one is removed.
    """

    def __init__(
        self,
        pools: Iterable[NodePool] = (NodePool(),),
        *,
        speed: float = 1.0,
        processes: bool = False,
        scheduler: bool = True,
        namespaces: Iterable[str] = ("default",),
        folder: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        admin_token: str | None = None,
        spark_home: Callable[[str], Path] = ensure_spark,
    ) -> None:
        self.api = ApiServer(host=host, port=port, admin_token=admin_token)
        self.pools = tuple(pools)
        self.pace = Pace(speed)
        self._wants_processes = processes
        self._wants_scheduler = scheduler
        self._namespaces = tuple(namespaces)
        self._folder = folder
        self._spark_home = spark_home
        self._exits = AsyncExitStack()
        self.client: Client
        """The administrator's."""
        self.folder: Path
        self.kubeconfig: Path
        self.kubelets: VirtualKubelets
        self.spark: VirtualSpark
        self.scheduler: SchedulerStandIn | None = None
        self.process_kubelet: ProcessKubelet | None = None

    @property
    def access(self) -> ClusterAccess:
        return self.client.access

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def submit(self, application: VirtualApplication) -> Identity:
        """Submit a virtual application as spark-submit would, kept off the process node if there is one.

        Raises ``ApiError`` and ``InvalidSizeError``.
        """
        if self._wants_processes:
            selector = {VIRTUAL_LABEL: "true"} | application.node_selector
            application = msgspec.structs.replace(application, node_selector=selector)
        return await submit(self._spark_client, application)

    async def ended(self, submitted: Identity) -> int:
        """Waits for the end of a virtual application; the exit code of its driver."""
        return await self.spark.ended(submitted.application_id)

    async def submit_real(self, job: SparkJob, *, timeout: float = 300.0) -> SubmissionResult:
        """Run the distribution's own spark-submit and wait for the application's end (needs ``processes``)."""
        home = await asyncio.to_thread(self._spark_home, job.version)
        return await submit_real(job, self.api.url, self.kubeconfig, home, self.folder / "submissions", timeout=timeout)

    async def create_namespace(self, name: str) -> None:
        """With a service account for Spark; both may exist already."""
        for resource, body, namespace in (
            (NAMESPACES, {"metadata": {"name": name}}, ""),
            (_SERVICE_ACCOUNTS, {"metadata": {"name": SERVICE_ACCOUNT}}, name),
        ):
            typed = {"apiVersion": resource.api_version, "kind": resource.kind} | body
            try:
                await self.client.create(resource, typed, namespace)
            except ApiError as error:
                if not error.already_exists:
                    raise

    def counters(self) -> Counters:
        codes = list(self.spark.finished.values())
        problems = [*self.kubelets.problems, *self.spark.problems]
        if self.scheduler is not None:
            problems += self.scheduler.problems
        if self.process_kubelet is not None:
            problems += self.process_kubelet.problems
        return Counters(
            nodes=len(self.kubelets.nodes),
            pods_started=self.kubelets.started,
            pods_running=self.kubelets.running,
            most_pods_running=self.kubelets.most_running,
            pods_waiting=self.scheduler.waiting if self.scheduler else 0,
            pods_bound_by_scheduler=self.scheduler.bound if self.scheduler else 0,
            pods_rejected=dict(self.kubelets.rejected),
            overcommitted_nodes=len(self.kubelets.overcommitted_nodes),
            drivers_running=self.spark.drivers_running,
            applications_finished=len(codes),
            applications_failed=sum(code != 0 for code in codes),
            problems=tuple(problems),
        )

    async def _start(self) -> None:
        enter = self._exits.enter_async_context
        self.folder = self._folder or Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="muster-")))
        await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        await enter(self.api)
        self.kubeconfig = self.folder / "kubeconfig"
        self.api.write_kubeconfig(self.kubeconfig)
        access = load_access(self.kubeconfig)
        self.client = await enter(Client(access, user_agent="devcluster"))
        for namespace in self._namespaces:
            await self.create_namespace(namespace)
        # The user agents tell in the API server's audit who made which call
        self._spark_client = await enter(Client(access, user_agent="virtual-spark"))
        kubelet_client = await enter(Client(access, user_agent="kubelet"))
        self.spark = VirtualSpark(self._spark_client, self.pace)
        kubelets = VirtualKubelets(kubelet_client, self.pools, self.pace, self.spark.program)
        self.kubelets = await enter(kubelets)
        if self._wants_processes:
            kubelet = ProcessKubelet(
                kubelet_client, self.folder / "pods", self._spark_home, node_number=len(kubelets.nodes)
            )
            self.process_kubelet = await enter(kubelet)
            self.api.pod_logs = self._pod_log
        if self._wants_scheduler:
            scheduler_client = await enter(Client(access, user_agent="kube-scheduler"))
            self.scheduler = await enter(SchedulerStandIn(scheduler_client))

    async def _pod_log(self, namespace: str, name: str, query: dict[str, str]) -> bytes:
        log = self.process_kubelet.logs.get(f"{namespace}/{name}") if self.process_kubelet else None
        if log is None:
            return b""
        content = await asyncio.to_thread(log.read_bytes)
        lines = query.get("tailLines", "")
        return b"".join(content.splitlines(keepends=True)[-int(lines) :]) if lines.isdigit() else content
