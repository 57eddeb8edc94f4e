"""The fixtures. pytest loads this in every project that has the tunnel and pytest installed.

So it imports nothing but pytest: what a fixture needs is imported when a test asks for it. Each has
two kinds: a test of pytest-trio gets what lives in its own event loop, any other test gets the same
from a thread, with calls that block.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    import trio

    from tunnel.library.link import ClientLink
    from tunnel.library.server import EmbeddedServer
    from tunnel.model import Address
    from tunnel.testing.fault import LinkFault
    from tunnel.testing.rig import Published
    from tunnel.testing.thread import ThreadedClient, ThreadedFault, ThreadedServer, TrioThread


def _of_its_kind(request: pytest.FixtureRequest, fixture: str) -> Any:  # noqa: ANN401
    is_trio = request.node.get_closest_marker("trio") is not None
    return request.getfixturevalue(f"_{'trio' if is_trio else 'threaded'}_{fixture}")


# --- What tests ask for -----------------------------------------------------------------------


@pytest.fixture
def tunnel_server_config() -> dict[str, Any]:
    """What the server of a test is to do otherwise: arguments of `tunnel.ServerConfig`."""
    return {}


@pytest.fixture
def tunnel_client_config() -> dict[str, Any]:
    """What the client of a test is to do otherwise: arguments of `tunnel.ClientConfig`."""
    return {}


@pytest.fixture
def tunnel_server(request: pytest.FixtureRequest) -> EmbeddedServer | ThreadedServer:
    """A running server, on loopback; with `autojump_clock` in memory."""
    return _of_its_kind(request, "tunnel_server")  # type: ignore[no-any-return]


@pytest.fixture
def link_fault(request: pytest.FixtureRequest) -> LinkFault | ThreadedFault:
    """The way between the client and the server: cut, stall or delay it, and heal it."""
    return _of_its_kind(request, "link_fault")  # type: ignore[no-any-return]


@pytest.fixture
def tunnel_client(request: pytest.FixtureRequest) -> ClientLink | ThreadedClient:
    """A client that is connected to the server, by way of `link_fault`."""
    return _of_its_kind(request, "tunnel_client")  # type: ignore[no-any-return]


@pytest.fixture
def public_url(request: pytest.FixtureRequest) -> Callable[[Published], Any]:
    """A function: publishes an ASGI application or a local port, and returns the public URL.

    It is published until the test is over. In a test of pytest-trio the function is async.
    """
    return _of_its_kind(request, "public_url")  # type: ignore[no-any-return]


@pytest.fixture
def tunnel_visit(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401
    """For tests of pytest-trio, a function: visits an address, as a stream for a block.

    It is how one visits with `autojump_clock`, and works without as well.
    """
    if request.node.get_closest_marker("trio") is None:
        raise pytest.UsageError(
            "tunnel_visit is for tests of pytest-trio: use socket.create_connection, or an HTTP"
            " client and public_url"
        )
    return request.getfixturevalue("_trio_tunnel_visit")


@pytest.fixture
def _tunnel_key() -> str:
    from tunnel.protocol.keys import generate_key

    return generate_key(secrets.token_bytes(32))


# --- In the test's own event loop -------------------------------------------------------------


@pytest.fixture
async def _trio_tunnel_server(
    _tunnel_key: str, tunnel_server_config: dict[str, Any]
) -> AsyncIterator[EmbeddedServer]:
    from tunnel.testing import rig

    async with rig.open_server(_tunnel_key, tunnel_server_config) as server:
        yield server


@pytest.fixture
async def _trio_link_fault(tunnel_server: EmbeddedServer) -> AsyncIterator[LinkFault]:
    from tunnel.testing import rig

    async with rig.open_fault(tunnel_server) as fault:
        yield fault


@pytest.fixture
async def _trio_tunnel_client(
    tunnel_server: EmbeddedServer,
    link_fault: LinkFault,
    _tunnel_key: str,
    tunnel_client_config: dict[str, Any],
) -> AsyncIterator[ClientLink]:
    from tunnel.testing import rig

    opened = rig.open_client(tunnel_server, link_fault, _tunnel_key, tunnel_client_config)
    async with opened as link:
        yield link


@pytest.fixture
async def _trio_public_url(
    tunnel_client: ClientLink,
) -> AsyncIterator[Callable[[Published], Awaitable[str]]]:
    from tunnel.testing import rig

    async with rig.open_urls(tunnel_client) as urls:
        yield urls


@pytest.fixture
async def _trio_tunnel_visit(
    tunnel_server: EmbeddedServer,
) -> Callable[[Address], AbstractAsyncContextManager[trio.abc.HalfCloseableStream]]:
    from tunnel.testing import rig

    return rig.visitor(tunnel_server)


# --- In a thread ------------------------------------------------------------------------------


@pytest.fixture
def _tunnel_thread() -> Iterator[TrioThread]:
    from tunnel.testing.thread import TrioThread

    with TrioThread() as thread:
        yield thread


@pytest.fixture
def _threaded_tunnel_server(
    _tunnel_thread: TrioThread, _tunnel_key: str, tunnel_server_config: dict[str, Any]
) -> Iterator[ThreadedServer]:
    from tunnel.testing import rig, thread

    opened = rig.open_server(_tunnel_key, tunnel_server_config)
    with _tunnel_thread.opened(opened) as server:
        yield thread.ThreadedServer(_tunnel_thread, server)


@pytest.fixture
def _threaded_link_fault(
    _tunnel_thread: TrioThread, tunnel_server: ThreadedServer
) -> Iterator[ThreadedFault]:
    from tunnel.testing import rig, thread

    with _tunnel_thread.opened(rig.open_fault(tunnel_server.server)) as fault:
        yield thread.ThreadedFault(_tunnel_thread, fault)


@pytest.fixture
def _threaded_tunnel_client(
    _tunnel_thread: TrioThread,
    tunnel_server: ThreadedServer,
    link_fault: ThreadedFault,
    _tunnel_key: str,
    tunnel_client_config: dict[str, Any],
) -> Iterator[ThreadedClient]:
    from tunnel.testing import rig, thread

    opened = rig.open_client(
        tunnel_server.server, link_fault.fault, _tunnel_key, tunnel_client_config
    )
    with _tunnel_thread.opened(opened) as link:
        yield thread.ThreadedClient(_tunnel_thread, link)


@pytest.fixture
def _threaded_public_url(
    _tunnel_thread: TrioThread, tunnel_client: ThreadedClient
) -> Iterator[Callable[[Published], str]]:
    from tunnel.testing import rig

    with _tunnel_thread.opened(rig.open_urls(tunnel_client.link)) as urls:
        yield lambda what: _tunnel_thread.run(urls, what)
