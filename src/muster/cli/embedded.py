"""Muster beside an embedded cluster: its custom resources, and ``muster serve`` as a process of its own."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml

from muster.cli.arguments import Failure
from muster.control import logs
from muster.control.config import Logging
from muster.kube.client import Client
from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS

T = TypeVar("T")

SYSTEM_NAMESPACE = "muster-system"
"""Where the service keeps its lease and certificate."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RESTART_DELAY_S = 0.1
_STOP_TIMEOUT_S = 15.0
_READY = ("muster_synced", "muster_webhook_registered")
_READY_TIMEOUT_S = 60.0
_READY_POLL_S = 0.1
_TRIES = 10
"""Restarts before the demo gives up."""


def quieten_logs() -> None:
    """Of an embedded cluster people want to see warnings only, and never on standard output."""
    logs.configure(Logging(level="warning", format="console"))


def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``; Ctrl-C, SIGTERM or a closed terminal let it clean up and raise ``KeyboardInterrupt``.

    A second signal ends the process at once.
    """

    async def run() -> T:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for number in _STOP_SIGNALS:
                loop.remove_signal_handler(number)
            task.cancel()

        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, stop)
        return await work

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def install(client: Client) -> None:
    """The custom resources of Muster. ``SYSTEM_NAMESPACE`` must be there."""
    for definition in (gang_definition(), queue_definition()):
        await client.apply(CUSTOM_RESOURCE_DEFINITIONS, definition, field_manager="muster-install")


class ServiceProcess:
    """Use as an async context manager; the process is running and leads when it is entered.

    It is started again when it ends, as a Deployment would.
    """

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self._config = folder / "muster.yaml"
        self.log = folder / "muster-serve.log"
        self.management_port = free_port()
        self.restarts = 0
        self.away: list[tuple[float, float]] = []
        """When it was gone, from and to (monotonic clock); to infinity while it is not back."""
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._config.write_text(yaml.safe_dump(configuration(folder, kubeconfig, free_port(), self.management_port)))

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def __aenter__(self) -> ServiceProcess:
        await self._start()
        self._supervisor = asyncio.create_task(self._supervise(), name="muster serve")
        try:
            await self._until_ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def check(self) -> None:
        """Raises ``Failure`` when it has ended too often."""
        if self._supervisor is not None and self._supervisor.done():
            self._supervisor.result()

    def log_tail(self, lines: int = 12) -> str:
        with self.log.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, lines)).rstrip()

    async def _start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "muster.cli.main",
                "serve",
                "--config",
                str(self._config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches the demo only, which then stops the service when its clients are done
                start_new_session=True,
            )

    async def _supervise(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if self.restarts >= _TRIES:
                raise Failure(
                    f"muster serve ended {self.restarts + 1} times, last with code {code}:\n{self.log_tail()}"
                )
            left = time.monotonic()
            self.away.append((left, math.inf))
            await asyncio.sleep(_RESTART_DELAY_S)
            await self._start()
            self.restarts += 1
            back = asyncio.create_task(self._until_ready())
            ended = asyncio.create_task(self._process.wait())
            await asyncio.wait([back, ended], return_when=asyncio.FIRST_COMPLETED)
            for task in (back, ended):
                task.cancel()
            await asyncio.gather(back, ended, return_exceptions=True)
            self.away[-1] = (left, time.monotonic())

    async def _until_ready(self) -> None:
        """Until it has the lease, knows the cluster, and has registered its webhook."""
        url = f"http://127.0.0.1:{self.management_port}/metrics"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            for _ in range(int(_READY_TIMEOUT_S / _READY_POLL_S)):
                self.check()
                try:
                    async with session.get(url) as answer:
                        told = (await answer.text()).splitlines()
                        if all(f"{name} 1.0" in told for name in _READY):
                            return
                except aiohttp.ClientError:
                    pass  # not listening yet
                await asyncio.sleep(_READY_POLL_S)
        raise Failure(f"muster serve was not ready after {_READY_TIMEOUT_S:.0f} s:\n{self.log_tail()}")


def configuration(folder: Path, kubeconfig: Path, webhook_port: int, management_port: int) -> dict[str, object]:
    """``muster.yaml`` of a service outside the cluster, with a lease that a restarted process gets quickly."""
    return {
        "namespace": SYSTEM_NAMESPACE,
        "kubernetes": {"kubeconfig": str(kubeconfig)},
        "webhook": {"port": webhook_port, "url": f"https://127.0.0.1:{webhook_port}/mutate"},
        "management": {"port": management_port},
        "lease": {"duration": "6s", "renewDeadline": "4s", "retryPeriod": "1s"},
        "history": {"path": str(folder / "history.db")},
        "logging": {"level": "info"},
    }


def free_port() -> int:
    """A port that nobody listens on now. Fixed before the start, so that a restarted service is found again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
