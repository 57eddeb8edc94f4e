"""The Yamux engine: bytes and the time come in, events and bytes go out. No I/O, no clock.

    connection = Connection(Role.CLIENT, now=now)
    connection.receive_data(data, now)          # what the wire brought; b"" is its end
    while (event := connection.next_event()) is not NEED_DATA:
        ...                                     # CLOSED ends it for good
    parts = connection.data_to_send(now)        # put these on the wire, in order

Call `data_to_send` after anything else that you called, and `on_timer` when `next_deadline` has
come. Nothing here may be called from two threads at once.
"""

from __future__ import annotations

from tunnel import limits
from tunnel.errors import LocalProtocolError, RemoteProtocolError
from tunnel.yamux import events
from tunnel.yamux.events import CLOSED, NEED_DATA, Event, Sentinel
from tunnel.yamux.frames import Buffer, GoAwayCode, Trace
from tunnel.yamux.inbox import Inbox
from tunnel.yamux.keepalive import Keepalive
from tunnel.yamux.outbox import Outbox
from tunnel.yamux.settings import Role, Settings
from tunnel.yamux.states import Input
from tunnel.yamux.table import StreamTable
from tunnel.yamux.windows import Windows


class Connection:
    """One Yamux session, seen from one end.

    Args:
      role: who dialled.
      settings: limits; the defaults suit a foreign peer.
      now: the time, in seconds of any clock that only moves forward.
      trace: called with a direction ("in" or "out") and a frame's header as text.
    """

    def __init__(
        self,
        role: Role,
        settings: Settings | None = None,
        *,
        now: float,
        trace: Trace | None = None,
    ) -> None:
        self.settings = settings = settings or Settings()
        self._keepalive = Keepalive(settings, now)
        self._windows = Windows(settings)
        self._outbox = Outbox(settings.max_frame, trace)
        self._table = StreamTable(role, settings, self._outbox, self._windows)
        self._events = self._table.events
        self._inbox = Inbox(
            settings, self._table, self._outbox, self._windows, self._keepalive, trace
        )
        self._lent: list[int] = []
        self._eof = False
        self._closed = False
        self._now = now

    # --- Bytes in ----------------------------------------------------------------------------

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes that the wire brought; empty ones mean its end.

        Args:
          data: kept and not copied: it must not change until `next_event` has said `NEED_DATA`.
          now: seconds, when they came.
        """
        self._now = now
        if not data:
            self._eof = True
        elif not self._closed:
            self._keepalive.heard(now)
            self._inbox.parser.feed(data)

    def next_event(self) -> Event | Sentinel:
        """What happened next, `NEED_DATA` if nothing, `CLOSED` if nothing ever will.

        Raises:
          RemoteProtocolError: the peer broke the protocol. The go-away that tells it so waits in
            `data_to_send`; from now on the answer is `CLOSED`. Nothing else is ever raised here.
        """
        if self._closed:
            return self._events.get() or CLOSED
        try:
            event = self._inbox.next_event(self._now)
        except RemoteProtocolError:
            self.close(GoAwayCode.PROTOCOL_ERROR)
            raise
        if event is None:
            if not self._eof:
                return NEED_DATA
            event = events.ConnectionLost(self._inbox.at_boundary)
            self._end()
        elif type(event) is events.GoAwayReceived and event.code != GoAwayCode.NORMAL:
            self._end()
        return event

    def _end(self) -> None:
        """Stop sending and receiving; what has happened already is still told."""
        self._closed = True
        self._events.close()
        self._outbox.end()
        self._inbox.parser.release()

    # --- Bytes out ---------------------------------------------------------------------------

    def data_to_send(self, now: float, max_bytes: int = limits.BATCH) -> list[Buffer]:
        """Frames to put on the wire, in order; empty if there are none.

        The parts are headers and, between them, the caller's own buffers, uncopied. What was given
        out can be overtaken by nothing, so a caller asks only for what the wire takes at once.

        Args:
          now: seconds, when they go out.
          max_bytes: about how many bytes; one frame at least is given if there is any.
        """
        self._now = now
        parts = self._outbox.build(max_bytes)
        if parts:
            self._keepalive.sending(now)
            self._table.served(now)
        return parts

    def has_events(self) -> bool:
        """True if something waits for `next_event` that the caller, or sending, has caused."""
        return bool(self._events.waiting)

    def has_data_to_send(self) -> bool:
        """True if `data_to_send` would give something."""
        return bool(self._outbox)

    @property
    def pending(self) -> int:
        """Bytes of payload that wait to be sent, of all streams."""
        return self._outbox.pending

    @property
    def frame_size(self) -> int:
        """Largest payload of a frame now, and a stream's share of a round; bytes."""
        return self._outbox.frame_size

    @frame_size.setter
    def frame_size(self, size: int) -> None:
        self._outbox.frame_size = max(1, min(size, self.settings.max_frame))

    # --- Streams -----------------------------------------------------------------------------

    @property
    def stream_count(self) -> int:
        """Streams that are not over."""
        return len(self._table)

    def can_open(self) -> bool:
        """True if `open_stream` would work; else a `StreamsAvailable` comes once it would."""
        return not self._closed and self._table.can_open()

    @property
    def exhausted(self) -> bool:
        """True if every number that a stream of ours can have was used: time for a new session."""
        return self._table.exhausted

    def open_stream(self) -> int:
        """Open a stream and return its number; usable at once, without waiting for the peer.

        Raises:
          LocalProtocolError: see `can_open`.
        """
        if self._closed:
            raise LocalProtocolError("the connection is over")
        return self._table.open(self._now).stream_id

    def accept_stream(self, stream_id: int) -> None:
        """Acknowledge a stream of the peer's. Does nothing the second time, or if it is over."""
        stream = self._table.get(stream_id)
        if stream is not None and not stream.outbound and not stream.acknowledged:
            stream.acknowledged = stream.ack = True
            self._outbox.control(stream)

    def reset_stream(self, stream_id: int, code: int = 0) -> None:
        """End both directions at once and drop what waits. Does nothing if the stream is over."""
        stream = self._table.get(stream_id)
        if stream is not None:
            self._table.reset(stream, code)
        else:
            stream = self._events.find(stream_id)
        if stream is not None:
            stream.abandoned = True

    def room(self, stream_id: int) -> int:
        """How many bytes `send_data` would take; after 0 a `RoomAvailable` comes once it is more.

        0 for good if the stream is over, or was told that no more would come.
        """
        stream = self._table.get(stream_id)
        return 0 if stream is None or self._closed else self._table.room(stream)

    def send_data(self, stream_id: int, data: Buffer) -> None:
        """Queue bytes of a stream.

        Ask `room` first. More is taken, and waits; it costs the caller's memory, and room that the
        other streams could have had.

        Does nothing once the connection is over, or if the stream is and `next_event` has not said
        so yet: the caller cannot know.

        Args:
          stream_id: the stream.
          data: kept and not copied: it must not change until it was sent.

        Raises:
          LocalProtocolError: the stream is over, or was told that no more would come.
        """
        stream = None if self._closed else self._table.known(stream_id)
        if stream is not None:
            if not stream.state.can_send:
                stream.apply(Input.SEND_DATA)  # which raises
            if data:
                self._outbox.put(stream, data)

    def lend_data(self, stream_id: int, data: memoryview) -> None:
        """Do as `send_data` does, with a writable buffer that the caller wants back.

        Most of what is queued goes out at once. So the buffer of a read is lent, the frames are
        sent, and only what then still waits is copied: see `keep_lent`.
        """
        self.send_data(stream_id, data)
        self._lent.append(stream_id)

    def keep_lent(self) -> None:
        """Copy what still waits of the buffers that were lent: they may change from now on."""
        for stream_id in self._lent:
            stream = self._table.get(stream_id)
            if stream is not None and stream.pending_size:
                stream.keep_pending()
        self._lent.clear()

    def send_eof(self, stream_id: int) -> None:
        """Say, behind all queued data, that no more will come. The other direction goes on.

        Does nothing where `send_data` would do nothing.

        Raises:
          LocalProtocolError: it was said before, or the stream is over.
        """
        stream = None if self._closed else self._table.known(stream_id)
        if stream is not None:
            stream.apply(Input.SEND_FIN)
            self._table.wants_no_room(stream)
            self._outbox.finish(stream)

    def consumed(self, stream_id: int, size: int, now: float) -> bool:
        """Grant the peer as many bytes again as were handed on.

        Only what was delivered is granted: that is what makes the window a bound on the memory of
        this end, and a slow reader slow down its own sender and no other stream. Granted in steps
        of at least half a window, since each grant is a frame; does nothing if the stream is over.

        Args:
          stream_id: the stream.
          size: bytes of it that its reader has really taken.
          now: seconds.

        Returns True if credit is due now, so that there is something to send.

        Raises:
          LocalProtocolError: more than was received.
        """
        stream = self._table.get(stream_id)
        if stream is None:
            return False
        if not 0 <= size <= stream.unconsumed:
            raise LocalProtocolError(f"consumed {size} of {stream.unconsumed} bytes")
        stream.unconsumed -= size
        stream.owed += size
        due = stream.owed >= stream.target // 2 and stream.state.can_receive
        if due:
            self._windows.grant(stream, now)
            self._outbox.control(stream)
            if self._windows.wants_rtt(now):
                self.ping()
        return due

    def stop_reading(self, stream_id: int, now: float) -> None:
        """Say that the stream's receiving direction has no reader any more.

        Yamux has no frame for this alone, as TCP has none for `SHUT_RD`; so the stream goes on
        sending, and is reset when bytes still come, or when `close_linger` passes in which nothing
        of it could be sent and the peer did not end it. Does nothing if the peer has sent
        everything, if the stream is over, or the second time.
        """
        stream = self._table.get(stream_id)
        if stream is not None and stream.state.can_receive and not stream.read_closed:
            self._table.linger(stream, now)

    # --- The session -------------------------------------------------------------------------

    def ping(self) -> None:
        """Measure the round trip; a `PongReceived` follows. Does nothing while one is measured."""
        self._ping(anew=False)

    def _ping(self, *, anew: bool) -> None:
        if not self._closed and (value := self._keepalive.start_ping(anew=anew)) is not None:
            self._outbox.ping = value

    @property
    def rtt(self) -> float | None:
        """The last measured round trip, in seconds."""
        return self._windows.rtt

    def heard(self, now: float) -> None:
        """Take a sign of life at `now` that is no bytes of Yamux: part of a TLS record, say."""
        self._keepalive.heard(now)

    def start_drain(self) -> None:
        """Refuse streams from now on, ours and the peer's; those that live go on.

        Nothing is said on the wire: a go-away ends the session of some peers. Call `close` when
        `stream_count` is 0.
        """
        self._table.draining = True

    def close(self, code: int = GoAwayCode.NORMAL) -> None:
        """End the session: what is due still goes out, then a go-away; with an error, only that.

        Nothing more is told: `next_event` says `CLOSED`.

        Args:
          code: a `GoAwayCode`; other than `NORMAL` is an error.
        """
        self._events.waiting.clear()  # also what a timeout, say, has left to tell
        self._events.close()
        self._inbox.parser.release()
        if not self._closed:
            self._closed = True
            self._outbox.queue_go_away(code, at_once=code != GoAwayCode.NORMAL)

    def next_deadline(self) -> float | None:
        """When to call `on_timer`, in seconds of the caller's clock; None for never."""
        if self._closed:
            return None
        deadlines = (self._keepalive.deadline, self._table.deadline)
        return min((when for when in deadlines if when is not None), default=None)

    def on_timer(self, now: float) -> None:
        """Do what is due at `now`; calling it early or twice does no harm."""
        self._now = now
        if self._closed:
            return
        self._table.end_lingering(now)
        if self._keepalive.wants_ping(now):
            self._ping(anew=True)
        if self._keepalive.expired(now):
            self._events.put(events.KeepaliveTimeout())
            self._end()
