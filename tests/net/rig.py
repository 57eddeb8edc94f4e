"""Pairs of TLS streams and links, in memory or over real sockets."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager

import trio
import trio.testing

from tests.rig import make_certificate
from tunnel.model import ResetCode
from tunnel.net.contexts import ServerTls, client_context, server_tls
from tunnel.net.link import Link
from tunnel.net.muxstream import MuxStream
from tunnel.net.tls import TlsStream
from tunnel.net.transport import SocketTransport, StreamTransport, prepare
from tunnel.yamux import Role, Settings


def make_contexts(directory):
    """A server's and a client's TLS context, of a certificate that is written there."""
    make_certificate(directory)
    server: ServerTls = server_tls(directory / "cert.pem", directory / "key.pem")
    client = client_context(ca_path=directory / "ca.pem", verify=True, check_hostname=True)
    return server.context, client


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets, ready for use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for sock in (one, other):
        prepare(sock)
    return one, other


def memory_transports():
    one, other = trio.testing.memory_stream_pair()
    return StreamTransport(one), StreamTransport(other)


def socket_transports():
    one, other = socket_pair()
    return SocketTransport(one), SocketTransport(other)


async def tls_pair(contexts, transports=memory_transports):
    """A client's and a server's end of one TLS connection, after the handshake."""
    server_context, context = contexts
    one, other = transports()
    client = TlsStream(one, context, server_side=False, server_hostname="localhost")
    server = TlsStream(other, server_context, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


class Accepting:
    """Accepts every stream of the peer as a `MuxStream` and hands it out."""

    def __init__(self):
        self.send, self.streams = trio.open_memory_channel(1000)

    def __call__(self, link, stream_id):
        stream = MuxStream(link, stream_id)
        self.send.send_nowait(stream)
        return stream.endpoint


class Pair:
    """Two running links and what each has accepted."""

    def __init__(self, client, server, client_accepted, server_accepted):
        self.client = client
        self.server = server
        self.client_accepted = client_accepted
        self.server_accepted = server_accepted

    async def streams(self):
        """Both ends of a new stream that the client opened."""
        one = MuxStream.open(self.client)
        self.client.flush()
        return one, await self.server_accepted.streams.receive()


OWN = Settings(max_frame=65536, keepalive_interval=None)


@asynccontextmanager
async def link_pair(
    contexts, *, transports=memory_transports, carrier=None, settings=OWN, accept=None
):
    """A running client's link and server's link; both end with the block."""
    client_tls, server_tls = await tls_pair(contexts, transports)
    client_accepted, server_accepted = Accepting(), Accepting()
    client = Link(client_tls, Role.CLIENT, settings, accept or client_accepted, carrier=carrier)
    server = Link(server_tls, Role.SERVER, settings, server_accepted, carrier=carrier)
    async with trio.open_nursery() as nursery:
        for link in (client, server):
            nursery.start_soon(link.run)
            await link.running.wait()
        yield Pair(client, server, client_accepted, server_accepted)
        client.lose("the test is over")
        server.lose("the test is over")


__all__ = ["OWN", "Accepting", "Pair", "ResetCode", "link_pair", "make_contexts"]
