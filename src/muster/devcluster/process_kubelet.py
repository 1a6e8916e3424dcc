"""A kubelet whose containers are processes of this machine: it runs real Spark, without images and without root.

One node; each pod gets a folder for volumes, working directory and log, and a loopback address of its own. Linux only
(all of 127.0.0.0/8 answers there without set-up). Requests and limits are counted by schedulers but not enforced.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from muster.devcluster import session
from muster.devcluster.distribution import SparkUnavailableError
from muster.devcluster.loopback_network import LoopbackNetwork
from muster.devcluster.node_pool import NodePool, node_objects
from muster.devcluster.node_registration import KUBELET_LEASE_SECONDS, heartbeat, register_node
from muster.devcluster.pod_status import ContainerEnd, ended, running, waiting
from muster.devcluster.session import Session
from muster.devcluster.spark_process import (
    IMAGE_SPARK_HOME,
    PROPERTIES_SUFFIXES,
    Machine,
    PodFolder,
    decommissions_first,
    hosts_file,
    path_map,
    plan,
    rewriter,
)
from muster.devcluster.volumes import Sources, UnsupportedVolumeError, contents, files_of, needed_objects, needed_tokens
from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import CONFIG_MAPS, PODS, SECRETS
from muster.kube.list_watch import Deleted, ListWatch, Synced, WatchedEvent
from muster.kube.objects import Pod, Present
from muster.kube.timestamps import format_time
from muster.spark.names import SPARK_ROLE_DRIVER, SPARK_ROLE_LABEL, SPARK_VERSION_LABEL

POOL_NAME = "process"
VOLUME_RETRY_SECONDS = (0.1, 2.0)
"""First and longest wait for a missing ConfigMap; the kubelet retries for as long as the pod exists."""
DECOMMISSION_SECONDS = 60.0
"""``decom.sh`` waits this long for the executor to end."""
LOG_TAIL_BYTES = 8192

# Three JVMs on a laptop's cores must start quickly: the second compiler tier pays off in long jobs only, and Spark's
# own classes need no verification. Halves the processor time of a short application. Spark never sees these options.
JAVA_OPTIONS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",
)

_ENDED = ("Succeeded", "Failed")
_RAW_POD = PODS.decoding_to(dict)
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "JAVA_HOME", "TMPDIR", "TZ", "USER")

Object = dict[str, Any]


class ProcessKubelet:
    """Use as an async context manager. ``spark_home`` gives the distribution of a Spark version (label of the pod).

    It is the kubelet of the ``index``-th node of ``pool``. Kubelets of one cluster share one ``network``.
    """

    def __init__(
        self,
        client: Client,
        root: Path,
        spark_home: Callable[[str], Path],
        *,
        pool: NodePool | None = None,
        index: int = 0,
        node_number: int = 0,
        network: LoopbackNetwork | None = None,
        java_options: tuple[str, ...] = JAVA_OPTIONS,
    ) -> None:
        self._client = client
        self._root = root
        self._spark_home = spark_home
        self._pool = pool or NodePool(name=POOL_NAME, count=1, cpu=64, memory_gib=256, instance_type="process")
        self._index = index
        self._node_number = node_number
        self._network = network or LoopbackNetwork()
        self._java_options = java_options
        self._runs: dict[str, _PodRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.problems: list[str] = []
        self.logs: dict[str, Path] = {}
        """``namespace/pod`` → log of its (last) container, kept until this kubelet stops."""

    @property
    def node_name(self) -> str:
        return self._pool.node_names()[self._index]

    async def __aenter__(self) -> Self:
        if not sys.platform.startswith("linux"):
            raise RuntimeError(f"real Spark needs Linux (a loopback address per pod); this is {sys.platform}")
        self._root.mkdir(parents=True, exist_ok=True)
        await self._register()
        self._spawn(self._watch())
        self._spawn(self._stay_ready())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tail(self, namespace: str, pod: str, lines: int = 30) -> str:
        """The last lines that a pod wrote, for people; "" for a pod that never ran here."""
        path = self.logs.get(f"{namespace}/{pod}")
        return "" if path is None else log_tail(path, lines)

    async def _register(self) -> None:
        node = node_objects(self._pool, self._now(), self._node_number)[self._index]
        await register_node(self._client, node, KUBELET_LEASE_SECONDS)

    async def _stay_ready(self) -> None:
        while True:
            await self._client.clock.sleep(KUBELET_LEASE_SECONDS / 4)
            await self._attempt(heartbeat(self._client, self.node_name, KUBELET_LEASE_SECONDS))

    async def _watch(self) -> None:
        selector = f"spec.nodeName={self.node_name}"
        await ListWatch(self._client, PODS, field_selector=selector).run(self._on_event)

    def _on_event(self, event: WatchedEvent[Pod]) -> None:
        if isinstance(event, Synced):
            return
        if isinstance(event, Deleted):
            if run := self._runs.pop(event.uid, None):
                run.force.set()
            return
        pod = event.object
        run = self._runs.get(pod.metadata.uid)
        if run is None:
            if pod.status.phase in _ENDED:
                return
            run = self._runs[pod.metadata.uid] = _PodRun()
            self._spawn(self._run(run, pod))
        if pod.metadata.deletion_timestamp is not None:
            seconds = pod.metadata.deletion_grace_period_seconds
            if seconds is not None:
                run.grace = float(seconds)
            run.terminate.set()

    async def _run(self, run: _PodRun, pod: Pod) -> None:
        meta = pod.metadata
        folder = PodFolder(self._root / f"{meta.namespace}_{meta.name}_{meta.uid[:8]}")
        try:
            raw: Object = await self._client.get(_RAW_POD, meta.name, meta.namespace)
            await self._live(run, raw, folder)
        except ApiError as error:
            if not error.not_found:
                self.problems.append(f"pod {meta.namespace}/{meta.name}: {error}")
        except (UnsupportedVolumeError, SparkUnavailableError, KeyError, ValueError, OSError) as error:
            self.problems.append(f"pod {meta.namespace}/{meta.name} cannot run as a process: {error}")
            await self._attempt(self._fail(pod, str(error)))
        finally:
            shutil.rmtree(folder.work, ignore_errors=True)
            shutil.rmtree(folder.root / "volumes", ignore_errors=True)
        if run.terminate.is_set() and not run.force.is_set():
            await self._attempt(
                self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid, grace_period_seconds=0)
            )

    async def _live(self, run: _PodRun, pod: Object, folder: PodFolder) -> None:
        containers = [(container["name"], container.get("image", "")) for container in pod["spec"]["containers"]]
        if pod["spec"].get("initContainers"):
            raise UnsupportedVolumeError("init containers are not run as processes")
        sources = await self._sources(run, pod, containers)
        if sources is None:
            return
        address = self._network.next_address()
        pod = pod | {"status": (pod.get("status") or {}) | {"podIP": address, "hostIP": "127.0.0.1"}}
        machine = self._machine(pod)
        self._publish_name(pod, address)
        await asyncio.to_thread(self._materialise, pod, folder, machine, sources, address)
        self.logs[f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"] = folder.log
        sessions: dict[str, Session] = {}
        started = self._now()
        try:
            for container in pod["spec"]["containers"]:
                process = plan(pod, container, folder, machine, sources)
                sessions[container["name"]] = await session.start(process, folder.log)
            await self._report(pod, running(containers, address, "127.0.0.1", started))
            codes = await self._exit_codes(run, pod, sessions)
        finally:
            for each in sessions.values():
                each.kill()
            await asyncio.gather(*(each.wait() for each in sessions.values()))
        finished = self._now()
        ends = {name: ContainerEnd(code, finished) for name, code in codes.items()}
        if not run.force.is_set():
            await self._report(pod, ended(containers, ends, started))

    async def _exit_codes(self, run: _PodRun, pod: Object, sessions: Mapping[str, Session]) -> dict[str, int]:
        """Until all containers end by themselves, or the pod is deleted: preStop, SIGTERM, grace, SIGKILL."""
        exits = asyncio.gather(*(each.wait() for each in sessions.values()))
        terminate = asyncio.ensure_future(run.terminate.wait())
        force = asyncio.ensure_future(run.force.wait())
        try:
            await asyncio.wait((exits, terminate, force), return_when=asyncio.FIRST_COMPLETED)
            if not exits.done() and not force.done():
                await self._ask_to_end(pod, sessions, exits, force, run.grace)
            if not exits.done():
                for each in sessions.values():
                    each.kill()
            return dict(zip(sessions, await exits, strict=True))
        finally:
            terminate.cancel()
            force.cancel()

    async def _ask_to_end(
        self,
        pod: Object,
        sessions: Mapping[str, Session],
        exits: asyncio.Future[list[int]],
        force: asyncio.Future[Any],
        grace: float,
    ) -> None:
        clock = self._client.clock
        deadline = clock.monotonic() + grace
        hooked = [
            sessions[container["name"]] for container in pod["spec"]["containers"] if decommissions_first(container)
        ]
        if hooked:
            for each in hooked:
                each.signal(signal.SIGPWR)
            await asyncio.wait(
                (exits, force), timeout=min(grace, DECOMMISSION_SECONDS), return_when=asyncio.FIRST_COMPLETED
            )
        for each in sessions.values():
            each.signal(signal.SIGTERM)
        left = max(deadline - clock.monotonic(), 0.0)
        await asyncio.wait((exits, force), timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _sources(self, run: _PodRun, pod: Object, containers: list[tuple[str, str]]) -> Sources | None:
        """ConfigMaps, Secrets and tokens of a pod, waited for; ``None`` when it was deleted meanwhile."""
        namespace = pod["metadata"]["namespace"]
        objects: dict[tuple[str, str], dict[str, bytes] | None] = {}
        wait, longest = VOLUME_RETRY_SECONDS
        told = False
        for key in needed_objects(pod):
            resource = (CONFIG_MAPS if key.kind == "ConfigMap" else SECRETS).decoding_to(dict)
            while (key.kind, key.name) not in objects:
                try:
                    found: Object = await self._client.get(resource, key.name, namespace)
                    objects[key.kind, key.name] = contents(key.kind, found)
                except ApiError as error:
                    if not error.not_found:
                        raise
                    if key.optional:
                        objects[key.kind, key.name] = None
                        continue
                    if run.terminate.is_set():
                        return None
                    if not told:
                        told = True
                        message = f'{key.kind.lower()} "{key.name}" not found'
                        await self._report(pod, waiting(containers, "ContainerCreating", message, "127.0.0.1"))
                    await self._client.clock.sleep(wait)
                    wait = min(wait * 2, longest)
        account = pod["spec"].get("serviceAccountName", "default")
        tokens = {}
        for token in needed_tokens(pod):
            audiences = (token.audience,) if token.audience else ()
            text = await self._client.service_account_token(
                account,
                namespace,
                audiences=audiences,
                seconds=token.seconds,
                pod=(pod["metadata"]["name"], pod["metadata"]["uid"]),
            )
            tokens[token] = text.encode()
        return Sources(objects, tokens)

    def _materialise(self, pod: Object, folder: PodFolder, machine: Machine, sources: Sources, address: str) -> None:
        folder.work.mkdir(parents=True)
        # Paths in mounted properties are those of the image, too
        paths: dict[str, str] = {}
        for container in pod["spec"]["containers"]:
            paths |= path_map(pod, container, folder, machine)
        rewrite = rewriter(paths)
        for volume in pod["spec"].get("volumes") or ():
            place = folder.volume(volume["name"])
            place.mkdir(parents=True, exist_ok=True)
            for name, content in (files_of(volume, pod, sources) or {}).items():
                file = place / name
                file.parent.mkdir(parents=True, exist_ok=True)
                if name.endswith(PROPERTIES_SUFFIXES):
                    content = rewrite(content.decode()).encode()
                file.write_bytes(content)
                file.chmod(0o600)
        name = pod["spec"].get("hostname") or pod["metadata"]["name"]
        names = self._network.names() | {socket.gethostname(): "127.0.0.1"}
        folder.hosts.write_text(hosts_file(names, name, address), encoding="utf-8")

    def _publish_name(self, pod: Object, address: str) -> None:
        """The driver's headless service resolves to the driver's address."""
        meta = pod["metadata"]
        if (meta.get("labels") or {}).get(SPARK_ROLE_LABEL) == SPARK_ROLE_DRIVER:
            self._network.publish(f"{meta['name']}-svc", meta["namespace"], address)

    def _machine(self, pod: Object) -> Machine:
        version = (pod["metadata"].get("labels") or {}).get(SPARK_VERSION_LABEL, "")
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment.setdefault("PYSPARK_PYTHON", sys.executable)
        return Machine(
            # A pod that names no version is not Spark's
            spark_home=self._spark_home(version) if version else Path(IMAGE_SPARK_HOME),
            java=java_command(),
            api_server=self._client.access.server,
            environment=environment,
            java_options=self._java_options,
        )

    async def _fail(self, pod: Pod, message: str) -> None:
        now = self._now()
        containers = [(container.name, "") for container in pod.spec.containers or ()]
        ends = {name: ContainerEnd(128, now, message) for name, _ in containers}
        status = ended(containers, ends, now)
        raw = {"metadata": {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid}}
        await self._report(raw, status)

    async def _report(self, pod: Object, status: Object) -> None:
        meta = pod["metadata"]
        await self._client.patch(
            PODS.decoding_to(Present),
            meta["name"],
            {"metadata": {"uid": meta["uid"]}, "status": status},
            meta["namespace"],
            patch_type=PatchType.STRATEGIC,
            subresource="status",
        )

    async def _attempt(self, call: Awaitable[None]) -> None:
        try:
            await call
        except ApiError as error:
            if not error.not_found:
                self.problems.append(str(error))

    def _now(self) -> str:
        return format_time(self._client.clock.time())

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _PodRun:
    """A pod that this kubelet has taken on."""

    def __init__(self) -> None:
        self.terminate = asyncio.Event()
        self.grace = 30.0
        """Seconds that whoever deleted the pod has given it."""
        self.force = asyncio.Event()
        """The object is gone: stop at once, report nothing."""


def java_command() -> str:
    """``$JAVA_HOME/bin/java`` or the one on the path. Raises ``FileNotFoundError``."""
    home = os.environ.get("JAVA_HOME")
    if home and (java := Path(home, "bin", "java")).is_file():
        return str(java)
    if found := shutil.which("java"):
        return found
    raise FileNotFoundError("no java on the path and JAVA_HOME is not set; Spark needs Java 17")


def log_tail(path: Path, lines: int) -> str:
    """The last lines of a log, read from its end."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(log.tell() - LOG_TAIL_BYTES, 0))
            return "\n".join(_last_lines(log.read().decode("utf-8", "replace"), lines))
    except FileNotFoundError:
        return ""


def _last_lines(text: str, count: int) -> Iterator[str]:
    yield from text.splitlines()[-count:]
