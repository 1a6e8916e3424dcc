"""The demo's course: cluster, service, onlooker, submissions, and the report when everything has ended."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from muster.cli.demo import real
from muster.cli.demo.cluster import NAMESPACE, executor_requests, node_pools, virtual_application
from muster.cli.demo.measure import Expected, Measurement, Outcome, Progress
from muster.cli.demo.onlooker import Onlooker
from muster.cli.demo.report import Report, build_report
from muster.cli.demo.screen import Screen
from muster.cli.demo.view import Picture
from muster.cli.demo.workload import PACE, PlannedApplication, build
from muster.cli.demo.writes import Request, Writes, count_writes
from muster.cli.embedded import SYSTEM_NAMESPACE, ServiceProcess, install
from muster.devcluster.cluster import DevCluster
from muster.kube.client import Client
from muster.kube.errors import ApiError

_FRAME_S = 0.25
_STILL_S = 120.0
"""Without any change in the cluster for so long, the demo ends and reports what it has."""


class Options(msgspec.Struct, frozen=True):
    nodes: int
    seed: int
    speed: float
    applications: int | None
    """Virtual applications to play; ``None``: all."""
    spark: bool
    """Run the two real applications too, where Java allows it."""


async def play(options: Options, screen: Screen) -> Report:
    """Run the whole demo. Raises ``Failure`` when it cannot even begin."""
    spark_home = await _spark_home(screen) if options.spark else None
    async with AsyncExitStack() as stack:
        cluster = DevCluster(
            node_pools(options.nodes),
            speed=PACE * options.speed,
            processes=spark_home is not None,
            namespaces=(NAMESPACE, SYSTEM_NAMESPACE),
        )
        await stack.enter_async_context(cluster)
        await install(cluster.client)
        service = await stack.enter_async_context(ServiceProcess(cluster.folder, cluster.kubeconfig))
        screen.note(f"The API server is {cluster.api.url}, muster serve is process {service.pid}.")
        watcher = await stack.enter_async_context(Client(cluster.access, user_agent="onlooker"))
        return await _Demo(options, screen, cluster, service, watcher, spark_home is not None).run()


async def _spark_home(screen: Screen) -> Path | None:
    """Real Spark if it can run here, installed first where it must be; says why not."""
    problem = await asyncio.to_thread(real.missing)
    if not problem:
        found = await real.install(screen.note)
        if isinstance(found, Path):
            return found
        problem = found
    screen.note(f"Without the two real Spark applications: {problem}.")
    return None


class _Demo:
    """One run, from the first submission to the report."""

    def __init__(
        self,
        options: Options,
        screen: Screen,
        cluster: DevCluster,
        service: ServiceProcess,
        watcher: Client,
        with_spark: bool,
    ) -> None:
        self._screen = screen
        self._cluster = cluster
        self._service = service
        self._planned = build(options.seed, options.applications)
        self._real = real.real_jobs() if with_spark else ()
        self._pace = PACE * options.speed
        self._submitted: dict[str, float] = {}
        expected = [Expected(one.name, one.minimum, executor_requests(one)) for one in self._planned]
        everybody = [*expected, *(one.expected for one in self._real)]
        self._onlooker = Onlooker(watcher, everybody, self._submitted, service.away)
        self._headlines: dict[str, str] = {one.job.name: "" for one in self._real}
        self._restarts = 0

    async def run(self) -> Report:
        watching = asyncio.create_task(self._onlooker.run(), name="onlooker")
        tasks = [watching]
        try:
            await self._until_watching(watching)
            begun = time.monotonic()
            tasks += [asyncio.create_task(self._submit(one, begun), name=one.name) for one in self._planned]
            tasks += [asyncio.create_task(self._submit_real(one), name=one.job.name) for one in self._real]
            await self._until_ended(begun, tasks)
            seconds = time.monotonic() - begun
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        measured = self._onlooker.conclude()
        self._tell_findings(measured)
        writes = self._writes()
        return build_report(measured, writes.total, writes.created, seconds)

    async def _until_watching(self, watching: asyncio.Task[None]) -> None:
        ready = asyncio.create_task(self._onlooker.ready.wait())
        await asyncio.wait([ready, watching], return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            ready.cancel()
            watching.result()

    async def _submit(self, planned: PlannedApplication, begun: float) -> None:
        await asyncio.sleep(max(0.0, begun + planned.submit_s / self._pace - time.monotonic()))
        self._submitted[planned.name] = time.monotonic()
        try:
            await self._cluster.submit(virtual_application(planned))
        except ApiError as error:
            self._screen.note(f"{planned.name} could not be submitted: {error}")

    async def _submit_real(self, one: real.RealJob) -> None:
        name = one.job.name
        self._headlines[name] = f"{name}: spark-submit is starting"
        try:
            result = await self._cluster.submit_real(one.job)
        except TimeoutError:
            self._headlines[name] = f"{name}: spark-submit did not end in time"
        else:
            self._headlines[name] = f"{name}: spark-submit ended with exit code {result.exit_code}"
            if result.exit_code != 0:
                self._tell_log(name, result.driver_pod, result.output)
                return
        self._screen.note(self._headlines[name])

    async def _until_ended(self, begun: float, tasks: list[asyncio.Task[None]]) -> None:
        """Draw, and look whether every application has ended or can never start."""
        seen, changed = -1, time.monotonic()
        while True:
            await asyncio.sleep(_FRAME_S)
            self._raise_failures(tasks[0])
            measured = self._onlooker.settle()
            now = time.monotonic()
            self._screen.show(measured, self._picture(now, begun))
            submissions = tasks[1:]
            if all(task.done() for task in submissions) and all(map(_is_over, measured.applications.values())):
                return
            if self._onlooker.seen != seen:
                seen, changed = self._onlooker.seen, now
            elif now - changed > _STILL_S:
                self._screen.note(f"Nothing has changed in the cluster for {_STILL_S:.0f} s; this is how it stands.")
                return

    def _raise_failures(self, watching: asyncio.Task[None]) -> None:
        if watching.done():
            watching.result()
        self._service.check()
        if self._service.restarts > self._restarts:
            self._restarts = self._service.restarts
            self._screen.note(f"muster serve had ended and was started again, now process {self._service.pid}.")

    def _picture(self, now: float, begun: float) -> Picture:
        headline = " · ".join(filter(None, self._headlines.values()))
        return Picture(now, now - begun, self._onlooker.zones, self._writes().per_pod, headline)

    def _writes(self) -> Writes:
        rows = self._cluster.api.audit.rows()
        return count_writes(
            Request(str(row["verb"]), str(row["resource"]), int(row["count"])) for row in rows if int(row["code"]) < 400
        )

    def _tell_findings(self, measured: Measurement) -> None:
        """What must never happen, by name."""
        for one in measured.partial:
            self._screen.note(f"partial gang: {one.expected.name}: {one.partial}")
        for one in measured.unguarded:
            self._screen.note(f"started while muster serve was away: {one.expected.name}: {one.partial}")
        for node, what in measured.overcommitted.items():
            self._screen.note(f"overcommitted node: {node}: {what}")
        for problem in self._cluster.counters().problems:
            self._screen.note(f"cluster: {problem}")

    def _tell_log(self, name: str, driver_pod: str, submission: str) -> None:
        self._screen.note(f"{self._headlines[name]}; the end of its logs:")
        kubelet = self._cluster.process_kubelet
        driver = kubelet.tail(NAMESPACE, driver_pod) if kubelet is not None and driver_pod else ""
        for text in ("\n".join(submission.splitlines()[-15:]), driver):
            if text:
                self._screen.note(text)


def _is_over(progress: Progress) -> bool:
    return progress.ended is not None or progress.outcome is Outcome.TOO_LARGE
