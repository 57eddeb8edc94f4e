"""What carries sockets over a link. Two kinds, one interface; nothing above knows which it is."""

from __future__ import annotations

import logging
import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from tunnel.events import how_ended
from tunnel.model import ResetCode
from tunnel.stats import Counters, Meter

if TYPE_CHECKING:
    from tunnel.net.link import Link

logger = logging.getLogger(__name__)


@attrs.define(eq=False)  # not frozen, which takes twice the time: there is one for each connection
class CarriedConnection:
    """One visitor's connection, as far as counting and logging go.

    Args:
      proxy: the name of what is visited.
      connection_id: what the logs of both sides call it.
      counters: where its bytes are counted; an `Account` if there are subscribers to visitors.
      failure: what a failure of the socket means to the other side.
      on_end: told how it ended, as `end` is.
    """

    proxy: str
    connection_id: str
    counters: Counters | Meter
    failure: ResetCode
    on_end: Callable[[ResetCode | None], None] | None = attrs.field(default=None, kw_only=True)

    def begin(self) -> None:
        """The socket is carried from now on."""
        self.counters.opened()

    def refused(self, code: ResetCode) -> None:
        """The carrier does not take the socket: it is over, and has not begun."""
        if self.on_end is not None:
            self.on_end(code)

    def end(self, code: ResetCode | None) -> None:
        """It is over: cleanly if `code` is None."""
        self.counters.closed()
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "Connection ended",
                extra={
                    "proxy": self.proxy,
                    "connection": self.connection_id,
                    "how": how_ended(code),
                },
            )
        if self.on_end is not None:
            self.on_end(code)


class Carrier(ABC):
    """Carries bytes between sockets and streams, and owns those sockets.

    Its tasks run in the link's nursery: when that is left, every socket is closed, with a reset.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.count = 0
        self._idle = trio.Event()

    @abstractmethod
    def adopt(
        self,
        sock: socket.socket,
        stream_id: int,
        connection: CarriedConnection,
        *,
        parked: bytes | bytearray = b"",
        finished: bool = False,
    ) -> None:
        """Carry a connected, non-blocking socket as the local end of a stream from now on.

        Once the link is lost, the socket is reset instead: a visitor may come at that moment.

        Args:
          sock: owned by the carrier from here.
          stream_id: an open stream of the link.
          connection: for counting and logging.
          parked: bytes of the stream that came before the socket was there.
          finished: the peer's end of the stream has come as well.
        """

    @abstractmethod
    def look(self) -> None:
        """Take what adopted sockets have brought by now; flush the link after it.

        For whoever adopts many at once: their first bytes then travel with their streams' opening.
        """

    def started(self) -> None:
        """One connection more."""
        self.count += 1

    def ended(self) -> None:
        """One connection less."""
        self.count -= 1
        if not self.count:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no connection is carried."""
        while self.count:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()


def make_carrier(link: Link, kind: str | None) -> Carrier:
    """The carrier of that name; the best that the platform has if there is none.

    `TLS_TUNNEL_CARRIER=relay` in the environment does without the hub, for comparison.
    """
    kind = kind or os.environ.get("TLS_TUNNEL_CARRIER")
    if kind is None:
        kind = "hub" if hasattr(select, "epoll") else "relay"
    if kind == "hub":
        from tunnel.net.hub import Hub

        return Hub(link)
    if kind == "relay":
        from tunnel.net.relay import Relay

        return Relay(link)
    raise ValueError(f"TLS_TUNNEL_CARRIER is {kind!r}; it can be 'hub' or 'relay'")
