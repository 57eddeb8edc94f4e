"""What TLS runs over: a TCP socket, or any Trio stream (in tests, in memory).

A transport can send without waiting (`send_nowait`), which is what lets one task put a whole
batch on the wire without a task switch.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import trio

from tunnel import limits
from tunnel.model import Address, unmap
from tunnel.net.records import Buffer

#: struct linger { on = 1, seconds = 0 }: closing sends RST and drops what is unsent.
_RESET = struct.pack("ii", 1, 0)
_GRACEFUL = struct.pack("ii", 0, 0)
#: The fields of `TcpInfo` in Linux's struct tcp_info (include/uapi/linux/tcp.h).
_TCP_INFO = struct.Struct("=7xB112xQQ24xQ")
#: As many as `sendmsg` takes in one call (IOV_MAX of Linux, the BSDs and macOS; POSIX asks for 16).
_PARTS = 1024


class TcpInfo(NamedTuple):
    """What TCP itself says of a connection.

    Args:
      app_limited: in its lowest bit: the sender had too little to send for the rate to mean much.
      acknowledged: bytes that the peer has acknowledged; of a connection that was dialled from
        here its SYN is one.
      received: bytes that came from the peer.
      delivery_rate: bytes a second that reached the peer lately; 0 if that is not known.
    """

    app_limited: int
    acknowledged: int
    received: int
    delivery_rate: int


def tcp_info(sock: socket.socket) -> TcpInfo | None:
    """See `TcpInfo`; None for what is not TCP, and where the system does not tell.

    Linux does, from 4.9 on (tcp(7), TCP_INFO).
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        return TcpInfo(*_TCP_INFO.unpack(info))
    except (AttributeError, OSError, struct.error):
        return None


def reset_on_close(sock: socket.socket) -> None:
    """From now on closing the socket, or the end of the process, resets the connection.

    A killed process would otherwise end its connections with a FIN, and half a download would
    look like a whole one.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def finish_on_close(sock: socket.socket) -> None:
    """From now on closing the socket sends what is unsent, then FIN."""
    try:  # noqa: SIM105  # `suppress` would cost more than the call
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _GRACEFUL)
    except OSError:
        pass


def set_option(sock: socket.socket, level: int, option: str, value: int) -> None:
    """Set an option by its name, where the platform has it and the socket takes it."""
    number = getattr(socket, option, None)
    if number is not None:
        try:  # noqa: SIM105  # `suppress` would cost more than the call
            sock.setsockopt(level, number, value)
        except OSError:
            pass


def keep_alive(sock: socket.socket) -> None:
    """Have TCP ask an idle peer for a sign of life, and end the connection of one that is gone.

    For visitors and local services, whose silence is all right for hours. (A link has a keepalive
    of its own.) On a listening socket it holds for what is accepted from it, at no cost for each.
    """
    set_option(sock, socket.SOL_SOCKET, "SO_KEEPALIVE", 1)
    set_option(sock, socket.IPPROTO_TCP, "TCP_KEEPIDLE", limits.TCP_KEEPALIVE_IDLE)
    set_option(sock, socket.IPPROTO_TCP, "TCP_KEEPINTVL", limits.TCP_KEEPALIVE_INTERVAL)
    set_option(sock, socket.IPPROTO_TCP, "TCP_KEEPCNT", limits.TCP_KEEPALIVE_COUNT)


def prepare(sock: socket.socket) -> None:
    """What every TCP socket here wants: no blocking, no delay of small segments."""
    sock.setblocking(False)
    no_delay(sock)


def no_delay(sock: socket.socket) -> None:
    """Have TCP send small segments at once."""
    set_option(sock, socket.IPPROTO_TCP, "TCP_NODELAY", 1)


def peer_address(sock: socket.socket) -> Address:
    """Who is at the other end; an IPv4-mapped address as IPv4."""
    return plain_address(sock.getpeername())


def own_address(sock: socket.socket) -> Address:
    """What the socket is bound to; an IPv4-mapped address as IPv4."""
    return plain_address(sock.getsockname())


def plain_address(name: tuple[str, int] | tuple[str, int, int, int] | str) -> Address:
    """An address as a socket has it, without a zone; an IPv4-mapped one as IPv4."""
    if not isinstance(name, tuple):
        return Address("unix", 0)
    host = name[0]
    return Address(unmap(host.partition("%")[0]) if ":" in host else host, name[1])


class Transport(ABC):
    """A stream of bytes, with a way to send that never waits."""

    @abstractmethod
    async def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes, put them into `buffer`, return how many; 0 at the end. A checkpoint.

        Nothing is awaited after `buffer` was filled, so that it may be shared.

        Raises:
          BrokenResourceError, ClosedResourceError: as a Trio stream does.
        """

    @abstractmethod
    def send_nowait(self, parts: Sequence[Buffer]) -> int:
        """Send what can be sent at once of these, in order, and return how many bytes that was.

        Raises:
          BrokenResourceError: nothing can be sent any more.
        """

    @abstractmethod
    def delivery_rate(self) -> float | None:
        """Bytes a second that the network was seen to deliver last; None if it is not known.

        Nor is it known while it is given less than it would carry.
        """

    @abstractmethod
    def limit_unsent(self, size: int) -> None:
        """Let the kernel hold about so many bytes that it has not sent, where it knows how."""

    @abstractmethod
    async def send_some(self, parts: Sequence[Buffer]) -> int:
        """Wait until something of these can be sent, and return how much that was. A checkpoint.

        Cancelled, it has sent nothing, or (a Trio stream cannot say how much) it is broken.

        Raises:
          BrokenResourceError: nothing can be sent any more.
        """

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until `send_some` might not wait."""

    @abstractmethod
    async def send_eof(self) -> None:
        """Say that no more will come, where the stream can say so."""

    def own_address(self) -> Address:
        """This end of the connection; nowhere if there is no such thing."""
        return Address("0.0.0.0", 0)  # noqa: S104  # not an address to listen on

    @abstractmethod
    def abort(self) -> None:
        """Close at once, dropping what is unsent. May be called twice."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close, without dropping what was sent."""


class SocketTransport(Transport):
    """TCP. Owns the socket, which must not block."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._more = False
        self.limit_unsent(limits.BATCH)

    async def receive_into(self, buffer: memoryview) -> int:
        """See `Transport`."""
        # The last read left nothing, most likely: then waiting at once saves a futile read.
        if self._more:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self.sock)
        while True:
            try:
                size = self._receive_nowait(buffer)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)
            else:
                self._more = size == len(buffer)
                return size

    def _receive_nowait(self, buffer: memoryview) -> int:
        try:
            return self.sock.recv_into(buffer)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._broken(error) from error

    def send_nowait(self, parts: Sequence[Buffer]) -> int:
        """See `Transport`."""
        try:
            if len(parts) == 1:
                return self.sock.send(parts[0])
            return self.sock.sendmsg(parts if len(parts) <= _PARTS else parts[:_PARTS])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._broken(error) from error

    async def send_some(self, parts: Sequence[Buffer]) -> int:
        """See `Transport`."""
        sent = 0
        while not sent:
            await trio.lowlevel.wait_writable(self.sock)
            sent = self.send_nowait(parts)
        return sent

    def delivery_rate(self) -> float | None:
        """See `Transport`: TCP's own estimate, where there is one."""
        info = tcp_info(self.sock)
        if info is None or info.app_limited & 1:
            return None
        return float(info.delivery_rate) or None

    def limit_unsent(self, size: int) -> None:
        """See `Transport`."""
        set_option(self.sock, socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", size)

    async def wait_writable(self) -> None:
        """See `Transport`."""
        await trio.lowlevel.wait_writable(self.sock)

    def own_address(self) -> Address:
        """See `Transport`."""
        try:
            return own_address(self.sock)
        except OSError:
            return super().own_address()

    def _broken(self, error: OSError) -> Exception:
        if self.sock.fileno() < 0:
            return trio.ClosedResourceError("this end was closed")
        return trio.BrokenResourceError(error.strerror or str(error))

    async def send_eof(self) -> None:
        """See `Transport`."""
        await trio.lowlevel.checkpoint()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """See `Transport`."""
        if self.sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                reset_on_close(self.sock)
            self._close()

    async def aclose(self) -> None:
        """See `Transport`."""
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()


class StreamTransport(Transport):
    """Any Trio stream. It has no way to send without waiting, so nothing is sent that way."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._torn = False

    async def receive_into(self, buffer: memoryview) -> int:
        """See `Transport`."""
        data = await self._stream.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send_nowait(self, parts: Sequence[Buffer]) -> int:  # noqa: ARG002
        """See `Transport`."""
        return 0

    def delivery_rate(self) -> float | None:
        """See `Transport`: it is not known."""
        return None

    def limit_unsent(self, size: int) -> None:
        """See `Transport`: there is no kernel to be told."""

    async def send_some(self, parts: Sequence[Buffer]) -> int:
        """See `Transport`."""
        if self._torn:
            raise trio.BrokenResourceError("an earlier send was cancelled half-way")
        self._torn = True
        data = b"".join(parts)
        await self._stream.send_all(data)
        self._torn = False
        return len(data)

    async def wait_writable(self) -> None:
        """See `Transport`."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """See `Transport`."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    def abort(self) -> None:
        """See `Transport`: whatever part of the stream can be closed without waiting."""
        for part in (self._stream, *map(self._part, ("send_stream", "receive_stream"))):
            close = getattr(part, "close", None)
            if close is not None:
                close()

    def _part(self, name: str) -> object:
        return getattr(self._stream, name, None)

    async def aclose(self) -> None:
        """See `Transport`."""
        await self._stream.aclose()
