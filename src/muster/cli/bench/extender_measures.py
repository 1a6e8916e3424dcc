"""The measurements of ``muster bench extender``: calls over HTTPS, one after the other, as kube-scheduler makes them.

The extender runs in a process of its own (``extender_server``) with a busy cluster of as many nodes as are named in
each call. Wall times are the client's, from the call to its last byte; CPU times are the kernel's of the extender's
process, over all calls of a kind. Reservations are kept in memory: what writes them back is no part of a call.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from muster.cli.bench.extender_server import node_names, spark_pod
from muster.kube.certificates import make_authority, make_serving

PodBody = dict[str, Any]

WARM_UP = 5
"""Calls before the figures count."""
HTTP_BUDGET_MS = 1.5
INFEASIBLE_BUDGET_MS = 3.0
BUDGET_NODES = 5000


class Calls(msgspec.Struct, frozen=True):
    """One kind of call at one number of nodes. Milliseconds."""

    nodes: int
    kind: str
    count: int
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """Of the extender, per call."""
    http_cpu_ms: float
    """Of that: HTTP, TLS and JSON, without the answer's own."""
    request_kb: float
    answer_kb: float

    @property
    def budget_ms(self) -> float | None:
        """Of ``cpu_ms``."""
        return INFEASIBLE_BUDGET_MS if self.kind == INFEASIBLE and self.nodes <= BUDGET_NODES else None

    @property
    def within_budget(self) -> bool:
        over = self.budget_ms is not None and self.cpu_ms > self.budget_ms
        return not over and (self.nodes > BUDGET_NODES or self.http_cpu_ms <= HTTP_BUDGET_MS)


FITS = "driver that fits, 1 + 20"
INFEASIBLE = "driver, executors larger than any node"
SLOT = "executor to its own slot"
EXTRA = "extra executor"


async def measure(nodes: Sequence[int], calls: int) -> list[Calls]:
    """Every kind of call at each number of nodes."""
    return [each for count in nodes for each in await _measure_at(count, calls)]


async def _measure_at(nodes: int, calls: int) -> list[Calls]:
    async with _server(nodes) as port, aiohttp.ClientSession() as http:
        bench = _Bench(http, f"https://127.0.0.1:{port}", nodes)
        total = calls + WARM_UP
        await bench.ask(spark_pod("first", "first", "driver"))
        await bench.catch_up()
        drivers = [spark_pod(f"fit-{each}", f"fit-{each}", "driver") for each in range(total)]
        found = [await bench.run(FITS, drivers)]
        huge = [spark_pod(f"huge-{each}", f"huge-{each}", "driver", cpu="65") for each in range(total)]
        found.append(await bench.run(INFEASIBLE, huge))
        # one application of as many executors as calls: half of them in slots, then as many above the minimum
        big = spark_pod("big-driver", "big", "driver", minimum=total, maximum=2 * total)
        await bench.ask(big)
        await bench.tell([{**big, "spec": {**big["spec"], "nodeName": node_names(nodes)[0]}}])  # type: ignore[dict-item]
        own = [spark_pod(f"own-{each}", "big", "executor") for each in range(total)]
        found.append(await bench.run(SLOT, own, forget=False))
        extra = [spark_pod(f"extra-{each}", "big", "executor") for each in range(total)]
        found.append(await bench.run(EXTRA, extra, forget=False))
        return found


class _Bench:
    def __init__(self, http: aiohttp.ClientSession, url: str, nodes: int) -> None:
        self._http = http
        self._url = url
        self._nodes = nodes
        self._names = msgspec.json.encode(node_names(nodes)).decode()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    async def run(self, kind: str, pods: Sequence[PodBody], *, forget: bool = True) -> Calls:
        bodies = [self._body(pod) for pod in pods]
        for body in bodies[:WARM_UP]:
            await self._post("/spark-scheduler/predicates", body)
        cpu, answers = await self._cpu()
        seconds, sizes = [], []
        for body in bodies[WARM_UP:]:
            begun = time.perf_counter()
            sizes.append(len(await self._post("/spark-scheduler/predicates", body)))
            seconds.append(time.perf_counter() - begun)
        cpu_after, answers_after = await self._cpu()
        if forget:
            await self._post("/bench/forget", msgspec.json.encode(pods))
        count = len(seconds)
        spent, answered = (cpu_after - cpu) / count, (answers_after - answers) / count
        quantiles = statistics.quantiles(seconds, n=100, method="inclusive") if count > 1 else seconds * 99
        return Calls(
            nodes=self._nodes,
            kind=kind,
            count=count,
            p50_ms=round(quantiles[49] * 1e3, 2),
            p99_ms=round(quantiles[98] * 1e3, 2),
            cpu_ms=round(spent * 1e3, 2),
            http_cpu_ms=round((spent - answered) * 1e3, 2),
            request_kb=round(len(bodies[0]) / 1e3, 1),
            answer_kb=round(statistics.mean(sizes) / 1e3, 1),
        )

    async def ask(self, pod: PodBody) -> None:
        await self._post("/spark-scheduler/predicates", self._body(pod))

    async def tell(self, pods: Sequence[PodBody]) -> None:
        await self._post("/bench/pods", msgspec.json.encode(pods))

    async def catch_up(self) -> None:
        await self._post("/bench/catch-up", b"{}")

    def _body(self, pod: PodBody) -> bytes:
        return f'{{"Pod":{msgspec.json.encode(pod).decode()},"Nodes":null,"NodeNames":{self._names}}}'.encode()

    async def _post(self, path: str, body: bytes) -> bytes:
        async with self._http.post(self._url + path, data=body, ssl=self._tls) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def _cpu(self) -> tuple[float, float]:
        async with self._http.get(f"{self._url}/bench/cpu", ssl=self._tls) as answer:
            whole, answers = msgspec.json.decode(await answer.read())
            return whole, answers


@asynccontextmanager
async def _server(nodes: int) -> AsyncIterator[int]:
    """The port of an extender with a cluster of so many nodes."""
    now = datetime.now(UTC)
    pair = make_serving(make_authority(now, timedelta(days=1)), ["127.0.0.1"], now, timedelta(days=1))
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        await asyncio.to_thread(certificate.write_bytes, pair.certificate)
        await asyncio.to_thread(key.write_bytes, pair.key)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "muster.cli.bench.extender_server"),
            *("--nodes", str(nodes), "--certificate", str(certificate), "--key", str(key)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            line = await process.stdout.readline()
            if not line:
                raise RuntimeError(f"the extender of the measurement ended early, with code {await process.wait()}")
            yield int(line)
        finally:
            process.stdin.close()
            await process.wait()
