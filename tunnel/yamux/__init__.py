"""A Yamux engine without I/O: usable from any runtime. See `Connection`."""

from tunnel.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from tunnel.yamux.connection import Connection
from tunnel.yamux.events import (
    CLOSED,
    NEED_DATA,
    ConnectionLost,
    DataReceived,
    Event,
    GoAwayReceived,
    KeepaliveTimeout,
    PongReceived,
    RoomAvailable,
    StreamClosed,
    StreamEOF,
    StreamOpened,
    StreamReset,
    StreamsAvailable,
)
from tunnel.yamux.frames import GoAwayCode
from tunnel.yamux.settings import Role, Settings

__all__ = [
    "CLOSED",
    "NEED_DATA",
    "Connection",
    "ConnectionLost",
    "DataReceived",
    "Event",
    "GoAwayCode",
    "GoAwayReceived",
    "KeepaliveTimeout",
    "LocalProtocolError",
    "PongReceived",
    "ProtocolError",
    "RemoteProtocolError",
    "Role",
    "RoomAvailable",
    "Settings",
    "StreamClosed",
    "StreamEOF",
    "StreamOpened",
    "StreamReset",
    "StreamsAvailable",
]
