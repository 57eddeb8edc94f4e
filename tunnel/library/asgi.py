"""An ASGI application (https://asgi.readthedocs.io) as a handler of visitors' streams.

hypercorn speaks HTTP on a stream of the tunnel as it would on a connection of its own.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import attrs
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from tunnel import limits
from tunnel.client.handler import Handler, Peer
from tunnel.errors import TunnelError
from tunnel.model import Address
from tunnel.net.nursery import open_collapsing_nursery, started_shielded

logger = logging.getLogger(__name__)

_Message: TypeAlias = MutableMapping[str, Any]
Application: TypeAlias = Callable[
    [_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]],
    Awaitable[None],
]


@asynccontextmanager
async def asgi_handler(app: Application) -> AsyncIterator[Handler]:
    """A handler that serves an application, which is started before and shut down after the block.

    Raises:
      TunnelError: the application said that it cannot start, or cannot stop.
    """
    config = Config()
    config.errorlog = None  # what goes wrong in the application is logged here
    config.include_server_header = False
    config.startup_timeout = config.shutdown_timeout = limits.ASGI_LIFESPAN
    state: Any = {}
    wrapped: Any = ASGIWrapper(_Logged(app))  # type: ignore[arg-type]
    lifespan = Lifespan(wrapped, config, state)
    try:
        async with (
            open_collapsing_nursery() as nursery,
            started_shielded(nursery, lifespan.handle_lifespan),
            _shut_down(lifespan),
        ):
            await lifespan.wait_for_startup()
            yield _Server(wrapped, config, state)
    except (LifespanFailureError, LifespanTimeoutError) as error:
        raise TunnelError(f"the application does not start or stop: {error}") from error


@asynccontextmanager
async def _shut_down(lifespan: Lifespan) -> AsyncIterator[None]:
    """Tell the application to stop when the block ends, and wait until it has.

    Where the block ends by an error or by cancellation it has `limits.WITHDRAWAL` seconds for it,
    and how that ends is not told: what the block raised is.
    """
    try:
        yield
        if not lifespan.shutdown.is_set():
            await lifespan.wait_for_shutdown()
    except BaseException:
        with trio.move_on_after(limits.WITHDRAWAL, shield=True):
            with contextlib.suppress(LifespanFailureError, LifespanTimeoutError):
                if lifespan.startup.is_set() and not lifespan.shutdown.is_set():
                    await lifespan.wait_for_shutdown()
        raise


@attrs.frozen
class _Logged:
    """The application; what it raises is logged here, and then answered by hypercorn."""

    app: Application

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:  # noqa: ANN401
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            # (An application without a lifespan may say so by raising.)
            if scope["type"] != "lifespan":
                logger.exception(
                    "Application failed",
                    extra={"path": scope.get("path"), "error": f"{type(error).__name__}: {error}"},
                )
            raise


@attrs.define(eq=False)
class _Server:
    """Serves one visitor after the other."""

    _app: Any
    _config: Config
    _state: Any
    _context: WorkerContext = attrs.field(factory=lambda: WorkerContext(None), init=False)

    async def __call__(self, stream: trio.abc.HalfCloseableStream, peer: Peer) -> None:
        """Answer this visitor's requests."""
        connection: Any = _Connection(stream, peer)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.break_when_cancelled)
                await _Exchange(
                    self._app, self._config, self._context, ConnectionState(self._state), connection
                )
                connection.done = True
                nursery.cancel_scope.cancel()
        except* Exception as group:
            # This is a library's code on a stranger's bytes, where odd upgrades fail, for one. It
            # ends this connection, and is not logged above debug, or a stranger could fill the log.
            logger.debug("HTTP connection failed", extra={"error": repr(group.exceptions[0])})


class _Exchange(TCPServer):
    """One visitor's requests."""

    async def _read_data(self) -> None:
        await super()._read_data()
        # The visitor has ended its stream: hypercorn would wait five seconds for more.
        await self.idle_task.stop()


class _Connection:
    """A stream as hypercorn sees a plain TCP connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, peer: Peer) -> None:
        self._stream = stream
        self.socket = _Addresses(peer.address, peer.destination)
        self.send_all = stream.send_all
        self.receive_some = stream.receive_some
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose
        #: True when hypercorn has ended this connection.
        self.done = False

    async def break_when_cancelled(self) -> None:
        """hypercorn sends where no cancellation reaches it: end that by ending the stream."""
        try:
            await trio.sleep_forever()
        finally:
            if not self.done:
                await trio.aclose_forcefully(self._stream)


@attrs.frozen
class _Addresses:
    """What hypercorn asks a socket."""

    peer: Address
    own: Address

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.peer.host else socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return self.peer.host, self.peer.port

    def getsockname(self) -> tuple[str, int]:
        return self.own.host, self.own.port
