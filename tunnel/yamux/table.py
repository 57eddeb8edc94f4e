"""The streams of one connection: how many may be open, which wait for room, which are over."""

from __future__ import annotations

from collections.abc import Callable

from tunnel import limits
from tunnel.errors import LocalProtocolError
from tunnel.yamux import events
from tunnel.yamux.events import EventQueue
from tunnel.yamux.outbox import Outbox
from tunnel.yamux.settings import Role, Settings
from tunnel.yamux.states import CLOSED, RESET, Input
from tunnel.yamux.stream import Stream
from tunnel.yamux.windows import Windows


class StreamTable:
    """Opens, counts and forgets streams; queues the events that this causes.

    Args:
      role: which numbers are ours.
      settings: how many streams either end may open, and how much may wait to be sent.
      outbox: told of what a stream has to say.
      windows: gets back what a stream that is over had of the pool.
    """

    def __init__(self, role: Role, settings: Settings, outbox: Outbox, windows: Windows) -> None:
        self.events = EventQueue()
        #: No new streams, neither ours nor the peer's.
        self.draining = False
        self._settings = settings
        self._send_queue = settings.send_queue
        self._total_send_queue = settings.total_send_queue
        self._outbox = outbox
        self._windows = windows
        self._next_id = role.value
        self._streams: dict[int, Stream] = {}
        #: The stream of a number, None if it is over or was never opened. (Asked several times for
        #: every frame, so it is the dict's own.)
        self.get: Callable[[int], Stream | None] = self._streams.get
        self._inbound = self._outbound = self._unacknowledged = 0
        self._open_wanted = False
        #: Streams that want room and lack only the connection's.
        self._starved: dict[int, Stream] = {}
        #: When each stream without a reader is reset; in order, since all wait equally long.
        self._lingering: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def known(self, stream_id: int) -> Stream | None:
        """The stream; None if it is over and the caller cannot know yet.

        Raises:
          LocalProtocolError: it is over and the caller was told, or it never was.
        """
        stream = self._streams.get(stream_id)
        if stream is None and self.events.find(stream_id) is None:
            raise LocalProtocolError(f"stream {stream_id} is over")
        return stream

    # --- Beginning ---------------------------------------------------------------------------

    def is_ours(self, stream_id: int) -> bool:
        """True if only this end may open a stream of that number."""
        return stream_id % 2 == self._next_id % 2

    @property
    def exhausted(self) -> bool:
        """True if no number is left; none is ever used twice."""
        return self._next_id > limits.MAX_STREAM_ID

    def can_open(self) -> bool:
        """True if `open` would work; after False a `StreamsAvailable` comes once it would."""
        possible = (
            not self.draining
            and self._outbound < self._settings.max_outbound_streams
            and self._unacknowledged < self._settings.max_unacknowledged
            and not self.exhausted
        )
        self._open_wanted = self._open_wanted or not possible
        return possible

    def open(self, now: float) -> Stream:
        """A new stream of ours."""
        if not self.can_open():
            raise LocalProtocolError("no further stream can be opened now")
        stream = Stream(self._next_id, outbound=True, syn=True, granted_at=now)
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        self._outbound += 1
        self._unacknowledged += 1
        self._outbox.control(stream)
        return stream

    def opened_by_peer(self, stream_id: int, now: float) -> Stream | None:
        """A new stream of the peer's; None if it may not have one now."""
        if self.draining or self._inbound >= self._settings.max_inbound_streams:
            return None
        stream = Stream(stream_id, outbound=False, granted_at=now)
        self._streams[stream_id] = stream
        self._inbound += 1
        self.events.put(events.StreamOpened(stream_id), stream)
        return stream

    def acknowledged(self, stream: Stream) -> None:
        """The peer has shown that it knows our stream."""
        stream.acknowledged = True
        self._unacknowledged -= 1
        self._offer_streams()

    def _offer_streams(self) -> None:
        if self._open_wanted and self.can_open():
            self._open_wanted = False
            self.events.put(events.StreamsAvailable())

    # --- Room to send ------------------------------------------------------------------------

    def room(self, stream: Stream) -> int:
        """Bytes that the stream may queue; one that gets 0 is told when there are some."""
        if not stream.state.can_send:
            return 0
        room = self._room(stream)
        if room > 0:
            return room
        stream.wants_room = True
        self._note_if_starved(stream)
        return 0

    def _room(self, stream: Stream) -> int:
        return min(
            stream.send_window - stream.pending_size,
            self._send_queue - stream.pending_size,
            self._total_send_queue - self._outbox.pending,
        )

    def offer_room(self, stream: Stream) -> None:
        """Tell a stream that asked, when half its queue is free.

        Not at every byte: each event makes the caller read its socket once more.
        """
        if not stream.wants_room or stream.pending_size > self._send_queue // 2:
            return
        if self._room(stream) > 0:
            stream.wants_room = False
            self._starved.pop(stream.stream_id, None)
            self.events.put(events.RoomAvailable(stream.stream_id), stream)
        else:
            self._note_if_starved(stream)

    def wants_no_room(self, stream: Stream) -> None:
        """Forget that the stream asked for room: its EOF has been said."""
        stream.wants_room = False
        self._starved.pop(stream.stream_id, None)

    def _note_if_starved(self, stream: Stream) -> None:
        """Remember a stream that lacks only the connection's room, until others have sent."""
        if self._outbox.pending >= self._total_send_queue:
            self._starved[stream.stream_id] = stream

    def served(self, now: float) -> None:
        """See to the streams of which the last batch took data or the FIN: room, and their end."""
        for stream in self._outbox.served.values():
            if stream.read_closed and stream.stream_id in self._lingering:
                self.linger(stream, now)
            if stream.wants_room:
                self.offer_room(stream)
            if stream.state is CLOSED:
                self.close_if_done(stream)
        self._outbox.served.clear()
        self._offer_room_to_starved()

    def _offer_room_to_starved(self) -> None:
        if self._starved and self._outbox.pending <= self._total_send_queue // 2:
            starved, self._starved = self._starved, {}
            for stream in starved.values():
                self.offer_room(stream)

    # --- Ending ------------------------------------------------------------------------------

    def linger(self, stream: Stream, now: float) -> None:
        """Note that the stream has no reader; reset it once `close_linger` has passed.

        Unless it ends before; what can still be sent of it begins the time anew (`served`).
        """
        stream.read_closed = True
        self._lingering.pop(stream.stream_id, None)
        self._lingering[stream.stream_id] = now + self._settings.close_linger

    @property
    def deadline(self) -> float | None:
        """When the first lingering stream is due."""
        return next(iter(self._lingering.values()), None)

    def end_lingering(self, now: float) -> None:
        """Reset the streams whose time is over."""
        for stream_id in [key for key, until in self._lingering.items() if until <= now]:
            self.give_up(self._streams[stream_id])

    def ended_by_peer(self, stream: Stream) -> bool:
        """Take the peer's FIN, and all before it has come; False if there was a FIN before."""
        before = stream.state
        if stream.apply(Input.RECEIVE_FIN) is before:
            return False
        self._outbox.retract_credit(stream)
        self._lingering.pop(stream.stream_id, None)
        self.events.put(events.StreamEOF(stream.stream_id), stream)
        self.close_if_done(stream)
        return True

    def reset_by_peer(self, stream: Stream, code: int) -> None:
        """Take the peer's RST: the stream is over, whatever waits."""
        stream.apply(Input.RECEIVE_RST)
        self._forget(stream)
        self.events.put(events.StreamReset(stream.stream_id, code), stream)

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream from this side."""
        if stream.state is not RESET:
            stream.apply(Input.SEND_RST)
        self._forget(stream)
        self._outbox.reset(stream, code)

    def give_up(self, stream: Stream) -> None:
        """Reset a stream that the caller did not ask to reset, and tell it."""
        self.reset(stream, 0)
        self.events.put(events.StreamReset(stream.stream_id, 0), stream)

    def close_if_done(self, stream: Stream) -> None:
        """End the stream if both directions have ended and its FIN has gone out."""
        if stream.state is CLOSED and not stream.fin:
            self._forget(stream)
            self.events.put(events.StreamClosed(stream.stream_id), stream)

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.stream_id]
        self._outbox.forget(stream)
        self._windows.release(stream)
        self._starved.pop(stream.stream_id, None)
        self._lingering.pop(stream.stream_id, None)
        if stream.outbound:
            self._outbound -= 1
            self._unacknowledged -= not stream.acknowledged
            self._offer_streams()
        else:
            self._inbound -= 1
        self._offer_room_to_starved()
