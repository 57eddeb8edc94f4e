"""The plain carrier: two tasks a connection, for platforms without epoll."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from tunnel import limits
from tunnel.model import ResetCode
from tunnel.net.carrier import CarriedConnection, Carrier
from tunnel.net.muxstream import MuxStream
from tunnel.net.transport import finish_on_close, reset_on_close

if TYPE_CHECKING:
    pass


class Relay(Carrier):
    """A task and a nursery for every connection."""

    def adopt(
        self,
        sock: socket.socket,
        stream_id: int,
        connection: CarriedConnection,
        *,
        parked: bytes | bytearray = b"",
        finished: bool = False,
    ) -> None:
        """See `Carrier`."""
        reset_on_close(sock)
        if not self.link.carrying:
            sock.close()
            connection.refused(ResetCode.LINK_LOST)
            return
        stream = MuxStream(self.link, stream_id, parked=parked, finished=finished)
        self.link.attach(stream_id, stream.endpoint)
        self.started()
        connection.begin()
        self.link.spawn(self._carry, sock, stream, connection)

    def look(self) -> None:
        """See `Carrier`: each connection has a task of its own that looks."""

    async def _carry(
        self, sock: socket.socket, stream: MuxStream, connection: CarriedConnection
    ) -> None:
        code: ResetCode | None = ResetCode.LINK_LOST
        try:
            code = await _relay(stream, sock, connection)
        finally:
            if code is None:
                finish_on_close(sock)
                self.link.detach(stream.stream_id)
            else:
                stream.reset(code)
            trio.lowlevel.notify_closing(sock)
            sock.close()
            connection.end(code)
            self.ended()


async def _relay(
    stream: MuxStream, sock: socket.socket, connection: CarriedConnection
) -> ResetCode | None:
    """Carry both directions, each to its own end; None if both ended cleanly, else why not."""
    local = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    counters = connection.counters

    async def outward() -> None:
        while data := await stream.receive_some():
            counters.delivered += len(data)
            await local.send_all(data)
        await local.send_eof()

    async def inward() -> None:
        while data := await local.receive_some(limits.READ_CHUNK):
            counters.read += len(data)
            await stream.send_all(data)
        await stream.send_eof()

    code: ResetCode | None = None
    try:
        async with trio.open_nursery() as nursery:
            # A direction that has ended, or is stuck, would not notice a reset.
            nursery.start_soon(stream.wait_reset)
            async with trio.open_nursery() as both:
                both.start_soon(outward)
                both.start_soon(inward)
            nursery.cancel_scope.cancel()
    except* trio.BrokenResourceError:
        by_peer = stream.endpoint.reset_code
        code = connection.failure if by_peer is None else ResetCode.of(by_peer)
    return code
