"""Local ports that lead to other clients' proxies: what connects to one is a visitor there."""

from __future__ import annotations

import errno
import logging
import random
import secrets
import socket

import attrs
import trio
from trio_util import AsyncValue

from tunnel import limits
from tunnel.client.visit_auth import ProvingEndpoint
from tunnel.model import Address, ResetCode
from tunnel.net.carrier import CarriedConnection
from tunnel.net.link import Link
from tunnel.net.listen import Shortage, accept_visitors, close_all, open_listeners
from tunnel.net.transport import own_address, reset_on_close
from tunnel.protocol.messages import Target, VisitorRequest
from tunnel.protocol.preamble import build_visit_preamble
from tunnel.protocol.proofs import VISIT_NONCE_SIZE, VisitTranscript
from tunnel.stats import Counters

logger = logging.getLogger(__name__)

#: What to do about a local port that cannot be listened on.
_REMEDIES = {
    errno.EADDRINUSE: "end the program that has the port, or change bind_port",
    errno.EACCES: "take a bind_port of 1024 or more, or give this program the right to a lower one",
    errno.EADDRNOTAVAIL: "change bind_addr to an address of this machine",
}
#: What a visitor's stream is ended with by the server or the owner, and not by the service.
_TURNED_AWAY = {
    ResetCode.AWAY,
    ResetCode.NOT_ALLOWED,
    ResetCode.UNKNOWN_PROXY,
    ResetCode.LIMIT,
    ResetCode.WRONG_SECRET,
    ResetCode.UNPROVED,
}


@attrs.define(eq=False)
class VisitPort:
    """Another client's proxy, and the local port that leads there.

    Args:
      name: the proxy's name.
      publish_port: the proxy's; 0 for the only one of that name.
      bind_addr, bind_port: where visitors connect to.
      owner: the name of the client that must have it; empty for any.
      visit_key: from the secret that both clients know; None if there is none.
    """

    name: str
    publish_port: int
    bind_addr: str
    bind_port: int
    owner: str = ""
    visit_key: bytes | None = attrs.field(default=None, repr=False, kw_only=True)
    counters: Counters = attrs.field(factory=Counters, init=False)
    #: Where it listens now.
    addresses: tuple[Address, ...] = attrs.field(default=(), init=False)
    #: The local address, while a connection to it reaches the proxy; else None.
    reach: AsyncValue[Address | None] = attrs.field(factory=lambda: AsyncValue(None), init=False)
    #: What the server said last of the proxy, in this session.
    _target: AsyncValue[Target | None] = attrs.field(factory=lambda: AsyncValue(None), init=False)
    _quiet_until: float = attrs.field(default=0.0, init=False)

    @property
    def owned_by(self) -> str:
        """The client that has the proxy now; empty while it cannot be visited."""
        return "" if self._target.value is None else self._target.value.owner

    def request(self, number: int) -> VisitorRequest:
        """What the server is asked for."""
        return VisitorRequest(number, self.name, self.publish_port, self.owner)

    def on_notice(self, notice: Target) -> None:
        """The server says what has become of the proxy."""
        before, self._target.value = self._target.value, notice
        self._update_reach()
        if before is not None and attrs.evolve(before, nonce=notice.nonce) == notice:
            return  # as it was, only to be visited with another proof
        if notice.reason:
            extra = {"proxy": self.name, "reason": notice.reason}
            logger.warning("Target away", extra=extra)
        else:
            extra = {"proxy": self.name, "owner": notice.owner}
            logger.info("Target present", extra=extra)

    async def serve(self, number: int, link: Link, name: str) -> None:
        """Own the local port, and let visitors in, until cancelled: then the port is free.

        Args:
          number: the id that the server knows this port by.
          link: to the server.
          name: what the server calls this client.
        """
        listeners: list[socket.socket] = []
        try:
            listeners = await self._bind()
            self.addresses = tuple(map(own_address, listeners))
            where = ", ".join(map(str, self.addresses))
            logger.info("Visitor ready", extra={"proxy": self.name, "address": where})
            self._update_reach()
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(self._accept, listener, number, link, name)
        finally:
            self.addresses, self._target.value = (), None
            self._update_reach()
            close_all(listeners)

    def _update_reach(self) -> None:
        self.reach.value = self.addresses[0] if self.addresses and self.owned_by else None

    async def _bind(self) -> list[socket.socket]:
        """Listen as soon as the port is free; what is in the way is logged once."""
        pause, logged = limits.BIND_RETRY_FIRST, False
        while True:
            try:
                return open_listeners(self.bind_addr, self.bind_port)
            except OSError as error:
                if not logged:
                    logged = True
                    self._log_busy(error)
            await trio.sleep(pause)
            pause = min(2 * pause, limits.BIND_RETRY_LAST)

    def _log_busy(self, error: OSError) -> None:
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

    async def _accept(self, listener: socket.socket, number: int, link: Link, name: str) -> None:
        if self.visit_key is not None:
            # Until the server has said something of the proxy there is nothing to prove.
            await self._target.wait_value(lambda target: target is not None)

        def admit(visitor: socket.socket, source: Address) -> None:
            self._admit(visitor, source, number, link, name)

        await accept_visitors(listener, link, admit, Shortage(), proxy=self.name)

    def _admit(
        self, visitor: socket.socket, source: Address, number: int, link: Link, name: str
    ) -> None:
        try:
            destination = own_address(visitor)
        except OSError:
            visitor.close()  # it has gone already
            return
        connection = random.randbytes(8)  # noqa: S311  # not a secret: all logs have it
        target = self._target.value
        if self.visit_key is not None and target is not None and target.owner and not target.nonce:
            self._turn_away(visitor, connection, target)
            return
        proof, expected = self._proofs(target, name)
        stream_id = link.open_stream()
        link.send(stream_id, build_visit_preamble(source, destination, number, connection, proof))
        carried = CarriedConnection(
            self.name,
            connection.hex(),
            self.counters,
            ResetCode.VISITOR_RESET,
            on_end=lambda code: self._ended(connection, code, target),
        )
        if expected:
            ProvingEndpoint(link, stream_id, visitor, carried, expected).begin()
        else:
            link.carrier.adopt(visitor, stream_id, carried)

    def _proofs(self, target: Target | None, name: str) -> tuple[bytes, bytes]:
        """This client's nonce and proof, and what the owner's is to be; empty without a secret."""
        if self.visit_key is None:
            return b"", b""
        nonce = secrets.token_bytes(VISIT_NONCE_SIZE)
        if target is None or not target.nonce:
            # The server turns the visitor away, and logs why: no proof would be right.
            return b"", nonce
        about = VisitTranscript(target.owner, self.name, target.port, name, target.nonce, nonce)
        return nonce + about.visit_proof(self.visit_key), about.visited_proof(self.visit_key)

    # --- Visitors that the owner, or the server, turns away ----------------------------------

    def _turn_away(self, visitor: socket.socket, connection: bytes, target: Target) -> None:
        """Reset a visitor here: the owner has no secret, so it cannot prove anything."""
        reset_on_close(visitor)
        visitor.close()
        reason = f"the proxy of {target.owner} asks for no visitor_secret, so it proves none"
        remedy = "give the proxy this visitor_secret, or take it out here"
        self._log_turned_away(connection, reason, remedy)

    def _ended(self, connection: bytes, code: ResetCode | None, target: Target | None) -> None:
        outdated = self.visit_key is not None and target is not self._target.value
        if code == ResetCode.WRONG_SECRET and outdated:
            self._log_turned_away(connection, "the owner has begun anew, and wants another proof")
        elif code in _TURNED_AWAY:
            away = target.reason if target is not None and code == ResetCode.AWAY else ""
            self._log_turned_away(connection, away or code.text, self._remedy(code))

    def _remedy(self, code: ResetCode) -> str:
        if code == ResetCode.UNPROVED:
            return "whoever has the proxy does not know the visitor_secret: set owner"
        if code != ResetCode.WRONG_SECRET:
            return ""
        if self.visit_key is None:
            return "set visitor_secret in [[visitors]]: the proxy has one"
        return "visitor_secret must be the same in [[visitors]] and at the proxy"

    def _log_turned_away(self, connection: bytes, reason: str, remedy: str = "") -> None:
        """Log why a visitor was turned away; not too often, for visitors could fill the log."""
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + limits.LOCAL_FAILURE_LOG_INTERVAL
            extra = {"proxy": self.name, "connection": connection.hex(), "reason": reason}
            logger.warning("Visit refused", extra=extra | ({"remedy": remedy} if remedy else {}))
