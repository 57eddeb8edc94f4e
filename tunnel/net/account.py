"""What becomes of each visitor's connection, for whoever keeps a record of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
import trio

from tunnel.model import Address, ResetCode
from tunnel.stats import Meter


@attrs.frozen
class Record:
    """One visitor's connection, when it is over.

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


@attrs.define(eq=False)
class Account:
    """One visitor's connection while it lives.

    Args:
      audit: told of it when it is over.
      proxy, client, connection, visitor: see `Record`.
      meter: counts its bytes.
      published_here: True where the visitor's own socket is, so that what is delivered goes to him.
    """

    audit: Audit
    proxy: str
    client: str
    connection: str
    visitor: Address
    meter: Meter
    published_here: bool
    _began: float = attrs.field(factory=trio.current_time, init=False)
    _over: bool = attrs.field(default=False, init=False)

    def close(self, code: ResetCode | None) -> None:
        """It is over: cleanly if `code` is None. What is said after that counts for nothing."""
        if self._over:
            return
        self._over = True
        there, back = self.meter.delivered, self.meter.read
        sent, received = (there, back) if self.published_here else (back, there)
        duration = trio.current_time() - self._began
        self.audit(
            Record(
                self.proxy,
                self.client,
                self.connection,
                self.visitor,
                sent,
                received,
                duration,
                how(code),
            )
        )
