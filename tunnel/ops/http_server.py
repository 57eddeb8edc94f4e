"""Serving HTTP on Trio, by hypercorn, to people and programs that may be slow, silent or many.

hypercorn speaks HTTP; how many may connect, and for how long a connection may keep it waiting, is
settled here. hypercorn sends within a shielded scope: without a limit of our own a client that does
not read would keep the whole program from ending.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from tunnel import limits
from tunnel.net.listen import Shortage, accept_burst, close_all, wait_connection
from tunnel.ops.http import Application

logger = logging.getLogger(__name__)


async def serve_http(application: Application, listeners: Sequence[socket.socket]) -> None:
    """Answer requests until cancelled; every socket is closed when it returns.

    Above `limits.HTTP_CONNECTIONS` connections a new one takes the place of the oldest.

    Args:
      application: what answers.
      listeners: bound and listening; closed here.
    """
    server = _Server(application)
    try:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(server.accept, listener, nursery)
            try:
                await trio.sleep_forever()
            finally:
                server.hang_up()
    finally:
        close_all(list(listeners))


class _Server:
    """The connections, the oldest first."""

    def __init__(self, application: Application) -> None:
        self._app: Any = ASGIWrapper(application)  # type: ignore[arg-type]
        self._config = Config()
        self._config.errorlog = None  # (`Application` logs what goes wrong in it.)
        self._config.include_server_header = False
        self._config.keep_alive_timeout = limits.HTTP_IDLE_TIMEOUT
        self._context = WorkerContext(None)
        self._connections: dict[_Connection, None] = {}

    async def accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        shortage = Shortage()
        while True:
            await wait_connection(listener)
            try:
                for sock, _ in accept_burst(listener):
                    self._make_room()
                    connection = _Connection(sock)
                    self._connections[connection] = None
                    nursery.start_soon(self._serve, connection)
                shortage.over()
            except OSError as error:
                await shortage.wait(error)

    def _make_room(self) -> None:
        if len(self._connections) >= limits.HTTP_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.abort()

    async def _serve(self, connection: _Connection) -> None:
        try:
            # It has no attribute for TLS, so that it is taken for plain TCP.
            stream: Any = connection
            await TCPServer(self._app, self._config, self._context, ConnectionState({}), stream)
        except* Exception as group:
            # This is a library's code on a stranger's bytes, in one process with the tunnel:
            # whatever goes wrong in it (and odd upgrades to HTTP/2 and WebSocket do) ends this
            # connection and nothing else. It is not logged above debug, or a stranger could fill
            # the log.
            logger.debug("HTTP connection failed", extra={"error": repr(group.exceptions[0])})
        finally:
            connection.abort()
            self._connections.pop(connection, None)

    def hang_up(self) -> None:
        for connection in self._connections:
            connection.abort()


class _Connection:
    """A connection as hypercorn sees it: a stream whose peer cannot make it wait for ever."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = trio.socket.from_stdlib_socket(sock)
        self._stream = trio.SocketStream(self.socket)

    async def send_all(self, data: bytes) -> None:
        try:
            with trio.fail_after(limits.HTTP_IDLE_TIMEOUT):
                await self._stream.send_all(data)
        except trio.TooSlowError:
            self.abort()
            raise trio.BrokenResourceError("the client does not read") from None

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        self.socket.close()
