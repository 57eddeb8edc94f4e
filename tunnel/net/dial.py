"""Connecting: to a server by name, IPv4 and IPv6 raced; to a local service."""

from __future__ import annotations

import errno
import os
import socket

import trio

from tunnel.net.transport import prepare


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
      OSError: nobody listens there.
    """
    return _detached(await trio.open_unix_socket(path))


async def connect_address(host: str, port: int) -> socket.socket:
    """Connect to a literal address, without the machinery that names need.

    Raises:
      OSError: it does not answer.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        prepare(sock)
        result = sock.connect_ex((host, port))
        if result in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            await trio.lowlevel.wait_writable(sock)
            result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise OSError(result, os.strerror(result))
    except BaseException:
        sock.close()
        raise
    return sock


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
