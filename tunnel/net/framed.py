"""The handshake over a stream, before Yamux."""

from __future__ import annotations

from typing import Protocol, TypeVar

import trio

from tunnel.protocol.handshake import Waiting

_Event = TypeVar("_Event", covariant=True)


class Handshake(Protocol[_Event]):
    """Either side of the handshake."""

    def receive_data(self, data: bytes) -> None:
        """Take bytes."""

    def next_event(self) -> _Event | Waiting:
        """Say what they mean."""


async def next_event(handshake: Handshake[_Event], stream: trio.abc.ReceiveStream) -> _Event:
    """Wait for what the peer says next.

    Raises:
      Refused, RemoteProtocolError: as the handshake does.
      BrokenResourceError: the connection broke.
    """
    while isinstance(event := handshake.next_event(), Waiting):
        handshake.receive_data(bytes(await stream.receive_some()))
    return event
