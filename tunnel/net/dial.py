"""Connecting: to a server by name, IPv4 and IPv6 raced; to a local service."""

from __future__ import annotations

import errno
import os
import socket

import trio

from tunnel.net.transport import no_delay, prepare

#: One that does not block from the start, where the system can make such: a call less for each.
_NEW = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)


async def connect_tcp(host: str, port: int) -> socket.socket:
    """Connect to a name or an address; the name is looked up now, its addresses are raced.

    Raises:
      OSError: none of them answered; `str()` says why.
    """
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise _plain(error) from error
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host!r} cannot be a name of a machine") from error
    return _detached(stream)


async def connect_unix(path: str) -> socket.socket:
    """Connect to a Unix socket.

    Raises:
      OSError: nothing listens there.
    """
    return _detached(await trio.open_unix_socket(path))


async def connect_address(host: str, port: int) -> socket.socket:
    """Connect to a literal address, without the machinery that names need.

    Raises:
      OSError: it does not answer.
    """
    sock, connected = begin_connect(host, port)
    if not connected:
        await finish_connect(sock)
    return sock


def begin_connect(host: str, port: int) -> tuple[socket.socket, bool]:
    """Begin to connect to a literal address. True if that is done, else `finish_connect` is next.

    The kernel calls every non-blocking connect "in progress", but a listener on the same machine
    has accepted by then: asking once more saves a task and its turn.

    Raises:
      OSError: there cannot be such a connection.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, _NEW)
    try:
        if _NEW == socket.SOCK_STREAM:
            sock.setblocking(False)
        no_delay(sock)
        result = sock.connect_ex((host, port))
        if result not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(result, os.strerror(result))
    except BaseException:
        sock.close()
        raise
    return sock, result == 0 or _is_connected(sock)


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


async def finish_connect(sock: socket.socket) -> None:
    """Wait for what `begin_connect` began. Whatever goes wrong, cancellation too, closes `sock`.

    Raises:
      OSError: it does not answer.
    """
    try:
        await trio.lowlevel.wait_writable(sock)
        if result := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(result, os.strerror(result))
    except BaseException:
        trio.lowlevel.notify_closing(sock)
        sock.close()
        raise


def _detached(stream: trio.SocketStream) -> socket.socket:
    sock = socket.socket(fileno=stream.socket.detach())
    prepare(sock)
    return sock


def _plain(error: OSError) -> OSError:
    """The reason under Trio's "all attempts to connect failed", in the system's own words."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and cause.errno is not None:
        error = cause
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error
    return OSError(error.errno, os.strerror(error.errno))
