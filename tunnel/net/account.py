"""The events of one visitor's connection: made only where there are subscribers to them."""

from __future__ import annotations

import time

from tunnel.events import EventStream, VisitorClosed, VisitorOpened, how_ended
from tunnel.model import Address, ResetCode
from tunnel.stats import Counters, Meter


class Account(Meter):
    """Counts the bytes of one visitor's connection, and tells of its beginning and its end.

    Args:
      events: told of both; only if it `wants_visitors` is an account worth its while.
      proxy, client, connection, visitor: see `VisitorClosed`.
      counters: the proxy's, which are to have its bytes as well.
      published_here: True where the visitor's own socket is, so that what is delivered goes to it.
    """

    __slots__ = (
        "_began",
        "_client",
        "_connection",
        "_events",
        "_over",
        "_proxy_name",
        "_published_here",
        "_visitor",
    )

    def __init__(
        self,
        events: EventStream,
        proxy: str,
        client: str,
        connection: str,
        visitor: Address,
        counters: Counters,
        *,
        published_here: bool,
    ) -> None:
        Meter.__init__(self, counters)
        self._events = events
        self._proxy_name = proxy
        self._client = client
        self._connection = connection
        self._visitor = visitor
        self._published_here = published_here
        self._began = time.monotonic()
        self._over = False

    def opened(self) -> None:
        """See `Counters`."""
        Meter.opened(self)
        self._events.emit_visitor(
            VisitorOpened(self._proxy_name, self._client, self._connection, self._visitor)
        )

    def close(self, code: ResetCode | None) -> None:
        """It is over: cleanly if `code` is None. Only the first call counts."""
        if self._over:
            return
        self._over = True
        sent, received = self._sent_and_received()
        self._events.emit_visitor(
            VisitorClosed(
                self._proxy_name,
                self._client,
                self._connection,
                self._visitor,
                sent,
                received,
                time.monotonic() - self._began,
                how_ended(code),
            )
        )

    def _sent_and_received(self) -> tuple[int, int]:
        """Bytes towards the visitor, and from it."""
        if self._published_here:
            return self.delivered, self.read
        return self.read, self.delivered
