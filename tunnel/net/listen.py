"""Listening: binding an address, and accepting in bursts."""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator

import trio

from tunnel import limits
from tunnel.model import ANY, Address
from tunnel.net.link import Link
from tunnel.net.transport import keep_alive, no_delay, plain_address

logger = logging.getLogger(__name__)

#: What a machine without IPv6 (or without IPv4) answers.
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
#: The process, or the machine, has no descriptor or memory left; this passes.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EVERYWHERE = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104  # asked for
#: What is accepted has the listener's options, at no cost for each (Linux: `sk_clone_lock` in
#: net/core/sock.c copies them).
_INHERITED = sys.platform == "linux"


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Bind and listen, with `SO_REUSEADDR` and without `SO_REUSEPORT`.

    Args:
      host: a literal IPv4 or IPv6 address, or "*" for every address of the machine: then there are
        two sockets, one for each family that the machine has, with the same port.
      port: 0 for any free one.

    Raises:
      OSError: it cannot be bound; nothing is left open.
    """
    places = _EVERYWHERE if host == ANY else ((_family(host), host),)
    failure = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    # A port that the system picked on IPv4 may be taken on IPv6; then another one is tried.
    for _ in range(limits.MAX_FAMILY_TRIES if len(places) > 1 and port == 0 else 1):
        listeners: list[socket.socket] = []
        for family, address in places:
            try:
                listeners.append(_unbound(family))
                listeners[-1].bind((address, listeners[0].getsockname()[1] or port))
                listeners[-1].listen(limits.LISTEN_BACKLOG)
            except OSError as error:
                failure = error
                if len(places) == 1 or error.errno not in _NO_SUCH_FAMILY:
                    _close_unbound(listeners, everything=True)
                    break
                _close_unbound(listeners)
        else:
            if listeners:
                return listeners
        if failure.errno != errno.EADDRINUSE:
            break
    raise failure


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _unbound(family: socket.AddressFamily) -> socket.socket:
    """A socket with the options of every listener of ours."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if sys.platform == "win32":
            # There SO_REUSEADDR would let another program take the port as well.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keep_alive(sock)
        no_delay(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_unbound(listeners: list[socket.socket], *, everything: bool = False) -> None:
    """Close, and forget, those that have no port: their family is one that the machine lacks."""
    for sock in tuple(listeners):
        if everything or not sock.getsockname()[1]:
            sock.close()  # no task waits for it yet
            listeners.remove(sock)


def close_all(listeners: list[socket.socket]) -> None:
    """Stop listening; a task that waits for one of them gets `ClosedResourceError`."""
    for listener in listeners:
        if listener.fileno() >= 0:
            trio.lowlevel.notify_closing(listener)
            listener.close()


async def wait_connection(listener: socket.socket) -> None:
    """Wait until a connection is there to be accepted."""
    await trio.lowlevel.wait_readable(listener)


def accept_burst(listener: socket.socket) -> Iterator[tuple[socket.socket, Address]]:
    """The connections that wait now, at most `limits.ACCEPT_BURST`, and where each is from.

    Raises:
      OSError: the process has no descriptor left (see `exhausted`); more may wait.
    """
    for _ in range(limits.ACCEPT_BURST):
        try:
            sock, name = listener.accept()
            sock.setblocking(False)
            if not _INHERITED:
                keep_alive(sock)
                no_delay(sock)
        except BlockingIOError:
            return
        except OSError as error:
            if exhausted(error):
                raise
            # This one went before it was accepted (accept(2), "Error handling"); on to the next.
            continue
        yield sock, plain_address(name)


class Shortage:
    """Descriptors have run out: says so, and lets all listeners take turns in trying again.

    Of all listeners that share one only one or two try each time, or thousands would keep the
    process busy with nothing. When that works, others try at once, and so on.
    """

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        #: True while one of them waits for the pause to pass, and tries then.
        self._pausing = False
        self._say_again_at = -math.inf

    def over(self) -> None:
        """Accepting works: the next two that wait may try, and so on."""
        if self._waiting:
            self._waiting.unpark(count=2)

    async def wait(self, error: OSError, **details: object) -> None:
        """Accepting failed: say so if it is news, and wait for the time to try again.

        Args:
          error: why.
          details: go into the log line.
        """
        self._say(details | {"error": error.strerror})
        if self._pausing:
            await self._waiting.park()
            if self._pausing:
                return  # told by `over`; another one waits for the pauses to pass
        self._pausing = True
        try:
            await trio.sleep(limits.ACCEPT_PAUSE)
        finally:
            self._pausing = False
            self._waiting.unpark()

    def _say(self, details: dict[str, object]) -> None:
        now = trio.current_time()
        if now >= self._say_again_at:
            logger.warning("Cannot accept", extra=details)
            self._say_again_at = now + limits.SHORTAGE_REMINDER


def exhausted(error: OSError) -> bool:
    """True if the error says that descriptors or memory have run out."""
    return error.errno in _EXHAUSTED


async def accept_loop(
    listener: socket.socket,
    accept: Callable[[socket.socket, Address], bool | None],
    shortage: Shortage,
    *,
    ready: Callable[[], Awaitable[object]] | None = None,
    done: Callable[[], None] = lambda: None,
    **details: object,
) -> None:
    """Accept connections in bursts, until cancelled or until the listener is closed.

    Args:
      listener: closed by its owner, not by this loop.
      accept: called with each connection, which it owns from then on, and with where it is from; a
        true value ends the burst.
      shortage: shared by those that are to take turns when descriptors have run out.
      ready: waited for before each burst.
      done: called after each burst, also after one that found no descriptor.
      details: go into the log line about a shortage.

    Raises:
      trio.ClosedResourceError: the listener was closed by `close_all`.
    """
    while True:
        await wait_connection(listener)
        if ready is not None:
            await ready()
        try:
            for sock, source in accept_burst(listener):
                if accept(sock, source):
                    break
        except OSError as error:
            # What was accepted does not wait for what could not be.
            done()
            await shortage.wait(error, **details)
        else:
            done()
            shortage.over()


async def accept_visitors(
    listener: socket.socket,
    link: Link,
    admit: Callable[[socket.socket, Address], None],
    shortage: Shortage,
    **details: object,
) -> None:
    """Accept visitors, in bursts, once the link runs, until cancelled or until the listener closes.

    Each takes a stream of the link; while it takes no other, visitors queue in the kernel.

    Args:
      listener, shortage, details: as for `accept_loop`, which also says what is raised.
      link: flushed after each burst.
      admit: gives the visitor to the link's carrier, or closes it.
    """

    def accept(sock: socket.socket, source: Address) -> bool:
        admit(sock, source)
        return not link.can_open()

    def done() -> None:
        link.carrier.look()
        link.flush()

    await link.running.wait()
    await accept_loop(listener, accept, shortage, ready=link.wait_can_open, done=done, **details)
