"""A Service in small: spreads TCP connections over replicas in turn, and passes over those that are gone."""

from __future__ import annotations

import asyncio
from typing import Self

PATIENCE = 5.0
"""Seconds until a connection that its caller keeps is cut."""


class ConnectionBalancer:
    """Listens on ``port``. Add ``backends`` (ports on loopback) and take them away as replicas come and go."""

    def __init__(self) -> None:
        self.backends: list[int] = []
        self.port = 0
        self.served: dict[int, int] = {}
        """Connections by backend."""
        self._turn = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._relays: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        await self._server.wait_closed()

    async def renew(self) -> None:
        """End every connection and wait until the callers have put them away: the next call opens a new one.

        Only while nothing is under way: a caller would take it for a failure.
        """
        for writer in list(self._open):
            writer.write_eof()
        if self._relays:
            _, left = await asyncio.wait(set(self._relays), timeout=PATIENCE)
            for relay in left:  # one whose handshake had only begun is not put away by its caller
                relay.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.current_task()
        assert relay is not None
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)
        try:
            backend = await self._connect()
            if backend is not None:
                self._open.add(writer)
                await _relay(reader, writer, *backend)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self.backends)):
            self._turn += 1
            port = self.backends[self._turn % len(self.backends)]
            try:
                connection = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            self.served[port] = self.served.get(port, 0) + 1
            return connection
        return None


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    backend_reader: asyncio.StreamReader,
    backend_writer: asyncio.StreamWriter,
) -> None:
    """Until the caller ends it; when the backend ends, the caller is told and heard out."""
    answers = asyncio.create_task(_pump(backend_reader, writer))
    try:
        await _pump(reader, backend_writer)
    finally:
        backend_writer.close()
        answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    except (OSError, RuntimeError):  # ENOTCONN is no ConnectionError
        pass  # the other side is gone: so is the connection
