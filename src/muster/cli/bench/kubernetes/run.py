"""One run: a control plane of its own, nodes, Muster where the mode has it, the load, and what it cost."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

from muster.cli.bench.kubernetes import cpu
from muster.cli.bench.kubernetes.audit import count_failures, count_writes, read_events, timings, writes_that_count
from muster.cli.bench.kubernetes.plan import Mode, Run
from muster.cli.bench.kubernetes.spark_load import USER_AGENT, LoadSpec, Order, Progress, Result
from muster.devcluster.control_plane import ControlPlane, free_ports
from muster.devcluster.node_pool import NodePool, node_objects
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.kinds import NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS, Resource
from muster.kube.manifests import InstallOptions, manifests, webhook_configuration
from muster.kube.objects import Present
from muster.kube.resources import GANGS, GangPhase
from muster.spark.names import MODE_ANNOTATION, SPARK_ROLE_EXECUTOR, SPARK_ROLE_LABEL

CREATOR_QPS = 1000
CREATOR_IN_FLIGHT = 32
SETTLE_SECONDS = 2.0
"""After the last binding, still measured: Events and status that trail behind."""
START_SECONDS = 60.0
RUN_SECONDS = 900.0
NAMESPACE, WARM_UP_NAMESPACE, SYSTEM_NAMESPACE = "spark", "warm-up", "muster-system"
NODES_IN_FLIGHT = 32
_WARM_UP = {"applications": 3, "executors": 2}
_INSTALLED = {"Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
_INSTALLED |= {"Role", "RoleBinding"}
_AGENT = "bench"
"""Furnishes the cluster."""
_EXECUTORS = f"{SPARK_ROLE_LABEL}={SPARK_ROLE_EXECUTOR}"
_NODES = NODES.decoding_to(Present)

Told = Callable[[str], None]
"""Is told what happens, in a few words."""


class RunFailed(Exception):
    """A run did not come to its end; the message says how far it came."""


class Measurement(msgspec.Struct, frozen=True):
    """What one run gave. CPU seconds and writes are those of the whole run."""

    run: Run
    span: float
    """Seconds from the first create to the last binding."""
    minimum_bound: tuple[float, ...]
    driver_bound: tuple[float, ...]
    creating: float
    born_bound: int
    cpu: dict[str, float]
    creator_cpu: float
    writes: dict[str, int]
    failures: dict[str, int]
    requests: int
    """That the creator sent, in ``creating`` seconds."""

    @property
    def pods_per_s(self) -> float:
        return self.run.executors / self.span

    @property
    def cpu_s_per_1000(self) -> float:
        """Of all processes but the creator, per 1,000 pods, drivers included."""
        return sum(self.cpu.values()) * 1000 / self.run.pods

    @property
    def writes_per_pod(self) -> float:
        return writes_that_count(self.writes) / self.run.pods


async def measure(run: Run, tell: Told) -> Measurement:
    """Raises ``NotBuilt`` without the binaries, ``RunFailed`` when pods stay unbound."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        async with AsyncExitStack() as stack:
            tell("starting the control plane")
            plane = ControlPlane(
                Path(folder),
                scheduler=run.mode.with_scheduler,
                controllers=False,
                scheduler_qps=run.scheduler_qps,
                # without controllers nobody would take the taint off new nodes
                api_server_options=["--disable-admission-plugins=TaintNodesByCondition"],
            )
            await stack.enter_async_context(plane)
            client = await stack.enter_async_context(Client(load_access(plane.kubeconfig), user_agent=_AGENT))
            try:
                return await _measure_on(plane, run, client, stack, tell)
            except RunFailed as error:
                raise RunFailed(f"{run}: {error}. {_last_words(plane)}") from None


async def _measure_on(plane: ControlPlane, run: Run, client: Client, stack: AsyncExitStack, tell: Told) -> Measurement:
    names = await _furnish(client, run.nodes, tell)
    processes = plane.processes()
    if run.mode.with_muster:
        tell("starting Muster")
        muster = await stack.enter_async_context(_muster(client, plane, run.mode))
        processes["muster"] = muster.pid
    tell("warming up")
    await _warm_up(client, plane, run.mode, names)
    return await _measure(run, client, plane, processes, names, tell)


async def _measure(
    run: Run, client: Client, plane: ControlPlane, processes: Mapping[str, int], names: tuple[str, ...], tell: Told
) -> Measurement:
    spec = LoadSpec(
        kubeconfig=str(plane.kubeconfig),
        namespace=NAMESPACE,
        applications=run.applications,
        executors=run.shape.executors,
        qps=CREATOR_QPS,
        in_flight=CREATOR_IN_FLIGHT,
        nodes=() if run.mode.with_scheduler else names,
    )
    async with _load(spec, plane.folder) as load:
        before = cpu.snapshot(processes)
        creator_before = cpu.cpu_seconds(load.pid)
        result = await load.run(lambda now: tell(f"{now.created} of {run.pods} created, {now.bound} bound"))
        creator = cpu.cpu_seconds(load.pid) - creator_before
        await asyncio.sleep(SETTLE_SECONDS)
        after = cpu.snapshot(processes)
        if run.mode.with_muster:
            tell("ending the applications")
            await load.order("end")
            await _until_finished(client, run.applications)
    events = list(read_events(plane.audit_log, NAMESPACE))
    times = timings(events, result.applications)
    return Measurement(
        run=run,
        span=times.span,
        minimum_bound=times.minimum_bound,
        driver_bound=times.driver_bound,
        creating=times.creating,
        born_bound=result.born_bound,
        cpu=cpu.spent(before, after),
        creator_cpu=round(creator, 2),
        writes=count_writes(events, spark=USER_AGENT, others=_AGENT),
        failures=count_failures(events),
        requests=run.pods + run.applications,
    )


async def _furnish(client: Client, nodes: int, tell: Told) -> tuple[str, ...]:
    """Namespaces, Spark's account and the nodes; the names of these."""
    for namespace in (NAMESPACE, WARM_UP_NAMESPACE):
        await client.create(NAMESPACES, _named("v1", "Namespace", namespace))
        await client.create(SERVICE_ACCOUNTS, _named("v1", "ServiceAccount", "spark"), namespace)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    bodies = node_objects(NodePool(count=nodes), now)
    created = 0
    queue = iter(bodies)

    async def create_all() -> None:
        nonlocal created
        for body in queue:
            await client.create(_NODES, body)
            created += 1
            if created % 500 == 0:
                tell(f"{created} of {nodes} nodes")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(NODES_IN_FLIGHT):
            tasks.create_task(create_all())
    return tuple(body["metadata"]["name"] for body in bodies)


def _named(api_version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}


class Load:
    """The creator's process, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self._process = process
        self._errors = errors

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self, told: Callable[[Progress], None]) -> Result:
        """Create everything; until all pods are bound."""
        await self._send("start")
        now = Progress(0, 0)
        try:
            async with asyncio.timeout(RUN_SECONDS):
                while not isinstance(answer := await self.read(), Result):
                    now = answer
                    told(now)
                return answer
        except TimeoutError:
            raise RunFailed(
                f"after {RUN_SECONDS:.0f} s {now.created} pods were created and {now.bound} bound"
            ) from None

    async def order(self, order: Order) -> None:
        await self._send(order)
        await self.read()

    async def read(self) -> Progress | Result:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RunFailed(f"the creator has ended: {_end_of(self._errors)}")
        return msgspec.json.decode(line, type=Progress | Result)

    async def _send(self, order: Order) -> None:
        await self.write(order.encode())

    async def write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def _load(spec: LoadSpec, folder: Path) -> AsyncIterator[Load]:
    """The creator, connected and ready to start."""
    errors = folder / "spark-load.log"
    async with _process(errors, "-m", "muster.cli.bench.kubernetes.spark_load", pipes=True) as process:
        load = Load(process, errors)
        await load.write(msgspec.json.encode(spec))
        await load.read()
        yield load


@asynccontextmanager
async def _process(log: Path, *arguments: str, pipes: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """This Python with these arguments; ended on leaving."""
    pipe = asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=pipe, stdout=pipe if pipes else errors, stderr=errors, limit=2**24
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
        await process.communicate()


@asynccontextmanager
async def _muster(client: Client, plane: ControlPlane, mode: Mode) -> AsyncIterator[asyncio.subprocess.Process]:
    """``muster serve`` as its manifests install it, with the rights of its own account, outside the cluster."""
    webhook_port, management_port = free_ports(2)
    url = f"https://127.0.0.1:{webhook_port}/mutate"
    installed = [
        manifest for manifest in manifests(InstallOptions(namespace=SYSTEM_NAMESPACE)) if manifest["kind"] in _INSTALLED
    ]
    # its own account may change the webhook's configuration but not create it
    for manifest in [*installed, webhook_configuration(b"", namespace=SYSTEM_NAMESPACE, url=url)]:
        await client.apply(_resource_of(manifest), manifest, field_manager=_AGENT)
    token = await client.service_account_token("muster", SYSTEM_NAMESPACE, seconds=7200)
    kubeconfig = yaml.safe_load(plane.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": token}
    access = plane.folder / "muster.kubeconfig"
    access.touch(mode=0o600)
    access.write_text(yaml.safe_dump(kubeconfig))
    config = plane.folder / "muster.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "namespace": SYSTEM_NAMESPACE,
                "kubernetes": {"kubeconfig": str(access)},
                "webhook": {"port": webhook_port, "url": url},
                "management": {"port": management_port},
                "scheduling": {"bind": mode is Mode.BIND},
            }
        )
    )
    log = plane.folder / "muster.log"
    async with _process(log, "-m", "muster.cli.main", "serve", "--config", str(config)) as process:
        await _until_ready(process, f"http://127.0.0.1:{management_port}/readyz", log)
        yield process


async def _until_ready(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    """Leading, and synced."""
    async with _patience("Muster was not ready", START_SECONDS), aiohttp.ClientSession() as http:
        while True:
            if process.returncode is not None:
                raise RunFailed(f"Muster has ended: {_end_of(log)}")
            try:
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass  # not listening yet
            await asyncio.sleep(0.1)


async def _warm_up(client: Client, plane: ControlPlane, mode: Mode, nodes: tuple[str, ...]) -> None:
    """A few applications, so that connections, caches and compiled code are there; again until Muster is asked.

    kube-apiserver takes up webhook configurations through a watch of its own, a moment after they are written.
    """
    async with _patience("Muster had not placed an executor of the warm-up", START_SECONDS):
        while True:
            spec = LoadSpec(
                str(plane.kubeconfig),
                WARM_UP_NAMESPACE,
                **_WARM_UP,
                qps=CREATOR_QPS,
                in_flight=CREATOR_IN_FLIGHT,
                nodes=() if mode.with_scheduler else nodes,
            )
            async with _load(spec, plane.folder) as load:
                await load.run(lambda now: None)
            if not mode.with_muster:
                return
            pods = await client.list(PODS, WARM_UP_NAMESPACE, label_selector=_EXECUTORS)
            if any(MODE_ANNOTATION in pod.metadata.annotations for pod in pods):
                return


async def _until_finished(client: Client, applications: int) -> None:
    """Every gang says that its application has ended."""
    async with _patience("Muster had not written the end of every application", START_SECONDS):
        while True:
            gangs = await client.list(GANGS, NAMESPACE)
            if sum(gang.status.phase == GangPhase.FINISHED for gang in gangs) == applications:
                return
            await asyncio.sleep(0.5)


def _resource_of(manifest: Mapping[str, Any]) -> Resource[Any]:
    """Where objects of this kind live; all kinds of the manifests have regular plurals."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    namespaced = "namespace" in manifest["metadata"]
    return Resource(group, version, manifest["kind"].lower() + "s", manifest["kind"], Present, namespaced)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _last_words(plane: ControlPlane) -> str:
    """What kube-apiserver and Muster have logged last: the folder goes with the run."""
    logs = [log for log in (plane.folder / "kube-apiserver.log", plane.folder / "muster.log") if log.is_file()]
    return " ".join(f"The end of {log.name}: {_end_of(log)}" for log in logs)


@asynccontextmanager
async def _patience(problem: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RunFailed(f"{problem} after {seconds:.0f} s") from None
