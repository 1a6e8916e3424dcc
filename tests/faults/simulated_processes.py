"""Several processes in one thread, under one virtual time: each has an event loop of its own.

A process can be paused (nothing of it runs, its timers become overdue, what is sent to it waits, as after SIGSTOP) and
killed (nothing of it reaches anybody any more, its peers see their connections reset, as after SIGKILL). Nothing in it
does real I/O: loops get their connections from ``simulated_network``. Time jumps to the next timer when nobody has
anything to do, so a run depends on its seed alone.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import sys
import threading
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from tests.faults.simulated_network import Connection, Network, SimulatedServer

T = TypeVar("T")

EPOCH = 1_767_225_600.0
"""Unix time at which every simulation begins: 2026-01-01T00:00:00Z."""

STEP_SECONDS = 1e-6
"""What it takes to run what is ready: a timer that lies less than the precision of a float ahead comes, too."""


class Simulation:
    """The one thread, the one time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.network = Network(random.Random(f"{seed} network"), lambda: self.now)
        self.processes: list[Process] = []
        self._order = itertools.count()
        self._actions: list[tuple[float, int, Callable[[], None]]] = []

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Let something happen to the processes, outside all of them."""
        heapq.heappush(self._actions, (max(when, self.now), next(self._order), action))

    def start(self, name: str) -> Process:
        """A new process of this name; it has no tasks yet."""
        lives = sum(1 for process in self.processes if process.name == name)
        process = Process(self, name, random.Random(f"{self.seed} {name} {lives}"))
        self.processes.append(process)
        return process

    def run(self, until: Callable[[], bool], limit: float) -> bool:
        """Let time pass until something holds; ``False`` when it did not within ``limit`` seconds."""
        end = self.now + limit
        while not until():
            while self._actions and self._actions[0][0] <= self.now:
                heapq.heappop(self._actions)[2]()
            busy = [process for process in self.processes if process.runs and process.loop.has_work()]
            for process in busy:
                process.loop.step()
            self.now += STEP_SECONDS
            if not busy:
                timers = [process.loop.next_timer() for process in self.processes if process.runs]
                timers += [when for when, _, _ in self._actions[:1]]
                self.now = min(min(timers, default=end), end)
                if self.now >= end:
                    return until()
        return True

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            process.kill()


class Process:
    """What an operating system would call one."""

    def __init__(self, simulation: Simulation, name: str, luck: random.Random) -> None:
        self.name = name
        self.random = luck
        self.loop = ProcessLoop(self, simulation)
        self.clock = ProcessClock(simulation)
        self.alive = True
        self.paused_since: float | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.problems: list[str] = []
        """What its event loop complained of: exceptions that nobody caught or retrieved."""

    @property
    def runs(self) -> bool:
        return self.alive and self.paused_since is None

    def spawn(self, main: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self.loop.create_task(main)
        self._tasks.add(task)  # asyncio itself keeps weak references only
        task.add_done_callback(self._tasks.discard)
        return task

    def pause(self) -> None:
        self.paused_since = self.clock.monotonic()

    def resume(self) -> None:
        self.paused_since = None

    def kill(self) -> None:
        """The world hears of it no more; what its tasks still do while they are torn down stays in here."""
        if not self.alive:
            return
        self.alive = False
        self.loop.network.cut_off(self.loop)
        problems = list(self.problems)
        for _ in range(1_000):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.loop.settle()
        else:
            problems.append(f"{self.name}: tasks that cannot be cancelled: {asyncio.all_tasks(self.loop)}")
        self.problems = problems
        self.loop.close()


class ProcessClock:
    """``muster.kube.clock.Clock`` of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def monotonic(self) -> float:
        return self._simulation.now

    def time(self) -> float:
        return EPOCH + self._simulation.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _NoSelector:
    def select(self, timeout: float | None) -> list[Any]:
        return []


class _Handle(Protocol):
    _when: float
    _cancelled: bool


class ProcessLoop(asyncio.BaseEventLoop):
    """The event loop of a process: virtual time, simulated connections, no threads, no other I/O."""

    _ready: Any
    _scheduled: list[_Handle]

    def __init__(self, process: Process, simulation: Simulation) -> None:
        super().__init__()
        self._selector = _NoSelector()
        self._simulation = simulation
        self.network = simulation.network
        self.name = process.name
        self.set_exception_handler(lambda loop, context: process.problems.append(_describe(process, context)))

    def time(self) -> float:
        return self._simulation.now

    def has_work(self) -> bool:
        return bool(self._ready) or self.next_timer() <= self._simulation.now

    def next_timer(self) -> float:
        scheduled = self._scheduled
        return scheduled[0]._when if scheduled else float("inf")

    def step(self) -> None:
        """Run what is ready and due now."""
        hooks = sys.get_asyncgen_hooks()
        self._thread_id = threading.get_ident()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook,  # type: ignore[attr-defined]
            finalizer=self._asyncgen_finalizer_hook,  # type: ignore[attr-defined]
        )
        try:
            self._run_once()  # type: ignore[attr-defined]
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(None)
            self._thread_id = None

    def settle(self) -> None:
        """Run everything that can run without time passing."""
        while self.has_work():
            self.step()

    # --- what asyncio asks of a loop with I/O ------------------------------------------------------------------------

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # there is one thread: nobody sleeps in a selector

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """At once, here: threads would not wait for virtual time."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.network.reach(sock, (address[0], address[1]))

    async def create_connection(self, factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:  # type: ignore[override]
        """Only for a socket that ``sock_connect`` has connected, as aiohttp does it. TLS is not played."""
        connection = self.network.open(self, sock, factory())
        return connection, connection.protocol

    async def create_server(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        return SimulatedServer(self.network, self, factory, (host, port))


def _describe(process: Process, context: dict[str, Any]) -> str:
    return f"{process.name}: {context.get('message')} {context.get('exception')!r} {context.get('task') or ''}"


__all__ = ["EPOCH", "Connection", "Process", "ProcessClock", "ProcessLoop", "Simulation"]
