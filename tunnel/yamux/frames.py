"""The Yamux header: 12 bytes, big-endian.

    version: u8 | type: u8 | flags: u16 | stream id: u32 | length: u32

Source: the Yamux specification, "Framing". Only a DATA frame has a body, of `length` bytes; for
the others `length` is the credit, the opaque value of a ping, or the code of a go-away.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final, TypeAlias

VERSION: Final = 0
HEADER: Final = struct.Struct("!BBHII")
HEADER_SIZE: Final = HEADER.size


#: Called with a direction ("in" or "out") and a header as text.
Trace: TypeAlias = Callable[[str, str], None]


class FrameType(enum.IntEnum):
    """What a frame is for."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(enum.IntFlag):
    """What a frame says about its stream, beside what it carries."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAwayCode(enum.IntEnum):
    """Why a session ends (specification, "Go Away")."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


# Plain integers for the code that runs for every frame: an IntEnum member costs a lookup there.
DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3
SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8


def describe(kind: int, flags: int, stream_id: int, length: int) -> str:
    """A header as a trace shows it, such as ``DATA|FIN stream=3 length=12``."""
    try:
        name = FrameType(kind).name
    except ValueError:
        name = f"type {kind}"
    flag_names = [flag.name or "" for flag in Flag if flags & flag]
    return f"{'|'.join([name, *flag_names])} stream={stream_id} length={length}"
