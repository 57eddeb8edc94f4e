"""One published proxy: its bound sockets, and the visitors who come."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

import attrs
import trio

from tunnel.events import ProxyPublished, ProxyWithdrawn
from tunnel.model import Address
from tunnel.net.link import Link
from tunnel.net.listen import (
    accept_burst,
    close_all,
    open_listeners,
    wait_connection,
)
from tunnel.net.transport import own_address
from tunnel.protocol.messages import Bound, Rejected
from tunnel.protocol.preamble import build_preamble
from tunnel.server.registry import Registry, Seat
from tunnel.server.visitors import Guest, Visitors
from tunnel.stats import Counters
from tunnel.views import ProxyStatistics

logger = logging.getLogger(__name__)

#: Lets a proxy be visited by other clients within a block; False if it cannot be.
Offer: TypeAlias = Callable[[], AbstractContextManager[bool]]


@attrs.define(eq=False)
class Proxy:
    """A port that a client wants published, as the server keeps it."""

    proxy_id: int
    name: str
    host: str
    port: int
    preferred_port: int
    local_port: int
    visitors: Visitors
    #: Without a public port: other clients visit it, and nobody else.
    visitors_only: bool = False
    #: The clients that may; none is every one.
    allow_visitors: tuple[str, ...] = ()
    #: For the proof of a visit, if it has a secret.
    visit_nonce: bytes = b""
    start_time: float = attrs.field(factory=time.time)
    counters: Counters = attrs.field(factory=Counters)
    addresses: tuple[Address, ...] = ()
    #: It can be visited by other clients now.
    offered: bool = False
    #: Why it is not published, or was not at first.
    rejection: Rejected | None = None
    #: One for each task that holds its port or waits for it.
    _held: set[trio.CancelScope] = attrs.field(factory=set, init=False)
    _let_go: trio.Event | None = attrs.field(default=None, init=False)

    def answer(self) -> Bound | Rejected:
        """What has become of it, once it was tried."""
        if self.up:
            return Bound(self.proxy_id, self.addresses)
        assert self.rejection is not None  # one of the two  # noqa: S101
        return self.rejection

    @property
    def up(self) -> bool:
        """True while it is published, or can be visited if that is all that is wanted."""
        return bool(self.addresses) or (self.visitors_only and self.offered)

    def become(self, other: Proxy) -> None:
        """Be what the client wants now; the port and those who are there stay."""
        self.preferred_port = other.preferred_port
        self.local_port = other.local_port
        self.visitors.allow_from = other.visitors.allow_from
        self.allow_visitors, self.visit_nonce = other.allow_visitors, other.visit_nonce

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold its port, or wait for it, within this block, which `withdraw` cancels."""
        with trio.CancelScope() as scope:
            self._held.add(scope)
            try:
                yield
            finally:
                self._held.remove(scope)
                if self._let_go is not None and not self._held:
                    self._let_go.set()

    @property
    def wanted(self) -> bool:
        """True while a task holds its port or waits for it."""
        return bool(self._held)

    async def withdraw(self) -> None:
        """End those tasks; when it returns the port is free. Visitors who are there go on."""
        while self._held:
            self._let_go = trio.Event()
            for scope in self._held:
                scope.cancel()
            await self._let_go.wait()

    def tell_published(self) -> None:
        """Tell the program that runs the server that it can be visited."""
        visitors = self.visitors
        visitors.lobby.tell(ProxyPublished(visitors.owner, self.name, self.addresses))

    def tell_withdrawn(self) -> None:
        """And that it cannot any more."""
        self.visitors.lobby.tell(ProxyWithdrawn(self.visitors.owner, self.name))

    def statistics(self) -> ProxyStatistics:
        """The proxy now."""
        return ProxyStatistics(
            self.name,
            self.addresses,
            self.local_port,
            self.start_time,
            self.counters.statistics(),
        )


async def listen(
    proxy: Proxy,
    port: int,
    seat: Seat,
    registry: Registry,
    link: Link,
    offer: Offer,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Own the sockets of a published proxy, and accept visitors until cancelled.

    It has started when the port is bound; it has released the port when it returns. While it has
    it other clients may visit it as well, if no other proxy has its name and port.

    Raises:
      OSError: the port cannot be bound (before it has started); EDQUOT if the sessions of the
        identity hold as many as they may.
    """
    if registry.full(seat):
        raise OSError(errno.EDQUOT, "this identity has as many proxies as it may have")
    listeners = open_listeners(proxy.host, port)
    port = own_address(listeners[0]).port
    if registry.kept_from(seat, port):
        close_all(listeners)
        raise OSError(errno.EADDRINUSE, "another session is changing what it has there")
    registry.hold(seat, proxy.host, port)
    proxy.addresses = tuple(map(own_address, listeners))
    with proxy.held():
        try:
            with offer() as offered:
                proxy.offered = offered
                proxy.tell_published()
                task_status.started()
                await _accept_all(listeners, proxy, link)
        finally:
            proxy.addresses, proxy.offered = (), False
            close_all(listeners)
            registry.release(seat, proxy.host, port)
            proxy.tell_withdrawn()


async def attend(
    proxy: Proxy,
    seat: Seat,
    registry: Registry,
    offer: Offer,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Let other clients visit a proxy that has no public port, until cancelled.

    Raises:
      OSError: another proxy has its name and port, or EDQUOT, as for `listen`.
    """
    if registry.full(seat):
        raise OSError(errno.EDQUOT, "this identity has as many proxies as it may have")
    with offer() as offered:
        if not offered:
            raise OSError(errno.EADDRINUSE, "another proxy is visited by that name and port")
        proxy.offered = True
        registry.enter(seat)
        with proxy.held():
            try:
                proxy.tell_published()
                task_status.started()
                await trio.sleep_forever()
            finally:
                proxy.offered = False
                registry.leave(seat)
                proxy.tell_withdrawn()


async def _accept_all(listeners: list[socket.socket], proxy: Proxy, link: Link) -> None:
    async with trio.open_nursery() as nursery:
        for listener in listeners[1:]:
            nursery.start_soon(_accept_visitors, listener, proxy, link)
        await _accept_visitors(listeners[0], proxy, link)


async def _accept_visitors(listener: socket.socket, proxy: Proxy, link: Link) -> None:
    shortage, here = proxy.visitors.lobby.shortage, own_address(listener)
    # Bound to one address, it is what everybody has reached; else each is asked for.
    reached = None if ipaddress.ip_address(here.host).is_unspecified else here
    await link.running.wait()
    while True:
        await wait_connection(listener)
        await link.wait_can_open()
        try:
            for visitor, source in accept_burst(listener):
                _admit(visitor, source, reached, proxy, link)
                if not link.can_open():
                    break
            link.carrier.look()
        except OSError as error:
            link.flush()  # those who came in do not wait for those who cannot
            await shortage.wait(error, proxy=proxy.name)
        else:
            link.flush()
            shortage.over()


def _admit(
    visitor: socket.socket, source: Address, reached: Address | None, proxy: Proxy, link: Link
) -> None:
    """A stream for the visitor; the preamble tells the client whose it is and for which proxy."""
    try:
        destination = reached or own_address(visitor)
    except OSError:
        visitor.close()  # it has gone already
        return
    if (reason := proxy.visitors.ask(source)) is not None:
        proxy.visitors.turn_away(visitor, source, reason)
        return
    link.carrier.adopt(visitor, *introduce(source, destination, proxy, link))


def introduce(source: Address, destination: Address, proxy: Proxy, link: Link) -> tuple[int, Guest]:
    """Open a stream for a visitor who may come in, and tell the client whose it is.

    Returns the stream, for whoever carries the visitor, and the visit. Flush the link after it.
    """
    connection_id = random.randbytes(8)  # noqa: S311  # not a secret: both logs have it
    stream_id = link.open_stream()
    link.send(stream_id, build_preamble(source, destination, proxy.proxy_id, connection_id))
    connection = connection_id.hex()
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "Visitor connected",
            extra={"proxy": proxy.name, "connection": connection, "address": str(source)},
        )
    return stream_id, proxy.visitors.guest(source, connection, proxy.counters)
