"""A Yamux engine without I/O: usable from any runtime. See `Connection`.

It runs as it is, and can be compiled to C (`make wheel`): then it does the same in half the time.
"""

from typing import Final

from tunnel.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from tunnel.yamux import connection as _connection
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

#: True in a copy of the program in which the engine is compiled.
COMPILED: Final = not (_connection.__file__ or "").endswith(".py")

__all__ = [
    "CLOSED",
    "COMPILED",
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
