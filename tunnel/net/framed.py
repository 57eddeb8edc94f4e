"""Messages over a stream: the handshake before Yamux, notices on the control stream after it."""

from __future__ import annotations

from typing import Protocol, TypeVar

import trio

from tunnel import limits
from tunnel.protocol import messages
from tunnel.protocol.framing import FrameDecoder
from tunnel.protocol.handshake import Waiting
from tunnel.protocol.messages import Message, Unknown

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


class Notices:
    """The control stream: whole messages, each way, in order."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self._decoder = FrameDecoder(limits.MAX_FRAME_AFTER_AUTHENTICATION)

    async def send(self, notice: Message) -> None:
        """Send one notice; one task at a time."""
        await self._stream.send_all(messages.encode(notice))

    async def receive(self) -> Message | Unknown | None:
        """Wait for the peer's next notice; None at its end.

        Raises:
          RemoteProtocolError: it is not one.
          BrokenResourceError: the link is lost.
        """
        while (frame := self._decoder.next_frame()) is None:
            data = await self._stream.receive_some()
            if not data:
                return None
            self._decoder.feed(bytes(data))
        return messages.decode(frame)
