"""Processes of ``muster serve`` that can be killed and paused, and the Service in front of their webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from muster.devcluster.control_plane import free_ports
from muster.kube.client import Client
from muster.kube.errors import ApiError
from muster.kube.kinds import LEASES

SYSTEM_NAMESPACE = "muster-system"
_COMMAND = (sys.executable, "-m", "muster.cli.main", "serve", "--config")


class ServeReplica:
    """One replica with fixed ports, as a Deployment would start it again and again; ``name`` is its pod's."""

    def __init__(self, name: str, folder: Path, settings: dict[str, Any]) -> None:
        self.name = name
        self.webhook_port, self.management_port = free_ports(2)
        self.log = folder / f"{name}.log"
        self._file = folder / f"{name}.yaml"
        webhook = settings.get("webhook", {}) | {"port": self.webhook_port}
        self._file.write_text(
            yaml.safe_dump(settings | {"webhook": webhook, "management": {"port": self.management_port}})
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_COMMAND, str(self._file), stdout=log, stderr=log, env=os.environ | {"POD_NAME": self.name}
            )

    async def kill(self) -> None:
        """SIGKILL; waits until it is gone."""
        assert self._process is not None
        assert self._process.returncode is None, f"{self.name} had ended by itself:\n{self.tail()}"
        self._process.kill()
        await self._process.wait()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self.resume()
            self._process.terminate()
        return await self._process.wait()

    async def leads(self) -> bool:
        """Whether it decides: ``/why`` answers 404 for an unknown application then, 503 before."""
        assert self._process is not None
        assert self._process.returncode is None, f"{self.name} has ended by itself:\n{self.tail()}"
        url = f"http://127.0.0.1:{self.management_port}/why?application=nobody/knows"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http, http.get(url) as answer:
                return answer.status == 404
        return False

    def tail(self, characters: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-characters:]


async def lease_holder(client: Client, replicas: list[ServeReplica]) -> ServeReplica | None:
    """The replica that the lease names."""
    try:
        lease = await client.get(LEASES, "muster", SYSTEM_NAMESPACE)
    except ApiError as error:
        if error.not_found:
            return None
        raise
    name = (lease.spec.holder_identity or "").rpartition("_")[0]
    return next((replica for replica in replicas if replica.name == name), None)


class WebhookService:
    """Passes TCP connections to one of several local ports, to the next one when nobody listens there.

    Like a Service it does not look into what is said, and it does not notice that a process is only paused.
    """

    def __init__(self) -> None:
        self.backends: list[int] = []
        self.port = 0
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            for port in random.sample(self.backends, len(self.backends)):
                with contextlib.suppress(ConnectionError):
                    behind = await asyncio.open_connection("127.0.0.1", port)
                    await _join((reader, writer), behind)
                    return
        finally:
            writer.transport.abort()
            self._connections.discard(task)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(front: Stream, behind: Stream) -> None:
    """Until either side ends; then both are closed."""
    pumps = [
        asyncio.create_task(_pump(front[0], behind[1])),
        asyncio.create_task(_pump(behind[0], front[1])),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        behind[1].transport.abort()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
