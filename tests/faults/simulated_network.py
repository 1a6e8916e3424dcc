"""TCP between simulated processes: ordered bytes with a latency, resets, connections that wait to be accepted.

It sits below aiohttp, at asyncio's transports, so the HTTP on it is the real one. TLS is not played.
"""

from __future__ import annotations

import asyncio
import errno
import random
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

Address = tuple[str, int]
_Loop = asyncio.AbstractEventLoop

MEAN_LATENCY = 0.0005
"""Seconds, one way; exponentially distributed, so that messages on different connections overtake each other."""


class Network:
    """Who listens where, and what is under way."""

    def __init__(self, luck: random.Random, now: Callable[[], float]) -> None:
        self._random = luck
        self._now = now
        self._listeners: dict[Address, SimulatedServer] = {}
        self._connections: dict[_Loop, dict[Connection, None]] = {}
        self._reached: weakref.WeakKeyDictionary[Any, Address] = weakref.WeakKeyDictionary()
        self._unplugged: set[_Loop] = set()
        self._next_port = 30_000
        self.balancers: dict[Address, Callable[[], Sequence[Address]]] = {}
        """Addresses that stand for others (a Service): each new connection goes to one of these."""

    def latency(self) -> float:
        return self._random.expovariate(1.0 / MEAN_LATENCY)

    async def reach(self, sock: Any, address: Address) -> None:
        """The handshake. Raises ``ConnectionRefusedError``."""
        await asyncio.sleep(2 * self.latency())
        self._reached[sock] = address

    def open(self, client: _Loop, sock: Any, protocol: asyncio.Protocol) -> Connection:
        """A connection for a socket that has reached an address; the other side accepts it when it gets to it."""
        address = self._reached.pop(sock)
        sock.close()
        server = self._listener(address)
        if server is None or client in self._unplugged:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {address[0]}:{address[1]}")
        near, far = Connection(self, client), Connection(self, server.loop)
        near.peer, far.peer = far, near
        near.begin(protocol)
        far.arrive(lambda: far.begin(server.factory()), self.latency())
        return near

    def cut_off(self, loop: _Loop) -> None:
        """This process is dead: nothing comes from it and nothing reaches it any more."""
        self._unplugged.add(loop)
        self.close_listeners(loop)
        self.reset_all(loop)

    def close_listeners(self, loop: _Loop) -> list[SimulatedServer]:
        """Refuse connections to this process; what may ``listen`` again."""
        closed = [server for server in self._listeners.values() if server.loop is loop]
        for server in closed:
            self.stop_listening(server)
        return closed

    def reset_all(self, loop: _Loop) -> None:
        """Reset every connection that a process has."""
        for connection in list(self._connections.get(loop, ())):
            connection.abort()

    def listen(self, server: SimulatedServer) -> None:
        host, port = server.address
        if not port:
            port, self._next_port = self._next_port, self._next_port + 1
            server.address = (host, port)
        if server.address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{host}:{port} is in use")
        self._listeners[server.address] = server

    def stop_listening(self, server: SimulatedServer) -> None:
        if self._listeners.get(server.address) is server:
            del self._listeners[server.address]

    def opened(self, connection: Connection) -> None:
        self._connections.setdefault(connection.loop, {})[connection] = None

    def closed(self, connection: Connection) -> None:
        self._connections.get(connection.loop, {}).pop(connection, None)

    def is_unplugged(self, loop: _Loop) -> bool:
        return loop in self._unplugged

    def _listener(self, address: Address) -> SimulatedServer | None:
        behind = self.balancers.get(address)
        if behind is None:
            return self._listeners.get(address)
        candidates = [at for at in behind() if at in self._listeners]
        return self._listeners[self._random.choice(candidates)] if candidates else None


class SimulatedServer(asyncio.AbstractServer):
    """What ``loop.create_server`` gives."""

    def __init__(self, network: Network, loop: _Loop, factory: Callable[[], Any], address: Address) -> None:
        self.loop, self.factory, self.address = loop, factory, address
        self._network = network
        network.listen(self)

    @property
    def sockets(self) -> tuple[SimulatedServer]:
        return (self,)

    def getsockname(self) -> Address:
        return self.address

    def close(self) -> None:
        self._network.stop_listening(self)

    async def wait_closed(self) -> None:
        pass


class Connection(asyncio.Transport):
    """One end. What is written here arrives at the peer, in its process, in order and later."""

    peer: Connection

    def __init__(self, network: Network, loop: _Loop) -> None:
        super().__init__()
        self.loop = loop
        self.protocol: Any = None
        self.lines_left: int | None = None
        """When set: after so many more lines of JSON are written, the connection is cut within the next one."""
        self._network = network
        self._inbox: deque[Callable[[], None]] = deque()
        self._waiting = 0
        """Arrivals that wait because the protocol asked for a pause, or has something to do about the last one."""
        self._resting = False
        self._latest = 0.0
        self._closing = False
        self._reading = True
        self._lost = False

    def begin(self, protocol: Any) -> None:
        self.protocol = protocol
        self._network.opened(self)
        protocol.connection_made(self)

    def arrive(self, what: Callable[[], None], latency: float) -> None:
        """Something comes from the peer; never before what came earlier."""
        self._latest = max(self.loop.time() + latency, self._latest)
        self._inbox.append(what)
        if not self._network.is_unplugged(self.loop):
            self.loop.call_at(self._latest, self._next)

    def _next(self) -> None:
        """One at a time: a selector gives the protocol's tasks their turn before it reads again."""
        if not self._reading or self._resting:
            self._waiting += 1
            return
        self._resting = True
        self._inbox.popleft()()
        self.loop.call_soon(self._go_on)  # behind the tasks that were woken

    def _go_on(self) -> None:
        self._resting = False
        if self._waiting and self._reading:
            self._waiting -= 1
            self._next()

    def _receive(self, data: bytes) -> None:
        if not self._lost and self.protocol is not None:
            self.protocol.data_received(data)

    def _finish(self) -> None:
        if not self._lost and self.protocol is not None:
            self.protocol.eof_received()
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._network.closed(self)
        if self.protocol is not None:
            self.protocol.connection_lost(error)

    # --- asyncio.Transport -------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._closing or not data:
            return
        content = bytes(data)
        if self.lines_left is not None:
            self._write_until_cut(content)
            return
        self._send(content)

    def _write_until_cut(self, content: bytes) -> None:
        assert self.lines_left is not None
        lines = content.split(b"}\n")
        if len(lines) - 1 <= self.lines_left:
            self.lines_left -= len(lines) - 1
            self._send(content)
            return
        whole = b"".join(line + b"}\n" for line in lines[: self.lines_left])
        torn = lines[self.lines_left]
        self._send(whole + torn[: len(torn) // 2])
        self.abort()

    def _send(self, content: bytes) -> None:
        peer = self.peer
        peer.arrive(lambda: peer._receive(content), self._network.latency())

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self.peer.arrive(self.peer._finish, self._network.latency())
        self.loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """Reset: the peer learns it after what is under way."""
        if self._lost:
            return
        self._closing = True
        peer = self.peer
        peer.arrive(
            lambda: peer._lose(ConnectionResetError(errno.ECONNRESET, "reset by peer")), self._network.latency()
        )
        self.loop.call_soon(self._lose, None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            if not self._resting:
                self.loop.call_soon(self._go_on)

    def is_reading(self) -> bool:
        return self._reading

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("10.0.0.9", 40_000) if name == "peername" else default
