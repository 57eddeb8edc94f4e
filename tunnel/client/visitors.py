"""Local ports that lead to other clients' proxies: whoever connects to one is a guest there."""

from __future__ import annotations

import errno
import logging
import random
import socket

import attrs
import trio
from trio_util import AsyncValue

from tunnel import limits
from tunnel.model import Address, ResetCode
from tunnel.net.carrier import Visit
from tunnel.net.link import Link
from tunnel.net.listen import (
    Shortage,
    accept_burst,
    close_all,
    open_listeners,
    wait_connection,
)
from tunnel.net.transport import own_address
from tunnel.protocol.messages import Target, VisitorRequest
from tunnel.protocol.preamble import build_visit_preamble
from tunnel.stats import Counters

logger = logging.getLogger(__name__)

#: What to do about a local port that cannot be listened on.
_REMEDIES = {
    errno.EADDRINUSE: "end the program that has the port, or change bind_port",
    errno.EACCES: "take a bind_port of 1024 or more, or give this program the right to a lower one",
    errno.EADDRNOTAVAIL: "change bind_addr to an address of this machine",
}
#: What the server, and not the service, ends a guest's stream with.
_REFUSALS = {ResetCode.AWAY, ResetCode.NOT_ALLOWED, ResetCode.UNKNOWN_PROXY, ResetCode.LIMIT}


@attrs.define(eq=False)
class LocalVisitor:
    """Another client's proxy, and the local port that leads there.

    Args:
      name: the proxy's name.
      publish_port: the proxy's; 0 for the only one of that name.
      bind_addr, bind_port: where guests connect to.
      owner: the name of the client that must have it; empty for any.
    """

    name: str
    publish_port: int
    bind_addr: str
    bind_port: int
    owner: str = ""
    counters: Counters = attrs.field(factory=Counters, init=False)
    #: Where it listens now.
    addresses: tuple[Address, ...] = attrs.field(default=(), init=False)
    #: The client that has the proxy now; empty while it cannot be visited.
    owned_by: str = attrs.field(default="", init=False)
    #: The local address, while whoever connects there reaches the proxy; else None.
    reach: AsyncValue[Address | None] = attrs.field(factory=lambda: AsyncValue(None), init=False)
    _quiet_until: float = attrs.field(default=0.0, init=False)

    def request(self, number: int) -> VisitorRequest:
        """What the server is asked for."""
        return VisitorRequest(number, self.name, self.publish_port, self.owner)

    def told(self, notice: Target) -> None:
        """What has become of the proxy, by the server."""
        self.owned_by = notice.owner
        self._look()
        if notice.reason:
            extra = {"proxy": self.name, "reason": notice.reason}
            logger.warning("Target away", extra=extra)
        else:
            extra = {"proxy": self.name, "owner": notice.owner}
            logger.info("Target present", extra=extra)

    async def serve(self, number: int, link: Link) -> None:
        """Own the local port, and let guests in, until cancelled: then the port is free."""
        listeners: list[socket.socket] = []
        try:
            listeners = await self._bind()
            self.addresses = tuple(map(own_address, listeners))
            where = ", ".join(map(str, self.addresses))
            logger.info("Visitor ready", extra={"proxy": self.name, "address": where})
            self._look()
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(self._accept, listener, number, link)
        finally:
            self.addresses, self.owned_by = (), ""
            self._look()
            close_all(listeners)

    def _look(self) -> None:
        self.reach.value = self.addresses[0] if self.addresses and self.owned_by else None

    async def _bind(self) -> list[socket.socket]:
        """Listen as soon as the port is free; what is in the way is said once."""
        pause, said = limits.BIND_RETRY_FIRST, False
        while True:
            try:
                return open_listeners(self.bind_addr, self.bind_port)
            except OSError as error:
                if not said:
                    said = True
                    self._say_busy(error)
            await trio.sleep(pause)
            pause = min(2 * pause, limits.BIND_RETRY_LAST)

    def _say_busy(self, error: OSError) -> None:
        logger.warning(
            "Visitor cannot listen",
            extra={
                "proxy": self.name,
                "address": str(Address(self.bind_addr, self.bind_port)),
                "reason": error.strerror or str(error),
                "remedy": _REMEDIES.get(error.errno or 0, "change bind_addr or bind_port"),
                "again": "this client keeps trying",
            },
        )

    async def _accept(self, listener: socket.socket, number: int, link: Link) -> None:
        shortage = Shortage()
        await link.running.wait()
        while True:
            await wait_connection(listener)
            await link.wait_can_open()
            try:
                for guest, source in accept_burst(listener):
                    self._admit(guest, source, number, link)
                    if not link.can_open():
                        break
                link.carrier.look()
            except OSError as error:
                link.flush()
                await shortage.wait(error, proxy=self.name)
            else:
                link.flush()
                shortage.over()

    def _admit(self, guest: socket.socket, source: Address, number: int, link: Link) -> None:
        try:
            destination = own_address(guest)
        except OSError:
            guest.close()  # it has gone already
            return
        connection = random.randbytes(8)  # noqa: S311  # not a secret: all logs have it
        stream_id = link.open_stream()
        link.send(stream_id, build_visit_preamble(source, destination, number, connection))
        visit = Visit(
            self.name,
            connection.hex(),
            self.counters,
            ResetCode.VISITOR_RESET,
            on_end=lambda code: self._ended(connection, code),
        )
        link.carrier.adopt(guest, stream_id, visit)

    def _ended(self, connection: bytes, code: ResetCode | None) -> None:
        """Say why the server let a guest not in; not too often, for guests could fill the log."""
        now = trio.current_time()
        if code in _REFUSALS and now >= self._quiet_until:
            self._quiet_until = now + limits.LOCAL_COMPLAINT_INTERVAL
            logger.warning(
                "Visit refused",
                extra={"proxy": self.name, "connection": connection.hex(), "reason": code.text},
            )
