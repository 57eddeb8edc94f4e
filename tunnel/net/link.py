"""The link: a Yamux session on Trio, over one TLS connection.

An idle link is one task, the reader, which also looks at the clock. A writer is there only while
the kernel does not take a whole batch at once, and a carrier once there are sockets to carry. The
reader never waits for a connection: what a slow visitor does not take is parked with that visitor,
within its window.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVarTuple, Unpack

import trio

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.events import End, EndReason
from tunnel.model import TRACE, ResetCode
from tunnel.net.carrier import Carrier, make_carrier
from tunnel.net.endpoint import Endpoint
from tunnel.net.pace import Pace
from tunnel.net.scratch import scratch
from tunnel.net.tls import TlsStream
from tunnel.yamux import (
    CLOSED,
    NEED_DATA,
    Connection,
    ConnectionLost,
    DataReceived,
    Event,
    GoAwayReceived,
    KeepaliveTimeout,
    Role,
    RoomAvailable,
    Settings,
    StreamClosed,
    StreamEOF,
    StreamOpened,
    StreamReset,
    StreamsAvailable,
)

logger = logging.getLogger(__name__)

_Args = TypeVarTuple("_Args")

#: Gives the local end of a stream that the peer opened, or None to refuse it.
Accept: TypeAlias = Callable[["Link", int], Endpoint | None]


class FlushGroup:
    """The links to flush once one of them, its owner, was flushed.

    What comes on one link may be passed on to another, by an endpoint, which must not flush: it is
    called from the middle of a turn. Two links may also feed each other, and each flush may give
    the other something. A flush that called the other's flush would therefore nest: on the same
    stack the first link would be asked to send again while it is still cutting frames from a
    buffer that is lent, and two busy links would call each other until the stack is full. So no
    link is flushed twice on one stack: one that is asked again while `flush` is under way is
    flushed when the others have been.

    Args:
      owner: the link.
      flush_owner: flushes that link, and no other.
    """

    __slots__ = ("_flush_owner", "_links", "_owner", "_under_way")

    def __init__(self, owner: Link, flush_owner: Callable[[], None]) -> None:
        self._owner = owner
        self._flush_owner = flush_owner
        self._links: set[Link] = set()
        self._under_way = False

    def add(self, link: Link) -> None:
        """Flush that link too, the next time."""
        self._links.add(link)

    def flush(self) -> None:
        """Flush the owner, and then the others."""
        if self._under_way:
            self._links.add(self._owner)
            return
        self._flush_owner()
        if self._links:
            self.flush_others()

    def flush_others(self) -> None:
        """Flush those that were added, until none is left."""
        self._under_way = True
        try:
            while self._links:
                link = self._links.pop()
                if link is self._owner:
                    self._flush_owner()
                else:
                    link.flush()
        finally:
            self._under_way = False


class Link:
    """A Yamux session and the local ends of its streams.

    Args:
      tls: where it runs; it is closed when `run` ends.
      role: who dialled.
      settings: the engine's limits.
      accept: called for every stream that the peer opens.
      carrier: what carries sockets: "hub", "relay", or None for the best there is.
      early: bytes that were read past the handshake.
    """

    def __init__(
        self,
        tls: TlsStream,
        role: Role,
        settings: Settings,
        accept: Accept,
        *,
        carrier: str | None = None,
        early: bytes = b"",
    ) -> None:
        trace = _trace if logger.isEnabledFor(TRACE) else None
        self._tls = tls
        self._engine = Connection(role, settings, now=trio.current_time(), trace=trace)
        #: How many bytes may be sent on a stream now; after 0, `Endpoint.resume` is called when it
        #: is more. (This and `lend` are called for every read, so they are the engine's own.)
        self.room: Callable[[int], int] = self._engine.room
        #: Queue bytes of a buffer that may change once `flush` has returned.
        self.lend: Callable[[int, memoryview], None] = self._engine.lend_data
        self._pace = Pace(tls.transport)
        self._accept = accept
        self._early = early
        self._endpoints: dict[int, Endpoint] = {}
        #: Set when `run` begins.
        self.running = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._writing = False
        self._streams_available = trio.Event()
        #: Set at the next sign of life, if one is waited for.
        self._heard: trio.Event | None = None
        self._scope = trio.CancelScope()
        self._lost: End | None = None
        self._graceful = False
        self._mute = False
        self._group = FlushGroup(self, self._flush)
        self.carrier: Carrier = make_carrier(self, carrier)

    # --- Life --------------------------------------------------------------------------------

    async def run(self) -> End:
        """Carry streams until the link is lost, and return why.

        By then every socket that it carried is closed, and so is the connection. The peer went,
        fell silent, or broke the protocol; or `lose` or `end` was called. If cancelled, it says
        goodbye to the peer first, for `limits.GOODBYE` seconds at most.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self.running.set()
                    try:
                        await self._read()
                    finally:
                        # From now on: when its last task has ended, a nursery takes no other.
                        self._nursery = None
        finally:
            # The order matters. By now the nursery has been left: reader, writer and carrier have
            # ended, and `spawn` takes nothing more, so that no endpoint can come while the last
            # ones are reset. They are reset before the goodbye, for visitors must not wait for
            # that; what their ends say to other links is sent at once, since nothing else
            # flushes those. Only then may this link still speak: the goodbye is shielded and the
            # only thing here that waits. It is muted last, for a visitor or a dial that comes too
            # late may still call `flush`, and must find a link that takes it and says nothing.
            goodbye = self._graceful or self._lost is None
            self._lost = self._lost or End(EndReason.ENDED, "ended by this side")
            if self._heard is not None:
                self._heard.set()  # `answers` need not wait any longer
            self._reset_all()
            self._group.flush_others()
            if goodbye:
                await self._say_goodbye()
            self._mute = True
            self._tls.abort()
        return self._lost

    def lose(self, text: str, reason: EndReason = EndReason.ENDED) -> None:
        """End the link at once; the first reason counts. Nothing more is sent.

        Args:
          text: why, for people.
          reason: why, for programs.
        """
        if self._lost is None:
            self._lost = End(reason, text)
        self._scope.cancel()

    def end(self, text: str, reason: EndReason = EndReason.ENDED) -> None:
        """End the link, with a goodbye to the peer; arguments as for `lose`."""
        self._graceful = self._graceful or self._lost is None
        self.lose(text, reason)

    async def answers(self) -> bool:
        """Ask the peer for a sign of life; False if none comes in time, or the link has ended.

        That is four round trips, within `limits.PROBE_SHORTEST` and `limits.PROBE_LONGEST`.
        """
        if not self.running.is_set():
            return True  # it was talking a moment ago: the handshake is not over
        asked_at = trio.current_time()
        patience = max(limits.PROBE_SHORTEST, 4 * (self.rtt or 0.0))
        if self._heard is None or self._heard.is_set():
            self._heard = trio.Event()
        heard = self._heard
        self._engine.ping()
        self.flush()
        with trio.move_on_after(min(patience, limits.PROBE_LONGEST)):
            await heard.wait()
        # A record that is not complete yet is a sign of life as well.
        return self.carrying and (heard.is_set() or self._tls.heard_at > asked_at)

    def _reset_all(self) -> None:
        while self._endpoints:
            _, endpoint = self._endpoints.popitem()
            endpoint.reset(ResetCode.LINK_LOST)

    async def _say_goodbye(self) -> None:
        with trio.move_on_after(limits.GOODBYE, shield=True):
            self._engine.close()
            self.flush()
            await self._tls.aclose()

    def spawn(self, work: Callable[[Unpack[_Args]], Awaitable[object]], *args: *_Args) -> bool:
        """Run something beside the reader, to be cancelled with the link; False if that is over."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(work, *args)
        return True

    @property
    def carrying(self) -> bool:
        """True while the link can carry sockets: from the start of `run` until it ends."""
        return self._nursery is not None

    async def _read(self) -> None:
        try:
            self._receive(self._early)
            self.flush()
            while self._lost is None:
                # One scope for many reads: it costs nothing until the clock is to be looked at.
                with trio.CancelScope(deadline=self._deadline()) as patience:
                    await self._read_on()
                    # Unless something better was said.
                    self.lose("closed by the other side", EndReason.CLOSED)
                if patience.cancelled_caught:
                    self._look_at_the_clock()
        except trio.BrokenResourceError as error:
            self.lose(str(error), EndReason.OTHER)
        except RemoteProtocolError as error:
            # The goodbye tells the peer.
            self.end(f"protocol error: {error}", EndReason.PROTOCOL)

    async def _read_on(self) -> None:
        """Read until the end; cancelling it loses nothing."""
        plain = scratch().plain
        while size := await self._tls.read_into(plain):
            if self._heard is not None:
                self._heard.set()
            self._receive(plain[:size])
            self.flush()
            if size == len(plain):
                await trio.lowlevel.checkpoint()  # there is more: others get a turn first
        self._engine.receive_data(b"", trio.current_time())
        self._tell()

    def _deadline(self) -> float:
        tick = trio.current_time() + limits.TIMER_TICK
        deadline = self._engine.next_deadline()
        return tick if deadline is None else min(deadline, tick)

    def _look_at_the_clock(self) -> None:
        self._engine.heard(self._tls.heard_at)
        self._engine.on_timer(trio.current_time())
        self.flush()

    def _receive(self, data: memoryview | bytes) -> None:
        if data:
            self._engine.receive_data(data, self._tls.heard_at)
            self._tell()

    async def _write(self) -> None:
        """Send what the kernel did not take at once, and what has come up since."""
        try:
            while self._tls.blocked and not self._mute:
                await self._tls.drain()
                self.flush()
        except trio.BrokenResourceError as error:
            self._fall_silent(error)
        finally:
            self._writing = False

    # --- Sending -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Put on the wire what is due, as far as the kernel takes it now; the writer does the rest.

        Call it once after a batch of other calls.
        """
        self._group.flush()

    def _flush(self) -> None:
        self._fill()
        if self._tls.blocked and not (self._mute or self._writing):
            self._writing = self.spawn(self._write)

    def flush_with(self, other: Link) -> None:
        """Flush another link when this one was flushed, or has ended: for endpoints, which may not.

        What they lent to the other link is safe until then. See `FlushGroup`.
        """
        self._group.add(other)

    def _fill(self) -> None:
        engine, tls, pace = self._engine, self._tls, self._pace
        try:
            while engine.has_data_to_send() and not (self._mute or tls.blocked):
                now = trio.current_time()
                tls.send_nowait(*engine.data_to_send(now, pace.batch))
                if pace.look(now):
                    engine.frame_size = pace.batch
        except trio.BrokenResourceError as error:
            self._fall_silent(error)
        engine.keep_lent()
        if engine.has_events():
            self._tell()

    def _fall_silent(self, error: Exception) -> None:
        """Nothing can be sent any more. What came in before is still read, it may say why."""
        logger.debug("Link cannot send", extra={"error": str(error)})
        self._mute = True

    # --- Telling -----------------------------------------------------------------------------

    def _tell(self) -> None:
        engine, now = self._engine, trio.current_time()
        while (event := engine.next_event()) is not NEED_DATA and event is not CLOSED:
            if type(event) is DataReceived:
                endpoint = self._endpoints.get(event.stream_id)
                if endpoint is not None and (taken := endpoint.deliver(event.data)):
                    engine.consumed(event.stream_id, taken, now)
            else:
                self._tell_rare(event)

    def _tell_rare(self, event: Event) -> None:
        match event:  # (a class pattern with arguments costs twice as much)
            case StreamOpened():
                self._open_for_peer(event.stream_id)
            case StreamEOF():
                if endpoint := self._endpoints.get(event.stream_id):
                    endpoint.finish()
            case StreamClosed():
                self._endpoints.pop(event.stream_id, None)
            case RoomAvailable():
                if endpoint := self._endpoints.get(event.stream_id):
                    endpoint.resume()
            case StreamReset():
                if endpoint := self._endpoints.pop(event.stream_id, None):
                    endpoint.reset(event.code)
            case StreamsAvailable():
                self._streams_available.set()
            case GoAwayReceived(code) if code:
                text = f"the other side ended the session with code {code}"
                self.lose(text, EndReason.PROTOCOL)
            case KeepaliveTimeout():
                self.lose("no sign of life", EndReason.SILENCE)
            case ConnectionLost(clean) if clean:
                self.lose("closed by the other side", EndReason.CLOSED)
            case ConnectionLost():
                self.lose("cut in the middle of a frame", EndReason.CUT)

    def _open_for_peer(self, stream_id: int) -> None:
        endpoint = self._accept(self, stream_id)
        if endpoint is None:
            self._engine.reset_stream(stream_id, ResetCode.LIMIT)
        else:
            self._endpoints[stream_id] = endpoint
            self._engine.accept_stream(stream_id)

    # --- Streams: what endpoints and listeners use -------------------------------------------

    @property
    def rtt(self) -> float | None:
        """The last measured round trip, in seconds."""
        return self._engine.rtt

    @property
    def stream_count(self) -> int:
        """Streams that are not over."""
        return self._engine.stream_count

    def can_open(self) -> bool:
        """True if a stream can be opened now. A link that has used all numbers ends here."""
        if self._engine.exhausted:
            # The client comes back with new ones.
            self.end("every stream number was used")
        return self._engine.can_open()

    async def wait_can_open(self) -> None:
        """Wait until a stream can be opened. Not a checkpoint if one can be opened now."""
        while not self.can_open():
            # One event for all tasks that wait: replaced only when it has been used.
            if self._streams_available.is_set():
                self._streams_available = trio.Event()
            await self._streams_available.wait()

    def open_stream(self) -> int:
        """Open a stream; `attach` its local end next.

        Raises:
          LocalProtocolError: none can be opened now, see `wait_can_open`.
        """
        return self._engine.open_stream()

    def attach(self, stream_id: int, endpoint: Endpoint) -> None:
        """Make `endpoint` the local end of a stream, in place of another if there is one."""
        self._endpoints[stream_id] = endpoint

    def detach(self, stream_id: int) -> None:
        """The local end is done with the stream; what still happens to it is ignored."""
        self._endpoints.pop(stream_id, None)

    def send(self, stream_id: int, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; they must not change until they were sent."""
        self._engine.send_data(stream_id, data)

    def send_eof(self, stream_id: int) -> None:
        """Say, behind what is queued, that no more will come."""
        self._engine.send_eof(stream_id)

    def consumed(self, stream_id: int, size: int) -> bool:
        """Bytes that `deliver` had not taken were handed on now; True if a flush must follow."""
        return self._engine.consumed(stream_id, size, trio.current_time())

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream at once, and detach its local end without telling it."""
        self._endpoints.pop(stream_id, None)
        self._engine.reset_stream(stream_id, code)

    def stop_reading(self, stream_id: int) -> None:
        """The stream is read no more: what still comes resets it."""
        self._engine.stop_reading(stream_id, trio.current_time())


def _trace(direction: str, frame: str) -> None:
    logger.log(TRACE, "Frame", extra={"direction": direction, "frame": frame})
