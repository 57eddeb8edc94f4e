"""A whole tunnel in one process, over loopback: server, clients, local services, visitors."""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trio.testing
import trustme

from tunnel.client.dial import Dialler
from tunnel.client.proxy import LocalProxy
from tunnel.client.run import run_client
from tunnel.client.settings import ClientSettings, ProxySpec
from tunnel.client.state import Client
from tunnel.model import Address, PortRange
from tunnel.net.contexts import ServerTls, client_context, server_tls
from tunnel.net.listen import open_listeners
from tunnel.net.transport import own_address
from tunnel.protocol.keys import derive, generate_key
from tunnel.server.identity import Identities, Identity
from tunnel.server.policy import Policy
from tunnel.server.rules import Rules
from tunnel.server.run import run_server
from tunnel.server.state import Server
from tunnel.views import ClientState

EVERY_PORT = (PortRange(1, 65535),)
#: Real seconds after which bytes on loopback have surely arrived, on a busy machine as well.
LOOPBACK_TAKES = 0.01


def make_certificate(directory: Path) -> Path:
    """cert.pem, key.pem and ca.pem for localhost."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    issued = ca.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(directory / "key.pem"))
    (directory / "cert.pem").write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))
    return directory


class World:
    """One key, one certificate, and whatever was started in the nursery."""

    def __init__(self, nursery: trio.Nursery, certificate: Path, carrier: str | None) -> None:
        self.nursery = nursery
        self.carrier = carrier
        self.keys = derive(generate_key(secrets.token_bytes(32)))
        self.tls: ServerTls = server_tls(certificate / "cert.pem", certificate / "key.pem")
        self.context = client_context(
            ca_path=certificate / "ca.pem", verify=True, check_hostname=True
        )
        self.server: Server
        self.address: Address
        #: How clients reach the server, if in a way of their own.
        self.dial = None

    async def start_server(
        self, *, allow_ports=EVERY_PORT, port=0, identities=(), certificate=None, **policy
    ):
        """Start a server on loopback; returns its handle.

        Each of `identities` makes one of the server's rules, for a key of its own.
        """
        listeners = open_listeners("127.0.0.1", port)
        self.address = own_address(listeners[0])
        rules = Rules(allow_ports, frozenset({self.address.port}))
        own = Identity(self.keys.verifier, rules)
        self.server = Server(
            Policy(carrier=self.carrier, **policy),
            self.tls,
            Identities((own, *(identity(rules) for identity in identities))),
            derive(generate_key(secrets.token_bytes(32))).verifier,
        )
        life = functools.partial(run_server, certificate=certificate)
        return await self.nursery.start(life, self.server, listeners)

    def client(self, *proxies: LocalProxy, keys=None, client_id=None, **settings) -> Client:
        """A client of that server, not started."""
        dial = self.dial or Dialler((self.address,), self.context, frozenset(), str, 10.0)
        visit_ports = settings.pop("visit_ports", ())
        own = {"reconnect_delay": 0.0, "reconnect_max_delay": 0.0}
        return Client(
            ClientSettings(
                dial, keys or self.keys, "tests", carrier=self.carrier, **own | settings
            ),
            client_id or secrets.token_hex(16),
            proxies,
            visit_ports=visit_ports,
        )

    async def start_client(self, *proxies: LocalProxy, **settings):
        """Start a client and wait until it is connected; returns its handle."""
        handle = await self.nursery.start(run_client, self.client(*proxies, **settings))
        await handle.state.wait_value(ClientState.CONNECTED)
        return handle

    async def start_service(self, handler=None) -> int:
        """Start a local service (an echo, if nothing else) and return its port."""
        listeners = await self.nursery.start(_serve, handler or echo)
        return listeners[0].socket.getsockname()[1]


async def _serve(handler, *, task_status):
    await trio.serve_tcp(handler, 0, host="127.0.0.1", task_status=task_status)


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes, then the end."""
    try:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass


@asynccontextmanager
async def world(certificate: Path, carrier: str | None = None):
    """A `World` whose servers, clients and services end with the block."""
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, trio.testing.MockClock) and clock.autojump_threshold < LOOPBACK_TAKES:
        # A clock that jumps does not see what is under way in the kernel.
        clock.autojump_threshold = LOOPBACK_TAKES
    async with trio.open_nursery() as nursery:
        yield World(nursery, certificate, carrier)
        nursery.cancel_scope.cancel()


def proxy(local_port: int, publish_port: int = 0, name: str = "web", **settings) -> LocalProxy:
    """A proxy published on loopback."""
    spec = ProxySpec(
        name,
        settings.pop("publish_addr", "127.0.0.1"),
        publish_port,
        settings.pop("local_addr", "127.0.0.1"),
        local_port,
        **{"retries": 0} | settings,
    )
    return LocalProxy(spec)


async def visit(address: Address) -> trio.SocketStream:
    """Connect to a published port."""
    return await trio.open_tcp_stream(address.host, address.port)


async def read_all(stream) -> bytes:
    """Everything up to the end."""
    data = bytearray()
    async for chunk in stream:
        data += chunk
    return bytes(data)


_hosts = itertools.count(1)


def own_host() -> str:
    """A loopback address that no other test uses, so that its ports are nobody else's."""
    # The process id is 22 bits at most; tests that run at once are different processes.
    number = (os.getpid() * 8 + next(_hosts)) % (1 << 22) * 2 + 1
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def is_free(address: Address) -> bool:
    """True if a new listener can be bound there, as every server binds."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address.host, address.port))
            sock.listen()
        except OSError:
            return False
    return True
