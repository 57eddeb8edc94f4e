"""Two engines, the wire between them, and a model of what the caller at either end may expect."""

from __future__ import annotations

import attrs

from fuzz.yamux_referee import UPDATE, Frames, Referee
from tunnel import limits
from tunnel.yamux import (
    CLOSED,
    NEED_DATA,
    Connection,
    ConnectionLost,
    DataReceived,
    GoAwayReceived,
    KeepaliveTimeout,
    PongReceived,
    Role,
    RoomAvailable,
    Settings,
    StreamClosed,
    StreamEOF,
    StreamOpened,
    StreamReset,
    StreamsAvailable,
)
from tunnel.yamux.states import State

_PERIOD = 251
_BLOCK = bytes(n * n % _PERIOD for n in range(_PERIOD)) * 3000


def payload(stream_id: int, role: Role, offset: int, size: int) -> bytes:
    """What one end sends on a stream, from `offset` on: different for each stream and direction."""
    start = (stream_id * 37 + role.value * 101 + offset) % _PERIOD
    return _BLOCK[start : start + size]


@attrs.define
class Stream:
    """What the caller at one end knows of a stream."""

    stream_id: int
    accepted: bool
    sent: int = 0
    finished: bool = False
    received: int = 0
    unconsumed: int = 0
    got_eof: bool = False
    deaf: bool = False
    waits_for_room: bool = False
    over: str | None = None


class End:
    """One engine, its caller's model, and what it has sent that the other end has not got."""

    def __init__(self, role: Role, settings: Settings, now: float) -> None:
        self.role = role
        self.settings = settings
        self.engine = Connection(role, settings, now=now)
        self.referee = Referee(role, settings.max_frame)
        self.streams: dict[int, Stream] = {}
        self.wire = bytearray()
        self._lent: list[bytearray] = []
        self.wire_read = Frames()
        self.heard_at = now
        self.drained = True  # no event waits
        self.draining = False
        self.closed = False  # nothing more will be told
        self.waits_for_streams = False
        self.pongs = 0
        self.other: End = self

    # --- What the caller does ----------------------------------------------------------------

    def live(self) -> list[Stream]:
        return [stream for stream in self.streams.values() if stream.over is None]

    def open(self) -> None:
        possible = self.engine.can_open()
        assert not (possible and (self.draining or self.closed))
        if possible:
            stream_id = self.engine.open_stream()
            assert stream_id not in self.streams
            self.streams[stream_id] = Stream(stream_id, accepted=True)
        else:
            self.waits_for_streams = True

    def accept(self, stream: Stream) -> None:
        stream.accepted = True
        self.engine.accept_stream(stream.stream_id)

    def ask_room(self, stream: Stream) -> int:
        room = self.engine.room(stream.stream_id)
        assert room >= 0
        assert not (room and (stream.over or stream.finished or self.closed))
        stream.waits_for_room = not room
        return room

    def send(self, stream: Stream, size: int) -> None:
        data = payload(stream.stream_id, self.role, stream.sent, size)
        if size % 2:
            self._lent.append(bytearray(data))
            self.engine.lend_data(stream.stream_id, memoryview(self._lent[-1]))
        else:
            self.engine.send_data(stream.stream_id, data)
        stream.sent += len(data)

    def finish(self, stream: Stream) -> None:
        self.engine.send_eof(stream.stream_id)
        stream.finished = True

    def reset(self, stream: Stream, code: int) -> None:
        self.engine.reset_stream(stream.stream_id, code)
        stream.over = "reset here"

    def consume(self, stream: Stream, size: int, now: float) -> None:
        self.engine.consumed(stream.stream_id, size, now)
        stream.unconsumed -= size

    def stop_reading(self, stream: Stream, now: float) -> None:
        self.engine.stop_reading(stream.stream_id, now)
        stream.deaf = not stream.got_eof

    def close(self, code: int) -> None:
        self.engine.close(code)
        self.closed = True
        assert self.engine.next_event() is CLOSED

    # --- Bytes -------------------------------------------------------------------------------

    def flush(self, now: float, max_bytes: int) -> int:
        expected = self.engine.has_data_to_send()
        parts = self.engine.data_to_send(now, max_bytes)
        assert bool(parts) == expected
        self.drained = False
        data = self.referee.sent(parts)
        self._take_back_what_was_lent()
        controls = limits.MAX_PENDING_PONGS + limits.MAX_PENDING_REFUSALS + 6
        assert len(data) <= max(max_bytes, 13) + 12 * controls
        self.wire += data
        return len(data)

    def _take_back_what_was_lent(self) -> None:
        self.engine.keep_lent()
        for buffer in self._lent:
            buffer[:] = b"?" * len(buffer)
        self._lent.clear()

    def feed(self, size: int, now: float) -> None:
        """Get up to `size` of the bytes that the other end has sent."""
        data = bytes(self.other.wire[:size])
        if not data:
            return
        del self.other.wire[:size]
        self.other.delivered(data)
        self.referee.received(data)
        self.engine.receive_data(data, now)
        if not self.engine._closed:
            self.heard_at = now
        self.drained = False

    def delivered(self, data: bytes) -> None:
        """The other end has got these bytes; remember only frames of which it has no header."""
        self.wire_read.feed(data)
        frames = self.referee.sent_frames
        while frames and frames[0].header_end <= self.wire_read.position:
            frames.popleft()

    def pull(self, now: float, count: int = 1_000_000) -> None:
        """Take up to `count` events and check that each was to be expected."""
        for _ in range(count):
            event = self.engine.next_event()
            if event is NEED_DATA or event is CLOSED:
                assert (event is CLOSED) == self.closed
                self.drained = True
                return
            assert not self.closed, event
            self._check_event(event, now)

    def _check_event(self, event: object, now: float) -> None:
        match event:
            case StreamOpened(stream_id):
                assert stream_id not in self.streams
                assert stream_id in self.other.streams
                assert not self.draining
                self.streams[stream_id] = Stream(stream_id, accepted=False)
            case StreamsAvailable():
                self.waits_for_streams = not self.engine.can_open()
            case PongReceived(rtt):
                assert rtt >= 0
                self.pongs += 1
                assert self.pongs <= self.referee.pings_asked
            case GoAwayReceived(code):
                assert self.other.closed
                self.draining = True
                self.closed = code != 0
            case KeepaliveTimeout():
                settings = self.settings
                assert settings.keepalive_interval is not None
                patience = settings.keepalive_interval + settings.keepalive_timeout
                assert now - self.heard_at >= patience
                self.closed = True
            case ConnectionLost():
                self.closed = True
            case _:
                stream = self.streams[event.stream_id]  # type: ignore[attr-defined]
                assert stream.over is None, f"{event} after {stream.over}"
                self._check_stream_event(event, stream)

    def _check_stream_event(self, event: object, stream: Stream) -> None:
        peer = self.other.streams.get(stream.stream_id)
        match event:
            case DataReceived(stream_id, data):
                assert data
                assert not stream.got_eof
                assert not stream.deaf
                expected = payload(stream_id, self.other.role, stream.received, len(data))
                assert data == expected
                stream.received += len(data)
                stream.unconsumed += len(data)
            case StreamEOF(stream_id):
                assert not stream.got_eof
                assert peer is not None
                assert peer.finished
                assert stream.received == peer.sent
                stream.got_eof = True
                self.referee.streams[stream_id].peer_finished = True
            case RoomAvailable(_):
                self.ask_room(stream)
            case StreamReset(_, _):
                refused = peer is None and (self.other.draining or self._over_limit())
                assert refused or stream.deaf or (peer and (peer.over or peer.deaf))
                stream.over = "reset"
            case StreamClosed(_):
                assert stream.got_eof
                assert stream.finished
                stream.over = "closed"
            case _:
                raise AssertionError(event)

    def _over_limit(self) -> bool:
        opened = [s for s in self.streams.values() if s.stream_id % 2 == self.role.value % 2]
        return len(opened) > self.other.settings.max_inbound_streams


class Pair:
    """A client and a server, and the clock that both see."""

    def __init__(self, client: Settings, server: Settings) -> None:
        self.now = 100.0
        self.ends = (
            End(Role.CLIENT, client, self.now),
            End(Role.SERVER, server, self.now),
        )
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends:
            end.engine.on_timer(self.now)
            end.drained = False
            again = (end.engine.has_data_to_send(), end.engine.next_deadline())
            end.engine.on_timer(self.now)
            assert again == (end.engine.has_data_to_send(), end.engine.next_deadline())
            assert again[1] is None or again[1] > self.now

    def settle(self) -> None:
        """Move bytes until neither end has any more to say."""
        for _ in range(100_000):
            moved = 0
            for end in self.ends:
                moved += end.flush(self.now, limits.BATCH)
                end.other.feed(len(end.wire), self.now)
                end.other.pull(self.now)
                end.pull(self.now)
            if not moved:
                return
        raise AssertionError("the two ends never stop talking")

    def read_all(self) -> None:
        """Both callers accept, read and hand on everything, until nothing moves."""
        busy = True
        while busy:
            self.settle()
            busy = False
            for end in self.ends:
                for stream in end.live():
                    if not stream.accepted:
                        end.accept(stream)
                        busy = True
                    if stream.unconsumed:
                        end.consume(stream, stream.unconsumed, self.now)
                        busy = True

    # --- What must always hold ---------------------------------------------------------------

    def check(self) -> None:
        for end in self.ends:
            if end.drained and not end.closed:
                self._check_counts(end)
            for stream in end.live():
                self._check_windows(end, stream)
        if all(end.drained and not end.closed for end in self.ends):
            for end in self.ends:
                for stream in end.live():
                    self._check_conservation(end, stream)

    def _check_counts(self, end: End) -> None:
        told = end.referee.streams
        waiting = {
            s.stream_id: s.sent - (told[s.stream_id].data if s.stream_id in told else 0)
            for s in end.live()
        }
        assert end.engine.pending == sum(waiting.values())
        assert end.engine.stream_count == len(end.live())
        pool = end.settings.window_pool
        table = end.engine._table._streams.values()
        assert (
            sum(s.target - limits.INITIAL_WINDOW for s in table) + end.engine._windows._pool == pool
        )
        assert end.engine._windows._pool >= 0

    def _check_windows(self, end: End, stream: Stream) -> None:
        inner = end.engine._table.get(stream.stream_id)
        if inner is None or end.closed or not end.drained:
            return
        inbox = end.engine._inbox
        arriving = inbox._body_left if inbox._body_stream is inner else 0
        assert inner.window + arriving + inner.unconsumed + inner.owed == inner.target
        assert min(inner.window, inner.unconsumed, inner.owed, inner.credit) >= 0
        assert inner.target <= max(end.settings.max_window, limits.INITIAL_WINDOW)
        assert inner.unconsumed == stream.unconsumed
        assert 0 <= inner.send_window <= limits.MAX_WINDOW

    def _check_conservation(self, end: End, stream: Stream) -> None:
        """What `end` may still send is what the other end granted, less what is on its way."""
        sender = end.engine._table.get(stream.stream_id)
        receiver = end.other.engine._table.get(stream.stream_id)
        if sender is None or receiver is None or stream.finished:
            return
        forth = _on_the_wire(end, stream.stream_id, data=True)
        back = _on_the_wire(end.other, stream.stream_id, data=False)
        assert sender.send_window + receiver.credit + back + forth == receiver.window
        assert receiver.state is not State.RESET


def _on_the_wire(end: End, stream_id: int, *, data: bool) -> int:
    """DATA, or else credit, of which the header has not reached the other end."""
    return sum(
        frame.length
        for frame in end.referee.sent_frames
        if frame.stream_id == stream_id and (frame.kind == UPDATE) != data
    )
