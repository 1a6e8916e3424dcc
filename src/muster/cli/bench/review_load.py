"""Admission reviews at a fixed rate, as API servers send them: keep-alive TLS, and never waiting for the last answer.

A process of its own (``python -m muster.cli.bench.review_load``). Some applications at a time lose executors and get
as many new ones; each review is sent at its scheduled moment, and its latency counts from there, so that a slow
answer is not made up for by a later question. The pods admitted appear in the stand-in's watch. Told to repeat, it asks
about executors that are there already, and nothing changes any more: what is left is the reviews alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec

from muster.cli.bench.api_server_standin import Admitted, Happened
from muster.cli.bench.large_cluster import LargeApplication, LargeCluster
from muster.control.process import event_loop

AT_ONCE = 30
"""Applications that get executors at the same time."""
BURST = 20
"""Executors that one of them gets."""
REST = 2.0
"""Seconds between the first ends of executors and the first new ones; later on a burst's length lies between them."""
TELL_EVERY = 0.02
CONNECTIONS = 8


class Review(msgspec.Struct, frozen=True, array_like=True):
    """One review; seconds of ``time.monotonic``."""

    due: float
    latency: float
    answer: str
    """bind, pin, hold, or what went wrong."""


class _Answer(msgspec.Struct):
    class _Response(msgspec.Struct):
        allowed: bool
        patch: bytes = b"[]"

    response: _Response


class Load:
    def __init__(
        self, cluster: LargeCluster, http: aiohttp.ClientSession, target: str, standin: str, seed: int
    ) -> None:
        self._cluster = cluster
        self._http = http
        self._target = target
        self._standin = standin
        self._chance = random.Random(seed)
        self._executors = {app.number: list(range(1, app.executors + 1)) for app in cluster.applications}
        self._next = {app.number: app.executors + 1 for app in cluster.applications}
        self._busy: set[int] = set()
        self._admitted: list[Admitted] = []
        self._ended: list[tuple[int, int]] = []
        self._repeats = False
        self.reviews: list[Review] = []

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Until ``stop``, and until every answer is there."""
        teller = asyncio.create_task(self._tell())
        asked: set[asyncio.Task[None]] = set()
        due = time.monotonic() + REST
        turns = self._in_turn()
        while True:
            app, executor, body = self._again() if self._repeats else next(turns)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._ask(app, executor, body, due))
            asked.add(task)
            task.add_done_callback(asked.discard)
            if stop.is_set():
                break
        await asyncio.gather(*asked)
        teller.cancel()
        await asyncio.gather(teller, return_exceptions=True)

    def repeat(self) -> None:
        """From now on ask about executors that are there."""
        self._repeats = True

    def _again(self) -> tuple[LargeApplication, int, bytes]:
        while True:
            app = self._chance.choice(self._cluster.applications)
            if app.number not in self._busy and self._executors[app.number]:
                executor = self._chance.choice(self._executors[app.number])
                return app, executor, app.review(executor)

    def _in_turn(self) -> Iterator[tuple[LargeApplication, int, bytes]]:
        """Executors to ask about, the applications of the moment in turn."""
        at_once = min(AT_ONCE, max(1, len(self._cluster.applications) // 4))
        waves, preparing = ([self._begin() for _ in range(at_once)] for _ in range(2))
        for position, (_, new) in enumerate(waves):
            del new[1 + len(new) * position // at_once :]  # they began at different times
        while True:
            for position in range(at_once):
                app, new = waves[position]
                if not new:
                    self._busy.discard(app.number)
                    waves[position], preparing[position] = preparing[position], self._begin()
                    app, new = waves[position]
                executor = new.pop(0)
                yield app, executor, app.review(executor)

    def _begin(self) -> tuple[LargeApplication, list[int]]:
        """Some application loses executors, and will get others."""
        while True:
            app = self._chance.choice(self._cluster.applications)
            if app.number not in self._busy:
                break
        self._busy.add(app.number)
        living = self._executors[app.number]
        count = min(BURST, len(living))
        self._ended += [(app.number, executor) for executor in living[:count]]
        first = self._next[app.number]
        new = list(range(first, first + count))
        self._next[app.number] += count
        self._executors[app.number] = living[count:] + new
        return app, new

    async def _ask(self, app: LargeApplication, executor: int, body: bytes, due: float) -> None:
        try:
            async with self._http.post(self._target, data=body, headers={"Content-Type": "application/json"}) as got:
                text = await got.read()
            latency = time.monotonic() - due
            patch: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.decode(text, type=_Answer).response.patch)
        except (aiohttp.ClientError, msgspec.MsgspecError, TimeoutError) as error:
            self.reviews.append(Review(due, time.monotonic() - due, f"{type(error).__name__}: {error}"))
            return
        notes: dict[str, str] = next((step["value"] for step in patch if step["path"] == "/metadata/annotations"), {})
        node = notes.get("muster.dev/slot", "")
        self.reviews.append(Review(due, latency, notes.get("muster.dev/mode", "untouched")))
        if not self._repeats:
            self._admitted.append(Admitted(app.number, executor, node, notes.get("muster.dev/extra") == "true"))

    async def _tell(self) -> None:
        while True:
            if self._admitted or self._ended:
                news = Happened(self._admitted, self._ended)
                self._admitted, self._ended = [], []
                async with self._http.post(f"{self._standin}/bench/happened", data=msgspec.json.encode(news)):
                    pass
            await asyncio.sleep(TELL_EVERY)


async def _run(arguments: argparse.Namespace) -> None:
    """Until standard input ends; a line there says to repeat.

    Says when it begins, and at the end gives the reviews as JSON, on standard output.
    """
    cluster = LargeCluster(arguments.nodes, arguments.pods, arguments.applications, arguments.seed)
    given = msgspec.json.decode(sys.stdin.readline())
    print("{}", flush=True)
    tls = ssl.create_default_context(cadata=given["authorities"])
    connector = aiohttp.TCPConnector(ssl=tls, limit=CONNECTIONS)
    gc.freeze()
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as http:
        load = Load(cluster, http, given["target"], given["standin"], arguments.seed)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def listen() -> None:
            for _ in sys.stdin:
                loop.call_soon_threadsafe(load.repeat)

        loop.run_in_executor(None, listen).add_done_callback(lambda _: stop.set())
        await load.run(arguments.rate, stop)
    print(msgspec.json.encode(load.reviews).decode(), flush=True)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    for _size in ("nodes", "pods", "applications", "seed"):
        _parser.add_argument(f"--{_size}", type=int, required=True)
    _parser.add_argument("--rate", type=float, required=True)
    with asyncio.Runner(loop_factory=event_loop()) as _runner:
        _runner.run(_run(_parser.parse_args()))
