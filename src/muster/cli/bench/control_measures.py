"""The measurements of ``muster bench control``: the real ``muster serve`` process against a large cluster's stand-in.

First its restart: CPU time and memory until it releases a driver that waits in the list. Then reviews at a fixed rate
while their pods come and go in the watch, first in peace, then while everything is listed again because the watches
were cut as outdated; last reviews alone. Three processes: ``api_server_standin``, ``muster serve``, ``review_load``.
Latencies are wall time from the scheduled moment of a review; of each quantile the median over windows counts, so that
one stumble of a shared machine does not decide. CPU time and memory are the kernel's figures of the process.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import statistics
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

from muster.cli.bench.review_load import Review

WARM_UP = 5.0
"""Seconds of load before the figures count."""
WINDOW = 5.0
"""Seconds of one window in peace; a relist is a window of its own."""
ALONE = 10.0
"""Seconds of reviews alone, at most."""
LEAST_WINDOW = 1.0
BETWEEN_RELISTS = 3.0
PATIENCE = 300.0
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 2**20
_STANDIN, _LOAD = "muster.cli.bench.api_server_standin", "muster.cli.bench.review_load"


class Sizes(msgspec.Struct, frozen=True):
    nodes: int
    pods: int
    applications: int
    seed: int

    def options(self) -> list[str]:
        return [f"--{name}={value}" for name, value in msgspec.structs.asdict(self).items()]


class Restart(msgspec.Struct, frozen=True):
    cpu_s: float
    """Of ``muster serve``, from its start until it released the waiting driver."""
    ready_s: float
    """Wall time until it was synced."""
    decided_s: float
    """Wall time until the first decision."""
    peak_mib: float


class Reviews(msgspec.Struct, frozen=True):
    """The answers in one or more windows; quantiles are medians over these."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    answers: dict[str, int]
    cpu_s_per_1000: float
    """CPU seconds of ``muster serve`` per 1,000 reviews, with whatever else it did meanwhile."""


class Report(msgspec.Struct, frozen=True):
    nodes: int
    pods: int
    applications: int
    rate: float
    restart: Restart
    steady: Reviews
    relist: Reviews
    alone: Reviews
    """Reviews of pods that are there already, while the watches are calm."""
    relist_s: tuple[float, ...]
    """From each cut of the watches until the next ones began."""
    peak_mib: float
    """Of the whole run."""
    writes: dict[str, int]
    """What Muster wrote, by verb and resource."""


class Figure(msgspec.Struct, frozen=True):
    """One line of the table."""

    name: str
    value: float
    unit: str
    budget: float | None = None

    @property
    def within_budget(self) -> bool:
        return self.budget is None or self.value <= self.budget


class Window(msgspec.Struct, frozen=True):
    """A stretch of ``time.monotonic``, and the CPU seconds that Muster spent in it."""

    began: float
    ended: float
    cpu: float


def figures(report: Report) -> list[Figure]:
    """What counts, beside the budgets of docs/architecture.md."""
    restart, steady, relist = report.restart, report.steady, report.relist
    return [
        Figure("restart: CPU until the first decision", restart.cpu_s, "s", 10),
        Figure("restart: peak memory", restart.peak_mib, "MiB", 600),
        Figure("restart: synced after", restart.ready_s, "s"),
        Figure("restart: first decision after", restart.decided_s, "s"),
        Figure("review: p50", steady.p50_ms, "ms"),
        Figure("review: p99", steady.p99_ms, "ms", 5),
        Figure("review: CPU per 1,000, with the pods' whole lives in the watch", steady.cpu_s_per_1000, "s"),
        Figure("review: CPU per 1,000, reviews alone", report.alone.cpu_s_per_1000, "s", 0.5),
        Figure("review during a relist: p50", relist.p50_ms, "ms"),
        Figure("review during a relist: p99", relist.p99_ms, "ms", 10),
        Figure("relist: took", statistics.median(report.relist_s), "s"),
        Figure("whole run: peak memory", report.peak_mib, "MiB"),
    ]


class Process:
    """A process of the measurement; what the kernel says of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.started = time.monotonic()

    def cpu(self) -> float:
        """User and system seconds so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_mib(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return round(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MIB, 1)

    async def say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()

    def say_no_more(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def hear(self) -> bytes:
        """The next line that it prints."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process of the measurement ended early, with code {await self._process.wait()}")
        return line

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()


class Measurement:
    """The stand-in as seen over HTTP, and Muster running against it."""

    def __init__(self, http: aiohttp.ClientSession, server: str, muster: Process, management_port: int) -> None:
        self._http = http
        self._server = server
        self.muster = muster
        self._management = f"http://127.0.0.1:{management_port}"

    async def restart(self) -> Restart:
        """From the start of Muster until its first decision."""
        ready = asyncio.create_task(self._ready())
        async with self._http.get(f"{self._server}/bench/decided") as answer:
            answer.raise_for_status()
        cpu, peak, decided = self.muster.cpu(), self.muster.peak_mib(), time.monotonic()
        began = self.muster.started
        return Restart(cpu, round(await ready - began, 2), round(decided - began, 2), peak)

    async def webhook(self) -> dict[str, str]:
        """Where the webhook is, and what to verify it against."""
        found: dict[str, str] = await self._ask("/bench/webhook")
        return found

    async def writes(self) -> dict[str, int]:
        found: dict[str, int] = await self._ask("/bench/writes")
        return found

    async def peace(self, seconds: float) -> list[Window]:
        windows = max(1, round(seconds / WINDOW))
        return [await self._window(asyncio.sleep(seconds / windows)) for _ in range(windows)]

    async def relists(self, count: int) -> tuple[list[Window], list[float]]:
        """The windows, and how long each relist took; a window is at least as long as it takes to ask something."""
        windows, took = [], []

        async def relist() -> None:
            began = time.monotonic()
            url = self._server
            async with self._http.post(f"{url}/bench/expire"), self._http.get(f"{url}/bench/watched"):
                took.append(round(time.monotonic() - began, 2))

        for _ in range(count):
            windows.append(await self._window(asyncio.gather(relist(), asyncio.sleep(LEAST_WINDOW))))
            await asyncio.sleep(BETWEEN_RELISTS)
        return windows, took

    async def _window(self, meanwhile: Any) -> Window:
        began, cpu = time.monotonic(), self.muster.cpu()
        await meanwhile
        return Window(began, time.monotonic(), self.muster.cpu() - cpu)

    async def _ready(self) -> float:
        """When it said so."""
        while True:
            try:
                async with self._http.get(f"{self._management}/readyz") as answer:
                    if answer.status == 200:
                        return time.monotonic()
            except aiohttp.ClientError:
                pass  # not listening yet
            await asyncio.sleep(0.1)

    async def _ask(self, path: str) -> Any:
        async with self._http.get(self._server + path) as answer:
            answer.raise_for_status()
            return await answer.json()


class _Place(msgspec.Struct, frozen=True):
    server: str
    authority: bytes


class Plan(msgspec.Struct, frozen=True):
    """What is to be measured."""

    rate: float
    """Reviews a second."""
    seconds: float
    """In peace."""
    relists: int
    realtime: bool
    """Give the processes real-time priority: on a machine shared with others, latencies are theirs else.

    The stand-in gets a lower one than those who are measured and who measure.
    """

    def priority(self, rank: int) -> int:
        return rank if self.realtime else 0


async def measure(sizes: Sizes, plan: Plan, log: Path | None) -> Report:
    """All of it; ``log`` keeps what ``muster serve`` logs.

    Raises ``PermissionError`` when real-time priority is asked for and not allowed.
    """
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        async with _running(["-m", _STANDIN, *sizes.options()], priority=plan.priority(1)) as standin:
            place = msgspec.json.decode(await standin.hear(), type=_Place)
            port = _free_port()
            config = _configuration(Path(folder), place, port)
            tls = ssl.create_default_context(cadata=place.authority.decode())
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=tls), timeout=aiohttp.ClientTimeout(total=PATIENCE)
                ) as http,
                _running(
                    ["-m", "muster.cli.main", "serve", "--config", str(config)],
                    priority=plan.priority(2),
                    log=log or Path(folder, "muster.log"),
                ) as muster,
            ):
                measurement = Measurement(http, place.server, muster, port)
                return await _measure(measurement, place, sizes, plan)


async def _measure(measurement: Measurement, place: _Place, sizes: Sizes, plan: Plan) -> Report:
    restart = await measurement.restart()
    webhook = await measurement.webhook()
    trusted = place.authority + b64decode(webhook["caBundle"])
    given = {"target": webhook["url"], "standin": place.server, "authorities": trusted.decode()}
    options = [*sizes.options(), f"--rate={plan.rate}"]
    async with _running(["-m", _LOAD, *options], priority=plan.priority(2)) as load:
        await load.say(msgspec.json.encode(given))
        await load.hear()
        await asyncio.sleep(WARM_UP)
        peace = await measurement.peace(plan.seconds)
        trouble, took = await measurement.relists(plan.relists)
        await load.say(b"repeat")
        await asyncio.sleep(WARM_UP)
        calm = await measurement.peace(min(ALONE, plan.seconds))
        load.say_no_more()
        reviews = msgspec.json.decode(await load.hear(), type=list[Review])
    return Report(
        nodes=sizes.nodes,
        pods=sizes.pods,
        applications=sizes.applications,
        rate=plan.rate,
        restart=restart,
        steady=summarize(reviews, peace),
        relist=summarize(reviews, trouble),
        alone=summarize(reviews, calm),
        relist_s=tuple(took),
        peak_mib=measurement.muster.peak_mib(),
        writes=await measurement.writes(),
    )


def summarize(reviews: Sequence[Review], windows: Sequence[Window]) -> Reviews:
    """The reviews that were due within the windows."""
    latencies = []
    answers: Counter[str] = Counter()
    for window in windows:
        within = [review for review in reviews if window.began <= review.due < window.ended]
        latencies.append(sorted(review.latency * 1000 for review in within))
        answers.update(review.answer for review in within)
    count = sum(answers.values())
    return Reviews(
        count=count,
        p50_ms=_median_quantile(latencies, 50),
        p99_ms=_median_quantile(latencies, 99),
        max_ms=round(max(window[-1] for window in latencies), 2),
        answers=dict(answers),
        cpu_s_per_1000=round(sum(window.cpu for window in windows) * 1000 / count, 3),
    )


def _median_quantile(windows: Sequence[Sequence[float]], percentile: int) -> float:
    of_windows = [window[min(len(window) - 1, len(window) * percentile // 100)] for window in windows]
    return round(statistics.median(of_windows), 2)


def _configuration(folder: Path, place: _Place, management_port: int) -> Path:
    """``muster.yaml`` and the kubeconfig it names."""
    authority = b64encode(place.authority).decode()
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "clusters": [{"name": "bench", "cluster": {"server": place.server, "certificate-authority-data": authority}}],
        "users": [{"name": "bench", "user": {"token": "bench"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig), encoding="utf-8")
    config = {
        "kubernetes": {"kubeconfig": str(folder / "kubeconfig")},
        "webhook": {"port": 0, "url": "https://127.0.0.1:0/mutate"},
        "management": {"port": management_port},
    }
    path = folder / "muster.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def _running(arguments: Sequence[str], *, priority: int = 0, log: Path | None = None) -> AsyncIterator[Process]:
    """This Python with ``arguments``; with ``log``, its output goes there. ``priority`` above 0 is a real-time one."""
    with (log or Path(os.devnull)).open("wb") as output:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=output if log is not None else asyncio.subprocess.PIPE,
            stderr=output if log is not None else None,
            limit=2**28,
        )
        process = Process(started)
        try:
            if priority:
                os.sched_setscheduler(started.pid, os.SCHED_RR, os.sched_param(priority))
            yield process
        finally:
            await process.end()


def as_json(report: Report) -> str:
    return msgspec.json.format(msgspec.json.encode(report)).decode()


def as_table(report: Report) -> None:
    """Print what was measured beside its budget."""
    from rich.console import Console
    from rich.table import Table

    title = f"muster serve, {report.nodes} nodes, {report.pods} pods, {report.rate:g} reviews/s"
    table = Table(title=title, title_justify="left")
    table.add_column("measurement")
    for heading in ("measured", "budget"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for figure in figures(report):
        budget = "" if figure.budget is None else f"{figure.budget:g} {figure.unit}"
        verdict = "[green]within[/green]" if figure.within_budget else "[red]over[/red]"
        table.add_row(figure.name, f"{figure.value:.2f} {figure.unit}", budget, verdict if budget else "")
    Console().print(table)
