"""A published proxy whose visitors are served by a function of the same program."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs
import trio

from tunnel import limits
from tunnel.client.proxy import DiallingEndpoint, LocalProxy
from tunnel.model import Address, ResetCode
from tunnel.net.carrier import CarriedConnection, Carrier
from tunnel.net.muxstream import MuxStream
from tunnel.protocol.preamble import Preamble

logger = logging.getLogger(__name__)


@attrs.frozen
class Peer:
    """A visitor, as a handler sees it.

    Args:
      address: where it comes from; of one through another client, that client's address.
      visitor: the name of that client; None for a visitor of a public port.
      connection: the id that the logs of both ends use.
      destination: the address of the server that it reached.
    """

    address: Address
    visitor: str | None
    connection: str
    destination: Address


Handler: TypeAlias = Callable[[trio.abc.HalfCloseableStream, Peer], Awaitable[object]]


@attrs.define(eq=False)
class HandledProxy(LocalProxy):
    """A proxy of this client with a handler in the place of a local service.

    Each visitor is a stream, given to the handler in a task of its own. When the handler returns
    the stream is closed; when it raises, or is cancelled, that connection is reset.

    Args:
      handler: called for each visitor.
      handlers: where it runs.
    """

    handler: Handler = attrs.field(kw_only=True)
    _handlers: trio.Nursery | None = attrs.field(kw_only=True)
    _running: int = attrs.field(default=0, init=False)

    @property
    def target(self) -> str:
        """The handler as a log line shows it."""
        name = getattr(self.handler, "__qualname__", None) or type(self.handler).__qualname__
        return f"handler {name}"

    def close(self) -> None:
        """Refuse visitors from now on; handlers that run go on."""
        self._handlers = None

    def _serve_visitor(
        self, endpoint: DiallingEndpoint, preamble: Preamble, _nursery: trio.Nursery
    ) -> None:
        if self._handlers is None:
            endpoint.refuse(ResetCode.CANCELLED)
        elif self._running >= limits.PROXY_CONNECTIONS:
            endpoint.refuse(ResetCode.LIMIT)  # handlers may outlive their visitors
        else:
            connection = preamble.connection_id.hex()
            carried = endpoint.with_account(
                CarriedConnection(self.name, connection, self.counters, ResetCode.LOCAL_RESET)
            )
            stream = _stream(endpoint)
            stream.counters = carried.counters
            peer = Peer(preamble.source, preamble.through, connection, preamble.destination)
            self._handlers.start_soon(self._serve, stream, peer, carried, endpoint.link.carrier)

    async def _serve(
        self, stream: MuxStream, peer: Peer, carried: CarriedConnection, carrier: Carrier
    ) -> None:
        """One visitor, from here to its end."""
        code: ResetCode | None = ResetCode.CANCELLED
        self._running += 1
        carrier.started()
        carried.begin()
        try:
            code = await self._handle(stream, peer)
        finally:
            if code is None:
                stream.close()
            elif not stream.closed:
                stream.reset(code)
            carrier.ended()
            carried.end(code)
            self._running -= 1

    async def _handle(self, stream: MuxStream, peer: Peer) -> ResetCode | None:
        """Run the handler; returns why the connection is to be reset, or was."""
        failure: BaseException | None = None
        try:
            await self.handler(stream, peer)
        except* Exception as group:
            # Another program's code on a visitor's bytes: whatever goes wrong in it ends this
            # connection and nothing else. (Cancelled is no `Exception`.)
            failure = group.exceptions[0] if len(group.exceptions) == 1 else group
        by_peer = stream.endpoint.reset_code
        if failure is not None and (by_peer is None or not _is_broken(failure)):
            self._log(failure, peer)
        if by_peer is not None:
            return ResetCode.of(by_peer)
        return None if failure is None else ResetCode.LOCAL_RESET

    def _log(self, failure: BaseException, peer: Peer) -> None:
        logger.error(
            "Handler failed",
            extra={
                "proxy": self.name,
                "connection": peer.connection,
                "visitor": str(peer.address),
                "error": f"{type(failure).__name__}: {failure}",
            },
            exc_info=failure,
        )


def _stream(endpoint: DiallingEndpoint) -> MuxStream:
    """The visitor's stream, with what has come of it."""
    stream = MuxStream(
        endpoint.link, endpoint.stream_id, parked=endpoint.parked, finished=endpoint.finished
    )
    endpoint.link.attach(endpoint.stream_id, stream.endpoint)
    return stream


def _is_broken(failure: BaseException) -> bool:
    """True for what a stream raises whose other end has gone."""
    if isinstance(failure, BaseExceptionGroup):
        return all(map(_is_broken, failure.exceptions))
    return isinstance(failure, trio.BrokenResourceError)
