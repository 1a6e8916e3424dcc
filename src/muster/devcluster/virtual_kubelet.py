"""One controller that plays the kubelets of many nodes: pods only take room and time.

It obeys the API as a kubelet does: registers nodes, renews leases, runs what is bound, refuses what does not fit,
reports status, and lets a deleted pod go when it has stopped. Pod sandbox, probes and images are not played.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

import msgspec

from muster.cluster.resources import Resources
from muster.devcluster.node_pool import NodePool, node_objects, pod_network, virtual
from muster.devcluster.node_registration import LEASE_SECONDS, register_node, renew_lease
from muster.devcluster.pace import Pace
from muster.devcluster.pod_status import (
    SIGKILL_EXIT_CODE,
    SIGTERM_EXIT_CODE,
    ContainerEnd,
    containers_of,
    ended,
    rejected,
    requests_of,
    running,
)
from muster.devcluster.virtual_application import EXIT_CODE, RUN_SECONDS
from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import CONFIG_MAPS, PODS
from muster.kube.list_watch import Deleted, ListWatch, Synced, WatchedEvent
from muster.kube.objects import Pod, Present
from muster.kube.timestamps import format_time

VOLUME_RETRY_SECONDS = (0.1, 2.0)
"""First and longest wait for a missing ConfigMap, real time; retried for as long as the pod exists."""
DEFAULT_GRACE_SECONDS = 30

_POD_STATUS = PODS.decoding_to(Present)
_ENDED = ("Succeeded", "Failed")


class RunningPod(msgspec.Struct, frozen=True):
    """What the program in a pod can know."""

    pod: Pod
    address: str
    terminate: asyncio.Event
    """Set by SIGTERM."""


Program = Callable[[RunningPod], Awaitable[int]]
"""Plays the main process of a pod; returns its exit code. Cancelled by SIGKILL."""


class VirtualNode:
    """What one node has and gives away."""

    def __init__(self, name: str, allocatable: Resources, number: int, host_ip: str) -> None:
        self.name = name
        self.allocatable = allocatable
        self.host_ip = host_ip
        self.used = Resources()
        self._network = pod_network(number)
        self._last_address = 1

    def lacking(self, requests: Resources) -> str:
        """The first resource that such a pod would overcommit, ``""`` when it fits."""
        for name, amount in requests.amounts:
            if self.used.get(name) + amount > self.allocatable.get(name):
                return name
        return ""

    def next_address(self) -> str:
        self._last_address = self._last_address % 254 + 1
        return f"{self._network}.{self._last_address}"


class VirtualKubelets:
    """Use as an async context manager; ``programs`` chooses what a pod does (``None``: end after its annotation)."""

    def __init__(
        self,
        client: Client,
        pools: Iterable[NodePool],
        pace: Pace,
        programs: Callable[[Pod], Program | None] = lambda pod: None,
        *,
        concurrent_calls: int = 16,
    ) -> None:
        self._client = client
        self._pools = tuple(map(virtual, pools))
        self._pace = pace
        self._programs = programs
        self._calls = asyncio.Semaphore(concurrent_calls)
        self._pods: dict[str, _PodRun] = {}
        self._config_maps: set[tuple[str, str]] = set()
        """Namespace and name of those that were there once: names made by Spark are never used twice."""
        self._background: set[asyncio.Task[None]] = set()
        self.nodes: dict[str, VirtualNode] = {}
        self.started = 0
        """Pods that ran."""
        self.rejected: Counter[str] = Counter()
        """Pods refused at the node's door, by reason: any is an overcommitted node that a scheduler wanted."""
        self.overcommitted_nodes: set[str] = set()
        self.running = 0
        self.most_running = 0
        self.problems: list[str] = []
        """Calls that failed for good, for people."""

    async def __aenter__(self) -> Self:
        await self._register()
        self._spawn(self._watch())
        self._spawn(self._renew_leases())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    @property
    def node_names(self) -> list[str]:
        return list(self.nodes)

    # --- nodes -----------------------------------------------------------------------------------------------------

    async def _register(self) -> None:
        now = format_time(self._client.clock.time())
        number = 0
        objects: list[dict[str, Any]] = []
        for pool in self._pools:
            objects += node_objects(pool, now, number)
            number += pool.count
        await asyncio.gather(*(self._register_node(obj, index) for index, obj in enumerate(objects)))
        self.nodes = {obj["metadata"]["name"]: self.nodes[obj["metadata"]["name"]] for obj in objects}

    async def _register_node(self, obj: dict[str, Any], number: int) -> None:
        async with self._calls:
            await register_node(self._client, obj)
        status, name = obj["status"], obj["metadata"]["name"]
        allocatable = Resources.parse(status["allocatable"])
        self.nodes[name] = VirtualNode(name, allocatable, number, status["addresses"][0]["address"])

    async def _renew_leases(self) -> None:
        while True:
            await self._client.clock.sleep(LEASE_SECONDS / 4)
            for name in list(self.nodes):
                await self._attempt(renew_lease(self._client, name))

    # --- pods ------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        await ListWatch(self._client, PODS).run(self._on_event)

    def _on_event(self, event: WatchedEvent[Pod]) -> None:
        if isinstance(event, Synced):
            return
        if isinstance(event, Deleted):
            run = self._pods.pop(event.uid, None)
            if run is not None and run.task is not None:
                run.task.cancel()
            return
        pod = event.object
        if pod.spec.node_name not in self.nodes:
            return
        run = self._pods.get(pod.metadata.uid)
        if run is None:
            run = self._pods[pod.metadata.uid] = _PodRun(pod)
            if pod.status.phase in _ENDED:
                run.stopped = True
            else:
                run.task = self._spawn(self._run(run))
        if pod.metadata.deletion_timestamp is not None:
            run.terminate.set()
            if run.stopped:
                self._release_later(run)

    async def _run(self, run: _PodRun) -> None:
        """The life of one pod on its node."""
        node = self.nodes[run.pod.spec.node_name]
        requests = requests_of(run.pod)
        lacking = node.lacking(requests)
        if lacking:
            await self._attempt(self._reject(run.pod, node, lacking, requests))
        elif not run.terminate.is_set():
            await self._attempt(self._live(run, node, requests))
        run.stopped = True
        if run.terminate.is_set():
            self._release_later(run)

    async def _live(self, run: _PodRun, node: VirtualNode, requests: Resources) -> None:
        node.used += requests
        try:
            end = await self._until_its_end(run, node)
        finally:
            node.used -= requests
        if end is not None:  # told when the room is free: whoever hears of it may use it at once
            await self._report(run.pod, end)

    async def _until_its_end(self, run: _PodRun, node: VirtualNode) -> dict[str, Any] | None:
        """The pod's last status; ``None`` when it was deleted before it could begin."""
        if not await self._mount(run):
            return None
        pod, address = run.pod, node.next_address()
        containers = containers_of(pod)
        started = self._now()
        self.started += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self._report(pod, running(containers, address, node.host_ip, started))
            code = await self._exit_code(RunningPod(pod, address, run.terminate))
        finally:
            self.running -= 1
        ends = {name: ContainerEnd(code, self._now()) for name, _ in containers}
        return ended(containers, ends, started)

    async def _mount(self, run: _PodRun) -> bool:
        """Waits until the pod's ConfigMaps exist; whether they do (not when it was deleted before)."""
        namespace = run.pod.metadata.namespace
        wait, longest = VOLUME_RETRY_SECONDS
        for volume in run.pod.spec.volumes:
            name = volume.config_map.name if volume.config_map is not None else ""
            while name and (namespace, name) not in self._config_maps:
                try:
                    async with self._calls:
                        await self._client.get(CONFIG_MAPS.decoding_to(Present), name, namespace)
                    self._config_maps.add((namespace, name))
                except ApiError as error:
                    if not error.not_found:
                        raise
                    if run.terminate.is_set():
                        return False
                    await self._client.clock.sleep(wait)
                    wait = min(2 * wait, longest)
        return True

    async def _exit_code(self, pod: RunningPod) -> int:
        """Until its program ends; after SIGTERM within the grace period."""
        program = self._programs(pod.pod) or self._timed
        process = asyncio.ensure_future(program(pod))
        terminated = asyncio.ensure_future(pod.terminate.wait())
        try:
            await asyncio.wait((process, terminated), return_when=asyncio.FIRST_COMPLETED)
            if not process.done():
                grace = pod.pod.spec.termination_grace_period_seconds
                seconds = DEFAULT_GRACE_SECONDS if grace is None else grace
                await asyncio.wait((process,), timeout=self._pace.real(seconds))
            return process.result() if process.done() else SIGKILL_EXIT_CODE
        finally:
            for task in (process, terminated):
                task.cancel()
            await asyncio.gather(process, terminated, return_exceptions=True)

    async def _timed(self, pod: RunningPod) -> int:
        """A program that ends after the annotated time, or never."""
        annotations = pod.pod.metadata.annotations
        text = annotations.get(RUN_SECONDS)
        try:
            async with asyncio.timeout(None if text is None else self._pace.real(float(text))):
                await pod.terminate.wait()
        except TimeoutError:
            return int(annotations.get(EXIT_CODE, "0"))
        return SIGTERM_EXIT_CODE

    async def _reject(self, pod: Pod, node: VirtualNode, lacking: str, requests: Resources) -> None:
        reason = f"OutOf{lacking}"
        self.rejected[reason] += 1
        self.overcommitted_nodes.add(node.name)
        message = (
            f"Node didn't have enough resource: {lacking}, requested: {requests.get(lacking)}, "
            f"used: {node.used.get(lacking)}, capacity: {node.allocatable.get(lacking)}"
        )
        await self._report(pod, rejected(reason, message, self._now()))

    async def _report(self, pod: Pod, status: dict[str, Any]) -> None:
        meta = pod.metadata
        async with self._calls:
            await self._client.patch(
                _POD_STATUS,
                meta.name,
                {"metadata": {"uid": meta.uid}, "status": status},
                meta.namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )

    def _release_later(self, run: _PodRun) -> None:
        """The last delete, which makes the object go. An ended pod that nobody deletes stays."""
        if not run.released:
            run.released = True
            self._spawn(self._attempt(self._release(run.pod)))

    async def _release(self, pod: Pod) -> None:
        meta = pod.metadata
        async with self._calls:
            await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid, grace_period_seconds=0)

    async def _attempt(self, call: Awaitable[None]) -> None:
        """A pod that is gone needs no report; other failures are kept for people."""
        try:
            await call
        except ApiError as error:
            if not error.not_found:
                self.problems.append(str(error))

    def _now(self) -> str:
        return format_time(self._client.clock.time())

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


class _PodRun:
    """A pod that a kubelet has taken on."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.terminate = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.stopped = False
        """Nothing of it runs any more."""
        self.released = False
