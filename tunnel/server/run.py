"""The server itself: it accepts clients, and never waits for one of them."""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

from tunnel import limits
from tunnel.events import ServerListening, ServerStopped
from tunnel.model import Address
from tunnel.net.listen import Shortage, accept_loop, close_all
from tunnel.net.transport import SocketTransport, Transport, own_address
from tunnel.server.certificate import CertificateKeeper
from tunnel.server.session import serve_client
from tunnel.server.state import Server
from tunnel.server.strangers import Stranger
from tunnel.views import ServerHandle, SessionStatistics


async def run_server(
    server: Server,
    listeners: list[socket.socket],
    *,
    certificate: CertificateKeeper | None = None,
    task_status: trio.TaskStatus[ServerHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve clients until drained or cancelled; every port is free when it returns.

    Args:
      server: what all sessions share.
      listeners: bound and listening; closed here.
      certificate: looked at while the server runs; None if it never changes.
      task_status: told a `ServerHandle` when the server is ready.
    """
    try:
        async with trio.open_nursery() as sessions:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(_accept_clients, listener, sessions, server)
                if certificate is not None:
                    accepting.start_soon(_follow, certificate, server)
                task_status.started(_handle(server, listeners, certificate))
                await server.draining.wait()
                accepting.cancel_scope.cancel()
            # The sessions see that the server drains and end by themselves; whoever is still in
            # the middle of a handshake does not.
            sessions.cancel_scope.deadline = (
                trio.current_time() + server.policy.shutdown_grace + limits.GOODBYE
            )
    finally:
        server.events.emit(ServerStopped())


def _handle(
    server: Server, listeners: list[socket.socket], certificate: CertificateKeeper | None
) -> ServerHandle:
    def reload() -> None:
        if certificate is not None:
            server.tls = certificate.look(asked=True)

    pin = "" if certificate is None else certificate.pin
    addresses = tuple(map(own_address, listeners))
    for address in addresses:
        server.events.emit(ServerListening(address, pin))
    return ServerHandle(
        addresses,
        pin,
        _statistics(server),
        server.draining.set,
        reload,
        server.update,
        server.reserved,
    )


def _statistics(server: Server) -> Callable[[], tuple[SessionStatistics, ...]]:
    return lambda: tuple(session.statistics() for session in server.sessions.values())


async def _follow(certificate: CertificateKeeper, server: Server) -> None:
    """Show the certificate that is in the files. Every connection keeps the one it began with."""
    while True:
        await trio.sleep(limits.CERTIFICATE_POLL_INTERVAL)
        server.tls = certificate.look()


async def _accept_clients(listener: socket.socket, sessions: trio.Nursery, server: Server) -> None:
    """Every connection gets a task of its own before a byte of it is read."""

    def accept(sock: socket.socket, _source: Address) -> None:
        stranger = server.strangers.receive(sock)
        if stranger is not None:
            sessions.start_soon(serve, SocketTransport(sock), server, stranger)

    try:
        # Its shortage of descriptors is its own: visitors cannot keep clients out of their turn.
        await accept_loop(listener, accept, Shortage())
    finally:
        close_all([listener])


async def serve(transport: Transport, server: Server, stranger: Stranger) -> None:
    """Serve whoever has a place among the strangers, and give the place back."""
    try:
        with stranger.scope:
            await serve_client(transport, server, stranger)
    finally:
        server.strangers.left(stranger)
