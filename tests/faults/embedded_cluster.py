"""The embedded cluster and two replicas of Muster as simulated processes: one run of a seed under virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog

from muster.control.config import parse
from muster.control.metrics import Metrics
from muster.control.serve import Service
from muster.devcluster.node_pool import NodePool
from muster.devcluster.pace import Pace
from muster.devcluster.scheduler import SchedulerStandIn
from muster.devcluster.server import ApiServer
from muster.devcluster.submission_objects import Identity, dns_name
from muster.devcluster.virtual_application import VirtualApplication
from muster.devcluster.virtual_kubelet import VirtualKubelets
from muster.devcluster.virtual_spark import VirtualSpark, submit
from muster.kube.client import Client
from muster.kube.config import ClusterAccess
from muster.kube.credentials import FixedHeader
from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.errors import ApiError
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODES, PODS, Resource
from muster.kube.retry import RetryPolicy
from muster.spark.names import SLOT_ANNOTATION, SPARK_ROLE_DRIVER, SPARK_ROLE_LABEL
from tests.faults.faulty_api_server import FaultyApiServer
from tests.faults.simulated_processes import Process, Simulation

NAMESPACE = "team-a"
API, WEBHOOK = ("10.96.0.1", 443), ("10.96.0.2", 443)
RESTART_SECONDS = 2.0
"""From the end of a replica to the start of its successor."""
UNREADY_SECONDS = 6.0
"""How long a replica that does not answer is still asked by the Service in front of the webhook."""
ANSWER_SECONDS = 0.02
"""From the failure of a request to the moment at which the replica certainly knows of it."""
LONGEST_AIM = 5.0
POD_COLLECTION_SECONDS = 20.0
"""Between two looks of the pod garbage collector (``pkg/controller/podgc``)."""

_SERVICE_ACCOUNTS = Resource[dict[str, Any]]("", "v1", "serviceaccounts", "ServiceAccount", dict)
_PATIENT = RetryPolicy(attempts=40)
"""Of the cluster's own parts: they are not what is tested."""


class Replica:
    """One life of a Muster process."""

    def __init__(self, cluster: EmbeddedCluster, name: str) -> None:
        self.name = name
        self.process = cluster.simulation.start(name)
        self.service: Service | None = None
        self.port = 8443 + int(name[-1])
        self._cluster = cluster
        self.main = self.process.spawn(self._serve())

    @property
    def leads(self) -> bool:
        return self.process.alive and self.service is not None and self.service.election.is_leader()

    @property
    def is_synced(self) -> bool:
        service = self.service
        return service is not None and service.controller is not None and service.controller.synced.is_set()

    async def _serve(self) -> None:
        config = parse(
            {
                "webhook": {"host": "10.0.0.1", "port": self.port, "url": f"https://{WEBHOOK[0]}:{WEBHOOK[1]}/mutate"},
                "management": {"host": "10.0.0.1", "port": self.port + 1000},
                "validate": True,
            },
            "simulation",
        )
        identity = f"{self.name}_{self.process.random.getrandbits(32):08x}"
        async with self._cluster.client(self.process, "muster") as client:
            self.service = Service(config, client, Metrics(), identity)
            await self.service.run()


class EmbeddedCluster:
    """Build it, ``begin`` it, then let its simulation run."""

    def __init__(self, seed: int, pool: NodePool) -> None:
        self.simulation = Simulation(seed)
        self.faults = FaultyApiServer(lambda: self.simulation.now)
        self._apiserver = self.simulation.start("kube-apiserver")
        self._nodes = self.simulation.start("nodes")
        self._users = self.simulation.start("users")
        self.api = ApiServer(
            host=API[0],
            port=API[1],
            admin_token="admin",
            clock=self._apiserver.clock,
            luck=self._apiserver.random,
            around=self.faults.around,
        )
        self.store = self.api.store
        self._access = ClusterAccess(self.api.url, "simulation", credentials=FixedHeader.bearer("admin"))
        self._pool = pool
        self.kubelets: VirtualKubelets
        self.spark: VirtualSpark
        self.scheduler: SchedulerStandIn
        self.replicas: list[Replica] = []
        """All lives, in order."""
        self.problems: list[str] = []
        self.simulation.network.balancers[WEBHOOK] = self._endpoints

    def client(self, process: Process, agent: str, retry: RetryPolicy | None = None) -> Client:
        return Client(self._access, clock=process.clock, random=process.random.random, retry=retry, user_agent=agent)

    def run(self, until: Callable[[], bool], limit: float) -> bool:
        return self.simulation.run(until, limit)

    def begin(self) -> None:
        """Until two replicas serve and one of them leads."""
        self._spawn(self._apiserver, self._run_api())
        ready: list[bool] = []
        self.run(lambda: self.simulation.now >= 0.5, 1.0)
        self._spawn(self._users, self._furnish(ready))
        self._spawn(self._nodes, self._run_nodes(ready))
        assert self.run(lambda: len(ready) == 2, 30.0), self.problems
        for number in range(2):
            self.replicas.append(Replica(self, f"muster-{number}"))
        assert self.run(self.is_served, 60.0), "Muster does not start"

    def is_served(self) -> bool:
        living = self.living
        registered = all(r.service is not None and r.service.webhook_registered for r in living)
        return len(living) == 2 and registered and any(r.leads and r.is_synced for r in living)

    @property
    def living(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.process.alive]

    @property
    def leader(self) -> Replica | None:
        return next((replica for replica in self.living if replica.leads), None)

    # --- what happens to it ------------------------------------------------------------------------------------------

    def watch_over_replicas(self) -> None:
        """Start again what has ended; now and from now on."""
        for replica in self.living:
            if replica.main.done():
                error = None if replica.main.cancelled() else replica.main.exception()
                if not isinstance(error, ApiError):
                    self.problems.append(f"{replica.name} ended by itself: {error!r}")
                self.kill(replica)
        self.simulation.call_at(self.simulation.now + 1.0, self.watch_over_replicas)

    def kill(self, replica: Replica) -> None:
        replica.process.kill()
        self._collect(replica.process)
        start = self.simulation.now + RESTART_SECONDS
        self.simulation.call_at(start, lambda: self.replicas.append(Replica(self, replica.name)))

    def kill_leader(self) -> None:
        replica = self.leader or (self.living or [None])[0]
        if replica is not None:
            self.kill(replica)

    def pause_leader(self) -> None:
        """As soon as a write has failed that will be tried again, or soon without: what it then does, it does late."""
        simulation, faults = self.simulation, self.faults

        def pause() -> None:
            faults.after_a_failed_write = None
            if not paused:
                paused.append(True)
                self._pause_leader()

        paused: list[bool] = []
        faults.after_a_failed_write = lambda: simulation.call_at(simulation.now + ANSWER_SECONDS, pause)
        simulation.call_at(simulation.now + LONGEST_AIM, pause)

    def _pause_leader(self) -> None:
        """Stopped until another one leads, or (when none can) for twice as long as its lease."""
        replica = self.leader
        if replica is None or not replica.process.runs:
            return
        process, begun = replica.process, self.simulation.now
        process.pause()

        def look() -> None:
            others = any(other.leads and other is not replica for other in self.living)
            if others or self.simulation.now - begun > 30.0:
                process.resume()
            else:
                self.simulation.call_at(self.simulation.now + 0.25, look)

        look()

    def restart_api_server(self, down: float) -> None:
        """Every connection is reset and requests under way end where they are.

        What is stored stays, but not the history that watches could go on from.
        """
        process, network = self._apiserver, self.simulation.network
        if not process.runs:
            return
        listeners = network.close_listeners(process.loop)
        network.reset_all(process.loop)
        process.loop.settle()
        process.pause()
        self.store.compact()

        def up() -> None:
            for listener in listeners:
                network.listen(listener)
            process.resume()

        self.simulation.call_at(self.simulation.now + down, up)

    def cut_watches(self) -> None:
        """Those of Muster; where they were is compacted, so they cannot go on from there."""
        self.faults.cut_watches()
        self.simulation.call_at(self.simulation.now + 0.01, self.store.compact)

    def submit_at(self, when: float, application: VirtualApplication) -> Identity:
        luck = self._users.random
        prefix = f"{dns_name(application.name)}-{luck.getrandbits(64):016x}"
        identity = Identity(
            f"spark-{luck.getrandbits(128):032x}",
            prefix,
            f"spark-drv-{luck.getrandbits(64):016x}-conf-map",
            "/var/data",
        )
        client = self._user
        self.simulation.call_at(when, lambda: self._spawn(self._users, submit(client, application, identity)))
        return identity

    def lose_node_at(self, when: float, name: str) -> None:
        self.simulation.call_at(when, lambda: self._spawn(self._users, self._lose_node(name)))

    def close(self) -> None:
        for process in self.simulation.processes:
            process.kill()
            self._collect(process)

    # --- its parts ---------------------------------------------------------------------------------------------------

    async def _run_api(self) -> None:
        async with self.api:
            await asyncio.Event().wait()

    async def _furnish(self, ready: list[bool]) -> None:
        async with self.client(self._users, "kubectl", _PATIENT) as client:
            self._user = client
            for namespace in (NAMESPACE, "muster-system"):
                await client.create(NAMESPACES, _typed(NAMESPACES, namespace))
                await client.create(_SERVICE_ACCOUNTS, _typed(_SERVICE_ACCOUNTS, "spark"), namespace)
            for definition in (gang_definition(), queue_definition()):
                await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
            ready.append(True)
            await asyncio.Event().wait()

    async def _run_nodes(self, ready: list[bool]) -> None:
        async with contextlib.AsyncExitStack() as exits:
            enter, process = exits.enter_async_context, self._nodes
            pace = Pace(1.0, process.clock.monotonic)
            spark_client = await enter(self.client(process, "virtual-spark", _PATIENT))
            self.spark = VirtualSpark(spark_client, pace, lambda: f"{process.random.getrandbits(64):016x}")
            kubelet_client = await enter(self.client(process, "kubelet", _PATIENT))
            self.kubelets = await enter(VirtualKubelets(kubelet_client, (self._pool,), pace, self.spark.program))
            scheduler_client = await enter(self.client(process, "kube-scheduler", _PATIENT))
            self.scheduler = await enter(SchedulerStandIn(scheduler_client))
            ready.append(True)
            await asyncio.Event().wait()

    async def _lose_node(self, name: str) -> None:
        """The machine is gone, and so is its node; its pods are collected, also those that come to it too late.

        A driver that was released to it and is not bound waits for ever, which Muster tells in an event: its owner
        gives it up.
        """
        self.kubelets.nodes.pop(name)
        await self._user.delete(NODES, name)
        while True:
            for pod in await self._user.list(PODS):
                slot = pod.metadata.annotations.get(SLOT_ANNOTATION, "")
                driver = pod.metadata.labels.get(SPARK_ROLE_LABEL) == SPARK_ROLE_DRIVER
                if name in (pod.spec.node_name, slot if driver and not pod.spec.scheduling_gates else ""):
                    meta = pod.metadata
                    with contextlib.suppress(ApiError):
                        await self._user.delete(PODS, meta.name, meta.namespace, uid=meta.uid, grace_period_seconds=0)
            await asyncio.sleep(POD_COLLECTION_SECONDS)

    def _endpoints(self) -> list[tuple[str, int]]:
        now = self.simulation.now
        return [
            ("10.0.0.1", replica.port)
            for replica in self.living
            if replica.process.paused_since is None or now - replica.process.paused_since < UNREADY_SECONDS
        ]

    def _spawn(self, process: Process, work: Any) -> None:
        task: asyncio.Task[Any] = process.spawn(work)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.problems.append(f"{task.get_coro()}: {error!r}")

    def _collect(self, process: Process) -> None:
        self.problems += process.problems
        process.problems = []


def _typed(resource: Resource[Any], name: str) -> dict[str, Any]:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}}


__all__ = ["NAMESPACE", "EmbeddedCluster", "Replica", "structlog"]
