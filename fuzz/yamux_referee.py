"""A strict observer of one end of a Yamux connection: what it sends must parse, and be impeccable.

The engine accepts much more than it may send. This is the narrower rule: the one profile that every
implementation in the field understands.
"""

from __future__ import annotations

import struct
from collections import deque

import attrs

from tunnel import limits
from tunnel.yamux import Role

HEADER = struct.Struct("!BBHII")
DATA, UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


@attrs.frozen
class Frame:
    """A header, and where in the stream of bytes it ends."""

    kind: int
    flags: int
    stream_id: int
    length: int
    header_end: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.flags:x} stream={self.stream_id} length={self.length}"


@attrs.define
class Frames:
    """Cuts bytes that come in any pieces into frames; keeps the frames of which headers came."""

    held: bytearray = attrs.field(factory=bytearray)
    position: int = 0
    skip: int = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames whose headers are complete with these bytes."""
        found = []
        self.held += data
        while True:
            gone = min(self.skip, len(self.held))
            del self.held[:gone]
            self.skip -= gone
            self.position += gone
            if self.skip or len(self.held) < HEADER.size:
                return found
            version, kind, flags, stream_id, length = HEADER.unpack_from(self.held)
            assert version == 0
            assert kind <= GO_AWAY
            del self.held[: HEADER.size]
            self.position += HEADER.size
            self.skip = length if kind == DATA else 0
            found.append(Frame(kind, flags, stream_id, length, self.position))


@attrs.define
class Told:
    """What was said about one stream so far."""

    ours: bool
    begun: bool = False
    finished: bool = False
    reset: bool = False
    #: Set where the engine's events are seen: bytes that came are not yet bytes that were read.
    peer_finished: bool = False
    window: int = limits.INITIAL_WINDOW
    data: int = 0
    credit: int = 0


class Referee:
    """Watches what one end sends, knowing what it has been sent."""

    def __init__(self, role: Role, max_frame: int) -> None:
        self.sent_frames: deque[Frame] = deque()
        self.streams: dict[int, Told] = {}
        self.pings_asked = 0
        self._role = role
        self._max_frame = max_frame
        self._sent = Frames()
        self._received = Frames()
        self._last_id = role.value - 2
        self._pings: deque[int] = deque()
        self._over = False

    def received(self, data: bytes) -> None:
        """These bytes were given to the watched end."""
        for frame in self._received.feed(data):
            if frame.kind == PING and frame.flags == SYN:
                self._pings.append(frame.length)
            elif frame.kind in (DATA, UPDATE):
                told = self.streams.setdefault(frame.stream_id, Told(ours=False))
                told.window += frame.length if frame.kind == UPDATE and frame.flags != RST else 0

    def sent(self, parts: list[bytes | bytearray | memoryview]) -> bytes:
        """The watched end said this; whole frames only."""
        data = b"".join(parts)
        frames = self._sent.feed(data)
        assert not self._sent.held
        assert not self._sent.skip
        for frame in frames:
            assert not self._over, f"{frame} after the go-away"
            self._check(frame)
        self.sent_frames += frames
        return data

    def _check(self, frame: Frame) -> None:
        if frame.kind == PING:
            self._check_ping(frame)
        elif frame.kind == GO_AWAY:
            assert (frame.flags, frame.stream_id) == (0, 0)
            self._over = True
        elif frame.kind == UPDATE and frame.flags == SYN:
            self._check_syn(frame)
        else:
            told = self.streams[frame.stream_id]  # a KeyError here is a stream from nowhere
            assert not told.reset, f"{frame} after RST"
            self._check_stream_frame(frame, told)

    def _check_ping(self, frame: Frame) -> None:
        assert frame.stream_id == 0
        assert frame.flags in (SYN, ACK)
        if frame.flags == ACK:
            assert frame.length == self._pings.popleft()
        else:
            self.pings_asked += 1

    def _check_syn(self, frame: Frame) -> None:
        assert frame.stream_id > self._last_id
        assert frame.stream_id % 2 == self._role.value % 2
        self._last_id = frame.stream_id
        self.streams[frame.stream_id] = Told(ours=True, begun=True, credit=frame.length)

    def _check_stream_frame(self, frame: Frame, told: Told) -> None:
        if frame.kind == UPDATE and frame.flags == RST:
            told.reset = True
            return
        if frame.kind == UPDATE and frame.flags == ACK:
            assert not told.ours
            assert not told.begun, "a second ACK"
            told.begun = True
            told.credit += frame.length
            return
        assert told.begun, f"{frame} before SYN or ACK"
        if frame.kind == DATA:
            assert frame.flags == 0
            assert 0 < frame.length <= self._max_frame
            told.data += frame.length
            assert told.data <= told.window, "beyond the peer's window"
            assert not told.finished, "data after FIN"
        elif frame.flags == FIN:
            assert frame.length == 0
            assert not told.finished, "a second FIN"
            told.finished = True
        else:
            assert frame.flags == 0
            assert frame.length > 0, "an update that says nothing"
            assert not told.peer_finished, "credit after the peer's FIN"
            told.credit += frame.length
