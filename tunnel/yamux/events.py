"""What `Connection.next_event` tells. Nouns and past participles: each has already happened."""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import attrs


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


@attrs.frozen
class DataReceived:
    """Bytes of a stream, in order.

    `data` is a view into what was given to `receive_data`: use or copy it before the buffer
    changes. Call `consumed` for what was really handed on; only that is granted to the peer again.
    """

    stream_id: int
    data: memoryview


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
    """`room` said 0 for this stream earlier, and would not now."""

    stream_id: int


@attrs.frozen
class StreamsAvailable:
    """`can_open` said no earlier, and would not now."""


@attrs.frozen
class PongReceived:
    """The peer answered a ping after `rtt` seconds."""

    rtt: float


@attrs.frozen
class GoAwayReceived:
    """The peer wants no new streams. A `code` other than 0 ends the connection at once."""

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
