"""The network between clients and their server, which can be told to fail."""

from __future__ import annotations

import contextlib
import socket
import struct

import trio
from trio_util import AsyncValue

from tunnel import limits
from tunnel.events import ClientDisconnected
from tunnel.library.server import EmbeddedServer
from tunnel.model import Address
from tunnel.views import ClientState

#: struct linger { on = 1, seconds = 0 }: closing sends RST.
_RESET = struct.pack("ii", 1, 0)


class LinkFault:
    """Carries links to a server, and fails as it is told to.

    Visitors do not come this way: they connect to the server's ports, and see what becomes of their
    connections when a link fails.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        #: Where clients connect to, in place of the server's own address; nowhere in memory.
        self.address = Address("127.0.0.1", 0)
        #: Every connection, and where the server sees it come from.
        self._connections: dict[trio.CancelScope, Address] = {}
        self._clients: list[AsyncValue[ClientState]] = []
        self._flowing = trio.Event()
        self._delay = 0.0
        self.heal()

    # --- Faults ------------------------------------------------------------------------------

    async def cut(self) -> None:
        """Reset the link. When it returns, both ends know: visitors are reset, ports are free.

        The client connects again after its `reconnect_delay`, in vain while the link is stalled.
        """
        events = self._server.events()
        here = set(self._connections.values())
        ending = {one.session_id for one in self._server.sessions() if one.address in here}
        async with trio.open_nursery() as nursery:
            for state in self._clients:
                nursery.start_soon(state.wait_value, _is_away)
            for scope in self._connections:
                scope.cancel()
        while ending:
            event = await anext(events)
            if isinstance(event, ClientDisconnected):
                ending.discard(event.session)

    def stall(self) -> None:
        """Carry nothing more, and tell neither end: what a cable does that was pulled."""
        self._flowing = trio.Event()

    def delay(self, seconds: float) -> None:
        """Let every byte take so many seconds from now on, each way."""
        self._delay = seconds

    def heal(self) -> None:
        """Carry everything at once again; what was held back comes first."""
        self._delay = 0.0
        self._flowing.set()

    # --- Carrying ----------------------------------------------------------------------------

    def follow(self, state: AsyncValue[ClientState]) -> None:
        """Have `cut` wait until a client that connects this way has noticed; by its state."""
        self._clients.append(state)

    async def carry(
        self, near: trio.abc.HalfCloseableStream, far: trio.abc.HalfCloseableStream, seen: Address
    ) -> None:
        """Carry a connection until both ends have ended it, or something happened to it.

        Args:
          near: the client's.
          far: the server's.
          seen: where the server sees it come from.
        """
        ended = False
        with trio.CancelScope() as scope:
            self._connections[scope] = seen
            try:
                ended = await self._carry_both_ways(near, far)
                # One end was reset: the other is, too, as soon as anything is carried again.
                await self._flowing.wait()
            finally:
                del self._connections[scope]
                with trio.CancelScope(shield=True):
                    for stream in (near, far):
                        await _close(stream, reset=not ended)

    async def _carry_both_ways(
        self, near: trio.abc.HalfCloseableStream, far: trio.abc.HalfCloseableStream
    ) -> bool:
        """True if both ends ended properly; False if one was reset."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far)
                nursery.start_soon(self._pump, far, near)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            ended = False
        else:
            ended = True
        return ended

    async def _pump(
        self, source: trio.abc.ReceiveStream, sink: trio.abc.HalfCloseableStream
    ) -> None:
        """Read into a queue, which holds what is under way, and send from it when it is due."""
        send, receive = trio.open_memory_channel[tuple[float, bytes | bytearray]](
            limits.FAULT_QUEUE
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, receive, sink)
            async with send:
                async for data in source:
                    await send.send((trio.current_time() + self._delay, data))

    async def _send(
        self,
        queue: trio.MemoryReceiveChannel[tuple[float, bytes | bytearray]],
        sink: trio.abc.HalfCloseableStream,
    ) -> None:
        async for due, data in queue:
            await trio.sleep_until(due)
            await self._flowing.wait()
            await sink.send_all(data)
        await self._flowing.wait()
        await sink.send_eof()


def _is_away(state: ClientState) -> bool:
    return state is not ClientState.CONNECTED


async def _close(stream: trio.abc.AsyncResource, *, reset: bool) -> None:
    """Close it; with a reset if that is asked for and it is TCP: other streams have none."""
    if reset and isinstance(stream, trio.SocketStream):
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    await trio.aclose_forcefully(stream)
