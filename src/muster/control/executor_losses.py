"""What would be lost with an executor, as its driver tells: Spark's monitoring REST API, asked only under pressure.

``GET http://<driver>:4040/api/v1/applications/<id>/executors`` (Spark's "Monitoring and Instrumentation"; 3.5 to 4.3).
A driver that does not answer in time, or whose UI is switched off, secured or elsewhere, leaves the scheduler with what
it knows itself: the age of its pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

import aiohttp
import msgspec
import structlog

from muster.queueing.preemption import ExecutorLoss
from muster.scheduling.model import ApplicationKey

_log = structlog.get_logger("muster.losses")

ASK_SECONDS = 2.0
"""How long an answer may take, from the question to the last byte."""
KEPT_SECONDS = 15.0
"""How long an answer, or that there was none, stands for the next question about the same application."""
AT_ONCE = 8
"""Drivers that are asked at a time."""
MOST_BYTES = 4 * 2**20
"""Of an answer; about 1.5 kB an executor. It comes from a tenant's pod, so it is not trusted to end."""
Losses = tuple[tuple[str, ExecutorLoss], ...]
"""By Spark's executor id."""


class Executor(msgspec.Struct, frozen=True, rename="camel"):
    """``ExecutorSummary`` (``status/api/v1/api.scala``), what is needed of it."""

    id: str
    active_tasks: int = 0
    completed_tasks: int = 0
    failed_tasks: int = 0
    total_duration: int = 0
    """Milliseconds that ended tasks took, all together."""
    total_shuffle_write: int = 0
    """Bytes."""
    rdd_blocks: int = 0
    is_active: bool = True


_decode = msgspec.json.Decoder(list[Executor]).decode


def losses_of(executors: Iterable[Executor]) -> Losses:
    """What goes with each executor that is alive; without those that do not tell enough."""
    known = ((executor.id, loss_of(executor)) for executor in executors if executor.is_active and executor.id.isdigit())
    return tuple([(name, loss) for name, loss in known if loss is not None])


def loss_of(executor: Executor) -> ExecutorLoss | None:
    """Work of ended tasks counts where their output is still there to be lost; running tasks begin anew elsewhere.

    A task takes one core (``spark.task.cpus``). Running ones are taken to have run as long as ended ones took. ``None``
    while none has ended: nothing is known then.
    """
    ended = executor.completed_tasks + executor.failed_tasks
    if executor.active_tasks and not ended:
        return None
    done = executor.total_duration / 1000
    shuffle = executor.total_shuffle_write > 0
    lost = done if shuffle or executor.rdd_blocks else 0.0
    running = executor.active_tasks * done / ended if executor.active_tasks else 0.0
    return ExecutorLoss(round(lost + running, 3), shuffle)


class _Answer(NamedTuple):
    at: float
    losses: Losses


class ExecutorLosses:
    """Asks drivers; ``known`` is called with each answer, never before ``ask`` returns."""

    def __init__(self, known: Callable[[ApplicationKey, Losses], None], clock: Callable[[], float]) -> None:
        self._known = known
        self._clock = clock
        self._answers: dict[ApplicationKey, _Answer] = {}
        self._tasks: dict[ApplicationKey, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._http: aiohttp.ClientSession | None = None

    def ask(self, key: ApplicationKey, address: str, port: int) -> None:
        """Find out about one application; nothing happens while it is being asked already."""
        if key not in self._tasks:
            task = asyncio.create_task(self._ask(key, address, port), name=f"losses of {key}")
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def forget(self, key: ApplicationKey) -> None:
        """The application has ended."""
        self._answers.pop(key, None)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def _ask(self, key: ApplicationKey, address: str, port: int) -> None:
        answer = self._answers.get(key)
        if answer is None or self._clock() - answer.at > KEPT_SECONDS:
            try:
                async with asyncio.timeout(ASK_SECONDS), self._turns:
                    losses = await self._get(key.partition("/")[2], address, port)
            except (OSError, TimeoutError, ValueError, aiohttp.ClientError, msgspec.MsgspecError) as error:
                _log.info("driver tells nothing of its executors", application=key, reason=str(error)[:200])
                losses = ()
            answer = self._answers[key] = _Answer(self._clock(), losses)
        if answer.losses:
            self._known(key, answer.losses)

    async def _get(self, application: str, address: str, port: int) -> Losses:
        if self._http is None:  # neither proxies nor cookies: it is a pod, and pods use addresses again
            self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{port}/api/v1/applications/{application}/executors"
        async with self._http.get(url, allow_redirects=False, headers={"Connection": "close"}) as response:
            if response.status != 200:
                raise ValueError(f"HTTP status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_chunked(2**16):
                body += chunk
                if len(body) > MOST_BYTES:
                    raise ValueError(f"more than {MOST_BYTES} bytes")
        return losses_of(_decode(bytes(body)))
