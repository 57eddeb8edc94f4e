"""What the fixtures give to tests of Trio: a server, the way to it, a client, publications."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import trio

from tunnel import limits
from tunnel.client.dial import reach
from tunnel.compose import make_client
from tunnel.config import ClientConfig, ServerConfig
from tunnel.library.arguments import Target
from tunnel.library.link import ClientLink, Retries, open_link
from tunnel.library.server import EmbeddedServer, serve
from tunnel.model import Address
from tunnel.net.nursery import open_collapsing_nursery
from tunnel.testing.fault import LinkFault
from tunnel.testing.memory import MemoryServer, in_memory, serve_in_memory

if TYPE_CHECKING:
    from tunnel.library.asgi import Application

#: A port of this machine, "host:port" or "unix:/path"; or an ASGI application.
Published: TypeAlias = "Target | Application"
_T = TypeVar("_T")

#: Where all of it listens: nothing of a test is to be reached from other machines.
HOST = "127.0.0.1"


def _hurry() -> dict[str, Any]:
    """A fast keepalive in real time; under a mock clock, that of real life takes no time."""
    if in_memory():
        return {}
    return {
        "keepalive_interval": limits.TEST_KEEPALIVE,
        "keepalive_timeout": limits.TEST_KEEPALIVE,
    }


@asynccontextmanager
async def open_server(key: str, settings: dict[str, Any]) -> AsyncIterator[EmbeddedServer]:
    """A server for as long as the block lasts; `settings` are for `ServerConfig`."""
    own: dict[str, Any] = {"bind_addr": HOST, "bind_port": 0, "auth_key": key}
    config = ServerConfig(**own | _hurry() | settings)
    opened: AbstractAsyncContextManager[EmbeddedServer]
    opened = serve_in_memory(config) if in_memory() else serve(config)
    async with opened as server:
        yield server


@asynccontextmanager
async def open_fault(server: EmbeddedServer) -> AsyncIterator[LinkFault]:
    """The network before that server, for as long as the block lasts."""
    fault = LinkFault(server)
    async with open_collapsing_nursery() as nursery:
        if not isinstance(server, MemoryServer):
            fault.address = await nursery.start(_listen, fault, server.addresses[0])
        yield fault


async def _listen(
    fault: LinkFault, server: Address, *, task_status: trio.TaskStatus[Address]
) -> None:
    async def carry(near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream(server.host, server.port)
        except OSError:
            await trio.aclose_forcefully(near)
            return
        await fault.carry(near, far, Address(*far.socket.getsockname()[:2]))

    [listener] = await trio.open_tcp_listeners(0, host=HOST)
    task_status.started(Address(*listener.socket.getsockname()[:2]))
    await trio.serve_listeners(carry, [listener])


@asynccontextmanager
async def open_client(
    server: EmbeddedServer, fault: LinkFault, key: str, settings: dict[str, Any]
) -> AsyncIterator[ClientLink]:
    """A client for as long as the block lasts; `settings` are for `ClientConfig`."""
    own: dict[str, Any] = {"server_addr": (HOST,), "server_port": fault.address.port}
    own |= {"pin": (server.pin,), "auth_key": key, "name": "client"} | _hurry()
    if not in_memory():
        own["reconnect_delay"] = limits.TEST_RECONNECT_DELAY
    config = ClientConfig(**own | settings)
    way = functools.partial(server.reach, fault) if isinstance(server, MemoryServer) else reach
    retries = Retries(reconnect=True)
    client = make_client(config, None, gives_up=retries.gives_up, reach=way)
    async with open_link(client, config, None, retries) as link:
        fault.follow(link.state)
        yield link


@asynccontextmanager
async def open_urls(link: ClientLink) -> AsyncIterator[Callable[[Published], Awaitable[str]]]:
    """Gives a function that publishes something until the block ends, and returns its URL."""
    async with open_collapsing_nursery() as nursery:

        async def public_url(what: Published) -> str:
            if in_memory():
                raise RuntimeError(
                    "public_url needs connections of TCP, which a test with autojump_clock has not:"
                    " use tunnel_client.publish(handler=...) or publish_asgi(...) and tunnel_visit"
                )
            address: Address = await nursery.start(_hold, published(link, what))
            return f"http://{address}"

        yield public_url


def published(link: ClientLink, what: Published) -> AbstractAsyncContextManager[Address]:
    """A publication on loopback."""
    if callable(what):
        return link.publish_asgi(what, host=HOST)
    return link.publish(to=what, host=HOST)


async def _hold(
    manager: AbstractAsyncContextManager[_T], *, task_status: trio.TaskStatus[_T]
) -> None:
    async with manager as value:
        task_status.started(value)
        await trio.sleep_forever()


def visitor(
    server: EmbeddedServer,
) -> Callable[[Address], AbstractAsyncContextManager[trio.abc.HalfCloseableStream]]:
    """A function that visits what is published at an address, as a stream for a block."""
    return server.visit if isinstance(server, MemoryServer) else _visit


@asynccontextmanager
async def _visit(address: Address) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        yield stream
