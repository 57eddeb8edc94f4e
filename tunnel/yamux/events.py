"""What `Connection.next_event` tells. Nouns and past participles: each has already happened.

Events come in the order in which things happened, which may be a moment ago. Two rules make that
safe. Of a stream nothing is told after `StreamClosed`, after `StreamReset`, and after the caller's
own `reset_stream`, whatever was waiting. And of a connection nothing is told after the caller's own
`close`, a `RemoteProtocolError`, `KeepaliveTimeout`, `ConnectionLost` or a `GoAwayReceived` with an
error: then it is `CLOSED`.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import ClassVar, Final, TypeAlias

import attrs

from tunnel.yamux.stream import Stream


class Sentinel(enum.Enum):
    """The two answers of `next_event` that are not events."""

    NEED_DATA = enum.auto()
    CLOSED = enum.auto()


#: Nothing more to tell until `receive_data` is called again.
NEED_DATA: Final = Sentinel.NEED_DATA
#: Nothing more to tell, ever.
CLOSED: Final = Sentinel.CLOSED


@attrs.frozen
class StreamOpened:
    """The peer opened a stream; answer with `accept_stream` or `reset_stream`."""

    stream_id: int


class DataReceived:
    """Bytes of a stream, in order.

    `data` is a view into what was given to `receive_data`: use or copy it before the buffer
    changes. Call `consumed` for what was really handed on; only that is granted to the peer again.
    """

    __match_args__: ClassVar = ("stream_id", "data")

    # Plain and not frozen: there is one for every frame, and so it can be compiled.
    def __init__(self, stream_id: int, data: memoryview) -> None:
        self.stream_id = stream_id
        self.data = data

    def __repr__(self) -> str:
        return f"DataReceived(stream_id={self.stream_id}, data={self.data!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DataReceived):
            return NotImplemented
        return self.stream_id == other.stream_id and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


@attrs.frozen
class StreamEOF:
    """The peer has sent everything; our own direction goes on."""

    stream_id: int


@attrs.frozen
class StreamReset:
    """The peer, or a limit, ended the stream at once; `code` is 0 if no reason was given."""

    stream_id: int
    code: int


@attrs.frozen
class StreamClosed:
    """Both directions have ended cleanly. The last event of its stream."""

    stream_id: int


@attrs.frozen
class RoomAvailable:
    """`room` said 0 for this stream earlier; ask it again, since much may have happened since."""

    stream_id: int


@attrs.frozen
class StreamsAvailable:
    """`can_open` said no earlier; ask it again."""


@attrs.frozen
class PongReceived:
    """The peer answered a ping after `rtt` seconds."""

    rtt: float


@attrs.frozen
class GoAwayReceived:
    """The peer wants no new streams; told once. A `code` other than 0 ends the connection."""

    code: int


@attrs.frozen
class KeepaliveTimeout:
    """The peer has been silent for too long; the connection is over."""


@attrs.frozen
class ConnectionLost:
    """The bytes ended; `clean` if between two frames."""

    clean: bool


Event: TypeAlias = (
    StreamOpened
    | DataReceived
    | StreamEOF
    | StreamReset
    | StreamClosed
    | RoomAvailable
    | StreamsAvailable
    | PongReceived
    | GoAwayReceived
    | KeepaliveTimeout
    | ConnectionLost
)


class EventQueue:
    """What waits for `next_event`; holds the two rules of the module.

    It stays short without a bound of its own: bytes are parsed only while it is empty, so that most
    of it is what the caller caused.
    """

    __slots__ = ("_closed", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Stream | None, Event]] = deque()
        self._closed = False

    def put(self, event: Event, stream: Stream | None = None) -> None:
        """Add what happened; `stream` is the one that it is about, if any."""
        if not self._closed:
            self.waiting.append((stream, event))

    def get(self) -> Event | None:
        """Take the next event, leaving out those of streams that the caller has reset."""
        while self.waiting:
            stream, event = self.waiting.popleft()
            if stream is None or not stream.abandoned:
                return event
        return None

    def find(self, stream_id: int) -> Stream | None:
        """The stream of that number, over or not, if something is still to be told of it."""
        for stream, _ in self.waiting:
            if stream is not None and stream.stream_id == stream_id and not stream.abandoned:
                return stream
        return None

    def close(self) -> None:
        """Take no more: the connection is over. What waits is still told."""
        self._closed = True
