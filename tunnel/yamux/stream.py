"""What the engine knows of one stream: its state, its two windows, what waits to be sent."""

from __future__ import annotations

from collections import deque

from tunnel import limits
from tunnel.errors import LocalProtocolError
from tunnel.yamux.frames import Buffer
from tunnel.yamux.states import OPEN, TRANSITIONS, Input, State


class Stream:
    """A record: its only behaviour is the state table's and that of its queue.

    Receiving, `window + unconsumed + owed == target` holds between two frames, with no term
    negative: bytes that the peer may still send, bytes that the caller has not handed on, and bytes
    that were handed on and not yet granted again. (While a frame is coming in, its bytes that have
    not come are in none of them.) So what is held of a stream never exceeds `target`. `credit` is
    the part of `window` that the peer has not been told of.

    Args:
      stream_id: its number.
      outbound: this end opened it.
      syn: its SYN is still to be sent.
      granted_at: seconds; when the peer was last given credit.
    """

    # Plain, since attributes that a decorator makes cannot be compiled.
    def __init__(
        self, stream_id: int, *, outbound: bool, syn: bool = False, granted_at: float = 0.0
    ) -> None:
        self.stream_id = stream_id
        self.outbound = outbound
        #: Outbound: the peer has shown that it knows the stream. Inbound: we accepted it.
        self.acknowledged = False
        self.state: State = OPEN

        # Sending
        self.send_window = limits.INITIAL_WINDOW
        self.pending: deque[Buffer] = deque()
        self.pending_size = 0
        #: Bytes that the stream may send before its turn ends; see `Outbox`.
        self.deficit = 0
        self.scheduled = False
        #: The round in which it last ran out of bytes or credit.
        self.round = -1
        self.wants_room = False

        # To be sent, each once. They are flags and not queued frames, so that what a stream has to
        # say costs the same memory however often the caller, or the peer, makes it say something.
        self.syn = syn
        self.ack = False
        self.fin = False
        self.credit = 0

        # Receiving
        self.window = limits.INITIAL_WINDOW
        self.target = limits.INITIAL_WINDOW
        self.unconsumed = 0
        self.owed = 0
        self.granted_at = granted_at
        #: The caller reads no more: what still comes resets the stream.
        self.read_closed = False
        #: The caller has reset it: nothing more is told of it.
        self.abandoned = False

    def apply(self, what: Input) -> State:
        """Move along the table.

        Raises:
          LocalProtocolError: the table has no entry for this state and input.
        """
        try:
            self.state = TRANSITIONS[self.state, what]
        except KeyError:
            raise LocalProtocolError(
                f"cannot {what.value} on stream {self.stream_id}: it is {self.state.value}"
            ) from None
        return self.state

    def put(self, data: Buffer) -> None:
        """Queue bytes behind what waits already; the buffer must not change until sent."""
        self.pending.append(data)
        self.pending_size += len(data)

    def take(self, size: int, parts: list[Buffer]) -> None:
        """Move `size` of the waiting bytes to `parts`, uncopied."""
        self.pending_size -= size
        self.send_window -= size
        pending = self.pending
        while size:
            piece = pending.popleft()
            if len(piece) > size:
                view = memoryview(piece)
                pending.appendleft(view[size:])
                piece = view[:size]
            parts.append(piece)
            size -= len(piece)

    def keep_pending(self) -> None:
        """Copy what waits in buffers that can change; what cannot is kept as it is."""
        self.pending = deque(
            bytes(data) if isinstance(data, memoryview) and not data.readonly else data
            for data in self.pending
        )

    def drop_pending(self) -> None:
        """Drop what waits, and every flag that a reset makes void."""
        self.pending.clear()
        self.pending_size = 0
        self.fin = self.ack = False
        self.credit = 0
