"""What becomes of each visitor's connection, for whoever keeps a record of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from tunnel.model import Address, ResetCode
from tunnel.stats import Counters, Meter


class Record(NamedTuple):
    """One visitor's connection, when it is over. (A tuple, since it is made for each of them.)

    Args:
      proxy: the name of what was visited; empty if there is no such proxy.
      client: the name of who published it; empty on that client itself.
      connection: the id that both sides log; None if he was turned away before he got one.
      visitor: where he came from.
      sent: bytes towards the visitor, as far as they went into a socket here, or came out of one.
      received: bytes from him, the same.
      duration: seconds.
      end: "finished", or why it did not come to that.
    """

    proxy: str
    client: str
    connection: str | None
    visitor: Address
    sent: int
    received: int
    duration: float
    end: str


#: Takes a record at once and never fails.
Audit: TypeAlias = Callable[[Record], None]


def how(code: ResetCode | None) -> str:
    """How a connection ended, in words; None is cleanly."""
    return "finished" if code is None else code.text


class Account(Meter):
    """One visitor's connection while it lives: counts its bytes, and is told of its end.

    Args:
      audit: told of it when it is over.
      proxy, client, connection, visitor: see `Record`.
      counters: the proxy's, which are to have its bytes as well.
      published_here: True where the visitor's own socket is, so that what is delivered goes to him.
    """

    __slots__ = (
        "_audit",
        "_began",
        "_client",
        "_connection",
        "_over",
        "_proxy_name",
        "_published_here",
        "_visitor",
    )

    def __init__(
        self,
        audit: Audit,
        proxy: str,
        client: str,
        connection: str,
        visitor: Address,
        counters: Counters,
        *,
        published_here: bool,
    ) -> None:
        Meter.__init__(self, counters)
        self._audit = audit
        self._proxy_name = proxy
        self._client = client
        self._connection = connection
        self._visitor = visitor
        self._published_here = published_here
        self._began = time.monotonic()
        self._over = False

    def close(self, code: ResetCode | None) -> None:
        """It is over: cleanly if `code` is None. What is said after that counts for nothing."""
        if self._over:
            return
        self._over = True
        sent, received = self.delivered, self.read
        if not self._published_here:
            sent, received = received, sent
        self._audit(
            Record(
                self._proxy_name,
                self._client,
                self._connection,
                self._visitor,
                sent,
                received,
                time.monotonic() - self._began,
                how(code),
            )
        )
