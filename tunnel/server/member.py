"""A member: one session's proxy, as it stands behind an entry and is visited by other clients."""

from __future__ import annotations

import logging
import random

import attrs
import trio

from tunnel.model import Address
from tunnel.net.link import Link
from tunnel.protocol.preamble import build_preamble
from tunnel.server.admission import AdmittedConnection
from tunnel.server.proxy import Proxy
from tunnel.server.registry import Registration

logger = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class Member:
    """One session's proxy, and the way to it.

    Args:
      proxy: what is visited.
      registration: of the session whose it is.
      link: the way there.
    """

    proxy: Proxy
    registration: Registration
    link: Link

    @property
    def open(self) -> bool:
        """True if its owner takes another stream now."""
        return self.link.carrying and self.link.can_open()

    async def wait_open(self) -> None:
        """Wait until it does; for ever, if its owner's link has ended."""
        await self.link.running.wait()  # before, the handshake is not over
        await self.link.wait_can_open()
        if not self.link.carrying:
            await trio.sleep_forever()

    def answers_to(self, port: int) -> bool:
        """True if whoever asks for that port means this one; 0 is any."""
        proxy = self.proxy
        return port in (0, proxy.port) or any(port == place.port for place in proxy.addresses)

    def admits(self, visitor: Registration) -> bool:
        """True if that client may visit it. Only names that a key of its own stands for count."""
        allowed = self.proxy.request.allow_visitors
        return not allowed or (visitor.assigned and visitor.name in allowed)

    def open_visitor_stream(
        self, source: Address, destination: Address
    ) -> tuple[int, AdmittedConnection]:
        """Open a stream for a visitor that may come in, and tell the client whose it is.

        Args:
          source: the visitor's address.
          destination: the address that it came to.

        Returns the stream's id, and the connection, for whatever carries it. Flush the link after.

        Raises:
          LocalProtocolError: the link takes no stream now, see `Link.wait_can_open`.
        """
        connection_id = random.randbytes(8)  # noqa: S311  # not a secret: both logs have it
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "Visitor connected",
                extra={
                    "proxy": self.proxy.name,
                    "connection": connection_id.hex(),
                    "address": str(source),
                },
            )
        preamble = build_preamble(source, destination, self.proxy.proxy_id, connection_id)
        return self.open_stream(preamble, source, connection_id)

    def open_stream(
        self, preamble: bytes, source: Address, connection_id: bytes
    ) -> tuple[int, AdmittedConnection]:
        """As `open_visitor_stream`, for a visitor whose preamble is made already."""
        stream_id = self.link.open_stream()
        self.link.send(stream_id, preamble)
        proxy = self.proxy
        return stream_id, proxy.admission.connection(source, connection_id.hex(), proxy.counters)
