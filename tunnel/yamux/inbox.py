"""What arrives: frames are checked, charged and turned into events.

Whatever a peer sends, it ends in an event or in `RemoteProtocolError`; how each odd or illegal
input is answered is in `docs/protocol.md`, "Yamux".

Everything that a peer can make this end keep has a bound of its own: bytes by the windows (charged
when the header has come, before any of the payload), streams by `max_inbound_streams`, pongs and
resets that wait by theirs. What costs time and keeps nothing is counted by a `Budget`.
"""

from __future__ import annotations

from tunnel import limits
from tunnel.errors import RemoteProtocolError
from tunnel.yamux import events
from tunnel.yamux.events import Event
from tunnel.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    VERSION,
    WINDOW_UPDATE,
    FrameParser,
    GoAwayCode,
    Header,
    Trace,
    describe,
)
from tunnel.yamux.keepalive import Keepalive
from tunnel.yamux.outbox import Outbox
from tunnel.yamux.settings import Settings
from tunnel.yamux.states import RESET, Input
from tunnel.yamux.stream import Stream
from tunnel.yamux.table import StreamTable
from tunnel.yamux.windows import Windows


class Budget:
    """How many frames of no use a peer may send in a second.

    An honest peer sends a few, such as those that cross our reset on the way, so none of them is an
    error by itself. A window that starts anew each second is enough: twice the number in a row does
    no harm, and there is nothing to keep but a counter.

    Args:
      per_second: how many; time comes with each call.
    """

    __slots__ = ("_left", "_per_second", "_second")

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = per_second
        self._second = 0.0

    def spend(self, now: float) -> bool:
        """Count one at `now`; False if that was one too many in this second."""
        if now - self._second >= 1.0:
            self._second = now
            self._left = self._per_second
        self._left -= 1
        return self._left >= 0


class Inbox:
    """The receiving half of one connection."""

    def __init__(
        self,
        settings: Settings,
        table: StreamTable,
        outbox: Outbox,
        windows: Windows,
        keepalive: Keepalive,
        trace: Trace | None,
    ) -> None:
        self.parser = FrameParser()
        self._max_pongs = settings.max_pending_pongs
        # Every stream that may be open at once, and some that were refused.
        self._max_resets = (
            settings.max_inbound_streams
            + settings.max_outbound_streams
            + limits.MAX_PENDING_REFUSALS
        )
        self._table = table
        self._outbox = outbox
        self._windows = windows
        self._keepalive = keepalive
        self._trace = trace
        self._useless = Budget(settings.useless_frames_per_second)
        self._now = 0.0
        #: Of the DATA frame under way: bytes that have not come, whether it has a FIN, its stream
        #: (None if the payload is to be dropped).
        self._body_left = 0
        self._body_fin = False
        self._body_stream: Stream | None = None
        self._going_away = False

    @property
    def at_boundary(self) -> bool:
        """True between two frames."""
        return self.parser.at_boundary and not self._body_left

    def next_event(self, now: float) -> Event | None:
        """The next event that the bytes at hand, or the caller, have caused; None if there is none.

        Bytes are parsed only when no event waits: so a caller that resets a stream while it handles
        one event hears nothing of the stream's that was parsed ahead, and the queue stays short.

        Raises:
          RemoteProtocolError: the peer broke the protocol.
        """
        self._now = now
        queue = self._table.events
        while True:
            if queue.waiting and (event := queue.get()) is not None:
                return event
            if self._body_left:
                data = self.parser.body(self._body_left)
                if not data:
                    return None
                event = self._receive_body(data)
                if event is not None:
                    return event
            else:
                header = self.parser.header()
                if header is None:
                    return None
                self._receive_header(header)

    def _receive_body(self, data: memoryview) -> Event | None:
        """A piece of a DATA frame's payload; its FIN counts when the last piece has come."""
        self._body_left -= len(data)
        stream = self._body_stream
        if stream is None or stream.state is RESET:
            return None
        if stream.read_closed:
            self._table.give_up(stream)
            return None
        stream.unconsumed += len(data)
        if self._body_fin and not self._body_left:
            self._table.events.put(events.DataReceived(stream.stream_id, data), stream)
            self._receive_fin(stream)
            return None
        return events.DataReceived(stream.stream_id, data)

    def _receive_header(self, header: Header) -> None:
        version, kind, flags, stream_id, length = header
        if self._trace is not None:
            self._trace("in", describe(kind, flags, stream_id, length))
        if version != VERSION:
            raise RemoteProtocolError(f"Yamux version {version}; this end speaks {VERSION}")
        if kind <= WINDOW_UPDATE and stream_id:
            self._receive_stream_frame(kind, flags, stream_id, length)
        elif kind == PING:
            self._receive_ping(flags, length)
        elif kind == GO_AWAY:
            self._receive_go_away(length)
        elif kind > GO_AWAY:
            raise RemoteProtocolError(f"unknown Yamux frame type {kind}")
        else:
            raise RemoteProtocolError(f"stream id 0 in {describe(kind, flags, stream_id, length)}")

    def _receive_stream_frame(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        if kind == DATA:
            self._body_left, self._body_stream = length, None
        stream = self._table.get(stream_id)
        if flags & SYN:
            stream = self._receive_syn(stream_id, known=stream is not None)
        elif stream is None:
            self._count_useless()
        elif stream.outbound and not stream.acknowledged:
            self._table.acknowledged(stream)
        elif not (length or flags & (FIN | RST)):
            self._count_useless()
        if stream is None:
            return
        if flags & RST:
            self._receive_rst(stream, 0 if kind == DATA else length)
        elif kind == DATA:
            self._receive_data(stream, length, flags)
        else:
            self._receive_credit(stream, length, flags)

    def _receive_syn(self, stream_id: int, *, known: bool) -> Stream | None:
        if self._table.is_ours(stream_id):
            raise RemoteProtocolError(f"the peer opened stream {stream_id}, whose number is ours")
        if known:
            raise RemoteProtocolError(f"the peer opened stream {stream_id} twice")
        if len(self._outbox.resets) >= self._max_resets:
            raise RemoteProtocolError("streams opened faster than their resets are read")
        stream = self._table.opened_by_peer(stream_id, self._now)
        if stream is None:
            self._count_useless()
            self._outbox.refuse(stream_id)
        return stream

    def _receive_data(self, stream: Stream, length: int, flags: int) -> None:
        # Checked and charged before a byte of it is taken: what was granted bounds what can come.
        if length > stream.window:
            raise RemoteProtocolError(
                f"{length} bytes on stream {stream.stream_id}, {stream.window} were granted"
            )
        if not length:
            if flags & FIN:
                self._receive_fin(stream)
        elif stream.read_closed or not stream.state.can_receive:
            stream.apply(Input.RECEIVE_DATA)
            self._table.give_up(stream)
        else:
            stream.window -= length
            self._body_stream = stream
            self._body_fin = bool(flags & FIN)

    def _receive_credit(self, stream: Stream, delta: int, flags: int) -> None:
        if stream.send_window + delta > limits.MAX_WINDOW:
            raise RemoteProtocolError(f"window of stream {stream.stream_id} beyond 2^32 - 1")
        if delta:
            stream.send_window += delta
            self._outbox.data(stream)
            self._table.offer_room(stream)
        if flags & FIN:
            self._receive_fin(stream)

    def _receive_fin(self, stream: Stream) -> None:
        if not self._table.ended_by_peer(stream):
            self._count_useless()

    def _receive_rst(self, stream: Stream, code: int) -> None:
        if not stream.outbound and (stream.ack or not stream.acknowledged):
            self._count_useless()  # opened and reset before we could answer: rapid reset
        self._table.reset_by_peer(stream, code)

    def _receive_ping(self, flags: int, value: int) -> None:
        if flags & SYN:
            self._count_useless()
            if len(self._outbox.pongs) >= self._max_pongs:
                raise RemoteProtocolError("pings sent faster than their answers are read")
            self._outbox.pongs.append(value)
        elif flags & ACK and (rtt := self._keepalive.pong(value, self._now)) is not None:
            self._windows.rtt = rtt
            self._table.events.put(events.PongReceived(rtt))
        else:
            self._count_useless()

    def _receive_go_away(self, code: int) -> None:
        if self._going_away and code == GoAwayCode.NORMAL:
            self._count_useless()
            return
        self._going_away = self._table.draining = True
        self._table.events.put(events.GoAwayReceived(code))

    def _count_useless(self) -> None:
        if not self._useless.spend(self._now):
            raise RemoteProtocolError("a flood of frames that carry nothing")
