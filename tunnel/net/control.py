"""The control stream: whole messages each way, in order. It needs no task of its own."""

from __future__ import annotations

from collections.abc import Callable

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.events import EndReason
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link
from tunnel.protocol import messages
from tunnel.protocol.framing import FrameDecoder
from tunnel.protocol.messages import Message, Unknown


class Control(Endpoint):
    """The local end of the control stream. The link ends with it.

    Args:
      link: whose stream it is.
      stream_id: the stream.
      heard: called with each notice of the peer; it must not wait.
    """

    __slots__ = ("_decoder", "_heard", "_link", "_over", "_stream_id")

    def __init__(
        self,
        link: Link,
        stream_id: int,
        heard: Callable[[Message | Unknown], None],
    ) -> None:
        self._link = link
        self._stream_id = stream_id
        self._heard = heard
        self._over = False
        self._decoder = FrameDecoder(limits.MAX_FRAME_AFTER_AUTHENTICATION)

    def say(self, notice: Message) -> None:
        """Queue a notice; flush the link after it. There are few, and they are small.

        Once the stream is over nothing is queued: the link is about to end.
        """
        if not self._over:
            self._link.send(self._stream_id, messages.encode(notice))

    def deliver(self, data: memoryview) -> int:
        """See `Endpoint`."""
        self._decoder.feed(bytes(data))
        try:
            while (frame := self._decoder.next_frame()) is not None:
                self._heard(messages.decode(frame))
        except RemoteProtocolError as error:
            self._link.lose(f"protocol error on the control stream: {error}", EndReason.PROTOCOL)
        return len(data)

    def finish(self) -> None:
        """See `Endpoint`."""
        self._link.lose("the other side closed the control stream", EndReason.CLOSED)

    def reset(self, code: int) -> None:  # noqa: ARG002
        """See `Endpoint`."""
        self._over = True
        self._link.lose("the other side reset the control stream", EndReason.CLOSED)

    def resume(self) -> None:
        """See `Endpoint`; no task waits to send."""
