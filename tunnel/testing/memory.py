"""A server without sockets for its clients and visitors, for tests whose clock is a mock.

Under a clock that jumps when all tasks wait, nothing may be under way in a kernel. So links run
over streams in memory, and a visitor is a stream of the server's own. All else is as it is
elsewhere: TLS, proofs, the engine, and the ports, which are bound, though no visitor connects to
them.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from tunnel.compose import make_server
from tunnel.config import ServerConfig
from tunnel.eventlog import logged_events
from tunnel.library.events import EventQueues
from tunnel.library.server import EmbeddedServer
from tunnel.model import Address, ResetCode
from tunnel.net.listen import close_all
from tunnel.net.muxstream import MuxStream
from tunnel.net.nursery import open_collapsing_nursery
from tunnel.net.transport import StreamTransport, Transport
from tunnel.server import run as server_run
from tunnel.server.member import Member
from tunnel.server.state import Server
from tunnel.server.strangers import Stranger
from tunnel.testing.fault import LinkFault


def in_memory() -> bool:
    """True in a test whose clock is one of Trio's for tests."""
    return isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)


@attrs.frozen
class MemoryServer(EmbeddedServer):
    """A server that can be reached from this program only."""

    server: Server
    nursery: trio.Nursery
    _ports: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    async def reach(self, fault: LinkFault, _server: Address) -> Transport:
        """A client's connection to it, by way of `fault`; for `Dialler`."""
        await trio.lowlevel.checkpoint()
        seen = self._anybody()
        near, client = trio.testing.memory_stream_pair()
        far, here = trio.testing.memory_stream_pair()
        self.nursery.start_soon(fault.carry, near, far, seen)
        stranger = Stranger(seen.host, seen)
        self.nursery.start_soon(server_run.serve, StreamTransport(here), self.server, stranger)
        return StreamTransport(client)

    def _anybody(self) -> Address:
        return Address("127.0.0.1", next(self._ports))

    @asynccontextmanager
    async def visit(self, address: Address) -> AsyncIterator[trio.abc.HalfCloseableStream]:
        """Visit what is published there, for as long as the block lasts.

        Raises:
          ConnectionRefusedError: nothing is.
          trio.BrokenResourceError: the server turned the visitor away.
        """
        member = self._published(address)
        link, admission = member.link, member.proxy.admission
        await link.running.wait()
        await link.wait_can_open()
        source = self._anybody()
        if (reason := admission.why_not(source)) is not None:
            admission.count_turned_away(reason, source)
            raise trio.BrokenResourceError(reason)
        stream_id, connection = member.open_visitor_stream(source, address)
        stream = MuxStream(link, stream_id)
        stream.counters = connection.counters
        link.attach(stream_id, stream.endpoint)
        link.flush()
        link.carrier.started()
        connection.begin()
        try:
            yield stream
        finally:
            stream.close()
            link.carrier.ended()
            code = stream.endpoint.reset_code
            connection.end(None if code is None else ResetCode.of(code))

    def _published(self, address: Address) -> Member:
        for session in self.server.sessions.values():
            for proxy in session.proxies:
                if any(address.port == bound.port for bound in proxy.addresses):
                    return Member(proxy, session.registration, session.link)
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


@asynccontextmanager
async def serve_in_memory(config: ServerConfig) -> AsyncIterator[MemoryServer]:
    """Run a server for as long as the block lasts; see `tunnel.serve`."""
    queues = EventQueues()
    parts = make_server(config, None, events=logged_events(queues.put))
    close_all(parts.listeners)
    run = functools.partial(server_run.run_server, parts.server, [], certificate=parts.certificate)
    async with open_collapsing_nursery() as nursery:
        yield MemoryServer(await nursery.start(run), queues, None, parts.server, nursery)
