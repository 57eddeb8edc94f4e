"""A running server, and strangers who come to it."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
from contextlib import asynccontextmanager

import trio
from trio.testing import wait_all_tasks_blocked

from tests.rig import proxy, visit, world
from tunnel.net.framed import next_event
from tunnel.net.tls import TlsStream
from tunnel.net.transport import SocketTransport
from tunnel.protocol.handshake import Binding, ClientHandshake
from tunnel.protocol.messages import Capabilities


class Lines(logging.Handler):
    """What the server logs, to be waited for."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.records = []
        self._send, self._receive = trio.open_memory_channel(1000)

    def emit(self, record):
        self.records.append(record)
        self._send.send_nowait(record)

    async def next(self):
        with trio.fail_after(20):
            return await self._receive.receive()


def resources():
    return len(os.listdir("/proc/self/fd")), trio.lowlevel.current_statistics().tasks_living


class Place:
    """A running server, its log, and ways to come to it."""

    def __init__(self, tunnel, lines):
        self.tunnel = tunnel
        self.lines = lines

    async def tcp(self, host="127.0.0.1"):
        """TCP from one of loopback's addresses: each is a network of its own."""
        return trio.SocketStream(trio.socket.from_stdlib_socket(await self._connect(host)))

    async def _connect(self, host):
        address = self.tunnel.address
        sock = trio.socket.socket()
        try:
            await sock.bind((host, 0))
            await sock.connect((address.host, address.port))
            return socket.socket(fileno=sock.detach())
        finally:
            sock.close()

    async def tls(self, context=None, host="127.0.0.1"):
        address = self.tunnel.address
        stream = TlsStream(
            SocketTransport(await self._connect(host)),
            context or self.tunnel.context,
            server_side=False,
            server_hostname=address.host,
        )
        try:
            await stream.do_handshake()
        except BaseException:
            stream.abort()
            raise
        return stream

    def handshake(self, stream, **changes):
        return ClientHandshake(
            **{
                "keys": self.tunnel.keys,
                "binding": Binding(
                    "certificate", hashlib.sha256(stream.peer_certificate()).digest()
                ),
                "nonce": secrets.token_bytes(32),
                "name": "stranger",
                "client_id": secrets.token_hex(16),
                "instance_id": secrets.token_hex(16),
                "attempt": 1,
                "capabilities": Capabilities(),
            }
            | changes
        )


@asynccontextmanager
async def place(certificate, **policy):
    """A server that must be as it was when the block ends: no task, socket or registration more."""
    lines = Lines()
    logger = logging.getLogger("tunnel")
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        async with world(certificate) as tunnel:
            await tunnel.start_server(**policy)
            await lines.next()  # Server listening
            await wait_all_tasks_blocked()
            before = resources()
            yield Place(tunnel, lines)
            with trio.move_on_after(5):
                while resources() != before:
                    await trio.lowlevel.checkpoint()
            assert resources() == before
            assert len(tunnel.server.strangers) == 0
            assert not tunnel.server.strangers._penalties._living
            assert len(tunnel.server.admission.networks) == 0
            assert not tunnel.server.sessions
            registry = tunnel.server.registry
            assert not registry._sessions
            assert not registry._newcomers
            assert not registry._ports
            assert not len(registry.freed)
            assert not tunnel.server.directory._watchers
            assert not tunnel.server.directory.freed
            await an_honest_client_is_served(tunnel)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


async def an_honest_client_is_served(tunnel):
    service = await tunnel.start_service()
    handle = await tunnel.start_client(proxy(service))
    async with await visit(handle.statistics()[0].addresses[0]) as visitor:
        await visitor.send_all(b"x")
        assert await visitor.receive_some() == b"x"


async def read_to_the_end(stream):
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


def assert_one_line(there, more=0):
    """One line about the stranger; the others are about the server and the honest client."""
    about = [
        record
        for record in there.lines.records
        if record.name == "tunnel.server"
        and record.getMessage() in ("Handshake failed", "Refused", "Authentication failed")
    ]
    assert len(about) == 1 + more
    assert not any(record.exc_info for record in there.lines.records)


async def proved(there, host="127.0.0.1"):
    """A connection whose client is in, and its handshake."""
    stream = await there.tls(host=host)
    handshake = there.handshake(stream)
    await next_event(handshake, stream)
    await stream.send_all(handshake.authenticate())
    await next_event(handshake, stream)
    return stream, handshake
