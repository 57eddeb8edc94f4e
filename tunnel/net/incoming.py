"""A stream that the peer opened, from its first byte until something carries it."""

from __future__ import annotations

from abc import abstractmethod

from tunnel.errors import RemoteProtocolError
from tunnel.model import ResetCode
from tunnel.net.endpoint import Endpoint
from tunnel.net.link import Link
from tunnel.protocol.preamble import Preamble, PreambleDecoder


class IncomingEndpoint(Endpoint):
    """Reads the preamble, then parks what comes (the window bounds it).

    Args:
      link: whose stream it is.
      stream_id: the stream.
    """

    __slots__ = ("_decoder", "finished", "link", "parked", "stream_id")

    def __init__(self, link: Link, stream_id: int) -> None:
        self.link = link
        self.stream_id = stream_id
        #: What came behind the preamble; not consumed yet.
        self.parked = bytearray()
        #: The peer has sent everything.
        self.finished = False
        self._decoder: PreambleDecoder | None = PreambleDecoder()

    @abstractmethod
    def preamble_received(self, preamble: Preamble) -> None:
        """The preamble has come; what is parked by now came with it."""

    def deliver(self, data: memoryview) -> int:
        """See `Endpoint`. The preamble is consumed at once, the rest by whoever carries it."""
        if self._decoder is None:
            self.parked += data
            return 0
        try:
            taken, preamble = self._decoder.feed(data)
        except RemoteProtocolError:
            self.refuse(ResetCode.BAD_PREAMBLE)
            return 0
        if preamble is not None:
            self._decoder = None
            self.parked += data[taken:]
            self.preamble_received(preamble)
        return taken

    def finish(self) -> None:
        """See `Endpoint`."""
        self.finished = True
        if self._decoder is not None:
            self.refuse(ResetCode.BAD_PREAMBLE)

    def resume(self) -> None:
        """See `Endpoint`; nothing was sent yet."""

    def refuse(self, code: ResetCode) -> None:
        """Nothing will carry it: a reset before any byte. Flush the link after it."""
        self.link.reset(self.stream_id, code)
