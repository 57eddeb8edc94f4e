"""What the engine knows of one stream: its state, its two windows, what waits to be sent."""

from __future__ import annotations

from collections import deque

import attrs

from tunnel import limits
from tunnel.errors import LocalProtocolError
from tunnel.yamux.parser import Buffer
from tunnel.yamux.states import TRANSITIONS, Input, State


@attrs.define(eq=False, slots=True)
class Stream:
    """A record without behaviour of its own, but for the state table and its queue.

    Receiving, `window + unconsumed + owed == target` between two frames, none of them negative:
    what the peer may still send, what the caller has not handed on, what was handed on and is not
    granted again. (Within a frame its bytes that have not come are in none of them.) `credit` is
    the part of `window` that the peer has not been told of.
    """

    stream_id: int
    outbound: bool
    #: Outbound: the peer has shown that it knows the stream. Inbound: we accepted it.
    acknowledged: bool = False
    state: State = State.OPEN

    # Sending
    send_window: int = limits.INITIAL_WINDOW
    pending: deque[Buffer] = attrs.field(factory=deque)
    pending_size: int = 0
    deficit: int = 0
    scheduled: bool = False
    round: int = -1
    wants_room: bool = False

    # To be said, each once
    syn: bool = False
    ack: bool = False
    fin: bool = False
    credit: int = 0

    # Receiving
    window: int = limits.INITIAL_WINDOW
    target: int = limits.INITIAL_WINDOW
    unconsumed: int = 0
    owed: int = 0
    granted_at: float = 0.0
    #: The caller reads no more: what still comes resets the stream.
    deaf: bool = False
    #: The caller has reset it: nothing more is told of it.
    disowned: bool = False

    def apply(self, what: Input) -> State:
        """Move along the table; `LocalProtocolError` if the table has no such arrow."""
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
        """Forget what waits, and everything else that a reset makes pointless."""
        self.pending.clear()
        self.pending_size = 0
        self.fin = self.ack = False
        self.credit = 0
