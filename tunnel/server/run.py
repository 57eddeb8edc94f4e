"""The server itself: it accepts clients, and never waits for one of them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import trio

from tunnel import limits
from tunnel.handles import ServerHandle, SessionStatistics
from tunnel.net.listen import Shortage, accept_burst, close_all, wait_connection
from tunnel.net.transport import own_address
from tunnel.server.admission import TokenBucket
from tunnel.server.session import Server, serve_client

logger = logging.getLogger(__name__)


async def run_server(
    server: Server,
    listeners: list[socket.socket],
    *,
    rate: TokenBucket | None = None,
    pin: str = "",
    task_status: trio.TaskStatus[ServerHandle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve clients until drained or cancelled; every port is free when it returns.

    Args:
      server: what all sessions share.
      listeners: bound and listening; closed here.
      rate: how fast new connections are taken; those beyond are closed at once.
      pin: shown in the log, for the client's file.
      task_status: told a `ServerHandle` when the server is ready.
    """
    try:
        async with trio.open_nursery() as sessions:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(_accept_clients, listener, sessions, server, rate)
                task_status.started(_handle(server, listeners, pin))
                await server.draining.wait()
                accepting.cancel_scope.cancel()
            # The sessions see that the server drains and end by themselves; whoever is still in
            # the middle of a handshake does not.
            sessions.cancel_scope.deadline = (
                trio.current_time() + server.policy.shutdown_grace + limits.GOODBYE
            )
    finally:
        logger.info("Server stopped")


def _handle(server: Server, listeners: list[socket.socket], pin: str) -> ServerHandle:
    addresses = tuple(map(own_address, listeners))
    for address in addresses:
        logger.info("Server listening", extra={"address": str(address), "pin": pin})
    return ServerHandle(addresses, pin, _statistics(server), server.draining.set)


def _statistics(server: Server) -> Callable[[], tuple[SessionStatistics, ...]]:
    return lambda: tuple(session.statistics() for session in server.sessions.values())


async def _accept_clients(
    listener: socket.socket, sessions: trio.Nursery, server: Server, rate: TokenBucket | None
) -> None:
    """Every connection gets a task of its own before a byte of it is read."""
    shortage = Shortage()
    try:
        while True:
            await wait_connection(listener)
            try:
                for sock in accept_burst(listener):
                    if _admits(server, rate):
                        sessions.start_soon(serve_client, sock, server)
                    else:
                        sock.close()
                shortage.over()
            except OSError as error:
                await shortage.wait(error)
    finally:
        close_all([listener])


def _admits(server: Server, rate: TokenBucket | None) -> bool:
    if server.strangers >= limits.MAX_STRANGERS:
        return False
    return rate is None or rate.take(trio.current_time())
