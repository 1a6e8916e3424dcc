"""Twenty seeded runs on a real control plane: two ``muster serve`` whose every request may go wrong, that are killed
and paused while applications come, run and end; the API server is killed, watches are cut. Then the faults end.

Judged by an onlooker from the API alone (``cluster_history``). Nodes and Spark are virtual and suffer no faults but the
loss of the API server. Run one seed with ``-k "[7]"``.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from muster.devcluster.control_plane import ControlPlane
from muster.devcluster.node_pool import NodePool
from muster.devcluster.pace import Pace
from muster.devcluster.virtual_application import VirtualApplication
from muster.devcluster.virtual_kubelet import VirtualKubelets
from muster.devcluster.virtual_spark import VirtualSpark, submit
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.errors import ApiError
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Resource
from muster.kube.resources import GANGS
from muster.kube.retry import RetryPolicy
from tests.faults.cluster_history import Cluster, startable
from tests.faults.fault_plan import (
    CutAllWatches,
    FaultPlan,
    KillLeader,
    LargeEvent,
    PauseLeader,
    RestartApiServer,
    draw_plan,
)
from tests.faults.fault_proxy import FaultProxy
from tests.faults.onlooker import Onlooker
from tests.faults.serve_replicas import SYSTEM_NAMESPACE, ServeReplica, WebhookService, lease_holder
from tests.kubernetes.real_cluster import ACCOUNTS, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(420), pytest.mark.asyncio(loop_scope="module")]

SEEDS = range(20)
FAULTY_SECONDS = 6.0
SPEED = 10.0
EVENTS: dict[type[LargeEvent], float] = {KillLeader: 3, PauseLeader: 2, RestartApiServer: 1, CutAllWatches: 2}
FOR_EVER = 1e6
"""Seconds that a virtual application runs when the test ends it."""
T = TypeVar("T")


class _Patience(RetryPolicy, frozen=True):
    """Spark and the kubelets outlast the API server: theirs are not the failures under test."""

    def wait(self, error: ApiError, *, failures: int, repeatable: bool, random: float) -> float | None:
        transient = error.code in (0, 429) or error.code >= 500
        return min(1.0, 0.1 * failures) if transient and failures < 100 else None


class _SteadfastClient(Client):
    refused: tuple[str, ...] = ()
    """Pods that the API server would not have: a Spark pod is held, never refused."""

    async def create(self, resource: Resource[T], body: object, namespace: str = "") -> T:
        try:
            return await super().create(resource, body, namespace)
        except ApiError as error:
            if not error.already_exists or not isinstance(body, dict):
                self.refused += (str(error),)
                raise
            return await self.get(resource, body["metadata"]["name"], namespace)  # an answer was lost, no more


@dataclass
class Stage:
    """What all runs share."""

    plane: ControlPlane
    client: _SteadfastClient
    proxy: FaultProxy
    spark: VirtualSpark
    kubelets: VirtualKubelets
    replicas: list[ServeReplica]
    happened: Counter[str] = field(default_factory=Counter)
    """Larger events that were carried out, and pods that no webhook saw."""
    runs: int = 0

    async def leader(self) -> ServeReplica:
        leader = await lease_holder(self.client, self.replicas)
        assert leader is not None
        return leader

    async def carry_out(self, event: LargeEvent) -> None:
        match event:
            case KillLeader():
                leader = await self.leader()
                await leader.kill()
                await leader.start()
            case PauseLeader():
                await self._pause_until_another_leads(await self.leader())
            case RestartApiServer(_, down):
                await self.plane.kill("kube-apiserver")
                await asyncio.sleep(down)
                await self.plane.start_api_server()
            case CutAllWatches():
                self.proxy.cut_watches()
        self.happened[type(event).__name__] += 1

    async def _pause_until_another_leads(self, paused: ServeReplica) -> None:
        others = [replica for replica in self.replicas if replica is not paused]

        async def another_leads() -> bool:
            return any([await replica.leads() for replica in others])

        paused.pause()
        try:
            await until("another replica leads", another_leads)
        finally:
            paused.resume()

    def report(self, plan: FaultPlan) -> str:
        logs = "".join(f"\n--- {replica.name}\n{replica.tail()}" for replica in self.replicas)
        return f"{plan}\ninjected so far: {dict(self.proxy.injected)}, {dict(self.happened)}{logs}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("faults")
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder))
        access = load_access(plane.kubeconfig)
        client = await stack.enter_async_context(_SteadfastClient(access, retry=_Patience(), user_agent="test"))
        for definition in (gang_definition(), queue_definition()):
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        await client.create(NAMESPACES, _named("Namespace", SYSTEM_NAMESPACE))
        pace = Pace(SPEED)
        spark = VirtualSpark(client, pace)
        pools = (NodePool(count=4, cpu=8),)
        kubelets = await stack.enter_async_context(VirtualKubelets(client, pools, pace, spark.program))
        proxy = await stack.enter_async_context(FaultProxy(plane.kubeconfig, folder))
        service = await stack.enter_async_context(WebhookService())
        settings = {
            "kubernetes": {"kubeconfig": str(proxy.kubeconfig)},
            # longer than a pause: what the paused leader was asked, it answers after it has lost the lease
            "webhook": {"url": f"https://127.0.0.1:{service.port}/mutate", "timeoutSeconds": 20},
            "lease": {"duration": "3s", "renewDeadline": "2s", "retryPeriod": "0.4s"},
            "validate": True,
        }
        replicas = [ServeReplica(name, folder, settings) for name in ("muster-a", "muster-b")]
        service.backends = [replica.webhook_port for replica in replicas]
        for replica in replicas:
            await replica.start()
            stack.push_async_callback(replica.stop)
        made = Stage(plane, client, proxy, spark, kubelets, replicas)

        async def serves() -> bool:
            return any([await replica.leads() for replica in replicas])

        await until("Muster serves", serves)
        await asyncio.sleep(1)  # kube-apiserver takes up webhook configurations through a watch of its own
        yield made
        assert [await replica.stop() for replica in replicas] == [0, 0], "SIGTERM is a graceful stop"
        for replica in replicas:
            assert "InvariantError" not in replica.tail(10**9)


class Run:
    """The applications of one seed in a namespace of their own."""

    def __init__(self, stage: Stage, onlooker: Onlooker, plan: FaultPlan) -> None:
        self.stage = stage
        self.onlooker = onlooker
        self.plan = plan
        self.namespace = f"run-{plan.seed}"
        self.minimum: dict[str, int] = {}
        self.sizes: dict[str, tuple[int, dict[str, int]]] = {}
        self.endless: set[str] = set()
        """Applications that run until the test ends them."""
        self.deleted: set[str] = set()

    async def submit(self, application: VirtualApplication) -> str:
        key = f"{self.namespace}/{(await submit(self.stage.client, application)).application_id}"
        count = application.min_executors if application.dynamic else application.executors
        self.minimum[key] = count
        self.sizes[key] = (count, {"cpu": 1000 * application.executor_cores, "memory": 1408 * 2**20, "pods": 1})
        if application.run_seconds == FOR_EVER:
            self.endless.add(key)
        return key

    def now(self) -> Cluster:
        return self.onlooker.history.now()

    def runs_whole(self, cluster: Cluster, application: str) -> bool:
        driver = cluster.driver(application)
        bound = sum(1 for executor in cluster.executors(application) if executor.node and not executor.ended)
        return driver is not None and bool(driver.node) and bound >= self.minimum[application]

    def has_ended(self, cluster: Cluster, application: str) -> bool:
        driver = cluster.driver(application)
        return driver.ended if driver is not None else application in self.deleted

    async def everything_that_fits_runs(self) -> bool:
        cluster = self.now()
        drivers = {key: cluster.driver(key) for key in self.minimum}
        return not startable(cluster, self.sizes) and all(
            self.has_ended(cluster, key) or (driver is not None and driver.gated) or self.runs_whole(cluster, key)
            for key, driver in drivers.items()
        )

    async def all_have_ended(self) -> bool:
        """Ends those that would run for ever as soon as they run whole."""
        cluster = self.now()
        for key in self.endless - self.deleted:
            if self.runs_whole(cluster, key):
                await self.delete_driver(cluster, key)
        return all(self.has_ended(cluster, key) for key in self.minimum)

    async def delete_driver(self, cluster: Cluster, application: str) -> None:
        driver = cluster.driver(application)
        if driver is not None:
            self.deleted.add(application)
            name = next(name for (_, name), pod in cluster.pods.items() if pod is driver)
            await self.stage.client.delete(PODS, name, self.namespace, uid=driver.uid)

    async def everything_is_gone(self) -> bool:
        cluster = self.now()
        for key in self.minimum.keys() - self.deleted:
            await self.delete_driver(cluster, key)
        return not cluster.gangs and not any(pod.role for pod in cluster.pods.values())

    async def every_gang_is_finished(self) -> bool:
        gangs = await self.stage.client.list(GANGS, self.namespace)
        return all(gang.status.phase == "Finished" for gang in gangs)


def applications_of(seed: int, namespace: str) -> list[tuple[float, VirtualApplication]]:
    """When each is submitted, in seconds; together they ask for more than there is."""
    luck = random.Random(f"applications {seed}")
    made = []
    for number in range(luck.randint(4, 7)):
        dynamic = luck.random() < 0.25
        count = luck.choice((1, 2, 3)) if dynamic else luck.choice((1, 2, 4, 6, 9, 13))
        application = VirtualApplication(
            f"app-{number}",
            namespace=namespace,
            executors=count,
            dynamic=dynamic,
            min_executors=count if dynamic else 0,
            max_executors=count + 4 if dynamic else None,
            executor_cores=2 if count <= 9 and luck.random() < 0.3 else 1,
            run_seconds=FOR_EVER if luck.random() < 0.4 else luck.uniform(10.0, 50.0),
        )
        made.append((luck.uniform(0.0, 0.8 * FAULTY_SECONDS), application))
    return sorted(made, key=lambda pair: pair[0])


async def go_wrong(run: Run) -> None:
    """The faulty part of a run: submissions and larger events at their times."""

    async def submissions() -> None:
        for at, application in applications_of(run.plan.seed, run.namespace):
            await asyncio.sleep(max(0.0, at - run.stage.proxy.elapsed))
            await run.submit(application)

    async def events() -> None:
        for event in run.plan.events:
            await asyncio.sleep(max(0.0, event.at - run.stage.proxy.elapsed))
            await run.stage.carry_out(event)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(submissions())
        tasks.create_task(events())
    await asyncio.sleep(max(0.0, run.plan.faulty_seconds - run.stage.proxy.elapsed))


async def come_to_rest(run: Run) -> None:
    """The quiet part: all that fits runs, ends, and leaves nothing behind; then one gang gets the whole cluster."""
    await until("every gang that fits is running or finished", run.everything_that_fits_runs, 120)
    await until("all applications end", run.all_have_ended, 180)
    await until("every gang is finished", run.every_gang_is_finished)
    await until("nothing is left", run.everything_is_gone)
    cores = sum(node["cpu"] // 1000 for node in run.now().nodes.values())
    whole = await run.submit(
        VirtualApplication("whole", namespace=run.namespace, executors=cores - 1, run_seconds=FOR_EVER)
    )

    async def runs() -> bool:
        return run.runs_whole(run.now(), whole)

    await until("a gang as large as the cluster runs: no room has leaked", runs)
    await until("it ends", run.all_have_ended)
    await until("nothing is left of it", run.everything_is_gone)


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_the_faults_every_gang_that_fits_runs_and_nothing_was_doubled_or_lost(
    stage: Stage, seed: int
) -> None:
    plan = draw_plan(
        seed,
        faulty_seconds=FAULTY_SECONDS,
        longest_delay=35.0 if seed % 5 == 0 else 4.0,
        weights=EVENTS,
        fewest_events=2,
        most_events=4,
    )
    namespace = f"run-{seed}"
    await stage.client.create(NAMESPACES, _named("Namespace", namespace))
    await stage.client.create(ACCOUNTS, _named("ServiceAccount", "spark"), namespace)
    stage.kubelets.rejected.clear()
    async with Onlooker(stage.plane.kubeconfig) as onlooker:
        run = Run(stage, onlooker, plan)
        stage.proxy.follow(plan)
        try:
            await go_wrong(run)
            await come_to_rest(run)
            cluster, verdict = onlooker.history.judge(run.minimum)
            stage.happened["ungated pods"] += len(verdict.ungated)
            # what kube-scheduler places while no webhook answers, it places without asking about slots
            breaches = [what for what in verdict.breaches if not (verdict.ungated and "overcommitted" in what)]
            assert breaches == [], "\n".join(breaches)
            assert set(run.minimum) >= verdict.released.keys()
            assert verdict.ungated or verdict.released.keys() == set(run.minimum), "an application was lost"
            assert verdict.ungated or stage.kubelets.rejected == {}, "a node was given more than it has"
            assert stage.client.refused == ()
            assert (stage.spark.problems, stage.kubelets.problems) == ([], [])
            assert all(cluster.free(node) == amounts for node, amounts in cluster.nodes.items())
        except BaseException as error:
            error.add_note(stage.report(plan))
            raise
    stage.runs += 1
    print(f"seed {seed}: {len(run.minimum)} applications, so far {dict(stage.happened)}")


async def test_faults_of_every_kind_really_happened(stage: Stage) -> None:
    if stage.runs < len(SEEDS):
        pytest.skip("only after all runs")
    injected = stage.proxy.injected
    for code in (409, 429, 500, 503):
        assert injected[f"refuse {code}"] > 0
    for verb in ("create", "patch", "update", "get"):
        assert injected[f"lose the answer to {verb}, reset"] > 0
        assert injected[f"lose the answer to {verb}, 500"] > 0
    for fault in ("delay the answer", "delay the request", "cut a watch", "expire a watch", "cut all watches"):
        assert injected[fault] > 0
    for event in EVENTS:
        assert stage.happened[event.__name__] > 0
    print(dict(injected), dict(stage.happened))


def _named(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
