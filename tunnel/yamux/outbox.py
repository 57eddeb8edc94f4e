"""Everything that waits to be sent, and the order in which it goes.

Frames are made when there is room on the wire and not before. What has become a frame can be
overtaken by nothing, so the queues hold streams and not frames, and the order is decided as late as
possible: first pongs and the ping, then resets, then control frames, then data.

Data goes by deficit round robin with the two lists of fq_codel (RFC 8290 section 4). Each stream
may send `frame_size` bytes a round (its deficit); a stream that has just begun to send goes before
those that have been sending, once a round. A keystroke therefore does not wait for a round of a
hundred downloads, and a stream cannot stay ahead by sending little and often.

A FIN is a frame of its own, a window update without credit, and so are SYN and ACK. The
specification allows them on DATA frames; but of a DATA frame with FIN some peers lose the payload
and others the FIN, and this form is the only one that all of them read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeAlias

from tunnel.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    HEADER_SIZE,
    PING,
    RST,
    SYN,
    VERSION,
    WINDOW_UPDATE,
    Buffer,
    Trace,
    describe,
)
from tunnel.yamux.stream import Stream

#: A frame is cut short to fit a batch only if this much of it fits: a header costs 12 bytes on the
#: wire, and much more at both ends.
MIN_PIECE: Final = 1024
#: Frames of fresh streams in a row while others wait: a flow of new streams must not starve those
#: that are in the second list.
FRESH_FRAMES: Final = 8

Queue: TypeAlias = OrderedDict[int, Stream]


class Outbox:
    """The queues of one connection. Memory: O(streams) plus what the streams hold themselves.

    Args:
      frame_size: largest payload of a DATA frame, bytes; may be changed at any time.
      trace: called for each frame that goes out.
    """

    def __init__(self, frame_size: int, trace: Trace | None = None) -> None:
        self._trace = trace
        self.frame_size = frame_size
        #: Payload bytes that wait, of all streams.
        self.pending = 0
        self.ping: int | None = None
        self.pongs: list[int] = []
        #: Streams that end with an RST, and its code. Not in `_control`, since they are forgotten.
        self.resets: list[tuple[int, int]] = []
        self.go_away: int | None = None
        #: Streams of which the last `build` took data or the FIN, in that order.
        self.served: dict[int, Stream] = {}
        # OrderedDict: taking the first and removing any are both O(1), which a dict's are not.
        self._control: Queue = OrderedDict()
        self._fresh: Queue = OrderedDict()
        self._backlog: Queue = OrderedDict()
        self._round = 0
        self._turns = 0
        self._fresh_frames = 0
        self._over = False

    def __bool__(self) -> bool:
        # Data first: that is what there is most often, and this is asked with every batch.
        return bool(
            self._fresh
            or self._backlog
            or self._control
            or self.resets
            or self._has_session_frames()
            or self.go_away is not None
        )

    def _has_session_frames(self) -> bool:
        return bool(self.pongs) or self.ping is not None

    def _has_stream_frames(self) -> bool:
        return bool(self.resets or self._control or self._fresh or self._backlog)

    # --- What is to be sent ------------------------------------------------------------------

    def control(self, stream: Stream) -> None:
        """Queue the stream, once, for the SYN, ACK, credit or lone FIN that its flags say."""
        if not self._over:
            self._control[stream.stream_id] = stream

    def data(self, stream: Stream) -> None:
        """Schedule the stream if it has bytes to send and a window to send them in."""
        if stream.scheduled or not (stream.pending_size and stream.send_window):
            return
        stream.scheduled = True
        if self._backlog and stream.round == self._round:
            # Served in this round already: without this, a stream that always sends a little
            # would always be fresh. Behind all others it has its next share to come, as they have.
            if stream.deficit <= 0:
                stream.deficit += self.frame_size
            self._backlog[stream.stream_id] = stream
        else:
            stream.deficit = self.frame_size
            self._fresh[stream.stream_id] = stream

    def put(self, stream: Stream, data: Buffer) -> None:
        """Queue bytes of the stream behind those that wait."""
        stream.put(data)
        self.pending += len(data)
        if not stream.scheduled:
            self.data(stream)

    def finish(self, stream: Stream) -> None:
        """Queue a FIN behind the bytes of the stream that wait."""
        stream.fin = True
        if not stream.pending_size:
            self.control(stream)

    def forget(self, stream: Stream) -> None:
        """Drop everything of a stream that is over."""
        if not self._over:
            self.pending -= stream.pending_size
        stream.drop_pending()
        for queue in (self._control, self._fresh, self._backlog):
            queue.pop(stream.stream_id, None)
        stream.scheduled = False

    def reset(self, stream: Stream, code: int) -> None:
        """Drop everything of the stream, and queue an RST."""
        self.forget(stream)
        if not stream.syn:  # else the peer has never heard of the stream
            self.refuse(stream.stream_id, code)

    def refuse(self, stream_id: int, code: int = 0) -> None:
        """Queue an RST for a stream that the table does not have (any more)."""
        if not self._over:
            self.resets.append((stream_id, code))

    def retract_credit(self, stream: Stream) -> None:
        """Drop credit that waits: the peer has sent its FIN and needs none."""
        stream.credit = 0
        if not (stream.syn or stream.ack or (stream.fin and not stream.pending_size)):
            self._control.pop(stream.stream_id, None)

    def queue_go_away(self, code: int, *, at_once: bool) -> None:
        """Queue a go-away behind everything else; `at_once` drops everything else."""
        if at_once:
            self.end()
        self.go_away = code

    def end(self) -> None:
        """Drop all that waits, and queue nothing from now on."""
        self._over = True
        self.pending = 0
        self.ping = self.go_away = None
        for queue in (self.pongs, self.resets, self._control, self._fresh, self._backlog):
            queue.clear()

    # --- What goes out now -------------------------------------------------------------------

    def build(self, max_bytes: int) -> list[Buffer]:
        """Take frames of about `max_bytes` together from the queues; at least one if there is any.

        Returns headers and pieces of the caller's own buffers, in the order of the wire.
        """
        parts: list[Buffer] = []
        max_bytes = max(max_bytes, 1)
        if self._has_session_frames():
            self._build_session(parts)
        if self.resets or self._control:
            self._build_control(parts, max_bytes)
        self._build_data(parts, max_bytes - HEADER_SIZE * len(parts))
        if self.go_away is not None and not self._has_stream_frames():
            self._frame(parts, GO_AWAY, 0, 0, self.go_away)
            self.end()
        return parts

    def _build_session(self, parts: list[Buffer]) -> None:
        for value in self.pongs:
            self._frame(parts, PING, ACK, 0, value)
        self.pongs.clear()
        if self.ping is not None:
            self._frame(parts, PING, SYN, 0, self.ping)
            self.ping = None

    def _build_control(self, parts: list[Buffer], max_bytes: int) -> None:
        room = max(0, -(-max_bytes // HEADER_SIZE) - len(parts))
        for stream_id, code in self.resets[:room]:
            self._update(parts, RST, stream_id, code)
        del self.resets[:room]
        while self._control and len(parts) * HEADER_SIZE < max_bytes:
            self._build_stream_control(self._control.popitem(last=False)[1], parts)

    def _build_stream_control(self, stream: Stream, parts: list[Buffer]) -> None:
        """Everything that the stream has to say, one flag a frame."""
        for flag in (SYN, ACK):
            if stream.syn if flag == SYN else stream.ack:
                self._update(parts, flag, stream.stream_id, stream.credit)
                stream.credit = 0
        stream.syn = stream.ack = False
        if stream.credit:
            self._update(parts, 0, stream.stream_id, stream.credit)
            stream.credit = 0
        if stream.fin and not stream.pending_size:
            self._build_fin(stream, parts)

    def _build_fin(self, stream: Stream, parts: list[Buffer]) -> None:
        # On a window update and never on a DATA frame: see the module.
        stream.fin = False
        self._update(parts, FIN, stream.stream_id, 0)
        self.served[stream.stream_id] = stream

    def _build_data(self, parts: list[Buffer], budget: int) -> None:
        while queue := self._next_queue():
            stream = next(iter(queue.values()))
            if stream.deficit <= 0:
                self._next_in_round(queue)
                continue
            size = min(stream.pending_size, stream.send_window, self.frame_size)
            if size > budget - HEADER_SIZE:
                if parts and budget - HEADER_SIZE < MIN_PIECE:
                    return
                size = min(size, max(budget - HEADER_SIZE, 1))
            self._build_frame(stream, size, parts)
            self._fresh_frames = self._fresh_frames + 1 if queue is self._fresh else 0
            if not (stream.pending_size and stream.send_window):
                del queue[stream.stream_id]
                stream.scheduled = False
                stream.round = self._round
            budget -= size + HEADER_SIZE

    def _next_queue(self) -> Queue:
        if self._fresh and (self._fresh_frames < FRESH_FRAMES or not self._backlog):
            return self._fresh
        return self._backlog

    def _next_in_round(self, queue: Queue) -> None:
        """Move the first stream, which has had its share, to the back, with its next one."""
        stream_id, stream = queue.popitem(last=False)
        stream.deficit += self.frame_size
        self._backlog[stream_id] = stream
        self._turns += 1
        if self._turns >= len(self._backlog):
            self._turns = 0
            self._round += 1

    def _build_frame(self, stream: Stream, size: int, parts: list[Buffer]) -> None:
        self._frame(parts, DATA, 0, stream.stream_id, size)
        stream.take(size, parts)
        stream.deficit -= size
        self.pending -= size
        self.served[stream.stream_id] = stream
        if stream.fin and not stream.pending_size:
            self._build_fin(stream, parts)

    def _update(self, parts: list[Buffer], flags: int, stream_id: int, length: int) -> None:
        self._frame(parts, WINDOW_UPDATE, flags, stream_id, length)

    def _frame(
        self, parts: list[Buffer], kind: int, flags: int, stream_id: int, length: int
    ) -> None:
        parts.append(HEADER.pack(VERSION, kind, flags, stream_id, length))
        if self._trace is not None:
            self._trace("out", describe(kind, flags, stream_id, length))
