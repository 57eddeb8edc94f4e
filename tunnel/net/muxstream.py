"""A stream of the link as a Trio stream: for the control stream, for handlers, for the relay."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, final

import trio

from tunnel.model import ResetCode
from tunnel.net.conflict import ConflictDetector
from tunnel.net.endpoint import Endpoint

if TYPE_CHECKING:
    from tunnel.net.link import Link
    from tunnel.stats import Counters, Meter


class StreamEndpoint(Endpoint):
    """Keeps what came until it is asked for; the peer's window bounds that."""

    __slots__ = ("arrived", "buffer", "ended", "reset_code", "roomy", "was_reset")

    def __init__(self, parked: bytes | bytearray, *, finished: bool) -> None:
        self.buffer = bytearray(parked)
        self.ended = finished
        self.reset_code: int | None = None
        self.arrived = trio.Event()
        self.roomy = trio.Event()
        self.was_reset = trio.Event()

    def deliver(self, data: memoryview) -> int:
        """See `Endpoint`: all of it is kept, none handed on yet."""
        self.buffer += data
        self.arrived.set()
        return 0

    def finish(self) -> None:
        """See `Endpoint`."""
        self.ended = True
        self.arrived.set()

    def reset(self, code: int) -> None:
        """See `Endpoint`."""
        self.reset_code = code
        self.was_reset.set()
        self.wake()

    def resume(self) -> None:
        """See `Endpoint`."""
        self.roomy.set()

    def wake(self) -> None:
        """Whoever waits looks again."""
        self.arrived.set()
        self.roomy.set()


@final
class MuxStream(trio.abc.HalfCloseableStream):
    """One stream of a link.

    `aclose` ends the stream cleanly if everything that came was read, else it resets it; what
    comes after it resets the stream too, since Yamux cannot say "I read no more" in another way.
    A `send_all` that was cancelled may have sent some, all or none; after it `aclose` resets, so
    that half a message never looks like a whole one. Cancelling `receive_some` loses nothing.

    Args:
      link: carries it.
      stream_id: an open stream of the link; `Link.attach` the `endpoint` to it.
      parked: bytes of the stream that came before.
      finished: the peer's end of the stream has come as well.
    """

    def __init__(
        self,
        link: Link,
        stream_id: int,
        *,
        parked: bytes | bytearray = b"",
        finished: bool = False,
    ) -> None:
        self.stream_id = stream_id
        self.endpoint = StreamEndpoint(parked, finished=finished)
        #: What it carries is added to these, if there are any.
        self.counters: Counters | Meter | None = None
        self._link = link
        self._closed = False
        self._eof_sent = False
        self._torn = False
        self._sending = ConflictDetector("another task sends on this stream")
        self._receiving = ConflictDetector("another task reads this stream")

    @classmethod
    def open(cls, link: Link) -> MuxStream:
        """Open a stream of a link."""
        stream = cls(link, link.open_stream())
        link.attach(stream.stream_id, stream.endpoint)
        return stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`. Returns when the link has taken everything."""
        with self._sending:
            await self._begin_send()
            # The link keeps what it is given until that was sent; a bytearray could change.
            rest = memoryview(data if isinstance(data, bytes) else bytes(data))
            self._torn = True
            while rest:
                room = await self._room()
                piece, rest = rest[:room], rest[room:]
                self._link.send(self.stream_id, piece)
                if self.counters is not None:
                    self.counters.read += len(piece)
            try:
                # What others have to say at this moment goes out together with this.
                await trio.lowlevel.checkpoint()
            finally:
                self._link.flush()
            self._check_open()
            self._torn = False

    async def _begin_send(self) -> None:
        """A checkpoint if it raises; else what follows has one."""
        try:
            self._check_can_send()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()
            raise
        await trio.lowlevel.checkpoint_if_cancelled()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_can_send()
            await self._room()

    async def _room(self) -> int:
        while not (room := self._link.room(self.stream_id)):
            self._check_can_send()
            self.endpoint.roomy = trio.Event()
            self._link.flush()
            await self.endpoint.roomy.wait()
        self._check_can_send()
        return room

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream`."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this end was closed")
            self._send_eof()
            self._link.flush()

    def _send_eof(self) -> None:
        if not self._eof_sent and self.endpoint.reset_code is None:
            self._eof_sent = True
            self._link.send_eof(self.stream_id)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            if self._must_wait():
                await trio.lowlevel.checkpoint_if_cancelled()  # waiting is the checkpoint
            else:
                await trio.lowlevel.checkpoint()
            self._check_open()
            while not self.endpoint.buffer:
                if self.endpoint.reset_code is not None:
                    raise self._broken()
                if self.endpoint.ended:
                    return b""
                self.endpoint.arrived = trio.Event()
                await self.endpoint.arrived.wait()
                self._check_open()
            return self._take(max_bytes)

    def _must_wait(self) -> bool:
        """True if there is nothing to tell a reader now."""
        here = self.endpoint
        return not (here.buffer or here.ended or self._closed or here.reset_code is not None)

    def _take(self, max_bytes: int | None) -> bytes:
        buffer = self.endpoint.buffer
        with memoryview(buffer) as view:
            data = bytes(view[:max_bytes])
        del buffer[: len(data)]
        if self.counters is not None:
            self.counters.delivered += len(data)
        # Not without need: what others have queued goes in a moment, together; see `send_all`.
        if self._link.consumed(self.stream_id, len(data)):
            self._link.flush()
        return data

    async def wait_reset(self) -> None:
        """Wait until the peer resets the stream or the link is lost, and raise that.

        Raises:
          BrokenResourceError: it happened.
        """
        await self.endpoint.was_reset.wait()
        raise self._broken()

    def reset(self, code: ResetCode) -> None:
        """End both directions at once and tell the peer why."""
        self._closed = True
        if self.endpoint.reset_code is None:
            self._link.reset(self.stream_id, code)
            self._link.flush()
        self.endpoint.wake()

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`, and above."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """As `aclose`, without a checkpoint."""
        if not self._closed:
            if self._torn or self.endpoint.buffer:
                self.reset(ResetCode.CANCELLED)
            else:
                self._close()

    @property
    def closed(self) -> bool:
        """True if this end was closed, or reset."""
        return self._closed

    def _close(self) -> None:
        self._closed = True
        self._send_eof()
        if not self.endpoint.ended:
            self._link.stop_reading(self.stream_id)
        self._link.detach(self.stream_id)
        self._link.flush()
        self.endpoint.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")

    def _check_can_send(self) -> None:
        self._check_open()
        if self._eof_sent:
            raise trio.ClosedResourceError("this end has said that no more would come")
        if self.endpoint.reset_code is not None:
            raise self._broken()

    def _broken(self) -> trio.BrokenResourceError:
        code = ResetCode.of(self.endpoint.reset_code or 0)
        return trio.BrokenResourceError(f"stream reset: {code.text}")
